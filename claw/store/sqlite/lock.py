"""The lock of the database file, and what tells that file from another one in its place.

Order of events: `take` locks a name beside the database, `<file>.lock`, and then the database itself, through a
descriptor of our own. `mark` writes the store's id into the name's file once the database is open: who finds that mark
beside an empty database knows that a store was lost. `verify` compares what lies at the path with what is open.
`let_go` comes last, after SQLite's connection was closed.

Both are locked since each alone has a hole: a link to the database has another name beside it, and versions before
0.3.0 look at the name only. SQLite's own locks are of another kind (fcntl: by byte range and process) than ours (flock:
by open file), and on Linux neither sees the other. But closing any descriptor of a file drops all fcntl locks that the
process holds on it: hence ours is opened before SQLite's, and closed after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from typing import Final

from claw.errors import StoreBusyError, StoreError

FILE_MODE: Final = 0o600
"""The file holds session webhooks, which are secrets for 90 minutes (docs/protocol.md section 6.1)."""
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC
_MARK_MAX: Final = 256
"""Bytes of a mark."""
_NO_ID: Final = "-"
"""The mark of a store from before 0.2.0, which has no id."""
_HEADER_BYTES: Final = 32
_WAL_MAGIC: Final = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""What a write-ahead log begins with (https://www.sqlite.org/fileformat2.html#the_write_ahead_log)."""


class LockFile:
    """The lock of the database at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name: int | None = None
        """Descriptor of `<file>.lock`."""
        self._file: int | None = None
        """Descriptor of the database."""
        self._is_marked = False
        """The database was open: from then on it may not be empty."""
        self._wal: tuple[int, int] | None = None
        """Device and number of the write-ahead log that is in use."""

    def take(self, *, create: bool = True) -> None:
        """Lock name and file. Raises StoreBusyError where another process has one of them, else StoreError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Never deleted: somebody could hold the deleted file while a third locks a new one.
            # Opened for writing, since the store's id is to be written into it; an older claw leaves it empty.
            self._name = os.open(f"{self.path}.lock", _OPEN | os.O_CREAT, FILE_MODE)
            fcntl.flock(self._name, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Elsewhere than on Linux the two kinds of locks see each other, and SQLite would wait for us for ever.
            if sys.platform == "linux" and (create or self.path.exists()):
                self.open_file()
                assert self._file is not None  # noqa: S101 - just opened
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.let_go()
            raise StoreBusyError(f"another process holds the store {self.path}") from error
        except OSError as error:
            self.let_go()
            raise StoreError(f"cannot lock the store {self.path}: {error.strerror}") from error

    def let_go(self) -> None:
        """Close both. May be called again."""
        # The name goes last: whoever gets it next must find the file free.
        for descriptor in (self._file, self._name):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._name = self._wal = None
        self._is_marked = False

    def open_file(self) -> None:
        """Open the database file, made where it is missing; where it is open, see whether the path still leads to it.

        Raises OSError, or StoreError where another file lies there by now.
        """
        if self._file is None:
            self._file = os.open(self.path, _OPEN | os.O_CREAT, FILE_MODE)
        else:
            self._wal = None  # Closing has removed it, and opening makes another one.
            self.verify()

    def verify(self) -> bool:
        """Raise StoreError where a restart would not find what is open now: it would lose what waits.

        Return whether the file is shorter than it says. It was cut short then, or a checkpoint came to no end.
        """
        there = self.verify_place()
        if self._file is None or there is None or not self._is_marked:
            return False
        if self._wal is not None:
            self._verify_wal()
        # Size of a page and number of pages (https://www.sqlite.org/fileformat2.html#the_database_header).
        header = os.pread(self._file, _HEADER_BYTES, 0)
        return there.st_size < int.from_bytes(header[16:18], "big") * int.from_bytes(header[28:32], "big")

    def verify_place(self) -> os.stat_result | None:
        """Raise StoreError where the path leads to another file, to an empty one or to none; return what lies there.

        The part of `verify` that needs no descriptor and is cheap enough for each commit.
        """
        if self._file is None:
            return None
        # By the descriptor, not by what was noted at the start: a number of a file may be given again once it is gone.
        ours = os.fstat(self._file)
        try:
            there = self.path.stat()
        except OSError as error:
            raise self._error(f"cannot be found ({error.strerror})") from error
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise self._error("was replaced by another file")
        if self._is_marked and there.st_size == 0:
            raise self._error("was emptied")
        if self._is_marked and self._wal is not None:
            try:
                wal = self._wal_path.stat()
            except OSError as error:
                raise self._wal_error(error) from error
            if (wal.st_dev, wal.st_ino) != self._wal:
                raise self._error("has got another -wal")
        return there

    def _verify_wal(self) -> None:
        # SQLite holds no locks on this file: to open and close it does no harm.
        try:
            wal = os.open(self._wal_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._wal_error(error) from error
        try:
            begin = os.pread(wal, 4, 0)
        finally:
            os.close(wal)
        # Empty is what a cleaning leaves. One that was emptied by others gets a hole where its head was, at the next
        # write.
        if begin and begin not in _WAL_MAGIC:
            raise self._error("has a -wal that was overwritten")

    def knows_another(self, store_id: str) -> bool:
        """Return whether the mark of another store than this one lies beside it."""
        return self._read_mark() not in (b"", (store_id or _NO_ID).encode())

    def mark(self, store_id: str) -> None:
        """Take note of what was opened. Raises OSError where that cannot be written."""
        self._is_marked = True
        # Where it is not there, SQLite keeps no such log on this disk, and there is nothing to compare.
        with contextlib.suppress(OSError):
            wal = self._wal_path.stat()
            self._wal = (wal.st_dev, wal.st_ino)
        own = (store_id or _NO_ID).encode()
        if self._name is not None and self._read_mark() != own:
            os.pwrite(self._name, own, 0)
            os.ftruncate(self._name, len(own))
            os.fsync(self._name)

    def _read_mark(self) -> bytes:
        return b"" if self._name is None else os.pread(self._name, _MARK_MAX, 0).strip()

    @property
    def _wal_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _wal_error(self, error: OSError) -> StoreError:
        return self._error(f"has lost its -wal ({error.strerror})")

    def _error(self, what: str) -> StoreError:
        return StoreError(f"the store {self.path} {what}: a restart would lose what it keeps")
