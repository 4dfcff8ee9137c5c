"""What commands do: each is answered in one short message, in the language of the person.

Order of events: `CommandHandlers.handle` is called for somebody who may talk here. A command of the owner's by anybody
else gets a short no that tells nothing. What is changed here is kept in the store, wins over the environment's defaults
until `/policy reset`, and shows in `/status`.

A command is declared by the decorator beside its handler; a new one needs nothing else. The order of the handlers is
the order of `/help`; those of owner.py come first.
"""

from __future__ import annotations

import json
import logging
from difflib import get_close_matches
from typing import Final

from claw.chat_settings import split_model
from claw.clock import Clock
from claw.language import Language, Text
from claw.messages import ChatKind, Inbound
from claw.policy import DirectPolicy, GroupPolicy
from claw.secret import hash_id
from claw.store.ports import ChatDirectory, ConfigStore, History
from claw.store.values import Interrupted
from claw.turn import texts
from claw.turn.access import (
    ALLOWED_PREFIX,
    DENIED_PREFIX,
    DIRECT_POLICY,
    GROUP_POLICY,
    HANDOVER,
    OWNER,
    AccessControl,
    Owner,
    Rules,
    parse_owner,
)
from claw.turn.commands.actions import AdminActions
from claw.turn.commands.formatting import (
    format_health,
    format_people,
    format_policies,
    strip_markup,
)
from claw.turn.commands.owner import OwnerCommands
from claw.turn.commands.people import check_people, find_people
from claw.turn.commands.registry import COMMANDS, Command, CommandSpec, Invocation

log: Final = logging.getLogger(__name__)

HANDOVER_TTL_S: Final = 300.0
"""Seconds within which a handover must be confirmed."""
LISTED_MAX: Final = 2_000
"""People on all lists together: they are looked at with every message. A larger circle wants an open policy."""
CHATS_SHOWN_MAX: Final = 15
NAME_MAX_CHARS: Final = 60
"""Of a name that is repeated as it was written."""
NEAR_MIN: Final = 0.5
"""How much a word must have in common with a command's name to be taken for a slip of it."""
GUEST_PREFIX: Final = "$:"
"""How DingTalk's own ids begin, by which people without a staff id are named."""
_CONFIRM: Final = frozenset({"confirm", "确认", "yes", "是"})
_POLICY_WORDS: Final = {
    "开放": "open",
    "白名单": "allowlist",
    "关闭": "disabled",
    "主人": "owner",
    "群": "group",
    "群聊": "group",
    "单聊": "direct",
    "重置": "reset",
}
_STATUS_AND_CHATS_HELP: Final = Text(
    "`/状态`（`/status`）运行状态　`/会话`（`/chats`）所有会话", "`/status` how I am doing, `/chats` where I am"
)
_LISTS_HELP: Final = Text(
    "`/允许 @某人`（`/allow`）、`/禁止 @某人`（`/deny`）允许或禁止使用（单聊里写工号）",
    "`/allow @person`, `/deny @person` (in a direct chat: their staff id)",
)


