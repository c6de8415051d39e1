"""The parts of the SQLite backend by themselves, to the letter: lock, file, log, and what is told of failures."""

import asyncio
import contextlib
import errno
import importlib.util
import logging
import os
import queue
import sqlite3
import stat
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dotmac_workflows import (
    ConcurrencyError,
    JournalCorruptError,
    JournalTooNewError,
    PersistenceError,
    WorkflowStatus,
)
from dotmac_workflows.persistence import LeaseChange, SQLitePersistence
from dotmac_workflows.persistence.sqlite import _lock, _schema, _writer
from dotmac_workflows.persistence.sqlite._calls import Call, Mailbox, deliver, start_thread
from dotmac_workflows.persistence.sqlite._lock import InterprocessLock
from dotmac_workflows.persistence.sqlite._schema import Database, Settings
from dotmac_workflows.persistence.sqlite._statements import (
    Append,
    Delete,
    Renew,
    check_integrity,
    find_headers,
    read_lease,
    read_records,
)
from dotmac_workflows.persistence.sqlite._writer import Close, Open, Read, Reader, Writer
from journal_rows import header, records
from sqlite_stores import append, failure, writer_held

MIB = 1024 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals.db"


# The lock.


class Time:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    for module in (_lock, _writer):
        monkeypatch.setattr(module, "time", time)
    return time


@pytest.fixture
def two_locks(tmp_path: Path) -> Iterator[tuple[InterprocessLock, InterprocessLock]]:
    first, second = (InterprocessLock(str(tmp_path / "lock"), 0.05) for _ in range(2))
    first.open()
    second.open()
    yield first, second
    first.close()
    second.close()


