"""The chart: what it renders is valid, restricted and means the same to claw; what cannot work is refused in words."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest

from claw import __version__
from claw.config import reader
from claw.http.health import CHECK_TIMEOUT_S, STALL_S
from claw.policy import Switch
from claw.store.open import STORE_LOCK_TIMEOUT_S
from tests.deploy import monitors
from tests.deploy.chart import (
    CHART,
    LEAST,
    NAMESPACE,
    OWN_SECRET,
    SETS,
    Values,
    container,
    environment,
    files,
    manifests,
    only,
    pods,
    without_schema,
)
from tests.deploy.pod_security import offences

VERSIONS = ("1.27", "1.30", "1.36")
"""The oldest that the chart admits, one between, and a new one."""


def changed(base: Values, **more: Any) -> Values:
    """`base` with one level of its maps merged with `more`."""
    values = copy.deepcopy(base)
    for name, value in more.items():
        values[name] = {**values[name], **value} if isinstance(values.get(name), dict) else value
    return values


# --- what is rendered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_manifests_are_valid(name: str, version: str) -> None:
    """Every manifest of each set is what Kubernetes' own schema of that version admits, without unknown fields."""
    found = manifests(SETS[name])
    assert len(found) >= 4
    for each in found:
        if each["apiVersion"] == monitors.API:
            assert monitors.find_faults(each) == []
        else:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("name", SETS)
def test_pods_are_restricted(name: str) -> None:
    """Every pod of each set passes the Pod Security Standard "restricted", has a read-only root and no token."""
    found = list(pods(manifests(SETS[name])))
    assert len(found) == 2
    for pod in found:
        assert list(offences(pod)) == []
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in pod["containers"])


def test_offences_are_found() -> None:
    """The check itself sees what the standard forbids: a bare pod breaks four rules, an open one more."""
    assert len(list(offences({"containers": [{"name": "bare"}]}))) == 4
    open_pod = {
        "hostNetwork": True,
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
        "securityContext": {"runAsUser": 0},
        "containers": [{"name": "c", "ports": [{"hostPort": 80}], "securityContext": {"privileged": True}}],
    }
    assert len(list(offences(open_pod))) == 9


