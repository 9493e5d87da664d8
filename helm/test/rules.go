// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// The chart's promises about its objects, whatever the values.
func (c *checker) checkObjects(where string, objects []runtime.Object) {
	seen := map[string]bool{}
	pods := []labels.Set{}
	for _, obj := range objects {
		accessor, err := meta.Accessor(obj)
		if err != nil {
			c.bad.add(where, "%v", err)
			continue
		}
		kind := obj.GetObjectKind().GroupVersionKind().Kind
		at := where + ": " + kind + " " + accessor.GetName()
		if seen[kind+accessor.GetNamespace()+accessor.GetName()] {
			c.bad.add(at, "twice")
		}
		seen[kind+accessor.GetNamespace()+accessor.GetName()] = true
		switch o := obj.(type) {
		case *appsv1.DaemonSet:
			c.checkPod(at, o.Spec.Template, o.Spec.Selector)
			pods = append(pods, o.Spec.Template.Labels)
			if !slices.ContainsFunc(o.Spec.Template.Spec.Tolerations, toleratesAll) {
				c.bad.add(at, "does not tolerate all taints")
			}
		case *appsv1.Deployment:
			c.checkPod(at, o.Spec.Template, o.Spec.Selector)
			pods = append(pods, o.Spec.Template.Labels)
		case *batchv1.Job:
			c.checkPod(at, o.Spec.Template, &metav1.LabelSelector{})
		case *rbacv1.ClusterRole:
			c.checkRules(at, o.Rules)
		case *rbacv1.Role:
			c.checkRules(at, o.Rules)
		case *policyv1.PodDisruptionBudget:
			if o.Spec.MaxUnavailable == nil || o.Spec.MaxUnavailable.IntValue() < 1 {
				c.bad.add(at, "can block a drain")
			}
		}
	}
	for _, obj := range objects {
		if s, ok := obj.(*corev1.Service); ok &&
			!slices.ContainsFunc(pods, func(p labels.Set) bool {
				return labels.SelectorFromSet(s.Spec.Selector).Matches(p)
			}) {
			c.bad.add(where, "Service %s selects no pod", s.Name)
		}
	}
}

func toleratesAll(t corev1.Toleration) bool {
	return t.Operator == corev1.TolerationOpExists && t.Key == "" && t.Effect == ""
}

// Nobody needs secrets, everything or every verb.
func (c *checker) checkRules(at string, rules []rbacv1.PolicyRule) {
	for _, rule := range rules {
		for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs) {
			if word == "*" || word == "secrets" {
				c.bad.add(at, "rule with '%s'", word)
			}
		}
	}
}

func (c *checker) checkPod(at string, pod corev1.PodTemplateSpec, selector *metav1.LabelSelector) {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || !s.Matches(labels.Set(pod.Labels)) {
		c.bad.add(at, "its selector does not match its own pods")
	}
	if pod.Spec.ServiceAccountName == "" {
		c.bad.add(at, "no service account")
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
	}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		name := at + "/" + container.Name
		for _, m := range container.VolumeMounts {
			if !volumes[m.Name] {
				c.bad.add(name, "mounts '%s', which is no volume", m.Name)
			}
		}
		if !strings.Contains(container.Image, ":") || strings.HasSuffix(container.Image, ":latest") {
			c.bad.add(name, "image '%s' is not pinned", container.Image)
		}
		if container.Resources.Requests == nil && container.Resources.Limits == nil {
			c.bad.add(name, "no resources")
		}
		c.checkSecurity(name, &pod.Spec, &container)
	}
}

// The keeper alone is privileged; everybody else has nothing.
func (c *checker) checkSecurity(name string, pod *corev1.PodSpec, container *corev1.Container) {
	security := container.SecurityContext
	if security == nil || security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem {
		c.bad.add(name, "its root file system can be written")
		return
	}
	if security.Privileged != nil && *security.Privileged {
		if container.Name != "keeper" {
			c.bad.add(name, "privileged")
		}
		return
	}
	if security.AllowPrivilegeEscalation == nil || *security.AllowPrivilegeEscalation {
		c.bad.add(name, "may escalate its privileges")
	}
	if security.Capabilities == nil || !slices.Contains(security.Capabilities.Drop, "ALL") {
		c.bad.add(name, "keeps capabilities")
	}
	if security.Capabilities != nil && len(security.Capabilities.Add) > 0 && container.Name != "directories" {
		c.bad.add(name, "gets capabilities: %v", security.Capabilities.Add)
	}
	if pod.SecurityContext == nil || pod.SecurityContext.SeccompProfile == nil ||
		pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		c.bad.add(name, "without seccomp")
	}
}

var metricName = regexp.MustCompile(`warpdrive_[a-z_]+`)

// checkMetrics: alerts ask for metrics that are in the tables.
func (c *checker) checkMetrics(where, text string) {
	sources := ""
	for _, file := range slices.Concat(glob("agent/*.[ch]"), glob("common/*.h")) {
		source, err := os.ReadFile(file)
		if err != nil {
			fatal(err)
		}
		sources += string(source)
	}
	for _, doc := range documents(text) {
		if !strings.Contains(doc, "kind: PrometheusRule") {
			continue
		}
		for _, name := range metricName.FindAllString(doc, -1) {
			if !strings.Contains(sources, `"`+name+`"`) {
				c.bad.add(where, "an alert asks for '%s', which no program has", name)
			}
		}
	}
}

func configOf(objects []runtime.Object) string {
	for _, obj := range objects {
		if m, ok := obj.(*corev1.ConfigMap); ok {
			return m.Data["agent.yaml"]
		}
	}
	return ""
}