class CommandHandlers(OwnerCommands):
    """Does what commands ask for. `config` keeps what is changed, `chats` knows where the robot was written to."""

    def __init__(
        self,
        access: AccessControl,
        *,
        history: History,
        config: ConfigStore,
        chats: ChatDirectory,
        actions: AdminActions,
        clock: Clock,
    ) -> None:
        self._access = access
        self._history = history
        self._config = config
        self._chats = chats
        self._actions = actions
        self._clock = clock

    async def handle(
        self, command: Command, inbound: Inbound, conversation_key: str, rules: Rules, language: Language
    ) -> str:
        """Carry a command out, and return what the person is told. Raises StoreError."""
        if command.spec.owner_only and not rules.is_owner(inbound.sender.staff_id):
            owner = parse_owner(await self._config.items(OWNER))
            if self._access.is_owner_set or owner is None or owner.message != inbound.key:
                return texts.OWNER_ONLY[language]
            # Another try of the very message that handed the robot over: its sender is no owner any more.
        return await command.spec.handler(self, Invocation(command, inbound, conversation_key, rules, language))

    # --- for everybody -------------------------------------------------------------------------------------------

    @COMMANDS.command(
        "new",
        "新对话",
        "新会话",
        "clear",
        "reset",
        "清空",
        "清空对话",
        "重新开始",
        urgent=True,
        bare=("新对话", "新会话", "清空对话"),
        help_text=Text(
            "`/新对话`（`/new`）忘掉之前的对话，重新开始", "`/new` forget this conversation and start afresh"
        ),
    )
    async def _forget(self, call: Invocation) -> str:
        # First, so that the answer in progress is not kept as the new conversation's beginning, nor shown after it.
        # Somebody else's goes on: it is shown, and not kept.
        await self._actions.stop(call.conversation_key, self._stoppable_by(call))
        await self._history.forget(call.conversation_key)
        if _is_shared(call):
            name = strip_markup(call.inbound.sender.nick) or call.inbound.sender.key
            return texts.FORGOTTEN_FOR_ALL[call.language].format(name=name)
        return texts.FORGOTTEN[call.language]

    @COMMANDS.command(
        "stop",
        "停止",
        "停",
        "停下",
        "停止生成",
        "cancel",
        "取消",
        urgent=True,
        bare=("停止", "停下", "停止生成", "stop"),
        help_text=Text("`/停止`（`/stop`）停止正在生成的回答", "`/stop` stop the answer in progress"),
    )
    async def _stop(self, call: Invocation) -> str:
        # By the conversation's key, which is the name of its queue: this very message waits in another one.
        stopped = await self._actions.stop(call.conversation_key, self._stoppable_by(call))
        told = {
            Interrupted.STOPPED: texts.STOPPED,
            Interrupted.NOTHING: texts.NOTHING_TO_STOP,
            Interrupted.OTHERS: texts.NOT_YOURS_TO_STOP,
        }
        return told[stopped][call.language]

    def _stoppable_by(self, call: Invocation) -> str | None:
        """Return whose turns this person may end: their own, or anybody's (None) for the owner and in a chat of two."""
        if not _is_shared(call) or call.rules.is_owner(call.inbound.sender.staff_id):
            return None
        return call.inbound.sender.key

    @COMMANDS.command(
        "model",
        "模型",
        urgent=True,
        help_text=Text("`/模型`（`/model`）查看使用的模型", "`/model` show which model answers"),
    )
    async def _show_model(self, call: Invocation) -> str:
        return texts.MODEL[call.language].format(model=split_model(call.conversation_key)[1] or self._actions.model)

    @COMMANDS.command(
        "id",
        "我的id",
        urgent=True,
        help_text=Text(
            "`/我的id`（`/id`）查看自己的工号和会话编号", "`/id` show your staff id and this conversation's id"
        ),
    )
    async def _show_ids(self, call: Invocation) -> str:
        """Tell who somebody is to DingTalk, for an operator's lists."""
        return texts.IDENTITY[call.language].format(
            staff=call.inbound.sender.staff_id or texts.NO_STAFF_ID[call.language],
            conversation=call.inbound.conversation.id,
        )

    @COMMANDS.command(
        "help",
        "帮助",
        "命令",
        "commands",
        urgent=True,
        help_text=Text("`/帮助`（`/help`）显示这份说明", "`/help` show this"),
    )
    async def _help(self, call: Invocation) -> str:
        language = call.language
        parts = [texts.HELP[language], COMMANDS.format_help(language, owner_only=False)]
        if call.rules.is_owner(call.inbound.sender.staff_id):
            parts += [texts.HELP_OWNER[language], COMMANDS.format_help(language, owner_only=True)]
        return "\n\n".join(parts)

    # --- for the owner -------------------------------------------------------------------------------------------

    @COMMANDS.command("status", "状态", owner_only=True, urgent=True, help_text=_STATUS_AND_CHATS_HELP)
    async def _show_status(self, call: Invocation) -> str:
        figures = await self._actions.status()
        told = texts.STATUS[call.language].format(**figures, policies=format_policies(call.rules, call.language))
        return "\n\n".join([told, *format_health(self._actions.model_health(), call.language)])

    @COMMANDS.command("chats", "会话", owner_only=True, urgent=True, help_text=_STATUS_AND_CHATS_HELP)
    async def _list_chats(self, call: Invocation) -> str:
        language = call.language
        chats = await self._chats.chats(CHATS_SHOWN_MAX + 1)  # One more tells whether there are more.
        lines = [
            texts.CHAT[language].format(
                kind=texts.KINDS[chat.kind][language],
                title=strip_markup(chat.title) or "-",
                id=chat.id,
                messages=chat.messages,
            )
            for chat in chats[:CHATS_SHOWN_MAX]
        ]
        if len(chats) > CHATS_SHOWN_MAX:
            lines.append(texts.MORE_CHATS[language])
        return "\n".join(lines) or texts.NO_CHATS[language]

    @COMMANDS.command(
        "policy",
        "策略",
        owner_only=True,
        takes_arguments=True,
        help_text=Text(
            "`/策略`（`/policy`）查看策略；`/policy group open|allowlist|disabled`；"
            "`/policy direct open|allowlist|owner`；`/policy reset` 恢复默认",
            "`/policy` show the policies; `/policy group open|allowlist|disabled`; "
            "`/policy direct open|allowlist|owner`; `/policy reset`",
        ),
    )
    async def _change_policy(self, call: Invocation) -> str:
        match [_POLICY_WORDS.get(word, word.lower()) for word in call.arguments]:
            case []:
                return format_policies(call.rules, call.language)
            case ["reset"]:
                entries = await self._config.items()
                # A denial is somebody's judgement of a person, which outlives a change of policy.
                allowed = [name for name in entries if name.startswith(ALLOWED_PREFIX)]
                await self._config.delete(GROUP_POLICY, DIRECT_POLICY, *allowed)
            # Each policy has words of its own: `owner` is none for groups, `disabled` none for direct chats.
            case ["group", word] if word in set(GroupPolicy):
                await self._config.set(GROUP_POLICY, word)
            case ["direct", word] if word in set(DirectPolicy):
                await self._config.set(DIRECT_POLICY, word)
            case _:
                return texts.POLICY_USAGE[call.language]
        log.info("policy changed by the owner", extra={"words": " ".join(call.arguments)[:40]})
        await self._note(call, " ".join(call.arguments))
        # Read again rather than worked out: what is told is what holds, also where two owners change it at once.
        rules = await self._access.read_rules()
        told = texts.DONE[call.language] + format_policies(rules, call.language)
        if call.arguments[0] in {"reset", "重置"} and rules.denied:
            told += "\n\n" + texts.STILL_DENIED[call.language].format(count=len(rules.denied))
        return told

    @COMMANDS.command(
        "list",
        "名单",
        "lists",
        owner_only=True,
        help_text=Text("`/名单`（`/list`）查看主人、允许和禁止名单", "`/list` show owner, allowed and denied people"),
    )
    async def _show_lists(self, call: Invocation) -> str:
        language, rules = call.language, call.rules
        if call.inbound.conversation.kind is ChatKind.GROUP:
            # Who is denied is nobody else's business.
            return texts.LISTS_IN_DIRECT[language].format(
                allowed=len(rules.group_listed | rules.direct_listed), denied=len(rules.denied)
            )
        entries = await self._config.items(ALLOWED_PREFIX)
        added = {name.removeprefix(ALLOWED_PREFIX) for name in entries}
        parts = (
            (texts.LIST_OWNERS, rules.owners),
            (texts.LIST_ALLOWED, added),
            (texts.LIST_GROUP, rules.group_listed - added),
            (texts.LIST_DIRECT, rules.direct_listed - added),
            (texts.LIST_DENIED, rules.denied),
        )
        return "\n\n".join(f"{title[language]}{format_people(people, language)}" for title, people in parts)

    @COMMANDS.command("allow", "允许", owner_only=True, takes_arguments=True, help_text=_LISTS_HELP)
    async def _allow(self, call: Invocation) -> str:
        return await self._move_to_list(call, to=ALLOWED_PREFIX, away_from=DENIED_PREFIX, done=texts.ALLOWED)

    @COMMANDS.command("deny", "禁止", owner_only=True, takes_arguments=True, help_text=_LISTS_HELP)
    async def _deny(self, call: Invocation) -> str:
        # Nobody but the owner could undo it.
        if set(find_people(call).ids) & call.rules.owners:
            return texts.OWNER_STAYS[call.language]
        return await self._move_to_list(call, to=DENIED_PREFIX, away_from=ALLOWED_PREFIX, done=texts.DENIED)

    async def _move_to_list(self, call: Invocation, *, to: str, away_from: str, done: Text) -> str:
        """Put the people whom a command names on one list, and take them off the other."""
        (people, _), rules = find_people(call), call.rules
        if told := check_people(call):
            return told
        if len(rules.group_listed | rules.direct_listed) + len(rules.denied) + len(people) > LISTED_MAX:
            return texts.LIST_FULL[call.language]
        for person in people:
            # Off the one list first: a crash in between leaves nobody on both, and the owner gives the command again.
            await self._config.delete(f"{away_from}{person}")
            await self._config.set(f"{to}{person}", "1")
        log.info("list changed by the owner", extra={"command": call.command.spec.name, "people": len(people)})
        await self._note(call, ", ".join(people))
        return done[call.language].format(people=", ".join(people))

    @COMMANDS.command(
        "owner",
        "主人",
        owner_only=True,
        takes_arguments=True,
        help_text=Text("`/主人 @某人`（`/owner`）移交主人身份", "`/owner @person` hand me over"),
    )
    async def _hand_over(self, call: Invocation) -> str:
        if self._access.is_owner_set:
            return texts.OWNERS_SET[call.language].format(owners=", ".join(sorted(call.rules.owners)))
        # Alone: the nick of somebody who is @-ed may end in such a word.
        if len(call.command.words) == 1 and call.command.words[0].lower() in _CONFIRM and not call.inbound.mentioned:
            return await self._confirm_handover(call)
        people = find_people(call).ids
        if not call.command.words and not people:
            return texts.OWNERS[call.language].format(owners=", ".join(sorted(call.rules.owners)))
        if told := check_people(call):
            return told
        if len(people) > 1:
            return texts.ONE_OWNER[call.language]
        if people[0].startswith(GUEST_PREFIX):
            return texts.NO_MEMBER[call.language]
        # In the store and not in memory: the confirmation may come to another replica, or after a restart. A second
        # handover replaces the first.
        handover = {
            "to": people[0],
            "by": call.inbound.sender.staff_id,
            "ends": self._clock.wall() + HANDOVER_TTL_S,
            "message": call.inbound.key,
        }
        await self._config.set(HANDOVER, json.dumps(handover))
        # The name as it was written, for a person to compare; what counts is the id.
        name = strip_markup(" ".join(call.command.words), NAME_MAX_CHARS) if call.inbound.mentioned else ""
        person = f"{name} ({people[0]})" if name else people[0]
        return texts.CONFIRM_OWNER[call.language].format(person=person, minutes=int(HANDOVER_TTL_S // 60))

    async def _confirm_handover(self, call: Invocation) -> str:
        entries = await self._config.items()
        present = parse_owner(entries)
        if present is not None and present.message == call.inbound.key:
            # Another try of this very message, which set the owner and failed or died before it was acked.
            person = present.staff_id
        else:
            try:
                handover = json.loads(entries.get(HANDOVER, ""))
                valid = handover["by"] == call.inbound.sender.staff_id and self._clock.wall() < handover["ends"]
                person = str(handover["to"])
            except (ValueError, LookupError, TypeError):
                valid, person = False, ""
            if not valid:
                return texts.NOTHING_TO_CONFIRM[call.language]
            # The owner first, and with this message's key: a crash from here on is made good by the next try.
            await self._config.set(OWNER, Owner(person, message=call.inbound.key).to_json())
            log.warning("the robot was handed to another owner", extra={"owner": hash_id(person)})
            await self._note(call, person)
        await self._config.delete(HANDOVER, f"{DENIED_PREFIX}{person}")
        return texts.HANDED_OVER[call.language].format(person=person)

    @COMMANDS.command(
        "restart",
        "重启",
        owner_only=True,
        takes_arguments=True,
        help_text=Text(
            "`/重启`（`/restart`）重建连接；`/restart process` 重启进程",
            "`/restart` replace the connection; `/restart process` restart",
        ),
    )
    async def _restart(self, call: Invocation) -> str:
        # Answered before it happens: the worker sends this text while the process drains.
        scope = call.arguments[0].lower() if call.arguments else "stream"
        if len(call.arguments) > 1 or scope not in {"stream", "process"}:
            return texts.RESTART_USAGE[call.language]
        if not self._actions.restart(scope):
            return texts.RESTART_BUSY[call.language]
        await self._note(call, scope)
        return texts.RESTARTING[call.language]

    async def _note(self, call: Invocation, detail: str) -> None:
        """Keep in the audit what the owner has changed by a command."""
        await self._actions.note(call.inbound.sender.staff_id, call.command.spec.name, "", detail)

    # --- slips -----------------------------------------------------------------------------------------------------

    async def suggest(self, call: Invocation) -> str:
        """Tell of a word behind a slash that is no command which one is near, and how it gets to the model."""
        word = call.arguments[0]
        near = get_close_matches(word, list(COMMANDS.names), n=1, cutoff=NEAR_MIN)
        text = texts.UNKNOWN_COMMAND_NEAR if near else texts.UNKNOWN_COMMAND
        return text[call.language].format(word=strip_markup(word, NAME_MAX_CHARS), near=near[0] if near else "")


UNKNOWN: Final = CommandSpec(
    "",
    (),
    Text("", ""),
    owner_only=False,
    takes_arguments=True,
    urgent=True,
    handler=CommandHandlers.suggest,
)
"""What a word behind a slash is that is no command."""


def _is_shared(call: Invocation) -> bool:
    """Whether several people share the conversation."""
    inbound = call.inbound
    return inbound.conversation.kind is ChatKind.GROUP and split_model(call.conversation_key)[0] == inbound.chat_key
