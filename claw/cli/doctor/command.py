"""`claw doctor`: looks at everything that must work, and says of each fault what helps.

Order of events: the settings are read as far as they go, since faulty ones are what the doctor is called for. The
checks of TABLE run, independent ones at the same time. Each gives one line, ok, warning, fault or skipped, with its
remedy. Then come the symptoms that these lines explain and the number of calls that DingTalk bills. The exit code is
by the worst line: 0 ok, 1 warning, 2 fault. Nothing that is shown holds a secret.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from claw import __version__
from claw.cli.doctor import dingtalk, host, network, telemetry
from claw.cli.doctor.runner import (
    RANKS,
    TIMEOUT_S,
    CheckSpec,
    CheckStatus,
    Context,
    Result,
    find_worst,
    load_tolerant,
    render,
    run_checks,
)
from claw.cli.doctor.texts import SYMPTOMS, Symptom
from claw.http_client import http_session
from claw.language import Language
from claw.observe import logs

STREAM, SILENT, DENIED, UNSTEADY = Symptom.STREAM, Symptom.SILENT, Symptom.DENIED, Symptom.UNSTEADY
_KEYS: Final = ("DINGTALK_CLIENT_ID", "DINGTALK_CLIENT_SECRET")
_OPENAPI: Final = "DINGTALK_OPENAPI_ENDPOINT"
_OAPI: Final = "DINGTALK_OAPI_ENDPOINT"
_MODEL: Final = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells have it."""

CONNECTION: Final = (
    CheckSpec(
        "network.openapi",
        network.make_connectivity_check(
            "openapi", _OPENAPI, lambda context: context.settings.dingtalk.openapi_endpoint
        ),
        (STREAM, UNSTEADY),
        variables=(_OPENAPI,),
    ),
    CheckSpec("clock", network.check_clock, (STREAM,), needs=("network.openapi",)),
    CheckSpec("credentials", dingtalk.check_credentials, (STREAM, SILENT), needs=("network.openapi",), variables=_KEYS),
    CheckSpec(
        "stream.registration",
        dingtalk.check_registration,
        (STREAM, SILENT),
        needs=("network.openapi",),
        after=("credentials",),
        variables=_KEYS,
    ),
    CheckSpec("stream.network", network.check_stream_connectivity, (STREAM, UNSTEADY), needs=("stream.registration",)),
    CheckSpec(
        "stream.session",
        dingtalk.check_session,
        (STREAM, SILENT, UNSTEADY),
        needs=("stream.registration", "stream.network"),
        # Both say whether a claw of this machine holds a session: a second one would take its messages.
        after=("instance", "store"),
    ),
)
"""From this machine to an open session: what `claw auth` looks at too."""


def _permission(check: str, name: str) -> CheckSpec:
    return CheckSpec(
        f"permission.{check}", dingtalk.make_permission_check(name), (DENIED,), needs=("credentials",), billable=True
    )


_PERMISSIONS: Final = (
    _permission("send", dingtalk.SEND),
    _permission("card", dingtalk.CARD),
    _permission("card_stream", dingtalk.CARD_STREAM),
)

TABLE: Final = (
    CheckSpec("settings", host.check_settings, (STREAM, SILENT), online=False),
    CheckSpec("store", host.check_store, (SILENT,), variables=("CLAW_STORE_URL",), online=False),
    CheckSpec("access", host.check_access, (SILENT, DENIED), online=False),
    CheckSpec("concurrency", host.check_concurrency, (SILENT,), online=False),
    CheckSpec("instance", host.check_instance, (SILENT, UNSTEADY), variables=("PORT", "HOST"), online=False),
    CheckSpec(
        "instance.model",
        host.check_instance_model,
        (SILENT,),
        needs=("instance",),
        variables=("PORT", "HOST", "CLAW_ADMIN_TOKEN"),
        online=False,
    ),
    *CONNECTION,
    CheckSpec(
        "network.oapi",
        network.make_connectivity_check("oapi", _OAPI, lambda context: context.settings.dingtalk.oapi_endpoint),
        (SILENT,),
        variables=(_OAPI,),
    ),
    *_PERMISSIONS,
    CheckSpec("visibility", dingtalk.check_visibility, (SILENT, DENIED), online=False),
    CheckSpec(
        "network.model",
        network.check_model_connectivity,
        (SILENT,),
        variables=_MODEL[:1],
    ),
    CheckSpec("model", network.check_model, (SILENT,), needs=("network.model",), variables=_MODEL),
    CheckSpec("models", network.check_models, (), needs=("network.model",), variables=(*_MODEL, "CLAW_MODELS")),
    CheckSpec(
        "quota",
        host.check_quota,
        (SILENT,),
        # After all that DingTalk may answer with "this month's calls are used up".
        after=("credentials", "stream.registration", "instance.model", *(each.name for each in _PERMISSIONS)),
        variables=("CLAW_STORE_URL",),
        online=False,
    ),
    CheckSpec("telemetry", telemetry.check_telemetry),
)
"""Every check, none before one that it needs."""
_PROOFS: Final = frozenset({"stream.session", "model"})
"""Checks that do what a robot does: receive, and have the model answer."""


