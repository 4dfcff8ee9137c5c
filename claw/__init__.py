"""claw: a DingTalk robot in Stream mode, answered by any OpenAI-compatible model, that an orchestrator can trust."""

from typing import Final

__version__: Final = "0.1.0"
