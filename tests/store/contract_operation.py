"""What every store owes to an operator: dead letters that can be put back or dropped, receipts, usage and audit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from claw.store.operation import AUDIT_MAX, USAGE_DAY_MAX, USAGE_OTHERS
from claw.store.values import AuditEntry, RowKind, SendReceipt, SendState, UsageRow
from tests.store.contract import ANSWER, TTL, World, claim, claimed_ids, inbound, put, row

TODAY = datetime.now(UTC).date()
USED = UsageRow(
    TODAY.isoformat(), "staff/1", "cid+1/=", "Ann \ud83d", "Room", 2, tokens_in=30, tokens_out=7, up=1, down=0
)
PENDING = SendReceipt("send-1", SendState.PENDING, 1_800_000_000.5, digest="abc")


async def bury(world: World, number: int = 1, *, answered: bool = False) -> str:
    """Give a message up, and return its letter's id."""
    await put(world.store, number)
    lease = await claim(world.store)
    if answered:
        await world.store.save_answer(lease, ANSWER)
    await world.store.bury(lease, "hopeless")
    return (await world.store.dead(1))[0].id


class OperationContract:
    """Derive a class named `Test…` and give it the fixture `world`."""

    async def test_a_letter_is_put_back(self, world: World) -> None:
        """A letter that is put back is a message again, with no try counted, also after a crash; the letter is gone."""
        letter_id = await bury(world)
        letter = await world.store.find_dead(letter_id)
        assert letter is not None
        assert letter.inbound is not None
        assert (letter.id, letter.kind, letter.key) == (letter_id, RowKind.MESSAGE, "robot:msg1")
        assert await world.store.requeue(letter_id, row(letter.inbound))
        assert (await world.store.depth()).pending == 1
        await world.die()
        assert (await world.store.depth()).dead == 0
        assert await world.store.find_dead(letter_id) is None
        lease = await claim(world.store)
        assert (lease.inbound.msg_id, lease.attempts, lease.claims, lease.answer) == ("msg1", 0, 1, None)
        # Its key is known still: what DingTalk repeats now would be answered twice.
        assert not await put(world.store, 1)

    async def test_a_letter_is_put_back_with_its_answer(self, world: World) -> None:
        """What was paid for is only delivered again."""
        letter_id = await bury(world, answered=True)
        letter = await world.store.find_dead(letter_id)
        assert letter is not None
        assert letter.inbound is not None
        assert await world.store.requeue(letter_id, replace(row(letter.inbound), answer=letter.answer))
        assert (await claim(world.store)).answer == ANSWER

    async def test_a_letter_is_put_back_once(self, world: World) -> None:
        """Of two who put a letter back at the same moment one does, and one who dropped it leaves nothing to put."""
        letter_id = await bury(world)
        back = row(inbound(1))
        done = await asyncio.gather(world.store.requeue(letter_id, back), world.store.requeue(letter_id, back))
        assert sorted(done) == [False, True]
        assert await claimed_ids(world.store) == ["msg1"]
        await world.later(TTL + 1)
        await world.store.ack(await claim(world.store))
        other = await bury(world, 2)
        assert await world.store.drop_dead(other)
        assert not await world.store.drop_dead(other)
        assert not await world.store.requeue(other, row(inbound(2)))
        assert (await world.store.depth()).dead == 0

    async def test_a_letter_that_is_put_back_waits_behind_others(self, world: World) -> None:
        """It was written long ago, but what waits in its queue was asked in the belief that it is lost."""
        letter_id = await bury(world)
        later = replace(inbound(2), created_at=inbound(1).created_at + 50)
        await world.store.put(row(later))
        assert await world.store.requeue(letter_id, row(inbound(1)))
        assert (await claim(world.store)).inbound.msg_id == "msg2"

    async def test_a_letter_that_is_put_back_wakes_a_worker(self, world: World) -> None:
        """A worker that waits for messages hears of it."""
        letter_id = await bury(world)
        while await world.store.claim("worker", 1) is not None:
            pass
        await asyncio.wait_for(world.store.wait(), 5)
        waiting = asyncio.create_task(world.store.wait())
        await asyncio.sleep(0)
        await world.store.requeue(letter_id, row(inbound(1)))
        await asyncio.wait_for(waiting, 5)

    async def test_ids_that_are_none(self, world: World) -> None:
        """Whatever is given for an id, there is no such letter."""
        for letter_id in ("", "0", "-1", "9" * 30, "x", "1; --", "\u0661", "\ud83d"):
            assert await world.store.find_dead(letter_id) is None
            assert not await world.store.drop_dead(letter_id)

    async def test_a_letter_knows_its_kind(self, world: World) -> None:
        """What claw was to send of its own accord is told from what people wrote."""
        await world.store.put(replace(row(inbound(1)), kind=RowKind.ALERT, answer=ANSWER))
        await world.store.bury(await claim(world.store), "hopeless")
        assert [letter.kind for letter in await world.store.dead()] == [RowKind.ALERT]

    async def test_of_two_sends_one_stands(self, world: World) -> None:
        """A receipt is begun once, whoever repeats it; its end replaces it, and it goes after its time."""
        other = replace(PENDING, digest="other")
        first = await world.store.begin_send(PENDING)
        assert (first, await world.store.begin_send(other)) == (PENDING, PENDING)
        sent = replace(PENDING, state=SendState.SENT, ended_at=1_800_000_001.0, receipts=("key\ud83d", "k2"))
        await world.store.end_send(sent)
        await world.die()
        assert await world.store.find_send("send-1") == sent
        assert await world.store.begin_send(other) == sent
        assert await world.store.find_send("send-2") is None

    async def test_usage_adds_up(self, world: World) -> None:
        """Counts of a person, a chat and a day add up; the newest names stand, and none is lost by an empty one."""
        await world.store.add_usage([USED, replace(USED, name="", title="New", questions=1, tokens_in=0, up=0)])
        await world.store.add_usage([replace(USED, chat="cid2", title="", questions=0, down=4)])
        await world.die()
        first, second = await world.store.usage(TODAY.isoformat())
        assert first == replace(USED, title="New", questions=3, tokens_in=30, tokens_out=14, up=1)
        assert (second.chat, second.title, second.questions, second.down) == ("cid2", "", 0, 4)

    async def test_usage_comes_by_days(self, world: World) -> None:
        """Days come newest first, from the one that is asked for."""
        days = [(TODAY - timedelta(days=back)).isoformat() for back in range(3)]
        await world.store.add_usage([replace(USED, day=day) for day in days])
        assert [each.day for each in await world.store.usage(days[1])] == days[:2]

    async def test_usage_of_a_day_is_bounded(self, world: World) -> None:
        """Beyond USAGE_DAY_MAX people and chats nobody is named, and nothing is lost of the sums."""
        rows = [UsageRow(TODAY.isoformat(), f"p{n}", "c", questions=1) for n in range(USAGE_DAY_MAX + 2)]
        for start in range(0, len(rows), 1000):
            await world.store.add_usage(rows[start : start + 1000])
        found = await world.store.usage(TODAY.isoformat())
        assert len(found) == USAGE_DAY_MAX + 1
        assert [each.questions for each in found if each.person == USAGE_OTHERS] == [2]

    async def test_the_audit_is_appended_to(self, world: World) -> None:
        """Entries come newest first, as they were written, over a crash."""
        entries = [AuditEntry(1_800_000_000.0 + n, "api", "policy.group", "", f"open \ud83d {n}") for n in range(3)]
        for entry in entries:
            await world.store.append_audit(entry)
        await world.die()
        assert await world.store.audit(2) == [entries[2], entries[1]]
        assert await world.store.audit(0) == []

    async def test_the_audit_is_bounded(self, world: World) -> None:
        """Beyond AUDIT_MAX entries the oldest go."""
        count = AUDIT_MAX + 3
        for start in range(0, count, 500):
            entries = [AuditEntry(float(n), "api", str(n)) for n in range(start, min(start + 500, count))]
            await asyncio.gather(*(world.store.append_audit(entry) for entry in entries))
        found = await world.store.audit(count)
        assert len(found) == AUDIT_MAX
        assert {each.action for each in found} == {str(n) for n in range(3, count)}
