"""The smallest useful bot on the official Python SDK, as its README writes one: ask the model, reply by the webhook.

Order of events: the SDK calls `process` for each message; the model's answer is streamed and gathered; it is sent with
`requests` inside the event loop, as the SDK's `reply_markdown` does; the SDK acks when `process` returns. Nothing is
kept. The stable 0.24.3 and the beta 0.24.4b1 run this file alike.
"""

from __future__ import annotations

import logging
import os

import dingtalk_stream
from openai import AsyncOpenAI


class Bot(dingtalk_stream.ChatbotHandler):  # type: ignore[misc] # the SDK ships no types
    """Answers each message with what the model says."""

    def __init__(self) -> None:
        super().__init__()
        self.model = AsyncOpenAI(max_retries=0)

    async def process(self, callback: dingtalk_stream.CallbackMessage) -> tuple[int, str]:
        incoming = dingtalk_stream.ChatbotMessage.from_dict(callback.data)
        text = ""
        stream = await self.model.chat.completions.create(
            model=os.environ["OPENAI_MODEL"],
            messages=[{"role": "user", "content": incoming.text.content.strip()}],
            stream=True,
        )
        async for chunk in stream:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        self.reply_markdown("answer", text, incoming)
        return dingtalk_stream.AckMessage.STATUS_OK, "OK"


def main() -> None:
    logging.basicConfig(level=logging.ERROR)
    credential = dingtalk_stream.Credential(os.environ["DINGTALK_CLIENT_ID"], os.environ["DINGTALK_CLIENT_SECRET"])
    client = dingtalk_stream.DingTalkStreamClient(credential)
    client.register_callback_handler(dingtalk_stream.ChatbotMessage.TOPIC, Bot())
    client.start_forever()


if __name__ == "__main__":
    main()
