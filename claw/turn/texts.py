"""What claw itself says to people, in their language. One line each: what happened, and what helps."""

from __future__ import annotations

from typing import Final

from claw.errors import ModelFault
from claw.messages import Language

ZH: Final = Language.ZH
EN: Final = Language.EN

HELP: Final = {
    ZH: (
        "直接说出你的问题即可；在群里请先 @ 我。\n\n"
        "- `/new` 忘掉之前的对话，重新开始\n"
        "- `/stop` 停止正在生成的回答\n"
        "- `/status` 查看运行状态\n"
        "- `/help` 显示这份说明"
    ),
    EN: (
        "Just ask your question; in a group, @ me first.\n\n"
        "- `/new` forget this conversation and start afresh\n"
        "- `/stop` stop the answer in progress\n"
        "- `/status` show how I am doing\n"
        "- `/help` show this"
    ),
}
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
    ZH: "模型：{model}\n\n连接：{stream}\n\n等待中的消息：{pending}，正在回答：{turns}\n\n版本：{version}",
    EN: "Model: {model}\n\nConnection: {stream}\n\nWaiting: {pending}, answering: {turns}\n\nVersion: {version}",
}
ATTACHMENT: Final = {
    ZH: "[对方发来了一个附件：{name}，内容不可读]",
    EN: "[The person attached {name}; its content cannot be read]",
}
PICTURE_LOST_MARK: Final = {ZH: "[一张图片，未能取到]", EN: "[a picture, which could not be fetched]"}
PICTURE_MARK: Final = {ZH: "[图片]", EN: "[picture]"}
QUOTE: Final = {ZH: "引用的消息：", EN: "Quoted message:"}
REFERENCE: Final = {ZH: "（编号 {trace}）", EN: "(reference {trace})"}

FAILURES: Final[dict[ModelFault, dict[Language, str]]] = {
    ModelFault.UNREACHABLE: {
        ZH: "抱歉，暂时连不上模型服务，请稍后再试。",
        EN: "Sorry, the model cannot be reached right now. Please try again later.",
    },
    ModelFault.TIMEOUT: {
        ZH: "抱歉，模型太久没有答完，这次先停下了。请换个更简短的问法，或稍后再试。",
        EN: "Sorry, the model took too long, so I stopped waiting. Try a shorter question, or try again later.",
    },
    ModelFault.BUSY: {
        ZH: "抱歉，模型服务现在很忙，请过一会儿再试。",
        EN: "Sorry, the model is very busy right now. Please try again in a while.",
    },
    ModelFault.UNAUTHORIZED: {
        ZH: "抱歉，模型服务拒绝了我的凭证，需要管理员处理。请把编号告诉管理员。",
        EN: "Sorry, the model refused my credentials. An administrator has to fix this; please pass on the reference.",
    },
    ModelFault.BAD_REQUEST: {
        ZH: "抱歉，模型服务不接受这个请求，需要管理员检查配置。请把编号告诉管理员。",
        EN: "Sorry, the model did not accept the request. Please pass on the reference to an administrator.",
    },
    ModelFault.TOO_LONG: {
        ZH: "内容太长，模型读不完。请发送 `/new` 重新开始，或把问题缩短一些。",
        EN: "That is too long for the model. Send `/new` to start afresh, or shorten the question.",
    },
    ModelFault.BROKEN_OFF: {
        ZH: "抱歉，回答到一半中断了。请把问题再发一次。",
        EN: "Sorry, the answer broke off half-way. Please send your question again.",
    },
    ModelFault.EMPTY: {
        ZH: "抱歉，模型没有给出内容。请换个问法再试一次。",
        EN: "Sorry, the model gave an empty answer. Please try to put it differently.",
    },
    ModelFault.SERVER: {
        ZH: "抱歉，模型服务出错了，请稍后再试。",
        EN: "Sorry, the model ran into an error. Please try again later.",
    },
}
INTERNAL: Final = {
    ZH: "抱歉，我这边出错了，这条消息没能处理。请稍后再试。",
    EN: "Sorry, something went wrong on my side and I could not handle this message. Please try again later.",
}
