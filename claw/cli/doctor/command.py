"""`claw doctor`: looks at everything that must work, and says of each fault what helps.

Order of events: the settings are read as far as they go, for a doctor must come also when they are faulty; the checks
of TABLE run, independent ones at the same time; each gives one line, ok, warning, fault or skipped, with its remedy;
then come the troubles that these lines explain and the number of calls that DingTalk bills. The exit code is by the
worst line: 0 ok, 1 warning, 2 fault. Nothing that is shown holds a secret.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from claw import __version__
from claw.cli.doctor import dingtalk as checks_dingtalk
from claw.cli.doctor import host as checks_here
from claw.cli.doctor import network as checks_network
from claw.cli.doctor.runner import SEVERITY, TIMEOUT_S, Check, Context, Result, examine, lenient, worst
from claw.cli.doctor.texts import STATUSES, TROUBLES, Trouble, said
from claw.http_client import http_session
from claw.language import Language
from claw.observe import logs

STREAM, SILENT, DENIED, UNSTEADY = Trouble.STREAM, Trouble.SILENT, Trouble.DENIED, Trouble.UNSTEADY
_KEYS: Final = ("DINGTALK_CLIENT_ID", "DINGTALK_CLIENT_SECRET")
_OPENAPI: Final = "DINGTALK_OPENAPI_ENDPOINT"
_MODEL: Final = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""

CONNECTION: Final = (
    Check(
        "network.openapi",
        checks_network.way("openapi", _OPENAPI, lambda context: context.settings.dingtalk.openapi_endpoint),
        (STREAM, UNSTEADY),
        variables=(_OPENAPI,),
    ),
    Check("clock", checks_network.clock, (STREAM,), needs=("network.openapi",)),
    Check("credentials", checks_dingtalk.credentials, (STREAM, SILENT), needs=("network.openapi",), variables=_KEYS),
    Check(
        "stream.registration",
        checks_dingtalk.registration,
        (STREAM, SILENT),
        needs=("network.openapi",),
        after=("credentials",),
        variables=_KEYS,
    ),
    Check("stream.network", checks_network.way_to_stream, (STREAM, UNSTEADY), needs=("stream.registration",)),
    Check(
        "stream.session",
        checks_dingtalk.session,
        (STREAM, SILENT, UNSTEADY),
        needs=("stream.registration", "stream.network"),
        after=("instance", "store"),
    ),
)
"""From this machine to an open session: what `claw auth` looks at too."""


def _permission(check: str, name: str) -> Check:
    return Check(
        f"permission.{check}", checks_dingtalk.permission(name), (DENIED,), needs=("credentials",), billable=True
    )


_PERMISSIONS: Final = (
    _permission("send", checks_dingtalk.SEND),
    _permission("chat", checks_dingtalk.CHAT),
    _permission("card", checks_dingtalk.CARD),
    _permission("typing", checks_dingtalk.TYPING),
)

TABLE: Final = (
    Check("settings", checks_here.settings, (STREAM, SILENT), online=False),
    Check("store", checks_here.store, (SILENT,), variables=("CLAW_STORE_URL",), online=False),
    Check("access", checks_here.access, (SILENT, DENIED), online=False),
    Check("instance", checks_here.instance, (SILENT, UNSTEADY), variables=("PORT", "HOST"), online=False),
    *CONNECTION,
    Check(
        "network.oapi",
        checks_network.way("oapi", "DINGTALK_OAPI_ENDPOINT", lambda context: context.settings.dingtalk.oapi_endpoint),
        (SILENT,),
        variables=("DINGTALK_OAPI_ENDPOINT",),
    ),
    *_PERMISSIONS,
    Check("visibility", checks_dingtalk.visibility, (SILENT, DENIED), online=False),
    Check(
        "network.model",
        checks_network.way("model", "OPENAI_BASE_URL", lambda context: context.settings.model.base_url),
        (SILENT,),
        variables=_MODEL[:1],
    ),
    Check("model", checks_network.model, (SILENT,), needs=("network.model",), variables=_MODEL),
    Check(
        "quota",
        checks_here.quota,
        (SILENT,),
        after=("credentials", "stream.registration", *(each.name for each in _PERMISSIONS)),
        variables=("CLAW_STORE_URL",),
        online=False,
    ),
)
"""Every check, none before one that it needs."""


async def diagnose(
    environ: Mapping[str, str],
    language: Language | None = None,
    *,
    checks: Sequence[Check] = TABLE,
    problems: Sequence[str] = (),
    offline: bool = False,
    free: bool = False,
    timeout: float = TIMEOUT_S,
    own_session: bool = False,
) -> tuple[list[Result], Context]:
    """Run `checks` over the settings in `environ`; `problems` are those of reading it. Never raises for a fault."""
    settings, more, faulty = lenient(environ)
    async with http_session() as http:
        context = Context(
            settings, http, (*problems, *more), faulty, timeout=timeout, offline=offline, own_session=own_session
        )
        spoken = language or settings.logs.language
        return await examine(checks, context, spoken, offline=offline, free=free), context


# --- showing -----------------------------------------------------------------------------------------------------


def lines(results: Sequence[Result], language: Language) -> list[str]:
    """One line for each result, and its remedy below it where something is wrong."""
    width = max((len(result.name) for result in results), default=0)
    word = max((len(text.en) for text in STATUSES.values()), default=0) if language is Language.EN else 0
    shown = []
    for result in results:
        status = STATUSES[result.status].said(language)
        shown.append(f"{status:<{word}}  {result.name:<{width}}  {result.message}")
        if result.remedy:
            shown.append(f"{'':<{word or 4}}  {'':<{width}}  -> {result.remedy}")
    return shown


def explained(results: Sequence[Result], language: Language) -> list[str]:
    """The troubles that the faults and warnings explain, each with the names of its checks."""
    bad = [result for result in results if SEVERITY[result.status]]
    found = {trouble: [result.name for result in bad if trouble in result.troubles] for trouble in Trouble}
    named = [f"  {TROUBLES[trouble].said(language)}: {', '.join(names)}" for trouble, names in found.items() if names]
    return [said("doctor.troubles", language), *named] if named else []


def report(results: Sequence[Result], context: Context, language: Language) -> str:
    """What a person reads."""
    parts = [
        [f"claw doctor {__version__}"],
        lines(results, language),
        explained(results, language),
        [said("doctor.calls", language, count=context.billable)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def to_json(results: Sequence[Result], context: Context) -> str:
    """What a program reads: `checks`, `worst` and `billable_calls`, on one line."""
    body = {
        "checks": [result.to_json() for result in results],
        "worst": worst(results).value,
        "billable_calls": context.billable,
        "version": __version__,
    }
    return json.dumps(body, ensure_ascii=False)


def main(
    environ: Mapping[str, str],
    problems: Sequence[str] = (),
    *,
    as_json: bool = False,
    offline: bool = False,
    free: bool = False,
    language: str = "",
    trouble: str = "",
    timeout: float = TIMEOUT_S,
) -> int:
    """Look, tell, and return the exit code: 0 ok, 1 warning, 2 fault, 130 after Ctrl-C."""
    logs.configure("critical", "text", ())  # What libraries and parts log is told here, in words.
    spoken = Language(language) if language else lenient(environ)[0].logs.language
    try:
        results, context = asyncio.run(
            diagnose(environ, spoken, problems=problems, offline=offline, free=free, timeout=timeout)
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    if trouble:
        results = [result for result in results if Trouble(trouble) in result.troubles]
    shown = to_json(results, context) + "\n" if as_json else report(results, context, spoken)
    sys.stdout.write(shown)
    return SEVERITY[worst(results)]
