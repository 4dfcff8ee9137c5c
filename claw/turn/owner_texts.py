"""What the owner is told about the operation of claw. One line each: what happened, and what helps."""

from __future__ import annotations

from typing import Final

from claw.language import Text

ALERTS: Final = {
    "model_refused": Text(
        "⚠️ 模型服务拒绝了请求：{cause}。在解决之前，提问都会失败；解决后可用 `/重试 全部` 重新回答。",
        "⚠️ The model's server refuses: {cause}. Until that is cured questions fail; afterwards `/retry all` answers"
        " them.",
    ),
    "credentials_rejected": Text(
        "⚠️ 钉钉有 {minutes} 分钟不接受应用凭证，期间收不到消息；现在已恢复。原因：{cause}",
        "⚠️ For {minutes} min DingTalk did not accept the app's credentials, so that no message came; it does again."
        " The cause: {cause}",
    ),
    "unclean_stop": Text(
        "⚠️ 上一个进程没有正常退出（{cause}）：可能是崩溃、内存不足或被强制结束。没有消息丢失，请查看它的日志。",
        "⚠️ A process ended without a word ({cause}): a crash, too little memory, or a kill. No message is lost; please"
        " look at its log.",
    ),
    "store_trouble": Text(
        "⚠️ 存储有 {minutes} 分钟不可用，现在已恢复。原因：{cause}。请检查磁盘空间或 Redis。",
        "⚠️ The store could not be used for {minutes} min; it can again. The cause: {cause}. Please look at the disk's"
        " room, or at Redis.",
    ),
}
"""Alerts by their kind (inbox/operator_alerts.py)."""
ALERT_CAUSE_MAX_CHARS: Final = 200
NO_LETTERS: Final = Text("没有失败的消息。", "Nothing failed: there are no dead letters.")
LETTERS_IN_DIRECT: Final = Text(
    "有没能回答的消息，内容请在单聊里查看。", "Some messages could not be answered. Please ask me in our direct chat."
)
LETTER: Final = Text("- `{id}` {at} {person}：{question}（{cause}）", "- `{id}` {at} {person}: {question} ({cause})")
MORE_LETTERS: Final = Text("- ……以及更早的", "- ... and older ones")
RETRY_HINT: Final = Text(
    "重新处理请发送 `/重试 编号` 或 `/重试 全部`。", "Send `/retry NUMBER` or `/retry all` to try them again."
)
RETRY_USAGE: Final = Text(
    "用法：`/重试 编号` 或 `/重试 全部`，编号见 `/失败消息`。",
    "Use `/retry NUMBER` or `/retry all`; `/dead` shows the numbers.",
)
RETRIED: Final = Text("已重新处理 {count} 条。", "{count} put back, to be tried again. ")
NOT_RETRIED: Final = Text("{count} 条不存在或无法读取。", "{count} are not there, or cannot be read.")
CHAT_USAGE: Final = Text(
    "用法：`/会话设置 策略|模型|提示词|会话|回复 值`，值写 `默认` 即恢复；`/会话设置 重置` 恢复全部。",
    "Use `/chat policy|model|prompt|session|mode VALUE`, where `default` takes a setting back; `/chat reset` takes"
    " all.",
)
CHAT_REFUSED: Final = Text("不能这样设置，可用的值：{known}", "That cannot be set. Possible: {known}")
AS_EVERYWHERE: Final = Text("默认", "default")
CHAT_SETTINGS: Final = Text(
    "本会话的设置：\n\n- 策略：{policy}\n- 模型：{model}\n- 提示词：{prompt}\n- 会话：{session}\n"
    "- 回复：{mode}\n\n可选模型：{models}",
    "The settings of this chat:\n\n- policy: {policy}\n- model: {model}\n- prompt: {prompt}\n- session: {session}\n"
    "- mode: {mode}\n\nModels: {models}",
)
