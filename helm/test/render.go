// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/runtime"
	k8sjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	oldest    = "v1.26.0"
	newest    = "v1.36.0"
	namespace = "warpdrive"
)

type checker struct {
	chart                                   *chart.Chart
	bad                                     failures
	objects, renderings, refusals, examples int
}

func readValues(files []string) map[string]any {
	all := map[string]any{}
	for _, file := range files {
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			fatal(err)
		}
		all = chartutil.CoalesceTables(values, all)
	}
	return all
}

// render does what helm template does; the documents are in the order of their files' names.
func (c *checker) render(values map[string]any, version string) (string, error) {
	kube, err := chartutil.ParseKubeVersion(version)
	if err != nil {
		return "", err
	}
	caps := chartutil.DefaultCapabilities.Copy()
	caps.KubeVersion = *kube
	options := chartutil.ReleaseOptions{Name: "warpdrive", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c.chart, values, options, caps)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(c.chart, all)
	if err != nil {
		return "", err
	}
	names := []string{}
	for name := range files {
		if strings.HasSuffix(name, ".yaml") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	out := strings.Builder{}
	for _, name := range names {
		for _, doc := range documents(files[name]) {
			fmt.Fprintf(&out, "---\n%s\n", strings.TrimSpace(doc))
		}
	}
	return out.String(), nil
}

var separator = regexp.MustCompile(`(?m)^---.*$`)

// documents leaves out those that hold comments only.
func documents(text string) []string {
	found := []string{}
	for _, doc := range separator.Split(text, -1) {
		var v any
		if yaml.Unmarshal([]byte(doc), &v) != nil || v != nil {
			found = append(found, doc)
		}
	}
	return found
}

var strict = k8sjson.NewSerializerWithOptions(k8sjson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
	k8sjson.SerializerOptions{Yaml: true, Strict: true})

// decode returns nil for a kind that is not Kubernetes' own.
func (c *checker) decode(where, doc string) runtime.Object {
	head := struct{ APIVersion, Kind string }{}
	if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
		c.bad.add(where, "%v", err)
		return nil
	}
	if strings.HasPrefix(head.APIVersion, "monitoring.coreos.com/") ||
		strings.HasPrefix(head.APIVersion, "kustomize.config.k8s.io/") {
		return nil
	}
	obj, _, err := strict.Decode([]byte(doc), nil, nil)
	if err != nil {
		c.bad.add(where, "%s: %v", head.Kind, err)
		return nil
	}
	c.objects++
	return obj
}

func (c *checker) decodeAll(where, text string) []runtime.Object {
	all := []runtime.Object{}
	for _, doc := range documents(text) {
		if obj := c.decode(where, doc); obj != nil {
			all = append(all, obj)
		}
	}
	return all
}

func (c *checker) checkLint() {
	kube, _ := chartutil.ParseKubeVersion(newest)
	result := lint.AllWithKubeVersion("helm/warpdrive", nil, namespace, kube)
	for _, m := range result.Messages {
		if m.Severity >= support.WarningSev {
			c.bad.add("lint", "%v", m)
		}
	}
}

func (c *checker) checkValues(file string) {
	for _, version := range []string{oldest, newest} {
		where := base(file) + ", " + version
		text, err := c.render(readValues([]string{file}), version)
		if err != nil {
			c.bad.add(where, "%v", err)
			continue
		}
		c.renderings++
		c.checkObjects(where, c.decodeAll(where, text))
		c.checkMetrics(where, text)
	}
	c.checkExpected(file)
}

var expectation = regexp.MustCompile(`(?m)^# (expect|reject): (.+)$`)

// checkExpected: a values file may say what its rendering must (not) hold, in comments.
func (c *checker) checkExpected(file string) {
	source, _ := os.ReadFile(file)
	text, err := c.render(readValues([]string{file}), newest)
	if err != nil {
		return
	}
	for _, m := range expectation.FindAllStringSubmatch(string(source), -1) {
		if strings.Contains(text, m[2]) != (m[1] == "expect") {
			c.bad.add(base(file), "%s: '%s'", m[1], m[2])
		}
	}
}

var refusal = regexp.MustCompile(`^# (.+)\n`)

// checkRefused: the first line is a comment with what the schema must say.
func (c *checker) checkRefused(file string) {
	source, _ := os.ReadFile(file)
	m := refusal.FindSubmatch(source)
	if m == nil {
		c.bad.add(base(file), "its first line does not say how it is refused")
		return
	}
	c.refusals++
	_, err := c.render(readValues([]string{file}), newest)
	if err == nil {
		c.bad.add(base(file), "accepted, and should be refused with '%s'", m[1])
	} else if !strings.Contains(err.Error(), string(m[1])) {
		c.bad.add(base(file), "refused with '%v', not '%s'", err, m[1])
	}
}

// The settings that the chart writes itself.
var ownSettings = []string{"run-dir", "cache-dir", "cache-size", "free-space-floor", "http-listen", "kubernetes",
	"socket-for-group"}

// checkSettings: the schema names exactly the agent's settings.
func (c *checker) checkSettings() {
	bin := os.Getenv("WD_BIN")
	if bin == "" {
		return
	}
	out, err := exec.Command(filepath.Join(bin, "warpdrive-agent"), "--print-defaults").Output()
	if err != nil {
		c.bad.add("settings", "warpdrive-agent --print-defaults: %v", err)
		return
	}
	theirs := map[string]any{}
	if err := yaml.Unmarshal(out, &theirs); err != nil {
		c.bad.add("settings", "%v", err)
	}
	type node struct {
		Properties map[string]*node `json:"properties"`
	}
	schema := node{}
	if err := json.Unmarshal(c.chart.Schema, &schema); err != nil {
		c.bad.add("settings", "%v", err)
		return
	}
	ours := schema.Properties["agent"].Properties["settings"].Properties
	for _, name := range ownSettings {
		ours[name] = &node{}
	}
	for name := range theirs {
		if ours[name] == nil {
			c.bad.add("settings", "'%s' of the agent is missing in values.schema.json", name)
		}
	}
	for name := range ours {
		if _, ok := theirs[name]; !ok {
			c.bad.add("settings", "'%s' of values.schema.json is no setting of the agent", name)
		}
	}
	c.checkConfig(filepath.Join(bin, "warpdrive-agent"))
}

// checkConfig: the agent accepts every configuration that the chart makes.
func (c *checker) checkConfig(agent string) {
	for _, file := range glob("helm/test/values/*.yaml") {
		text, err := c.render(readValues([]string{file}), newest)
		if err != nil {
			continue
		}
		config := filepath.Join(os.TempDir(), fmt.Sprintf("warpdrive-agent-%d.yaml", os.Getpid()))
		if err := os.WriteFile(config, []byte(configOf(c.decodeAll(file, text))), 0o600); err != nil {
			fatal(err)
		}
		out := bytes.Buffer{}
		cmd := exec.Command(agent, "--config", config, "--check-config")
		cmd.Stderr = &out
		if cmd.Run() != nil {
			c.bad.add(base(file), "agent.yaml: %s", strings.TrimSpace(out.String()))
		}
		os.Remove(config)
	}
}
