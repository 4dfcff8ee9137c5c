"""Checks of this machine: settings, store, who may write, a claw that runs here, and this month's calls.

None of them changes a message or a setting: the store is locked for a moment at most, and a trial file is removed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

import aiohttp

from claw.cli.doctor import store as checks_redis
from claw.cli.doctor.runner import Context, Finding, fault, good, skip, warn
from claw.cli.health import LOOPBACK
from claw.dingtalk.client import BILLABLE, Api, month_of
from claw.errors import StoreBusyError, StoreError
from claw.policy import DirectPolicy, GroupPolicy, Pairing
from claw.store.ports import Store
from claw.store.sqlite import queries as tables
from claw.store.sqlite.schema import MIGRATIONS, Database
from claw.turn.access import resolve_rules

T = TypeVar("T")

FREE_MIN_MIB: Final = 64
"""Free space below which a warning is due; a store of 100 000 messages takes some 50 MiB."""
FLEETING: Final = frozenset({"tmpfs", "ramfs", "overlay", "aufs", "fuse-overlayfs"})
"""File systems that go with the machine's memory or with the container."""
BUSY_S: Final = 1.0
LOCAL_TIMEOUT_S: Final = 3.0
"""Seconds for a claw of this machine to answer; the checks behind /ready end within 2 s."""
QUOTA_WEBHOOK: Final = 3_000
QUOTA_OPENAPI: Final = 5_000
"""Calls a month of a standard organisation (PROTOCOL section 6.6)."""
QUOTA_NEAR: Final = 0.8


async def settings(context: Context) -> Finding:
    problems = "; ".join(context.problems)
    if context.problems:
        return fault("settings.faulty", count=len(context.problems), problems=problems)
    if context.settings.warnings:
        return warn("settings.warned", problems="; ".join(context.settings.warnings))
    return good("settings.ok")


# --- store -------------------------------------------------------------------------------------------------------


async def store(context: Context) -> Finding:
    """Whether claw could keep messages there, and whether they would outlast it."""
    if context.settings.store.in_redis:
        return await checks_redis.store(context)
    path = context.settings.store.path
    return await asyncio.to_thread(_store, context, path.absolute())


def _store(context: Context, path: Path) -> Finding:
    folder = _existing(path.parent)
    kind = filesystem_of(folder)
    try:
        context.store_held = _tried(path, folder)
    except OSError as error:
        return fault("store.unwritable", path=path, cause=error.strerror or type(error).__name__)
    except (StoreError, sqlite3.Error) as error:
        cause = error.__cause__ or error
        key = "store.newer" if "schema" in str(error) else "store.broken"
        return fault(key, path=path, cause=getattr(cause, "strerror", None) or cause)
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize // 2**20
    if kind in FLEETING:
        return warn("store.fleeting", path=path, kind=kind)
    if free < FREE_MIN_MIB:
        return warn("store.full", path=path, free=free)
    return good("store.held" if context.store_held else "store.ok", path=path, kind=kind or "?")


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest one above it that exists; claw makes the rest."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _tried(path: Path, folder: Path) -> bool:
    """Write as claw would; whether a running claw holds the store. Raises OSError, StoreError or sqlite3.Error."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".claw-doctor-") as trial:
        trial.write(b"claw doctor")
        trial.flush()
        os.fsync(trial.fileno())
    if not path.exists():
        return False
    database = Database(path)
    try:
        database.lock()
    except StoreBusyError:
        return True
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise StoreError(f"schema {version}, this claw knows {len(MIGRATIONS)} at most")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    finally:
        database.unlock()
    return False


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds `path`; empty where the system does not tell (proc(5), mountinfo)."""
    target = path.resolve()
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
        # The last of equals is on top of the others.
        if len(point.parts) >= best and target.is_relative_to(point):
            best, kind = len(point.parts), after.split()[0]
    return kind


# --- access ------------------------------------------------------------------------------------------------------


