"""Where settings come from besides the process's variables: a `.env` file and files that hold secrets."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from claw.errors import SettingsError
from claw.language import Bilingual
from claw.proxy import PROXY_NAMES

SECRET_FILE_BYTES_MAX: Final = 64 * 1024
"""Bytes read of a `_FILE` secret at most; a larger file is not a secret."""
CONTAINER_MARKS: Final = ("KUBERNETES_SERVICE_HOST", "K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL", "container")
"""Variables that orchestrators set; `container` is podman's and systemd's, and our own image's."""

BOM: Final = "\ufeff"
_FOREIGN: Final = ("OPENAI_", "OTEL_", "SSL_CERT_")
_PROXIES: Final = frozenset({*PROXY_NAMES, "NO_PROXY"})


def in_container(environ: Mapping[str, str]) -> bool:
    """Whether our environment was made for us alone, so that a stray `.env` must not add to it.

    Files such as `/.dockerenv` do not tell that: a developer's shell in a container has them too.
    """
    return any(mark in environ for mark in CONTAINER_MARKS)


def environment(environ: Mapping[str, str] | None = None, dotenv: Path | None = None) -> dict[str, str]:
    """Return the process's variables over those of `.env` in the working directory, which containers do not read."""
    own = {name: _strip(name, value) for name, value in (os.environ if environ is None else environ).items()}
    path = dotenv or Path(".env")
    if in_container(own) or not path.is_file():
        return own
    try:
        # As it stands: a `$` in a secret is no reference, and an editor's byte order mark is no part of a name.
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
        found = {name: _strip(name, value) for name, value in values.items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        why = type(error).__name__
        en = f"{path}: cannot be read as UTF-8 text ({why})"
        raise SettingsError([Bilingual(en, f"{path}：无法按 UTF-8 文本读取（{why}）")]) from None
    return found | {name: value for name, value in own.items() if value.strip() or name not in found}


def _strip(name: str, value: str) -> str:
    """Strip what libraries would take for a part of the value: a line end of `$(cat file)`, a byte order mark."""
    return value.strip().strip(BOM).strip() if name.upper().startswith(_FOREIGN) or name.upper() in _PROXIES else value


def read_secret_file(path: Path) -> str:
    """Return a file's secret, without the line end that editors add. Raises OSError, or ValueError with the reason."""
    if not stat.S_ISREG(path.stat().st_mode):  # Before opening: that of a FIFO would wait for ever.
        raise ValueError(Bilingual("is not a regular file", "不是普通文件"))
    with path.open("rb") as file:
        raw = file.read(SECRET_FILE_BYTES_MAX + 1)
    if len(raw) > SECRET_FILE_BYTES_MAX:
        raise ValueError(Bilingual("is too large to be a secret", "太大，不可能是密钥"))
    try:
        return raw.decode().strip().strip(BOM).strip()
    except UnicodeDecodeError:
        raise ValueError(Bilingual("is not text", "不是文本")) from None


def write_private(path: Path, text: str) -> None:
    """Put `text` in the file's place, readable by its owner only. Raises OSError: the old file is whole then."""
    path = path.resolve()  # A link stays a link.
    # Made with 0600: no moment in which others could read the secret.
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as trial:
        try:
            with contextlib.suppress(OSError):  # Somebody else's file stays theirs, where we may do that.
                old = path.stat()
                os.fchown(trial.fileno(), old.st_uid, old.st_gid)
            trial.write(text.encode())
            trial.flush()
            # Before the rename: a file system may otherwise keep the new name and lose what is in it.
            os.fsync(trial.fileno())
            Path(trial.name).replace(path)
        except BaseException:
            Path(trial.name).unlink(missing_ok=True)
            raise
