"""Registering an app by scanning a code: DingTalk's Device Flow (docs/protocol.md section 1.5).

Order of events: `init` gives a nonce, good once; `begin` trades it for a device code, and for an address that a person
opens with DingTalk, as a QR code as a rule; `poll` is asked every few seconds until somebody has agreed there, has
refused, or the code has expired. What comes is the Client ID and the Client Secret of an app with a Stream robot. A
nonce that DingTalk does not take any more costs one more `init`; a network that is gone for a while is waited for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import aiohttp

from claw.clock import Clock
from claw.errors import ClawError
from claw.http_client import deadline, describe_failure, read_at_most
from claw.observe.redact import register
from claw.secret import Secret

BODY_MAX_BYTES: Final = 64 * 1024
CALL_TIMEOUT_S: Final = 10.0
INTERVAL_MIN_S: Final = 1.0
INTERVAL_MAX_S: Final = 30.0
EXPIRY_MAX_S: Final = 7200.0
"""What DingTalk says of both is believed within these."""
OUTAGE_MAX_S: Final = 60.0
"""Seconds without an answer to `poll` after which nobody is kept waiting."""
BEGIN_TRIES: Final = 2
ADDRESS_MAX_CHARS: Final = 500


class ScanEnd(Enum):
    """Why no app came of it; the terminal and the page have a sentence for each."""

    REFUSED = "refused"
    EXPIRED = "expired"
    UNREACHABLE = "unreachable"
    FAULT = "fault"
    """DingTalk answered something else than the flow knows, or an error."""


class ScanError(ClawError):
    """No app was registered."""

    def __init__(self, reason: ScanEnd, detail: str = "") -> None:
        super().__init__(detail or reason.value)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ScanCode:
    """What a person needs to agree in DingTalk."""

    address: str
    user_code: str
    expires_in: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class ScannedApp:
    """The app that was registered."""

    client_id: str
    secret: Secret


class DeviceFlow:
    """One registration at `endpoint`, DingTalk's old API."""

    def __init__(self, http: aiohttp.ClientSession, endpoint: str, clock: Clock) -> None:
        self._http = http
        self._url = f"{endpoint.rstrip('/')}/app/registration"
        self._clock = clock

    async def run(self, show: Callable[[ScanCode], None], note_wait: Callable[[float], None]) -> ScannedApp:
        """Show a code, and wait for the person. Raises ScanError.

        `note_wait` hears before each wait how many seconds the code is still good for.
        """
        # By our own clock from here on: what DingTalk calls the code's life may be longer than it is, never shorter.
        device_code, code, interval = await self._begin()
        show(code)
        ends = self._clock.monotonic() + code.expires_in
        lost_at: float | None = None
        while (left := ends - self._clock.monotonic()) > 0:
            note_wait(left)
            await self._clock.sleep(min(interval, left))
            try:
                answer = await self._call("poll", {"device_code": device_code})
            except ScanError as error:
                if error.reason is not ScanEnd.UNREACHABLE:
                    raise
                # The person may have the phone in hand: a moment without a network ends nothing.
                now = self._clock.monotonic()
                lost_at = now if lost_at is None else lost_at
                if now - lost_at >= OUTAGE_MAX_S:
                    raise
                continue
            lost_at = None
            if (app := _read_end(answer)) is not None:
                return app
        raise ScanError(ScanEnd.EXPIRED)

    async def _begin(self) -> tuple[str, ScanCode, float]:
        fault = ScanError(ScanEnd.FAULT)
        for _ in range(BEGIN_TRIES):
            nonce = (await self._call("init", {})).get("nonce")
            try:
                answer = await self._call("begin", {"nonce": nonce})
            except ScanError as error:
                if error.reason is not ScanEnd.FAULT:
                    raise
                # A nonce is good once and for minutes: it may be too old, or used by a call whose answer got lost.
                fault = error
                continue
            return _read_code(answer)
        raise fault

    async def _call(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make one of the three calls. Raises ScanError."""
        try:
            async with (
                deadline(CALL_TIMEOUT_S),
                self._http.post(f"{self._url}/{name}", json=body, allow_redirects=False) as response,
            ):
                data = await read_at_most(response, BODY_MAX_BYTES)
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ScanError(ScanEnd.UNREACHABLE, describe_failure(error)) from None
        # A gateway in front of DingTalk says so as well: it is no word about this code.
        if status >= 500:
            raise ScanError(ScanEnd.UNREACHABLE, f"HTTP {status}")
        try:
            answer = json.loads(data or b"")
            errcode = answer["errcode"]
        except (ValueError, LookupError, TypeError):
            raise ScanError(ScanEnd.FAULT, f"HTTP {status} without an answer of DingTalk's") from None
        if errcode != 0:
            raise ScanError(ScanEnd.FAULT, f"{errcode}: {_clean(answer.get('errmsg'))}")
        found: dict[str, Any] = answer
        return found


def _read_code(answer: dict[str, Any]) -> tuple[str, ScanCode, float]:
    """Return the device code, what a person needs, and the seconds between two polls. Raises ScanError."""
    address, device_code = str(answer.get("verification_uri_complete") or ""), answer.get("device_code")
    is_link = address.startswith(("https://", "http://")) and address.isprintable()
    if not is_link or len(address) > ADDRESS_MAX_CHARS or not isinstance(device_code, str) or not device_code:
        raise ScanError(ScanEnd.FAULT, "DingTalk named no address to open")
    # Whoever has it gets the app's secret: it is one itself.
    register(Secret(device_code))
    expires = _read_seconds(answer.get("expires_in"), EXPIRY_MAX_S, EXPIRY_MAX_S)
    interval = max(INTERVAL_MIN_S, _read_seconds(answer.get("interval"), 5.0, INTERVAL_MAX_S))
    return device_code, ScanCode(address, _clean(answer.get("user_code")), expires), interval


def _read_end(answer: dict[str, Any]) -> ScannedApp | None:
    """Return the app; None while the person has not decided. Raises ScanError."""
    match answer.get("status"):
        # By the very words: whatever else comes one day must not pass for a yes.
        case "WAITING":
            return None
        case "FAIL":
            raise ScanError(ScanEnd.REFUSED, _clean(answer.get("fail_reason")))
        case "EXPIRED":
            raise ScanError(ScanEnd.EXPIRED)
        case "SUCCESS":
            client_id, secret = answer.get("client_id"), answer.get("client_secret")
            if isinstance(client_id, str) and isinstance(secret, str) and client_id and secret:
                # Before anybody can use it: from here on no line that is logged or shown may hold it.
                register(Secret(secret))
                return ScannedApp(client_id, Secret(secret))
    raise ScanError(ScanEnd.FAULT, "DingTalk answered what the flow does not know")


def _read_seconds(value: Any, default: float, most: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    return min(float(value), most) if is_number else default


def _clean(value: Any) -> str:
    """Return a word of DingTalk's as one short line."""
    return "".join(each for each in str(value or "") if each.isprintable())[:200]


def draw(address: str) -> str:
    """Return the QR code of an address in half blocks, dark on light, as terminals of any colour can show it."""
    import segno  # noqa: PLC0415 - only where one is drawn

    out = io.StringIO()
    segno.make(address, error="l", micro=False).terminal(out, border=2, compact=True)
    return out.getvalue()


def draw_image(address: str) -> str:
    """Return the QR code of an address as an SVG in a `data:` URL, on white whatever the page's colours are."""
    import segno  # noqa: PLC0415 - as above

    return str(segno.make(address, error="m", micro=False).svg_data_uri(scale=6, border=3, light="#fff"))
