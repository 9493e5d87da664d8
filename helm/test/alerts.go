// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

const alertTests = "helm/test/alerts.yaml"

// Exit code of what is left out.
const skipped = 77

// checkAlerts has Prometheus' own promtool read the chart's alerts, and play alertTests with them. It returns the exit
// code.
func (c *checker) checkAlerts() int {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		fmt.Println("skip  alerts: promtool is not on PATH (Debian 13: package promtool, Debian 12: prometheus)")
		return skipped
	}
	dir, err := os.MkdirTemp("", "warpdrive-alerts-")
	if err != nil {
		fatal(err)
	}
	defer os.RemoveAll(dir)
	tests, err := os.ReadFile(alertTests)
	if err != nil {
		fatal(err)
	}
	names := c.writeRules(filepath.Join(dir, "rules.yaml"))
	for _, name := range names {
		if !strings.Contains(string(tests), "alertname: "+name+"\n") {
			c.bad.add("alerts", "%s does not try %s", alertTests, name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tests.yaml"), tests, 0o600); err != nil {
		fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "tests.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			c.bad.add("alerts", "promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if len(c.bad) > 0 {
		return 1
	}
	fmt.Printf("ok    alerts: %d\n", len(names))
	return 0
}

// writeRules makes of the PrometheusRule what Prometheus' operator does, a file of rules, and returns the alerts' names.
func (c *checker) writeRules(path string) []string {
	text, err := c.render(map[string]any{"prometheusRule": map[string]any{"create": true}}, newest)
	if err != nil {
		fatal(err)
	}
	names := []string{}
	for _, doc := range documents(text) {
		rule := struct {
			Kind string
			Spec struct {
				Groups []struct{ Rules []struct{ Alert string } }
			}
		}{}
		whole := struct{ Spec any }{}
		if yaml.Unmarshal([]byte(doc), &rule) != nil || rule.Kind != "PrometheusRule" {
			continue
		}
		if err := yaml.Unmarshal([]byte(doc), &whole); err != nil {
			fatal(err)
		}
		out, err := yaml.Marshal(whole.Spec)
		if err == nil {
			err = os.WriteFile(path, out, 0o600)
		}
		if err != nil {
			fatal(err)
		}
		for _, group := range rule.Spec.Groups {
			for _, r := range group.Rules {
				names = append(names, r.Alert)
			}
		}
	}
	if len(names) == 0 {
		c.bad.add("alerts", "the chart makes none")
	}
	return names
}
