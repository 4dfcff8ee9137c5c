"""`claw health`: ask the claw of this machine whether it is ready, for a container's HEALTHCHECK.

Order of events: one GET of /ready at the address that claw listens on; the answer's status decides the exit code, and
the failing checks are written to stderr in one line. Only the standard library is imported here, for this
runs every few seconds beside the service.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

TIMEOUT_S: Final = 3.0
"""Seconds for each step of the connection; the checks behind /ready end within 2 s."""
BODY_MAX_BYTES: Final = 64 * 1024
DEFAULT_PORT: Final = 8080
LOOPBACK: Final = "127.0.0.1"


def reach(host: str) -> str:
    """Return the address at which a claw with this HOST answers on its own machine."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host or LOOPBACK
    # IPv4 also where HOST is `::`: claw listens on both families then, or on IPv4 where the machine has no other.
    return LOOPBACK if address.is_unspecified else str(address)


def probe(host: str, port: int, timeout: float = TIMEOUT_S) -> tuple[bool, str]:
    """Return whether claw is ready, and a line that says why not. `host` as in HOST: all addresses mean loopback."""
    connection = http.client.HTTPConnection(reach(host), port, timeout=timeout)
    try:
        # Closed at once: a kept connection would take one of the service's bounded places.
        connection.request("GET", "/ready", headers={"Connection": "close"})
        response = connection.getresponse()
        # Bounded: whatever listens on that port may not be claw.
        body = response.read(BODY_MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        return False, f"claw does not answer on port {port} ({type(error).__name__}: {error})"
    finally:
        connection.close()
    return response.status == 200, _describe(response.status, body)


def _describe(status: int, body: bytes) -> str:
    """Return the failing checks in one line, as far as the body tells of them."""
    try:
        answer: Any = json.loads(body)
        # Anything may be missing: an older claw, or something else, may have answered.
        checks = answer["checks"].items()
        failing = [
            f"{name}: {' '.join(filter(None, (check.get('state'), check.get('reason')))) or 'not ok'}"
            for name, check in checks
            if not check["ok"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"claw answers with HTTP {status} and no report"
    return " ".join(f"claw is {answer.get('status')}: {'; '.join(failing)}".split())


def main(environ: Mapping[str, str] | None = None) -> int:
    """Ask, and return the exit code: 0 when claw is ready, 1 when it is not or cannot be asked."""
    environ = os.environ if environ is None else environ
    # Not by claw.config: its parsers load more than this whole command.
    text = environ.get("PORT", "").strip() or str(DEFAULT_PORT)
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) <= 65535:
        print("PORT is not a port that can be asked", file=sys.stderr)  # noqa: T201 - a command's answer
        return 1
    ready, line = probe(environ.get("HOST", "").strip(), int(text))
    if not ready:
        print(line, file=sys.stderr)  # noqa: T201
    return 0 if ready else 1
