"""Registers and opens a session by the environment's proxy and certificates; run as a process of its own.

SSL_CERT_FILE is read when a process starts, so that no test can try it within its own.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp

from claw.clock import Clock
from claw.config.settings import Credentials
from claw.messages import Delivery
from claw.secret import Secret
from claw.stream.cards import UnknownCards
from claw.stream.gateway import Gateway
from claw.stream.session import SessionConfig, open_session


async def main(endpoint: str) -> None:
    acked = asyncio.Event()

    async def deliver(delivery: Delivery) -> None:
        await delivery.acknowledge()
        acked.set()

    async with aiohttp.ClientSession() as http:
        gateway = Gateway(http, endpoint, lambda: Credentials("dingfakeclient", Secret("not-a-real-secret")))
        session = await open_session(
            http, await gateway.register(), SessionConfig(deliver, UnknownCards(Clock()).log, 5, Clock())
        )
        running = asyncio.create_task(session.run())
        await acked.wait()
        await session.close()
        await running


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(sys.argv[1]), 20))
