"""What claw itself says to people, in their language. One line each: what happened, and what helps.

The lines of `/help` stand beside the commands (commands/handlers.py). Values in braces are put in by `str.format`.
"""

from __future__ import annotations

from typing import Final

from claw.errors import ModelErrorKind
from claw.language import Text
from claw.messages import ChatKind

HELP: Final = Text(
    "直接说出你的问题即可；在群里请先 @ 我。",
    "Just ask your question; in a group, @ me first.",
)
HELP_OWNER: Final = Text("你是主人，还可以：", "You are the owner, so you can also use:")
OWNER_ONLY: Final = Text("这个命令只有主人可以使用。", "Only my owner can use this command.")
PAIRED: Final = Text(
    "你已成为我的主人（owner），发送 `/help` 查看可用的命令。",
    "You are my owner now; send `/help` for what you can do.",
)
NOT_ALLOWED: Final = Text(
    "抱歉，你还没有使用权限。请把你的工号 {staff} 告诉管理员，请其加入允许名单。",
    "Sorry, you may not use me yet. Please give an administrator your staff id {staff} to be let in.",
)
NO_STAFF_ID: Final = Text("（无：不是本组织成员）", "(none: not a member of this organisation)")
LIMIT_REACHED: Final = Text(
    "你今天的提问次数（{limit}）已用完，请明天再来。",
    "You have used up your {limit} questions for today. Please come back tomorrow.",
)
TOO_FAST: Final = Text(
    "消息太频繁了，请等一分钟再试。",
    "That is too fast for me. Please wait a minute.",
)
MODEL: Final = Text("当前模型：{model}", "The model is {model}.")
IDENTITY: Final = Text(
    "工号（staffId）：{staff}\n\n会话编号：{conversation}",
    "Staff id: {staff}\n\nConversation id: {conversation}",
)
KINDS: Final = {
    ChatKind.GROUP: Text("群", "group"),
    ChatKind.DIRECT: Text("单聊", "direct"),
}
CHAT: Final = Text("- {kind}「{title}」 {messages} 条消息 `{id}`", "- {kind} {title}: {messages} messages `{id}`")
MORE_CHATS: Final = Text("- ……以及更早的会话", "- ... and older ones")
NO_CHATS: Final = Text("还没有任何会话。", "No chats yet.")
POLICIES: Final = Text(
    "群聊策略：{group}，单聊策略：{direct}，允许名单 {listed} 人，禁止名单 {denied} 人{lists}",
    "Groups: {group}, direct chats: {direct}, allowed: {listed}, denied: {denied}{lists}",
)
CHANGED: Final = Text("（运行时修改）", " (changed at run time)")
POLICY_USAGE: Final = Text(
    "用法：`/policy group open|allowlist|disabled`、`/policy direct open|allowlist|owner` 或 `/policy reset`",
    "Use `/policy group open|allowlist|disabled`, `/policy direct open|allowlist|owner` or `/policy reset`.",
)
DONE: Final = Text("好的。", "Done. ")
WHOM: Final = Text(
    "请在群里 @ 要操作的人：`/{command} @某人`；或在单聊里写上工号。",
    "Please @ the person in a group: `/{command} @person`; or write the staff id in our direct chat.",
)
NO_ID: Final = Text(
    "什么都没有改：“{word}”不是工号。单聊里请只写工号，一个词一个。",
    'Nothing was changed: "{word}" is no staff id. In our direct chat write ids only, one word each.',
)
TOO_MANY: Final = Text(
    "什么都没有改：一次最多 {most} 人。",
    "Nothing was changed: {most} people at once at most.",
)
NO_MEMBER: Final = Text(
    "不能移交：对方不是本组织成员。",
    "I cannot be handed to somebody who is no member of this organisation.",
)
ALLOWED: Final = Text("已允许：{people}", "Allowed: {people}")
DENIED: Final = Text("已禁止：{people}", "Denied: {people}")
LIST_FULL: Final = Text("名单已满，请改用开放策略。", "The lists are full; use an open policy instead.")
OWNER_STAYS: Final = Text("不能禁止主人自己。", "The owner cannot be denied.")
OWNERS: Final = Text(
    "主人：{owners}。移交请发送 `/owner @某人`。",
    "Owner: {owners}. To hand me over, send `/owner @person`.",
)
OWNERS_SET: Final = Text(
    "主人：{owners}，由环境变量 CLAW_OWNER 指定；要更换请修改它并重启。",
    "Owner: {owners}, as CLAW_OWNER names them. To change that, change CLAW_OWNER and restart me.",
)
ONE_OWNER: Final = Text("一次只能移交给一个人。", "I can be handed to one person only.")
CONFIRM_OWNER: Final = Text(
    "确认把主人身份移交给 {person} 吗？{minutes} 分钟内发送 `/owner confirm` 确认；之后你将不再是主人。",
    "Hand me over to {person}? Send `/owner confirm` within {minutes} minutes; you will no longer be my owner.",
)
HANDED_OVER: Final = Text("已移交，新的主人是 {person}。", "Done: {person} is my owner now.")
NOTHING_TO_CONFIRM: Final = Text(
    "没有待确认的移交（或已过期）。",
    "There is nothing to confirm, or it is too late.",
)
RESTARTING: Final = Text("好的，正在重启，不会丢失消息。", "Restarting now; no message gets lost.")
RESTART_BUSY: Final = Text("已经在重启了。", "A restart is already under way.")
RESTART_USAGE: Final = Text("用法：`/restart` 或 `/restart process`", "Use `/restart` or `/restart process`.")
FORGOTTEN: Final = Text(
    "好的，之前的对话已忘掉，我们重新开始。",
    "Done: I have forgotten our conversation. Let's start afresh.",
)
STOPPED: Final = Text("已停止。", "Stopped.")
NOTHING_TO_STOP: Final = Text("现在没有正在生成的回答。", "Nothing is running right now.")
NO_TEXT: Final = Text(
    "我在。请说出你的问题，发送 `/help` 查看用法。",
    "I'm here. What is your question? Send `/help` for what I can do.",
)
UNREADABLE: Final = Text(
    "这类消息我还看不了，请发文字、语音或图片。",
    "I can't read this kind of message yet. Please send text, speech or a picture.",
)
PICTURE_LOST: Final = Text(
    "图片没能取到（可能已过期），请重新发送一次。",
    "I could not fetch the picture (it may have expired). Please send it again.",
)
QUOTA_EXHAUSTED: Final = Text(
    "本月钉钉接口调用额度已用完，我收不到消息内容。请联系管理员升级额度。",
    "This month's DingTalk quota is used up: your message came without its content. Please tell an administrator.",
)
CUT: Final = Text(
    "（回答因长度限制被截断，发送“继续”可接着说。）",
    '(The answer hit its length limit; send "go on" to continue.)',
)
FILTERED: Final = Text(
    "（回答到这里被模型服务的内容审核中断了。请换个说法再问。）",
    "(The model's content policy broke the answer off here. Please put it differently.)",
)
INCOMPLETE: Final = Text("（以上回答不完整。）", "(The answer above is not complete.) ")
PATIENCE: Final = Text(
    "模型服务暂时连不上，正在等它恢复；你的问题没有丢，恢复后就回答。",
    "The model cannot be reached right now. I am waiting for it; your question is kept and will be answered.",
)
STATUS: Final = Text(
    (
        "模型：{model}\n\n连接：{stream}\n\n等待中的消息：{pending}，正在回答：{turns}，失败：{dead}\n\n"
        "本月钉钉调用：{calls}\n\n{policies}\n\n版本：{version}"
    ),
    (
        "Model: {model}\n\nConnection: {stream}\n\nWaiting: {pending}, answering: {turns}, failed: {dead}\n\n"
        "DingTalk calls this month: {calls}\n\n{policies}\n\nVersion: {version}"
    ),
)
LAST_SUCCESS: Final = Text("模型上次正常回答：{at}", "The model last answered at {at}")
LAST_ERROR: Final = Text(
    "模型上次出错：{at}（{kind}）{reason}\n\n怎么办：{remedy}",
    "The model last failed at {at} ({kind}): {reason}\n\nRemedy: {remedy}",
)
ATTACHMENT: Final = Text(
    "[对方发来了一个附件：{name}，内容不可读]",
    "[The person attached {name}; its content cannot be read]",
)
PICTURE_LOST_MARK: Final = Text("[一张图片，未能取到]", "[a picture, which could not be fetched]")
PICTURE_MARK: Final = Text("[图片]", "[picture]")
QUOTE: Final = Text("引用的消息：", "Quoted message:")
UNDELIVERED: Final = Text(
    "抱歉，你{chat}问的「{question}」，我的回答可能没能送达（钉钉没有接收）。回答已保留，请联系管理员，或再问一次。",
    "Sorry, my answer to your question {chat} may not have reached you: DingTalk did not take it ({question}). "
    "It is kept; please tell an administrator, or ask again.",
)
UNDELIVERED_ALERT: Final = Text(
    "有一条给 {person} 的回答（{chat}）没能送达，已放弃：{cause}。\n\n回答保留在死信中。同类提醒一小时内不再重复。",
    "I gave up delivering an answer to {person} ({chat}): {cause}.\n\n"
    "It is kept with the dead letters. You will not hear of this kind again within an hour.",
)
IN_DIRECT_CHAT: Final = Text("在单聊中", "in our direct chat")
IN_GROUP: Final = Text("在群「{title}」中", "in the group {title}")
REFERENCE: Final = Text("（编号 {trace}）", " (reference {trace})")

