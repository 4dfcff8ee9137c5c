"""Registering an app by scanning a code: the three calls, and the page where a person agrees.

Order of events: `init` gives a nonce that `begin` takes once; the code that `begin` gives waits until somebody agrees
or refuses on the page that its address leads to, or a switch decides (docs/protocol.md section 1.5). The app that comes
of it is the emulator's own.
"""

from __future__ import annotations

import dataclasses
import html
import secrets
import time
from typing import Any, Final

from aiohttp import web

from claw.emulator.faults import Faults
from claw.emulator.responses import Hangs, as_text, read_json, reply_html, reply_json
from claw.emulator.tickets import AppCredentials

NONCE_LIFETIME_S: Final = 300.0
CODE_LIFETIME_S: Final = 7200
INTERVAL_S: Final = 1
"""DingTalk says 5; tests and newcomers need not wait that long."""
KEPT_MAX: Final = 1_000
BAD_NONCE: Final = 400002
BAD_CODE: Final = 400003
PATH: Final = "/app/registration"
PAGE: Final = """<!doctype html><html lang="zh"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>创建应用</title>
<link rel="stylesheet" href="/page/base.css"><body><main><h1>创建应用 / Create the app</h1>
<p>{told}</p>{form}</main></body></html>"""
FORM: Final = """<form method="post"><p><b>{code}</b></p>
<button name="answer" value="SUCCESS">同意 / Agree</button>
<button name="answer" value="FAIL">拒绝 / Refuse</button></form>"""


@dataclasses.dataclass
class Device:
    """One code on its way."""

    user_code: str
    begun: float
    status: str = "WAITING"


class FakeRegistration:
    """The calls and the page. `decide` answers for a person."""

    def __init__(self, *, app: AppCredentials, faults: Faults, hangs: Hangs) -> None:
        self._app = app
        self._faults = faults
        self._hangs = hangs
        self._nonces: dict[str, float] = {}
        self.devices: dict[str, Device] = {}

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post(f"{PATH}/init", self._init)
        app.router.add_post(f"{PATH}/begin", self._begin)
        app.router.add_post(f"{PATH}/poll", self._poll)
        app.router.add_get("/scan/{code}", self._show)
        app.router.add_post("/scan/{code}", self._answer)

    def decide(self, answer: str = "SUCCESS") -> None:
        """Let a person answer the newest code."""
        next(reversed(self.devices.values())).status = answer

    async def _init(self, request: web.Request) -> web.StreamResponse:
        if (failure := await self._fail(request)) is not None:
            return failure
        nonce = secrets.token_hex(16)
        self._nonces[nonce] = time.monotonic() - (NONCE_LIFETIME_S if self._faults.take("scan_nonce_old") else 0)
        _trim(self._nonces)
        return reply_json({"errcode": 0, "errmsg": "ok", "nonce": nonce, "expires_in": int(NONCE_LIFETIME_S)})

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        if (failure := await self._fail(request)) is not None:
            return failure
        # Taken before anything is looked at: a second use finds none, whatever became of the first.
        made = self._nonces.pop(as_text((await read_json(request) or {}).get("nonce")), None)
        if made is None or time.monotonic() - made >= NONCE_LIFETIME_S:
            return _refuse(BAD_NONCE, "nonce无效或已过期")
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
        user_code = "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(3))
        device_code = secrets.token_hex(20)
        self.devices[device_code] = Device(user_code, time.monotonic())
        _trim(self.devices)
        base = f"{request.scheme}://{request.host}/scan"
        return reply_json(
            {
                "errcode": 0,
                "errmsg": "ok",
                "device_code": device_code,
                "user_code": user_code,
                "verification_uri": base,
                "verification_uri_complete": f"{base}/{user_code}",
                "expires_in": CODE_LIFETIME_S,
                "interval": INTERVAL_S,
            }
        )

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        if (failure := await self._fail(request)) is not None:
            return failure
        device_code = as_text((await read_json(request) or {}).get("device_code"))
        device = self.devices.get(device_code)
        if device is None:
            return _refuse(BAD_CODE, "device_code无效")
        # The switch decides at the poll, so that a test may set it while somebody waits.
        if ending := self._faults.take("scan_ending"):
            device.status = str(ending)
        body: dict[str, Any] = {"errcode": 0, "errmsg": "ok", "status": device.status}
        if device.status == "SUCCESS":
            # Good once: whoever asks a second time with the same code gets nothing.
            del self.devices[device_code]
            self._app.client_id = self._app.client_id or f"ding{secrets.token_hex(8)}"
            self._app.client_secret = self._app.client_secret or secrets.token_urlsafe(32)
            body |= {"client_id": self._app.client_id, "client_secret": self._app.client_secret}
        elif device.status == "FAIL":
            body["fail_reason"] = "用户拒绝了授权"
        return reply_json(body)

    async def _fail(self, request: web.Request) -> web.StreamResponse | None:
        """Do what a switch says, in place of an answer."""
        if self._faults.take("scan_hang"):
            return await self._hangs.hang(request)
        status = self._faults.take("scan_status")
        return reply_html(int(status)) if status else None

    async def _show(self, request: web.Request) -> web.Response:
        device = self._find(request)
        told = "没有这个代码，或已用过 / No such code, or it was used" if device is None else "机器人 claw"
        return self._page(told, FORM.format(code=html.escape(device.user_code)) if device is not None else "")

    async def _answer(self, request: web.Request) -> web.Response:
        device = self._find(request)
        answer = (await request.post()).get("answer")
        if device is None or answer not in {"SUCCESS", "FAIL"}:
            return self._page("没有这个代码 / No such code", "")
        device.status = str(answer)
        return self._page("好了，请回到终端 / Done: go back to the terminal", "")

    def _find(self, request: web.Request) -> Device | None:
        code = request.match_info["code"]
        found = (each for each in self.devices.values() if each.user_code == code and each.status == "WAITING")
        return next(found, None)

    def _page(self, told: str, form: str) -> web.Response:
        return web.Response(text=PAGE.format(told=told, form=form), content_type="text/html")


def _refuse(errcode: int, errmsg: str) -> web.Response:
    return reply_json({"errcode": errcode, "errmsg": errmsg})


def _trim(kept: dict[str, Any]) -> None:
    while len(kept) > KEPT_MAX:
        del kept[next(iter(kept))]
