"""The command line: `claw run`, `dev`, `auth`, `doctor`, `owner`, `dead`, `health`. Each command has its own module.

Here are only their arguments. A command's module is imported when it is asked for: `claw health` runs every few
seconds and must not load the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from claw import RELEASE
from claw.cli.help import CommandParser, tell

SYMPTOMS = ("stream-connection-failed", "bot-not-responding", "permission-denied", "intermittent-disconnections")
"""`claw.cli.doctor.texts.Symptom`, which is not imported for a command's help."""
TIMEOUT_S = (0.1, 600.0)


def parse_seconds(text: str) -> float:
    """Parse a time limit within TIMEOUT_S."""
    value = float(text)
    if not TIMEOUT_S[0] <= value <= TIMEOUT_S[1]:
        raise ValueError(text)
    return value


class _NoArgument(argparse.Action):
    """Refuses a secret as an argument, which process lists and shell histories show, and does not show it again."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        # Not `error`: that one ends with 2, as for a typing error.
        parser.exit(78, "claw auth: a secret is no argument; use --client-secret-file FILE (- for standard input)\n")


def build_parser() -> CommandParser:
    """Make the parser of all commands."""
    parser = CommandParser(prog="claw", description=tell("claw"), epilog=tell("other"))
    parser.add_argument("--version", action="version", version=f"claw {RELEASE}", help=tell("version"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title=tell("commands"))
    commands.add_parser("run", help=tell("run"), description=tell("run"))
    dev = commands.add_parser("dev", help=tell("dev"), description=tell("dev"))
    dev.add_argument("--page-port", type=int, default=8765, help=tell("dev page_port"))
    commands.add_parser("health", help=tell("health"), description=tell("health"))
    # Without abbreviations: `--client-secret VALUE` must not pass for `--client-secret-file`.
    auth = commands.add_parser("auth", help=tell("auth"), description=tell("auth"), allow_abbrev=False)
    _add_auth_arguments(auth)
    doctor = commands.add_parser("doctor", help=tell("doctor"), description=tell("doctor"))
    _add_doctor_arguments(doctor)
    owner = commands.add_parser("owner", help=tell("owner"), description=tell("owner"))
    owner.add_argument("action", choices=("show", "reset"), help=tell("owner action"))
    owner.add_argument("--yes", action="store_true", help=tell("owner yes"))
    dead = commands.add_parser("dead", help=tell("dead"), description=tell("dead"))
    dead.add_argument("action", choices=("list", "retry", "drop"))
    dead.add_argument("ids", nargs="*", metavar="ID", help=tell("dead ids"))
    dead.add_argument("--url", default="", help=tell("dead url"))
    for command in (auth, doctor, owner, dead):
        command.add_argument("--json", action="store_true", help=tell("json"))
        command.add_argument("--lang", default="", choices=("zh", "en"), help=tell("lang"))
    for command in (auth, doctor):
        command.add_argument("--timeout", type=parse_seconds, default=10.0, metavar="S", help=tell("timeout"))
    return parser


def _add_auth_arguments(auth: argparse.ArgumentParser) -> None:
    auth.add_argument("--client-secret", nargs="?", action=_NoArgument, help=argparse.SUPPRESS)
    auth.add_argument("--client-id", default="", metavar="ID", help=tell("auth client_id"))
    auth.add_argument("--client-secret-file", default="", metavar="FILE", help=tell("auth secret_file"))
    auth.add_argument("--env-file", type=Path, default=Path(".env"), help=tell("auth env_file"))
    auth.add_argument("--scan", action="store_true", help=tell("auth scan"))
    auth.add_argument("--check", action="store_true", help=tell("auth check"))
    auth.add_argument("--yes", action="store_true", help=tell("auth yes"))


def _add_doctor_arguments(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument("--offline", action="store_true", help=tell("doctor offline"))
    doctor.add_argument("--free", action="store_true", help=tell("doctor free"))
    doctor.add_argument("--trouble", default="", choices=SYMPTOMS, help=tell("doctor trouble"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code (0 well, 1 not ready, 70 internal, 75 restart, 78 settings)."""
    parsed = build_parser().parse_args(arguments)
    match parsed.command:
        case "run":
            from claw.cli import run  # noqa: PLC0415 - here and below: see above

            return run.main()
        case "dev":
            return _dev(parsed.page_port)
        case "auth":
            return _auth(parsed)
        case "doctor":
            return _doctor(parsed)
        case "owner":
            return _owner(parsed)
        case "dead":
            return _dead(parsed)
        case _:
            from claw.cli import health  # noqa: PLC0415

            return health.main()


def _dev(page_port: int) -> int:
    try:
        from claw.cli.dev import main as develop  # noqa: PLC0415
    # The image has neither the emulator nor this command.
    except ModuleNotFoundError:
        print("claw dev is not part of this image: it belongs to the repository (make dev)", file=sys.stderr)  # noqa: T201
        return 1
    return develop(page_port)


def _auth(parsed: argparse.Namespace) -> int:
    from claw.cli.environment import read_environment  # noqa: PLC0415

    environ, _ = read_environment()
    from claw.cli import auth  # noqa: PLC0415 - after the environment: it imports aiohttp

    given = auth.AuthArguments(
        client_id=parsed.client_id,
        secret_file=parsed.client_secret_file,
        env_file=parsed.env_file,
        check_only=parsed.check,
        as_json=parsed.json,
        overwrite=parsed.yes,
        scan=parsed.scan,
        timeout=parsed.timeout,
    )
    return auth.main(environ, given, parsed.lang)


def _doctor(parsed: argparse.Namespace) -> int:
    from claw.cli.environment import read_environment  # noqa: PLC0415

    environ, problems = read_environment()
    from claw.cli.doctor import command  # noqa: PLC0415 - as above

    return command.main(
        environ,
        problems,
        as_json=parsed.json,
        offline=parsed.offline,
        free=parsed.free,
        language=parsed.lang,
        symptom=parsed.trouble,
        timeout=parsed.timeout,
    )


def _dead(parsed: argparse.Namespace) -> int:
    if bool(parsed.ids) is (parsed.action == "list"):
        print("claw dead list | retry ID... | retry all | drop ID...", file=sys.stderr)  # noqa: T201
        return 2
    from claw.cli.environment import read_environment  # noqa: PLC0415

    environ, _ = read_environment()
    from claw.cli import dead  # noqa: PLC0415

    return dead.main(
        environ, action=parsed.action, ids=parsed.ids, url=parsed.url, as_json=parsed.json, language=parsed.lang
    )


def _owner(parsed: argparse.Namespace) -> int:
    from claw.cli.environment import read_environment  # noqa: PLC0415

    environ, problems = read_environment()
    from claw.cli import owner  # noqa: PLC0415 - as above

    return owner.main(
        environ,
        problems,
        action=owner.OwnerAction(parsed.action),
        as_json=parsed.json,
        confirmed=parsed.yes,
        language=parsed.lang,
    )


if __name__ == "__main__":
    sys.exit(main())
