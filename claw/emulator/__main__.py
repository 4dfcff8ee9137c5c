"""`python -m claw.emulator`: the local DingTalk by itself.

Order of events: it listens, prints one line with its URL, and ends at SIGINT or SIGTERM with exit code 0.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from claw.emulator import Emulator


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m claw.emulator", description="A local DingTalk 本地钉钉")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8765, help="port, 0 for a free one (%(default)s)")
    parser.add_argument("--client-id", help="only this clientId is accepted (any, if not given)")
    parser.add_argument("--client-secret", help="only this clientSecret is accepted (any, if not given)")
    parser.add_argument("--public-url", help="what endpoint and webhook URLs begin with")
    parser.add_argument("--service-url", help="URL of the claw service, for links on the page")
    parser.add_argument("--allow-host", action="append", default=[], help="a Host that may use the page and /_/")
    parser.add_argument("--no-rate-limits", action="store_true", help="never throttle")
    given = parser.parse_args()
    emulator = Emulator(
        host=given.host,
        port=given.port,
        client_id=given.client_id,
        client_secret=given.client_secret,
        rate_limits=not given.no_rate_limits,
        public_url=given.public_url,
        service_url=given.service_url,
        allowed_hosts=given.allow_host,
    )
    asyncio.run(_run(emulator))


async def _run(emulator: Emulator) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await emulator.start()
    sys.stdout.write(f"{emulator.url}\n")
    sys.stdout.flush()
    try:
        await stop.wait()
    finally:
        await emulator.stop()


if __name__ == "__main__":
    main()
