"""The person at the terminal: what is said to them, and what they are asked."""

from __future__ import annotations

import getpass
import sys
import warnings
from dataclasses import dataclass

from claw.cli.doctor.runner import render
from claw.errors import ClawError
from claw.language import Language


class UnusableError(ClawError):
    """What was given cannot be used; the sentence says what would be right."""


@dataclass
class Prompt:
    """The person at the terminal, if there is one. Questions go to stderr: stdout is the command's answer."""

    language: Language
    quiet: bool = False
    """Say nothing to the person but questions: the answer is JSON."""

    @property
    def is_interactive(self) -> bool:
        return sys.stdin is not None and sys.stdin.isatty()

    def say(self, key: str, **values: object) -> None:
        """Print a sentence of the texts."""
        if not self.quiet:
            print(self.render(key, **values), file=sys.stderr)  # noqa: T201

    def show(self, line: str) -> None:
        """Print a line of our own that is the same in every language."""
        if not self.quiet:
            print(line, file=sys.stderr)  # noqa: T201

    def render(self, key: str, **values: object) -> str:
        """Return a sentence of the texts in the person's language."""
        return render(key, self.language, **values)

    def ask(self, question: str) -> str:
        """Return one line of the person's; the question stands before it. Raises UnusableError at the input's end."""
        print(f"{question}: ", end="", file=sys.stderr, flush=True)  # noqa: T201
        line = sys.stdin.readline()
        if not line:
            print(file=sys.stderr)  # noqa: T201
            raise UnusableError(self.render("auth.no_terminal"))
        return line

    def ask_secret(self, question: str) -> str:
        """Do as `ask`, without showing what is typed. Raises UnusableError where a terminal cannot hide it."""
        try:
            with warnings.catch_warnings():
                # Without a way to hide the input, getpass would warn and read with echo.
                warnings.simplefilter("error", getpass.GetPassWarning)
                return getpass.getpass(f"{question}: ", stream=sys.stderr)
        except getpass.GetPassWarning:
            raise UnusableError(self.render("auth.hidden")) from None
        except EOFError:
            raise UnusableError(self.render("auth.no_terminal")) from None
