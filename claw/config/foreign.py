"""Variables that are not ours and still decide where content and keys go: proxies, CA files, the SDK's old names.

`check` returns what must be refused, because the process would else do something that the operator did not mean
(send keys to another company, go round a proxy, trust other CAs), and what is only worth a warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from claw.language import Bilingual, Language, choose
from claw.proxy import PROXY_NAMES, parse_proxy

OLD_NAMES: Final = {
    "OPENAI_API_BASE": "OPENAI_BASE_URL",
    "OPENAI_BASE": "OPENAI_BASE_URL",
    "OPENAI_API_URL": "OPENAI_BASE_URL",
    "OPENAI_API_HOST": "OPENAI_BASE_URL",
    "OPENAI_MODEL_NAME": "OPENAI_MODEL",
}
"""Names of other programs and old SDKs. Those that name a server are refused: unseen, key and talk go elsewhere."""
_OURS_OF_OPENAI: Final = ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL", "OPENAI_MODEL")
_OF_THE_SDK: Final = frozenset(
    {"OPENAI_LOG", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET", "OPENAI_ORG", "OPENAI_ORGANIZATION"}
)
_OTHER_CA_NAMES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


def check(environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the sentences for what is refused, and those for what is warned about. No value is shown."""
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    problems: list[str] = []
    warnings: list[str] = []
    _check_openai(given, problems, warnings)
    _check_proxies(given, problems)
    _check_certificates(given, problems, warnings)
    return problems, warnings


def _check_openai(given: Mapping[str, str], problems: list[str], warnings: list[str]) -> None:
    for name in sorted(each for each in given if each.startswith("OPENAI_")):
        # By its name alone: whether the value is right is no matter where nobody reads it.
        ours = OLD_NAMES.get(name)
        if ours == "OPENAI_BASE_URL" and ours not in given:
            problems.append(
                Bilingual(
                    f"{name}: is not read, so that key and questions would go to api.openai.com; set {ours} instead",
                    f"{name}：不会被读取，密钥和提问会发往 api.openai.com；请改设 {ours}",
                )
            )
        elif ours:
            en = f"{name} is not read and has no effect; the name is {ours}"
            warnings.append(Bilingual(en, f"{name} 不会被读取，不起作用；正确的名称是 {ours}"))
        elif name not in _OURS_OF_OPENAI and name not in _OF_THE_SDK:
            near = difflib.get_close_matches(name, _OURS_OF_OPENAI, 1, 0.8)
            if near:
                en = f"{name} is not read and has no effect; did you mean {near[0]}?"
                warnings.append(Bilingual(en, f"{name} 不会被读取，不起作用；是不是想写 {near[0]}？"))


def _check_proxies(given: Mapping[str, str], problems: list[str]) -> None:
    for name in (each for known in PROXY_NAMES for each in (known.lower(), known)):
        if name in given:
            try:
                parse_proxy(given[name])
            except ValueError as error:  # Its value may hold a password.
                right = choose(error.args[0], Language.ZH)
                en = f"{name}: its value is not usable; right would be {error}"
                problems.append(Bilingual(en, f"{name}：这个值不能用；正确的是：{right}"))


def _check_certificates(given: Mapping[str, str], problems: list[str], warnings: list[str]) -> None:
    for name, is_right, kind, zh in (
        ("SSL_CERT_FILE", Path.is_file, "file", "文件"),
        ("SSL_CERT_DIR", Path.is_dir, "folder", "目录"),
    ):
        # SSL_CERT_DIR may list several folders, as in PATH; one that is there is enough.
        if name in given and not any(is_right(Path(each)) for each in given[name].split(":")):
            problems.append(Bilingual(f"{name}: names no {kind} that is there", f"{name}：所指的{zh}不存在"))
    if not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & given.keys():
        others = [name for name in _OTHER_CA_NAMES if name in given]
        warnings += [
            Bilingual(
                f"{name} is not read by claw; a company's own CA is named by SSL_CERT_FILE",
                f"{name} 不被 claw 读取；公司自己的 CA 请用 SSL_CERT_FILE 指定",
            )
            for name in others
        ]
