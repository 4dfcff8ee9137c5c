"""The error tree."""

from __future__ import annotations

import re

from claw import errors


def test_the_printed_tree_is_the_tree() -> None:
    """The module's docstring shows every class below its parent, in the order of the module."""
    assert errors.__doc__ is not None
    path: dict[int, str] = {}
    printed: list[tuple[str, str]] = []
    for indent, name in re.findall(r"^    ([│├└─ ]*)(\w+Error)\b", errors.__doc__, re.MULTILINE):
        depth = len(indent) // 4
        path[depth] = name
        if depth:
            printed.append((name, path[depth - 1]))
    found = [
        (each.__name__, each.__bases__[0].__name__)
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.ClawError) and each is not errors.ClawError
    ]
    assert printed == found
