"""The registry of commands: what each is called, who may give it, and what `/help` says of it.

A command is declared once, by a decorator beside its handler (handlers.py). Everybody else reads the registry: the
parser for names and arguments, the inbox for urgency, `/help` for its text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from claw.language import Language, Text
from claw.messages import Inbound
from claw.turn.access import Rules


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command as it is declared.

    `aliases` are its other names, in both languages; `bare` those that are a command without a slash as well, where
    they are the whole message. `help_text` is its line of `/help`; commands may share one. `owner_only`:
    anybody else who may talk is refused. `takes_arguments`: without it, any words behind the name make the message a
    question. `urgent`: it does not wait behind the running turn of its conversation, which may take minutes. What
    changes lists and policies is not: those commands mean what they say in the order in which they were given.
    """

    name: str
    aliases: tuple[str, ...]
    help_text: Text
    owner_only: bool
    takes_arguments: bool
    urgent: bool
    handler: Callable[[Any, Invocation], Awaitable[str]]
    bare: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A command that somebody wrote. `@name` is no argument: whom it means is in `Inbound.mentioned`."""

    spec: CommandSpec
    arguments: tuple[str, ...] = ()
    chinese: bool = False
    """Written by its Chinese name, which tells the person's language; a Latin name tells nothing."""
    words: tuple[str, ...] = ()
    """All that stands behind the name, `@name` included."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a handler gets: the command, and who gave it where, under which rules."""

    command: Command
    inbound: Inbound
    conversation_key: str
    rules: Rules
    language: Language

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
        help_text: Text,
        owner_only: bool = False,
        takes_arguments: bool = False,
        urgent: bool = False,
        bare: tuple[str, ...] = (),
    ) -> Callable[[Handler], Handler]:
        """Declare the decorated method as the handler of a command. Raises ValueError for a name that is taken."""

        def register(handler: Handler) -> Handler:
            spec = CommandSpec(name, aliases, help_text, owner_only, takes_arguments, urgent, handler, bare)
            for each in dict.fromkeys((name, *aliases, *bare)):
                # At import, not when somebody writes it: the second command would silently take over the first.
                if each in self._by_name:
                    raise ValueError(f"two commands are called {each}")
                self._by_name[each] = spec
            self._specs.append(spec)
            return handler

        return register

    @property
    def names(self) -> Iterable[str]:
        """All names and aliases."""
        return self._by_name

    def find_bare(self, word: str) -> CommandSpec | None:
        """Return the command that this word is without a slash, in lower case."""
        spec = self._by_name.get(word)
        return spec if spec is not None and word in spec.bare else None

    def find(self, name: str) -> CommandSpec | None:
        """Return the command of this name or alias, both in lower case."""
        return self._by_name.get(name)

    def format_help(self, language: Language, *, owner_only: bool) -> str:
        """Return the lines of `/help` for the owner's commands, or for everybody's."""
        lines = (f"- {spec.help_text[language]}" for spec in self if spec.owner_only is owner_only)
        # Without repeats: two commands that are told in one line share its text.
        return "\n".join(dict.fromkeys(lines))


COMMANDS: Final = CommandRegistry()
"""All commands, filled by the decorators of handlers.py and owner.py: it is empty until handlers.py was imported."""
