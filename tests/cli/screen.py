"""A real terminal with a claw command in it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

LAUNCHER = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, sys.argv[1:])
"""
"""Makes its standard input the terminal of a session of its own, as a shell's is; then the command takes its place."""


class Screen:
    """A real terminal with a claw command in it: what a person would see, and what anybody could see in `ps`."""

    def __init__(self, environ: Mapping[str, str], folder: Path, *arguments: str) -> None:
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.command_lines: set[bytes] = set()
        self._terminal, inner = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, sys.executable, "-m", "claw", *arguments],
            env=dict(environ),
            cwd=folder,
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        os.close(inner)
        os.set_blocking(self._terminal, False)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    async def see(self, pattern: str, seconds: float = 20) -> str:
        """Wait for `pattern` on the screen, from where it was last seen."""
        start = self._seen
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text[start:])):
            alive = self._read()
            assert alive or re.search(pattern, self.text[start:]), f"{pattern!r} never came:\n{self.text}"
            assert time.monotonic() < deadline, f"{pattern!r} did not come:\n{self.text}"
            await asyncio.sleep(0.01)
        self._seen = start + found.end()
        return found[0]

    _seen = 0

    def _read(self) -> bool:
        with contextlib.suppress(OSError):
            self.command_lines.add(Path(f"/proc/{self._process.pid}/cmdline").read_bytes())
        try:
            data = os.read(self._terminal, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.text += self._decoder.decode(data)
        return bool(data)

    async def ended(self) -> int:
        while self._read():
            await asyncio.sleep(0.01)
        return await asyncio.to_thread(self._process.wait, 20)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)
