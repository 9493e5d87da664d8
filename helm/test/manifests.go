// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/yaml"
)

const (
	baseDir  = "manifests/base"
	driver   = "csi.warpdrive.io"
	baseHead = "# Made from helm/warpdrive by helm/test; do not edit: ./run chart base\n"
)

// Labels that say who made an object: kustomize makes those of the base.
var helmLabel = regexp.MustCompile(`(?m)^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by|app\.kubernetes\.io/instance): .*\n`)

// baseFiles: one file per kind of pod would scatter what belongs together; one per object's kind reads well.
func (c *checker) baseFiles() (map[string]string, error) {
	text, err := c.render(map[string]any{"namespace": map[string]any{"create": true}}, oldest)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, doc := range documents(text) {
		head := struct {
			Kind     string
			Metadata struct{ Annotations map[string]string }
		}{}
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			return nil, err
		}
		if head.Metadata.Annotations["helm.sh/hook"] != "" {
			continue // kustomize has no hooks
		}
		name := strings.ToLower(head.Kind) + ".yaml"
		files[name] += "---\n" + strings.TrimSpace(helmLabel.ReplaceAllString(doc, "")) + "\n"
	}
	names := []string{}
	for name := range files {
		files[name] = baseHead + files[name]
		names = append(names, name)
	}
	sort.Strings(names)
	files["kustomization.yaml"] = baseHead + "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - " +
		strings.Join(names, "\n  - ") + "\n"
	return files, nil
}

func (c *checker) writeBase() error {
	files, err := c.baseFiles()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(baseDir); err != nil {
		return err
	}
	if err := os.MkdirAll(baseDir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(baseDir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkBase() {
	files, err := c.baseFiles()
	if err != nil {
		c.bad.add("base", "%v", err)
		return
	}
	for _, path := range glob(baseDir + "/*") {
		name := filepath.Base(path)
		text, err := os.ReadFile(path)
		if err != nil || string(text) != files[name] {
			c.bad.add("base", "%s is not what the chart makes: ./run chart base", path)
		}
		c.decodeAll(path, string(text))
		delete(files, name)
	}
	for name := range files {
		c.bad.add("base", "%s is missing: ./run chart base", name)
	}
}

// ---- examples ----

var (
	wordTable = regexp.MustCompile(`(?s)\} words\[\] = \{(.*?)\n\};`)
	wordRow   = regexp.MustCompile(`\{"(\w+)", [^,]+, (WORD_\w+)\}`)
	claimWord = regexp.MustCompile(`#define (?:DATASET|PATH|VERSION) ANNOTATION "(\w+)"`)
)

// words of the volume context, from the driver's own table; true for those that only a class may have.
func (c *checker) words() map[string]bool {
	source, err := os.ReadFile("csi/volume.c")
	if err != nil {
		fatal(err)
	}
	found := map[string]bool{}
	if table := wordTable.FindSubmatch(source); table != nil {
		for _, row := range wordRow.FindAllSubmatch(table[1], -1) {
			if string(row[2]) != "WORD_LATER" {
				found[string(row[1])] = string(row[2]) == "WORD_CLASS"
			}
		}
	}
	if len(found) < 5 {
		c.bad.add("examples", "csi/volume.c: the table of words is not where it was")
	}
	return found
}

func (c *checker) annotations() map[string]bool {
	source, err := os.ReadFile("csi/provision.c")
	if err != nil {
		fatal(err)
	}
	found := map[string]bool{}
	for _, m := range claimWord.FindAllSubmatch(source, -1) {
		found["warpdrive.io/"+string(m[1])] = true
	}
	return found
}

func (c *checker) checkWords(where string, context map[string]string, isClass bool) {
	known := c.words()
	for key := range context {
		ofClass, ok := known[key]
		isOfKubernetes := strings.Contains(key, ".k8s.io/") || strings.Contains(key, ".kubernetes.io/")
		if !(ok && (isClass || !ofClass)) && !isOfKubernetes {
			c.bad.add(where, "'%s' is no word of the driver", key)
		}
	}
}

func (c *checker) checkExamples() {
	for _, path := range glob("manifests/examples/*.yaml") {
		text, err := os.ReadFile(path)
		if err != nil {
			fatal(err)
		}
		c.examples++
		for i, obj := range c.decodeAll(path, string(text)) {
			where := fmt.Sprintf("%s, object %d", path, i+1)
			switch o := obj.(type) {
			case *storagev1.StorageClass:
				if o.Provisioner != driver {
					c.bad.add(where, "provisioner '%s'", o.Provisioner)
				}
				c.checkWords(where, o.Parameters, true)
			case *corev1.PersistentVolume:
				if o.Spec.CSI == nil || o.Spec.CSI.Driver != driver {
					c.bad.add(where, "not a volume of %s", driver)
					continue
				}
				c.checkWords(where, o.Spec.CSI.VolumeAttributes, false)
			case *corev1.PersistentVolumeClaim:
				for key := range o.Annotations {
					if strings.HasPrefix(key, "warpdrive.io/") && !c.annotations()[key] {
						c.bad.add(where, "annotation '%s' is not known", key)
					}
				}
			case *corev1.Pod:
				c.checkInline(where, &o.Spec)
			}
		}
	}
}

func (c *checker) checkInline(where string, pod *corev1.PodSpec) {
	for _, v := range pod.Volumes {
		if v.CSI != nil {
			c.checkWords(where, v.CSI.VolumeAttributes, false)
		}
	}
}
