"""Who is named in an answer is mentioned, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from claw.messages import ChatKind, Conversation, Inbound, Sender
from claw.parts import Person
from claw.reply.mentions import mention
from tests.messages import inbound

GROUP = Conversation("cidG", ChatKind.GROUP, "Room")
PEOPLE = (Person("$:x", "u77", "王大伟"), Person("$:y", "u78", "王大"), Person("$:z", "", "Guest"))


def asked(**fields: Any) -> Inbound:
    return inbound("x", conversation=GROUP, sender=Sender("$:a", "u-1", "Ann"), people=PEOPLE, **fields)


@pytest.mark.parametrize(
    ("text", "written", "ids"),
    [
        ("祝福 @u77 和 @u78", "祝福 @u77 和 @u78", ["u77", "u78"]),
        ("祝福 @王大伟！", "祝福 @u77 ！", ["u77"]),
        ("@王大 你好", "@u78 你好", ["u78"]),
        ("＠王大伟 你好", "@u77 你好", ["u77"]),
        ("@Ann see below", "@u-1 see below", ["u-1"]),
        ("你好@王大伟", "你好@u77", ["u77"]),
        # Nobody of this message, no whole word, no address, no code.
        ("@u79 and @somebody", "@u79 and @somebody", []),
        ("@Anna @u777 @u77.example", "@Anna @u777 @u77.example", []),
        ("mail x@u77 and a@Ann", "mail x@u77 and a@Ann", []),
        ("`@u77` and ```\n@王大伟\n```", "`@u77` and ```\n@王大伟\n```", []),
        ("@Guest hello", "@Guest hello", []),
        ("@所有人 @all", "@所有人 @all", []),
    ],
)
def test_who_is_mentioned(text: str, written: str, ids: list[str]) -> None:
    """By id or name, longest name first, in plain words only."""
    assert mention(text, asked()) == (written, ids)


def test_two_of_one_name_are_nobody() -> None:
    """A nickname that somebody chose after another person's does not ring at theirs."""
    people = (Person("$:x", "u77", "老王"), Person("$:y", "u78", "老王"), Person("$:z", "u79", "老王"))
    message = inbound("x", conversation=GROUP, people=people)
    assert mention("@老王 在吗", message) == ("@老王 在吗", [])


def test_in_a_direct_chat_nobody_is_mentioned() -> None:
    """There is nobody to ring at."""
    assert mention("@u-1001 hi", inbound("x")) == ("@u-1001 hi", [])
