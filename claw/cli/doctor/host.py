"""Checks of this machine: settings, store, who may write, a claw that runs here, and this month's calls.

None of them changes a message or a setting: the store is locked for a moment at most, and a trial file is removed.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from claw.cli.doctor import store
from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.cli.health import reach
from claw.dingtalk.quota import month_of, sum_billable
from claw.errors import StoreBusyError, StoreError, StoreSchemaError
from claw.http_client import read_at_most
from claw.language import join
from claw.policy import DirectPolicy, GroupPolicy, Pairing
from claw.store.open import file_of, inspect
from claw.store.ports import Inspection
from claw.turn.access import resolve_rules

T = TypeVar("T")

FREE_MIN_MIB: Final = 64
"""Free space below which a warning is due; a store of 100 000 messages takes some 50 MiB."""
EPHEMERAL: Final = frozenset({"tmpfs", "ramfs", "overlay", "aufs", "fuse-overlayfs"})
"""File systems that are lost with the machine's memory or with the container."""
LOCAL_TIMEOUT_S: Final = 3.0
"""Seconds for a claw of this machine to answer; the checks behind /ready end within 2 s."""
AGENT_TURNS_MAX: Final = 8
"""Turns that an OpenClaw gateway runs at once by default; the others queue there (docs/openclaw.md)."""
ANSWER_MAX_BYTES: Final = 256 * 1024
WEBHOOK_QUOTA_MAX: Final = 3_000
OPENAPI_QUOTA_MAX: Final = 5_000
"""Calls a month of a standard organisation (docs/protocol.md section 6.6)."""
QUOTA_NEAR: Final = 0.8


async def check_settings(context: Context) -> Finding:
    """Report every problem of the environment."""
    if context.problems:
        return fault("settings.faulty", count=len(context.problems), problems=join("; ", context.problems))
    if context.settings.warnings:
        return warn("settings.warned", problems=join("; ", context.settings.warnings))
    return good("settings.ok")


# --- store -------------------------------------------------------------------------------------------------------


async def check_store(context: Context) -> Finding:
    """Check whether claw could keep messages there, and whether they would outlive the process."""
    file = file_of(context.settings.store)
    if file is None:
        return await store.check_store(context)
    path = file.absolute()
    folder = _find_existing(path.parent)
    kind = filesystem_of(folder)
    try:
        await asyncio.to_thread(_try_write, folder)
        if path.exists():
            async with _inspect(context) as inspection:
                await inspection.check()
    except StoreBusyError:
        context.store_held = True
    except OSError as error:
        return fault("store.unwritable", path=path, cause=error.strerror or type(error).__name__)
    except StoreError as error:
        cause = error.__cause__ or error
        key = "store.newer" if isinstance(error, StoreSchemaError) else "store.broken"
        return fault(key, path=path, cause=getattr(cause, "strerror", None) or cause)
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize // 2**20
    if kind in EPHEMERAL:
        return warn("store.fleeting", path=path, kind=kind)
    if free < FREE_MIN_MIB:
        return warn("store.full", path=path, free=free)
    return good("store.held" if context.store_held else "store.ok", path=path, kind=kind or "?")


def _find_existing(folder: Path) -> Path:
    """Return `folder`, or the nearest one above it that exists; claw makes the rest."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _try_write(folder: Path) -> None:
    """Write a file of our own as claw would write its store. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".claw-doctor-") as trial:
        trial.write(b"claw doctor")
        trial.flush()
        os.fsync(trial.fileno())


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that holds `path` (proc(5), mountinfo); empty where it is unknown."""
    target = path.resolve()
    # Counted in parts of the path: /database does not lie below /data.
    best, kind = 0, ""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))  # A blank is written as \040.
        # Mounts are listed in the order in which they were made.
        # The last of equals is on top of the others.
        if len(point.parts) >= best and target.is_relative_to(point):
            best, kind = len(point.parts), after.split()[0]
    return kind


# --- access ------------------------------------------------------------------------------------------------------


async def check_access(context: Context) -> Finding:
    """Check who may talk, and who owns the robot, by the rules in force; the gravest risk is reported."""
    settings = context.settings
    entries = await _read(context, lambda inspection: inspection.items()) or {}
    rules = resolve_rules(settings.access, entries)
    group, direct = rules.group_policy, rules.direct_policy
    model = settings.model.name
    # OpenClaw keeps the history itself and has tools: who may talk to it may act by it.
    agent = model.split("/")[0].lower() == "openclaw" or settings.conversation.history_turns == 0
    if agent and (group is GroupPolicy.OPEN or direct is DirectPolicy.OPEN):
        return warn("access.open_agent", model=model)
    if not rules.owners and settings.access.pairing is Pairing.FIRST:
        # How every robot begins, and no fault: whoever sets it up writes first.
        return good("access.first_come")
    if group is GroupPolicy.ALLOWLIST and not rules.group_listed:
        return warn("access.nobody", name="CLAW_GROUP_POLICY", list="CLAW_GROUP_ALLOWED_USERS")
    if direct is DirectPolicy.ALLOWLIST and not rules.direct_listed:
        return warn("access.nobody", name="CLAW_DIRECT_POLICY", list="CLAW_DIRECT_ALLOWED_USERS")
    return good("access.ok", owners=len(rules.owners), group=group.value, direct=direct.value)


async def check_concurrency(context: Context) -> Finding:
    """Compare how many conversations are answered at once with what an OpenClaw gateway runs at once."""
    count = context.settings.inbox.max_concurrency
    if context.settings.model.name.lower().startswith("openclaw") and count > AGENT_TURNS_MAX:
        return warn("concurrency.agent", count=count, limit=AGENT_TURNS_MAX)
    return good("concurrency.ok", count=count)


# --- the claw of this machine --------------------------------------------------------------------------------------


async def check_instance(context: Context) -> Finding:
    """Ask /ready of the claw on this machine's port, if there is one."""
    http = context.settings.http
    try:
        report = await _ask_instance(context, "/ready")
        checks = dict(report["checks"])
        ready = report["status"] == "ready"
        stream = checks["stream"]
        context.stream_open = stream["ok"] is True
        failing = [f"{name} {check['state']}" for name, check in checks.items() if check["ok"] is not True]
    except _UNUSABLE:
        return skip("instance.none", port=http.port)
    if ready:
        return good("instance.running", port=http.port, state=stream["state"])
    return warn("instance.unready", port=http.port, state=", ".join(failing) or report["status"])


