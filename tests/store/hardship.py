"""What every store owes on a bad day: clocks that are wrong, messages that overtake each other, large and old things.

An adapter's test class derives from `HardshipContract` beside `StoreContract` (contract.py), and gives `world`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from claw.errors import LeaseLostError
from claw.messages import Answer, Outcome, Route
from claw.store.operation import DEAD_READ_BYTES
from claw.store.ports import (
    CREATED_AHEAD_MAX_S,
    EPOCH_RETENTION_S,
    EPOCH_TOUCH_S,
    PASSED_MAX,
    REPLICA_LIFE_S,
    SEEN_RETENTION_S,
    STUCK_AGE_S,
    Store,
)
from claw.store.values import Replica, Row, RowKind
from tests.store.contract import ANSWER, TTL, World, claim, claimed_ids, inbound, put, row

DAY = 86_400.0


async def write_at(store: Store, number: int | str, created_at: float, queue: str = "lane") -> bool:
    """Put what was written at a time, by DingTalk's clock."""
    return await store.put(row(replace(inbound(number), created_at=created_at), queue))


async def ids_in_order(store: Store) -> list[str]:
    """Claim and end one after the other."""
    ids = []
    while (lease := await store.claim("worker", TTL)) is not None:
        ids.append(lease.inbound.msg_id)
        await store.ack(lease)
    return ids


def expected_order(created: Sequence[float]) -> list[int]:
    """The rule, told in another way: each goes before those of the last PASSED_MAX that were written later."""
    order: list[int] = []
    for number, at in enumerate(created):
        place = len(order)
        while place > max(0, len(order) - PASSED_MAX) and created[order[place - 1]] > at:
            place -= 1
        order.insert(place, number)
    return order


