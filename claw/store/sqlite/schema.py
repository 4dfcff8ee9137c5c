"""The database file: its settings and its schema. Used by the writer's thread only.

Order of events: `lock` takes the file for one process, or raises StoreBusyError. `connect` makes, sets up and migrates
it; after a failure it may be called again, under the same lock. `unlock` comes after the connection was closed.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from claw.errors import StoreError, StoreSchemaError
from claw.store.sqlite.epochs import store_id
from claw.store.sqlite.lock import FILE_MODE, LockFile

BUSY_TIMEOUT_S: Final = 1.0
"""Seconds to wait for a reader from outside, such as an operator's `sqlite3`; no other writer gets past our lock."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    # 1: the first schema. Small columns stand before large ones, so that a scan of them skips the bodies.
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        "CREATE TABLE seen (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
        "CREATE INDEX seen_at ON seen (at)",
        # AUTOINCREMENT: a number is never given twice, or a late lease could end another message.
        """CREATE TABLE inbox (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            lane TEXT NOT NULL,
            urgent INTEGER NOT NULL,
            received_at REAL NOT NULL,
            not_before REAL NOT NULL DEFAULT 0,
            attempts INTEGER NOT NULL DEFAULT 0,
            fence INTEGER NOT NULL DEFAULT 0,
            claims INTEGER NOT NULL DEFAULT 0,
            key TEXT NOT NULL,
            trace BLOB NOT NULL,
            inbound BLOB NOT NULL,
            answer BLOB
        )""",
        """CREATE TABLE dead (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            received_at REAL NOT NULL,
            buried_at REAL NOT NULL,
            error BLOB NOT NULL,
            inbound BLOB NOT NULL
        )""",
        "CREATE INDEX dead_buried_at ON dead (buried_at)",
        # An epoch outlives its history: were it to fall back to 0, the session that was left would be taken up again.
        "CREATE TABLE memory (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID",
        """CREATE TABLE history (
            memory TEXT NOT NULL,
            seq INTEGER NOT NULL,
            at REAL NOT NULL,
            user BLOB NOT NULL,
            assistant BLOB NOT NULL,
            PRIMARY KEY (memory, seq)
        )""",
        "CREATE INDEX history_at ON history (at)",
        """CREATE TABLE calls (
            month TEXT NOT NULL,
            api TEXT NOT NULL,
            n INTEGER NOT NULL,
            PRIMARY KEY (month, api)
        ) WITHOUT ROWID""",
    ),
    # 2: what is settled at run time, the chats and the quotas.
    (
        "CREATE TABLE entries (name BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        # No index on last_seen: each message would pay for it, and the chats are listed by an operator, seldom.
        """CREATE TABLE chats (
            key TEXT PRIMARY KEY,
            id BLOB NOT NULL,
            kind TEXT NOT NULL,
            title BLOB NOT NULL,
            first_seen REAL NOT NULL,
            last_seen REAL NOT NULL,
            messages INTEGER NOT NULL
        ) WITHOUT ROWID""",
        # The day comes first, so that the key serves the count of a person's day and the cleaning alike.
        """CREATE TABLE spent (
            day TEXT NOT NULL,
            person TEXT NOT NULL,
            key TEXT NOT NULL,
            PRIMARY KEY (day, person, key)
        ) WITHOUT ROWID""",
        "CREATE TABLE notices (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    ),
    # 3: rows know why they are there and whose conversation they belong to; rows from before have the queue alone.
    (
        "ALTER TABLE inbox ADD COLUMN kind TEXT NOT NULL DEFAULT 'message'",
        "ALTER TABLE inbox ADD COLUMN conversation_key BLOB",
    ),
    # 4: how long a message waits for the model's server, and how long the model has worked; answers of dead letters.
    (
        "ALTER TABLE inbox ADD COLUMN waiting_since REAL NOT NULL DEFAULT 0",
        "ALTER TABLE inbox ADD COLUMN worked REAL NOT NULL DEFAULT 0",
        "ALTER TABLE dead ADD COLUMN answer BLOB",
    ),
    # 5: when DingTalk says that a message was written, for which `seen.at` stands where it is told; when an epoch was
    # last asked for.
    (
        "ALTER TABLE seen ADD COLUMN told INTEGER NOT NULL DEFAULT 0",
        "DROP INDEX seen_at",
        "CREATE INDEX seen_told_at ON seen (told, at)",
        "ALTER TABLE inbox ADD COLUMN created_at REAL NOT NULL DEFAULT 0",
        "ALTER TABLE memory ADD COLUMN used_at REAL NOT NULL DEFAULT 0",
        "UPDATE memory SET used_at = CAST(strftime('%s', 'now') AS REAL)",
        "CREATE INDEX memory_used_at ON memory (used_at)",
    ),
    # 6: what was said in chats lately, for quotes; the language of people; the pictures of an exchange.
    (
        """CREATE TABLE said (
            id INTEGER PRIMARY KEY,
            chat TEXT NOT NULL,
            at REAL NOT NULL,
            by_robot INTEGER NOT NULL,
            body BLOB NOT NULL
        )""",
        "CREATE INDEX said_chat_at ON said (chat, at)",
        "CREATE INDEX said_at ON said (at)",
        """CREATE TABLE said_ids (
            chat TEXT NOT NULL,
            name TEXT NOT NULL,
            said INTEGER NOT NULL,
            PRIMARY KEY (chat, name)
        ) WITHOUT ROWID""",
        "CREATE INDEX said_ids_said ON said_ids (said)",
        "CREATE TABLE people (person TEXT PRIMARY KEY, language TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID",
        "CREATE INDEX people_at ON people (at)",
        "ALTER TABLE history ADD COLUMN media BLOB",
    ),
    # 7: cards, and what people think of them.
    (
        """CREATE TABLE cards (
            id TEXT PRIMARY KEY,
            at REAL NOT NULL,
            ended INTEGER NOT NULL,
            body BLOB NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX cards_at ON cards (at)",
        """CREATE TABLE votes (
            card TEXT NOT NULL,
            person TEXT NOT NULL,
            vote TEXT NOT NULL,
            PRIMARY KEY (card, person)
        ) WITHOUT ROWID""",
    ),
    # 8: what a dead letter was, receipts of programs' texts, what people used, and who changed what.
    (
        "ALTER TABLE dead ADD COLUMN kind TEXT NOT NULL DEFAULT 'message'",
        "CREATE TABLE sends (id TEXT PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL) WITHOUT ROWID",
        "CREATE INDEX sends_at ON sends (at)",
        """CREATE TABLE used (
            day TEXT NOT NULL,
            person TEXT NOT NULL,
            chat TEXT NOT NULL,
            name BLOB NOT NULL,
            title BLOB NOT NULL,
            questions INTEGER NOT NULL,
            tokens_in INTEGER NOT NULL,
            tokens_out INTEGER NOT NULL,
            up INTEGER NOT NULL,
            down INTEGER NOT NULL,
            PRIMARY KEY (day, person, chat)
        ) WITHOUT ROWID""",
        "CREATE TABLE audit (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL)",
    ),
)
"""Statement lists; number n brings a file from `user_version` n - 1 to n. Never edit one that was released."""


class Database:
    """One file, for one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = LockFile(path)

    def lock(self, *, create: bool = True) -> None:
        """Take the file for this process; the lock goes with the process, however that ends.

        Raises StoreBusyError where another holds it, StoreError where it cannot be made. With `create` False a file
        that is not there is not made.
        """
        self._lock.take(create=create)

    def unlock(self) -> None:
        self._lock.let_go()

    def verify(self) -> bool:
        """Look whether a restart would open what is open now (lock.py). Raises StoreError where it would not."""
        return self._lock.verify()

    def verify_place(self) -> None:
        """Do the cheap part of `verify`, after each commit. Raises StoreError."""
        self._lock.verify_place()

    def connect(self) -> sqlite3.Connection:
        """Open the file, made and migrated where needed. Raises StoreSchemaError or StoreError."""
        connection: sqlite3.Connection | None = None
        try:
            # By us, not by SQLite, so that it is never readable by others, not for a moment. After a failure another
            # file may lie there: what is in our memory is of the one that we have locked.
            self._lock.open_file()
            with contextlib.suppress(PermissionError):  # A volume may belong to somebody else; then it is theirs.
                self.path.chmod(FILE_MODE)
            connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            # auto_vacuum holds for a file without pages only, hence before WAL, which writes the first one.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection)
            own = store_id(connection)
            # The mark of another store beside one that is in use: somebody put back a copy. It is overwritten last, for
            # we may die in between.
            if self._lock.knows_another(own) and _is_blank(connection):
                connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('lost', 1)")
            self._lock.mark(own)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, OSError | sqlite3.Error):
                cause = error.strerror if isinstance(error, OSError) else describe(error)
                raise StoreError(f"cannot open the store {self.path}: {cause}") from error
            raise
        return connection


def describe(error: sqlite3.Error) -> str:
    """Return what SQLite says, with the name of its code where it gives one."""
    name = getattr(error, "sqlite_errorname", "")
    return f"{error} ({name})" if name else str(error)


def _is_blank(connection: sqlite3.Connection) -> bool:
    """Return whether nothing was settled here, and nobody has ever written."""
    # By what is in it, not by whether we have just made it: a start that was killed in between made it already.
    tables = ("entries", "seen")
    return all(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None for table in tables)  # noqa: S608 - names of ours


def check_version(connection: sqlite3.Connection, newest: int = len(MIGRATIONS)) -> int:
    """Return the file's schema version. Raises StoreSchemaError where a newer claw wrote it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > newest:
        raise StoreSchemaError(f"the store has schema {version}, this claw knows {newest} at most")
    return int(version)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring the schema forward, each version in one transaction. Raises StoreSchemaError for a newer file."""
    version = check_version(connection, len(migrations))
    is_new = version == 0
    for number, statements in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            if is_new and number == len(migrations):
                # Only for a file that is made now: the epochs of one from before go on without it.
                connection.execute("INSERT INTO meta (name, value) VALUES ('store_id', ?)", (secrets.token_hex(8),))
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
