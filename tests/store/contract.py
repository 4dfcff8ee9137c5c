"""What every store owes to those who use it. An adapter's test class derives from `StoreContract` and gives `world`.

`World` is a store whose time the test moves and whose process the test can let die. Where adapters differ by design
(how soon a dead process's messages may be claimed), the contract asks for the weaker promise.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import replace

import pytest

from claw.errors import LeaseLostError, StoreError
from claw.messages import Answer, ChatKind, Conversation, Inbound, Media, MediaKind, Outcome, Secret, Sender, Turn
from claw.store.ports import DEAD_KEPT_S, HISTORY_KEPT_S, HISTORY_KEPT_TURNS, SEEN_KEPT_S, Lease, Store

TTL = 30.0
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}
SHORT = 0.2
"""Real seconds in which something that must not happen is given the chance to."""


class World(ABC):
    """An opened store in a world of its own."""

    store: Store

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
        media=(Media(MediaKind.FILE, Secret("code"), "a.pdf"),),
        webhook=Secret("https://oapi.dingtalk.com/robot/sendBySession?session=s3cret"),
        webhook_expires=1_800_005_400.0,
    )


ANSWER = Answer("the answer", Outcome.ANSWERED, sent=1, turn=Turn("m", "question", "the answer"))


async def put(store: Store, number: int | str = 1, lane: str = "lane", *, urgent: bool = False) -> bool:
    return await store.put(inbound(number), lane=lane, trace=TRACE, urgent=urgent)


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
        """A lease holds the message, its trace context, its lane and who claimed it."""
        assert await put(world.store)
        lease = await claim(world.store)
        assert lease.inbound == inbound()
        assert lease.trace == TRACE
        assert (lease.owner, lease.lane, lease.attempts, lease.claims) == ("worker", "lane", 0, 1)
        assert lease.answer is None
        assert lease.received_at == pytest.approx(lease.received_at)

    async def test_a_seen_key_is_refused(self, world: World) -> None:
        """A key that was put before is not put again, in whatever lane, waiting, claimed or acked."""
        assert await put(world.store)
        assert not await put(world.store, lane="other")
        lease = await claim(world.store)
        assert not await put(world.store)
        await world.store.ack(lease)
        assert not await put(world.store)
        assert await world.store.claim("worker", TTL) is None

    async def test_one_of_many_puts_at_once_wins(self, world: World) -> None:
        """Of puts of one key at the same time exactly one is told that it is new."""
        results = await asyncio.gather(*(put(world.store, lane=f"lane{n}") for n in range(20)))
        assert sorted(results) == [False] * 19 + [True]
        assert (await world.store.depth()).pending == 1

    async def test_a_key_is_forgotten_after_its_time(self, world: World) -> None:
        """SEEN_KEPT_S after its first sight, and not before, a key is new again."""
        await put(world.store)
        await world.store.ack(await claim(world.store))
        await world.later(SEEN_KEPT_S - 60)
        await world.store.clean()
        assert not await put(world.store)
        await world.later(120)
        await world.store.clean()
        assert await put(world.store)

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
        first = await put(world.store, 1)
        assert await put(world.store, 2)
        assert (await world.store.depth()).pending == 2
        assert first in (True, False)

    @pytest.mark.parametrize("text", ["half \ud83d pair", "nul \x00 within", "话" * 20_000, ""])
    async def test_any_text_is_kept(self, world: World, text: str) -> None:
        """No text of a person or a model is too strange to be stored and read again."""
        await world.store.put(inbound(text=text), lane="lane", trace={})
        lease = await claim(world.store)
        await world.store.save_answer(lease, Answer(text, Outcome.ANSWERED))
        await world.die()
        await world.later(TTL + 1)
        lease = await claim(world.store)
        assert lease.inbound.text == text
        assert lease.answer == Answer(text, Outcome.ANSWERED)
        await world.store.ack(lease, Turn("memory", text, text))
        assert await world.store.turns("memory", 1) == [Turn("memory", text, text)]

    # --- lanes -----------------------------------------------------------------------------------------------------

    async def test_one_lease_for_each_lane_in_order_of_arrival(self, world: World) -> None:
        """Lanes go side by side, oldest head first; within a lane the next comes after the ack of the one before."""
        for number, lane in enumerate("aabba", start=1):
            await put(world.store, number, lane)
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
            world.store.ack(old, Turn("m", "u", "a")),
            world.store.release(old, failed=True),
            world.store.bury(old, "late"),
        ):
            with pytest.raises(LeaseLostError):
                await late
        await world.store.release(new)
        again = await claim(world.store)
        assert (again.answer, again.attempts) == (None, 0)
        assert await world.store.turns("m", 10) == []
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
        await world.store.ack(lease, ANSWER.turn)
        assert await claimed_ids(world.store) == ["msg2"]
        assert await world.store.turns("m", 9) == [ANSWER.turn]

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

    async def test_a_released_message_rests_and_holds_its_lane(self, world: World) -> None:
        """While a head rests, its lane gives nothing and the others go on; then the head comes first."""
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
        """Burying takes the message out of its lane and keeps its cause; its key stays seen."""
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
        """`dead` shows the newest `limit`; after DEAD_KEPT_S a dead letter is gone."""
        for number in range(3):
            await put(world.store, number)
            await world.store.bury(await claim(world.store), f"cause {number}")
            await world.later(10)
        assert [letter.error for letter in await world.store.dead(2)] == ["cause 2", "cause 1"]
        await world.later(DEAD_KEPT_S - 25)
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

    async def test_wait_ends_when_a_lane_is_freed(self, world: World) -> None:
        """An ack that lets the next message of its lane come up wakes the worker."""
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

    async def say(self, world: World, number: int, memory: str = "m") -> None:
        await put(world.store, f"{memory}{number}", lane=memory)
        await world.store.ack(await claim(world.store), Turn(memory, f"u{number}", f"a{number}"))

    async def test_history_is_a_window_on_the_newest_turns(self, world: World) -> None:
        """`turns` gives the newest `limit` of one memory, oldest first, in this process and in the next."""
        for number in range(5):
            await self.say(world, number)
        await self.say(world, 9, "other")
        assert [turn.user for turn in await world.store.turns("m", 3)] == ["u2", "u3", "u4"]
        assert await world.store.turns("m", 0) == []
        assert await world.store.turns("nobody", 5) == []
        await world.die()
        assert await world.store.turns("m", 100) == [Turn("m", f"u{n}", f"a{n}") for n in range(5)]

    async def test_history_is_trimmed_when_it_grows(self, world: World) -> None:
        """No more than HISTORY_KEPT_TURNS of a conversation are kept."""
        for number in range(HISTORY_KEPT_TURNS + 5):
            await self.say(world, number)
        kept = await world.store.turns("m", 10 * HISTORY_KEPT_TURNS)
        assert len(kept) == HISTORY_KEPT_TURNS
        assert kept[0].user == "u5"

    async def test_old_turns_are_cleaned(self, world: World) -> None:
        """A turn goes after HISTORY_KEPT_S."""
        await self.say(world, 1)
        await world.later(HISTORY_KEPT_S - 1000)
        await self.say(world, 2)
        await world.store.clean()
        assert len(await world.store.turns("m", 9)) == 2
        await world.later(2000)
        await world.store.clean()
        assert [turn.user for turn in await world.store.turns("m", 9)] == ["u2"]

    async def test_forgetting_raises_the_epoch_and_drops_the_turns(self, world: World) -> None:
        """After `forget` a memory is empty and its epoch one higher; others are as they were; both last."""
        await self.say(world, 1)
        await self.say(world, 1, "other")
        assert await world.store.epoch("m") == 0
        assert await world.store.forget("m") == 1
        assert await world.store.turns("m", 9) == []
        await self.say(world, 2)
        assert await world.store.forget("m") == 2
        await self.say(world, 3)
        await world.die()
        assert await world.store.epoch("m") == 2
        assert [turn.user for turn in await world.store.turns("m", 9)] == ["u3"]
        assert (await world.store.epoch("other"), len(await world.store.turns("other", 9))) == (0, 1)

    async def test_an_ack_without_a_turn_leaves_the_history(self, world: World) -> None:
        """A command or a refusal is acked without leaving a trace in the memory."""
        await put(world.store)
        await world.store.ack(await claim(world.store))
        assert await world.store.turns("m", 9) == []

    # --- ledger -----------------------------------------------------------------------------------------------------

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
            store.depth(),
            store.dead(),
            store.turns("m", 1),
            store.epoch("m"),
            store.forget("m"),
            store.add_calls("2026-11", {"webhook": 1}),
            store.calls("2026-11"),
            store.check(),
            store.clean(),
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
