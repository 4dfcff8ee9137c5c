"""What claw itself says to people, in their language. One line each: what happened, and what helps."""

from __future__ import annotations

from typing import Final

from claw.errors import ModelErrorKind
from claw.language import Language
from claw.messages import ChatKind

ZH: Final = Language.ZH
EN: Final = Language.EN

HELP: Final = {
    ZH: (
        "直接说出你的问题即可；在群里请先 @ 我。\n\n"
        "- `/new` 忘掉之前的对话，重新开始\n"
        "- `/stop` 停止正在生成的回答\n"
        "- `/model` 查看使用的模型\n"
        "- `/id` 查看自己的工号和会话编号\n"
        "- `/help` 显示这份说明"
    ),
    EN: (
        "Just ask your question; in a group, @ me first.\n\n"
        "- `/new` forget this conversation and start afresh\n"
        "- `/stop` stop the answer in progress\n"
        "- `/model` show which model answers\n"
        "- `/id` show your staff id and this conversation's id\n"
        "- `/help` show this"
    ),
}
HELP_OWNER: Final = {
    ZH: (
        "\n\n你是主人，还可以：\n\n"
        "- `/status` 运行状态　`/chats` 所有会话\n"
        "- `/policy` 查看策略；`/policy group open|allowlist|disabled`；`/policy direct open|allowlist|owner`；"
        "`/policy reset` 恢复默认\n"
        "- `/allow @某人`、`/deny @某人` 允许或禁止使用（单聊里写工号）\n"
        "- `/owner @某人` 移交主人身份\n"
        "- `/restart` 重建连接；`/restart process` 重启进程"
    ),
    EN: (
        "\n\nYou are the owner, so you can also use:\n\n"
        "- `/status` how I am doing, `/chats` where I am\n"
        "- `/policy` show the policies; `/policy group open|allowlist|disabled`; "
        "`/policy direct open|allowlist|owner`; `/policy reset`\n"
        "- `/allow @person`, `/deny @person` (in a direct chat: their staff id)\n"
        "- `/owner @person` hand me over\n"
        "- `/restart` replace the connection; `/restart process` restart"
    ),
}
OWNER_ONLY: Final = {ZH: "这个命令只有主人可以使用。", EN: "Only my owner can use this command."}
PAIRED: Final = {
    ZH: "你已成为我的主人（owner），发送 `/help` 查看可用的命令。",
    EN: "You are my owner now; send `/help` for what you can do.",
}
KEPT_OUT: Final = {
    ZH: "抱歉，你还没有使用权限。请把你的工号 {staff} 告诉管理员，请其加入允许名单。",
    EN: "Sorry, you may not use me yet. Please give an administrator your staff id {staff} to be let in.",
}
NO_STAFF_ID: Final = {ZH: "（无：不是本组织成员）", EN: "(none: not a member of this organisation)"}
LIMIT_REACHED: Final = {
    ZH: "你今天的提问次数（{limit}）已用完，请明天再来。",
    EN: "You have used up your {limit} questions for today. Please come back tomorrow.",
}
MODEL: Final = {ZH: "当前模型：{model}", EN: "The model is {model}."}
IDENTITY: Final = {
    ZH: "工号（staffId）：{staff}\n\n会话编号：{conversation}",
    EN: "Staff id: {staff}\n\nConversation id: {conversation}",
}
KINDS: Final = {
    ChatKind.GROUP: {ZH: "群", EN: "group"},
    ChatKind.DIRECT: {ZH: "单聊", EN: "direct"},
}
CHAT: Final = {ZH: "- {kind}「{title}」 {messages} 条消息 `{id}`", EN: "- {kind} {title}: {messages} messages `{id}`"}
MORE_CHATS: Final = {ZH: "- ……以及更早的会话", EN: "- ... and older ones"}
NO_CHATS: Final = {ZH: "还没有任何会话。", EN: "No chats yet."}
POLICIES: Final = {
    ZH: "群聊策略：{group}，单聊策略：{direct}，允许名单 {listed} 人，禁止名单 {denied} 人{lists}",
    EN: "Groups: {group}, direct chats: {direct}, allowed: {listed}, denied: {denied}{lists}",
}
CHANGED: Final = {ZH: "（运行时修改）", EN: " (changed at run time)"}
POLICY_USAGE: Final = {
    ZH: "用法：`/policy group open|allowlist|disabled`、`/policy direct open|allowlist|owner` 或 `/policy reset`",
    EN: "Use `/policy group open|allowlist|disabled`, `/policy direct open|allowlist|owner` or `/policy reset`.",
}
DONE: Final = {ZH: "好的。", EN: "Done. "}
WHOM: Final = {
    ZH: "请 @ 要操作的人，或写上工号：`/{command} @某人`",
    EN: "Please @ the person, or write the staff id: `/{command} @person`",
}
ALLOWED: Final = {ZH: "已允许：{people}", EN: "Allowed: {people}"}
DENIED: Final = {ZH: "已禁止：{people}", EN: "Denied: {people}"}
LIST_FULL: Final = {ZH: "名单已满，请改用开放策略。", EN: "The lists are full; use an open policy instead."}
OWNER_STAYS: Final = {ZH: "不能禁止主人自己。", EN: "The owner cannot be denied."}
OWNERS: Final = {
    ZH: "主人：{owners}。移交请发送 `/owner @某人`。",
    EN: "Owner: {owners}. To hand me over, send `/owner @person`.",
}
ONE_OWNER: Final = {ZH: "一次只能移交给一个人。", EN: "I can be handed to one person only."}
CONFIRM_OWNER: Final = {
    ZH: "确认把主人身份移交给 {person} 吗？{minutes} 分钟内发送 `/owner confirm` 确认；之后你将不再是主人。",
    EN: "Hand me over to {person}? Send `/owner confirm` within {minutes} minutes; you will no longer be my owner.",
}
HANDED_OVER: Final = {ZH: "已移交，新的主人是 {person}。", EN: "Done: {person} is my owner now."}
NOTHING_TO_CONFIRM: Final = {
    ZH: "没有待确认的移交（或已过期）。",
    EN: "There is nothing to confirm, or it is too late.",
}
RESTARTING: Final = {ZH: "好的，正在重启，不会丢失消息。", EN: "Restarting now; no message gets lost."}
RESTART_BUSY: Final = {ZH: "已经在重启了。", EN: "A restart is already under way."}
RESTART_USAGE: Final = {ZH: "用法：`/restart` 或 `/restart process`", EN: "Use `/restart` or `/restart process`."}
FORGOTTEN: Final = {
    ZH: "好的，之前的对话已忘掉，我们重新开始。",
    EN: "Done: I have forgotten our conversation. Let's start afresh.",
}
STOPPED: Final = {ZH: "已停止。", EN: "Stopped."}
NOTHING_TO_STOP: Final = {ZH: "现在没有正在生成的回答。", EN: "Nothing is running right now."}
NO_TEXT: Final = {
    ZH: "我在。请说出你的问题，发送 `/help` 查看用法。",
    EN: "I'm here. What is your question? Send `/help` for what I can do.",
}
UNREADABLE: Final = {
    ZH: "这类消息我还看不了，请发文字、语音或图片。",
    EN: "I can't read this kind of message yet. Please send text, speech or a picture.",
}
PICTURE_LOST: Final = {
    ZH: "图片没能取到（可能已过期），请重新发送一次。",
    EN: "I could not fetch the picture (it may have expired). Please send it again.",
}
QUOTA_EXHAUSTED: Final = {
    ZH: "本月钉钉接口调用额度已用完，我收不到消息内容。请联系管理员升级额度。",
    EN: "This month's DingTalk quota is used up: your message came without its content. Please tell an administrator.",
}
CUT: Final = {
    ZH: "（回答因长度限制被截断，发送“继续”可接着说。）",
    EN: '(The answer hit its length limit; send "go on" to continue.)',
}
STATUS: Final = {
    ZH: (
        "模型：{model}\n\n连接：{stream}\n\n等待中的消息：{pending}，正在回答：{turns}，失败：{dead}\n\n"
        "本月钉钉调用：{calls}\n\n{policies}\n\n版本：{version}"
    ),
    EN: (
        "Model: {model}\n\nConnection: {stream}\n\nWaiting: {pending}, answering: {turns}, failed: {dead}\n\n"
        "DingTalk calls this month: {calls}\n\n{policies}\n\nVersion: {version}"
    ),
}
ATTACHMENT: Final = {
    ZH: "[对方发来了一个附件：{name}，内容不可读]",
    EN: "[The person attached {name}; its content cannot be read]",
}
PICTURE_LOST_MARK: Final = {ZH: "[一张图片，未能取到]", EN: "[a picture, which could not be fetched]"}
PICTURE_MARK: Final = {ZH: "[图片]", EN: "[picture]"}
QUOTE: Final = {ZH: "引用的消息：", EN: "Quoted message:"}
REFERENCE: Final = {ZH: "（编号 {trace}）", EN: " (reference {trace})"}

