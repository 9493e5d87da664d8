{{- define "warpdrive.selector" -}}
app.kubernetes.io/name: warpdrive
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* labels of every object: (list context component); component may be empty */}}
{{- define "warpdrive.labels" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: warpdrive
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ $.Chart.Name }}-{{ $.Chart.Version }}
{{- end }}

{{/* labels of a pod: (list context component) */}}
{{- define "warpdrive.podLabels" -}}
{{- $ := index . 0 -}}
{{ include "warpdrive.selector" (index . 1) }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
{{- with $.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (list context program) */}}
{{- define "warpdrive.image" -}}
{{- $ := index . 0 -}}
{{- $name := printf "warpdrive-%s:%s" (index . 1) (default $.Chart.AppVersion $.Values.image.tag) -}}
{{- with $.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $name }}
{{- end }}

{{/* (list context sidecar) */}}
{{- define "warpdrive.sidecar" -}}
{{- $ := index . 0 -}}
{{- $sidecar := index $.Values.sidecars (index . 1) -}}
image: {{ with $.Values.sidecars.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $sidecar.image }}
imagePullPolicy: {{ $.Values.sidecars.pullPolicy }}
{{- with $sidecar.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* what no container but the keeper's has more of */}}
{{- define "warpdrive.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* the beginning of every pod's spec */}}
{{- define "warpdrive.pod" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* what the pods of the nodes have in common */}}
{{- define "warpdrive.nodePod" -}}
{{ include "warpdrive.pod" . }}
automountServiceAccountToken: false
hostNetwork: {{ .Values.hostNetwork }}
dnsPolicy: {{ .Values.hostNetwork | ternary "ClusterFirstWithHostNet" "ClusterFirst" }}
nodeSelector:
  kubernetes.io/os: linux
  {{- with .Values.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "warpdrive.env" -}}
- name: WARPDRIVE_LOG
  value: {{ .Values.logLevel }}
- name: WARPDRIVE_LOG_FORMAT
  value: json
{{- end }}

{{- define "warpdrive.pluginDir" -}}
{{ .Values.kubeletDir }}/plugins/csi.warpdrive.io
{{- end }}

{{- define "warpdrive.agentConfig" -}}
run-dir: {{ .Values.runDir }}
cache-dir: {{ .Values.agent.cache.dir }}
cache-size: {{ .Values.agent.cache.size | quote }}
free-space-floor: {{ .Values.agent.cache.freeSpaceFloor | quote }}
http-listen: "{{ .Values.agent.http.address }}:{{ .Values.agent.http.port }}"
kubernetes: "true"
# csi, under another uid, is of the agent's group
socket-for-group: true
{{- range $name, $value := .Values.agent.settings }}
{{ $name }}: {{ $value | toJson }}
{{- end }}
{{- end }}

{{- define "warpdrive.livenessGet" -}}
httpGet:
  {{- if .Values.hostNetwork }}
  host: 127.0.0.1
  {{- end }}
  path: /healthz
  port: {{ .Values.csi.livenessPort }}
{{- end }}

{{- define "warpdrive.agentMounts" -}}
- name: run
  mountPath: {{ .Values.runDir }}
- name: cache
  mountPath: {{ .Values.agent.cache.dir }}
- name: config
  mountPath: /etc/warpdrive
  readOnly: true
{{- if .Values.agent.caConfigMap }}
- name: ca
  mountPath: /etc/warpdrive-ca
  readOnly: true
{{- end }}
{{- end }}
