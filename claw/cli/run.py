"""`claw run`: serve, configured by the environment, and by `.env` outside of containers.

Order of events: a handler for SIGTERM, the environment, the settings, then the service's own modules. Faults of the
settings are printed all at once, and end the process with 78 before anything is loaded. Where nothing lacks but the
app's credentials, and there is an admin token, the operator's page is served first, for a scan (claw/setup.py).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from claw.config.settings import Settings


def main() -> int:
    """Serve until asked to stop; returns the exit code: 0 asked, 70 internal, 75 restart, 78 settings."""
    # As PID 1 of a container the kernel ignores a SIGTERM that nobody handles, and loading takes a moment.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from claw.config import files, reader, settings  # noqa: PLC0415 - after the handler
    from claw.errors import SettingsError  # noqa: PLC0415

    try:
        environ = files.environment()
        # Libraries read theirs from the process: OTEL_*, HTTPS_PROXY, and SSL_CERT_FILE at their very import.
        os.environ.update(environ)
        loaded = _load(environ)
    except SettingsError as error:
        # To stderr: there is no log yet, and its format is one of these settings.
        reader.print_problems(error, reader.read_language(os.environ))
        return settings.EXIT_BAD_SETTINGS
    # A stop that was asked for is no failure, whatever we were waiting for.
    if loaded is None:
        return 0
    from claw.app import serve  # noqa: PLC0415 - after the environment, see above

    return serve(loaded)


def _load(environ: dict[str, str]) -> Settings | None:
    """Return the settings; None where we were asked to stop before there were credentials. Raises SettingsError."""
    from claw.config.reader import load  # noqa: PLC0415 - after the handler
    from claw.credentials import find_open_settings  # noqa: PLC0415 - as above

    if (found := find_open_settings(environ)) is not None:
        from claw import setup  # noqa: PLC0415 - a page and a server that nearly no start needs

        return setup.main(environ, *found)
    return load(environ)