async def check_instance_model(context: Context) -> Finding:
    """Ask /status of that claw how the model's server did with people's questions."""
    http = context.settings.http
    token = await asyncio.to_thread(http.read_admin_token)
    if not token:
        # Without one that claw has no /status.
        return skip("serving.unknown", port=http.port)
    try:
        status = await _ask_instance(context, "/status", token.reveal())
        context.quotas_refused = tuple(map(str, dict(status.get("budget") or {}).get("refused") or ()))
        health = status["model"]
        error = health["last_error"]
        if health["up"] is not True:
            return warn("serving.failing", at=error["at"], cause=error["reason"], remedy=error["remedy"])
        return good("serving.ok", at=health["last_success"]) if health["last_success"] else skip("serving.unasked")
    except _UNUSABLE:
        return skip("serving.unknown", port=http.port)


_UNUSABLE: Final = (
    TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, AttributeError
)  # fmt: skip
"""What asking a port may end with, and reading the answer: an older claw, or another program, may listen there."""


async def _ask_instance(context: Context, path: str, token: str = "") -> dict[str, Any]:
    """Return what the claw of this machine says at `path`. Raises any of _UNUSABLE."""
    http = context.settings.http
    host = reach(http.host)
    # Not by the other client: no proxy stands between us and ourselves.
    async with (
        asyncio.timeout(LOCAL_TIMEOUT_S),
        aiohttp.ClientSession() as session,
        session.get(
            f"http://[{host}]:{http.port}{path}" if ":" in host else f"http://{host}:{http.port}{path}",
            allow_redirects=False,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        ) as response,
    ):
        # Bounded, and read as JSON whatever it says it is.
        return dict(json.loads(await read_at_most(response, ANSWER_MAX_BYTES) or b""))


# --- quota -------------------------------------------------------------------------------------------------------


async def check_quota(context: Context) -> Finding:
    """Report what claw itself counted this month, unless DingTalk has just said that all is used up."""
    if context.quota_used_up:
        return fault("quota.used_up")
    # Only who sends by webhook hears of an administrator's cap: the running claw has, and asking ourselves would cost.
    if context.quotas_refused:
        return warn("quota.capped", names=", ".join(context.quotas_refused))
    if _is_out_of_reach(context):
        return skip("skip.offline")
    month = month_of(context.clock.wall())
    calls = await _read(context, lambda inspection: inspection.calls(month))
    if calls is None:
        return skip("quota.unknown")
    openapi, webhook = sum_billable(calls)
    near = webhook >= QUOTA_NEAR * WEBHOOK_QUOTA_MAX or openapi >= QUOTA_NEAR * OPENAPI_QUOTA_MAX
    found = warn if near else good
    return found("quota.near" if near else "quota.ok", month=month, webhook=webhook, openapi=openapi)


async def _read(context: Context, ask: Callable[[Inspection], Awaitable[T]]) -> T | None:
    """Ask the store, beside a claw that may be writing; None where there is none, or it cannot be asked."""
    if _is_out_of_reach(context):
        return None
    try:
        async with _inspect(context) as inspection:
            return await ask(inspection)
    except StoreError:
        return None


def _inspect(context: Context) -> AbstractAsyncContextManager[Inspection]:
    return inspect(context.settings.store, context.settings.dingtalk.client_id, context.clock)


def _is_out_of_reach(context: Context) -> bool:
    # A file is read without the network, Redis is not.
    return context.offline and file_of(context.settings.store) is None
