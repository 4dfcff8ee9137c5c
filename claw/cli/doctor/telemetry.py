"""Check of the OpenTelemetry collector: whether what claw exports would be taken.

Order of events: the same repairs as at a start (`repair`), then one empty export to the address that results, with the
headers, certificates and proxy of the real ones. claw works without a collector, so that nothing here is a fault.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

import aiohttp
from opentelemetry.util.re import parse_env_headers
from yarl import URL

from claw.cli.doctor.network import cause_of
from claw.cli.doctor.runner import Context, Finding, good, skip, warn
from claw.observe.otel_environment import SIGNALS, repair
from claw.proxy import proxy_of

_EMPTY_EXPORT: Final = b""
"""An export request without any span or metric, as protobuf has it."""


async def check_telemetry(context: Context) -> Finding:
    """Send an empty export where claw would export to."""
    given = {name: value.strip() for name, value in context.environ.items() if name.startswith("OTEL_")}
    changes, problems = repair(given)
    used = {name: value for name, value in (given | changes).items() if value}
    # The first signal that is exported: all go to one collector, or each address is for its own operator to look at.
    addresses = [(signal, found) for signal in SIGNALS if (found := _find_endpoint(signal, used))]
    if used.get("OTEL_SDK_DISABLED", "").lower() == "true" or not (addresses or problems):
        return skip("telemetry.off")
    if not addresses:
        return warn("telemetry.mended", problems="; ".join(problems))
    signal, url = addresses[0]
    outcome = await _export_nothing(context, url, signal, used)
    if outcome:
        return warn("telemetry.failing", host=url.host, port=url.port, cause="; ".join([outcome, *problems]))
    return warn("telemetry.mended", problems="; ".join(problems)) if problems else good("telemetry.ok", host=url.host)


def _find_endpoint(signal: str, used: Mapping[str, str]) -> URL | None:
    """Return where the exports of a signal go; None where there are none (by the OTLP exporter's specification)."""
    if "otlp" not in used.get(f"OTEL_{signal}_EXPORTER", "otlp").lower().split(","):
        return None
    if own := used.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"):
        return URL(own)
    base = used.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return URL(f"{base.rstrip('/')}/v1/{signal.lower()}") if base else None


async def _export_nothing(context: Context, url: URL, signal: str, used: Mapping[str, str]) -> str:
    """Return why an empty export is not taken, in few words; empty where it is."""

    def read(name: str) -> str:
        return used.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}") or used.get(f"OTEL_EXPORTER_OTLP_{name}", "")

    try:
        async with context.http.post(
            url,
            data=_EMPTY_EXPORT,
            headers={**parse_env_headers(read("HEADERS"), liberal=True), "content-type": "application/x-protobuf"},
            allow_redirects=False,
            proxy=proxy_of(url),
            ssl=_make_tls(read("CERTIFICATE"), read("CLIENT_CERTIFICATE"), read("CLIENT_KEY")),
            timeout=aiohttp.ClientTimeout(total=context.timeout),
        ) as response:
            return "" if 200 <= response.status < 300 else f"HTTP {response.status} from {url.path}"
    except TimeoutError:
        return f"no answer within {context.timeout:g} s"
    except aiohttp.ClientResponseError:
        # As a port of gRPC gives to HTTP/1.1.
        return "its answer is no HTTP/1.1"
    # By its type, or in the system's words: a header with a collector's key is in neither.
    except Exception as error:  # noqa: BLE001 - foreign variables of any wrongness may raise anything
        return cause_of(error)


def _make_tls(ca: str, certificate: str, key: str) -> ssl.SSLContext | bool:
    """Return the TLS context that `OTEL_*` asks for, or True for the usual one. Raises OSError."""
    if not (ca or certificate):
        return True
    tls = ssl.create_default_context(cafile=ca or None)
    if certificate:
        tls.load_cert_chain(certificate, key or None)
    return tls
