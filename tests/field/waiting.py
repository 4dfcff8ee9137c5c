"""Waiting for what a claw says of itself."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.service import ADMIN_TOKEN, Service


async def until_settled(service: Service, seconds: float = 20) -> dict[str, Any]:
    """Wait until no message is left; /status as it is then. An answer is seen a moment before its row is gone."""
    async with asyncio.timeout(seconds):
        while True:
            status = (await service.get("/status", ADMIN_TOKEN))[1]
            assert isinstance(status, dict)
            if status["inbox"]["pending"] == status["inbox"]["leased"] == 0:
                return status
            await asyncio.sleep(0.05)
