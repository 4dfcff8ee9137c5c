"""The environment for the commands that help with a faulty one: `claw auth`, `claw doctor` and `claw owner`."""

from __future__ import annotations

import os

from claw.config import files
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
    return environ, problems
