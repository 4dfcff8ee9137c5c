"""The command line: `claw run`, `dev`, `auth`, `doctor`, `health`. Thin: each imports what it needs and no more."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from claw import RELEASE

TROUBLES = ("stream-connection-failed", "bot-not-responding", "permission-denied", "intermittent-disconnections")
"""`claw.cli.doctor.texts.Trouble`, which is not imported for a command's help."""


def seconds(text: str) -> float:
    """A time limit from 0.1 s to 10 min."""
    value = float(text)
    if not 0.1 <= value <= 600:
        raise ValueError(text)
    return value


class _NoArgument(argparse.Action):
    """Refuses a secret as an argument, which process lists and shell histories show, and does not show it again."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.exit(78, "claw auth: a secret is no argument; use --client-secret-file FILE (- for standard input)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code (0 well, 1 not ready, 70 internal, 75 restart, 78 settings)."""
    parser = argparse.ArgumentParser(prog="claw", description="A DingTalk robot for any OpenAI-compatible model.")
    parser.add_argument("--version", action="version", version=f"claw {RELEASE}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="serve, configured by the environment (and .env outside of containers)")
    dev = commands.add_parser("dev", help="serve against a local DingTalk with a chat page; no account needed")
    dev.add_argument("--page-port", type=int, default=8765, help="port of the chat page (default: %(default)s)")
    commands.add_parser("health", help="ask /ready on the local port; exit code 0 when ready")
    # Without abbreviations: `--client-secret VALUE` must not pass for `--client-secret-file`.
    auth = commands.add_parser(
        "auth", help="ask for the app's credentials, check them, and write them to .env", allow_abbrev=False
    )
    auth.add_argument("--client-secret", nargs="?", action=_NoArgument, help=argparse.SUPPRESS)
    auth.add_argument("--client-id", default="", metavar="ID", help="Client ID (AppKey); asked for where not given")
    auth.add_argument(
        "--client-secret-file", default="", metavar="FILE", help="file with the Client Secret; - is stdin"
    )
    auth.add_argument("--env-file", type=Path, default=Path(".env"), help="file to write (default: %(default)s)")
    auth.add_argument("--check", action="store_true", help="only check what is set, write nothing")
    auth.add_argument("--yes", action="store_true", help="overwrite different values without asking")
    doctor = commands.add_parser("doctor", help="check everything that must work; exit code 0 ok, 1 warning, 2 fault")
    doctor.add_argument("--offline", action="store_true", help="stay off the network")
    doctor.add_argument("--free", action="store_true", help="make no call that DingTalk bills (at most 4 otherwise)")
    doctor.add_argument("--trouble", default="", choices=TROUBLES, help="only the checks that explain this trouble")
    for command in (auth, doctor):
        command.add_argument("--json", action="store_true", help="answer for programs")
        command.add_argument("--lang", default="", choices=("zh", "en"), help="language (default: CLAW_LANG)")
        command.add_argument("--timeout", type=seconds, default=10.0, metavar="S", help="seconds for one answer")
    chosen = parser.parse_args(arguments)
    match chosen.command:
        case "run":
            return _run()
        case "dev":
            return _dev(chosen.page_port)
        case "auth":
            return _auth(chosen)
        case "doctor":
            return _doctor(chosen)
        case _:
            return _health()


def _run() -> int:
    # As PID 1 of a container the kernel ignores a SIGTERM that nobody handles, and loading takes a moment.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from claw.config import files, reader, settings  # noqa: PLC0415 - `claw health` must not pay for what it does not use
    from claw.errors import SettingsError  # noqa: PLC0415

    try:
        environ = files.environment()
        # Libraries read theirs from the process: OTEL_*, HTTPS_PROXY, and SSL_CERT_FILE at their very import.
        os.environ.update(environ)
        loaded = reader.load(environ)
    except SettingsError as error:
        reader.print_problems(error)
        return settings.EXIT_BAD_SETTINGS
    from claw.app import serve  # noqa: PLC0415

    return serve(loaded)


def _dev(page_port: int) -> int:
    try:
        from claw.cli.dev import develop  # noqa: PLC0415
    except ModuleNotFoundError:
        print("claw dev is not part of this image: it belongs to the repository (make dev)", file=sys.stderr)  # noqa: T201
        return 1
    return develop(page_port)


def _readable_environment() -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment as `claw run` would have it, and what was wrong with reading it; both commands go on then."""
    from claw.config import files  # noqa: PLC0415
    from claw.errors import SettingsError  # noqa: PLC0415

    problems: tuple[str, ...] = ()
    try:
        environ = files.environment()
    except SettingsError as error:
        environ, problems = dict(os.environ), error.problems
    os.environ.update(environ)  # As in `_run`, before any library is imported.
    return environ, problems


def _auth(chosen: argparse.Namespace) -> int:
    environ, _ = _readable_environment()
    from claw.cli import auth  # noqa: PLC0415

    given = auth.Given(
        client_id=chosen.client_id,
        secret_file=chosen.client_secret_file,
        env_file=chosen.env_file,
        check_only=chosen.check,
        as_json=chosen.json,
        overwrite=chosen.yes,
        timeout=chosen.timeout,
    )
    return auth.main(environ, given, chosen.lang)


def _doctor(chosen: argparse.Namespace) -> int:
    environ, problems = _readable_environment()
    from claw.cli.doctor.command import main as doctor  # noqa: PLC0415

    return doctor(
        environ,
        problems,
        as_json=chosen.json,
        offline=chosen.offline,
        free=chosen.free,
        language=chosen.lang,
        trouble=chosen.trouble,
        timeout=chosen.timeout,
    )


def _health() -> int:
    from claw.cli.health import main as probe  # noqa: PLC0415

    return probe()


if __name__ == "__main__":
    sys.exit(main())
