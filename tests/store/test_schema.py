"""The database file by itself: its lock, its settings and its migrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from claw.errors import StoreBusyError, StoreSchemaError
from claw.store.sqlite.schema import MIGRATIONS, Database, check_version, migrate


def test_the_durable_settings_are_in_force(tmp_path: Path) -> None:
    """WAL, an fsync at each commit, and pages that can be given back."""
    with closing(Database(tmp_path / "claw.db").connect()) as connection:
        names = ("journal_mode", "synchronous", "auto_vacuum", "foreign_keys", "user_version")
        found = [connection.execute(f"PRAGMA {each}").fetchone()[0] for each in names]
    assert found == ["wal", 2, 2, 1, len(MIGRATIONS)]


def test_each_migration_is_one_transaction() -> None:
    """A migration that fails leaves the file at the version before, whole; the next start tries again."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    steps = [["CREATE TABLE a (x)"], ["CREATE TABLE b (x)", "ALTER TABLE a ADD COLUMN y"]]
    with pytest.raises(sqlite3.Error):
        migrate(connection, [steps[0], [steps[1][0], "nonsense"]])
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    migrate(connection, steps)
    migrate(connection, steps)
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
def test_every_version_leads_to_today(version: int) -> None:
    """A file of any version that was ever released is brought to the schema of a new one."""

    def schema(connection: sqlite3.Connection) -> set[tuple[str, str]]:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            (table, column)
            for (table,) in tables
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")
        }

    with (
        closing(sqlite3.connect(":memory:", isolation_level=None)) as old,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as new,
    ):
        migrate(old, MIGRATIONS[:version])
        migrate(old)
        migrate(new)
        assert check_version(old) == len(MIGRATIONS)
        assert schema(old) == schema(new)


def test_a_newer_version_is_refused() -> None:
    """What a later claw means by its tables is not known here."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        with pytest.raises(StoreSchemaError, match=f"schema {len(MIGRATIONS) + 1}"):
            migrate(connection)


def test_the_lock_is_for_one(tmp_path: Path) -> None:
    """The second is refused until the first lets go; letting go twice does no harm."""
    first, second = Database(tmp_path / "claw.db"), Database(tmp_path / "claw.db")
    first.lock()
    with pytest.raises(StoreBusyError, match=r"another process holds the store .*claw\.db"):
        second.lock()
    first.unlock()
    first.unlock()
    second.lock()
    second.unlock()
