"""What every store owes to those who use it. An adapter's test class derives from `StoreContract` and gives `world`.

`World` is a store whose time the test moves and whose process the test can let die. Where adapters differ by design
(how soon a dead process's messages may be claimed), the contract asks for the weaker promise.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from claw.errors import LeaseLostError, StoreError
from claw.messages import Answer, ChatKind, Conversation, Exchange, Inbound, Outcome, Route, Sender
from claw.parts import Mark, MarkKind, Media, MediaKind, Part, Words
from claw.secret import Secret
from claw.store.operation import DEAD_RETENTION_S
from claw.store.ports import (
    CHATS_RETENTION_S,
    HISTORY_EXCHANGES_MAX,
    HISTORY_RETENTION_S,
    INDEX_MAX,
    INDEX_RETENTION_S,
    INDEXED_MAX_CHARS,
    INDEXED_MEDIA_MAX,
    QUOTA_RETENTION_S,
    SEEN_RETENTION_S,
    Store,
)
from claw.store.values import Chat, Interrupted, KeptCard, KeptMessage, Lease, Row, RowKind, RowPlace
from tests.clock import FakeClock

TTL = 30.0
NOW = 1_790_000_000.0
"""When cards of tests are opened."""
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
SHORT = 0.2
"""Real seconds in which something that must not happen is given the chance to."""


class World(ABC):
    """An opened store in a world of its own."""

    store: Store
    clock: FakeClock
    """The store's; `jump` sets it wrong."""

    @abstractmethod
    async def later(self, seconds: float) -> None:
        """Let time go on for the store, and let it act."""

    @abstractmethod
    async def die(self) -> None:
        """Leave the store as a killed process does, and open it anew: `store` is another object afterwards."""


def inbound(number: int | str = 1, text: str = "hello") -> Inbound:
    return Inbound(
        robot_code="robot",
        msg_id=f"msg{number}",
        conversation=Conversation("cid1", ChatKind.GROUP, "Room"),
        sender=Sender("$:LWCP_v1:$x", "staff1", "Ann"),
        msgtype="text",
        text=text,
        created_at=1_800_000_000.25,
        parts=(Words(text), Media(MediaKind.FILE, Secret("code"), "a.pdf")),
        webhook=Secret("https://oapi.dingtalk.com/robot/sendBySession?session=s3cret"),
        webhook_expires=1_800_005_400.0,
    )


ANSWER = Answer.of("the answer", Outcome.ANSWERED, sent=1, exchange=Exchange("m", "question", "the answer"))


def row(message: Inbound, queue: str = "lane", *, urgent: bool = False) -> Row:
    return Row(message, Route("conversation", queue, urgent), TRACE)


async def put(store: Store, number: int | str = 1, queue: str = "lane", *, urgent: bool = False) -> bool:
    return await store.put(row(inbound(number), queue, urgent=urgent))


async def write(store: Store, number: int, where: Conversation, *, nick: str = "Ann", robot: str = "robot") -> bool:
    """A person writes to a robot in a chat."""
    message = replace(inbound(number), conversation=where, sender=Sender("id", "staff1", nick), robot_code=robot)
    return await store.put(row(message, message.chat_key))


ROOM = Conversation("cid1", ChatKind.GROUP, "Room")
ALONE = Conversation("cid2", ChatKind.DIRECT)


async def today(world: World) -> str:
    """The day by the store's own clock."""
    await write(world.store, 0, Conversation("today", ChatKind.GROUP))
    (chat,) = [chat for chat in await world.store.chats() if chat.id == "today"]
    return datetime.fromtimestamp(chat.last_seen, UTC).date().isoformat()


async def claim(store: Store, *, urgent: bool = False) -> Lease:
    lease = await store.claim("worker", TTL, urgent=urgent)
    assert lease is not None
    return lease


async def claimed_ids(store: Store) -> list[str]:
    """Everything that may be claimed now, in the order in which it is."""
    ids = []
    while (lease := await store.claim("worker", TTL)) is not None:
        ids.append(lease.inbound.msg_id)
    return ids