@pytest.mark.parametrize("name", SETS)
def test_lint_finds_nothing(name: str) -> None:
    """`helm lint --strict` has no warning."""
    report = helm_python.lint(CHART, SETS[name], strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_names_and_labels_hold_together(name: str) -> None:
    """All objects are in the namespace; the selectors catch the Deployment's pod and not the test's."""
    found = manifests(SETS[name])
    own = [each for each in found if each["kind"] != "ConfigMap"]
    assert {each["metadata"]["namespace"] for each in own} == {NAMESPACE}
    deployment, service, test = only(found, "Deployment"), only(found, "Service"), only(found, "Pod")
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"] == selector
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert not selector.items() <= test["metadata"]["labels"].items()
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    assert account in {"default", *(each["metadata"]["name"] for each in found if each["kind"] == "ServiceAccount")}


@pytest.mark.parametrize(
    ("release", "fullname"),
    [("claw", "claw"), ("my-claw", "my-claw"), ("helpdesk", "helpdesk-claw"), ("x" * 53, "x" * 52)],
)
def test_full_name(release: str, fullname: str) -> None:
    """The chart's name is added where the release's does not have it, and the whole is short enough to be added to."""
    assert only(manifests(LEAST, release=release), "Deployment")["metadata"]["name"] == fullname


def test_versions_agree() -> None:
    """The chart installs the image of this very version."""
    with helm_python.Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == __version__
    assert container(LEAST)["image"] == f"claw:{__version__}"


# --- what it means to claw -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_claw_reads_what_the_chart_says(name: str, tmp_path: Path) -> None:
    """claw's settings load from the container's environment without a fault or a warning, and say what values said."""
    values = SETS[name]
    given = environment(values)
    redis = values.get("store", {}).get("type") == "redis"
    for each in given:
        if each.endswith("_FILE") and each.startswith(("DING", "OPENAI", "CLAW")):
            secret = tmp_path / each
            secret.write_text("redis://:pw@redis:6379/0\n" if each.startswith("CLAW_STORE") else "not-a-real-secret\n")
            given[each] = str(secret)
    loaded = reader.load(given)
    assert loaded.warnings == ()
    assert loaded.store.url.reveal() == ("redis://:pw@redis:6379/0" if redis else "sqlite:////data/claw.db")
    assert loaded.http.port == values.get("port", 8080)
    config = values["config"]
    assert loaded.dingtalk.client_id == config["DINGTALK_CLIENT_ID"]
    assert loaded.conversation.system_prompt == config.get("CLAW_SYSTEM_PROMPT", "")
    assert loaded.conversation.history_turns == config.get("CLAW_HISTORY_TURNS", 20)
    assert loaded.access.daily_limit == config.get("CLAW_USER_DAILY_LIMIT", 0)
    assert loaded.inbox.drain_timeout == values.get("drainSeconds", 20)


@pytest.mark.parametrize("name", SETS)
def test_secrets_are_files_only(name: str) -> None:
    """Each NAME_FILE is mounted read-only from the Secret; no secret's text is in any object but that Secret."""
    found = manifests(SETS[name])
    pod = only(found, "Deployment")["spec"]["template"]["spec"]
    (claw,) = pod["containers"]
    (mount,) = (each for each in claw["volumeMounts"] if each["name"] == "secret")
    (volume,) = (each["secret"] for each in pod["volumes"] if each["name"] == "secret")
    named = {each["value"] for each in claw["env"] if each["name"].endswith("_FILE")}
    assert mount["readOnly"] is True
    assert named == {f"{mount['mountPath']}/{item['path']}" for item in volume["items"]}
    held = {each["metadata"]["name"]: each["data"] for each in found if each["kind"] == "Secret"}
    assert (volume["secretName"] in held) == ("existingSecret" not in SETS[name])
    if held:
        told = {name: base64.b64decode(text).decode() for name, text in held[volume["secretName"]].items()}
        assert told == SETS[name]["secret"]
        assert {item["key"] for item in volume["items"]} == set(told)
    others = str([each for each in found if each["kind"] != "Secret"])
    for text in SETS[name].get("secret", {}).values():
        assert text not in others
        assert base64.b64encode(text.encode()).decode() not in others


def test_a_key_of_the_secret_may_have_another_name() -> None:
    """`existingSecret.keys` maps variables to the Secret's keys, and null takes one out."""
    pod = only(manifests(SETS["gateway and collector"]), "Deployment")["spec"]["template"]["spec"]
    (volume,) = (each["secret"] for each in pod["volumes"] if each["name"] == "secret")
    assert volume["items"] == [
        {"key": "admin", "path": "CLAW_ADMIN_TOKEN"},
        {"key": "client-secret", "path": "DINGTALK_CLIENT_SECRET"},
    ]


def test_resource_attributes_tell_the_pod() -> None:
    """OTEL_RESOURCE_ATTRIBUTES refers only to variables that stand above it, and holds the values' own too."""
    told = environment(SETS["gateway and collector"])["OTEL_RESOURCE_ATTRIBUTES"]
    attributes = dict(each.split("=") for each in told.split(","))
    assert attributes["k8s.pod.name"] == "<K8S_POD_NAME>"
    assert attributes["k8s.namespace.name"] == "<K8S_NAMESPACE_NAME>"
    assert attributes["deployment.environment.name"] == "prod"
    assert "$" not in told


def test_a_changed_secret_makes_a_new_pod() -> None:
    """The pod's checksum follows the chart's own Secret, and there is none for a Secret of somebody else."""

    def checksum(values: Values) -> str | None:
        template = only(manifests(values), "Deployment")["spec"]["template"]
        value = template["metadata"]["annotations"].get("checksum/secret")
        return None if value is None else str(value)

    other = changed(OWN_SECRET, secret={"OPENAI_API_KEY": "sk-another"})
    assert checksum(OWN_SECRET) == checksum(OWN_SECRET) != checksum(other)
    assert checksum(LEAST) is None


# --- probes and ends -----------------------------------------------------------------------------------------


def test_only_readiness_asks_for_dingtalk() -> None:
    """Startup and liveness ask /health, so that no outage or wrong secret restarts a pod; all by the named port."""
    claw = container(LEAST)
    asked = {probe: claw[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/health",
        "livenessProbe": "/health",
        "readinessProbe": "/ready",
    }
    assert {get["port"] for get in asked.values()} == {claw["ports"][0]["name"]}


def test_probes_numbers_follow_claws() -> None:
    """Answers may take longer than the checks, a start longer than the wait for the store, a stall until its stacks."""
    claw = container(LEAST)

    def patience(probe: str) -> float:
        # From the first failure to the last one.
        return float(claw[probe]["periodSeconds"] * (claw[probe]["failureThreshold"] - 1))

    assert all(claw[probe]["timeoutSeconds"] > CHECK_TIMEOUT_S for probe in ("livenessProbe", "readinessProbe"))
    assert patience("startupProbe") > 2 * STORE_LOCK_TIMEOUT_S
    assert patience("livenessProbe") + claw["livenessProbe"]["timeoutSeconds"] > STALL_S


@pytest.mark.parametrize(("drain", "grace"), [(0, 10), (20, 30), (7.5, 18), (300, 310)])
def test_the_kill_comes_after_the_drain(drain: float, grace: int) -> None:
    """The pod's grace period is the drain and 10 s for what comes after it."""
    values = changed(LEAST, drainSeconds=drain)
    pod = only(manifests(values), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == grace
    assert float(environment(values)["CLAW_DRAIN_TIMEOUT"]) == drain


ON_REDIS = [name for name, values in SETS.items() if values.get("store", {}).get("type") == "redis"]
ON_SQLITE = [name for name in SETS if name not in ON_REDIS]


@pytest.mark.parametrize("name", ON_SQLITE)
def test_one_file_one_claw(name: str) -> None:
    """SQLite: at most one replica, replaced and never beside its successor, with /data on the claim or an emptyDir."""
    found = manifests(SETS[name])
    deployment = only(found, "Deployment")
    assert deployment["spec"]["replicas"] <= 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    pod = deployment["spec"]["template"]["spec"]
    (data,) = (each for each in pod["volumes"] if each["name"] == "data")
    store = SETS[name].get("store", {}).get("persistence", {})
    claims = {each["metadata"]["name"]: each for each in found if each["kind"] == "PersistentVolumeClaim"}
    if not store.get("enabled", True):
        assert "emptyDir" in data
        assert not claims
    elif "existingClaim" in store:
        assert data["persistentVolumeClaim"]["claimName"] == store["existingClaim"]
        assert not claims
    else:
        claim = claims[data["persistentVolumeClaim"]["claimName"]]
        kept = claim["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        assert kept == store.get("keep", True)
        assert claim["spec"].get("storageClassName") == store.get("storageClass")


@pytest.mark.parametrize("name", ON_REDIS)
def test_redis_needs_no_disk_and_no_gap(name: str) -> None:
    """Redis: a new pod is connected before an old one goes; no claim, and nothing of the chart says where Redis is."""
    found = manifests(SETS[name])
    deployment = only(found, "Deployment")
    assert deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    (data,) = (each for each in deployment["spec"]["template"]["spec"]["volumes"] if each["name"] == "data")
    assert data == {"name": "data", "emptyDir": {"sizeLimit": "64Mi"}}
    assert not [each for each in found if each["kind"] == "PersistentVolumeClaim"]
    given = environment(SETS[name])
    assert "CLAW_STORE_URL" not in given
    assert given["CLAW_STORE_URL_FILE"] == "/etc/claw/secret/CLAW_STORE_URL"


def test_several_claws_are_kept_apart() -> None:
    """With more than one replica: a budget of one at a time that no outage blocks, and a spread that blocks no pod."""
    found = manifests(SETS["redis, three replicas"])
    deployment, budget = only(found, "Deployment")["spec"], only(found, "PodDisruptionBudget")["spec"]
    selector = deployment["selector"]
    assert budget == {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": selector}
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert all(each["labelSelector"] == selector for each in spread)
    assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}


def test_spread_and_budget_are_the_operators() -> None:
    """A spread of the operator's own replaces the chart's, and the budget can be left out."""
    values = changed(
        SETS["redis, three replicas"],
        topologySpreadConstraints=SETS["redis, one replica"]["topologySpreadConstraints"],
        podDisruptionBudget={"enabled": False},
    )
    found = manifests(values)
    pod = only(found, "Deployment")["spec"]["template"]["spec"]
    assert pod["topologySpreadConstraints"] == values["topologySpreadConstraints"]
    assert "PodDisruptionBudget" not in {each["kind"] for each in found}


@pytest.mark.parametrize("name", [name for name, values in SETS.items() if values.get("replicas", 1) < 2])
def test_one_claw_needs_neither(name: str) -> None:
    """With one replica there is no budget, which would only block its node, and no spread of the chart's."""
    found = manifests(SETS[name])
    pod = only(found, "Deployment")["spec"]["template"]["spec"]
    assert "PodDisruptionBudget" not in {each["kind"] for each in found}
    assert pod.get("topologySpreadConstraints") == SETS[name].get("topologySpreadConstraints")


# --- network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "ports"),
    [
        ({}, {53, 443}),
        ({"config": {"OPENAI_BASE_URL": "http://gateway:18789/v1"}}, {53, 443, 18789}),
        ({"config": {"OPENAI_BASE_URL": "http://gateway/v1"}}, {53, 443, 80}),
        ({"config": {"OPENAI_BASE_URL": "https://[2001:db8::1]:8443"}}, {53, 443, 8443}),
        ({"config": {"OPENAI_BASE_URL": "https://[2001:db8::1]/v1:9"}}, {53, 443}),
        ({"telemetry": {"endpoint": "http://collector:4318"}}, {53, 443, 4318}),
        ({"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://me:pw@proxy:3128"}]}, {53, 443, 3128}),
        ({"extraEnv": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}, {53, 443}),
        ({"networkPolicy": {"extraEgress": [{"ports": [{"port": 8000}]}]}}, {53, 443, 8000}),
    ],
)
def test_what_may_go_out(more: Values, ports: set[int]) -> None:
    """DNS, 443, and the port of every address in the environment, each once."""
    policy = only(manifests(changed(LEAST, **more)), "NetworkPolicy")["spec"]
    out = [(port["port"], port.get("protocol")) for rule in policy["egress"] for port in rule["ports"]]
    assert {port for port, _ in out} == ports
    assert len(out) == len(set(out))
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}