def test_a_lock_waits_in_short_uneven_pauses_that_grow(
    two_locks: tuple[InterprocessLock, InterprocessLock], clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        shares.append((low, high))
        return 0.5

    monkeypatch.setattr(_lock, "random", SimpleNamespace(uniform=uniform))
    first, second = two_locks
    with first, pytest.raises(PersistenceError) as caught, second:
        pass
    growing = [0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032]
    assert clock.slept[:6] == pytest.approx(growing)
    assert set(clock.slept[6:]) == {0.005}
    assert clock.now - 100.0 >= 0.05
    assert clock.now - 100.0 - clock.slept[-1] < 0.05
    assert set(shares) == {(0.5, 1.0)}
    assert str(caught.value) == (
        f"{first.path!r} was not to be had for 0.05 s: process {os.getpid()} on host {os.uname().nodename} holds it, "
        "or took it last. Nothing was written. If that process hangs, end it; then try again."
    )
    with second:  # it was let go of inside the process too
        pass


def test_a_lock_is_waited_for_no_longer_than_its_limit_counting_from_the_threads(
    two_locks: tuple[InterprocessLock, InterprocessLock], clock: Time
) -> None:
    first, second = two_locks
    second.time_limit = 7.0
    asked: list[float] = []

    class Threads:
        def acquire(self, timeout: float = -1) -> bool:
            asked.append(timeout)
            clock.now += 6.99
            return True

        def release(self) -> None:
            asked.append(0)

    threads, second._threads = second._threads, Threads()  # type: ignore[assignment]  # to see how long it is waited for
    with first, pytest.raises(PersistenceError, match="was not to be had for 7 s"), second:
        pass
    second._threads = threads
    assert asked == [7.0, 0]
    assert sum(clock.slept) < 0.03


def loaded_once_more(module: ModuleType) -> ModuleType:
    """Return a copy of a module, for what is done when it is loaded."""
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


@pytest.mark.parametrize(("module", "name"), [(_lock, "_forget_locks"), (_schema, "_renew_creation_lock")])
def test_where_there_are_forks_a_child_is_told(module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[dict[str, object]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **given: hooks.append(given), raising=False)
    copy = loaded_once_more(module)
    assert hooks == [{"after_in_child": getattr(copy, name)}]
    monkeypatch.delattr(os, "register_at_fork")
    loaded_once_more(module)
    assert len(hooks) == 1


def test_where_nothing_can_be_locked_nobody_is_named(two_locks: tuple[InterprocessLock, InterprocessLock]) -> None:
    first, _ = two_locks
    with first:  # which leaves a name
        pass
    first.available = False
    assert "another process holds it" in str(first._busy())


def test_a_system_without_the_lock_or_without_a_name_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows is."""
    monkeypatch.delattr(os, "uname")
    lock = InterprocessLock(str(tmp_path / "lock"), 0.05)
    lock.open()
    with lock:
        assert Path(lock.path).read_text() == f"localhost {os.getpid()}\n"
    lock.close()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    copy = loaded_once_more(_lock)
    lock = copy.InterprocessLock(str(tmp_path / "another"), 0.05)
    assert lock.open() is False
    with lock:
        assert not Path(lock.path).exists()


@pytest.mark.parametrize("left", [b"", b"one", b"one two three", b"\xff\xfe"])
def test_where_nobody_left_a_name_it_is_said_without(
    two_locks: tuple[InterprocessLock, InterprocessLock], left: bytes
) -> None:
    first, second = two_locks
    with first:
        Path(first.path).write_bytes(left)
        with pytest.raises(PersistenceError, match=": another process holds it, or took it last"), second:
            pass


def test_a_name_of_another_host_is_shown_as_well_as_it_can_be(
    two_locks: tuple[InterprocessLock, InterprocessLock],
) -> None:
    first, second = two_locks
    with first:
        Path(first.path).write_bytes(b"h\xf6st 7\n")
        with pytest.raises(PersistenceError, match="process 7 on host h\ufffdst holds it"), second:
            pass


def test_a_name_is_written_only_over_another(
    two_locks: tuple[InterprocessLock, InterprocessLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_locks
    written: list[bytes] = []
    pwrite = os.pwrite

    def count(descriptor: int, text: bytes, offset: int) -> int:
        written.append(text)
        return pwrite(descriptor, text, offset)

    monkeypatch.setattr(os, "pwrite", count)
    name = f"{os.uname().nodename} {os.getpid()}\n".encode()
    for lock in (first, first, second, first):
        with lock:
            assert Path(lock.path).read_bytes() == name
    assert written == [name]
    Path(first.path).write_bytes(name + b"and more")
    with first:
        assert Path(first.path).read_bytes() == name
    assert written == [name, name]


def test_a_full_disk_leaves_the_lock_without_a_name(
    two_locks: tuple[InterprocessLock, InterprocessLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    first, second = two_locks
    with first, pytest.raises(PersistenceError, match="another process holds it"), second:
        pass


@pytest.mark.parametrize(
    ("error", "available"),
    [(None, True), (BlockingIOError(errno.EAGAIN, "busy"), True), (OSError(errno.ENOLCK, "No locks"), False)],
)
def test_whether_a_file_can_be_locked_is_found_out_without_keeping_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None, available: bool
) -> None:
    asked: list[int] = []
    fcntl: Any = vars(_lock)["fcntl"]
    flock = fcntl.flock

    def count(descriptor: int, operation: int) -> None:
        asked.append(operation)
        if error is not None:
            raise error
        flock(descriptor, operation)

    lock = InterprocessLock(str(tmp_path / "lock"), 0.05)
    assert not lock.available
    monkeypatch.setattr(fcntl, "flock", count)
    assert lock.open() is available
    assert lock.available is available
    assert asked == [fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_UN][: 2 if error is None else 1]
    assert lock.open() is available
    assert len(asked) == (2 if error is None else 1), "once is enough"
    assert stat.S_IMODE(os.stat(lock.path).st_mode) == 0o600
    if not available:
        with lock:
            pass
        assert len(asked) == 1, "what cannot be locked is not unlocked either"
    lock.close()
    lock.close()
    assert lock._descriptor == -1


def test_a_lock_of_no_time_is_asked_for_once(two_locks: tuple[InterprocessLock, InterprocessLock], clock: Time) -> None:
    first, second = two_locks
    second.time_limit = 0.0
    with first, pytest.raises(PersistenceError, match="for 0 s"), second:
        pass
    assert clock.slept == []


def test_a_lock_whose_file_was_closed_meanwhile_is_let_go_of(tmp_path: Path) -> None:
    lock = InterprocessLock(str(tmp_path / "lock"), 0.05)
    lock.open()
    with lock:
        lock._close_file()  # as in a forked child
    with lock:
        assert lock._descriptor >= 0
    lock.close()


def test_the_lock_file_may_have_the_first_descriptor(tmp_path: Path) -> None:
    """As in a process that was started without an input."""
    first, second = (InterprocessLock(str(tmp_path / "lock"), 0.05) for _ in range(2))
    kept = os.dup(0)
    os.close(0)
    try:
        assert first.open()
        assert second.open()
        assert first.open()
        assert first._descriptor == 0
        with first, pytest.raises(PersistenceError, match=f"process {os.getpid()} on host"), second:
            pass
        with second, pytest.raises(PersistenceError, match=f"process {os.getpid()} on host"), first:
            pass
        assert first._descriptor == 0
        first.close()
        second.close()
        assert first._descriptor == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_a_lock_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    lock = InterprocessLock(str(tmp_path / "missing" / "lock"), 0.05)
    with pytest.raises(PersistenceError) as caught:
        lock.open()
    assert str(caught.value) == (
        f"The lock file {lock.path!r} cannot be opened: No such file or directory. The process must be able to create "
        "and write files in the directory of the database."
    )
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_without_locks_between_processes_the_threads_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lock, "fcntl", None)
    lock = InterprocessLock(str(tmp_path / "lock"), 0.05)
    assert lock.open() is False
    assert not Path(lock.path).exists()
    with lock, pytest.raises(PersistenceError, match="0.05 s: another process holds it"), lock:
        pass
    with lock:
        pass


# The mailbox, and threads.


def test_a_mailbox_gives_in_order_and_ends_with_none() -> None:
    mailbox: Mailbox[int] = Mailbox()
    with pytest.raises(queue.Empty):
        mailbox.take(0.0)
    assert [mailbox.put(number) for number in (1, 2, 3)] == [True, True, True]
    assert mailbox.take() == 1
    assert mailbox.take_waiting() == [2, 3]
    assert mailbox.take_waiting() == []
    mailbox.put(4)
    mailbox.close()
    mailbox.close()
    assert mailbox.put(5) is False
    assert mailbox.take_waiting() == [4, None]


def test_an_abandoned_mailbox_ends_as_well() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox.abandon()
    assert mailbox.take() is None


def test_a_thread_has_a_name_and_keeps_no_process_alive() -> None:
    ran = threading.Event()
    thread = start_thread("a name", ran.set)
    thread.join()
    assert (thread.name, thread.daemon, ran.is_set()) == ("a name", True, True)


async def test_the_threads_of_a_store_are_named(path: Path) -> None:
    before = set(threading.enumerate())  # an earlier test's may be about to end
    async with SQLitePersistence(path):
        names = {thread.name for thread in set(threading.enumerate()) - before}
    assert names == {"dotmac-workflows sqlite reader", "dotmac-workflows sqlite writer"}


def test_answers_for_a_loop_that_was_closed_are_logged_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async def calls() -> list[Call[int]]:
        return [Call(certain=True), Call(certain=False)]

    left = asyncio.run(calls())
    with caplog.at_level(logging.DEBUG):
        deliver(left)
    assert [record.getMessage() for record in caplog.records] == [
        "An event loop was closed before 2 answers of the store reached it"
    ]


async def test_an_answer_that_was_abandoned_holds_no_other_up() -> None:
    abandoned, other = Call[int](certain=False), Call[int](certain=False)
    abandoned.future.cancel()
    other.result = 7
    deliver([abandoned, other])
    assert await other.outcome() == 7


async def test_a_certain_call_is_not_cancelled_and_another_is() -> None:
    certain, other = Call[int](certain=True), Call[int](certain=False)
    assert (certain.future.cancel(), other.future.cancel()) == (False, True)
    assert (certain.future.get_loop(), certain.error) == (asyncio.get_running_loop(), None)
    certain.result = 7
    deliver([certain])
    assert await certain.outcome() == 7


# The file.


def opened(path: Path) -> tuple[Database, sqlite3.Connection]:
    database = Database(str(path))
    database.prepare()
    with database.lock:
        return database, database.open()


def test_a_database_is_new_until_it_is_open(path: Path) -> None:
    database = Database(str(path))
    assert (database.settings, database.is_replaced, database.is_wal) == (Settings("", 0, 0), False, False)
    assert (database.wal_size(), database.lock.path, database.lock.time_limit) == (0, f"{path}-lock", 30.0)
    database, connection = opened(path)
    assert (database.settings, database.is_replaced, database.is_wal) == (Settings("wal", 2, 0), False, True)
    assert database.wal_size() == os.stat(f"{path}-wal").st_size > 0
    connection.close()
    assert path.read_bytes()[68:72] == b"dmwf"
    database.lock.close()


def test_a_connection_is_made_for_the_uri_with_the_patience_of_the_lock(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[object, ...], dict[str, object]]] = []
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **how: asked.append((args, how)))
    database = Database(str(path))
    database._connect("ro")
    assert asked == [
        (
            (f"{path.as_uri()}?mode=ro",),
            {"uri": True, "timeout": 30.0, "isolation_level": None, "factory": sqlite3.Connection},
        )
    ]


def test_the_settings_are_chosen_by_the_lock_and_the_version(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def choose(**how: object) -> Settings:
        asked.append(how)
        return Settings("truncate", 3, 1000)

    monkeypatch.setattr(_schema, "choose_settings", choose)
    database = Database(str(path))
    database.prepare()
    assert asked == [{"locked": True, "sqlite_version": sqlite3.sqlite_version_info}]
    assert database.settings == Settings("truncate", 3, 1000)
    database.lock.close()


def test_a_file_that_is_there_is_never_opened_but_by_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To close any descriptor of it would take all of this process's locks away."""
    asked: list[int] = []
    really = os.open

    def note(name: str, flags: int, mode: int) -> int:
        asked.append(flags)
        return really(name, flags, mode)

    monkeypatch.setattr(os, "open", note)
    database = Database(str(path))
    database._create_file()
    database._create_file()
    assert [flags & (os.O_CREAT | os.O_EXCL) for flags in asked] == [os.O_CREAT | os.O_EXCL] * 2
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_file_that_could_not_be_opened_once_more_is_still_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database, connection = opened(path)
    connection.close()

    def down() -> sqlite3.Connection:
        raise failure("SQLITE_IOERR")

    monkeypatch.setattr(database, "_open_writer", down)
    with pytest.raises(sqlite3.OperationalError):
        database.open()
    path.rename(f"{path}-before")  # not removed: its inode could be the new file's
    path.write_bytes(b"")
    with pytest.raises(PersistenceError, match="was deleted or replaced"):
        database.open()
    database.lock.close()


@pytest.mark.parametrize("suffix", ["wal", "journal"])
@pytest.mark.parametrize(
    ("name", "let_through"),
    [
        ("SQLITE_READONLY_ROLLBACK", True),
        ("SQLITE_READONLY", True),
        ("SQLITE_CANTOPEN", True),
        ("SQLITE_IOERR", False),
        ("SQLITE_BUSY", False),
    ],
)
def test_what_left_a_log_is_looked_at_without_writing(
    path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, name: str, let_through: bool
) -> None:
    database = Database(str(path))
    modes: list[str] = []

    def connect(mode: str) -> sqlite3.Connection:
        modes.append(mode)
        raise failure(name)

    monkeypatch.setattr(database, "_connect", connect)
    with database._looked_at():
        assert modes == [], "there is no log"
    Path(f"{path}-{suffix}").write_bytes(b"left")
    seen = nullcontext() if let_through else pytest.raises(sqlite3.OperationalError, match=name)
    with seen, database._looked_at():
        pass
    assert modes == ["ro"]


def refusal(database: Database) -> PersistenceError:
    try:
        database.prepare()
        with database.lock:
            database.open()
    except PersistenceError as error:
        return error
    raise AssertionError("it was not refused")


def test_what_no_file_can_be_is_refused_with_the_remedy(tmp_path: Path) -> None:
    directory = tmp_path / "folder"
    lost = directory / "journals.db"
    assert str(refusal(Database(str(lost)))) == (
        f"{str(lost)!r} cannot be opened: there is no directory {str(directory)!r}. Create it."
    )
    directory.mkdir()
    assert str(refusal(Database(str(directory)))) == (
        f"{str(directory)!r} cannot be opened: it is not a file. Use another path."
    )
    lost.write_bytes(b"x")
    error = refusal(Database(str(lost)))
    assert type(error) is JournalCorruptError
    assert str(error) == f"{str(lost)!r} is not a SQLite database. Nothing was touched. Use another path."
    assert lost.read_bytes() == b"x"


@pytest.mark.parametrize(("version", "old"), [((3, 36, 9), True), ((3, 37, 0), False)])
def test_an_old_sqlite_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], old: bool
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    database = Database(str(path))
    if not old:
        database.prepare()
        database.lock.close()
        return
    assert str(refusal(database)) == (
        f"Python is linked with SQLite {sqlite3.sqlite_version}; the store needs 3.37 or newer. Use a Python that has "
        "it."
    )


def test_a_file_that_cannot_be_created_says_why(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(str(path))
    database.prepare()

    def deny(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(PersistenceError) as caught:
        database._create_file()
    assert str(caught.value) == (
        f"{str(path)!r} cannot be created: Permission denied. The process must be able to write in its directory."
    )
    assert isinstance(caught.value.__cause__, PermissionError)


@pytest.mark.parametrize(
    ("statements", "application_id", "tables"),
    [
        (["CREATE TABLE theirs (a)", "CREATE INDEX by_a ON theirs (a)"], 0, 2),
        (["PRAGMA user_version = 3"], 0, 0),
        (["PRAGMA application_id = 7"], 7, 0),
    ],
)
def test_a_database_of_another_application_is_named(
    path: Path, statements: list[str], application_id: int, tables: int
) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    error = refusal(Database(str(path)))
    assert type(error) is PersistenceError
    assert str(error) == (
        f"{str(path)!r} is a SQLite database of another application (application id {application_id}, {tables} tables "
        "and indexes). Nothing was touched. Use another path."
    )


@pytest.mark.parametrize("version", [2, 7])
def test_a_file_of_a_newer_version_is_named(path: Path, version: int) -> None:
    database, connection = opened(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    database.lock.close()
    error = refusal(Database(str(path)))
    assert type(error) is JournalTooNewError
    assert str(error) == (
        f"{str(path)!r} was made by a newer version of dotmac-workflows (schema {version}, this one knows 1). Nothing "
        "was touched. Upgrade this process."
    )


GONE = (
    "{!r} was deleted or replaced while the store had it open. What was not acknowledged may be lost. Put the file "
    "back, or see to the one that is there, then make a new SQLitePersistence."
)


@pytest.mark.parametrize("what", ["", "-wal"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_is_gone_is_named_for_good(path: Path, what: str, how: str) -> None:
    database, connection = opened(path)
    gone = Path(f"{path}{what}")
    kept = gone.rename(f"{gone}-kept")
    if how == "replaced":
        gone.write_bytes(b"")
    look = database.check_not_replaced if not what else database.wal_size
    for _ in range(2):
        with pytest.raises(PersistenceError) as caught:
            look()
        assert str(caught.value) == GONE.format(str(gone))
    kept.rename(gone)
    with pytest.raises(PersistenceError) as caught:
        database.check_not_replaced()
    assert str(caught.value) == GONE.format(str(gone))
    assert database.is_replaced
    connection.close()
    database.lock.close()


def test_a_setting_that_is_not_taken_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pragma = _schema._pragma
    monkeypatch.setattr(_schema, "_pragma", lambda c, name: 1 if name == "synchronous" else pragma(c, name))
    assert str(refusal(Database(str(path)))) == (
        f"{str(path)!r} cannot be used durably: SQLite {sqlite3.sqlite_version} answers synchronous = 2 with 1. Use a "
        "file on a local disk, which no other program has open."
    )


# The log, and commits that fail.


class Asked:
    """A connection that notes what it is asked."""

    def __init__(self, *, fails: str = "", busy: int = 0, in_transaction: bool = True, closes: bool = True) -> None:
        self.statements: list[str] = []
        self.closed = False
        self.in_transaction = in_transaction
        self._fails = fails
        self._busy = busy
        self._closes = closes

    def execute(self, sql: str) -> Any:
        self.statements.append(sql)
        if self._fails and sql.startswith(self._fails):
            raise failure("SQLITE_IOERR")
        return SimpleNamespace(fetchone=lambda: (self._busy, 0, 0), fetchall=list)

    def cursor(self) -> Any:
        return SimpleNamespace(close=lambda: None)

    def close(self) -> None:
        self.closed = True
        if not self._closes:
            raise failure("SQLITE_IOERR")


@pytest.fixture
def writer(path: Path) -> Writer:
    database = Database(str(path))
    database.settings = Settings("wal", 2, 0)
    return Writer(database, Reader(database))


def test_the_log_is_checkpointed_at_its_marks(writer: Writer) -> None:
    modes: list[tuple[int, str]] = []
    size = 0
    writer._checkpoint = lambda connection, mode: modes.append((size, mode))  # type: ignore[method-assign]
    connection: Any = Asked()
    for size in (
        4 * MIB - 1,
        4 * MIB,
        4 * MIB + 1,
        5 * MIB - 1,
        5 * MIB,
        5 * MIB + 1,
        9 * MIB,
        10 * MIB - 1,
        16 * MIB - 1,
        17 * MIB - 2,
        17 * MIB - 1,
        0,
        4 * MIB,
        16 * MIB,
    ):
        writer._keep_log_short(connection, size)
    assert modes == [
        (4 * MIB, "PASSIVE"),
        (5 * MIB, "PASSIVE"),
        (9 * MIB, "PASSIVE"),
        (16 * MIB - 1, "PASSIVE"),
        (17 * MIB - 1, "TRUNCATE"),
        (4 * MIB, "PASSIVE"),
        (16 * MIB, "TRUNCATE"),
    ]
    writer._database.settings = Settings("wal", 2, 1000)  # then SQLite checkpoints by itself
    writer._keep_log_short(connection, 99 * MIB)
    assert len(modes) == 7


@pytest.mark.parametrize(("size", "mode"), [(4 * MIB, "PASSIVE"), (16 * MIB, "TRUNCATE")])
def test_a_log_that_is_long_from_the_beginning_is_checkpointed_at_once(writer: Writer, size: int, mode: str) -> None:
    modes: list[str] = []
    writer._checkpoint = lambda connection, mode: modes.append(mode)  # type: ignore[method-assign]
    connection: Any = Asked()
    writer._keep_log_short(connection, size)
    assert modes == [mode]


def test_a_checkpoint_waits_for_readers_for_a_short_while_only(writer: Writer) -> None:
    connection: Any = Asked()
    writer._checkpoint(connection, "PASSIVE")
    assert connection.statements == [
        "PRAGMA busy_timeout = 200",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA busy_timeout = 30000",
    ]


def test_a_checkpoint_that_fails_is_logged_and_nothing_more(writer: Writer, caplog: pytest.LogCaptureFixture) -> None:
    connection: Any = Asked(fails="PRAGMA wal_checkpoint")
    writer._checkpoint(connection, "TRUNCATE")
    assert connection.statements[-1] == "PRAGMA busy_timeout = 30000"
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == (
        "dotmac_workflows.persistence.sqlite._writer",
        "WARNING",
        f"A checkpoint of {writer._database.path} failed; it will be tried again",
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], sqlite3.OperationalError)


@pytest.mark.parametrize("mode", ["wal", "truncate"])
def test_what_is_sealed_is_written_once_more_and_moved_out_of_the_log(writer: Writer, mode: str) -> None:
    writer._database.settings = Settings(mode, 2, 0)
    connection: Any = Asked()
    writer._seal(connection, lost_to=None)
    own = ["BEGIN IMMEDIATE", "PRAGMA user_version = 1", "COMMIT"]
    assert connection.statements == own + (["PRAGMA wal_checkpoint(TRUNCATE)"] if mode == "wal" else [])
    if mode == "wal":
        busy: Any = Asked(busy=1)
        with pytest.raises(PersistenceError) as caught:
            writer._seal(busy, lost_to=None)
        assert str(caught.value) == f"{writer._database.path!r} is being read, and its log cannot be emptied."


@pytest.mark.parametrize(("mode", "fails"), [("truncate", "COMMIT"), ("wal", "PRAGMA wal_checkpoint")])
def test_what_cannot_be_sealed_for_another_reason_than_room_is_not_sealed(
    writer: Writer, mode: str, fails: str
) -> None:
    writer._database.settings = Settings(mode, 2, 0)
    connection: Any = Asked(fails=fails)
    with pytest.raises(sqlite3.OperationalError, match="simulated SQLITE_IOERR"):
        writer._seal(connection, lost_to=failure("SQLITE_FULL"))


@pytest.mark.parametrize(
    ("connected", "mode", "kept"), [(True, "wal", True), (False, "wal", False), (True, "truncate", False)]
)
def test_a_log_is_kept_open_while_its_connection_is_exchanged(
    writer: Writer, connected: bool, mode: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = writer._database
    database.settings = Settings(mode, 2, 0)
    before: Any = Asked()
    after, reader = Asked(), Asked()
    readers: list[Asked] = []

    def open_reader() -> Asked:
        assert not before.closed
        readers.append(reader)
        return reader

    def open_again() -> Asked:
        assert (before.closed, reader.closed) == (connected, False)
        return after

    monkeypatch.setattr(database, "lock", contextlib.nullcontext())
    monkeypatch.setattr(database, "open_reader", open_reader)
    monkeypatch.setattr(database, "open", open_again)
    monkeypatch.setattr(writer, "_seal", lambda connection, *, lost_to: None)
    writer._connection = before if connected else None
    assert writer._missing_after_reopening([], failure("SQLITE_FULL")) == []
    assert (len(readers), reader.closed, writer._connection) == (kept, kept, after)


def test_a_rollback_is_asked_for_only_where_there_is_a_transaction(writer: Writer) -> None:
    connection: Any = Asked()
    writer._connection = connection
    writer._roll_back(connection)
    assert (connection.statements, connection.closed, writer._connection) == (["ROLLBACK"], False, connection)
    rolled_back: Any = Asked(in_transaction=False)
    writer._roll_back(rolled_back)
    assert (rolled_back.statements, rolled_back.closed) == ([], False)


@pytest.mark.parametrize("closes", [True, False])
def test_a_rollback_that_fails_closes_the_connection(
    writer: Writer, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    connection: Any = Asked(fails="ROLLBACK", closes=closes)
    writer._connection = connection
    writer._roll_back(connection)
    assert (connection.closed, writer._connection) == (True, None)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"The store {writer._database.path} could not roll back; it is opened anew",
    )
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], sqlite3.OperationalError)


def waiting(*names: str) -> list[Any]:
    return [SimpleNamespace(workflow_id=name, error=None) for name in names]


def test_each_write_is_told_why_by_an_error_of_its_own(writer: Writer) -> None:
    refused = PersistenceError("the lock is busy", workflow_id="another")
    writes = waiting("order-1", "order-2")
    writer._fail(writes, refused)
    for write in writes:
        assert (type(write.error), str(write.error)) == (PersistenceError, "the lock is busy")
        assert (write.error.workflow_id, write.error.__cause__) == (write.workflow_id, refused)
    assert writes[0].error is not writes[1].error
    damage = JournalCorruptError("damaged")
    writer._fail(writes, damage)
    assert type(writes[0].error) is JournalCorruptError
    full = failure("SQLITE_FULL")
    writer._fail(writes, full)
    assert str(writes[1].error).startswith(f"{writer._database.path!r} cannot grow")
    assert (writes[1].error.workflow_id, writes[1].error.__cause__) == ("order-2", full)


def test_what_became_of_a_commit_is_asked_again_and_again_and_then_unknown(
    writer: Writer, clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    fsync = failure("SQLITE_IOERR_FSYNC")
    asked: list[tuple[Any, Any]] = []

    def down(writes: Any, error: Any) -> Any:
        asked.append((writes, error))
        raise failure("SQLITE_CANTOPEN")

    writer._missing_after_reopening = down  # type: ignore[method-assign]  # the disk is down
    connection: Any = Asked()
    writer._connection = connection
    accepted, refused = waiting("order-1", "order-2")
    refused.error = ConcurrencyError("refused")
    with caplog.at_level(logging.WARNING):
        writer._settle([accepted, refused], fsync)
    growing = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64]
    assert clock.slept[:7] == pytest.approx(growing)
    assert set(clock.slept[7:]) == {1.0}
    assert 29.0 < sum(clock.slept) <= 30.0
    assert asked == [([accepted], fsync)] * (len(clock.slept) + 1)
    assert {record.getMessage() for record in caplog.records} == {
        "What became of a commit could not be found out yet: simulated SQLITE_CANTOPEN"
    }
    assert str(accepted.error) == (
        f"What became of a write to {writer._database.path!r} could not be found out within 30 s (SQLITE_IOERR_FSYNC: "
        "simulated SQLITE_IOERR_FSYNC): it may be stored or not. Mend the disk; the next verb reads the journal and "
        "goes on from what is there."
    )
    assert accepted.error.workflow_id == "order-1"
    assert str(refused.error) == "refused"
    assert (connection.closed, writer._connection) == (True, None)


def test_the_last_moment_is_still_in_time(writer: Writer, clock: Time) -> None:
    def down(writes: Any, error: Any) -> Any:
        raise failure("SQLITE_CANTOPEN")

    writer._missing_after_reopening = down  # type: ignore[method-assign]  # the disk is down
    writer.settle_seconds = 0.01
    writer._settle(waiting("order-1"), failure("SQLITE_IOERR_FSYNC"))
    assert clock.slept == [0.01]


def test_what_did_not_land_is_told_what_its_commit_failed_with(writer: Writer, clock: Time) -> None:
    fsync = failure("SQLITE_IOERR_FSYNC")
    landed, missing = waiting("order-1", "order-2")
    writer._missing_after_reopening = lambda writes, error: [missing]  # type: ignore[method-assign]  # one of them
    writer._settle([landed, missing], fsync)
    assert (landed.error, missing.error.__cause__, clock.slept) == (None, fsync, [])


def test_a_commit_that_fails_is_told_with_its_cause(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer._database, "check_not_replaced", lambda: None)
    writer._connection = Asked(fails="COMMIT")  # type: ignore[assignment]  # a stand-in
    with pytest.raises(_writer._CommitError) as caught:
        writer._transact([])
    assert isinstance(caught.value.cause, sqlite3.OperationalError)


def test_a_log_that_was_written_to_is_left_for_a_second_and_any_other_for_ever(writer: Writer) -> None:
    waited: list[float | None] = []

    def take(timeout: float | None = None) -> Any:
        waited.append(timeout)
        raise queue.Empty

    writer._mailbox.take = take  # type: ignore[method-assign]  # nothing ever comes
    for used in (None, True, None):
        writer._log_is_used = writer._log_is_used if used is None else used
        assert writer._turn() is True
    assert waited == [None, 1.0, None]


def test_of_a_file_that_is_gone_nothing_is_asked_again(writer: Writer, clock: Time) -> None:
    gone = PersistenceError("it is gone")

    def down(writes: Any, error: Any) -> Any:
        writer._database._replaced = "journals.db"
        raise gone

    writer._missing_after_reopening = down  # type: ignore[method-assign]  # the file is gone
    (write,) = waiting("order-1")
    writer._settle([write], failure("SQLITE_IOERR_FSYNC"))
    assert (str(write.error), write.error.__cause__, clock.slept) == ("it is gone", gone, [])


@pytest.mark.parametrize("busy", [PersistenceError("busy"), OSError("simulated")])
def test_a_connection_is_closed_even_without_the_lock(busy: Exception, caplog: pytest.LogCaptureFixture) -> None:
    held: list[str] = []

    class Lock:
        def __enter__(self) -> None:
            held.append("taken")

        def __exit__(self, *_: object) -> None:
            held.append("let go")

    class Busy(Lock):
        def __enter__(self) -> None:
            raise busy

    class Closes(Asked):
        def close(self) -> None:
            held.append("closed")
            if self._fails:
                raise failure("SQLITE_BUSY")

    database: Any = SimpleNamespace(path="journals.db", lock=Lock())
    closes: Any = Closes()
    _writer._close_connection(database, closes)
    assert held == ["taken", "closed", "let go"]
    held.clear()
    database.lock = Busy()
    _writer._close_connection(database, closes)
    assert held == ["closed"]
    assert caplog.records == []
    fails: Any = Closes(fails="close")
    _writer._close_connection(database, fails)
    (record,) = caplog.records
    assert record.getMessage() == "A connection to journals.db could not be closed"
    assert record.exc_info, "with the traceback"


# What a caller is told by the store itself.


async def test_a_closed_store_and_one_without_a_file_say_so(path: Path) -> None:
    store = SQLitePersistence(path)
    assert repr(store) == f"SQLitePersistence({str(path)!r})"
    await store.close()
    for verb in (store.read("order-1"), store.delete("order-1"), store.find(), store.check()):
        with pytest.raises(PersistenceError) as caught:
            await verb
        assert str(caught.value) == f"SQLitePersistence({str(path)!r}) is closed. Make a new one."
    for given in ("", ":memory:"):
        with pytest.raises(Exception, match="names no file") as refused:
            SQLitePersistence(given)
        assert str(refused.value) == (
            f"SQLitePersistence({given!r}) names no file, and would keep nothing. For a store that ends with the "
            "process use InMemoryPersistence()."
        )
    with pytest.raises(Exception, match="NUL") as refused:
        SQLitePersistence("a\0b")
    assert str(refused.value) == "SQLitePersistence('a\\x00b'): no file name has a NUL in it."


# The rows.


@pytest.fixture
def cursor(path: Path) -> Iterator[sqlite3.Cursor]:
    database, connection = opened(path)
    yield connection.cursor()
    connection.close()
    database.lock.close()


async def test_who_is_cancelled_waits_for_every_write_and_for_no_read() -> None:
    writes: list[Call[Any]] = [
        Append("w", [], 0, header("w", 0), None),
        Renew("w", "t", 1),
        Delete("w"),
        Close(certain=True),
    ]
    assert [write.future.cancel() for write in writes] == [False] * 4
    assert Read(lambda cursor: 0).future.cancel() is True


async def test_an_ordinary_append_rewrites_no_index() -> None:
    asked: list[str] = []
    stub: Any = SimpleNamespace(execute=lambda sql, _: asked.append(sql), executemany=lambda *_: None, rowcount=1)
    Append("w", records(2), 2, header("w", 4), None).perform(stub)
    Append("w", records(2), 2, header("w", 4), LeaseChange("t", "o", 9, "t")).perform(stub)
    unlisted = "UPDATE workflows SET version = ?, pending_step = ?, updated_at = ?, wake_at = ?"
    assert [sql.partition(" WHERE ")[0] for sql in asked] == [
        unlisted,
        f"{unlisted}, lease_token = ?, lease_owner = ?, lease_expires_at = ?",
    ]


@pytest.mark.parametrize(("limit", "asked"), [(125, 125), (2**62 + 1, 2**62)])
def test_a_limit_is_no_larger_than_sqlite_takes(limit: int, asked: int) -> None:
    given: list[list[object]] = []

    def execute(sql: str, parameters: list[object]) -> Any:
        given.append(parameters)
        return SimpleNamespace(fetchall=list)

    cursor: Any = SimpleNamespace(execute=execute)
    assert find_headers(cursor, None, None, None, None, limit) == []
    assert given == [[asked]]


async def test_a_workflow_is_deleted_whatever_is_left_of_it(cursor: sqlite3.Cursor) -> None:
    Append("headers only", [], 0, header("headers only", 0), None).perform(cursor)
    Append("both", records(0), 0, header("both", 2), None).perform(cursor)
    Append("records only", records(0, 1), 0, header("records only", 1), None).perform(cursor)
    cursor.execute("DELETE FROM workflows WHERE workflow_id = 'records only'")
    for name in ("headers only", "both", "records only"):
        assert Delete(name).perform(cursor) is True
        assert Delete(name).perform(cursor) is False
        assert Delete(name).has_landed(cursor)


async def test_a_lease_is_renewed_with_the_version_that_is_stored(cursor: sqlite3.Cursor) -> None:
    lease = LeaseChange("t", "o", 9, None)
    Append("w", records(0), 0, header("w", 2), lease).perform(cursor)
    assert Renew("w", "t", 10).perform(cursor) == 2
    assert read_lease(cursor, "w") == ("o", "t", 10)


async def test_the_end_of_a_journal_is_read_by_itself(cursor: sqlite3.Cursor) -> None:
    Append("w", records(0, 5), 0, header("w", 5), None).perform(cursor)
    for after in range(6):
        assert read_records(cursor, "w", after) == records(0, 5)[after:]
    assert read_records(cursor, "w", 7) == []
    cursor.execute("DELETE FROM records WHERE seq = 4")
    with pytest.raises(JournalCorruptError) as caught:
        read_records(cursor, "w", 2)
    assert str(caught.value) == (
        "The journal of workflow 'w' is damaged: its header says version 5, but record 4 is missing. Nothing was "
        "overwritten; restore the store from a backup."
    )
    assert (caught.value.workflow_id, caught.value.seq) == ("w", 4)
    cursor.execute("UPDATE workflows SET version = 3")
    cursor.execute("DELETE FROM records WHERE seq = 5")
    Append("w", records(3, 1), 3, header("w", 4), None)._insert(cursor)
    cursor.execute("UPDATE workflows SET version = 2")
    with pytest.raises(JournalCorruptError, match="but record 3 is more than it should have"):
        read_records(cursor, "w", 0)


def test_what_is_found_damaged_is_said_in_one_line() -> None:
    found: Any = SimpleNamespace(fetchall=lambda: [("row 1  missing\n from index a",), ("page 2",)])
    asked: list[str] = []

    def execute(sql: str) -> Any:
        asked.append(sql)
        return found

    stub: Any = SimpleNamespace(execute=execute)
    with pytest.raises(JournalCorruptError) as caught:
        check_integrity(stub, "orders.db")
    assert str(caught.value) == (
        "'orders.db' is damaged (row 1 missing from index a; page 2). Nothing was overwritten; restore it from a "
        "backup."
    )
    assert asked == ["PRAGMA integrity_check(10)"]
    found.fetchall = lambda: [("ok",)]
    check_integrity(stub, "orders.db")


# The threads' turns.


async def test_a_read_that_fails_is_answered_with_its_workflow_and_on_another_connection(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, reader = writer._database, writer._reader
    connections: list[Any] = []

    def connect() -> Any:
        connections.append(SimpleNamespace(cursor=lambda: SimpleNamespace(close=lambda: None), closed=False))
        connection = connections[-1]
        connection.close = lambda: setattr(connection, "closed", True)
        return connection

    monkeypatch.setattr(database, "open_reader", connect)
    error = sqlite3.OperationalError("Could not decode to UTF-8")

    def fails(cursor: object) -> int:
        raise error

    broken, sound, refused = Read(fails, "order-1"), Read(lambda cursor: 7), Read(lambda cursor: 8)
    for read in (broken, sound):
        reader.submit(read)
        assert reader._turn() is True
    with pytest.raises(JournalCorruptError, match="a text in it cannot be decoded") as caught:
        await broken.outcome()
    assert (caught.value.workflow_id, caught.value.__cause__) == ("order-1", error)
    assert await sound.outcome() == 7
    assert [connection.closed for connection in connections] == [True, False]
    gone = PersistenceError("it is gone")

    def look() -> None:
        raise gone

    monkeypatch.setattr(database, "check_not_replaced", look)
    reader.submit(refused)
    assert reader._turn() is True
    with pytest.raises(PersistenceError) as told:
        await refused.outcome()
    assert told.value is gone
    assert connections[1].closed is False
    reader.stop()  # there is no thread to wait for
    assert reader._turn() is False
    assert reader.submit(refused) is False


def test_a_reader_is_waited_for(writer: Writer) -> None:
    reader = writer._reader
    reader.start()
    thread = reader._thread
    assert thread is not None
    reader.stop()
    assert not thread.is_alive()


def test_a_commit_that_failed_is_asked_after_with_its_cause(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    cause = failure("SQLITE_IOERR_FSYNC")
    settled: list[object] = []

    def fails(writes: object) -> None:
        raise _writer._CommitError(cause)

    monkeypatch.setattr(writer, "_transact", fails)
    monkeypatch.setattr(writer, "_settle", lambda *told: settled.append(told))
    writes = waiting("order-1")
    writer._commit(writes)
    assert settled == [(writes, cause)]


def test_a_log_that_cannot_be_emptied_is_left_to_whoever_is_busy(
    writer: Writer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []
    monkeypatch.setattr(writer, "_checkpoint", lambda connection, mode: modes.append(mode))
    connection: Any = Asked()
    writer._empty_log()
    writer._connection = connection
    writer._database.settings = Settings("truncate", 3, 1000)
    writer._empty_log()
    assert modes == [], "there is no connection, or no log"
    writer._database.settings = Settings("wal", 2, 0)
    writer._log_is_used = True
    writer._empty_log()
    assert (modes, writer._log_is_used) == (["TRUNCATE"], False)
    busy = PersistenceError("it is gone")

    def look() -> None:
        raise busy

    monkeypatch.setattr(writer._database, "check_not_replaced", look)
    with caplog.at_level(logging.DEBUG):
        writer._empty_log()
    assert [record.getMessage() for record in caplog.records] == [
        f"The log of {writer._database.path} was not emptied: it is gone"
    ]
    assert modes == ["TRUNCATE"]


async def test_what_was_not_foreseen_is_logged_and_told_to_every_write(
    writer: Writer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("never thought of")

    def fails(writes: object) -> None:
        raise error

    monkeypatch.setattr(writer, "_commit", fails)
    writes = [Delete("order-1"), Delete("order-2")]
    writer._commit_and_deliver(list(writes))
    for write in writes:
        with pytest.raises(PersistenceError, match="could not do what it was asked") as caught:
            await write.outcome()
        assert (caught.value.workflow_id, caught.value.__cause__) == (write.workflow_id, error)
    (record,) = caplog.records
    assert record.getMessage() == f"The store {writer._database.path} failed in a way that was not foreseen"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    writer._commit_and_deliver([])


async def test_a_store_that_cannot_be_opened_tells_why(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure("SQLITE_CANTOPEN")

    def fails() -> None:
        raise error

    monkeypatch.setattr(writer._database, "prepare", fails)
    call = Open(certain=False)
    writer._answer_open(call)
    with pytest.raises(PersistenceError, match="cannot be opened") as caught:
        await call.outcome()
    assert str(caught.value).startswith(f"{writer._database.path!r} cannot be opened")
    assert caught.value.__cause__ is error
    writer._connection = Asked()  # type: ignore[assignment]  # it is open already
    again = Open(certain=False)
    writer._answer_open(again)
    await again.outcome()
    assert again.future.result() is None


async def test_a_lock_that_is_busy_fails_each_write_and_keeps_the_connection(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection: Any = Asked()
    writer._connection = connection
    busy = PersistenceError("the lock is busy")

    def fails(writes: object) -> None:
        raise busy

    monkeypatch.setattr(writer, "_transact", fails)
    writes = waiting("order-1")
    writer._commit(writes)
    assert (str(writes[0].error), writes[0].error.__cause__, writer._connection) == (
        "the lock is busy",
        busy,
        connection,
    )
    other = failure("SQLITE_IOERR")

    def breaks(writes: object) -> None:
        raise other

    monkeypatch.setattr(writer, "_transact", breaks)
    writer._commit(writes)
    assert (writes[0].error.__cause__, writer._connection, connection.closed) == (other, None, True)


async def test_every_read_of_a_workflow_is_about_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SQLitePersistence(path)
    asked: list[Read[Any]] = []

    async def note(read: Read[Any]) -> Any:
        asked.append(read)
        return None

    monkeypatch.setattr(store, "_read", note)
    await store.read("order-1", after=3)
    await store.lease("order-2")
    await store.find(status=WorkflowStatus.PAUSED, workflow_type="Order", due_before=7, limit=5)
    await store.check()
    assert [read.workflow_id for read in asked] == ["order-1", "order-2", None, None]
    shown: list[Any] = [read.perform for read in asked]
    assert [each.keywords for each in shown] == [
        {"workflow_id": "order-1", "after": 3},
        {"workflow_id": "order-2"},
        {"status": WorkflowStatus.PAUSED, "workflow_type": "Order", "due_before": 7, "after": None, "limit": 5},
        {"path": str(path)},
    ]


async def test_a_store_of_another_process_says_so(path: Path) -> None:
    store = SQLitePersistence(path)
    store._process = 7
    with pytest.raises(PersistenceError) as caught:
        await store.find()
    assert str(caught.value) == (
        f"SQLitePersistence({str(path)!r}) was opened by process 7, before a fork; SQLite's connections and locks do "
        f"not outlive one. Make a new SQLitePersistence in this process ({os.getpid()})."
    )


async def test_what_another_process_opened_takes_no_append(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        process, store._process = store._process, 7
        with pytest.raises(PersistenceError, match="was opened by process 7"):
            await append(store, "order-1")
        store._process = process
        assert await store.read("order-1") == []


async def test_who_is_cancelled_while_it_opens_does_not_wait(path: Path) -> None:
    store = SQLitePersistence(path)
    with store._database.lock:  # so that it cannot be opened yet
        opening = asyncio.create_task(store.find())
        await asyncio.sleep(0)
        opening.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert opening.cancelled()
    await store.close()


async def test_who_is_cancelled_while_it_closes_waits_for_the_end(path: Path) -> None:
    store = SQLitePersistence(path)
    await append(store, "w")
    async with writer_held(store):
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not closing.done()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert store._writer._ended


async def test_a_store_that_was_forgotten_is_left_alone_when_the_program_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it acknowledged is on the disk, and its threads end with the process."""
    made: list[weakref.finalize[..., Any]] = []

    class Noted(weakref.finalize):  # type: ignore[type-arg]  # generic for type checkers only
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(weakref, "finalize", Noted)
    async with SQLitePersistence(path):
        assert [each.atexit for each in made] == [False]
