"""Opening the file: what is refused untouched, which settings make a commit durable, and what the tables are.

**Settings.** With WAL and ``synchronous=FULL`` no power-loss state lost an acknowledged commit; WAL with NORMAL and
DELETE with FULL did. But SQLite before 3.51.3 (3.50.7, 3.44.6) can lose committed writes in WAL when one connection
commits at the very instant at which another checkpoints. So where `InterprocessLock` works, every commit and every
checkpoint is made under it, SQLite's own checkpoints are switched off, and the writer makes them. That holds for every
SQLite version, the mended ones too: the processes that share a file may be linked with different ones, and a single
unmended one among them needs all to take part. Where the lock is not to be had, a mended SQLite uses WAL with its own
checkpoints, and any other ``journal_mode=TRUNCATE`` with ``synchronous=EXTRA``, which is slower and safe as well. Each
setting is read back, for SQLite answers one that it does not take with silence.

Programs that do not take part in the lock, a SQLite shell say, should open the file for reading only.

**The file.** SQLite's own locks are POSIX locks, which a process loses on a file as soon as it closes any descriptor
of it. So the database is never opened but by SQLite; only one that does not exist yet is created here, to have its
mode 0600 from the first moment, and under a lock of this process, so that no other store opens it before that
descriptor is closed. Whether the path still names the file that was opened is asked by ``os.stat``: commits go on being
acknowledged into a file that was deleted.

**What was left.** A process that is killed may leave a commit that the system has, and the disk has not: SQLite shows
it to whoever comes next, and a power loss would take it back. So what lies beside the database is flushed before it is
looked at. While a write-ahead log is open, a commit in it is shown only once it is flushed; with a rollback journal it
is shown before. There, what others committed is flushed before anybody is told of it, and before the journal is written
over. And a log that SQLite would take for shorter than it was is refused: see `_log`.

**Refusals.** Before anything is written the application id, the schema version and the list of tables are looked at.
Where the file has a journal or write-ahead log of its own, that is done through a connection for reading only, since
the last connection to close a file would otherwise fold the log into it.
"""

import contextlib
import os
import pathlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import JournalCorruptError, JournalTooNewError, PersistenceError
from ._failures import error_name
from ._lock import InterprocessLock
from ._log import check_log

APPLICATION_ID = 0x646D7766
"""Marks the file as ours: "dmwf" in ASCII."""
SCHEMA_VERSION = 1
"""The version of the tables below, kept as ``user_version``."""
BUSY_SECONDS = 30.0
"""How long to wait for a lock: waiting is unfair, and under twelve writers the unluckiest waited 3 s."""

_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables

_SCHEMA = (
    """
    CREATE TABLE workflows (
        workflow_id TEXT NOT NULL PRIMARY KEY,
        workflow_type TEXT NOT NULL,
        status TEXT NOT NULL,
        version INTEGER NOT NULL,
        pending_step TEXT,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        wake_at INTEGER,
        lease_token TEXT,
        lease_owner TEXT,
        lease_expires_at INTEGER
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE records (
        workflow_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        kind TEXT NOT NULL,
        at INTEGER NOT NULL,
        body TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (workflow_id, seq)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX workflows_by_start ON workflows (created_at, workflow_id)",
    "CREATE INDEX workflows_by_status ON workflows (status, created_at, workflow_id)",
    "CREATE INDEX workflows_by_type ON workflows (workflow_type, created_at, workflow_id)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_creation = threading.Lock()


class Settings(NamedTuple):
    """How a connection is made durable."""

    journal_mode: str
    synchronous: int
    """2 is FULL, 3 is EXTRA."""
    wal_autocheckpoint: int
    """In pages; 0: the writer checkpoints, under the lock."""


def choose_settings(*, locked: bool, sqlite_version: tuple[int, int, int]) -> Settings:
    """Choose the fastest settings that are durable; `locked`: whether the lock between processes works."""
    if locked:
        return Settings("wal", 2, 0)
    if has_wal_reset_fix(sqlite_version):
        return Settings("wal", 2, 1000)
    return Settings("truncate", 3, 1000)


def has_wal_reset_fix(version: tuple[int, int, int]) -> bool:
    """Tell whether this SQLite can commit and checkpoint at once without losing writes; 3.52.0 was withdrawn."""
    if version == (3, 52, 0):
        return False
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


FileIdentity = tuple[int, int]
"""Device and inode."""


class Database:
    """One database file, as the threads of one store share it."""

    path: str
    """The file, without symbolic links."""
    lock: InterprocessLock
    """Held around every commit and checkpoint, and what may make one."""
    connection_class: type[sqlite3.Connection]
    """What connections are made of; tests put one here that fails."""
    settings: Settings
    """The settings in force, once it is open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._uri = pathlib.Path(path).as_uri()
        self.lock = InterprocessLock(f"{path}-lock", BUSY_SECONDS)
        self.connection_class = sqlite3.Connection
        self.settings = Settings("", 0, 0)
        self._identity: FileIdentity | None = None
        self._wal_identity: FileIdentity | None = None
        self._replaced: str | None = None

    def prepare(self) -> None:
        """Check what can be checked before the file is touched, and open the lock file beside it.

        Raises:
            PersistenceError: This SQLite is too old, or the path cannot be a database.
        """
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise PersistenceError(
                f"Python is linked with SQLite {sqlite3.sqlite_version}; the store needs 3.37 or newer. Use a Python "
                "that has it."
            )
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory):
            raise PersistenceError(f"{self.path!r} cannot be opened: there is no directory {directory!r}. Create it.")
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise PersistenceError(f"{self.path!r} cannot be opened: it is not a file. Use another path.")
        if _size(self.path) == 1:  # SQLite takes a file of one byte for an empty one, and would write over it
            raise JournalCorruptError(f"{self.path!r} is not a SQLite database. Nothing was touched. Use another path.")
        self.check_not_replaced()
        self.settings = choose_settings(locked=self.lock.open(), sqlite_version=sqlite3.sqlite_version_info[:3])

    def open(self) -> sqlite3.Connection:
        """Open the file for the writer, creating or refusing it; call `prepare` before, and hold the lock.

        Raises:
            PersistenceError: It is not ours, or a setting was not taken.
            JournalTooNewError: A newer version of the library made it.
            sqlite3.Error: To be explained by the caller.
        """
        first = self._identity is None
        if first:
            self._create_file()
            self._identity = _identity(self.path)
        try:
            self.check_not_replaced()
            self._flush_what_was_left()
            if self.is_wal and not self.settings.wal_autocheckpoint:  # by the lock, nobody is writing to it
                check_log(f"{self.path}-wal", own=not first)
            with self._looked_at():
                return self._open_writer()
        except BaseException:
            if first and self._replaced is None:  # whatever is there next time may be opened
                self._identity = None
            raise

    def open_reader(self) -> sqlite3.Connection:
        """Open another connection; it needs no lock, since it neither commits nor checkpoints.

        Raises:
            PersistenceError: The file was replaced, or a setting was not taken.
            sqlite3.Error: To be explained by the caller.
        """
        self.check_not_replaced()
        with self._looked_at():
            connection = self._connect("rw")
            try:
                self._apply_settings(connection)
                self.check_not_replaced()
            except BaseException:
                connection.close()
                raise
        return connection

    def check_not_replaced(self) -> None:
        """Make sure that the path still names the file that was opened.

        Raises:
            PersistenceError: It does not, or did not once: what was written since may be lost.
        """
        if self._replaced is None and self._identity is not None and _identity(self.path) != self._identity:
            self._replaced = self.path
        if self._replaced is not None:
            raise PersistenceError(
                f"{self._replaced!r} was deleted or replaced while the store had it open. What was not acknowledged "
                "may be lost. Put the file back, or see to the one that is there, then make a new SQLitePersistence."
            )

    @property
    def is_replaced(self) -> bool:
        """Whether `check_not_replaced` has failed, as it does from then on."""
        return self._replaced is not None

    def wal_size(self) -> int:
        """Return the size of the write-ahead log in bytes; 0 without one.

        Raises:
            PersistenceError: It was deleted or replaced, and the last commits with it.
        """
        if self._wal_identity is None:
            return 0
        path = f"{self.path}-wal"
        try:
            found = os.stat(path)
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._wal_identity:
            self._replaced = self._replaced or path
            self.check_not_replaced()
        assert found is not None
        return found.st_size

    @property
    def is_wal(self) -> bool:
        """Whether there is a write-ahead log, which wants to be checkpointed."""
        return self.settings.journal_mode == "wal"

    def _open_writer(self) -> sqlite3.Connection:
        connection = self._connect("rw")
        try:
            self._is_fresh(connection)
            self._apply_settings(connection)
            connection.execute("BEGIN IMMEDIATE")
            if self._is_fresh(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
            connection.execute("DELETE FROM workflows WHERE 0")  # fails where the file can only be read
            connection.execute("COMMIT")
            self.check_not_replaced()
            # The log stays the same file as long as this connection is open.
            self._wal_identity = _identity(f"{self.path}-wal") if self.is_wal else None
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_file(self) -> None:
        with _creation:
            try:
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            except FileExistsError:
                pass  # and nobody of this process is between creating and closing it
            except OSError as error:
                raise PersistenceError(
                    f"{self.path!r} cannot be created: {error.strerror}. The process must be able to write in its "
                    "directory."
                ) from error

    def flush_what_others_left(self, connection: sqlite3.Connection, known: int | str | None) -> int | str | None:
        """Flush what another connection may have committed and, killed in the middle of it, not flushed.

        Args:
            connection: Which may have seen it.
            known: What the call before this one on that connection returned; None for the first one.
        """
        if self.is_wal:
            return None
        version = _pragma(connection, "data_version")
        if version != known:
            self._flush_what_was_left()
        return version

    def _flush_what_was_left(self) -> None:
        """Flush the log or the journal, which has none of SQLite's locks on it."""
        for suffix in ("wal", "journal"):
            try:
                descriptor = os.open(f"{self.path}-{suffix}", os.O_RDWR)
            except (FileNotFoundError, PermissionError):  # SQLite says in its own words what it may not write
                continue
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._uri}?mode={mode}",
            uri=True,
            timeout=self.lock.time_limit,
            isolation_level=None,
            factory=self.connection_class,
        )
        try:
            # Before SQLite looks for a log: that of the file that was here would be folded into one put in its place.
            self.check_not_replaced()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _looked_at(self) -> Iterator[None]:
        """Look at the file through a connection that cannot write, and keep that while another one is opened.

        A connection that closes as the last one folds the log into the file, that of another application too, and
        deletes it. SQLite deletes it even if it was to be opened in vain, so that nothing could be folded in.
        """
        with contextlib.ExitStack() as kept:
            if any(_size(f"{self.path}-{suffix}") for suffix in ("wal", "journal")):
                try:
                    self._is_fresh(kept.enter_context(contextlib.closing(self._connect("ro"))))
                except sqlite3.OperationalError as error:
                    # A journal that was left by a crash has to be rolled back first, for which one must write.
                    if not error_name(error).startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
                        raise
            if not self.is_wal:
                kept.close()  # a log is given up while nobody else has the file open
            yield

    def _is_fresh(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the tables have yet to be made; raise where the file is not ours."""
        application_id = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        if application_id == APPLICATION_ID:
            if isinstance(version, int) and version > SCHEMA_VERSION:
                raise JournalTooNewError(
                    f"{self.path!r} was made by a newer version of dotmac-workflows (schema {version}, this one knows "
                    f"{SCHEMA_VERSION}). Nothing was touched. Upgrade this process."
                )
            return False
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id or version or tables:
            raise PersistenceError(
                f"{self.path!r} is a SQLite database of another application (application id {application_id}, "
                f"{tables} tables and indexes). Nothing was touched. Use another path."
            )
        return True

    def _apply_settings(self, connection: sqlite3.Connection) -> None:
        wanted: dict[str, int | str] = {
            "busy_timeout": int(self.lock.time_limit * 1000),
            "foreign_keys": 1,
            "trusted_schema": 0,
            "cell_size_check": 1,
            **self.settings._asdict(),
        }
        for name, value in wanted.items():
            connection.execute(f"PRAGMA {name} = {value}").fetchall()
            found = _pragma(connection, name)
            if found != value:
                raise PersistenceError(
                    f"{self.path!r} cannot be used durably: SQLite {sqlite3.sqlite_version} answers {name} = {value} "
                    f"with {found}. Use a file on a local disk, which no other program has open."
                )


def _pragma(connection: sqlite3.Connection, name: str) -> int | str:
    value: int | str = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _identity(path: str) -> FileIdentity | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _renew_creation_lock() -> None:
    """A thread that held it at a fork does not exist in the child."""
    global _creation
    _creation = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_creation_lock)