@pytest.mark.parametrize(
    ("redis", "rule"),
    [
        ({}, {"ports": [{"port": 6379, "protocol": "TCP"}]}),
        ({"port": 6380}, {"ports": [{"port": 6380, "protocol": "TCP"}]}),
        (
            {"to": [{"ipBlock": {"cidr": "10.9.0.7/32"}}]},
            {"ports": [{"port": 6379, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.9.0.7/32"}}]},
        ),
    ],
)
def test_the_way_to_redis(redis: Values, rule: Values) -> None:
    """With Redis one more rule lets its port out, to whom the values name or anywhere; with SQLite there is none."""
    values = changed(SETS["redis, one replica"], store={"redis": redis})
    egress = only(manifests(values), "NetworkPolicy")["spec"]["egress"]
    assert egress[-1] == rule
    assert egress[:-1] == only(manifests(LEAST), "NetworkPolicy")["spec"]["egress"]


def test_what_may_come_in() -> None:
    """The test's pod and who is named, on the one port."""
    found = manifests(SETS["everything extra"])
    (rule,) = only(found, "NetworkPolicy")["spec"]["ingress"]
    test = only(found, "Pod")["metadata"]["labels"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= test.items()
    assert rule["from"][1:] == SETS["everything extra"]["networkPolicy"]["from"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]


# --- metrics -------------------------------------------------------------------------------------------------


def test_metrics_are_off() -> None:
    """By default claw serves no metrics, and no kind is used that a cluster may not know."""
    assert "CLAW_METRICS" not in environment(LEAST)
    assert not {"PodMonitor", "PrometheusRule"} & {each["kind"] for each in manifests(LEAST)}


def test_metrics_are_scraped() -> None:
    """The PodMonitor finds the Deployment's pod and its port, and is found by the labels of the values."""
    values = SETS["metrics"]
    found = manifests(values)
    monitor, pod = only(found, "PodMonitor"), only(found, "Deployment")["spec"]["template"]
    assert reader.load(loadable(values)).http.metrics is Switch.ON
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {each["name"] for each in pod["spec"]["containers"][0]["ports"]}
    assert (endpoint["path"], endpoint["interval"], endpoint["scrapeTimeout"]) == ("/metrics", "1m", "5s")
    assert {"release": "prometheus", "team": "it"}.items() <= monitor["metadata"]["labels"].items()


def loadable(values: Values) -> Values:
    """The container's environment with secrets in it instead of files."""
    given = {name: value for name, value in environment(values).items() if not name.endswith("_FILE")}
    return {**given, "DINGTALK_CLIENT_SECRET": "not-a-real-secret", "OPENAI_API_KEY": "sk-not-a-real-key"}


def test_alerts_are_the_operators() -> None:
    """The PrometheusRule is found by its labels, each alert has the labels of the values, and a job of their own."""
    values = copy.deepcopy(SETS["metrics"])
    values["metrics"]["prometheusRule"]["job"] = "bots.claw"
    rule = only(manifests(values), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    assert {each["labels"]["team"] for each in alerts} == {"it"}
    assert all('job="bots.claw"' in each["expr"] and 'job=~".+"' not in each["expr"] for each in alerts)


@pytest.mark.parametrize(
    ("metrics", "peers"),
    [
        ({"enabled": False}, None),
        ({"enabled": True, "from": []}, None),
        ({"enabled": True}, [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]),
        (SETS["metrics"]["metrics"], SETS["metrics"]["metrics"]["from"]),
    ],
)
def test_the_scraper_comes_in(metrics: Values, peers: list[Values] | None) -> None:
    """Who scrapes gets a rule of its own, on the one port, where there are metrics."""
    first, *more = only(manifests(changed(LEAST, metrics=metrics)), "NetworkPolicy")["spec"]["ingress"]
    assert more == ([] if peers is None else [{"from": peers, "ports": first["ports"]}])


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        ({"spec": {"selector": {"matchLabels": {}}}}, "/spec/podMetricsEndpoints: is missing"),
        ({"spec": {"selectors": {}}}, "/spec/selectors: is not known"),
        ({"apiVersion": "v1"}, "/apiVersion: 'v1' is not usable"),
    ],
)
def test_faults_of_monitors_are_found(spoil: Values, fault: str) -> None:
    """The check itself sees what is missing, unknown or wrong."""
    monitor = only(manifests(SETS["metrics"]), "PodMonitor")
    assert fault in monitors.find_faults({**monitor, **spoil})


def test_helm_test_asks_the_service() -> None:
    """The test's pod runs `claw health` against the Service's name, which also answers for a pod that is not ready."""
    found = manifests(SETS["existing claim, storage class, names"])
    service, pod = only(found, "Service"), only(found, "Pod")
    (health,) = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert health["command"] == ["claw", "health"]
    assert {each["name"]: each["value"] for each in health["env"]} == {
        "HOST": f"{service['metadata']['name']}.{NAMESPACE}.svc",
        "PORT": str(service["spec"]["ports"][0]["port"]),
    }
    assert service["spec"]["publishNotReadyAddresses"] is True


# --- guards --------------------------------------------------------------------------------------------------

GUARDS = {
    "sqlite with Redis' address": (
        changed(OWN_SECRET, secret={"CLAW_STORE_URL": "redis://redis:6379/0"}),
        "store.type=sqlite does not read it; set store.type=redis",
    ),
    "sqlite with Redis' address in the Secret": (
        changed(LEAST, existingSecret={"keys": {"CLAW_STORE_URL": "url"}}),
        "store.type=sqlite does not read it; set store.type=redis",
    ),
    "redis, its key of no Secret": (
        changed(OWN_SECRET, store={"type": "redis"}, existingSecret={"keys": {"CLAW_STORE_URL": "url"}}),
        "store.type=redis: CLAW_STORE_URL is not set",
    ),
    "address twice": (
        changed(SETS["redis, one replica"], extraEnv=[{"name": "CLAW_STORE_URL", "value": "redis://x"}]),
        "extraEnv: CLAW_STORE_URL is set by this chart already",
    ),
    "pod monitor where it was": (changed(LEAST, podMonitor={"enabled": True}), "it is metrics.podMonitor.enabled now"),
    "pod monitor of nothing": (
        changed(LEAST, metrics={"podMonitor": {"enabled": True}}),
        "metrics.podMonitor.enabled: claw serves no /metrics; set metrics.enabled too",
    ),
    "alerts on nothing": (
        changed(LEAST, metrics={"prometheusRule": {"enabled": True}}),
        "metrics.prometheusRule.enabled: claw serves no /metrics; set metrics.enabled too",
    ),
    "nothing": ({}, "config.DINGTALK_CLIENT_ID is not set"),
    "no client secret": ({"config": {"DINGTALK_CLIENT_ID": "d"}}, "DINGTALK_CLIENT_SECRET is not set"),
    "no client secret in the Secret": (
        changed(LEAST, existingSecret={"keys": {"DINGTALK_CLIENT_SECRET": None}}),
        "DINGTALK_CLIENT_SECRET is not set",
    ),
    "no key": (
        {"config": {"DINGTALK_CLIENT_ID": "d"}, "secret": {"DINGTALK_CLIENT_SECRET": "s"}},
        "OPENAI_API_KEY is not set",
    ),
    "secrets twice": (
        changed(LEAST, secret={"OPENAI_API_KEY": "sk"}),
        "secret.OPENAI_API_KEY and existingSecret.name are both set",
    ),
    "id twice": (
        changed(LEAST, existingSecret={"name": "s", "keys": {"DINGTALK_CLIENT_ID": "id"}}),
        "DINGTALK_CLIENT_ID is set under config and under existingSecret.keys",
    ),
    "variable twice": (
        changed(LEAST, extraEnv=[{"name": "CLAW_STORE_URL", "value": "x"}]),
        "extraEnv: CLAW_STORE_URL is set by this chart already",
    ),
    "secret twice as a variable": (
        changed(LEAST, extraEnv=[{"name": "OPENAI_API_KEY", "value": "x"}]),
        "extraEnv: OPENAI_API_KEY is set by this chart already",
    ),
    "attributes twice": (
        changed(LEAST, extraEnv=[{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "a=b"}]),
        "extraEnv: OTEL_RESOURCE_ATTRIBUTES is set by this chart already",
    ),
}


@pytest.mark.parametrize("name", GUARDS)
def test_guards_say_what_to_do(name: str) -> None:
    """What the schema lets pass and cannot work is refused by a sentence."""
    values, sentence = GUARDS[name]
    with pytest.raises(helm_python.HelmRenderError) as refused:
        files(values)
    assert sentence in str(refused.value)


def test_replicas_are_guarded_twice(tmp_path: Path) -> None:
    """A second replica is refused by the schema, and by a sentence where schemas are skipped."""
    values = changed(LEAST, replicas=2)
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError, match="/replicas"):
        chart.validate_schema(values)
    with pytest.raises(helm_python.HelmRenderError, match=r"set store\.type=redis, .* or replicas=1"):
        files(values, chart=without_schema(tmp_path))


@pytest.mark.parametrize(
    "values",
    [
        changed(LEAST, store={"type": "redis"}),
        changed(OWN_SECRET, store={"type": "redis"}, replicas=3),
        changed(LEAST, store={"type": "redis"}, existingSecret={"keys": {"CLAW_STORE_URL": None}}),
        changed(LEAST, store={"type": "redis"}, existingSecret={"keys": {"CLAW_STORE_URL": ""}}),
    ],
)
def test_redis_address_is_guarded_twice(values: Values, tmp_path: Path) -> None:
    """Redis without its address is refused by the schema, and by a sentence where schemas are skipped."""
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError, match="CLAW_STORE_URL"):
        chart.validate_schema(values)
    with pytest.raises(helm_python.HelmRenderError, match="CLAW_STORE_URL is not set; put redis://:password@host"):
        files(values, chart=without_schema(tmp_path))


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"confg": {}}, "confg"),
        ({"config": {"CLAW_ONWER": "u"}}, "CLAW_ONWER"),
        ({"config": {"CLAW_STORE_URL": "sqlite:///x"}}, "CLAW_STORE_URL"),
        ({"config": {"CLAW_ADMIN_TOKEN": "secret-in-the-open"}}, "CLAW_ADMIN_TOKEN"),
        ({"config": {"CLAW_OWNER": 12345678901234567890}}, "CLAW_OWNER"),
        ({"config": {"CLAW_GROUP_POLICY": "closed"}}, "CLAW_GROUP_POLICY"),
        ({"config": {"CLAW_OWNER_PAIRING": False}}, "CLAW_OWNER_PAIRING"),
        ({"config": {"CLAW_MAX_CONCURRENCY": 0}}, "CLAW_MAX_CONCURRENCY"),
        ({"config": {"CLAW_TURN_TIMEOUT": "5 minutes"}}, "CLAW_TURN_TIMEOUT"),
        ({"config": {"OPENAI_BASE_URL": "gateway:18789"}}, "OPENAI_BASE_URL"),
        ({"secret": {"OPENAI_API_KEY": "sk one"}}, "OPENAI_API_KEY"),
        ({"existingSecret": {"keys": {"CLAW_PORT": "port"}}}, "CLAW_PORT"),
        ({"store": {"type": "postgres"}}, "/store/type"),
        ({"store": {"persistence": {"size": "1"}}}, "/store/persistence/size"),
        ({"store": {"redis": {"port": 0}}}, "/store/redis/port"),
        ({"store": {"redis": {"url": "redis://:pw@redis"}}}, "url"),
        ({"secret": {"CLAW_STORE_URL": "redis:6379"}}, "CLAW_STORE_URL"),
        ({"image": {"digest": "sha256:short"}}, "/image/digest"),
        ({"port": 80}, "/port"),
        ({"config": {"CLAW_METRICS": "on"}}, "CLAW_METRICS"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "/metrics/podMonitor/interval"),
        ({"metrics": {"prometheusRule": {"job": 'a"b'}}}, "/metrics/prometheusRule/job"),
        ({"drainSeconds": -1}, "/drainSeconds"),
        ({"extraEnv": [{"value": "nameless"}]}, "/extraEnv/0"),
        ({"telemetry": {"endpoint": "collector:4318"}}, "/telemetry/endpoint"),
        ({"telemetry": {"resourceAttributes": {"a": "b,c=d"}}}, "/telemetry/resourceAttributes/a"),
    ],
)
def test_schema_names_the_place(values: Values, place: str) -> None:
    """A value that is unknown or out of bounds is refused before anything is rendered, by its place."""
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError) as refused:
        chart.validate_schema(values)
    assert place in str(refused.value)


