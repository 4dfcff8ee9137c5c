"""`claw dead`: the dead letters of the claw that runs on this machine, or where `--url` says: listed, retried, dropped.

Order of events: one request of its HTTP API for each thing that is asked, with CLAW_ADMIN_TOKEN; what it answers is
shown in lines, or as JSON. Only the standard library is imported, as by `claw health`.

Exit codes: 0 all was done, 1 something was not, or claw does not answer, 78 there is no token.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from claw.cli.health import DEFAULT_PORT, reach

TIMEOUT_S: Final = 10.0
SHOWN_CHARS: Final = 70
"""Of a question and of a cause, in a line."""
UNUSABLE: Final = 78
_WORDS: Final = {
    "no_token": (
        "没有 CLAW_ADMIN_TOKEN：运行中的 claw 也必须设置它",
        "there is no CLAW_ADMIN_TOKEN: the claw that runs must have one, too",
    ),
    "away": ("claw 没有应答：{cause}", "claw does not answer: {cause}"),
    "none": ("没有失败的消息", "no dead letters"),
    "ask": ("{id}：已放回队列，重新回答", "{id}: put back, to be asked again"),
    "send": ("{id}：已放回队列，重新发送", "{id}: put back, to be sent again"),
    "dropped": ("{id}：已丢弃", "{id}: dropped"),
    "refused": ("{id}：{cause}", "{id}: {cause}"),
}


class LetterError(Exception):
    """What claw does not do, in its own words."""


class ClawClient:
    """Asks one claw."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    def call(self, method: str, path: str) -> dict[str, Any]:
        """Make a call. Raises LetterError for an error of claw's, OSError where it does not answer."""
        if not self._url.startswith(("http://", "https://")):
            raise OSError(f"{self._url} is no address of HTTP")
        headers = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self._url + path, method=method, headers=headers)  # noqa: S310 - checked above
        # Past proxies: it is a claw of ours, and the token is for nobody else.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_S) as response:
                found = json.load(response)
        except urllib.error.HTTPError as error:
            raise LetterError(_read_error(error)) from None
        except ValueError:
            raise OSError("whatever listens there is no claw") from None
        return found if isinstance(found, dict) else {}


def _read_error(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, LookupError, TypeError, OSError):
        return f"HTTP {error.code}"


def main(
    environ: Mapping[str, str],
    *,
    action: str,
    ids: Sequence[str],
    url: str = "",
    as_json: bool = False,
    language: str = "",
) -> int:
    """List, retry or drop; return the exit code."""
    index = 1 if (language or environ.get("CLAW_LANG", "").strip().lower()) == "en" else 0

    def say(word: str, **values: object) -> str:
        return _WORDS[word][index].format(**values)

    token = _read_token(environ)
    if not token:
        print(say("no_token"), file=sys.stderr)  # noqa: T201 - a command's answer, here and below
        return UNUSABLE
    port = environ.get("PORT", "").strip() or str(DEFAULT_PORT)
    client = ClawClient(url or f"http://{reach(environ.get('HOST', '').strip())}:{port}", token)
    try:
        if action == "list":
            return _list(client, say("none"), as_json=as_json)
        # The oldest first, as the owner's `/retry all`: in a conversation they are answered in the order they came in.
        chosen = [each["id"] for each in reversed(_letters(client))] if list(ids) == ["all"] else list(ids)
        return max((_act(client, action, each, say) for each in chosen), default=0)
    except (OSError, LetterError) as error:
        cause = getattr(error, "reason", None) or error
        print(say("away", cause=cause), file=sys.stderr)  # noqa: T201
        return 1


def _read_token(environ: Mapping[str, str]) -> str:
    file = environ.get("CLAW_ADMIN_TOKEN_FILE", "").strip()
    if not file:
        return environ.get("CLAW_ADMIN_TOKEN", "").strip()
    try:
        with open(file, encoding="utf-8") as opened:  # noqa: PTH123 - pathlib costs this command a tenth of its time
            return opened.read().strip()
    except (OSError, ValueError):
        return ""


def _letters(client: ClawClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.call("GET", "/api/dead?limit=500").get("letters", [])
    return found


def _list(client: ClawClient, none: str, *, as_json: bool) -> int:
    letters = _letters(client)
    if as_json:
        print(json.dumps(letters, ensure_ascii=False))  # noqa: T201
        return 0
    for letter in letters:
        person = letter["person"] or {}
        told = (letter["question"] or letter["answer"], letter["error"])
        words = "  ".join(" ".join(each.split())[:SHOWN_CHARS] for each in told)
        who = person.get("nick") or person.get("id") or "-"
        print(f"{letter['id']}  {letter['buried_at']}  {letter['kind']}  {who}  {words}")  # noqa: T201
    if not letters:
        print(none)  # noqa: T201
    return 0


def _act(client: ClawClient, action: str, letter_id: str, say: Any) -> int:
    """Do one thing to one letter; return the exit code that it alone would mean."""
    # One by one: what one letter is refused for says nothing of the others.
    path = f"/api/dead/{quote(letter_id, safe='')}"
    try:
        if action == "retry":
            word = str(client.call("POST", f"{path}/retry")["how"])
        else:
            client.call("DELETE", path)
            word = "dropped"
    except LetterError as error:
        print(say("refused", id=letter_id, cause=error), file=sys.stderr)  # noqa: T201
        return 1
    print(say(word, id=letter_id))  # noqa: T201
    return 0
