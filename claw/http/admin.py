"""The administrator's routes that change something: `POST /restart`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from aiohttp import web

from claw.audit import API, Note
from claw.http.responses import ApiError, json_response

log: Final = logging.getLogger(__name__)


class Scope(StrEnum):
    """What `POST /restart` replaces."""

    STREAM = "stream"
    """The connections, make-before-break."""
    PROCESS = "process"
    """Everything: drain, then exit 75."""


def routes(restart: Callable[[Scope], bool], note: Note) -> list[web.RouteDef]:
    """Make the routes. `restart` begins what is asked for and returns at once; False: one is running already."""

    async def post_restart(request: web.Request) -> web.Response:
        scopes = request.query.getall("scope", [Scope.STREAM.value])
        # Two scopes in one request are no wish that can be obeyed.
        if len(scopes) != 1 or scopes[0] not in set(Scope):
            raise ApiError(400, "unknown_scope", f"must be one of: {', '.join(Scope)}", field="scope")
        scope = Scope(scopes[0])
        if not restart(scope):
            raise ApiError(409, "restart_running", "a restart is running")
        # After the fact: what a 409 refused is no event for the log.
        log.warning("restart accepted", extra={"scope": scope.value, "remote": request.remote})
        await note(API, "restart", scope.value, "")
        return json_response({"status": "accepted", "scope": scope.value}, status=202)

    return [web.post("/restart", post_restart)]
