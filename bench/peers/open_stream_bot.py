"""The smallest useful bot on dingtalk-open-stream, as its README writes one: ack at once, work in the background.

Order of events: the handler starts a task for the message and returns its ack; the task asks the model and posts the
answer to the session webhook. What the process had acked and not answered is gone with the process.
"""

from __future__ import annotations

import asyncio
import logging
import os

import httpx  # type: ignore[import-not-found] # lives in the peer's own environment
from dingtalk_open_stream import Ack, Message, StreamClient  # type: ignore[import-not-found] # as httpx
from openai import AsyncOpenAI

log = logging.getLogger(__name__)


async def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    StreamClient.OPEN_URL = os.environ["DINGTALK_OPENAPI_ENDPOINT"] + "/v1.0/gateway/connections/open"
    model = AsyncOpenAI(max_retries=0)
    async with httpx.AsyncClient(timeout=30) as http, asyncio.TaskGroup() as background:
        client = StreamClient(os.environ["DINGTALK_CLIENT_ID"], os.environ["DINGTALK_CLIENT_SECRET"])
        # It asks for no type of answer, and the emulator then gives XML, as the Node SDK says that DingTalk does.
        client._http.headers["Accept"] = "application/json"  # noqa: SLF001

        async def answer(message: Message) -> None:
            text = ""
            stream = await model.chat.completions.create(
                model=os.environ["OPENAI_MODEL"],
                messages=[{"role": "user", "content": message.data["text"]["content"].strip()}],
                stream=True,
            )
            async for chunk in stream:
                text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            body = {"msgtype": "markdown", "markdown": {"title": "answer", "text": text}}
            await http.post(message.data["sessionWebhook"], json=body)

        async def guarded(message: Message) -> None:
            try:
                await answer(message)
            except Exception:
                log.exception("no answer")

        async def on_message(message: Message) -> Ack:
            background.create_task(guarded(message))
            return Ack.ok()

        client.on("/v1.0/im/bot/messages/get", on_message)
        client.on("*", on_message)
        await client.start()
        await client.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
