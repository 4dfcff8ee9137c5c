"""The budget of bytes: never exceeded, in order, and nothing of it is lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claw.budget import ByteBudget


async def test_what_does_not_fit_waits_in_order() -> None:
    """A large one that waits is not passed over by small ones that would fit."""
    budget = ByteBudget(10)
    order: list[str] = []
    done = asyncio.Event()

    async def hold(name: str, size: int) -> None:
        async with budget.reserve(size):
            order.append(name)
            await done.wait()

    tasks = [asyncio.create_task(hold(name, size)) for name, size in (("a", 6), ("b", 8), ("c", 1))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (order, budget.used) == (["a"], 6)
    done.set()
    await asyncio.gather(*tasks)
    assert (order, budget.used) == (["a", "b", "c"], 0)


async def test_one_that_is_larger_than_the_whole_gets_it_alone() -> None:
    """Nothing is too large for ever: it waits until nobody holds anything."""
    budget = ByteBudget(10)
    async with budget.reserve(25):
        assert budget.used == 25
        later = budget.reserve(1)
        small = asyncio.create_task(later.__aenter__())
        await asyncio.sleep(0)
        assert not small.done()
    await small
    assert budget.used == 1


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_waiter_takes_nothing(granted: bool) -> None:
    """Cancelled while it waits, or in the very turn in which it was granted: the next one gets it."""
    budget = ByteBudget(10)
    first, *waiting = (budget.reserve(10) for _ in range(3))
    await first.__aenter__()
    second, third = (asyncio.create_task(each.__aenter__()) for each in waiting)
    await asyncio.sleep(0)
    if granted:
        await first.__aexit__(None, None, None)
    second.cancel()
    if not granted:
        await first.__aexit__(None, None, None)
    with pytest.raises(asyncio.CancelledError):
        await second
    await asyncio.wait_for(third, 5)
    assert budget.used == 10


@given(sizes=st.lists(st.integers(1, 15), max_size=30))
def test_the_limit_holds_for_any_sizes(sizes: list[int]) -> None:
    """Whatever is asked for, at most the limit is out, or one alone; in the end all is back."""

    async def run() -> None:
        budget = ByteBudget(10)

        async def hold(size: int) -> None:
            async with budget.reserve(size):
                assert budget.used <= 10 or budget.used == size
                await asyncio.sleep(0)

        await asyncio.gather(*(hold(size) for size in sizes))
        assert budget.used == 0

    asyncio.run(run())