async def access(context: Context) -> Finding:
    """Who may talk, and who owns the robot, by the rules in force; the gravest of what stands open is told."""
    settings = context.settings
    entries = await _read(context, tables.entries, lambda store: store.items()) or {}
    rules = resolve_rules(settings.access, entries)
    group, direct = rules.group_policy, rules.direct_policy
    model = settings.model.name
    agent = model.split("/")[0].lower() == "openclaw" or settings.conversation.history_turns == 0
    if agent and (group is GroupPolicy.OPEN or direct is DirectPolicy.OPEN):
        return warn("access.open_agent", model=model)
    if not rules.owners and settings.access.pairing is Pairing.FIRST:
        return warn("access.first_come")
    if group is GroupPolicy.ALLOWLIST and not rules.group_listed:
        return warn("access.nobody", name="CLAW_GROUP_POLICY", list="CLAW_GROUP_ALLOWED_USERS")
    if direct is DirectPolicy.ALLOWLIST and not rules.direct_listed:
        return warn("access.nobody", name="CLAW_DIRECT_POLICY", list="CLAW_DIRECT_ALLOWED_USERS")
    return good("access.ok", owners=len(rules.owners), group=group.value, direct=direct.value)


# --- the claw of this machine --------------------------------------------------------------------------------------


async def instance(context: Context) -> Finding:
    """Ask /ready of the claw on this machine's port, if there is one."""
    http = context.settings.http
    host = LOOPBACK.get(http.host, http.host)
    url = f"http://[{host}]:{http.port}/ready" if ":" in host else f"http://{host}:{http.port}/ready"
    try:
        # Not by the other client: no proxy stands between us and ourselves.
        async with (
            asyncio.timeout(LOCAL_TIMEOUT_S),
            aiohttp.ClientSession() as session,
            session.get(url, allow_redirects=False) as response,
        ):
            report = json.loads(await response.content.read(64 * 1024))
        checks = dict(report["checks"])
        ready = report["status"] == "ready"
        stream = checks["stream"]
        context.stream_open = stream["ok"] is True
        failing = [f"{name} {check['state']}" for name, check in checks.items() if check["ok"] is not True]
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return skip("instance.none", port=http.port)
    if ready:
        return good("instance.running", port=http.port, state=stream["state"])
    return warn("instance.unready", port=http.port, state=", ".join(failing) or report["status"])


# --- quota -------------------------------------------------------------------------------------------------------


async def quota(context: Context) -> Finding:
    """What claw itself counted this month, unless DingTalk has just said that all is used up."""
    if context.quota_used_up:
        return fault("quota.used_up")
    if context.offline and context.settings.store.in_redis:
        return skip("skip.offline")
    month = month_of(context.clock.wall())
    calls = await _read(context, lambda connection: tables.calls(connection, month), lambda store: store.calls(month))
    if calls is None:
        return skip("quota.unknown")
    webhook = calls.get(Api.WEBHOOK, 0)
    openapi = sum(count for api, count in calls.items() if api in BILLABLE and api != Api.WEBHOOK)
    near = webhook >= QUOTA_NEAR * QUOTA_WEBHOOK or openapi >= QUOTA_NEAR * QUOTA_OPENAPI
    found = warn if near else good
    return found("quota.near" if near else "quota.ok", month=month, webhook=webhook, openapi=openapi)


async def _read(
    context: Context, read: Callable[[sqlite3.Connection], T], ask: Callable[[Store], Awaitable[T]]
) -> T | None:
    """What the store tells, read beside a claw that may be writing; None where there is none, or it cannot be read.

    `read` looks into the file, `ask` asks Redis.
    """
    if context.settings.store.in_redis:
        return await checks_redis.asked(context, ask)
    return await asyncio.to_thread(_read_only, context.settings.store.path.absolute(), read)


def _read_only(path: Path, read: Callable[[sqlite3.Connection], T]) -> T | None:
    try:
        path.stat()
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            return read(connection)
    except (OSError, sqlite3.Error):
        return None