FAILURES: Final[dict[ModelErrorKind, Text]] = {
    ModelErrorKind.UNREACHABLE: Text(
        "抱歉，暂时连不上模型服务，请稍后再试。",
        "Sorry, the model cannot be reached right now. Please try again later.",
    ),
    ModelErrorKind.UNAVAILABLE: Text(
        "抱歉，模型服务正在启动或维护，请过几分钟再试。",
        "Sorry, the model is starting up or being maintained. Please try again in a few minutes.",
    ),
    ModelErrorKind.TIMEOUT: Text(
        "抱歉，模型太久没有答完，这次先停下了。请换个更简短的问法，或稍后再试。",
        "Sorry, the model took too long, so I stopped waiting. Try a shorter question, or try again later.",
    ),
    ModelErrorKind.BUSY: Text(
        "抱歉，模型服务现在很忙，请过一会儿再试。",
        "Sorry, the model is very busy right now. Please try again in a while.",
    ),
    ModelErrorKind.UNAUTHORIZED: Text(
        "抱歉，模型服务拒绝了我的凭证，需要管理员处理。请把编号告诉管理员。",
        "Sorry, the model refused my credentials. An administrator has to fix this; please pass on the reference.",
    ),
    ModelErrorKind.QUOTA: Text(
        "抱歉，模型服务的账户余额或额度已用完，需要管理员充值。请把编号告诉管理员。",
        "Sorry, the account at the model's provider is used up. An administrator has to pay; please pass on the"
        " reference.",
    ),
    ModelErrorKind.BAD_REQUEST: Text(
        "抱歉，模型服务不接受这个请求，需要管理员检查配置。请把编号告诉管理员。",
        "Sorry, the model did not accept the request. Please pass on the reference to an administrator.",
    ),
    ModelErrorKind.REDIRECTED: Text(
        "抱歉，模型服务的地址变了，需要管理员检查配置。请把编号告诉管理员。",
        "Sorry, the model has moved to another address. Please pass on the reference to an administrator.",
    ),
    ModelErrorKind.FILTERED: Text(
        "抱歉，模型服务的内容审核没有通过这个问题或回答。请换个说法再试。",
        "Sorry, the model's content policy refused the question or its answer. Please put it differently.",
    ),
    ModelErrorKind.TOO_LARGE: Text(
        "内容太大，模型服务收不下。请发小一些的图片，或把问题缩短一些。",
        "That is too large for the model's server. Please send a smaller picture, or shorten the question.",
    ),
    ModelErrorKind.TOO_LONG: Text(
        "内容太长，模型读不完。请发送 `/new` 重新开始，或把问题缩短一些。",
        "That is too long for the model. Send `/new` to start afresh, or shorten the question.",
    ),
    ModelErrorKind.BROKEN_OFF: Text(
        "抱歉，回答到一半中断了。请把问题再发一次。",
        "Sorry, the answer broke off half-way. Please send your question again.",
    ),
    ModelErrorKind.EMPTY: Text(
        "抱歉，模型没有给出内容。请换个问法再试一次。",
        "Sorry, the model gave an empty answer. Please try to put it differently.",
    ),
    ModelErrorKind.SERVER: Text(
        "抱歉，模型服务出错了，请稍后再试。",
        "Sorry, the model ran into an error. Please try again later.",
    ),
}
INTERNAL: Final = Text(
    "抱歉，我这边出错了，这条消息没能处理。请稍后再试。",
    "Sorry, something went wrong on my side and I could not handle this message. Please try again later.",
)
