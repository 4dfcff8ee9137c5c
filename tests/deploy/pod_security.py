"""Kubernetes' Pod Security Standard "restricted", as far as it can be read off a Pod's manifest.

The rules are those of the Kubernetes documentation, "Pod Security Standards", baseline and restricted profiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

VOLUMES: Final = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}


def offences(pod: dict[str, Any]) -> Iterator[str]:
    """Every rule that the Pod's spec breaks, as a sentence."""
    for share in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(share):
            yield f"{share} is on"
    for volume in pod.get("volumes", []):
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is of {kinds}"
    whole = pod.get("securityContext", {})
    if foreign := {each["name"] for each in whole.get("sysctls", [])} - SYSCTLS:
        yield f"sysctls {foreign}"
    yield from _identity("pod", whole)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind, []):
            yield from _container(container, whole)


def _identity(name: str, context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{name} runs as root"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{name} is a host process"
    if context.get("seLinuxOptions", {}).get("type", "container_t") not in {
        "container_t",
        "container_init_t",
        "container_kvm_t",
    }:
        yield f"{name} has a foreign SELinux type"


def _container(container: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    name, own = container["name"], container.get("securityContext", {})
    yield from _identity(name, own)
    if own.get("privileged"):
        yield f"{name} is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate its privileges"
    if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
        yield f"{name} may run as root"
    seccomp = own.get("seccompProfile", whole.get("seccompProfile", {}))
    if seccomp.get("type") not in {"RuntimeDefault", "Localhost"}:
        yield f"{name} has no seccomp profile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name} keeps capabilities"
    if more := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds {more}"
    if own.get("procMount", "Default") != "Default":
        yield f"{name} has another procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name} takes a port of the host"
    handlers = [container.get(probe, {}) for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
    handlers += container.get("lifecycle", {}).values()
    if any(handler.get("httpGet", {}).get("host") or handler.get("tcpSocket", {}).get("host") for handler in handlers):
        yield f"{name} has a probe of another host"
