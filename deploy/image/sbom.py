"""Prints the bill of materials of this machine as CycloneDX 1.6 JSON: the packages of this Python and of Debian.

Order of events: each distribution that this interpreter can import, then each package that dpkg has installed, becomes
a component with its package URL; claw itself, which is installed as a folder, is what the bill is about. The same
packages give the same text, but for the base's own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from claw import __version__

DPKG = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")

Component = dict[str, Any]


def component(name: str, version: str, purl: str, licence: str = "") -> Component:
    found: Component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        # An SPDX expression, as PEP 639 has it.
        found["licenses"] = [{"expression": licence}]
    return found


def python_packages() -> Iterator[Component]:
    for each in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.name).lower()
        purl = f"pkg:pypi/{quote(name)}@{quote(each.version)}"
        yield component(name, each.version, purl, str(each.metadata.json.get("license_expression", "")))


def debian_packages(status: Path = DPKG, release: Path = OS_RELEASE) -> Iterator[Component]:
    if not status.is_file():
        return
    distro = (
        re.search(r'^ID="?([^"\n]+)', release.read_text(encoding="utf-8"), re.MULTILINE) if release.is_file() else None
    )
    for entry in status.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", entry, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            origin = f"{quote(distro[1] if distro else 'debian')}/{quote(name)}@{quote(version)}"
            yield component(name, version, f"pkg:deb/{origin}?arch={quote(fields['Architecture'])}")


def bill() -> dict[str, Any]:
    parts = {each["purl"]: each for each in (*python_packages(), *debian_packages())}
    claw = {"type": "application", "bom-ref": f"claw@{__version__}", "name": "claw", "version": __version__}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**claw, "licenses": [{"license": {"id": "MIT"}}]}},
        "components": [parts[purl] for purl in sorted(parts)],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(bill(), indent=2, ensure_ascii=False) + "\n")
