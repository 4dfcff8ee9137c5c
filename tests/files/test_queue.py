"""Files that come slowly, that break off, and a child that outlives its limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from claw.errors import MediaError, MediaProblem
from claw.files import child as child_module
from claw.files import reader as reader_module
from claw.files.reader import FileReader
from tests.files.children import list_readers
from tests.files.made import FACT, chunks_of


async def test_a_file_that_comes_slowly_keeps_nobody_waiting() -> None:
    """Memory for reading is taken once a file is there."""
    reader, more = FileReader(queue_timeout_s=2.0), asyncio.Event()

    async def come_slowly() -> AsyncIterator[bytes]:
        yield FACT.encode()
        await more.wait()

    slow = [asyncio.create_task(reader.read("a.txt", 5_000_000, come_slowly())) for _ in range(2)]
    while len(list_readers()) < 2:
        await asyncio.sleep(0.01)
    assert (await reader.read("b.txt", 3_000_000, chunks_of(b"quick"))).text == "quick"
    more.set()
    assert [each.text for each in await asyncio.gather(*slow)] == [FACT, FACT]


@pytest.mark.parametrize("fault", [ConnectionResetError, BrokenPipeError, TimeoutError, OSError])
async def test_a_file_that_breaks_off_is_not_read(fault: type[Exception]) -> None:
    """Half of a file is no file: who fetches it hears of its fault."""

    async def break_off() -> AsyncIterator[bytes]:
        yield FACT.encode()
        raise fault

    with pytest.raises(fault):
        await FileReader().read("a.txt", 1000, break_off())
    assert not list_readers()


@pytest.mark.parametrize(
    "fields",
    [
        '"text": 5, "pages": 0',
        '"text": ["x"], "pages": 0',
        '"text": "x", "pages": "1"',
        '"text": "x", "pages": null',
        '"text": "%s", "pages": 0' % ("x" * 130_000),
    ],
)
async def test_an_answer_of_other_types_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: str) -> None:
    """What the child says is as untrusted as its file."""
    program = tmp_path / "child.py"
    answer = f'{{"ok": true, "kind": "text", "pages_read": 0, "is_whole": true, {fields}}}'
    program.write_text(f"import sys\nsys.stdin.buffer.read()\nprint({answer!r})\n")
    monkeypatch.setattr(reader_module, "CHILD", program)
    with pytest.raises(MediaError) as raised:
        await FileReader().read("a.txt", 10, chunks_of(b"x"))
    assert raised.value.problem is MediaProblem.DAMAGED


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A child with its real limits and another work."""

    def put(code: str) -> None:
        program = tmp_path / "child.py"
        folder = Path(child_module.__file__).parents[2]
        program.write_text(
            f"import sys\nsys.path.insert(0, {str(folder)!r})\nfrom claw.files.child import limit\n"
            f"sys.stdin.buffer.read()\nlimit(50_000_000, 1)\n{code}\n"
        )
        monkeypatch.setattr(reader_module, "CHILD", program)

    return put


async def test_a_child_that_computes_for_ever_is_too_slow(limited: Callable[[str], None]) -> None:
    """Its limit of time is told from that of memory."""
    limited("while True: pass")
    with pytest.raises(MediaError) as raised:
        await FileReader().read("a.txt", 10, chunks_of(b"x"))
    assert raised.value.problem is MediaProblem.TOO_SLOW
