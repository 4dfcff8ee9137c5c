"""Our card template: what is imported at DingTalk has the variables and buttons that claw knows."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claw.config.answers import ReplySettings
from claw.dingtalk.cards import STATUS_FIELD, CardStatus
from claw.reply.buttons import NOTICE_FIELD, VOTE_FIELD, ButtonAction

FOLDER = Path(__file__).parents[2] / "deploy" / "card"


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for each in node.get("children", ()):
        yield from nodes(each)


@pytest.fixture(scope="module")
def editor() -> dict[str, Any]:
    template = json.loads((FOLDER / "template.json").read_text(encoding="utf-8"))
    assert (template["type"], template["mode"]) == ("im", "card")
    made: dict[str, Any] = json.loads(template["editorData"])
    return made


@pytest.fixture(scope="module")
def statuses(editor: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Status of a card -> what stands in it."""
    [card] = editor["schema"]["componentsTree"]
    assert card["componentName"] == "AICardContainer"
    return {str(each["props"]["status"]): list(nodes(each)) for each in card["children"]}


def actions(found: list[dict[str, Any]]) -> list[str]:
    return [each["props"]["actionId"]["content"] for each in found if each["props"].get("actionType") == "request"]


def test_the_file_is_what_the_generator_makes() -> None:
    """Whoever changes one of them changes both."""
    spec = importlib.util.spec_from_file_location("make_template", FOLDER / "make_template.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (FOLDER / "template.json").read_text(encoding="utf-8") == module.make_template()


def test_variables(editor: dict[str, Any]) -> None:
    """The text is for all, a notice and a vote for one person, the status is DingTalk's."""
    found = {each["name"]: (each["type"], each["private"]) for each in editor["variableList"]}
    assert found == {
        ReplySettings().card_key: ("markdown", False),
        NOTICE_FIELD: ("string", True),
        VOTE_FIELD: ("string", True),
        STATUS_FIELD: ("string", False),
    }
    named = re.findall(r'"variable": "(\w+)"|\$\{(\w+)\}', json.dumps(editor["schema"]))
    assert {one or other for one, other in named} == set(found) - {STATUS_FIELD}


def test_buttons(statuses: dict[str, list[dict[str, Any]]]) -> None:
    """While it grows a card can be stopped, afterwards rated; every action is one that claw knows."""
    assert {status: actions(found) for status, found in statuses.items()} == {
        CardStatus.PROCESSING: [ButtonAction.STOP],
        CardStatus.INPUTTING: [ButtonAction.STOP],
        CardStatus.FINISHED: [ButtonAction.LIKE, ButtonAction.DISLIKE],
    }


def test_the_text_stands_in_every_status(statuses: dict[str, list[dict[str, Any]]]) -> None:
    """What claw writes at the beginning is seen as well, and only a card that grows types."""
    growing = {
        status: [each["props"]["isStreaming"] for each in found if each["componentName"] == "MarkdownBlock"]
        for status, found in statuses.items()
    }
    assert growing == {CardStatus.PROCESSING: [True], CardStatus.INPUTTING: [True], CardStatus.FINISHED: [False]}


def test_components(editor: dict[str, Any], statuses: dict[str, list[dict[str, Any]]]) -> None:
    """Each component is declared, and no id comes twice."""
    found = [each for every in statuses.values() for each in every]
    names = {each["componentName"] for each in found} | {"AICardContainer"}
    assert names == {each["componentName"] for each in editor["schema"]["componentsMap"]}
    assert len({each["id"] for each in found}) == len(found)
    assert editor["extension"]["aiStatusList"] == [int(each) for each in statuses]


def test_words_are_in_both_languages(statuses: dict[str, list[dict[str, Any]]]) -> None:
    """What people read is Chinese for some and English for the others."""
    texts = [
        each["props"]["text"]["content"]
        for found in statuses.values()
        for each in found
        if each["props"].get("text", {}).get("i18n")
    ]
    assert len(texts) == 6
    assert all(each["zh_Hans"] != each["en_US"] and all(each.values()) for each in texts)
