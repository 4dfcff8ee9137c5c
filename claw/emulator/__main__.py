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
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8765, help="port, 0 for a free one (%(default)s)")
    add("--client-id", help="only this clientId is accepted (any, if not given)")
    add("--client-secret", help="only this clientSecret is accepted (any, if not given)")
    add("--public-url", help="what endpoint and webhook URLs begin with")
    add("--service-url", help="URL of the claw service, for links on the page")
    add("--allow-host", action="append", default=[], dest="allowed_hosts", help="a Host that may use the page and /_/")
    add("--no-rate-limits", action="store_false", dest="rate_limits", help="never throttle")
    asyncio.run(_run(Emulator(**vars(parser.parse_args()))))


async def _run(emulator: Emulator) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # SIGTERM as well: that is how a container is ended, and exit code 0 tells it from a crash.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await emulator.start()
    # Only when it listens, and at once: scripts wait for this line and then connect.
    sys.stdout.write(f"{emulator.url}\n")
    sys.stdout.flush()
    try:
        await stop.wait()
    finally:
        await emulator.stop()


if __name__ == "__main__":
    main()