class HardshipContract:
    """Derive a class named `Test…` and give it the fixture `world`."""

    # --- order ---------------------------------------------------------------------------------------------------

    async def test_what_was_said_first_is_worked_on_first(self, world: World) -> None:
        """A message that was overtaken on its way goes before what was written later; ties keep their arrival."""
        now = world.clock.wall()
        for number, ago in enumerate((5, 3, 4, 4, 6)):
            await write_at(world.store, number, now - ago)
        assert await ids_in_order(world.store) == ["msg4", "msg0", "msg2", "msg3", "msg1"]

    async def test_who_was_overtaken_wakes_and_takes_the_heads_place(self, world: World) -> None:
        """There is one message of the queue to claim at any time, whichever came last; other queues are untouched."""
        now = world.clock.wall()
        await write_at(world.store, 1, now - 1)
        await write_at(world.store, 2, now - 9, "other")
        await write_at(world.store, 3, now - 2)
        assert await claimed_ids(world.store) == ["msg2", "msg3"]

    @pytest.mark.parametrize("how", ["leased", "released", "delayed", "run out"])
    async def test_nothing_goes_before_what_was_begun(self, world: World, how: str) -> None:
        """A message that somebody has claimed stays first, whatever became of the lease."""
        now = world.clock.wall()
        await write_at(world.store, 1, now - 1)
        lease = await claim(world.store)
        if how == "released":
            await world.store.release(lease)
        elif how == "delayed":
            await world.store.release(lease, 10)
        elif how == "run out":
            await world.later(TTL + 1)
        await write_at(world.store, 2, now - 2)
        await write_at(world.store, 3, now - 3)
        assert await claimed_ids(world.store) == ([] if how in {"leased", "delayed"} else ["msg1"])
        await world.later(TTL + 11)
        assert await ids_in_order(world.store) == ["msg1", "msg3", "msg2"]

    async def test_a_crash_changes_no_order(self, world: World) -> None:
        """The next process goes on in the same order."""
        now = world.clock.wall()
        await write_at(world.store, 1, now - 1)
        await claim(world.store)
        for number, ago in enumerate((5, 3, 4, 6), start=2):
            await write_at(world.store, number, now - ago)
        await world.die()
        await world.later(TTL + 1)
        assert await ids_in_order(world.store) == ["msg1", "msg5", "msg2", "msg4", "msg3"]

    @pytest.mark.parametrize("strange", [0.0, -1.0, math.inf, math.nan, 1e300, "future"])
    async def test_a_message_without_a_time_keeps_its_place(self, world: World, strange: float | str) -> None:
        """One whose time is missing, or lies in the future, neither passes others nor is passed."""
        now = world.clock.wall()
        at = now + 3600 if isinstance(strange, str) else strange
        await write_at(world.store, 1, now - 1)
        assert await write_at(world.store, 2, at)
        await write_at(world.store, 3, now - 5)
        await write_at(world.store, 4, now - 6)
        assert await ids_in_order(world.store) == ["msg1", "msg2", "msg4", "msg3"]

    async def test_looking_back_is_bounded(self, world: World) -> None:
        """In a long queue a latecomer goes before the last PASSED_MAX at most."""
        now = world.clock.wall()
        for number in range(PASSED_MAX + 4):
            await write_at(world.store, number, now - 1)
        await write_at(world.store, "late", now - 2)
        assert (await ids_in_order(world.store)).index("msglate") == 4

    @pytest.mark.parametrize("seed", range(5))
    async def test_any_order_of_arrival_is_put_right(self, world: World, seed: int) -> None:
        """Against the rule itself, told in another way."""
        chance = random.Random(seed)
        now = world.clock.wall()
        created = [now - chance.randrange(30) for _ in range(40)]
        for number, at in enumerate(created):
            await write_at(world.store, number, at)
        if seed % 2:
            await world.die()
        assert await ids_in_order(world.store) == [f"msg{number}" for number in expected_order(created)]

    async def test_what_claw_sends_keeps_its_place(self, world: World) -> None:
        """A row that nobody wrote has a time of our own clock, and is not ordered by it."""
        now = world.clock.wall()
        await write_at(world.store, 1, now - 1)
        message = replace(inbound("send"), created_at=now - 9)
        await world.store.put(Row(message, Route("c", "lane"), {}, RowKind.SEND, ANSWER))
        assert await ids_in_order(world.store) == ["msg1", "msgsend"]

    # --- repeats, by DingTalk's times ------------------------------------------------------------------------------

    async def test_a_clock_a_day_ahead_answers_no_repeat(self, world: World) -> None:
        """Our clock jumps by 25 h between a message and its repeat: it is known all the same, and new ones are new."""
        written = world.clock.wall()
        await write_at(world.store, 1, written)
        await world.store.ack(await claim(world.store))
        world.clock.jump(25 * 3600)
        await world.store.clean()
        assert not await write_at(world.store, 1, written)
        assert await write_at(world.store, 2, written + 60)
        await world.store.clean()
        assert not await write_at(world.store, 1, written)
        assert not await write_at(world.store, 2, written + 60)

    async def test_a_clock_a_day_behind_answers_no_repeat(self, world: World) -> None:
        """Our clock is 25 h behind and is then set right: nothing is forgotten, and nothing new is refused."""
        world.clock.jump(-25 * 3600)
        written = world.clock.wall() + 25 * 3600
        await write_at(world.store, 1, written)
        await world.store.clean()
        assert not await write_at(world.store, 1, written)
        world.clock.jump(25 * 3600)
        await world.store.clean()
        assert not await write_at(world.store, 1, written)
        assert await write_at(world.store, 2, written + 60)

    async def test_what_is_a_day_older_than_the_newest_is_taken_for_seen(self, world: World) -> None:
        """Its id is no longer kept, so that it may be a repeat; one without a time is judged by its id alone."""
        now = world.clock.wall()
        await write_at(world.store, "newest", now)
        assert not await write_at(world.store, 1, now - SEEN_RETENTION_S - 120)
        assert await write_at(world.store, 2, now - SEEN_RETENTION_S + 120)
        assert await write_at(world.store, 3, 0.0)
        assert (await world.store.depth()).pending == 3
        await world.die()
        assert not await write_at(world.store, 1, now - SEEN_RETENTION_S - 120)

    @pytest.mark.parametrize("ahead", [CREATED_AHEAD_MAX_S - 60, CREATED_AHEAD_MAX_S + 3600, 1e9, 1e12])
    async def test_one_message_from_the_future_makes_no_other_a_repeat(self, world: World, ahead: float) -> None:
        """A time that cannot be is nobody's measure: what is written now is new, and is known again."""
        now = world.clock.wall()
        await write_at(world.store, "strange", now + ahead)
        for number in range(3):
            assert await write_at(world.store, number, now + number)
            await world.store.clean()
            assert not await write_at(world.store, number, now + number)
        assert not await write_at(world.store, "strange", now + ahead)

    async def test_what_claw_sends_is_no_measure_of_repeats(self, world: World) -> None:
        """With our clock a day ahead a row of our own must not make DingTalk's messages old."""
        written = world.clock.wall()
        world.clock.jump(2 * DAY)
        message = replace(inbound("send"), created_at=world.clock.wall())
        assert await world.store.put(Row(message, Route("c", "lane"), {}, RowKind.SEND, ANSWER))
        assert not await world.store.put(Row(message, Route("c", "lane"), {}, RowKind.SEND, ANSWER))
        assert await write_at(world.store, 1, written)
        assert await write_at(world.store, 2, written + 1)

    @pytest.mark.parametrize("years", [-3, 3])
    async def test_a_clock_that_is_years_off_answers_no_repeat(self, world: World, years: int) -> None:
        """DingTalk's times and ours need not agree at all."""
        written = world.clock.wall()
        world.clock.jump(years * 365 * DAY)
        for number in range(2):
            assert await write_at(world.store, number, written + number)
            await world.store.clean()
            assert not await write_at(world.store, number, written + number)
        await world.die()
        assert not await write_at(world.store, 0, written)

    async def test_ids_do_not_stay_for_ever(self, world: World) -> None:
        """They go when DingTalk's times have gone on by SEEN_RETENTION_S; those without a time by our clock."""
        await write_at(world.store, 1, world.clock.wall())
        await world.store.ack(await claim(world.store))
        await world.later(SEEN_RETENTION_S + 120)
        await write_at(world.store, 2, world.clock.wall())
        await world.store.clean()
        assert await write_at(world.store, 1, 0.0), "only its id is gone; by its time it would be known"
        await world.later(SEEN_RETENTION_S + 120)
        await world.store.clean()
        assert await write_at(world.store, 1, 0.0)

    # --- epochs ------------------------------------------------------------------------------------------------------

    async def test_an_epoch_is_kept_while_it_is_asked_for(self, world: World) -> None:
        """Also where it is asked for once in a hundred days, and was never forgotten."""
        await world.store.forget("forgotten")
        before = [await world.store.epoch(name) for name in ("forgotten", "never")]
        for _ in range(10):
            await world.later(EPOCH_RETENTION_S / 4)
            await world.store.clean()
            assert [await world.store.epoch(name) for name in ("forgotten", "never")] == before
        await world.die()
        assert [await world.store.epoch(name) for name in ("forgotten", "never")] == before

    async def test_no_name_of_an_epoch_comes_twice(self, world: World) -> None:
        """A history that was left for longer gets a name that none of its epochs had; the others keep theirs."""
        names = {await world.store.epoch("old")}
        for _ in range(5):
            names.add(await world.store.forget("old"))
        quiet = await world.store.epoch("quiet")
        await world.later(EPOCH_RETENTION_S / 2)
        kept = await world.store.epoch("lively")
        await world.later(EPOCH_RETENTION_S / 2 + EPOCH_TOUCH_S)
        await world.store.clean()
        await world.die()
        assert await world.store.epoch("lively") == kept
        for _ in range(3):
            fresh = await world.store.epoch("old")
            assert fresh not in names
            assert await world.store.epoch("old") == fresh, "asking changes nothing"
            names.add(fresh)
            names.add(await world.store.forget("old"))
            await world.later(EPOCH_RETENTION_S + EPOCH_TOUCH_S)
            await world.store.clean()
        assert len(names) == 12
        assert await world.store.epoch("quiet") != quiet

    # --- the fleet ---------------------------------------------------------------------------------------------------

    async def test_a_replica_lives_from_beat_to_beat(self, world: World) -> None:
        """It is listed as it last told, for REPLICA_LIFE_S."""
        assert await world.store.replicas() == []
        await world.store.beat("host:1", "1.0", True)
        (found,) = await world.store.replicas()
        assert found == Replica("host:1", "1.0", found.seen_at, True)
        assert found.seen_at == pytest.approx(world.clock.wall(), abs=1)
        await world.later(REPLICA_LIFE_S - 1)
        await world.store.beat("host:1", "1.1", False)
        await world.later(REPLICA_LIFE_S - 1)
        (found,) = await world.store.replicas()
        assert (found.version, found.healthy) == ("1.1", False)
        await world.later(2)
        assert await world.store.replicas() == []

    # --- depth, leases, sizes ---------------------------------------------------------------------------------------

    async def test_messages_that_nobody_works_on_are_told(self, world: World) -> None:
        """After STUCK_AGE_S without a lease and without a delay; a delayed one is nobody's fault."""
        assert not (await world.store.depth()).stuck
        await put(world.store, 1, "a")
        await put(world.store, 2, "a")
        await world.later(STUCK_AGE_S - 5)
        assert not (await world.store.depth()).stuck
        await world.later(10)
        assert (await world.store.depth()).stuck
        lease = await claim(world.store)
        assert not (await world.store.depth()).stuck
        await world.store.release(lease, 60)
        assert not (await world.store.depth()).stuck, "the second one waits behind a delayed one"
        await put(world.store, 3, "b")
        await world.later(30)
        assert not (await world.store.depth()).stuck
        await world.later(31)
        assert (await world.store.depth()).stuck

    async def test_a_delayed_message_hides_no_stuck_one(self, world: World) -> None:
        """The oldest waits for the model's server, and another one is forgotten behind it."""
        await put(world.store, 1, "a")
        await put(world.store, 2, "b")
        await world.store.release(await claim(world.store), 600)
        await world.later(STUCK_AGE_S + 1)
        assert (await world.store.depth()).stuck

    async def test_a_lease_that_was_ended_is_not_gone(self, world: World) -> None:
        """Lost to another, acked or buried: the store knows the message, and it must not be put back."""
        for number in range(4):
            await put(world.store, number, f"lane{number}")
        taken, acked, released, buried = [await claim(world.store) for _ in range(4)]
        await world.store.ack(acked)
        await world.store.release(released, 5)
        await world.store.bury(buried, "hopeless")
        await world.later(TTL + 1)
        await claimed_ids(world.store)
        for lease in (taken, acked, released, buried):
            with pytest.raises(LeaseLostError) as caught:
                await world.store.renew(lease, TTL)
            assert not caught.value.gone

    async def test_dead_letters_are_told_within_bounds(self, world: World) -> None:
        """The newest ones, as many as DEAD_READ_BYTES hold; the newest in any case."""
        size = DEAD_READ_BYTES // 3
        for number in range(4):
            await world.store.put(row(inbound(number, "x" * size)))
            lease = await claim(world.store)
            await world.store.save_answer(lease, Answer.of("y" * size, Outcome.ANSWERED))
            await world.store.bury(lease, f"cause {number}")
        assert [letter.error for letter in await world.store.dead()] == ["cause 3"]
        assert (await world.store.depth()).dead == 4
