"""What the small model says: in the language of the person, and always the same for the same history.

Order of events: the last message may be a command (`long`, `code`, `table`); otherwise it is quoted, with the number of
messages that the model was given, so that a person sees whether the history arrived.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

HAN: Final = re.compile(r"[\u3400-\u9fff]")
COMMAND: Final = re.compile(r"(?:^|[:：]\s*)(long|长文|code|代码|error|出错|table|表格)\s*[!！.。]?$", re.IGNORECASE)
"""At the end of a line such as `Ann: long`, too: in a group the service puts the speaker's name before what is said."""
IN_ENGLISH: Final = {"长文": "long", "代码": "code", "出错": "error", "表格": "table"}
QUOTED_CHARS: Final = 300
CODE: Final = "async def answer(message):\n    await inbox.put(message)  # durable first\n    await ack(message)"


class Phrases(NamedTuple):
    heard: str
    first: str
    later: str
    tips: str
    long_title: str
    section: str
    code: tuple[str, str]
    table: str


CONTEXT: Final = re.compile(r"^\[context of this message[^\n]*\n?", re.MULTILINE)
"""The line before a message by which claw tells the model who speaks."""
CHINESE: Final = Phrases(
    heard="收到，你说的是：",
    first="很高兴认识你！",
    later="这是我们聊的第 **{}** 句。",
    tips="可以试试：\n\n- `长文` 一篇分段的长回答\n- `代码` 一段代码\n- `慢 5` 想 5 秒再答",
    long_title="# 一篇长文",
    section="## 第 {} 节\n\n"
    + 6
    * (
        "消息先写入收件箱，再确认给钉钉：进程在任何一步退出，重启后都会从收件箱继续，既不丢失，也不重复回答。"
        "同一会话按到达顺序逐条处理，不同会话互不等待。"
    )
    + "\n\n- 要点一：先落盘，后确认\n- 要点二：断线自动重连",
    code=("下面是一段示例代码：", "逐行读即可。"),
    table="| 名称 | 数值 |",
)
ENGLISH: Final = Phrases(
    heard="I heard you say:",
    first="Nice to meet you!",
    later="That was message **{}** of our chat.",
    tips="Try one of these:\n\n- `long` for a long answer\n- `code` for some code\n- `slow 5` to wait 5 s",
    long_title="# A long read",
    section="## Part {}\n\n"
    + 5
    * (
        "A message is written to the inbox before it is acknowledged, so a crash at any point neither loses it nor "
        "answers it twice. Messages of one conversation keep their order; conversations do not wait for each other. "
    )
    + "\n\n- first durable, then acked\n- reconnects by itself",
    code=("Here is some code:", "That is all."),
    table="| name | value |",
)


def read_text(message: dict[str, Any]) -> str:
    """Read what a person said: parts that are pictures have no text, and the line that tells who speaks is none."""
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(
            str(part["text"]) for part in content if isinstance(part, dict) and part.get("type") == "text"
        )
    return CONTEXT.sub("", content) if isinstance(content, str) else ""


def read_command(text: str) -> str:
    """Read the command in a message, in English; empty if there is none."""
    found = COMMAND.search(text.strip())
    return IN_ENGLISH.get(found[1], found[1].lower()) if found else ""


def compose(messages: list[dict[str, Any]]) -> str:
    """Compose the answer to the last user message."""
    turns = [read_text(each) for each in messages if each.get("role") == "user"]
    said = (turns[-1] if turns else "").strip()
    # One Han character is enough: people who write Chinese mix in English words, hardly the other way round.
    phrases = CHINESE if HAN.search(said) else ENGLISH
    code = f"{phrases.code[0]}\n\n```python\n{CODE}\n```\n\n{phrases.code[1]}"
    match read_command(said):
        case "long":
            sections = (phrases.section.format(number) for number in range(1, 9))
            return "\n\n".join((phrases.long_title, *sections, code))
        case "code":
            return code
        case "table":
            return f"{phrases.table}\n| --- | --- |\n| a | 1 |\n| b | 2 |"
    # Quoted line by line: what was said must not end the quote, nor become a heading of the answer.
    quote = "\n".join(f"> {line}" for line in said[:QUOTED_CHARS].splitlines() or [""])
    memory = phrases.later.format(len(turns)) if len(turns) > 1 else phrases.first
    return "\n\n".join((phrases.heard, quote, memory, *([phrases.tips] if len(turns) == 1 else [])))
