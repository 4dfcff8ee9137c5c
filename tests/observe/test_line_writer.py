"""The log's thread: whoever logs never waits for whoever reads."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claw.observe.line_writer import LineWriter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe as stderr is one in a container: its reader and its writer."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


def describe(count: int) -> str:
    return f"dropped {count}"


def read_all(reader: int) -> list[str]:
    """Everything up to the end of the file."""
    with os.fdopen(os.dup(reader), "rb") as file:
        return file.read().decode().splitlines()


def test_lines_come_in_order_and_whole(pipe: tuple[int, int]) -> None:
    """All lines of several threads are written, each whole, those of one thread in order; close waits for them."""
    reader, writer = pipe
    lines = LineWriter(writer, describe)

    def log_some(number: int) -> None:
        for i in range(200):
            lines.put(f"{number}:{i} \ud800中")

    threads = [threading.Thread(target=log_some, args=(n,)) for n in range(4)]
    got: list[str] = []
    reading = threading.Thread(target=lambda: got.extend(read_all(reader)))
    reading.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.close()
    os.close(writer)
    reading.join()
    for number in range(4):
        mine = [line for line in got if line.startswith(f"{number}:")]
        assert mine == [f"{number}:{i} \\ud800中" for i in range(200)]


def test_a_reader_that_hangs_costs_lines_and_no_time(pipe: tuple[int, int]) -> None:
    """While nobody reads, `put` returns, memory stays bounded, and what had no room is counted and told later."""
    reader, writer = pipe
    lines = LineWriter(writer, describe, chars_max=200_000)
    for number in range(10_000):
        lines.put(f"{number:06} " + "x" * 93)
    assert lines.dropped > 0
    dropped = lines.dropped
    got: list[str] = []
    reading = threading.Thread(target=lambda: got.extend(read_all(reader)))
    reading.start()
    lines.close(timeout=30)
    os.close(writer)
    reading.join()
    assert f"dropped {dropped}" in got
    assert len(got) - 1 == 10_000 - dropped
    assert got[:3] == [f"{number:06} " + "x" * 93 for number in range(3)]


def test_a_reader_that_went_away_is_no_error(pipe: tuple[int, int]) -> None:
    """Nobody reads any more: lines are taken and thrown away, and close returns."""
    reader, writer = pipe
    os.close(reader)
    lines = LineWriter(writer, describe)
    for _ in range(1000):
        lines.put("x" * 1000)
    lines.close()
    lines.close()


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    """A pipe that somebody made non-blocking still gets every line."""
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    lines = LineWriter(writer, describe)
    for number in range(3000):
        lines.put(f"{number:05}" + "x" * 95)
    got: list[str] = []
    reading = threading.Thread(target=lambda: got.extend(read_all(reader)))
    reading.start()
    lines.close(timeout=30)
    os.close(writer)
    reading.join()
    assert len(got) == 3000


@pytest.mark.parametrize("gone", [False, True])
def test_exit_codes_hold_when_the_log_is_gone(gone: bool) -> None:
    """A process whose log hangs or has no reader ends with the code that it chose."""
    code = textwrap.dedent("""
        import logging, sys
        from claw.observe import logs
        logs.configure("info", "json", ())
        print("up", flush=True)
        sys.stdin.readline()
        for number in range(5000):
            logging.getLogger("claw").info("line %d %s", number, "x" * 100)
        logs.close()
        sys.exit(75)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdout.readline()
        if gone:
            process.stderr.close()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(timeout=60) == 75
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