async def diagnose(
    environ: Mapping[str, str],
    language: Language | None = None,
    *,
    checks: Sequence[CheckSpec] = TABLE,
    problems: Sequence[str] = (),
    offline: bool = False,
    free: bool = False,
    timeout: float = TIMEOUT_S,
    own_session: bool = False,
) -> tuple[list[Result], Context]:
    """Run `checks` over the settings in `environ`; `problems` are those of reading it. Never raises for a fault."""
    # Never an error: what cannot be used skips the checks that need it.
    settings, more, faulty = load_tolerant(environ)
    async with http_session() as http:
        context = Context(
            settings,
            http,
            (*problems, *more),
            faulty,
            timeout=timeout,
            offline=offline,
            environ=environ,
            own_session=own_session,
        )
        shown_in = language or settings.logs.language
        return await run_checks(checks, context, shown_in, offline=offline, free=free), context


# --- showing -----------------------------------------------------------------------------------------------------


def render_lines(results: Sequence[Result], language: Language) -> list[str]:
    """Return one line for each result, and its remedy below it where something is wrong."""
    width = max((len(result.name) for result in results), default=0)
    words = {status: render(f"status.{status}", language) for status in CheckStatus}
    # Chinese words have the same length, and a terminal shows them twice as wide as Python counts.
    column = max(len(word) for word in words.values()) if language is Language.EN else 0
    lines = []
    for result in results:
        lines.append(f"{words[result.status]:<{column}}  {result.name:<{width}}  {result.message}")
        if result.remedy:
            lines.append(f"{'':<{column or 4}}  {'':<{width}}  -> {result.remedy}")
    return lines


def explain_symptoms(results: Sequence[Result], language: Language) -> list[str]:
    """Return the symptoms that the faults and warnings explain, each with the names of its checks."""
    # What was skipped explains nothing: its cause stands in a line of its own. Nor does a warning explain that nothing
    # works at all, where the very thing was tried and worked.
    works = {result.name for result in results if result.status is CheckStatus.OK}
    least = CheckStatus.FAULT if works >= _PROOFS else CheckStatus.WARNING
    bad = [result for result in results if RANKS[result.status] >= RANKS[least]]
    found = {symptom: [result.name for result in bad if symptom in result.symptoms] for symptom in Symptom}
    lines = [f"  {SYMPTOMS[symptom][language]}: {', '.join(names)}" for symptom, names in found.items() if names]
    return [render("doctor.troubles", language), *lines] if lines else []


def render_report(results: Sequence[Result], context: Context, language: Language) -> str:
    """Return what a person reads."""
    parts = [
        [f"claw doctor {__version__}"],
        render_lines(results, language),
        explain_symptoms(results, language),
        [render("doctor.calls", language, count=context.billable)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def to_json(results: Sequence[Result], context: Context) -> str:
    """Return what a program reads: `checks`, `worst` and `billable_calls`, on one line."""
    body = {
        "checks": [result.to_json() for result in results],
        "worst": find_worst(results).value,
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
    symptom: str = "",
    timeout: float = TIMEOUT_S,
) -> int:
    """Check, report, and return the exit code: 0 ok, 1 warning, 2 fault, 130 after Ctrl-C."""
    logs.configure("critical", "text", ())  # What libraries and parts log is said here, in words.
    shown_in = Language(language) if language else load_tolerant(environ)[0].logs.language
    try:
        results, context = asyncio.run(
            diagnose(environ, shown_in, problems=problems, offline=offline, free=free, timeout=timeout)
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    if symptom:
        # All checks have run: a symptom's checks need others, which are only not shown.
        results = [result for result in results if Symptom(symptom) in result.symptoms]
    shown = to_json(results, context) + "\n" if as_json else render_report(results, context, shown_in)
    sys.stdout.write(shown)
    return RANKS[find_worst(results)]