# --- notes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said", "unsaid"),
    [
        ({}, "the first one becomes its owner", "WARNING"),
        ({"config": {"CLAW_OWNER": "u-1"}}, "The owner is u-1", "WARNING"),
        ({"config": {"CLAW_OWNER_PAIRING": "code"}}, "one-time code from its log", "WARNING"),
        ({"config": {"CLAW_OWNER_PAIRING": "off"}}, "It has no owner", "WARNING"),
        ({"store": {"persistence": {"enabled": False}}}, "WARNING: store.persistence.enabled=false", "replicas=0"),
        ({"store": {"persistence": {"enabled": False}}}, "Set config.CLAW_OWNER", "replicas=0"),
        (
            {"store": {"persistence": {"enabled": False}}, "config": {"CLAW_OWNER": "u-1"}},
            "WARNING: store.persistence.enabled=false",
            "Set config.CLAW_OWNER",
        ),
        ({"replicas": 0}, "WARNING: replicas=0", "persistence"),
        (
            {
                "store": {"type": "redis", "persistence": {"enabled": False}},
                "existingSecret": {"keys": {"CLAW_STORE_URL": "url"}},
            },
            "Wait until it is connected",
            "WARNING",
        ),
        ({"existingSecret": {"keys": {"CLAW_ADMIN_TOKEN": "t"}}}, "/status", "put a CLAW_ADMIN_TOKEN"),
        ({}, "put a CLAW_ADMIN_TOKEN", "curl"),
    ],
)
def test_notes(more: Values, said: str, unsaid: str) -> None:
    """After an installation the next three steps are told, and what the values leave in danger."""
    notes = files(changed(LEAST, **more))["NOTES.txt"]
    assert [line[:2] for line in notes.splitlines() if line[:1].isdigit()] == ["1.", "2.", "3."]
    assert said in notes
    assert unsaid not in notes
