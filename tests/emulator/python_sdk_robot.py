"""A robot on the official Python SDK, as its README writes one: it answers in text, or with an AI card to `card`."""

from __future__ import annotations

import sys
from typing import Any

import dingtalk_stream
from dingtalk_stream import AckMessage


class Echo(dingtalk_stream.ChatbotHandler):  # type: ignore[misc] # the SDK ships no types
    async def process(self, callback: Any) -> tuple[int, str]:
        message = dingtalk_stream.ChatbotMessage.from_dict(callback.data)
        if message.message_type == "picture":
            url = self.get_image_download_url(message.image_content.download_code)
            self.reply_text(f"picture at {url}", message)
            return AckMessage.STATUS_OK, "OK"
        text = message.text.content.strip()
        if text == "card":
            card = dingtalk_stream.AIMarkdownCardInstance(self.dingtalk_client, message)
            card.ai_start()
            card.ai_streaming("one", append=True)
            card.ai_streaming(" two", append=True)
            card.ai_finish("one two three")
        else:
            self.reply_text(f"you said {text}", message)
        return AckMessage.STATUS_OK, "OK"


class Clicks(dingtalk_stream.CallbackHandler):  # type: ignore[misc] # the SDK ships no types
    async def process(self, callback: Any) -> tuple[int, dict[str, Any]]:
        click = dingtalk_stream.CardCallbackMessage.from_dict(callback.data)
        action = click.content["cardPrivateData"]["actionIds"][0]
        return AckMessage.STATUS_OK, {"cardData": {"cardParamMap": {"msgContent": f"clicked {action}"}}}


def main() -> None:
    client = dingtalk_stream.DingTalkStreamClient(dingtalk_stream.Credential(sys.argv[1], sys.argv[2]))
    client.register_callback_handler(dingtalk_stream.ChatbotMessage.TOPIC, Echo())
    client.register_callback_handler(dingtalk_stream.CallbackHandler.TOPIC_CARD_CALLBACK, Clicks())
    client.register_all_event_handler(dingtalk_stream.EventHandler())
    client.start_forever()


if __name__ == "__main__":
    main()
