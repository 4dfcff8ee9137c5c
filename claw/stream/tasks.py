"""Waiting for the first of several things, and ending tasks, so that none outlives its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

Name = TypeVar("Name", bound=str)


async def wait_first(waits: Mapping[Name, Coroutine[Any, Any, object]], *others: asyncio.Task[Any]) -> Name | None:
    """Return the name of the first wait that is over; None: one of `others`, which go on.

    The other waits are ended. Where several are over at once, `others` come first, then the order of `waits`.
    """
    tasks = {asyncio.create_task(wait, name=f"claw.stream.wait.{name}"): name for name, wait in waits.items()}
    try:
        done, _ = await asyncio.wait({*tasks, *others}, return_when=asyncio.FIRST_COMPLETED)
        if not done.isdisjoint(others):
            return None
        first = next(task for task in tasks if task in done)
        first.result()
        return tasks[first]
    finally:
        # Also where we are cancelled ourselves: a wait left behind would hold its event, or a timer, for ever.
        await stop_tasks(*tasks)


async def stop_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    # Awaited, since a cancelled task still runs its `finally`, and what it closes must be closed when we go on.
    await asyncio.gather(*tasks, return_exceptions=True)
