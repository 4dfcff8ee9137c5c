"""`claw run`: serve, configured by the environment, and by `.env` outside of containers.

Order of events: a handler for SIGTERM, the environment, the settings, then the service's own modules. Faults of the
settings are printed all at once, and end the process with 78 before anything is loaded.
"""

from __future__ import annotations

import os
import signal
import sys


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
        loaded = reader.load(environ)
    except SettingsError as error:
        # To stderr: there is no log yet, and its format is one of these settings.
        reader.print_problems(error)
        return settings.EXIT_BAD_SETTINGS
    from claw.app import serve  # noqa: PLC0415 - after the environment, see above

    return serve(loaded)
