"""What claw itself says to people, in their language. One line each: what happened, and what helps.

The lines of `/help` stand beside the commands (commands/handlers.py). Values in braces are put in by `str.format`.
"""

from __future__ import annotations

from typing import Final

from claw.errors import MediaProblem, ModelErrorKind
from claw.language import Text
from claw.messages import ChatKind
from claw.parts import MarkKind

HELP: Final = Text(
    "直接说出你的问题即可，也可以发语音、图片和文件；在群里请先 @ 我，文件请用“引用”发给我。",
    "Just ask, also by speech, pictures and files; in a group @ me first, and quote a file for me to read it.",
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
NOT_ALLOWED_GUEST: Final = Text(
    "抱歉，你不是本组织成员，我不能在单聊里回答你。请联系拉你进群的同事。",
    "Sorry, you are no member of this organisation, so I may not answer you in a direct chat. "
    "Please ask the colleague who brought you here.",
)
NOT_ALLOWED_OWNER_ONLY: Final = Text(
    "抱歉，单聊目前只对主人开放。", "Sorry, at present only my owner may use me in a direct chat."
)
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
FORGOTTEN_FOR_ALL: Final = Text(
    "{name} 重新开始了对话：本群之前的对话，我都已忘掉。",
    "{name} began the conversation anew: I have forgotten what was said in this group.",
)
NOT_YOURS_TO_STOP: Final = Text(
    "正在生成的是别人的回答，只有提问的人或主人可以停止。",
    "The answer in progress is somebody else's: only who asked, or my owner, can stop it.",
)
UNKNOWN_COMMAND: Final = Text(
    "没有 `/{word}` 这个命令，发送 `/帮助` 查看所有命令。要把它原样发给模型，请写 `//{word}`。",
    "There is no command `/{word}`; `/help` lists them. To send it to the model as it is, write `//{word}`.",
)
UNKNOWN_COMMAND_NEAR: Final = Text(
    "没有 `/{word}` 这个命令，你是想用 `/{near}` 吗？发送 `/帮助` 查看所有命令。要把它原样发给模型，请写 `//{word}`。",
    "There is no command `/{word}`. Did you mean `/{near}`? `/help` lists all. "
    "To send it to the model as it is, write `//{word}`.",
)
STILL_DENIED: Final = Text(
    "禁止名单不受影响，仍有 {count} 人；要放行请发送 `/允许 @某人`，用 `/名单` 查看。",
    "The denied are still denied ({count}): let them in by `/allow @person`; `/list` shows them.",
)
LISTS_IN_DIRECT: Final = Text(
    "允许 {allowed} 人，禁止 {denied} 人；名单内容请在单聊里查看。",
    "Allowed: {allowed}, denied: {denied}. Please ask me in our direct chat who they are.",
)
LIST_OWNERS: Final = Text("主人：", "Owner: ")
LIST_ALLOWED: Final = Text("允许（运行时添加）：", "Allowed (added at run time): ")
LIST_GROUP: Final = Text("允许（群聊，环境变量）：", "Allowed (groups, by the environment): ")
LIST_DIRECT: Final = Text("允许（单聊，环境变量）：", "Allowed (direct chats, by the environment): ")
LIST_DENIED: Final = Text("禁止：", "Denied: ")
NOBODY: Final = Text("（无）", "(nobody)")
STOPPED: Final = Text("已停止。", "Stopped.")
NOTHING_TO_STOP: Final = Text("现在没有正在生成的回答。", "Nothing is running right now.")
NO_TEXT: Final = Text(
    "我在。请说出你的问题，发送 `/help` 查看用法。",
    "I'm here. What is your question? Send `/help` for what I can do.",
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
BUDGET_ALERT: Final = Text(
    "本月钉钉{quota}已用 {used}/{limit} 次（{percent}%）。用完后机器人将无法回答。\n\n"
    "怎么办：在钉钉管理后台购买加量包，或设置 CLAW_REPLY_MODE=markdown、CLAW_REACTION=off 减少调用。",
    "{used} of this month's {limit} DingTalk {quota} are used ({percent} %). When they are gone I cannot answer.\n\n"
    "Remedy: buy an add-on pack in DingTalk's admin console, or set CLAW_REPLY_MODE=markdown and CLAW_REACTION=off.",
)
QUOTA_NAMES: Final = {
    "openapi": Text("开放接口调用", "OpenAPI calls"),
    "webhook": Text("Webhook 与 Stream 调用", "webhook and Stream calls"),
}
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

# --- what came with a message, and could not be read -------------------------------------------------------------

PICTURE: Final = Text("图片", "picture")
FILE: Final = Text("文件", "file")
SECONDS: Final = Text("{seconds} 秒", "{seconds} s")
PICTURE_OF: Final = Text("第 {number} 张图片（共 {total} 张）", "picture {number} of {total}")
PICTURE_MISSING: Final = Text("{which}没能看到：{cause}", "I could not see {which}: {cause}")
PICTURE_MISSING_MARK: Final = Text("[图片{of}，看不到：{cause}]", "[picture{of}, not to be seen: {cause}]")
FILE_MISSING: Final = Text("文件《{name}》没能读取：{cause}", "I could not read the file {name}: {cause}")
FILE_MISSING_MARK: Final = Text(
    "[文件《{name}》，内容读不到：{cause}]", "[file {name}, its content could not be read: {cause}]"
)
FILE_SHORTENED: Final = Text(
    "文件《{name}》太长，我只读了前面一部分。", "The file {name} is long: I have read only its beginning."
)
VIDEO_MARK: Final = Text("[视频 {about}，内容看不到]", "[a video {about}, which cannot be watched]")
VIDEO_HINT: Final = Text(
    "视频我还看不了，请发截图，或用文字说明。", "I can't watch videos. Please send a screenshot, or describe it."
)
MORE_MISSING: Final = Text("还有 {count} 项没能读取。", "{count} more could not be read.")
PROBLEM_CAUSES: Final = {
    MediaProblem.EXPIRED: Text("已过期", "expired"),
    MediaProblem.NOT_FETCHED: Text("没能下载", "not downloaded"),
    MediaProblem.NOT_ALLOWED: Text("地址不被允许", "its address is not allowed"),
    MediaProblem.TOO_LARGE: Text("太大", "too large"),
    MediaProblem.NO_PICTURE: Text("不是能识别的图片", "not a picture that can be read"),
    MediaProblem.UNSUPPORTED: Text("不支持的格式", "a kind that is not read"),
    MediaProblem.ENCRYPTED: Text("有密码", "it has a password"),
    MediaProblem.DAMAGED: Text("文件损坏", "damaged"),
    MediaProblem.NO_TEXT: Text("里面没有文字", "no text in it"),
    MediaProblem.TOO_SLOW: Text("读取超时", "reading it took too long"),
    MediaProblem.TOO_COSTLY: Text("展开后太大", "it unpacks to too much"),
    MediaProblem.BUSY: Text("排队超时", "too many others to be read"),
    MediaProblem.OFF: Text("未开启", "switched off"),
    MediaProblem.TOO_MANY: Text("数量超限", "more than are read at once"),
}
"""Why something is missing, as the model is told."""
PROBLEM_CURES: Final = {
    MediaProblem.EXPIRED: Text("已过期，请重新发送。", "it has expired, please send it again."),
    MediaProblem.NOT_FETCHED: Text(
        "从钉钉下载失败，请稍后重新发送。", "DingTalk did not give it, please send it again later."
    ),
    MediaProblem.NOT_ALLOWED: Text(
        "下载地址不安全，请联系管理员。", "its address is not safe, please tell an administrator."
    ),
    MediaProblem.TOO_LARGE: Text("太大了，请发小一些的。", "it is too large, please send a smaller one."),
    MediaProblem.NO_PICTURE: Text(
        "不是能识别的图片，请发 JPG、PNG、GIF、WebP 或 HEIC。",
        "it is no picture that I can read; JPG, PNG, GIF, WebP and HEIC are.",
    ),
    MediaProblem.UNSUPPORTED: Text(
        "这种格式我读不了；能读文本、PDF、Word（docx）、Excel（xlsx）、PPT（pptx）和网页。",
        "I can't read this kind; text, PDF, docx, xlsx, pptx and HTML I can.",
    ),
    MediaProblem.ENCRYPTED: Text("有密码，请去掉密码后再发。", "it has a password, please send it without."),
    MediaProblem.DAMAGED: Text(
        "文件损坏或不完整，请重新发送。", "it is damaged or not complete, please send it again."
    ),
    MediaProblem.NO_TEXT: Text(
        "里面没有文字（可能是扫描件），请发图片或文字版。",
        "there is no text in it (a scan, perhaps); please send pictures, or a version with text.",
    ),
    MediaProblem.TOO_SLOW: Text("读取时间太长，请拆小后再发。", "reading it took too long, please send a part of it."),
    MediaProblem.TOO_COSTLY: Text("展开后太大，请拆小后再发。", "it unpacks to too much, please send a part of it."),
    MediaProblem.BUSY: Text(
        "现在要读的文件太多，请稍后重新发送。", "too many files are being read, please send it again later."
    ),
    MediaProblem.OFF: Text("管理员没有开启文件读取。", "the administrator has switched reading files off."),
    MediaProblem.TOO_MANY: Text(
        "一次发得太多，请分几次发。", "that is more than I read at once, please send them in turn."
    ),
}
"""Why something is missing and what helps, as the person is told."""
BLIND_CAUSE: Final = Text("当前模型看不了图片", "this model sees no pictures")
BLIND: Final = Text(
    "当前使用的模型看不了图片，我只回答了文字部分。",
    "The model that I use sees no pictures; I answered the text alone.",
)
BLIND_HINT: Final = Text(
    "当前使用的模型看不了图片，请用文字说明。", "The model that I use sees no pictures. Please describe it in words."
)
MARKS: Final = {
    MarkKind.UNKNOWN: Text("[这里有一条我看不了的内容「{detail}」]", "[something that cannot be read here: {detail}]"),
    MarkKind.NO_SPEECH: Text("[语音，没有识别出文字]", "[speech, in which no words were recognised]"),
    MarkKind.NO_CODE: Text("[「{detail}」，钉钉没有提供内容]", "[{detail}, which DingTalk did not hand over]"),
    MarkKind.DOCUMENT: Text(
        "[钉钉文档「{detail}」，机器人打不开]", "[a shared DingTalk document {detail}, which a robot cannot open]"
    ),
    MarkKind.CARD: Text("[一张卡片，没有文字内容]", "[a card without words]"),
    MarkKind.EMPTY_RECORD: Text(
        "[聊天记录的内容没有随消息发来]", "[the messages of a forwarded chat did not come along]"
    ),
    MarkKind.LEFT_OUT: Text("[后面还有 {detail} 项，没有读取]", "[{detail} more after this were left out]"),
}
"""What stands for the model in the place of what cannot be carried."""
MARK_HINTS: Final = {
    MarkKind.UNKNOWN: Text(
        "这类消息我还看不了，请发文字、语音、图片或文件。",
        "I can't read this kind of message yet. Please send text, speech, a picture or a file.",
    ),
    MarkKind.NO_SPEECH: Text(
        "这条语音没有识别出文字，请再说一遍，或发文字。",
        "No words were recognised in your speech. Please say it again, or write it.",
    ),
    MarkKind.NO_CODE: Text(
        "钉钉没有把它的内容给我，请重新发送一次。", "DingTalk did not hand over its content. Please send it again."
    ),
    MarkKind.DOCUMENT: Text(
        "这是钉钉文档，机器人打不开；请导出为文件再发给我，或把内容复制过来。",
        "This is a shared DingTalk document, which a robot cannot open. Please send it as a file, or paste its text.",
    ),
    MarkKind.CARD: Text(
        "这张卡片里没有我能读的文字，请用文字说明。",
        "There are no words on this card that I can read. Please describe it.",
    ),
    MarkKind.EMPTY_RECORD: Text(
        "聊天记录的内容没有随消息发来，请把文字复制给我。",
        "The messages of this forwarded chat did not come along. Please paste their text.",
    ),
}
"""What the person is told where a message holds nothing else."""
RECORD_BEGINS: Final = Text("[转发的聊天记录「{title}」]", "[forwarded chat {title}:]")
RECORD_ENDS: Final = Text("[聊天记录结束]", "[end of the forwarded chat]")
QUOTE_OF: Final = Text("引用 {name} 的消息：", "Quoted message of {name}:")
QUOTE_OF_ROBOT: Final = Text("引用你之前的消息：", "Quoted message of yours:")
QUOTE_LOST_MARK: Final = Text("[引用了一条读不到的消息]", "[a quoted message, which could not be read]")
QUOTE_LOST: Final = Text(
    "你引用的那条消息我读不到，请把内容发给我。",
    "I could not read the message that you quoted; please send me its words.",
)
