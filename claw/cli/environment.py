"""The environment for the commands that help with a faulty one: `claw auth`, `claw doctor` and `claw owner`."""

from __future__ import annotations

import contextlib
import os

from claw.clock import Clock
from claw.config import files
from claw.credentials import find_kept, find_open_settings, overlay
from claw.errors import SettingsError


def read_environment() -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment as `claw run` would have it, and what was wrong with reading it.

    Call it before aiohttp is imported: libraries read theirs from the process, SSL_CERT_FILE at their very import.
    """
    problems: tuple[str, ...] = ()
    try:
        environ = files.environment()
    except SettingsError as error:
        # Without `.env`, then: the process's own variables can be checked all the same.
        environ, problems = dict(os.environ), error.problems
    os.environ.update(environ)
    return _add_kept(environ), problems


def _add_kept(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment with the credentials of a scan on the operator's page, where it has none itself."""
    # Here, once for all commands: what they check must be what the running claw goes by.
    with contextlib.suppress(SettingsError):
        # With an admin token alone: without one no scan can have been kept.
        if (found := find_open_settings(environ)) is not None:
            kept = find_kept(found[0].store, Clock())
            return environ if kept is None else overlay(environ, kept.client_id, kept.client_secret.reveal())
    return environ
