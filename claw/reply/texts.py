"""What people read beside answers: in cards, in reactions, while they wait. In both languages."""

from __future__ import annotations

from typing import Final

from claw.draft import Activity, ActivityKind
from claw.language import Language, Text

TOOL_NAME_MAX_CHARS: Final = 60
"""Characters of a tool's name that people see: it is a word of the model's server, and may have any length."""
REACTION: Final = Text("🤔处理中", "🤔Working")
"""The reaction under a message whose answer is not visible yet."""
STOPPED_REACTION: Final = Text("⏹已停止", "⏹Stopped")
"""The reaction in its place where the turn was stopped: no answer says so."""

ASKED: Final = Text("🤔 正在处理…", "🤔 Working on it…")
THINKING: Final = Text("🤔 正在思考…", "🤔 Thinking…")
TOOL: Final = Text("🔧 正在使用工具 {name}…", "🔧 Using the tool {name}…")
STOPPED: Final = Text("⏹ 已停止。", "⏹ Stopped.")
PAUSED: Final = Text("⏸ 服务正在重启，稍后继续。", "⏸ The service restarts, and goes on in a moment.")
CONTINUED: Final = Text("（后面的内容见下一条消息。）", "(The rest follows in the next message.)")
BELOW: Final = Text("⬇️ 回答见后面的消息。", "⬇️ The answer is in the messages below.")
ORPHAN: Final = Text(
    "这张卡片没有完成，请看后面的消息，或再问一次。",
    "This card was not finished; see the messages below, or ask again.",
)
NOT_YOURS: Final = Text("只有提问者和管理员可以停止。", "Only who asked and the owner can stop this.")
ENDED_ALREADY: Final = Text("回答已经结束。", "The answer has ended already.")
STOPPING: Final = Text("正在停止…", "Stopping…")
THANKS: Final = Text("谢谢反馈！", "Thanks for the feedback!")
STILL_WORKING: Final = Text("⏳ 还在处理，请稍候。{activity}", "⏳ Still working, please wait. {activity}")


def describe_activity(activity: Activity, language: Language) -> str:
    """Say in a few words what the agent is doing."""
    # Backticks would end the code that keeps the name from being markup, and a line break its line.
    name = " ".join(activity.name.replace("`", "").split())[:TOOL_NAME_MAX_CHARS]
    if activity.kind is ActivityKind.TOOL and name:
        return TOOL[language].format(name=f"`{name}`")
    return (ASKED if activity.kind is ActivityKind.ASKED else THINKING)[language]
