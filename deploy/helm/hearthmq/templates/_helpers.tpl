{{/* The name of all objects. */}}
{{- define "hearthmq.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels by which objects select pods. */}}
{{- define "hearthmq.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hearthmq.labels" -}}
{{ include "hearthmq.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hearthmq.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hearthmq.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "hearthmq.adminSecret" -}}
{{- default (printf "%s-admin" (include "hearthmq.fullname" .)) .Values.adminPassword.existingSecret -}}
{{- end -}}

{{/* The ports of the listeners: name and number. */}}
{{- define "hearthmq.ports" -}}
{{- if .Values.plain.mqtt }}
- {name: mqtt, port: 1883}
{{- end }}
{{- if .Values.plain.websocket }}
- {name: ws-mqtt, port: 8083}
{{- end }}
- {name: http, port: 8080}
{{- if .Values.tls.secret }}
- {name: mqtts, port: 8883}
- {name: wss-mqtt, port: 8084}
- {name: https, port: 8443}
{{- end }}
{{- end -}}
