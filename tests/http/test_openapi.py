"""docs/openapi.yaml is the API: the same routes, and the errors and answers that they really give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from claw.clock import Clock
from claw.config.reader import load
from claw.credentials import CredentialGap
from claw.http.health import Health
from claw.http.status import Status
from claw.http_client import http_session
from claw.operation import build_desks, build_surface
from claw.setup import Setup
from claw.store.sqlite.store import SqliteStore

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "DINGTALK_CLIENT_ID": "dingclient",
    "DINGTALK_CLIENT_SECRET": "ding-secret-value",
    "OPENAI_API_KEY": "sk-key-value",
    "CLAW_ADMIN_TOKEN": "admin-token-value",
    "CLAW_METRICS": "on",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    with (ROOT / "docs" / "openapi.yaml").open(encoding="utf-8") as file:
        found: dict[str, Any] = yaml.safe_load(file)
    return found


async def test_routes_are_those_of_the_document(document: dict[str, Any], tmp_path: Path) -> None:
    """Each route that claw serves to programs is in the file, with its method, and no other."""
    settings = load(ENVIRONMENT)
    clock, store = Clock(), SqliteStore(tmp_path / "claw.db")
    desks = build_desks(settings, store, clock, "test")
    status = Status(
        settings,
        started_at=1.0,
        stream=dict,
        depth=store.depth,
        turns=lambda: 0,
        calls=lambda month: {},
        dead=store.dead,
        model=dict,
    )
    surface = build_surface(
        settings, store, clock, desks=desks, health=Health(clock), status=status, restart=lambda scope: True
    )
    async with http_session() as http:
        # Before there are credentials the set-up has the port, with a route of its own.
        setup = Setup(store, CredentialGap({}), http, "https://oapi.dingtalk.com")
    served = {
        (route.method.lower(), route.path)
        for route in (*surface.routes, *setup.routes())
        if route.path != "/" and not route.path.startswith("/page/")
    }
    told = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert served == told


def test_probes_want_no_token(document: dict[str, Any]) -> None:
    """The file says of the probes and of the metrics alone that they answer everybody."""
    free = {path for path, methods in document["paths"].items() if methods.get("get", {}).get("security") == []}
    assert free == {"/health", "/livez", "/healthz", "/ready", "/readyz", "/metrics"}


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Each `$ref` of the file names a part of it."""

    def walk(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return own + [each for value in part.values() for each in walk(value)]
        return [each for value in part for each in walk(value)] if isinstance(part, list) else []

    for reference in walk(document):
        found: Any = document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        assert found
