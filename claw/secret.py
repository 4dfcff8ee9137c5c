"""Values that must not be shown, and the hashes that stand for people and conversations."""

from __future__ import annotations

import hashlib


class Secret:
    """A text that shows itself only when asked: `repr`, `str` and formatting give asterisks."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret()"

    __str__ = __repr__


def hash_id(identifier: str) -> str:
    """Hash an id to a stable short name for traces, logs and the model: 32 lower-case hex digits."""
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:32]
