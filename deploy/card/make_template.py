"""Makes `template.json`, the AI card of claw, for import in the card builder of DingTalk's developer console.

Run by hand: `python deploy/card/make_template.py`. A test holds that the file is what this makes.

Order of events: the parts of the card are put together as a tree of the builder's components, one container for each
status of a card (docs/protocol.md section 7.4); the tree and the variables become `editorData`, which is JSON as text.
`widgetInfo` stays empty: it is what the builder itself compiles from the tree. What the builder knows of a component
and is not said here is left to its defaults.

The ids of the buttons and the names of the variables are those of claw/reply/buttons.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

TARGET: Final = Path(__file__).with_name("template.json")
MARGIN: Final = 12
"""Points at both sides of what stands in the card."""
STATUSES: Final = (1, 2, 3)
"""Processing, inputting, finished: those that claw sets."""

CONTENT: Final = "content"
NOTICE: Final = "notice"
VOTE: Final = "vote"
STATUS: Final = "flowStatus"

Node = dict[str, Any]


def make_text(zh: str, en: str) -> Node:
    """Make a text that follows the language of who reads it; other languages than Chinese read English."""
    others = dict.fromkeys(("en_US", "ja_JP", "vi_VN", "th_TH", "id_ID"), en)
    return {"type": "dynamicString", "i18n": True, "content": {"zh_Hans": zh, "zh_Hant": zh, **others}}


def make_plain(content: str) -> Node:
    """Make a text that is the same for everybody; `${name}` in it is the value of a variable."""
    return {"type": "dynamicString", "i18n": False, "content": content}


def make_fixed(kind: str, value: object) -> Node:
    """Make a value that no variable gives."""
    return {"type": kind, "valueType": "fixed", "value": value, "variable": "", "variableType": "global"}


def make_visible(variable: str = "", value: str = "") -> Node:
    """Make a visibility: always, where `variable` is not empty, or where it is `value`."""
    conditions = []
    if variable:
        conditions.append(
            {
                "type": "variable",
                "variable": variable,
                "variableType": "global",
                "op": "equal" if value else "isNotEmpty",
                "value": value,
                "valueType": "fixed",
                "valueVariableType": "global",
            }
        )
    return {
        "type": "dynamicVisible",
        "value": True,
        "valueType": "condition" if conditions else "fixed",
        "condition": {"op": "and", "conditions": conditions},
    }


def make_node(component: str, name: str, props: Node, children: Sequence[Node] | None = None, title: str = "") -> Node:
    """Make a component of the tree; `name` makes its id, which has to be the only one."""
    node: Node = {
        "componentName": component,
        "id": f"node_claw_{name}",
        "props": props,
        "title": title,
        "hidden": False,
        "isLocked": False,
        "condition": True,
        "conditionGroup": "",
    }
    return node if children is None else {**node, "children": list(children)}


def make_margins(sides: int = 0, ends: int = 0) -> Node:
    return {"marginLeft": sides, "marginRight": sides, "marginTop": ends, "marginBottom": ends}


def make_answer(name: str, *, growing: bool) -> Node:
    """Make the text of the answer."""
    content = {"type": "variableValue", "variable": CONTENT, "variableType": "global", "varType": "markdown"}
    props = {"isStreaming": growing, "content": content, "mdVer": 0, "visible": make_visible()}
    return make_node("MarkdownBlock", name, props, title="answer")


def make_button(name: str, action: str, text: Node) -> Node:
    """Make a button that sends its action to the robot."""
    props = {
        "text": text,
        "status": make_fixed("dynamicSelect", "normal"),
        "color": make_fixed("dynamicSelect", "gray"),
        "enableIcon": False,
        "enableClickEvent": True,
        "actionType": "request",
        "actionId": make_plain(action),
        "params": [],
        "disabledWhileForward": True,
        "widthMode": "match_parent",
        "visible": make_visible(),
        **make_margins(MARGIN, 6),
    }
    return make_node("SingleButton", name, props, title=action)


def make_line(name: str, text: Node, visible: Node) -> Node:
    """Make a line of small grey letters."""
    props = {
        "text": text,
        "visible": visible,
        "enableIcon": False,
        "fontColorType": "Standard",
        "color": make_fixed("dynamicColor", "common_level3_base_color"),
        "fontSizeType": "Standard",
        "styleType": "standard",
        "styleToken": "common_footnote_text_style",
        "gravity": "left",
        "widthMode": "match_parent",
        "maxLine": make_fixed("dynamicNumber", 2),
        **make_margins(MARGIN, 4),
    }
    return make_node("BaseText", name, props)


def make_thumbs(name: str) -> Node:
    """Make the two buttons beside each other. They are buttons of ours, for those of `Feedback` tell no robot."""
    buttons = (
        make_button(f"{name}_like", "like", make_text("👍 有帮助", "👍 Helpful")),
        make_button(f"{name}_dislike", "dislike", make_text("👎 没帮助", "👎 Not helpful")),
    )
    columns = [
        make_node("Column", f"{name}_column{number}", {"isAutoHeight": True, "visible": make_visible()}, [button])
        for number, button in enumerate(buttons, 1)
    ]
    props = {
        "columnCount": len(columns),
        "columnWidth": [{"widthMode": "weighted", "weight": 1, "width": 50} for _ in columns],
        "columnSpacing": 8,
        "childGravity": "center",
        "enableResponsiveLayout": False,
        "visible": make_visible(),
        **make_margins(),
    }
    return make_node("ColumnLayout", name, props, columns)


def make_status(status: int) -> Node:
    """Make what the card shows at a status."""
    name = f"status{status}"
    parts = [make_answer(f"{name}_answer", growing=status != STATUSES[-1])]
    if status == STATUSES[-1]:
        votes = (
            ("like", make_text("你的评价：👍", "You voted 👍")),
            ("dislike", make_text("你的评价：👎", "You voted 👎")),
        )
        parts.append(make_thumbs(f"{name}_thumbs"))
        parts += [make_line(f"{name}_voted_{vote}", text, make_visible(VOTE, vote)) for vote, text in votes]
    else:
        parts.append(make_button(f"{name}_stop", "stop", make_text("停止", "Stop")))
    parts.append(make_line(f"{name}_notice", make_plain(f"${{{NOTICE}}}"), make_visible(NOTICE)))
    content = make_node("AICardContent", f"{name}_content", {"visible": make_visible(), **make_margins()}, parts)
    fold = {"needFold": False, "heightLimit": 480, "foldStatusLocalDataKey": "_cardFoldStatusLocalDataKey"}
    props = {
        "status": status,
        "enableExtend": False,
        "enableCollapse": False,
        "autoFoldConfig": fold,
        **make_margins(),
    }
    return make_node("AICardStatusContainer", name, props, [content], title=f"status {status}")


def make_card() -> Node:
    """Make the root of the tree."""
    props = {
        "enablePending": True,
        "enableWriting": True,
        "enableDoing": False,
        "enableFailed": False,
        "enableTitle": False,
        # The builder's own abort button would tell DingTalk, and not the robot.
        "enableFlowAbort": False,
        "enableGradientBorder": True,
        "flowStatusVar": {"type": "variableValue", "variable": "", "variableType": "global"},
        "summaryContent": {"type": "variableValue", "variable": "", "variableType": "global"},
        "cardSizeMode": "adaptive",
        "cardSizeWidthMode": "adaptive",
        "cardSizeHeightMode": "adaptive",
        **make_margins(),
    }
    return make_node("AICardContainer", "card", props, [make_status(each) for each in STATUSES])


def make_variable(name: str, kind: str, description: str, *, private: bool = False, system: bool = False) -> Node:
    """Make a variable; a private one has a value for each person, one of the system the builder itself declares."""
    variable = {
        "id": name,
        "name": name,
        "type": kind,
        "description": description,
        "private": private,
        "editorVarType": "variables",
        "disabled": system,
    }
    return {**variable, "visible": False} if system else variable


def find_components(node: Node) -> set[str]:
    """Find the names of all components of a tree."""
    return {node["componentName"]}.union(*(find_components(each) for each in node.get("children", ())))


def make_editor() -> Node:
    """Make what the builder opens."""
    card = make_card()
    declared = [
        {
            "package": "@ali/dxComponent",
            "version": "1.0.0",
            "exportName": name,
            "componentName": name,
            "main": "./src/index.tsx",
            "destructuring": False,
            "subName": "",
        }
        for name in sorted(find_components(card))
    ]
    return {
        "schemaVersion": "3.0.0",
        "schema": {"version": "1.0.0", "i18n": {}, "componentsMap": declared, "componentsTree": [card]},
        # What the builder's preview shows.
        "mockData": {
            "cardData": {CONTENT: "**claw**\n\n- one\n- two", STATUS: 2},
            "cardPrivateData": {NOTICE: "", VOTE: ""},
            "localData": {},
        },
        "renderContext": {},
        "editVersion": 0,
        "customWidgetInfo": "",
        "useCustomWidgetInfo": False,
        "variableList": [
            make_variable(CONTENT, "markdown", "回答（流式） / the answer, streamed"),
            make_variable(NOTICE, "string", "给点击者的提示 / a word to who pressed", private=True),
            make_variable(VOTE, "string", "本人的评价：like、dislike / one's own vote", private=True),
            make_variable(STATUS, "string", "1, 2, 3", system=True),
        ],
        **{name: [] for name in ("formList", "customContextList", "expList", "localList", "hsfList", "lwpList")},
        "pageData": {},
        "extension": {"extendType": "AI", "aiStatusList": list(STATUSES), "fileTypeList": []},
    }


def make_template() -> str:
    """Make the text of the file."""
    editor = json.dumps(make_editor(), ensure_ascii=False, separators=(",", ":"))
    template = {"editorData": editor, "widgetInfo": "", "type": "im", "mode": "card"}
    return json.dumps(template, ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(make_template(), encoding="utf-8")
