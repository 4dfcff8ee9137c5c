"""The question for the model's server, after the credentials: a menu of usual ones, checked by one token.

Order of events: nothing is asked where a server is set already. Else the person picks one, types its key without echo,
and confirms the model's name; one token is asked for. What the server refuses is told with its remedy, and is written
only when the person says so: a server may be down just now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from claw.config.settings import ModelSettings
from claw.errors import ModelError
from claw.secret import Secret

BASE_URL: Final = "OPENAI_BASE_URL"
API_KEY: Final = "OPENAI_API_KEY"
MODEL: Final = "OPENAI_MODEL"
HISTORY: Final = "CLAW_HISTORY_TURNS"
CHECK_TIMEOUT_S: Final = 20.0
TRIES_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class ModelServer:
    """One line of the menu."""

    name: str
    url: str
    model: str
    needs_key: bool = True
    keeps_history: bool = False
    """It has the conversations itself: what claw sent of them would be there twice."""


SERVERS: Final = (
    ModelServer("阿里云百炼 / DashScope (Qwen)", "https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen-plus"),
    ModelServer("DeepSeek", "https://api.deepseek.com/v1", "deepseek-chat"),
    ModelServer("月之暗面 / Moonshot (Kimi)", "https://api.moonshot.cn/v1", "kimi-latest"),
    ModelServer("智谱 / Zhipu (GLM)", "https://open.bigmodel.cn/api/paas/v4", "glm-4-plus"),
    ModelServer("OpenAI", "https://api.openai.com/v1", "gpt-5-mini"),
    ModelServer("Ollama", "http://127.0.0.1:11434/v1", "qwen3", needs_key=False),
    ModelServer("vLLM", "http://127.0.0.1:8000/v1", "", needs_key=False),
    ModelServer("OpenClaw", "http://127.0.0.1:18789/v1", "openclaw", keeps_history=True),
)
"""Those that can be reached from China first. The last choice of the menu is any other."""


class Asker(Protocol):
    """The person at the terminal (auth.py)."""

    def say(self, key: str, **values: object) -> None: ...

    def show(self, line: str) -> None: ...

    def render(self, key: str, **values: object) -> str: ...

    def ask(self, question: str) -> str: ...

    def ask_secret(self, question: str) -> str: ...


def is_set(environ: Mapping[str, str]) -> bool:
    """Whether a model's server is set already."""
    return any(environ.get(name, "").strip() for name in (BASE_URL, API_KEY, f"{API_KEY}_FILE"))


def choose(prompt: Asker) -> dict[str, str]:
    """Ask for the server, check it, and return the variables; none where the person wants to do it later."""
    prompt.say("model.menu")
    for number, each in enumerate(SERVERS, start=1):
        prompt.show(f"  {number}. {each.name}")
    prompt.show(f"  {len(SERVERS) + 1}. {prompt.render('model.other')}")
    server = _pick(prompt)
    if server is None:
        return {}
    url = server.url or prompt.ask(prompt.render("model.ask_url")).strip()
    key = prompt.ask_secret(prompt.render("model.ask_key" if server.needs_key else "model.ask_key_if")).strip()
    proposed = f" [{server.model}]" if server.model else ""
    model = prompt.ask(prompt.render("model.ask_name") + proposed).strip() or server.model
    if not url or not model:
        prompt.say("model.later")
        return {}
    chosen = {BASE_URL: url, MODEL: model} | ({API_KEY: key} if key else {})
    # Told twice, an agent would take the person for somebody who repeats everything.
    if server.keeps_history:
        chosen[HISTORY] = "0"
    # One token, not an answer: whoever only sets things up should not pay for words.
    prompt.say("model.checking")
    problem = asyncio.run(_check(url, key, model))
    if not problem:
        prompt.say("model.good")
        return chosen
    prompt.say("model.bad", cause=problem)
    return chosen if prompt.ask(prompt.render("model.keep") + " [y/N]").strip().lower() in {"y", "yes", "是"} else {}


def _pick(prompt: Asker) -> ModelServer | None:
    for _ in range(TRIES_MAX):
        said = prompt.ask(prompt.render("model.ask")).strip()
        if not said:
            break
        if said.isascii() and said.isdigit() and 1 <= int(said[:4]) <= len(SERVERS) + 1:
            number = int(said[:4]) - 1
            return SERVERS[number] if number < len(SERVERS) else ModelServer("", "", "", needs_key=False)
    prompt.say("model.later")
    return None


async def _check(url: str, key: str, model: str) -> str:
    """Ask for one token; return why there is none, empty where there is one."""
    from claw.turn.model.client import ModelClient  # noqa: PLC0415 - half a second, and only where somebody asks
    from claw.turn.model.errors import suggest_remedy  # noqa: PLC0415

    client = ModelClient(ModelSettings(api_key=Secret(key), base_url=url, name=model), history_kept_elsewhere=False)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await client.probe()
    except ModelError as error:
        return "; ".join(filter(None, (error.reason, suggest_remedy(error))))
    except TimeoutError:
        return f"{CHECK_TIMEOUT_S:g} s"
    finally:
        await client.close()
    return ""
