"""The routes of what people used and who changed what: `GET /api/usage`, `GET /api/audit`, as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any, Final

from aiohttp import web

from claw.clock import format_rfc3339
from claw.http.responses import ApiError, json_response, read_limit
from claw.store.operation import AUDIT_MAX, USAGE_RETENTION_DAYS, Audit
from claw.store.values import UsageRow

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would run."""


def routes(
    read_usage: Callable[[str], Awaitable[Sequence[UsageRow]]], today: Callable[[], str], audit: Audit
) -> list[web.RouteDef]:
    """Make the routes, an administrator's. `read_usage` gives what was used from a day on."""

    async def get_usage(request: web.Request) -> web.Response:
        days = read_limit(request, name="days", default=30, most=USAGE_RETENTION_DAYS)
        since = date.fromisoformat(today()) - timedelta(days=days - 1)
        rows = [asdict(row) for row in await read_usage(since.isoformat())]
        if _wants_csv(request):
            return _csv(rows, "usage.csv", UsageRow.__slots__)
        return json_response({"days": days, "rows": rows})

    async def get_audit(request: web.Request) -> web.Response:
        entries = await audit.audit(read_limit(request, default=200, most=AUDIT_MAX))
        rows: list[dict[str, Any]] = [
            {
                "at": format_rfc3339(entry.at),
                "actor": entry.actor,
                "action": entry.action,
                "target": entry.target,
                "detail": entry.detail,
            }
            for entry in entries
        ]
        if _wants_csv(request):
            return _csv(rows, "audit.csv", ("at", "actor", "action", "target", "detail"))
        return json_response({"entries": rows})

    return [web.get("/api/usage", get_usage), web.get("/api/audit", get_audit)]


def _wants_csv(request: web.Request) -> bool:
    wanted = request.query.get("format", "json")
    if wanted not in {"json", "csv"}:
        raise ApiError(400, "bad_format", "must be json or csv", field="format")
    return wanted == "csv"


def _csv(rows: Iterable[dict[str, Any]], name: str, columns: Sequence[str]) -> web.Response:
    file = io.StringIO()
    # In memory: a retention's worth of rows is some megabytes, and a spreadsheet takes no stream.
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({column: _defuse(row[column]) for column in columns})
    # With a mark of UTF-8: spreadsheets take Chinese for another encoding without it.
    body = b"\xef\xbb\xbf" + file.getvalue().encode("utf-8", "replace")
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=body, content_type="text/csv", charset="utf-8", headers=headers)


def _defuse(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: names are chosen by whoever bears them."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