class StoreContract:
    """Derive a class named `Test…` and give it the fixture `world`."""

    # --- put -----------------------------------------------------------------------------------------------------

    async def test_a_lease_brings_the_message_as_it_was_put(self, world: World) -> None:
        """A lease holds the message, its trace context, its queue and who claimed it."""
        assert await put(world.store)
        lease = await claim(world.store)
        assert lease.inbound == inbound()
        assert lease.trace == TRACE
        assert (lease.kind, lease.route) == (RowKind.MESSAGE, Route("conversation", "lane"))
        assert (lease.owner, lease.attempts, lease.claims) == ("worker", 0, 1)
        assert lease.answer is None
        (chat,) = await world.store.chats()
        assert lease.received_at == chat.last_seen, "both are the moment of the put"

    async def test_a_seen_key_is_refused(self, world: World) -> None:
        """A key that was put before is not put again, in whatever queue, waiting, claimed or acked."""
        assert await put(world.store)
        assert not await put(world.store, queue="other")
        lease = await claim(world.store)
        assert not await put(world.store)
        await world.store.ack(lease)
        assert not await put(world.store)
        assert await world.store.claim("worker", TTL) is None

    async def test_one_of_many_puts_at_once_wins(self, world: World) -> None:
        """Of puts of one key at the same time exactly one is told that it is new."""
        results = await asyncio.gather(*(put(world.store, queue=f"lane{n}") for n in range(20)))
        assert sorted(results) == [False] * 19 + [True]
        assert (await world.store.depth()).pending == 1

    async def test_a_key_is_forgotten_after_its_time(self, world: World) -> None:
        """Where DingTalk tells no times, a key is new again SEEN_RETENTION_S after its first sight, and not before."""
        timeless = row(replace(inbound(), created_at=0.0))
        await world.store.put(timeless)
        await world.store.ack(await claim(world.store))
        await world.later(SEEN_RETENTION_S - 60)
        await world.store.clean()
        assert not await world.store.put(timeless)
        await world.later(120)
        await world.store.clean()
        assert await world.store.put(timeless)

    async def test_what_was_put_survives_a_crash(self, world: World) -> None:
        """A put that returned is there after the process died, and its key is still known."""
        await put(world.store, 1, "a")
        await put(world.store, 2, "b", urgent=True)
        await world.die()
        assert not await put(world.store, 1)
        lease = await claim(world.store, urgent=True)
        assert lease.inbound == inbound(2)
        assert lease.trace == TRACE
        assert await claimed_ids(world.store) == ["msg1"]

    async def test_a_cancelled_put_does_no_harm(self, world: World) -> None:
        """A caller that stops waiting leaves the store as if it had waited, or had never called."""
        task = asyncio.create_task(put(world.store, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = await put(world.store, 1)
        assert await put(world.store, 2, "other")
        assert await claimed_ids(world.store) == ["msg1", "msg2"]
        assert not again, "what was asked for was done, although nobody waited for it"

    @pytest.mark.parametrize("text", ["half \ud83d pair", "nul \x00 within", "话" * 20_000, ""])
    async def test_any_text_is_kept(self, world: World, text: str) -> None:
        """No text of a person or a model is too strange to be stored and read again."""
        await world.store.put(row(inbound(text=text)))
        lease = await claim(world.store)
        await world.store.save_answer(lease, Answer.of(text, Outcome.ANSWERED))
        await world.die()
        await world.later(TTL + 1)
        lease = await claim(world.store)
        assert lease.inbound.text == text
        assert lease.answer == Answer.of(text, Outcome.ANSWERED)
        await world.store.ack(lease, Exchange("memory", text, text))
        assert await world.store.exchanges("memory", 1) == [Exchange("memory", text, text)]

    @pytest.mark.parametrize("urgent", [True, False])
    @pytest.mark.parametrize("key", ["robot:cid1:ann", "half \ud83d pair", "nul \x00 within"])
    async def test_a_route_is_kept(self, world: World, key: str, urgent: bool) -> None:
        """The conversation's key and the urgency are told with each lease, in this process and in the next one."""
        route = Route(key, "a queue", urgent)
        await world.store.put(Row(inbound(), route))
        for _ in range(2):
            assert (await claim(world.store)).route == route
            await world.die()
            await world.later(TTL + 1)

    @pytest.mark.parametrize("kind", [RowKind.SEND, RowKind.ALERT])
    async def test_a_row_with_an_answer_is_claimed_with_it(self, world: World, kind: RowKind) -> None:
        """What is put with its answer comes in its turn, needs no thinking, and is ended as a message is."""
        await put(world.store, 1)
        assert await world.store.put(Row(inbound(2), Route("conversation", "lane"), TRACE, kind, ANSWER))
        assert not await world.store.put(Row(inbound(2), Route("conversation", "lane"), TRACE, kind, ANSWER))
        await world.store.ack(await claim(world.store))
        for _ in range(2):
            lease = await claim(world.store)
            assert (lease.kind, lease.answer, lease.trace) == (kind, ANSWER, TRACE)
            await world.die()
            await world.later(TTL + 1)
        lease = await claim(world.store)
        await world.store.save_answer(lease, ANSWER.with_sent(2))
        await world.store.release(lease, failed=True)
        lease = await claim(world.store)
        assert (lease.kind, lease.answer, lease.attempts) == (kind, ANSWER.with_sent(2), 1)
        await world.store.ack(lease, ANSWER.exchange)
        assert await world.store.exchanges("m", 9) == [ANSWER.exchange]
        assert [chat.messages for chat in await world.store.chats()] == [1], "nobody wrote the second one"

    # --- queues -----------------------------------------------------------------------------------------------------

    async def test_one_lease_for_each_queue_in_order_of_arrival(self, world: World) -> None:
        """Queues go side by side, oldest head first; within a queue the next comes after the ack of the one before."""
        for number, queue in enumerate("aabba", start=1):
            await put(world.store, number, queue)
        first, second = await claim(world.store), await claim(world.store)
        assert [first.inbound.msg_id, second.inbound.msg_id] == ["msg1", "msg3"]
        assert await world.store.claim("other", TTL) is None
        await world.store.ack(first)
        third = await claim(world.store)
        assert third.inbound.msg_id == "msg2"
        assert await world.store.claim("other", TTL) is None
        await world.store.ack(second)
        await world.store.ack(third)
        assert await claimed_ids(world.store) == ["msg4", "msg5"]

    async def test_concurrent_claims_never_give_the_same_message(self, world: World) -> None:
        """Of claims at the same time each gets another message, or none."""
        for number in range(5):
            await put(world.store, number, f"lane{number}")
        leases = await asyncio.gather(*(world.store.claim(f"w{n}", TTL) for n in range(8)))
        ids = [lease.inbound.msg_id for lease in leases if lease is not None]
        assert sorted(ids) == [f"msg{n}" for n in range(5)]

    async def test_urgent_claims_take_urgent_messages_only(self, world: World) -> None:
        """An urgent claim passes over the others; a plain claim takes all, in order."""
        await put(world.store, 1, "a")
        await put(world.store, 2, "b", urgent=True)
        await put(world.store, 3, "c", urgent=True)
        assert (await claim(world.store, urgent=True)).inbound.msg_id == "msg2"
        assert await claimed_ids(world.store) == ["msg1", "msg3"]
        assert await world.store.claim("worker", TTL, urgent=True) is None

    # --- leases ----------------------------------------------------------------------------------------------------

    async def test_a_lease_that_ran_out_is_claimed_again_with_a_higher_fence(self, world: World) -> None:
        """After its time a message belongs to whoever claims it, and the old holder can change nothing."""
        await put(world.store)
        old = await claim(world.store)
        await world.later(TTL - 1)
        assert await world.store.claim("other", TTL) is None
        await world.later(2)
        new = await world.store.claim("other", TTL)
        assert new is not None
        assert new.seq == old.seq
        assert new.fence > old.fence
        assert (new.owner, new.claims, new.attempts) == ("other", 2, 0)
        for late in (
            world.store.renew(old, TTL),
            world.store.save_answer(old, ANSWER),
            world.store.ack(old, Exchange("m", "u", "a")),
            world.store.release(old, failed=True),
            world.store.bury(old, "late"),
        ):
            with pytest.raises(LeaseLostError):
                await late
        await world.store.release(new)
        again = await claim(world.store)
        assert (again.answer, again.attempts) == (None, 0)
        assert await world.store.exchanges("m", 10) == []
        assert await world.store.dead() == []

    async def test_a_lease_that_ran_out_may_be_renewed_while_nobody_took_it(self, world: World) -> None:
        """A holder that was held up for long goes on, rather than having its work done twice."""
        await put(world.store, 1)
        await put(world.store, 2)
        lease = await claim(world.store)
        await world.later(TTL + 1)
        await world.store.renew(lease, TTL)
        assert await world.store.claim("other", TTL) is None
        await world.later(TTL - 1)
        await world.store.save_answer(lease, ANSWER)
        await world.later(2)
        again = await claim(world.store)
        assert (again.inbound.msg_id, again.answer) == ("msg1", ANSWER)
        with pytest.raises(LeaseLostError):
            await world.store.renew(lease, TTL)

    async def test_a_late_write_counts_while_nobody_took_the_message(self, world: World) -> None:
        """What was done is written, and not done twice, as long as nobody else has begun; the lease stays run out."""
        await put(world.store, 1)
        await put(world.store, 2)
        lease = await claim(world.store)
        await world.later(TTL + 1)
        await world.store.save_answer(lease, ANSWER)
        await world.store.ack(lease, ANSWER.exchange)
        assert await claimed_ids(world.store) == ["msg2"]
        assert await world.store.exchanges("m", 9) == [ANSWER.exchange]

    async def test_a_late_write_does_not_renew(self, world: World) -> None:
        """After a write that came late the message is free for the next, who finds what was written."""
        await put(world.store)
        lease = await claim(world.store)
        await world.later(TTL + 1)
        await world.store.save_answer(lease, ANSWER)
        assert (await claim(world.store)).answer == ANSWER

    async def test_a_renewed_lease_holds_on(self, world: World) -> None:
        """Renewing counts from the moment of the call, and may be done again and again."""
        await put(world.store)
        lease = await claim(world.store)
        for _ in range(3):
            await world.later(TTL - 5)
            await world.store.renew(lease, TTL)
            assert await world.store.claim("other", TTL) is None
        await world.store.renew(lease, 5)
        await world.later(6)
        assert (await claim(world.store)).fence > lease.fence

    async def test_an_ended_lease_is_lost(self, world: World) -> None:
        """After ack, release and bury nothing more can be done with the lease."""
        for number in range(3):
            await put(world.store, number, f"lane{number}")
        acked, released, buried = [await claim(world.store) for _ in range(3)]
        await world.store.ack(acked)
        await world.store.release(released, 5)
        await world.store.bury(buried, "hopeless")
        for lease in (acked, released, buried):
            with pytest.raises(LeaseLostError):
                await world.store.renew(lease, TTL)
            with pytest.raises(LeaseLostError):
                await world.store.ack(lease)

    async def test_a_dead_process_leaves_its_messages_to_the_next(self, world: World) -> None:
        """What was claimed and not acked when the process died is claimed again, and counted."""
        await put(world.store)
        old = await claim(world.store)
        await world.store.renew(old, TTL)
        await put(world.store, 2, "other lane")
        await world.die()
        await world.later(TTL + 1)
        lease = await claim(world.store)
        assert (lease.inbound, lease.claims, lease.attempts) == (inbound(), 2, 0)
        assert lease.fence > old.fence

    async def test_claims_count_those_that_came_to_no_end(self, world: World) -> None:
        """A message that outlives its holders is told by its claims, over processes too; a release ends the count."""
        await put(world.store)
        for claims in range(1, 4):
            assert (await claim(world.store)).claims == claims
            await world.later(TTL + 1)
        await claim(world.store)
        await world.die()
        await world.later(TTL + 1)
        lease = await claim(world.store)
        assert lease.claims == 5
        await world.store.release(lease)
        lease = await claim(world.store)
        assert lease.claims == 1
        await world.die()
        await world.later(TTL + 1)
        assert (await claim(world.store)).claims == 2

    async def test_fences_grow_over_everything(self, world: World) -> None:
        """Claim, release, expiry and crash: each new lease has a higher fence, and all before it are lost."""
        await put(world.store)
        leases = [await claim(world.store)]
        await world.store.release(leases[-1])
        leases.append(await claim(world.store))
        await world.later(TTL + 1)
        leases.append(await claim(world.store))
        await world.die()
        await world.later(TTL + 1)
        leases.append(await claim(world.store))
        fences = [lease.fence for lease in leases]
        assert fences == sorted(set(fences))
        for lease in leases[:-1]:
            with pytest.raises(LeaseLostError):
                await world.store.ack(lease)
        await world.store.ack(leases[-1])

    async def test_nobody_is_stopped_where_nobody_works(self, world: World) -> None:
        """Asking to stop a queue that nobody works on is told so, and changes nothing."""
        await put(world.store, queue="lane")
        for queue in ("lane", "other", "half \ud83d pair"):
            assert not await world.store.interrupt(queue)
        lease = await claim(world.store)
        assert not lease.stopped
        await world.store.ack(lease)
        assert not await world.store.interrupt("lane")

    @pytest.mark.parametrize("options", [{"failed": True}, {"waiting": True}])
    async def test_what_waits_for_its_next_try_is_stopped(self, world: World, options: dict[str, bool]) -> None:
        """A message between two tries can be claimed at once when it is stopped, once, and its queue goes on."""
        await put(world.store, 1, "lane")
        await put(world.store, 2, "lane")
        await world.store.release(await claim(world.store), 600, **options)
        assert await world.store.claim("claw", TTL) is None
        assert await world.store.interrupt("lane")
        assert not await world.store.interrupt("lane")
        lease = await claim(world.store)
        assert (lease.inbound.msg_id, lease.stopped) == ("msg1", True)
        await world.store.ack(lease)
        lease = await claim(world.store)
        assert (lease.inbound.msg_id, lease.stopped) == ("msg2", False)
        await world.later(700)
        assert (await world.store.depth()).pending == 1

    async def test_an_answer_that_waits_for_its_next_try_is_not_stopped(self, world: World) -> None:
        """What was answered is delivered, whatever is asked between two tries, also after a crash."""
        await put(world.store, queue="lane")
        lease = await claim(world.store)
        await world.store.save_answer(lease, ANSWER)
        await world.store.release(lease, 600, failed=True)
        assert not await world.store.interrupt("lane")
        await world.die()
        assert not await world.store.interrupt("lane")
        assert await world.store.claim("claw", TTL) is None

    # --- answers, release, bury ----------------------------------------------------------------------------------

    async def test_a_saved_answer_is_found_by_the_next_lease(self, world: World) -> None:
        """The newest saved answer comes with the next lease, in this process or in the next one."""
        await put(world.store)
        lease = await claim(world.store)
        await world.store.save_answer(lease, ANSWER)
        await world.store.save_answer(lease, ANSWER.with_sent(2))
        await world.store.release(lease)
        lease = await claim(world.store)
        assert lease.answer == ANSWER.with_sent(2)
        await world.store.save_answer(lease, replace(ANSWER, error="cause"))
        await world.die()
        await world.later(TTL + 1)
        assert (await claim(world.store)).answer == replace(ANSWER, error="cause")

    async def test_saving_an_answer_begins_the_count_of_tries_afresh(self, world: World) -> None:
        """Tries to think are not held against the tries to send, in this process or in the next."""
        await put(world.store)
        await world.store.release(await claim(world.store), failed=True)
        lease = await claim(world.store)
        assert lease.attempts == 1
        await world.store.save_answer(lease, ANSWER)
        await world.store.release(lease, failed=True)
        assert (await claim(world.store)).attempts == 1
        await world.die()
        await world.later(TTL + 1)
        assert (await claim(world.store)).attempts == 1

    async def test_a_released_message_rests_and_holds_its_queue(self, world: World) -> None:
        """While a head rests, its queue gives nothing and the others go on; then the head comes first."""
        await put(world.store, 1, "a")
        await put(world.store, 2, "a")
        await put(world.store, 3, "b")
        await world.store.release(await claim(world.store), 10, failed=True)
        assert await claimed_ids(world.store) == ["msg3"]
        await world.later(9)
        assert await world.store.claim("worker", TTL) is None
        await world.later(2)
        lease = await claim(world.store)
        assert (lease.inbound.msg_id, lease.attempts, lease.claims) == ("msg1", 1, 1)

    async def test_failed_tries_and_the_rest_survive_a_crash(self, world: World) -> None:
        """The count of failed tries and the rest that remains are not lost with the process."""
        await put(world.store)
        await world.store.release(await claim(world.store), failed=True)
        await world.store.release(await claim(world.store), 100, failed=True)
        await world.later(40)
        await world.die()
        assert await world.store.claim("worker", TTL) is None
        await world.later(50)
        assert await world.store.claim("worker", TTL) is None
        await world.later(11)
        assert (await claim(world.store)).attempts == 2

    async def test_a_release_that_is_no_failure_is_not_counted(self, world: World) -> None:
        """Giving back at a shutdown costs the message no try, and it may be claimed at once."""
        await put(world.store)
        await world.store.release(await claim(world.store))
        assert (await claim(world.store)).attempts == 0

    async def test_a_buried_message_is_a_dead_letter(self, world: World) -> None:
        """Burying takes the message out of its queue and keeps its cause; its key stays seen."""
        await put(world.store, 1)
        await put(world.store, 2)
        lease = await claim(world.store)
        await world.store.release(lease, failed=True)
        lease = await claim(world.store)
        await world.later(3)
        await world.store.bury(lease, "server: \ud83d broken")
        assert not await put(world.store, 1)
        assert (await claim(world.store)).inbound.msg_id == "msg2"
        await world.die()
        (letter,) = await world.store.dead()
        assert (letter.key, letter.error, letter.attempts) == ("robot:msg1", "server: \ud83d broken", 1)
        assert letter.buried_at - letter.received_at >= 3
        assert (await world.store.depth()).dead == 1

    async def test_dead_letters_come_newest_first_and_go_after_their_time(self, world: World) -> None:
        """`dead` shows the newest `limit`; after DEAD_RETENTION_S a dead letter is gone."""
        for number in range(3):
            await put(world.store, number)
            await world.store.bury(await claim(world.store), f"cause {number}")
            await world.later(10)
        assert [letter.error for letter in await world.store.dead(2)] == ["cause 2", "cause 1"]
        await world.later(DEAD_RETENTION_S - 25)
        await world.store.clean()
        assert [letter.error for letter in await world.store.dead()] == ["cause 2", "cause 1"]
        await world.later(100)
        await world.store.clean()
        assert await world.store.dead() == []
        assert (await world.store.depth()).dead == 0

    # --- wait, depth ------------------------------------------------------------------------------------------

    async def test_wait_ends_when_a_message_comes(self, world: World) -> None:
        """With nothing to claim, `wait` sleeps until something was put."""
        waiting = asyncio.create_task(self.drained_wait(world.store))
        _, pending = await asyncio.wait((waiting,), timeout=SHORT)
        assert pending
        await put(world.store)
        await asyncio.wait_for(waiting, 10)
        assert await world.store.claim("worker", TTL) is not None

    async def test_wait_ends_when_a_queue_is_freed(self, world: World) -> None:
        """An ack that lets the next message of its queue come up wakes the worker."""
        await put(world.store, 1)
        await put(world.store, 2)
        lease = await claim(world.store)
        waiting = asyncio.create_task(self.drained_wait(world.store))
        await asyncio.sleep(0.05)
        await world.store.ack(lease)
        await asyncio.wait_for(waiting, 10)
        assert (await claim(world.store)).inbound.msg_id == "msg2"

    @pytest.mark.parametrize("how", ["rest", "lease"])
    async def test_wait_ends_when_time_makes_a_claim_possible(self, world: World, how: str) -> None:
        """The end of a rest and the end of a lease wake the worker without any call."""
        await put(world.store)
        lease = await claim(world.store)
        if how == "rest":
            await world.store.release(lease, TTL)
        waiting = asyncio.create_task(self.drained_wait(world.store))
        await world.later(TTL - 2)
        assert not waiting.done()
        await world.later(4)
        await asyncio.wait_for(waiting, 10)
        assert await claim(world.store)

    async def test_wait_wakes_at_the_nearest_of_all_times(self, world: World) -> None:
        """A rest that begins while somebody already sleeps for a later time wakes them when it ends."""
        await put(world.store, 1, "a")
        await put(world.store, 2, "b")
        first, _ = await claim(world.store), await claim(world.store)
        waiting = asyncio.create_task(self.drained_wait(world.store))
        await asyncio.sleep(0.05)
        await world.store.release(first, 5)
        await world.later(4)
        assert not waiting.done()
        await world.later(2)
        await asyncio.wait_for(waiting, 10)

    async def test_an_abandoned_wait_leaves_no_task(self, world: World) -> None:
        """Where nobody waits any more, nothing of the waiting goes on."""
        before = asyncio.all_tasks()
        await put(world.store)
        await claim(world.store)
        waiting = asyncio.create_task(self.drained_wait(world.store))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    async def test_an_urgent_wait_passes_over_the_others(self, world: World) -> None:
        """A worker whose hands are full waits for urgent messages only, and sleeps while others come."""
        waiting = asyncio.create_task(self.drained_wait(world.store, urgent=True))
        await put(world.store, 1, "a")
        await asyncio.sleep(SHORT)
        assert not waiting.done()
        await put(world.store, 2, "b", urgent=True)
        await asyncio.wait_for(waiting, 10)
        assert (await claim(world.store, urgent=True)).inbound.msg_id == "msg2"

    @pytest.mark.parametrize("urgent", [False, True])
    async def test_a_worker_that_cannot_take_all_does_not_spin(self, world: World, urgent: bool) -> None:
        """Messages that wait for a free hand do not keep the claim loop turning, even if it asks in new tasks."""
        for number in range(3):
            await put(world.store, number, f"lane{number}")
        await claim(world.store)
        turns = 0

        async def worker() -> None:
            nonlocal turns
            while True:
                assert await world.store.claim("worker", TTL, urgent=True) is None
                turns += 1
                await asyncio.create_task(world.store.wait(urgent=urgent))

        task = asyncio.create_task(worker())
        await asyncio.sleep(SHORT)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert 1 <= turns <= 5

    async def test_who_claims_one_at_a_time_is_told_of_the_next(self, world: World) -> None:
        """After a claim that left more, `wait` returns."""
        for number in range(5):
            await put(world.store, number, f"lane{number}")
        for _ in range(5):
            await asyncio.wait_for(world.store.wait(), 10)
            assert await world.store.claim("worker", TTL) is not None

    async def test_wait_does_not_spin(self, world: World) -> None:
        """A loop of claim and wait on an empty store turns a few times at most, also with a lease out."""
        await put(world.store)
        await claim(world.store)
        turns = 0

        async def worker() -> None:
            nonlocal turns
            while True:
                assert await world.store.claim("worker", TTL) is None
                turns += 1
                await world.store.wait()

        task = asyncio.create_task(worker())
        await asyncio.sleep(SHORT)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert 1 <= turns <= 5

    @staticmethod
    async def drained_wait(store: Store, *, urgent: bool = False) -> None:
        """Wait as a worker does that has just found nothing: hints that come for nothing are passed over."""
        while True:
            await store.wait(urgent=urgent)
            if (lease := await store.claim("probe", TTL, urgent=urgent)) is not None:
                await store.release(lease)
                return

    async def test_depth_counts_what_waits(self, world: World) -> None:
        """Depth tells all that is not acked, how much of it is held, and the age of the oldest."""
        depth = await world.store.depth()
        assert (depth.pending, depth.leased, depth.dead, depth.oldest_age) == (0, 0, 0, 0)
        await put(world.store, 1, "a")
        await world.later(10)
        await put(world.store, 2, "b")
        lease = await claim(world.store)
        await world.later(5)
        depth = await world.store.depth()
        assert (depth.pending, depth.leased) == (2, 1)
        assert 14 <= depth.oldest_age <= 17
        await world.store.ack(lease)
        depth = await world.store.depth()
        assert (depth.pending, depth.leased) == (1, 0)
        assert 4 <= depth.oldest_age <= 7

    # --- history ----------------------------------------------------------------------------------------------------

    async def say(self, world: World, number: int, history_key: str = "m") -> None:
        await put(world.store, f"{history_key}{number}", queue=history_key)
        await world.store.ack(await claim(world.store), Exchange(history_key, f"u{number}", f"a{number}"))

    async def test_history_is_a_window_on_the_newest_turns(self, world: World) -> None:
        """`turns` gives the newest `limit` of one memory, oldest first, in this process and in the next."""
        for number in range(5):
            await self.say(world, number)
        await self.say(world, 9, "other")
        assert [turn.user for turn in await world.store.exchanges("m", 3)] == ["u2", "u3", "u4"]
        assert await world.store.exchanges("m", 0) == []
        assert await world.store.exchanges("nobody", 5) == []
        await world.die()
        assert await world.store.exchanges("m", 100) == [Exchange("m", f"u{n}", f"a{n}") for n in range(5)]

    async def test_history_is_trimmed_when_it_grows(self, world: World) -> None:
        """No more than HISTORY_EXCHANGES_MAX of a conversation are kept."""
        for number in range(HISTORY_EXCHANGES_MAX + 5):
            await self.say(world, number)
        kept = await world.store.exchanges("m", 10 * HISTORY_EXCHANGES_MAX)
        assert len(kept) == HISTORY_EXCHANGES_MAX
        assert kept[0].user == "u5"

    async def test_old_turns_are_cleaned(self, world: World) -> None:
        """A turn goes after HISTORY_RETENTION_S."""
        await self.say(world, 1)
        await world.later(HISTORY_RETENTION_S - 1000)
        await self.say(world, 2)
        await world.store.clean()
        assert len(await world.store.exchanges("m", 9)) == 2
        await world.later(2000)
        await world.store.clean()
        assert [turn.user for turn in await world.store.exchanges("m", 9)] == ["u2"]

    async def test_forgetting_raises_the_epoch_and_drops_the_turns(self, world: World) -> None:
        """After `forget` a memory is empty and its epoch a new one; others are as they were; both last."""
        await self.say(world, 1)
        await self.say(world, 1, "other")
        first, other = await world.store.epoch("m"), await world.store.epoch("other")
        second = await world.store.forget("m")
        assert await world.store.exchanges("m", 9) == []
        await self.say(world, 2)
        third = await world.store.forget("m")
        assert len({first, second, third}) == 3
        await self.say(world, 3)
        await world.die()
        assert await world.store.epoch("m") == third
        assert [turn.user for turn in await world.store.exchanges("m", 9)] == ["u3"]
        assert (await world.store.epoch("other"), len(await world.store.exchanges("other", 9))) == (other, 1)

    async def test_an_exchange_of_a_forgotten_epoch_is_dropped(self, world: World) -> None:
        """What was asked before `forget` and is acked after it does not come back; its message is gone all the same."""
        epoch = await world.store.epoch("m")
        for number, forgets in enumerate([False, True, True]):
            await put(world.store, number)
            lease = await claim(world.store)
            if forgets:
                await world.store.forget("m")
            await world.store.ack(lease, Exchange("m", f"u{number}", "a", epoch))
        assert await world.store.exchanges("m", 9) == []
        assert (await world.store.depth()).pending == 0
        await put(world.store, 4)
        await world.store.ack(await claim(world.store), Exchange("m", "u4", "a", await world.store.epoch("m")))
        assert [exchange.user for exchange in await world.store.exchanges("m", 9)] == ["u4"]

    async def test_waiting_for_the_model_counts_no_try(self, world: World) -> None:
        """What waits for the model's server remembers since when, over crashes; work adds up; an answer ends it."""
        await put(world.store)
        lease = await claim(world.store)
        assert (lease.waiting_since, lease.worked) == (0.0, 0.0)
        await world.store.release(lease, 5, waiting=True, worked=1.5)
        await world.later(6)
        first = await claim(world.store)
        assert first.waiting_since > 0
        await world.store.release(first, 5, waiting=True, worked=2)
        await world.later(6)
        await world.die()
        second = await claim(world.store)
        assert second.waiting_since == pytest.approx(first.waiting_since)
        assert second.attempts == 0
        assert second.worked == pytest.approx(3.5)
        await world.store.save_answer(second, ANSWER)
        await world.store.release(second, failed=True)
        third = await claim(world.store)
        assert (third.waiting_since, third.attempts) == (0.0, 1)
        assert third.worked == pytest.approx(3.5)

    async def test_a_release_without_waiting_ends_it(self, world: World) -> None:
        """A server that took the work up again and failed is counted, and waited for afresh the next time."""
        await put(world.store)
        await world.store.release(await claim(world.store), waiting=True)
        lease = await claim(world.store)
        assert lease.waiting_since
        await world.store.release(lease, failed=True)
        lease = await claim(world.store)
        assert (lease.waiting_since, lease.attempts) == (0.0, 1)

    @pytest.mark.parametrize(("told", "shown"), [(None, 1), (7, 7), (0, 0)])
    async def test_a_dead_letter_shows_the_attempts_that_it_is_told(
        self, world: World, told: int | None, shown: int
    ) -> None:
        """A saved answer begins the count afresh, so that whoever buries must be able to say how often it was tried."""
        await put(world.store)
        await world.store.release(await claim(world.store), failed=True)
        await world.store.bury(await claim(world.store), "hopeless", attempts=told)
        assert [letter.attempts for letter in await world.store.dead()] == [shown]

    async def test_a_dead_letter_keeps_message_and_answer(self, world: World) -> None:
        """What was paid for and not delivered can be read with its dead letter, without the address to answer at."""
        await put(world.store)
        lease = await claim(world.store)
        await world.store.save_answer(lease, ANSWER)
        await world.store.bury(lease, "not delivered")
        (letter,) = await world.store.dead()
        assert letter.answer == ANSWER
        assert letter.inbound is not None
        assert (letter.inbound.msg_id, bool(letter.inbound.webhook)) == ("msg1", False)

    async def test_an_ack_without_a_turn_leaves_the_history(self, world: World) -> None:
        """A command or a refusal is acked without leaving a trace in the memory."""
        await put(world.store)
        await world.store.ack(await claim(world.store))
        assert await world.store.exchanges("m", 9) == []

    # --- usage ------------------------------------------------------------------------------------------------------

    async def test_calls_add_up_by_month(self, world: World) -> None:
        """Counts add up by api within a month, and last."""
        await world.store.add_calls("2026-11", {"webhook": 2, "openapi": 1})
        await world.store.add_calls("2026-11", {"webhook": 3})
        await world.store.add_calls("2026-12", {"webhook": 1})
        await world.store.add_calls("2026-12", {})
        await world.die()
        assert await world.store.calls("2026-11") == {"webhook": 5, "openapi": 1}
        assert await world.store.calls("2026-12") == {"webhook": 1}
        assert await world.store.calls("2027-01") == {}

    # --- items ------------------------------------------------------------------------------------------------

    async def test_entries_are_what_was_entered_last(self, world: World) -> None:
        """An entry is seen as soon as `enter` returned, is replaced by the next, and lasts."""
        assert await world.store.items() == {}
        await world.store.set("owner", "ann")
        assert await world.store.items() == {"owner": "ann"}
        await world.store.set("owner", "bob")
        await world.store.set("policy", "")
        for _ in range(2):
            assert await world.store.items() == {"owner": "bob", "policy": ""}
            await world.die()

    async def test_entries_are_asked_for_by_prefix(self, world: World) -> None:
        """A prefix is taken by the letter, whatever signs it holds."""
        names = ["allow.a", "allow.b", "allow", "Allow.c", "all%w.d", "a_low.e", "a*.f", "a[lm]low.g"]
        for name in names:
            await world.store.set(name, name)
        assert set(await world.store.items("allow.")) == {"allow.a", "allow.b"}
        for prefix in ("", "allow", "all%", "a_", "a*", "a[", "A", "nobody"):
            found = await world.store.items(prefix)
            assert found == {name: name for name in names if name.startswith(prefix)}

    async def test_what_entries_gives_is_the_askers_own(self, world: World) -> None:
        """Who changes the answer changes nothing in the store."""
        await world.store.set("owner", "ann")
        (await world.store.items()).clear()
        assert await world.store.items() == {"owner": "ann"}

    async def test_struck_entries_are_gone(self, world: World) -> None:
        """`delete` removes all that it names, tolerates what is not there, and lasts."""
        for name in ("a", "b", "c"):
            await world.store.set(name, "x")
        await world.store.delete("a", "c", "nobody")
        await world.store.delete()
        for _ in range(2):
            assert await world.store.items() == {"b": "x"}
            await world.die()

    async def test_the_first_entry_stands(self, world: World) -> None:
        """`set_if_absent` sets what is not there, and else tells what is; after a `delete` it sets again."""
        assert await world.store.set_if_absent("owner", "ann") == "ann"
        assert await world.store.set_if_absent("owner", "bob") == "ann"
        await world.die()
        assert await world.store.set_if_absent("owner", "bob") == "ann"
        assert await world.store.items() == {"owner": "ann"}
        await world.store.delete("owner")
        assert await world.store.set_if_absent("owner", "bob") == "bob"
        assert await world.store.items() == {"owner": "bob"}

    async def test_of_many_first_entries_one_wins(self, world: World) -> None:
        """Of 50 who would be the owner at the same moment one is, and all are told the same."""
        told = await asyncio.gather(*(world.store.set_if_absent("owner", f"person{n}") for n in range(50)))
        assert len(set(told)) == 1
        assert await world.store.items() == {"owner": told[0]}
        await world.die()
        assert await world.store.items() == {"owner": told[0]}

    @pytest.mark.parametrize("text", ["half \ud83d pair", "nul \x00 within", "群主 👑", "\\ud83d", ""])
    async def test_any_text_may_be_entered(self, world: World, text: str) -> None:
        """Names and values are found as they were entered, in this process and in the next, and are deleted by name."""
        await world.store.set(text, text)
        for _ in range(2):
            assert await world.store.items(text) == {text: text}
            assert await world.store.set_if_absent(text, "other") == text
            await world.die()
        await world.store.delete(text)
        assert await world.store.items() == {}

    async def test_names_that_look_alike_are_not_one(self, world: World) -> None:
        """Half of a surrogate pair and its spelling, upper and lower case, with and without a nul: all differ."""
        names = ["\ud83d", "\\ud83d", "name", "NAME", "name\x00", "name "]
        for name in names:
            assert await world.store.set_if_absent(name, name) == name
        await world.die()
        assert await world.store.items() == {name: name for name in names}

    # --- chats --------------------------------------------------------------------------------------------------

    async def test_a_chat_is_known_from_its_first_message(self, world: World) -> None:
        """A message enters its chat; each new one is counted and stamped; a repeat changes nothing; all of it lasts."""
        assert await world.store.chats() == []
        await write(world.store, 1, ROOM)
        (chat,) = await world.store.chats()
        assert chat == Chat("cid1", ChatKind.GROUP, "Room", chat.first_seen, chat.first_seen, 1)
        await world.later(10)
        assert await write(world.store, 2, ROOM)
        (later,) = await world.store.chats()
        assert later == replace(chat, last_seen=later.last_seen, messages=2)
        assert 9 <= later.last_seen - later.first_seen <= 11
        await world.later(10)
        assert not await write(world.store, 2, replace(ROOM, title="Renamed"))
        await world.die()
        assert await world.store.chats() == [later]

    async def test_a_chat_stays_known_when_its_message_is_done(self, world: World) -> None:
        """The list of chats does not follow the queue: an ack takes nothing from it."""
        await write(world.store, 1, ROOM)
        await world.store.ack(await claim(world.store))
        assert [chat.messages for chat in await world.store.chats()] == [1]

    @pytest.mark.parametrize(
        ("where", "nick", "title"),
        [
            (ROOM, "Ann", "Room"),
            (ALONE, "Ann", "Ann"),
            (replace(ALONE, title="anything"), "安 👑", "安 👑"),
            (ROOM, "", "Room"),
            (replace(ROOM, title="half \ud83d pair"), "Ann", "half \ud83d pair"),
            (replace(ROOM, id="half \ud83d pair"), "Ann", "Room"),
        ],
    )
    async def test_a_chat_is_called_by_its_title_or_its_person(
        self, world: World, where: Conversation, nick: str, title: str
    ) -> None:
        """A group is called by its title, a direct chat by the person's name."""
        await write(world.store, 1, where, nick=nick)
        await world.die()
        (chat,) = await world.store.chats()
        assert (chat.id, chat.kind, chat.title) == (where.id, where.kind, title)

    async def test_a_new_name_is_followed_and_an_empty_one_is_not(self, world: World) -> None:
        """The title is the one that was told last; a message that tells none leaves it."""
        await write(world.store, 1, ROOM)
        await write(world.store, 2, replace(ROOM, title="Renamed"))
        await write(world.store, 3, replace(ROOM, title=""))
        assert [(chat.title, chat.messages) for chat in await world.store.chats()] == [("Renamed", 3)]
        await world.later(1)
        await write(world.store, 4, ALONE, nick="")
        await write(world.store, 5, ALONE, nick="Ann")
        assert [chat.title for chat in await world.store.chats(1)] == ["Ann"]

    async def test_chats_come_newest_first(self, world: World) -> None:
        """The chat that was last written in comes first, and `limit` cuts the rest."""
        for number, chat in enumerate(("a", "b", "c", "a")):
            await write(world.store, number, Conversation(chat, ChatKind.GROUP))
            await world.later(5)
        assert [chat.id for chat in await world.store.chats()] == ["a", "c", "b"]
        assert [chat.id for chat in await world.store.chats(2)] == ["a", "c"]
        assert await world.store.chats(0) == []

    async def test_chats_of_two_robots_do_not_mix(self, world: World) -> None:
        """One conversation with two robots in it is two chats."""
        await write(world.store, 1, ROOM)
        await write(world.store, 2, ROOM)
        await write(world.store, 1, ROOM, robot="other")
        assert sorted((chat.id, chat.messages) for chat in await world.store.chats()) == [("cid1", 1), ("cid1", 2)]

    async def test_concurrent_messages_are_all_counted(self, world: World) -> None:
        """Messages of one chat that come at once, and repeats among them, are counted once each."""
        await asyncio.gather(*(write(world.store, number % 20, ROOM) for number in range(40)))
        assert [chat.messages for chat in await world.store.chats()] == [20]

    async def test_old_chats_are_cleaned(self, world: World) -> None:
        """A chat goes CHATS_RETENTION_S after its last message, not before, and begins afresh then."""
        await write(world.store, 1, ROOM)
        await write(world.store, 2, ALONE)
        await world.later(CHATS_RETENTION_S - 1000)
        await write(world.store, 3, ROOM)
        await world.store.clean()
        assert len(await world.store.chats()) == 2
        await world.later(2000)
        await world.store.clean()
        assert [(chat.id, chat.messages) for chat in await world.store.chats()] == [("cid1", 2)]
        await write(world.store, 4, ALONE)
        assert [chat.messages for chat in await world.store.chats(1)] == [1]

    # --- quotas, notices ----------------------------------------------------------------------------------------

    async def test_spending_ends_at_the_limit(self, world: World) -> None:
        """Up to `limit` messages of a person are counted on a day; what was refused is not counted, also later on."""
        day = await today(world)
        assert [await world.store.consume_quota("ann", day, f"k{n}", 2) for n in range(4)] == [True, True, False, False]
        await world.die()
        assert not await world.store.consume_quota("ann", day, "k9", 2)
        assert await world.store.consume_quota("ann", day, "k2", 3), "a raised limit counts on"
        assert not await world.store.consume_quota("ann", day, "k3", 3)
        assert not await world.store.consume_quota("nobody", day, "k0", 0)

    async def test_another_try_costs_nothing(self, world: World) -> None:
        """A key that is counted stays so, at the limit and in the next process too."""
        day = await today(world)
        for _ in range(2):
            assert [await world.store.consume_quota("ann", day, key, 2) for key in ("a", "a", "b", "a")] == [True] * 4
            await world.die()
        assert not await world.store.consume_quota("ann", day, "c", 2)

    async def test_each_person_and_day_is_counted_apart(self, world: World) -> None:
        """A new day begins at nothing, and nobody pays for another."""
        day = await today(world)
        await world.later(86400)
        tomorrow = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + 86400
        for person, when in (
            ("ann", day),
            ("ann", datetime.fromtimestamp(tomorrow, UTC).date().isoformat()),
            ("bob", day),
            ("half \ud83d pair", day),
        ):
            assert await world.store.consume_quota(person, when, "k1", 1)
            assert not await world.store.consume_quota(person, when, "k2", 1)

    async def test_of_many_at_once_no_more_than_the_limit_are_counted(self, world: World) -> None:
        """Of 50 messages at the same moment with a limit of 10 exactly 10 are counted; a second try tells the same."""
        day = await today(world)
        spends = [
            await asyncio.gather(*(world.store.consume_quota("ann", day, f"k{n}", 10) for n in range(50))) for _ in "ab"
        ]
        assert [sum(counted) for counted in spends] == [10, 10]
        assert spends[0] == spends[1]

    async def test_what_was_spent_is_forgotten_after_its_time(self, world: World) -> None:
        """Within a day what was spent is kept; some time after QUOTA_RETENTION_S it is gone."""
        day = await today(world)
        assert await world.store.consume_quota("ann", day, "k1", 1)
        await world.later(86400)
        await world.store.clean()
        assert not await world.store.consume_quota("ann", day, "k2", 1)
        await world.later(QUOTA_RETENTION_S + 86400)
        await world.store.clean()
        assert await world.store.consume_quota("ann", day, "k2", 1)

    async def test_a_notice_is_said_once_in_its_time(self, world: World) -> None:
        """`once_per` is true once in `seconds`, counted from when it was; names are apart; it lasts and is cleaned."""
        assert await world.store.once_per("busy.ann", 60)
        assert not await world.store.once_per("busy.ann", 60)
        assert await world.store.once_per("busy.bob", 60)
        await world.later(40)
        await world.die()
        assert not await world.store.once_per("busy.ann", 60)
        await world.store.clean()
        await world.later(15)
        assert not await world.store.once_per("busy.ann", 60), "a refusal does not count as said"
        await world.later(10)
        assert await world.store.once_per("busy.ann", 60)
        assert not await world.store.once_per("busy.ann", 60)

    async def test_of_many_notices_at_once_one_is_said(self, world: World) -> None:
        """Of 50 who would say the same at the same moment one does."""
        said = await asyncio.gather(*(world.store.once_per("half \ud83d pair", 60) for _ in range(50)))
        assert sum(said) == 1

    # --- followers ----------------------------------------------------------------------------------------------

    async def test_who_waits_behind_a_lease(self, world: World) -> None:
        """Followers are what waits right behind, in order, of the same queue alone, up to what is no plain message."""
        for number, queue in enumerate(("lane", "lane", "other", "lane", "lane"), start=1):
            await put(world.store, number, queue)
        await world.store.put(replace(row(inbound(6)), kind=RowKind.SEND, answer=ANSWER))
        await put(world.store, 7, "lane")
        lease = await claim(world.store)
        followers = await world.store.followers(lease, 9)
        assert [each.inbound.msg_id for each in followers] == ["msg2", "msg4", "msg5"]
        assert len(await world.store.followers(lease, 2)) == 2
        assert [each.inbound.msg_id for each in await world.store.followers(lease, 9)] == ["msg2", "msg4", "msg5"]

    async def test_what_was_answered_along_goes_along(self, world: World) -> None:
        """An ack takes the followers with it, once, and the queue goes on with the next."""
        for number in range(1, 5):
            await put(world.store, number)
        lease = await claim(world.store)
        merged = [each.seq for each in await world.store.followers(lease, 2)]
        await world.store.ack(lease, Exchange("m", "questions", "answer"), merged=merged)
        assert (await world.store.depth()).pending == 1
        assert (await claim(world.store)).inbound.msg_id == "msg4"
        await world.die()
        await world.later(TTL + 1)
        assert await claimed_ids(world.store) == ["msg4"]
        assert not await put(world.store, 2), "a repeat of it is still known"

    async def test_followers_stay_where_nothing_was_acked(self, world: World) -> None:
        """A crash between the answer and the ack leaves all of them, and the saved answer names who it is for."""
        for number in (1, 2):
            await put(world.store, number)
        lease = await claim(world.store)
        (follower,) = await world.store.followers(lease, 9)
        await world.store.save_answer(lease, replace(ANSWER, merged=(follower.seq,)))
        await world.die()
        await world.later(TTL + 1)
        again = await claim(world.store)
        assert again.answer is not None
        await world.store.ack(again, merged=again.answer.merged)
        assert (await world.store.depth()).pending == 0

    async def test_what_cannot_be_answered_is_buried_along(self, world: World) -> None:
        """Dead letters tell of each message, without its webhook."""
        for number in (1, 2, 3):
            await put(world.store, number)
        lease = await claim(world.store)
        merged = [each.seq for each in await world.store.followers(lease, 1)]
        await world.store.bury(lease, "why", merged=merged)
        letters = await world.store.dead()
        assert {each.key for each in letters} == {"robot:msg1", "robot:msg2"}
        assert [each.error for each in letters] == ["why", "why"]
        assert all(each.inbound is not None and not each.inbound.webhook for each in letters)
        assert (await world.store.depth()).dead == 2
        assert (await claim(world.store)).inbound.msg_id == "msg3"

    async def test_numbers_of_other_queues_stay(self, world: World) -> None:
        """Whatever numbers are named, an ack takes nothing that does not wait behind it."""
        await put(world.store, 1, "lane")
        await put(world.store, 2, "other")
        lease, other = await claim(world.store), await claim(world.store)
        await world.store.ack(lease, merged=[other.seq, lease.seq, 10**6])
        await world.store.ack(other)
        assert (await world.store.depth()).pending == 0

    @pytest.mark.parametrize("sender", ["staff1", "staff2"])
    async def test_only_ones_own_turn_is_stopped(self, world: World, sender: str) -> None:
        """With a sender named, a turn for somebody else goes on."""
        await put(world.store, 1, "lane")
        await world.store.release(await claim(world.store), 600, failed=True)
        stopped = await world.store.interrupt("lane", sender=sender)
        assert stopped is (Interrupted.STOPPED if sender == "staff1" else Interrupted.OTHERS)
        assert (await world.store.claim("claw", TTL) is not None) is (sender == "staff1")

    # --- the index of messages -----------------------------------------------------------------------------------

    async def test_a_message_is_found_by_its_id(self, world: World) -> None:
        """What people wrote is found in its chat alone, after its ack and a crash as well."""
        await put(world.store, 1)
        await world.store.ack(await claim(world.store))
        await world.die()
        found = await world.store.find_message("robot:cid1", ["other", "msg1"])
        assert found == KeptMessage("robot:cid1", ("msg1",), 1_800_000_000.25, "Ann", False, inbound(1).parts)
        assert await world.store.find_message("robot:cid2", ["msg1"]) is None
        assert await world.store.find_message("robot:cid1", []) is None

    async def test_what_was_sent_is_found_by_receipt_and_by_time(self, world: World) -> None:
        """The robot's own messages are found by each receipt; by the time where webhooks give none."""
        now = world.clock.wall()
        for number, (ids, at) in enumerate(((("pqk1", "carrier1"), now), ((), now + 30))):
            await put(world.store, number)
            sent = KeptMessage("robot:cid1", ids, at, "", True, (Words(f"answer {number}"),))
            await world.store.ack(await claim(world.store), sent=sent)
        for name in ("pqk1", "carrier1"):
            found = await world.store.find_message("robot:cid1", [name])
            assert found is not None
            assert (found.by_robot, found.parts) == (True, (Words("answer 0"),))
        nearest = await world.store.find_sent("robot:cid1", now + 28, 10)
        assert nearest is not None
        assert nearest.parts == (Words("answer 1"),)
        assert await world.store.find_sent("robot:cid1", now + 60, 10) is None
        assert await world.store.find_sent("robot:cid2", now, 10) is None

    async def test_an_ack_that_is_not_held_indexes_nothing(self, world: World) -> None:
        """Who lost the lease has said nothing."""
        await put(world.store)
        lost = await claim(world.store)
        await world.later(TTL + 1)
        await claim(world.store)
        with pytest.raises(LeaseLostError):
            await world.store.ack(lost, sent=KeptMessage("robot:cid1", ("pqk",), 1.0, "", True, (Words("x"),)))
        assert await world.store.find_message("robot:cid1", ["pqk"]) is None

    async def test_the_index_is_bounded(self, world: World) -> None:
        """Words and media are cut, marks stay; the newest of a chat stay, and none is kept for ever."""
        media = Media(MediaKind.PICTURE, Secret("code"))
        parts: tuple[Part, ...] = (Words("x" * 5_000), *[media] * 20, Mark(MarkKind.CARD), Words("y"))
        await world.store.put(row(replace(inbound(0), parts=parts)))
        found = await world.store.find_message("robot:cid1", ["msg0"])
        assert found is not None
        assert found.parts == (Words("x" * INDEXED_MAX_CHARS), *[media] * INDEXED_MEDIA_MAX, Mark(MarkKind.CARD))
        for number in range(1, INDEX_MAX + 2):
            await world.store.put(row(replace(inbound(number), created_at=1_800_000_000.0 + number)))
        await world.store.clean()
        assert await world.store.find_message("robot:cid1", ["msg1"]) is None
        assert await world.store.find_message("robot:cid1", ["msg2"]) is not None
        await world.later(INDEX_RETENTION_S + 3600)
        await put(world.store, 999)
        await world.store.clean()
        assert await world.store.find_message("robot:cid1", [f"msg{INDEX_MAX}"]) is None

    # --- people ------------------------------------------------------------------------------------------------------

    async def test_the_language_of_a_person(self, world: World) -> None:
        """It is remembered over a crash, and changed."""
        assert await world.store.language("robot:ann") == ""
        await world.store.set_language("robot:ann", "en")
        await world.store.set_language("robot:ann \ud83d", "zh")
        await world.die()
        assert await world.store.language("robot:ann") == "en"
        await world.store.set_language("robot:ann", "zh")
        assert await world.store.language("robot:ann") == "zh"

    # --- cards -------------------------------------------------------------------------------------------------------

    async def test_cards_are_kept_until_they_end(self, world: World) -> None:
        """A card outlives a crash, and is open until it is said to have ended."""
        card = KeptCard("card \ud83d", "robot:msg1", "robot:cid1", "robot", "ann", "zh", NOW)
        await world.store.keep_card(card)
        await world.store.keep_card(replace(card, id="later", opened_at=NOW + 60))
        await world.die()
        assert await world.store.find_card(card.id) == card
        assert await world.store.find_card("other") is None
        assert [each.id for each in await world.store.open_cards(NOW + 100, 9)] == [card.id, "later"]
        assert [each.id for each in await world.store.open_cards(NOW + 100, 1)] == [card.id]
        assert [each.id for each in await world.store.open_cards(NOW, 9)] == [card.id]
        await world.store.keep_card(replace(card, ended=True))
        assert await world.store.find_card(card.id) == replace(card, ended=True)
        assert await world.store.open_cards(NOW, 9) == []

    async def test_each_person_has_one_vote_on_a_card(self, world: World) -> None:
        """A vote replaces the person's own; that it does is told."""
        assert await world.store.vote("card", "ann", "up") == ""
        assert await world.store.vote("card", "bob", "down") == ""
        assert await world.store.vote("card", "ann", "down") == "up"
        assert await world.store.vote("other", "ann", "up") == ""

    async def test_the_place_of_a_message(self, world: World) -> None:
        """It waits, is leased, waits again after a release, and is gone after its ack."""
        assert await world.store.place("q", "robot:msg1") is RowPlace.GONE
        await put(world.store, 1)
        queue = row(inbound(1)).route.queue
        assert await world.store.place(queue, "robot:msg1") is RowPlace.WAITING
        lease = await claim(world.store)
        assert await world.store.place(queue, "robot:msg1") is RowPlace.LEASED
        await world.store.release(lease)
        assert await world.store.place(queue, "robot:msg1") is RowPlace.WAITING
        await world.store.ack(await claim(world.store))
        assert await world.store.place(queue, "robot:msg1") is RowPlace.GONE

    async def test_a_conversation_begins_anew_after_silence(self, world: World) -> None:
        """With an idle reset, one that nobody asked for is forgotten; without, and within it, it goes on."""
        first = await world.store.epoch("m", idle_reset=600)
        await world.later(599)
        assert await world.store.epoch("m", idle_reset=600) == first
        await put(world.store)
        await world.store.ack(await claim(world.store), Exchange("m", "q", "a", first))
        await world.later(599)
        assert await world.store.epoch("m", idle_reset=600) == first
        await world.later(601)
        assert await world.store.epoch("m") == first
        assert await world.store.exchanges("m", 9)
        second = await world.store.epoch("m", idle_reset=600)
        assert second != first
        assert not await world.store.exchanges("m", 9)

    async def test_pictures_stay_with_their_exchange(self, world: World) -> None:
        """Media of an exchange come back as they were."""
        await put(world.store)
        media = (Media(MediaKind.PICTURE, Secret("code"), "a.png"),)
        await world.store.ack(await claim(world.store), Exchange("m", "q", "a", media=media))
        await put(world.store, 2)
        await world.store.ack(await claim(world.store), Exchange("m", "q2", "a2"))
        assert [each.media for each in await world.store.exchanges("m", 9)] == [media, ()]

    # --- life -------------------------------------------------------------------------------------------------------

    async def test_a_sound_store_passes_its_check(self, world: World) -> None:
        """`check` returns when the store can write, however often it is asked."""
        await world.store.check()
        await world.later(60)
        await asyncio.gather(*(world.store.check() for _ in range(5)))

    async def test_a_closed_store_refuses(self, world: World) -> None:
        """`close` may be called twice; every other call raises StoreError then."""
        await put(world.store)
        lease = await claim(world.store)
        store = world.store
        await world.die()
        await store.close()
        await store.close()
        for late in (
            put(store, 2),
            store.claim("worker", TTL),
            store.wait(),
            store.renew(lease, TTL),
            store.ack(lease),
            store.interrupt("lane"),
            store.depth(),
            store.dead(),
            store.exchanges("m", 1),
            store.epoch("m"),
            store.forget("m"),
            store.add_calls("2026-11", {"webhook": 1}),
            store.calls("2026-11"),
            store.items(),
            store.set("name", "value"),
            store.set_if_absent("name", "value"),
            store.delete("name"),
            store.chats(),
            store.consume_quota("person", "2026-11-21", "key", 1),
            store.once_per("name", 1),
            store.check(),
            store.clean(),
            store.beat("a", "1", True),
            store.replicas(),
            store.find_message("chat", ["id"]),
            store.find_sent("chat", 1, 1),
            store.language("person"),
            store.set_language("person", "en"),
            store.keep_card(KeptCard("id", "key", "queue", "robot", "ann", "zh", 1.0)),
            store.find_card("id"),
            store.open_cards(1.0, 1),
            store.vote("id", "ann", "up"),
            store.place("queue", "key"),
            store.followers(lease, 1),
            store.open(),
        ):
            with pytest.raises(StoreError):
                await late

    async def test_closing_ends_a_wait(self, world: World) -> None:
        """A worker that waits is told, rather than left, when the store is closed."""
        waiting = asyncio.create_task(world.store.wait())
        await asyncio.sleep(0)
        await world.store.close()
        with pytest.raises(StoreError):
            await asyncio.wait_for(waiting, 10)
