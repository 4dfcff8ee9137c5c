"""A look into the database file from outside: by doctor, while a claw may be writing.

Order of events: `open` looks at the schema; each question opens the file read-only in a thread, asks and closes. Only
`check` takes the lock, for a moment, to see whether anybody holds it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from claw.errors import StoreError
from claw.store.sqlite import letters, queries
from claw.store.sqlite.schema import BUSY_TIMEOUT_S, Database, check_version, describe
from claw.store.values import Chat, DeadLetter, Depth, Risk

T = TypeVar("T")


class SqliteInspection:
    """`Inspection` (ports.py) of the file `path`."""

    server_info: Final[Mapping[str, str]] = {}
    risks: Final[tuple[Risk, ...]] = ()

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    @classmethod
    async def open(cls, path: Path) -> SqliteInspection:
        """Look at the schema.

        Raises StoreError where there is no such file, StoreSchemaError where a newer claw wrote it.
        """
        found = cls(path)
        await found._ask(check_version)
        return found

    async def items(self, prefix: str = "") -> dict[str, str]:
        items = await self._ask(queries.items)
        return {name: value for name, value in items.items() if name.startswith(prefix)}

    async def chats(self, limit: int = 50) -> list[Chat]:
        return await self._ask(lambda connection: queries.chats(connection, max(limit, 0)))

    async def calls(self, month: str) -> dict[str, int]:
        return await self._ask(lambda connection: queries.calls(connection, queries.to_sql_text(month)))

    async def depth(self) -> Depth:
        """As the port says; leases are in the memory of the process that holds the file, and are not seen here."""
        return await self._ask(queries.depth)

    async def dead(self, limit: int = 100) -> list[DeadLetter]:
        return await self._ask(lambda connection: letters.newest(connection, max(limit, 0)))

    async def check(self) -> None:
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        database = Database(self._path)
        # Under the lock, so that no claw starts meanwhile and finds the file busy.
        # Not made where it is missing: we only want to look.
        database.lock(create=False)
        try:
            with closing(self._connect("rw")) as connection:
                check_version(connection)
                # As far as one can get without writing; a read-only file is found here.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._error(error) from error
        finally:
            database.unlock()

    async def _ask(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._read, read)

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        # A connection for each question: a snapshot that stayed open would keep the claw that writes from emptying its
        # WAL.
        try:
            with closing(self._connect("ro")) as connection:
                return read(connection)
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _connect(self, mode: str) -> sqlite3.Connection:
        # By URI: a file that is not there must not be made by who only wants to look at it.
        uri = f"{self._path.as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)

    def _error(self, error: sqlite3.Error) -> StoreError:
        return StoreError(f"cannot read the store {self._path}: {describe(error)}")
