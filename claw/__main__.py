"""The command line: `claw run`, `claw dev`, `claw health`. Thin: each command imports what it needs and no more."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from claw import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code (0 well, 1 not ready, 70 internal, 75 restart, 78 settings)."""
    parser = argparse.ArgumentParser(prog="claw", description="A DingTalk robot for any OpenAI-compatible model.")
    parser.add_argument("--version", action="version", version=f"claw {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="serve, configured by the environment (and .env outside of containers)")
    dev = commands.add_parser("dev", help="serve against a local DingTalk with a chat page; no account needed")
    dev.add_argument("--page-port", type=int, default=8765, help="port of the chat page (default: %(default)s)")
    commands.add_parser("health", help="ask /ready on the local port; exit code 0 when ready")
    chosen = parser.parse_args(arguments)
    match chosen.command:
        case "run":
            return _run()
        case "dev":
            return _dev(chosen.page_port)
        case _:
            return _health()


def _run() -> int:
    from claw import settings  # noqa: PLC0415 - `claw health` must not pay for what it does not use
    from claw.errors import SettingsError  # noqa: PLC0415

    try:
        environ = settings.environment()
        # Libraries read theirs from the process: OTEL_*, HTTPS_PROXY, and SSL_CERT_FILE at their very import.
        os.environ.update(environ)
        loaded = settings.load(environ)
    except SettingsError as error:
        settings.complain(error)
        return settings.EXIT_BAD_SETTINGS
    from claw.app import serve  # noqa: PLC0415

    return serve(loaded)


def _dev(page_port: int) -> int:
    from claw.dev import develop  # noqa: PLC0415

    return develop(page_port)


def _health() -> int:
    from claw.ops.probe import main as probe  # noqa: PLC0415

    return probe()


if __name__ == "__main__":
    sys.exit(main())
