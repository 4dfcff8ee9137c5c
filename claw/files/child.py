"""The process in which one file is read: whatever it holds, it can do no more than end this process.

Order of events: the limits are set first. A line of JSON on stdin says what to do (`mode`, `name`, `memory` and `cpu`
in bytes and seconds), the file follows to the end of stdin. The answer is a line of JSON on stdout: `ok` with what was
read, a picture's bytes after it; or `problem`, a MediaProblem. Nothing else is written, and nothing of the file's is in
a word of ours.

It is started as a script, with an empty environment and without anything of claw's own loaded.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
# The folder of the script, whose modules are called like the standard library's may be.
sys.path = [each for each in sys.path if each != str(Path(__file__).resolve().parent)]

from claw.errors import MediaError, MediaProblem  # noqa: E402 - after the path


def limit(memory: int, cpu: int) -> None:
    """Bound what this process may use, as far as the system lets us."""
    # Where memory runs out all the same, the system is to end this process and not the one that acks messages.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    for which, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_DATA, memory),
        # No file can be written, whatever a library thinks to be its cache.
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        # Enough to import libraries; a flood of handles is not.
        (resource.RLIMIT_NOFILE, 64),
    ):
        try:
            # One second later for the hard one: at that a process is killed without a word, at the other by SIGXCPU.
            resource.setrlimit(which, (most, most + (which == resource.RLIMIT_CPU)))
        except (ValueError, OSError):
            # A container may forbid it: the parent's clock, and the pod's limit, still hold.
            continue


def read(name: str, content: bytes) -> dict[str, Any]:
    """Read a file's text. Raises MediaError."""
    # After the limits, and only what the kind needs: each module loads its library when it is called.
    from claw.files import office, pdf, plain
    from claw.files.kinds import Kind, detect_kind
    from claw.files.output import FullError, Output

    kind, output, pages, is_whole = detect_kind(name, content), Output(), [0, 0], True
    try:
        match kind:
            case Kind.PDF:
                pdf.read_pdf(content, output, pages)
            case Kind.DOCX:
                office.read_docx(content, output)
            case Kind.XLSX:
                office.read_xlsx(content, output, pages)
            case Kind.PPTX:
                office.read_pptx(content, output, pages)
            case Kind.HTML:
                plain.read_html(content, output)
            case Kind.TEXT:
                plain.read_text(content, output)
    except FullError:
        is_whole = False
    except (MediaError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a library may raise anything at a file that was made to
        raise office.refuse(error) from None
    if not output.has_words:
        raise MediaError("the file has no text", MediaProblem.NO_TEXT)
    # Lone surrogates, which some PDFs have, cannot be written as UTF-8.
    text = output.text().encode("utf-8", "replace").decode()
    whole = is_whole and pages[1] == pages[0]
    return {"kind": kind.value, "text": text, "pages": pages[0], "pages_read": pages[1], "is_whole": whole}


def answer(fields: dict[str, Any], content: bytes = b"") -> None:
    """Write the answer."""
    sys.stdout.buffer.write(json.dumps(fields).encode() + b"\n" + content)
    sys.stdout.buffer.flush()


def main() -> None:
    """Do what stdin says."""
    order = json.loads(sys.stdin.buffer.readline(65_536))
    # Before the first byte of the file is read, and before a library that could be tricked is loaded.
    limit(order["memory"], order["cpu"])
    try:
        content = sys.stdin.buffer.read()
        if order["mode"] == "picture":
            from claw.files.pictures import shrink

            picture = shrink(content)
            answer({"ok": True, "mime": picture.mime}, picture.content)
        else:
            answer({"ok": True, **read(order["name"], content)})
    except MediaError as error:
        answer({"ok": False, "problem": error.problem.value, "reason": error.reason})
    except (MemoryError, RecursionError):
        answer({"ok": False, "problem": MediaProblem.TOO_COSTLY.value, "reason": "reading it takes too much memory"})
    # Without the interpreter's own end, which takes its time to give back memory that goes anyway.
    os._exit(0)


if __name__ == "__main__":
    main()
