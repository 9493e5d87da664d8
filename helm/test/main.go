// SPDX-License-Identifier: Apache-2.0

// Checks the chart and the manifests without a cluster: what helm would do is done by helm's own packages, and
// every object is decoded strictly into the Kubernetes API's types, so that a field that does not exist is an error.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
)

const usage = `usage: chart check            all of it; run by ./run test chart
       chart alerts           the alerts, with promtool; exit code 77 where that is not on PATH
       chart render FILE...   the chart with values files, as one YAML stream
       chart base             writes manifests/base anew

Run in the repository's root. WD_BIN: a folder with warpdrive-agent, whose settings are compared with the schema.
`

// failures collects what is wrong, so that one run tells all of it.
type failures []string

func (f *failures) add(where, format string, args ...any) {
	*f = append(*f, where+": "+fmt.Sprintf(format, args...))
}

func main() {
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	ch, err := loader.Load("helm/warpdrive")
	if err != nil {
		fatal(err)
	}
	c := &checker{chart: ch}
	code := 0
	switch command {
	case "check":
		c.checkAll()
	case "alerts":
		code = c.checkAlerts()
	case "render":
		out, err := c.render(readValues(os.Args[2:]), newest)
		if err != nil {
			fatal(err)
		}
		fmt.Print(out)
	case "base":
		if err := c.writeBase(); err != nil {
			fatal(err)
		}
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	sort.Strings(c.bad)
	for _, line := range c.bad {
		fmt.Println("FAIL ", line)
	}
	if len(c.bad) > 0 {
		code = 1
	}
	os.Exit(code)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "chart:", err)
	os.Exit(1)
}

func (c *checker) checkAll() {
	c.checkLint()
	for _, file := range glob("helm/test/values/*.yaml") {
		c.checkValues(file)
	}
	for _, file := range glob("helm/test/refused/*.yaml") {
		c.checkRefused(file)
	}
	c.checkSettings()
	c.checkBase()
	c.checkExamples()
	if len(c.bad) == 0 {
		fmt.Printf("ok    chart: %d objects of %d renderings, %d refusals, %d examples\n", c.objects, c.renderings,
			c.refusals, c.examples)
	}
}

func glob(pattern string) []string {
	files, _ := filepath.Glob(pattern)
	if len(files) == 0 {
		fatal(fmt.Errorf("no file matches %s: run in the repository's root", pattern))
	}
	return files
}

func base(file string) string {
	return strings.TrimSuffix(filepath.Base(file), ".yaml")
}
