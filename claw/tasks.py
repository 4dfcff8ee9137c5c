"""Eternal tasks: those that have no end of their own, such as a keeper of leases or a listener.

Order of events: the owner starts one by `start_eternal`, keeps the task, and cancels it when it is no longer needed.
A task that ends otherwise is logged at once with its name. Without that its exception would show only where somebody
awaits the task, which for an eternal one is at the end of the process, and a mere return would never show.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

log: Final = logging.getLogger(__name__)


def start_eternal(
    work: Coroutine[Any, Any, None], name: str, *, may_return: Callable[[], bool] = lambda: False
) -> asyncio.Task[None]:
    """Start `work` as the task `name` (`claw.<room>.<what>`) and log its end, unless its owner cancels it.

    `may_return` is asked at the end: a task that returns while its owner is stopping it is no fault.
    """
    task = asyncio.create_task(work, name=name)

    def log_end(done: asyncio.Task[None]) -> None:
        end = describe_end(done)
        # An owner's cancel leaves its mark on the task. Cancelled without one, the task has let the cancellation of
        # something that it waited for pass through, and is as lost as one that raised.
        if done.cancelled() and done.cancelling():
            return
        error = None if done.cancelled() else done.exception()
        if error is not None or not may_return():
            log.critical("a task ended that must not end", extra={"task": name, "how": end}, exc_info=error)

    task.add_done_callback(log_end)
    return task


def describe_end(task: asyncio.Task[Any]) -> str:
    """Say how a task that is done has ended: was cancelled, returned, or failed by an error of which type."""
    if task.cancelled():
        return "was cancelled"
    error = task.exception()
    return "returned" if error is None else f"failed: {type(error).__name__}"
