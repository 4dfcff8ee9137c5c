"""The registry of commands: what each is called, who may give it, and what `/help` says of it.

A command is declared once, by a decorator beside its handler (handlers.py). Everybody else reads the registry: the
parser for names and arguments, the inbox for urgency, `/help` for its text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from claw.language import Language
from claw.messages import Inbound
from claw.turn.access import Rules
from claw.turn.texts import Bilingual


class Audience(Enum):
    """Who may give a command."""

    EVERYBODY = "everybody"
    """Everybody who may talk to the robot."""
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command as it is declared.

    `aliases` are its other names, in Chinese. `takes_arguments`: without it, any words behind the name make the message
    a question. `urgent`: it interrupts the running turn of its conversation rather than to wait for it. `help_text` is
    a line of `/help`; commands that share a text share the line.
    """

    name: str
    aliases: tuple[str, ...]
    audience: Audience
    takes_arguments: bool
    urgent: bool
    help_text: Bilingual
    handler: Callable[[Any, Invocation], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """A command that somebody wrote. Mentions are no arguments: those are in `Inbound.mentioned`."""

    spec: CommandSpec
    arguments: tuple[str, ...] = ()
    chinese: bool = False
    """Written by its Chinese name, which tells the person's language; a Latin name tells nothing."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a handler gets: the command, and who gave it where, under which rules."""

    command: Command
    inbound: Inbound
    conversation_key: str
    rules: Rules
    language: Language
    is_owner: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.command.arguments


Handler = TypeVar("Handler", bound=Callable[[Any, Invocation], Awaitable[str]])


class CommandRegistry:
    """Commands by name, in the order in which they are declared."""

    def __init__(self) -> None:
        self._specs: list[CommandSpec] = []
        self._by_name: dict[str, CommandSpec] = {}

    def __iter__(self) -> Iterator[CommandSpec]:
        return iter(self._specs)

    def command(
        self,
        name: str,
        *aliases: str,
        help_text: Bilingual,
        audience: Audience = Audience.EVERYBODY,
        takes_arguments: bool = False,
        urgent: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Declare the decorated method as the handler of a command. Raises ValueError for a name that is taken."""

        def register(handler: Handler) -> Handler:
            spec = CommandSpec(name, aliases, audience, takes_arguments, urgent, help_text, handler)
            for each in (name, *aliases):
                if each in self._by_name:
                    raise ValueError(f"two commands are called {each}")
                self._by_name[each] = spec
            self._specs.append(spec)
            return handler

        return register

    def find(self, name: str) -> CommandSpec | None:
        """Return the command of this name or alias, both in lower case."""
        return self._by_name.get(name)

    def help_lines(self, audience: Audience, language: Language) -> str:
        """Return the lines of `/help` for an audience's own commands."""
        lines = (f"- {spec.help_text[language]}" for spec in self if spec.audience is audience)
        return "\n".join(dict.fromkeys(lines))
