"""The app's credentials where the environment has none: kept by a scan on the operator's page, and found again.

Order of events: `find_gap` tells whether the environment leaves the credentials open, and which files it names for
them. What DingTalk gave is written to these files, where it can be, else to the store. At the next start
`find_kept` reads the store before anything else, and `overlay` puts what it found into the environment, so that every
part and every command goes by the same credentials. What the environment says always wins over what was kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from claw.clock import Clock
from claw.config import files
from claw.config.reader import load
from claw.config.settings import Credentials, Settings, StoreSettings
from claw.errors import StoreError
from claw.observe.redact import register
from claw.policy import Switch
from claw.secret import Secret
from claw.store.open import inspect
from claw.store.ports import ConfigStore, Inspection

ID: Final = "DINGTALK_CLIENT_ID"
SECRET: Final = "DINGTALK_CLIENT_SECRET"  # noqa: S105 - a variable's name
NAMES: Final = {ID: (ID, "DINGTALK_APP_KEY"), SECRET: (SECRET, "DINGTALK_APP_SECRET")}
"""All names under which each can be set, the first one preferred."""
ROBOT: Final = "set-up"
"""Stands for the client id of a store that is opened before there is one: Redis' keys begin with it."""
_STAND_IN: Final = "not-set-yet"
"""Passes for credentials while the rest of the settings is read; it is sent nowhere."""
KEPT_ID: Final = "setup.client_id"
KEPT_SECRET: Final = "setup.client_secret"  # noqa: S105 - an item's name


@dataclass(frozen=True)
class CredentialGap:
    """That the environment has no credentials, and what it names for them."""

    files: Mapping[str, Path]
    """Variable (ID, SECRET) -> the file that its `_FILE` names, which is not there yet, or empty."""

    @property
    def is_filled_by_files(self) -> bool:
        """Whether both have a file: half of the credentials in a file would be found by nobody."""
        return set(self.files) == set(NAMES)


def find_gap(environ: Mapping[str, str]) -> CredentialGap | None:
    """Return what is open; None where either of the two is set, for then the other is a fault to be told. Blocks."""
    named: dict[str, Path] = {}
    for name, aliases in NAMES.items():
        for alias in aliases:
            if environ.get(alias, "").strip():
                return None
            path = environ.get(f"{alias}_FILE", "").strip()
            if not path:
                continue
            try:
                if files.read_secret_file(Path(path)):
                    return None
            except FileNotFoundError:
                pass
            # A directory, no right to read it: nothing that a scan cures.
            except (OSError, ValueError):
                return None
            named[name] = Path(path)
    return CredentialGap(named)


def overlay(environ: Mapping[str, str], client_id: str, secret: str) -> dict[str, str]:
    """Return the environment with these credentials under their first names, and none under any other name."""
    # Two names that say different things would be a fault of the settings.
    others = {name for names in NAMES.values() for alias in names for name in (alias, f"{alias}_FILE")}
    return {name: value for name, value in environ.items() if name not in others} | {ID: client_id, SECRET: secret}


def find_open_settings(environ: Mapping[str, str]) -> tuple[Settings, CredentialGap] | None:
    """Return the settings where nothing lacks but credentials, and the page may be served; else None.

    Raises SettingsError where something else is at fault as well.
    """
    gap = find_gap(environ)
    if gap is None:
        return None
    # A page that nobody may enter makes no app: then what lacks is told as a fault, as ever.
    has_token = any(environ.get(name, "").strip() for name in ("CLAW_ADMIN_TOKEN", "CLAW_ADMIN_TOKEN_FILE"))
    if not has_token:
        return None
    settings = load(overlay(environ, _STAND_IN, _STAND_IN))
    return (settings, gap) if settings.http.page is Switch.ON else None


async def read_kept(store: ConfigStore | Inspection) -> Credentials | None:
    """Return what the store keeps; None where there is nothing. Raises StoreError."""
    items = await store.items("setup.")
    client_id, secret = items.get(KEPT_ID, ""), items.get(KEPT_SECRET, "")
    if not client_id or not secret:
        return None
    # Before anything can quote it.
    register(Secret(secret))
    return Credentials(client_id, Secret(secret))


def find_kept(settings: StoreSettings, clock: Clock) -> Credentials | None:
    """Look into the store from outside, for commands beside a claw that runs; None also where it can't be read."""

    async def look() -> Credentials | None:
        # A store that is away is the doctor's to tell: here it only means that nothing is known.
        with contextlib.suppress(StoreError):
            async with inspect(settings, ROBOT, clock) as inspection:
                return await read_kept(inspection)
        return None

    return asyncio.run(look())


async def keep(credentials: Credentials, gap: CredentialGap, store: ConfigStore) -> str:
    """Keep the credentials, durably; return where: `file` or `store`. Raises StoreError."""
    # Never one in a file and the other in the store: what is read at the next start must be a pair.
    if gap.is_filled_by_files:
        try:
            # The secret first: an id without its secret would look like a fault of the settings.
            await asyncio.to_thread(files.write_private, gap.files[SECRET], credentials.client_secret.reveal())
            await asyncio.to_thread(files.write_private, gap.files[ID], credentials.client_id)
        except OSError:
            # A mounted secret is read-only as a rule, and half of it must not stay: the store has both then.
            for path in gap.files.values():
                with contextlib.suppress(OSError):
                    path.unlink()
        else:
            return "file"
    # The id last: with it the two count as kept, so that a kill in between leaves nothing half.
    await store.set(KEPT_SECRET, credentials.client_secret.reveal())
    await store.set(KEPT_ID, credentials.client_id)
    return "store"
