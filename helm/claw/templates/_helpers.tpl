{{- define "claw.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The release's objects; the chart's name is not repeated where the release's has it. 52: Pods and hooks add to it. */}}
{{- define "claw.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "claw.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "claw.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "claw.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The component keeps the test's pod out of Deployment, Service and NetworkPolicy. */}}
{{- define "claw.selector" -}}
app.kubernetes.io/name: {{ include "claw.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: robot
{{- end }}

{{- define "claw.testSelector" -}}
app.kubernetes.io/name: {{ include "claw.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "claw.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{- define "claw.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "claw.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "claw.secretName" -}}
{{- default (include "claw.fullname" .) .Values.existingSecret.name -}}
{{- end }}

{{/* JSON of variable -> key in the Secret, for the secrets that are there. */}}
{{- define "claw.secrets" -}}
{{- $secrets := dict -}}
{{- if .Values.existingSecret.name -}}
{{- range $name, $key := .Values.existingSecret.keys -}}
{{- if $key -}}{{- $_ := set $secrets $name $key -}}{{- end -}}
{{- end -}}
{{- else -}}
{{- range $name, $value := .Values.secret -}}
{{- if $value -}}{{- $_ := set $secrets $name $name -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $secrets -}}
{{- end }}

{{/*
JSON of variable -> text, for all that needs no reference. Numbers go by toJson, for YAML's are floats and 1000000
would become 1e+06. An empty value is claw's own default: it is left out, which also keeps 0 apart from it.
*/}}
{{- define "claw.environment" -}}
{{- $environment := dict
    "PORT" (toString (int .Values.port))
    "CLAW_DRAIN_TIMEOUT" (toJson .Values.drainSeconds)
    "OTEL_SERVICE_NAME" (default (include "claw.fullname" .) .Values.telemetry.serviceName)
-}}
{{- if eq .Values.store.type "sqlite" -}}
{{- $_ := set $environment "CLAW_STORE_URL" "sqlite:////data/claw.db" -}}
{{- end -}}
{{- with .Values.telemetry.endpoint -}}
{{- $_ := set $environment "OTEL_EXPORTER_OTLP_ENDPOINT" . -}}
{{- end -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := set $environment "CLAW_METRICS" "on" -}}
{{- end -}}
{{- if .Values.telemetry.captureContent -}}
{{- $_ := set $environment "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" "true" -}}
{{- end -}}
{{- range $name, $value := .Values.config -}}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) -}}
{{- $_ := set $environment $name (ternary $value (toJson $value) (kindIs "string" $value)) -}}
{{- end -}}
{{- end -}}
{{- toJson $environment -}}
{{- end }}

{{/* By the conventions of OpenTelemetry; $(...) is filled in by the kubelet. */}}
{{- define "claw.resourceAttributes" -}}
{{- $pod := list
    "k8s.namespace.name=$(K8S_NAMESPACE_NAME)"
    "k8s.pod.name=$(K8S_POD_NAME)"
    "k8s.pod.uid=$(K8S_POD_UID)"
    "k8s.node.name=$(K8S_NODE_NAME)"
    (printf "k8s.deployment.name=%s" (include "claw.fullname" .))
    "k8s.container.name=claw"
    "service.instance.id=$(K8S_POD_UID)"
-}}
{{- range $name, $value := .Values.telemetry.resourceAttributes -}}
{{- $pod = append $pod (printf "%s=%s" $name $value) -}}
{{- end -}}
{{- join "," $pod -}}
{{- end }}

{{/* JSON of the TCP ports that claw must reach: 443, and those of every address in the environment. */}}
{{- define "claw.ports" -}}
{{- $addresses := values (include "claw.environment" . | fromJson) -}}
{{- range .Values.extraEnv -}}
{{- $addresses = append $addresses (toString (default "" .value)) -}}
{{- end -}}
{{- $ports := list 443 -}}
{{- range $addresses -}}
{{- with regexFind "^https?://[^/?#]+" . -}}
{{- $standard := hasPrefix "https" . | ternary "443" "80" -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default $standard | int) -}}
{{- end -}}
{{- end -}}
{{- toJson (uniq $ports) -}}
{{- end }}

{{/* What cannot work is refused here, with what to do about it, instead of a pod that never starts. */}}
{{- define "claw.guard" -}}
{{- $secrets := include "claw.secrets" . | fromJson -}}
{{- $environment := include "claw.environment" . | fromJson -}}
{{- if eq .Values.store.type "redis" -}}
{{- if not (hasKey $secrets "CLAW_STORE_URL") -}}
{{- fail "store.type=redis: CLAW_STORE_URL is not set; put redis://:password@host:6379/0 into your Secret and name its key by existingSecret.keys.CLAW_STORE_URL, or set secret.CLAW_STORE_URL" -}}
{{- end -}}
{{- else -}}
{{- if hasKey $secrets "CLAW_STORE_URL" -}}
{{- fail "CLAW_STORE_URL is among the secrets, and store.type=sqlite does not read it; set store.type=redis" -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas=%d: one SQLite file serves one claw; set store.type=redis, which several can share, or replicas=1 (CLAW_MAX_CONCURRENCY says how much one does at once)" (int .Values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- if .Values.podMonitor.enabled -}}
{{- fail "podMonitor.enabled: it is metrics.podMonitor.enabled now, with metrics.enabled" -}}
{{- end -}}
{{- range $name := list "podMonitor" "prometheusRule" -}}
{{- if and (get $.Values.metrics $name).enabled (not $.Values.metrics.enabled) -}}
{{- fail (printf "metrics.%s.enabled: claw serves no /metrics; set metrics.enabled too" $name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.existingSecret.name -}}
{{- range $name, $value := .Values.secret -}}
{{- if $value -}}
{{- fail (printf "secret.%s and existingSecret.name are both set; keep the secrets in one of the two" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey $environment "DINGTALK_CLIENT_ID") (hasKey $secrets "DINGTALK_CLIENT_ID") -}}
{{- fail "DINGTALK_CLIENT_ID is set under config and under existingSecret.keys; keep one of the two" -}}
{{- end -}}
{{- if not (or (hasKey $environment "DINGTALK_CLIENT_ID") (hasKey $secrets "DINGTALK_CLIENT_ID")) -}}
{{- fail "config.DINGTALK_CLIENT_ID is not set; it is the Client ID (AppKey) on the app's page 凭证与基础信息" -}}
{{- end -}}
{{- if not (hasKey $secrets "DINGTALK_CLIENT_SECRET") -}}
{{- fail "DINGTALK_CLIENT_SECRET is not set; name a Secret that holds it by existingSecret.name, or set secret.DINGTALK_CLIENT_SECRET" -}}
{{- end -}}
{{- if not (or (hasKey $secrets "OPENAI_API_KEY") (hasKey $environment "OPENAI_BASE_URL")) -}}
{{- fail "OPENAI_API_KEY is not set; put it into the Secret, or set config.OPENAI_BASE_URL to a server that asks for no key" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if or (hasKey $environment .name) (hasKey $secrets (trimSuffix "_FILE" .name)) (eq .name "OTEL_RESOURCE_ATTRIBUTES") -}}
{{- fail (printf "extraEnv: %s is set by this chart already; use its own value" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}
