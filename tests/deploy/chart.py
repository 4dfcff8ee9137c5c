"""The chart as tests use it: rendered by Helm's own engine, parsed, and found by kind."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "claw"
NAMESPACE = "bots"

Values = dict[str, Any]
Manifest = dict[str, Any]

LEAST: Values = {"config": {"DINGTALK_CLIENT_ID": "dingfake"}, "existingSecret": {"name": "claw-secret"}}
"""The least that makes a release."""
OWN_SECRET: Values = {
    "config": {"DINGTALK_CLIENT_ID": "dingfake"},
    "secret": {"DINGTALK_CLIENT_SECRET": "not-a-real-secret", "OPENAI_API_KEY": "sk-not-a-real-key"},
}
SETS: dict[str, Values] = {
    "least": LEAST,
    "own secret": OWN_SECRET,
    "no persistence, no policy, default account": {
        **OWN_SECRET,
        "store": {"persistence": {"enabled": False}},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"create": False},
        "config": {"DINGTALK_CLIENT_ID": "dingfake", "CLAW_OWNER": "u-1"},
    },
    "gateway and collector": {
        "config": {
            "DINGTALK_CLIENT_ID": "dingfake",
            "OPENAI_BASE_URL": "http://gateway.agents:18789/v1",
            "OPENAI_MODEL": "openclaw",
            "CLAW_HISTORY_TURNS": 0,
            "CLAW_USER_DAILY_LIMIT": 1000000,
            "CLAW_TURN_TIMEOUT": "10m",
            "CLAW_SYSTEM_PROMPT": 'Answer "$(K8S_POD_NAME)" for $5 or $$.\n{{ .Values.secret }}\n# 你好: yes',
            "CLAW_OWNER_PAIRING": "code",
        },
        "existingSecret": {
            "name": "robot",
            "keys": {"DINGTALK_CLIENT_SECRET": "client-secret", "OPENAI_API_KEY": None, "CLAW_ADMIN_TOKEN": "admin"},
        },
        "telemetry": {
            "endpoint": "http://collector.observability:4318",
            "serviceName": "helpdesk",
            "resourceAttributes": {"deployment.environment.name": "prod"},
            "captureContent": True,
        },
        "drainSeconds": 45,
    },
    "existing claim, storage class, names": {
        **LEAST,
        "fullnameOverride": "helpdesk",
        "nameOverride": "robot",
        "store": {"persistence": {"existingClaim": "old-disk", "annotations": {"a": "b"}}},
        "image": {"repository": "registry.example.com/claw", "digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccount": {"name": "robot", "annotations": {"a": "b"}},
        "port": 9090,
        "replicas": 0,
    },
    "redis, one replica": {
        **LEAST,
        "store": {"type": "redis"},
        "secret": {},
        "existingSecret": {"name": "claw-secret", "keys": {"CLAW_STORE_URL": "redis-url"}},
        "topologySpreadConstraints": [
            {
                "topologyKey": "kubernetes.io/hostname",
                "maxSkew": 1,
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "claw"}},
            }
        ],
    },
    "redis, three replicas": {
        "config": {"DINGTALK_CLIENT_ID": "dingfake", "OPENAI_BASE_URL": "http://gateway.agents:18789/v1"},
        "secret": {
            "DINGTALK_CLIENT_SECRET": "not-a-real-secret",
            "CLAW_STORE_URL": "rediss://:not-a-real-password@redis.data:6380/0",
        },
        "store": {
            "type": "redis",
            "redis": {
                "port": 6380,
                "to": [
                    {
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}},
                        "podSelector": {"matchLabels": {"app": "redis"}},
                    },
                    {"ipBlock": {"cidr": "10.9.0.0/24"}},
                ],
            },
        },
        "replicas": 3,
        "minReadySeconds": 5,
    },
    "everything extra": {
        **OWN_SECRET,
        "labels": {"team": "it"},
        "annotations": {"reloader": "yes"},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "priorityClassName": "high",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"},
            {"name": "OTEL_EXPORTER_OTLP_HEADERS", "valueFrom": {"secretKeyRef": {"name": "otlp", "key": "headers"}}},
        ],
        "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "company-ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/claw/ca", "readOnly": True}],
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-more"},
                "data": {"a": "b"},
            },
            'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include "claw.fullname" . }}-text\n',
        ],
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}],
            "extraEgress": [{"ports": [{"port": 8000, "protocol": "TCP"}]}],
        },
        "service": {"annotations": {"a": "b"}},
        "store": {
            "persistence": {"storageClass": "ssd", "size": "20Gi", "accessMode": "ReadWriteOncePod", "keep": False}
        },
    },
    "metrics": {
        **LEAST,
        "labels": {"team": "it"},
        "port": 9090,
        "metrics": {
            "enabled": True,
            "from": [
                {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prometheus"}},
                    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
                }
            ],
            "podMonitor": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "interval": "1m",
                "scrapeTimeout": "5s",
                "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}],
                "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "process_.*"}],
            },
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "alertLabels": {"team": "it"}},
        },
    },
}
"""Sets of values that reach every branch of the templates."""


@cache
def _loaded(path: Path) -> helm_python.Chart:
    return helm_python.Chart.load(path)


def files(values: Values, *, release: str = "claw", chart: Path = CHART) -> dict[str, str]:
    """The rendered files by their path within the chart. Raises HelmError."""
    rendered = _loaded(chart).render(copy.deepcopy(values), name=release, namespace=NAMESPACE)
    return {path.removeprefix("claw/templates/"): text for path, text in rendered.items()}


def manifests(values: Values, *, release: str = "claw") -> list[Manifest]:
    """Every object of a release, the test's pod too."""
    texts = (text for path, text in files(values, release=release).items() if not path.endswith("NOTES.txt"))
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def only(found: list[Manifest], kind: str) -> Manifest:
    """The one object of that kind."""
    (manifest,) = (each for each in found if each["kind"] == kind)
    return manifest


def pods(found: list[Manifest]) -> Iterator[Manifest]:
    """The specs of all pods."""
    for each in found:
        if each["kind"] == "Pod":
            yield each["spec"]
        elif "template" in each.get("spec", {}):
            yield each["spec"]["template"]["spec"]


def container(values: Values) -> Manifest:
    """The one container of the Deployment."""
    (found,) = only(manifests(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(values: Values) -> dict[str, str]:
    """The container's literal variables, as Kubernetes hands them over: $$ is $, and $(NAME) is what NAME holds."""
    known: dict[str, str] = {}
    for each in container(values)["env"]:
        if "value" in each:
            known[each["name"]] = expanded(each["value"], known)
        else:
            known[each["name"]] = f"<{each['name']}>"
    return known


def expanded(value: str, known: dict[str, str]) -> str:
    """Kubernetes' expansion of one value; a reference to what is not known stays as it is."""
    return re.sub(
        r"\$(\$|\(([^)]*)\))",
        lambda match: "$" if match[1] == "$" else known.get(match[2], match[0]),
        value,
    )


def without_schema(folder: Path) -> Path:
    """A copy of the chart that has no schema, as with --skip-schema-validation."""
    chart = folder / "claw"
    shutil.copytree(CHART, chart)
    (chart / "values.schema.json").unlink()
    return chart
