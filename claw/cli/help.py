"""What `claw --help` and the help of each command say, in Chinese and English.

The language is that of `CLAW_LANG` in the process' environment: `.env` is not read for a help, and `claw health`, which
runs every few seconds, reads no texts beyond these.
"""

from __future__ import annotations

import argparse
import os
from typing import Final

from claw.language import Language, Text

TEXTS: Final = {
    "claw": Text("把钉钉机器人接到任何 OpenAI 兼容的模型。", "A DingTalk robot for any OpenAI-compatible model."),
    "other": Text("English: CLAW_LANG=en claw --help", "中文：CLAW_LANG=zh claw --help"),
    "help": Text("显示帮助并退出", "show this help and exit"),
    "version": Text("显示版本并退出", "show the version and exit"),
    "run": Text(
        "开始服务，按环境变量（容器之外还有 .env）配置",
        "serve, configured by the environment (and .env outside of containers)",
    ),
    "dev": Text(
        "对着本地钉钉和聊天页面运行，不需要账号", "serve against a local DingTalk with a chat page; no account needed"
    ),
    "dev page_port": Text("聊天页面的端口（默认 %(default)s）", "port of the chat page (default: %(default)s)"),
    "health": Text("在本机端口上问 /ready；就绪时退出码为 0", "ask /ready on the local port; exit code 0 when ready"),
    "auth": Text(
        "扫码，或输入应用的凭证；核对后写入 .env",
        "scan a code, or ask for the app's credentials; check them, and write them to .env",
    ),
    "auth client_id": Text("Client ID（AppKey）；不给就会问", "Client ID (AppKey); asked for where not given"),
    "auth secret_file": Text("存有 Client Secret 的文件；- 表示标准输入", "file with the Client Secret; - is stdin"),
    "auth env_file": Text("要写入的文件（默认 %(default)s）", "file to write (default: %(default)s)"),
    "auth scan": Text("用钉钉扫码，创建一个应用", "scan a code with DingTalk, by which an app is made"),
    "auth check": Text("只核对已有的设置，什么都不写", "only check what is set, write nothing"),
    "auth yes": Text("不问就覆盖不同的值", "overwrite different values without asking"),
    "doctor": Text(
        "检查一切必须可用的东西；退出码 0 正常、1 警告、2 故障",
        "check everything that must work; exit code 0 ok, 1 warning, 2 fault",
    ),
    "doctor offline": Text("不访问网络", "stay off the network"),
    "doctor free": Text(
        "不做钉钉计费的调用（否则 1 次，用卡片时 3 次）", "make no call that DingTalk bills (otherwise 1, with cards 3)"
    ),
    "doctor trouble": Text("只做能解释这种故障的检查", "only the checks that explain this trouble"),
    "owner": Text(
        "显示谁是机器人的主人及原因，或取消已存的主人",
        "show who owns the robot and why, or take the stored owner away",
    ),
    "owner action": Text("reset：重新配对", "reset: pairing begins afresh"),
    "owner yes": Text("不问就重置", "reset without asking"),
    "dead": Text(
        "列出、重试或丢弃运行中的 claw 没能回答的消息",
        "list, retry or drop what the running claw could not answer",
    ),
    "dead ids": Text("`list` 显示的编号；`all` 表示全部", "of letters, as `list` shows them; `all`: each of them"),
    "dead url": Text("目标 claw 的地址（默认本机的）", "of the claw that is meant (default: the one of this machine)"),
    "json": Text("输出供程序读取的 JSON", "answer for programs"),
    "lang": Text("语言（默认 CLAW_LANG）", "language (default: CLAW_LANG)"),
    "timeout": Text("等一次应答的秒数", "seconds for one answer"),
    "commands": Text("命令", "commands"),
    "options": Text("选项", "options"),
    "positional arguments": Text("参数", "positional arguments"),
    "usage": Text("用法：", "usage: "),
}


def find_language() -> Language:
    """Return the language of help: as that of everything else that an operator reads, Chinese unless set."""
    # Compared by hand: the parsers of settings would cost a probe that runs every few seconds its time.
    return Language.EN if os.environ.get("CLAW_LANG", "").strip().lower() == Language.EN else Language.ZH


def tell(key: str) -> str:
    """Return a text of the help in the operator's language."""
    return TEXTS[key][find_language()]


class HelpFormatter(argparse.HelpFormatter):
    """argparse's own, with its headings in the operator's language."""

    def start_section(self, heading: str | None) -> None:
        super().start_section(tell(heading) if heading in TEXTS else heading)

    def _format_usage(self, usage, actions, groups, prefix):  # type: ignore[no-untyped-def]
        # The one place where argparse takes its "usage: " from.
        return super()._format_usage(usage, actions, groups, tell("usage") if prefix is None else prefix)


class CommandParser(argparse.ArgumentParser):
    """A parser whose help, of itself and of its commands, is in the operator's language."""

    def __init__(self, **options: object) -> None:
        super().__init__(**(options | {"add_help": False, "formatter_class": HelpFormatter}))  # type: ignore[arg-type]
        self.add_argument("-h", "--help", action="help", help=tell("help"))