FAILURES: Final[dict[ModelErrorKind, dict[Language, str]]] = {
    ModelErrorKind.UNREACHABLE: {
        ZH: "抱歉，暂时连不上模型服务，请稍后再试。",
        EN: "Sorry, the model cannot be reached right now. Please try again later.",
    },
    ModelErrorKind.TIMEOUT: {
        ZH: "抱歉，模型太久没有答完，这次先停下了。请换个更简短的问法，或稍后再试。",
        EN: "Sorry, the model took too long, so I stopped waiting. Try a shorter question, or try again later.",
    },
    ModelErrorKind.BUSY: {
        ZH: "抱歉，模型服务现在很忙，请过一会儿再试。",
        EN: "Sorry, the model is very busy right now. Please try again in a while.",
    },
    ModelErrorKind.UNAUTHORIZED: {
        ZH: "抱歉，模型服务拒绝了我的凭证，需要管理员处理。请把编号告诉管理员。",
        EN: "Sorry, the model refused my credentials. An administrator has to fix this; please pass on the reference.",
    },
    ModelErrorKind.BAD_REQUEST: {
        ZH: "抱歉，模型服务不接受这个请求，需要管理员检查配置。请把编号告诉管理员。",
        EN: "Sorry, the model did not accept the request. Please pass on the reference to an administrator.",
    },
    ModelErrorKind.TOO_LONG: {
        ZH: "内容太长，模型读不完。请发送 `/new` 重新开始，或把问题缩短一些。",
        EN: "That is too long for the model. Send `/new` to start afresh, or shorten the question.",
    },
    ModelErrorKind.BROKEN_OFF: {
        ZH: "抱歉，回答到一半中断了。请把问题再发一次。",
        EN: "Sorry, the answer broke off half-way. Please send your question again.",
    },
    ModelErrorKind.EMPTY: {
        ZH: "抱歉，模型没有给出内容。请换个问法再试一次。",
        EN: "Sorry, the model gave an empty answer. Please try to put it differently.",
    },
    ModelErrorKind.SERVER: {
        ZH: "抱歉，模型服务出错了，请稍后再试。",
        EN: "Sorry, the model ran into an error. Please try again later.",
    },
}
INTERNAL: Final = {
    ZH: "抱歉，我这边出错了，这条消息没能处理。请稍后再试。",
    EN: "Sorry, something went wrong on my side and I could not handle this message. Please try again later.",
}
