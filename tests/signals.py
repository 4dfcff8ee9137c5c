"""Signals as a process at a terminal has them, whoever started the tests.

`nohup` and a shell's background jobs start programs with SIGHUP or SIGINT ignored, and what is ignored stays so in
every program that those start. A test of Ctrl-C would then wait for an end that never comes.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

SENT: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""What tests send, or a terminal of theirs that is closed."""


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""


def restore() -> None:
    """Give the programs that we start the usual disposition of each signal in SENT, and go on ignoring them ourselves.

    A handler does both: it takes the signal, and is no part of a program that is started.
    """
    for number in SENT:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SENT)
