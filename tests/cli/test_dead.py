"""`claw dead` against a server that answers as claw does: what it shows, how it ends, and where the token goes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from claw.cli import dead

TOKEN = "admin-token-of-this-test"
LETTER = {
    "id": "12",
    "kind": "message",
    "person": {"id": "u-1", "nick": "Ann"},
    "buried_at": "2026-11-27T07:00:00.000Z",
    "question": "what\nis   it?",
    "answer": "",
    "error": "ModelError: busy",
}


class Fake(BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, str]]] = []

    def _answer(self) -> None:
        self.asked.append((self.command, self.path))
        status, body = self._find()
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _find(self) -> tuple[int, dict[str, Any]]:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, {"error": {"code": "unauthorized", "field": None, "message": "unauthorized"}}
        if self.path.startswith("/api/dead?"):
            return 200, {"total": 1, "letters": [LETTER]}
        if "/12" not in self.path:
            return 404, {"error": {"code": "unknown_letter", "field": None, "message": "there is no such dead letter"}}
        return (202, {"how": "ask"}) if self.command == "POST" else (200, {"status": "dropped"})

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names that the server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Write nothing."""


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    Fake.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Fake)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {"PORT": str(server.server_port), "CLAW_ADMIN_TOKEN": TOKEN, "CLAW_LANG": "en"}
    server.shutdown()
    thread.join()
    server.server_close()


def test_letters_are_listed_in_lines(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each, whatever people wrote."""
    assert dead.main(environ, action="list", ids=()) == 0
    line = "12  2026-11-27T07:00:00.000Z  message  Ann  what is it?  ModelError: busy\n"
    assert capsys.readouterr().out == line


def test_letters_are_listed_for_programs(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON they are what the API gives."""
    assert dead.main(environ, action="list", ids=(), as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [LETTER]


@pytest.mark.parametrize(
    ("action", "ids", "code", "told"),
    [
        ("retry", ["12"], 0, "12: put back, to be asked again"),
        ("retry", ["all"], 0, "12: put back, to be asked again"),
        ("drop", ["12"], 0, "12: dropped"),
        ("drop", ["12", "13"], 1, "13: there is no such dead letter"),
        ("retry", ["../status"], 1, "../status: there is no such dead letter"),
    ],
)
def test_letters_are_retried_and_dropped(
    environ: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    action: str,
    ids: list[str],
    code: int,
    told: str,
) -> None:
    """Each is told for itself, and one that is not there makes the exit code 1."""
    assert dead.main(environ, action=action, ids=ids) == code
    said = capsys.readouterr()
    assert told in said.out + said.err


def test_without_a_token_nothing_is_asked(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The variable is named, in the person's language."""
    del environ["CLAW_ADMIN_TOKEN"]
    assert dead.main(environ, action="list", ids=(), language="zh") == dead.UNUSABLE
    assert "没有 CLAW_ADMIN_TOKEN" in capsys.readouterr().err
    assert Fake.asked == []


def test_a_wrong_token_is_told(environ: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A token out of a file is used as it stands there; a refused one is told, and never shown."""
    file = tmp_path / "token"
    file.write_text("another-token-value\n", encoding="utf-8")
    assert dead.main(environ | {"CLAW_ADMIN_TOKEN_FILE": str(file)}, action="list", ids=()) == 1
    said = capsys.readouterr()
    assert "unauthorized" in said.err
    assert "another-token-value" not in said.out + said.err


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """A claw that does not run is told in one line."""
    environ = {"PORT": "1", "CLAW_ADMIN_TOKEN": TOKEN, "CLAW_LANG": "en"}
    assert dead.main(environ, action="list", ids=()) == 1
    assert capsys.readouterr().err.startswith("claw does not answer: ")
    assert dead.main(environ, action="list", ids=(), url="file:///etc/passwd") == 1
