"""What SQLite adds to the contract: threads, event loops, batches, settings, and a file that has a life of its own."""

# ruff: noqa: ASYNC110, ASYNC240 (these tests look at files and at a thread, while nothing else is in their loop)

import asyncio
import gc
import os
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows.errors import (
    ConcurrencyError,
    JournalCorruptError,
    JournalTooNewError,
    LeaseLostError,
    PersistenceError,
    WorkflowConfigurationError,
)
from dotmac_workflows.persistence import LeaseChange, SQLitePersistence
from dotmac_workflows.persistence.sqlite import lock as lock_module
from dotmac_workflows.persistence.sqlite import schema, statements, writer
from dotmac_workflows.persistence.sqlite.lock import InterprocessLock
from dotmac_workflows.persistence.sqlite.schema import Database, Settings, choose_settings, has_wal_reset_fix
from dotmac_workflows.status import WorkflowStatus
from journal_rows import header, records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals.db"


async def append(store: SQLitePersistence, workflow_id: str, version: int = 0, *, mark: str = "") -> None:
    """Append two records."""
    await store.append(
        workflow_id,
        records(version, mark=mark),
        expected_version=version,
        header=header(workflow_id, version + 2),
    )


class Statements:
    """What the connections of a store were asked to do, in words that can be counted."""

    def __init__(self, store: SQLitePersistence) -> None:
        self.seen: list[str] = []
        seen = self.seen

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, /, *parameters: Any) -> sqlite3.Cursor:
                seen.append(sql)
                return super().execute(sql, *parameters)

        store._database.connection_class = Connection

    def count(self, beginning: str) -> int:
        return sum(sql.startswith(beginning) for sql in self.seen)


@asynccontextmanager
async def writer_held(store: SQLitePersistence) -> AsyncIterator[None]:
    """Hold the writer up in a batch of its own, so that all that is submitted inside comes in the next batch."""
    mailbox = store._writer._mailbox
    with store._database.lock:
        first = asyncio.create_task(append(store, "held up"))
        await asyncio.sleep(0)
        while not mailbox._waiting.empty():
            await asyncio.sleep(0)
        yield
        await asyncio.sleep(0)
    await first


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.002)


# --- The file


async def test_the_files_are_for_this_user_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SQLitePersistence(path) as store:
            await append(store, "w")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    names = ("journals.db", "journals.db-lock", "journals.db-shm", "journals.db-wal")
    assert modes == dict.fromkeys(names, 0o600)


@pytest.mark.parametrize("given", ["", ":memory:"])
def test_a_store_without_a_file_is_refused(given: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match="InMemoryPersistence"):
        SQLitePersistence(given)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(WorkflowConfigurationError, match="NUL"):
        SQLitePersistence("a\0b")


async def test_the_path_is_fixed_when_the_store_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    store = SQLitePersistence("a b%41?#.db")
    monkeypatch.chdir("/")
    assert store.path == os.path.realpath(tmp_path / "real" / "a b%41?#.db")
    async with store:
        await append(store, "w")
    assert sorted(os.listdir(tmp_path / "real")) == ["a b%41?#.db", "a b%41?#.db-lock"]


async def test_making_a_store_touches_nothing(path: Path) -> None:
    threads = threading.active_count()
    store = SQLitePersistence(path)
    assert os.listdir(path.parent) == []
    assert threading.active_count() == threads
    await store.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    store = SQLitePersistence(tmp_path / "missing" / "journals.db")
    with pytest.raises(PersistenceError, match=r"no directory .*missing.*Create it"):
        await store.read("w")
    (tmp_path / "missing").mkdir()
    assert await store.read("w") == [], "once mended, the same object goes on"
    await store.close()


async def test_a_directory_is_no_database(tmp_path: Path) -> None:
    store = SQLitePersistence(tmp_path)
    with pytest.raises(PersistenceError, match="not a file"):
        await store.read("w")
    await store.close()


def make_foreign(path: Path, *script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in script:
        connection.execute(statement)
    connection.close()


def leave_a_log(path: Path) -> None:
    """Leave the file as a crash does: with a write-ahead log that has not been folded in."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE other (x)")
    aside = {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal")}
    connection.close()
    for name, content in aside.items():
        Path(f"{path}{name}").write_bytes(content)


OURS = f"PRAGMA application_id={schema.APPLICATION_ID}"


@pytest.mark.parametrize("with_log", [False, True])
@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        (["CREATE TABLE users (x)"], PersistenceError, "another application.*another path"),
        (["PRAGMA application_id=7"], PersistenceError, "another application.*another path"),
        (["PRAGMA user_version=1"], PersistenceError, "another application.*another path"),
        ([OURS, "PRAGMA user_version=2"], JournalTooNewError, "newer version.*schema 2.*Upgrade"),
    ],
)
async def test_what_is_not_ours_is_refused_untouched(
    path: Path, script: list[str], error: type[PersistenceError], says: str, with_log: bool
) -> None:
    make_foreign(path, *script)
    if with_log:
        leave_a_log(path)
    before = {file: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
    store = SQLitePersistence(path)
    for _ in range(2):
        with pytest.raises(error, match=says) as refusal:
            await append(store, "w")
        assert type(refusal.value) is error
    await store.close()
    after = {file: file.read_bytes() for file in before}
    assert after == before
    assert {file.name for file in path.parent.iterdir()} <= {
        "journals.db",
        "journals.db-lock",
        *(["journals.db-wal", "journals.db-shm"] if with_log else []),
    }


@pytest.mark.parametrize("content", [b"x", b"hello", b"# a text\n" * 1000])
async def test_a_file_of_another_kind_is_refused_untouched(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    store = SQLitePersistence(path)
    with pytest.raises(JournalCorruptError, match="not a SQLite database"):
        await store.find()
    await store.close()
    assert path.read_bytes() == content


async def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        assert await store.read("w") == records(0)


async def test_a_sqlite_without_strict_tables_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    store = SQLitePersistence(path)
    with pytest.raises(PersistenceError, match=r"needs 3\.37"):
        await store.find()
    await store.close()
    assert not path.exists()


async def test_a_file_that_is_deleted_is_noticed_for_good(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(PersistenceError, match=r"deleted or replaced.*make a new SQLitePersistence"):
            await append(store, "w", 2)
        path.write_bytes(content)
        for again in (
            append(store, "w", 2),
            store.read("w"),
            store.find(),
            store.delete("w"),
            store.renew("w", "t", 1),
        ):
            with pytest.raises(PersistenceError, match="deleted or replaced"):
                await again


async def test_a_reader_notices_a_deleted_file_too(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        assert await store.read("w") == records(0)
        path.unlink()
        with pytest.raises(PersistenceError, match="deleted or replaced"):
            await store.read("w")


async def test_a_deleted_log_is_noticed_before_anything_is_acknowledged(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        os.unlink(f"{path}-wal")
        with pytest.raises(PersistenceError, match="-wal' was deleted or replaced"):
            await append(store, "w", 2)


async def test_a_file_deleted_during_the_commit_is_noticed_before_it_is_acknowledged(path: Path) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, /, *parameters: Any) -> sqlite3.Cursor:
            if sql == "COMMIT" and armed:
                path.unlink()
            return super().execute(sql, *parameters)

    armed: list[bool] = []
    store = SQLitePersistence(path)
    store._database.connection_class = Connection
    async with store:
        await append(store, "w")
        armed.append(True)
        with pytest.raises(PersistenceError, match="deleted or replaced"):
            await append(store, "w", 2)


async def test_a_replaced_file_keeps_what_is_in_it_and_in_its_log(path: Path, tmp_path: Path) -> None:
    """The connection to the old file must not delete the log of the new one when it is closed."""
    (tmp_path / "aside").mkdir()
    other = tmp_path / "aside" / "other.db"
    async with SQLitePersistence(path) as store, SQLitePersistence(other) as another:
        await append(store, "w", mark="old")
        await append(another, "w", mark="new")
        await append(another, "w", 2, mark="new")
        copies = {name: Path(f"{other}{name}").read_bytes() for name in ("", "-wal")}
        for name, content in copies.items():
            (tmp_path / f"copy{name}").write_bytes(content)
            os.replace(tmp_path / f"copy{name}", f"{path}{name}")
        with pytest.raises(PersistenceError, match="deleted or replaced"):
            await append(store, "w", 2)
    async with SQLitePersistence(path) as store:
        assert await store.read("w") == records(0, 4, mark="new")


# --- Settings


def settings_of(connection: sqlite3.Connection) -> dict[str, object]:
    names = (
        "journal_mode",
        "synchronous",
        "wal_autocheckpoint",
        "busy_timeout",
        "foreign_keys",
        "trusted_schema",
        "cell_size_check",
        "application_id",
        "user_version",
    )
    return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names}


@pytest.mark.parametrize("opening", ["open", "open_reader"])
def test_every_connection_has_the_durable_settings(path: Path, opening: str) -> None:
    database = Database(str(path))
    database.prepare()
    with database.lock:
        first = database.open()
        connection = getattr(database, opening)()
    try:
        assert settings_of(connection) == {
            "journal_mode": "wal",
            "synchronous": 2,
            "wal_autocheckpoint": 0,
            "busy_timeout": 30_000,
            "foreign_keys": 1,
            "trusted_schema": 0,
            "cell_size_check": 1,
            "application_id": schema.APPLICATION_ID,
            "user_version": 1,
        }
        tables = connection.execute("SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
        assert set(tables) == {("workflows", 1, 1), ("records", 1, 1), ("sqlite_schema", 0, 0)}
    finally:
        connection.close()
        first.close()
        database.lock.close()


@pytest.mark.parametrize(
    "setting", ["journal_mode = wal", "synchronous = 2", "wal_autocheckpoint = 0", "trusted_schema = 0"]
)
async def test_a_setting_that_is_not_taken_is_an_error(path: Path, setting: str) -> None:
    name = setting.split()[0]

    class Deaf(sqlite3.Connection):
        def execute(self, sql: str, /, *parameters: Any) -> sqlite3.Cursor:
            if sql == f"PRAGMA {setting}":
                other = "1" if name != "journal_mode" else "delete"
                return super().execute(f"PRAGMA {name} = {other}")
            return super().execute(sql, *parameters)

    store = SQLitePersistence(path)
    store._database.connection_class = Deaf
    with pytest.raises(PersistenceError, match=f"{name} = "):
        await store.find()
    await store.close()


def test_the_settings_are_the_fastest_that_are_safe() -> None:
    own, sqlites, slow = Settings("wal", 2, 0), Settings("wal", 2, 1000), Settings("truncate", 3, 1000)
    assert choose_settings(locked=True, sqlite_version=(3, 40, 1)) == own
    assert choose_settings(locked=True, sqlite_version=(3, 51, 3)) == own
    assert choose_settings(locked=False, sqlite_version=(3, 51, 3)) == sqlites
    assert choose_settings(locked=False, sqlite_version=(3, 51, 2)) == slow


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 37, 0), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), False),
        ((3, 52, 1), True),
        ((3, 53, 0), True),
    ],
)
def test_which_sqlite_has_the_fix(version: tuple[int, int, int], fixed: bool) -> None:
    assert has_wal_reset_fix(version) is fixed


@pytest.mark.parametrize("fixed", [False, True])
async def test_without_a_lock_between_processes_it_is_durable_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, fixed: bool
) -> None:
    monkeypatch.setattr(lock_module, "fcntl", None)
    monkeypatch.setattr(schema, "has_wal_reset_fix", lambda version: fixed)
    async with SQLitePersistence(path) as store, SQLitePersistence(path) as another:
        mode = "wal" if fixed else "truncate"
        assert store._database.settings == Settings(mode, 2 if fixed else 3, 1000)
        assert not Path(f"{path}-lock").exists()
        await append(store, "w")
        await append(another, "w", 2)
        with pytest.raises(ConcurrencyError):
            await append(store, "w", 2)
        assert await store.read("w") == records(0, 4)
        assert Path(f"{path}-wal").exists() is fixed


# --- Batches


async def test_what_waits_together_is_committed_together(path: Path) -> None:
    store = SQLitePersistence(path)
    seen = Statements(store)
    async with store:
        before = seen.count("COMMIT")
        async with writer_held(store):
            tasks = [asyncio.create_task(append(store, f"w{number}")) for number in range(100)]
        await asyncio.gather(*tasks)
        assert seen.count("COMMIT") - before == 2
        assert seen.count("BEGIN") == seen.count("COMMIT")
        assert len(await store.find(limit=200)) == 101
        for number in range(100):
            assert await store.read(f"w{number}") == records(0)


async def test_a_hundred_at_once_make_far_fewer_commits(path: Path) -> None:
    store = SQLitePersistence(path)
    seen = Statements(store)
    async with store:
        before = seen.count("COMMIT")
        await asyncio.gather(*(append(store, f"w{number}") for number in range(100)))
        assert seen.count("COMMIT") - before <= 20


async def test_a_refused_write_does_not_fail_its_batch(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        async with writer_held(store):
            tasks = [
                asyncio.create_task(call)
                for call in (
                    append(store, "w", 2),
                    append(store, "w", 2, mark="too late"),
                    store.renew("w", "t1", 5),
                    append(store, "x"),
                    store.delete("unknown"),
                )
            ]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            type(None),
            ConcurrencyError,
            LeaseLostError,
            type(None),
            bool,
        ]
        assert await store.read("w") == records(0, 4)
        assert await store.read("x") == records(0)


async def test_only_the_culprit_of_an_unforeseen_failure_fails(path: Path) -> None:
    store = SQLitePersistence(path)
    seen = Statements(store)
    culprit = records(0)
    culprit[1] = culprit[1]._replace(at=1.5)  # type: ignore[arg-type]  # that is the point: STRICT refuses it
    async with store:
        before = seen.count("COMMIT")
        async with writer_held(store):
            tasks = [
                asyncio.create_task(call)
                for call in (
                    append(store, "w"),
                    store.append("bad", culprit, expected_version=0, header=header("bad", 2)),
                    append(store, "x"),
                )
            ]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), PersistenceError, type(None)]
        assert isinstance(outcomes[1], PersistenceError)
        assert outcomes[1].workflow_id == "bad"
        assert "SQLITE_CONSTRAINT" in str(outcomes[1])
        assert seen.count("COMMIT") - before == 3
        assert await store.read("w") == records(0)
        assert await store.read("bad") == []
        assert [found.workflow_id for found in await store.find()] == ["held up", "w", "x"]


@pytest.mark.parametrize("workflow_id", ["\ud800", "w"])
async def test_what_sqlite_cannot_take_is_an_error_and_nothing_more(path: Path, workflow_id: str) -> None:
    rows = records(0, 1)
    rows[0] = rows[0]._replace(at=2**63)
    async with SQLitePersistence(path) as store:
        with pytest.raises(PersistenceError, match="could not do what it was asked"):
            await store.append(workflow_id, rows, expected_version=0, header=header(workflow_id, 1))
        with pytest.raises(PersistenceError, match="UnicodeEncodeError"):
            await store.read("\ud800")
        await append(store, "w")
        assert await store.read("w") == records(0)


# --- Event loops, tasks and threads


def test_one_store_serves_several_event_loops(path: Path) -> None:
    store = SQLitePersistence(path)
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        async def one(workflow_id: str) -> None:
            for version in range(0, 20, 2):
                await append(store, workflow_id, version)
            assert await store.read(workflow_id) == records(0, 20)

        await asyncio.gather(*(one(f"{name}-{number}") for number in range(5)))

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"loop{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []

    async def finish() -> None:
        assert len(await store.find()) == 20
        await store.close()

    asyncio.run(finish())


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancelled_task_waits_for_the_outcome_of_its_write(path: Path, times: int) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        async with writer_held(store):
            tasks = [asyncio.create_task(append(store, "w", 2)), asyncio.create_task(append(store, "w", 2))]
            await asyncio.sleep(0)
            for _ in range(times):
                for task in tasks:
                    task.cancel()
                for _ in range(5):
                    await asyncio.sleep(0)
            assert not any(task.done() for task in tasks)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * 2
        assert [task.cancelled() for task in tasks] == [True, True]
        assert await store.read("w") == records(0, 4)


async def test_a_write_that_times_out_is_known_by_then(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        async with writer_held(store):
            task = asyncio.create_task(asyncio.wait_for(append(store, "w", 2), 0.01))
            await asyncio.sleep(0.03)
            assert not task.done()
        # 3.11 answers a wait that was outlasted with its result, later versions with the timeout.
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert outcome is None or isinstance(outcome, TimeoutError)
        assert await store.read("w") == records(0, 4)


async def test_a_coroutine_that_is_driven_by_hand_waits_as_well(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        async with writer_held(store):
            coroutine = append(store, "w", 2)
            future = coroutine.send(None)
            for _ in range(2):
                future._asyncio_future_blocking = False  # as a task does when it takes the future over
                assert coroutine.throw(asyncio.CancelledError()) is future
        await wait_until(future.done)
        with pytest.raises(asyncio.CancelledError):
            coroutine.send(None)
        assert await store.read("w") == records(0, 4)


async def test_a_read_can_be_abandoned(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        with store._database.lock:  # the reader's first connection needs it
            task = asyncio.create_task(store.read("w"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await store.read("w") == records(0)


def test_a_loop_that_is_closed_meanwhile_does_not_disturb_the_others(path: Path) -> None:
    store = SQLitePersistence(path)

    async def submit() -> asyncio.Future[None]:
        await append(store, "w")
        write = statements.Append("w", records(2), 2, header("w", 4), None)
        assert store._writer.submit(write)
        return write.future

    held = store._database.lock
    loop = asyncio.new_event_loop()
    loop.run_until_complete(append(store, "first"))
    held.__enter__()
    try:
        loop.run_until_complete(asyncio.wait_for(_submit_only(store), 5))
        loop.close()
    finally:
        held.__exit__(None, None, None)

    async def after() -> None:
        await append(store, "w")
        assert await store.read("abandoned") == records(0), "it was written all the same"
        await store.close()

    asyncio.run(after())


async def _submit_only(store: SQLitePersistence) -> None:
    assert store._writer.submit(statements.Append("abandoned", records(0), 0, header("abandoned", 2), None))


async def test_a_closed_store_says_so(path: Path) -> None:
    store = SQLitePersistence(path)
    async with store:
        await append(store, "w")
    for call in (append(store, "w", 2), store.read("w"), store.find(), store.lease("w"), store.delete("w")):
        with pytest.raises(PersistenceError, match=r"is closed. Make a new one"):
            await call
    await store.close()


async def test_a_store_that_was_never_used_can_be_closed(path: Path) -> None:
    store = SQLitePersistence(path)
    await store.close()
    await store.close()
    with pytest.raises(PersistenceError, match="is closed"):
        await append(store, "w")
    assert os.listdir(path.parent) == []


async def test_closing_finishes_what_waits(path: Path) -> None:
    store = SQLitePersistence(path)
    await append(store, "w")
    async with writer_held(store):
        writes = [asyncio.create_task(append(store, f"w{number}")) for number in range(10)]
        await asyncio.sleep(0)
        closes = [asyncio.create_task(store.close()) for _ in range(3)]
        await asyncio.sleep(0)
        closes[0].cancel()
    await asyncio.gather(*writes, *closes[1:])
    with pytest.raises(asyncio.CancelledError):
        await closes[0]
    assert sorted(os.listdir(path.parent)) == ["journals.db", "journals.db-lock"], "the log is folded in"
    async with SQLitePersistence(path) as again:
        assert len(await again.find()) == 12
        await append(again, "w", 2)
        assert await again.read("w") == records(0, 4)


def store_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "dotmac-workflows sqlite" in thread.name]


async def test_the_threads_end_with_the_store(path: Path) -> None:
    store = SQLitePersistence(path)
    await append(store, "w")
    threads = store_threads()
    assert len(threads) == 2
    assert all(thread.daemon for thread in threads)
    await store.close()
    await wait_until(lambda: not any(thread.is_alive() for thread in threads))


async def test_the_threads_of_a_forgotten_store_end_and_close_it(path: Path) -> None:
    store = SQLitePersistence(path)
    await append(store, "w")
    await store.read("w")
    threads = store_threads()
    del store
    gc.collect()
    await wait_until(lambda: not any(thread.is_alive() for thread in threads))
    assert sorted(os.listdir(path.parent)) == ["journals.db", "journals.db-lock"]


async def test_an_unforeseen_failure_does_not_end_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        with monkeypatch.context() as patch:
            patch.setattr(store._writer, "_commit", lambda writes: 1 / 0)
            with pytest.raises(PersistenceError, match="ZeroDivisionError"):
                await append(store, "w", 2)
        await append(store, "w", 2)
        assert await store.read("w") == records(0, 4)


# --- The log


async def test_the_log_is_emptied_once_when_nothing_is_written(path: Path) -> None:
    store = SQLitePersistence(path)
    seen = Statements(store)
    store._writer.idle_seconds = 0.02
    log = Path(f"{path}-wal")
    async with store:
        for turn in range(2):
            await append(store, f"w{turn}")
            await wait_until(lambda: log.stat().st_size == 0)
            await wait_until(lambda: not store._writer._log_is_used)
            assert await store.read(f"w{turn}") == records(0)
        await asyncio.sleep(0.1)
        assert seen.count("PRAGMA wal_checkpoint(TRUNCATE)") == 2, "and then the thread sleeps"
        assert seen.count("PRAGMA wal_checkpoint(PASSIVE)") == 0


async def test_the_log_is_kept_short_without_a_checkpoint_at_every_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LOG_MARK", 200_000)
    monkeypatch.setattr(writer, "_LOG_STEP", 50_000)
    monkeypatch.setattr(writer, "_LOG_LIMIT", 400_000)
    store = SQLitePersistence(path)
    store._writer._log_mark = 200_000
    seen = Statements(store)
    longest = 0
    async with store:
        for version in range(0, 600, 2):
            await append(store, "w", version)
            longest = max(longest, os.stat(f"{path}-wal").st_size)
        assert await store.read("w") == records(0, 600)
        passive, emptied = seen.count("PRAGMA wal_checkpoint(PASSIVE)"), seen.count("PRAGMA wal_checkpoint(TRUNCATE)")
        assert 3 <= passive <= 30
        assert 1 <= emptied <= 10
        assert 200_000 < longest < 500_000


async def test_a_checkpoint_that_fails_concerns_no_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, /, *parameters: Any) -> sqlite3.Cursor:
            if sql.startswith("PRAGMA wal_checkpoint"):
                raise failure("SQLITE_FULL")
            return super().execute(sql, *parameters)

    monkeypatch.setattr(writer, "_LOG_MARK", 1)
    store = SQLitePersistence(path)
    store._writer._log_mark = 1
    store._database.connection_class = Connection
    async with store:
        for version in range(0, 10, 2):
            await append(store, "w", version)
        assert await store.read("w") == records(0, 10)


# --- A COMMIT that fails


def failure(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"simulated {name}")
    error.sqlite_errorname = name
    return error


class Faults:
    """Makes the COMMIT of a batch fail, before or after it is made, and what comes after it."""

    def __init__(self, store: SQLitePersistence) -> None:
        self.made = 0
        self.opening_fails = False
        self.sealing_fails = False
        self._when, self._name, self._workflow_id, self._then = "", "", "", ""
        self._armed = False
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, /, *parameters: Any) -> sqlite3.Cursor:
                if faults.opening_fails:
                    raise failure("SQLITE_IOERR_READ")
                if faults.sealing_fails and sql.startswith("PRAGMA user_version ="):
                    raise failure("SQLITE_IOERR_FSYNC")
                if sql != "COMMIT" or not faults._armed:
                    return super().execute(sql, *parameters)
                faults._armed = False
                faults.made += 1
                if faults._then:
                    setattr(faults, faults._then, True)
                if faults._when == "after":
                    super().execute(sql, *parameters)
                raise failure(faults._name)

        store._database.connection_class = Connection
        transact = store._writer._transact

        def arm(writes: Any) -> None:
            faults._armed = any(write.workflow_id == faults._workflow_id for write in writes)
            faults._workflow_id = "" if faults._armed else faults._workflow_id
            transact(writes)

        store._writer._transact = arm  # type: ignore[method-assign]  # to know the COMMIT of a batch from others

    def plan(self, workflow_id: str, when: str, name: str, *, then: str = "") -> None:
        """Have the COMMIT of the next batch with a write to `workflow_id` fail, and set the attribute `then`."""
        self._workflow_id, self._when, self._name, self._then = workflow_id, when, name, then


@pytest.mark.parametrize("name", ["SQLITE_IOERR_FSYNC", "SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_BUSY"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_that_fails_is_answered_by_what_is_stored(path: Path, name: str, when: str) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    lease = LeaseChange("t1", "owner", 100, None)
    async with store:
        await append(store, "w")
        await append(store, "doomed")
        await store.append("leased", records(0), expected_version=0, header=header("leased", 2), lease=lease)
        assert await store.read("w") == records(0)
        async with writer_held(store):
            calls = (
                append(store, "w", 2),
                append(store, "fresh"),
                store.append("held", [], expected_version=0, header=header("held", 0), lease=lease),
                store.renew("leased", "t1", 200),
                store.delete("doomed"),
            )
            tasks = [asyncio.create_task(call) for call in calls]
            faults.plan("fresh", when, name)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        stored = when == "after"
        if stored:
            assert outcomes == [None, None, None, 2, True]
        else:
            assert [type(outcome) for outcome in outcomes] == [PersistenceError] * 5
            assert [getattr(outcome, "workflow_id", None) for outcome in outcomes] == [
                "w",
                "fresh",
                "held",
                "leased",
                "doomed",
            ]
        assert faults.made == 1
        assert await store.read("w") == records(0, 4 if stored else 2)
        assert await store.read("fresh") == (records(0) if stored else [])
        assert (await store.lease("held") is not None) is stored
        held = await store.lease("leased")
        assert held is not None
        assert held.expires_at == (200 if stored else 100)
        assert await store.read("doomed") == ([] if stored else records(0))
        await append(store, "w", 4 if stored else 2)  # and the store goes on


async def test_a_refusal_stays_one_when_the_commit_of_its_batch_fails(path: Path) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    async with store:
        await append(store, "w")
        async with writer_held(store):
            tasks = [asyncio.create_task(append(store, "w")), asyncio.create_task(append(store, "w", 2))]
            faults.plan("w", "after", "SQLITE_IOERR_FSYNC")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ConcurrencyError, type(None)]
        assert faults.made == 1


async def test_what_is_found_after_a_failed_commit_is_sealed_before_it_is_answered(path: Path) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    async with store:
        await append(store, "w")
        faults.plan("w", "after", "SQLITE_IOERR_FSYNC")
        await append(store, "w", 2)
        assert os.stat(f"{path}-wal").st_size == 0, "everything is in the database file, and flushed"


@pytest.mark.parametrize("obstacle", ["opening_fails", "sealing_fails"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_cannot_be_found_out_is_said_to_be_unknown(path: Path, obstacle: str, when: str) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    store._writer.settle_seconds = 0.05
    async with store:
        await append(store, "w")
        faults.plan("w", when, "SQLITE_IOERR_FSYNC", then=obstacle)
        with pytest.raises(PersistenceError, match="may be stored or not") as unknown:
            await append(store, "w", 2)
        assert unknown.value.workflow_id == "w"
        setattr(faults, obstacle, False)
        found = await store.read("w")
        assert found == records(0, 4 if when == "after" else 2)
        await append(store, "w", len(found))


async def test_settling_goes_on_until_the_disk_answers(path: Path) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    async with store:
        await append(store, "w")
        faults.plan("w", "after", "SQLITE_IOERR_FSYNC")
        original, tries = store._writer._missing_after_reopening, 0

        def sometimes(*arguments: Any) -> Any:
            nonlocal tries
            tries += 1
            faults.opening_fails = tries < 4
            return original(*arguments)

        store._writer._missing_after_reopening = sometimes  # type: ignore[assignment]  # to count and to fail
        await append(store, "w", 2)
        assert tries == 4


# --- Damage


async def test_records_that_are_missing_are_noticed(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        for workflow_id in ("end", "middle", "start", "all", "header", "more"):
            await append(store, workflow_id)
            await append(store, workflow_id, 2)
        await append(store, "sound")
    make_foreign(
        path,
        "DELETE FROM records WHERE workflow_id = 'end' AND seq = 4",
        "DELETE FROM records WHERE workflow_id = 'middle' AND seq = 2",
        "DELETE FROM records WHERE workflow_id = 'start' AND seq = 1",
        "DELETE FROM records WHERE workflow_id = 'all'",
        "DELETE FROM workflows WHERE workflow_id = 'header'",
        "UPDATE workflows SET version = 3 WHERE workflow_id = 'more'",
    )
    expected = {"end": 4, "middle": 2, "start": 1, "all": 1, "header": 1, "more": 4}
    async with SQLitePersistence(path) as store:
        for workflow_id, seq in expected.items():
            with pytest.raises(JournalCorruptError, match="restore the store from a backup") as damage:
                await store.read(workflow_id)
            assert (damage.value.workflow_id, damage.value.seq) == (workflow_id, seq)
        with pytest.raises(JournalCorruptError):
            await store.read("end", after=2)
        assert await store.read("sound") == records(0), "the others go on"


async def test_a_status_that_does_not_exist_is_named(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        make_foreign(path, "UPDATE workflows SET status = 'lost'")
        with pytest.raises(JournalCorruptError, match="'w' has the status 'lost'"):
            await store.find()


async def test_a_text_that_cannot_be_decoded_is_damage(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        make_foreign(path, "UPDATE records SET body = CAST(x'ff' AS TEXT) WHERE seq = 2")
        with pytest.raises(JournalCorruptError, match="cannot be decoded"):
            await store.read("w")
        await append(store, "w", 2)


async def test_a_damaged_file_is_called_so(path: Path) -> None:
    async with SQLitePersistence(path) as store:
        for version in range(0, 400, 2):
            await append(store, "w", version)
    content = bytearray(path.read_bytes())
    page = 4096
    for start in range(page, len(content), page):
        content[start : start + 100] = b"\xff" * 100
    path.write_bytes(content)
    async with SQLitePersistence(path) as store:
        with pytest.raises(JournalCorruptError, match=r"damaged.*SQLITE_CORRUPT"):
            await store.read("w")
        with pytest.raises(JournalCorruptError, match=r"damaged.*SQLITE_CORRUPT"):
            await append(store, "w", 400)


# --- Queries


@pytest.mark.parametrize("status", [None, WorkflowStatus.RUNNING])
@pytest.mark.parametrize("workflow_type", [None, "Onboarding"])
@pytest.mark.parametrize("due_before", [None, 5])
@pytest.mark.parametrize("after", [None, header("w", 1)])
async def test_no_list_sorts_or_scans_what_it_does_not_show(
    path: Path, status: Any, workflow_type: Any, due_before: Any, after: Any
) -> None:
    async with SQLitePersistence(path) as store:
        await append(store, "w")

    class Plan:
        def execute(self, sql: str, parameters: list[Any]) -> "Plan":
            self.steps = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
            return self

        def fetchall(self) -> list[Any]:
            return []

    connection = sqlite3.connect(path)
    plan = Plan()
    statements.find_headers(plan, status, workflow_type, due_before, after, 10)  # type: ignore[arg-type]  # a stand-in
    connection.close()
    said = [step[-1] for step in plan.steps]
    assert len(said) == 1
    assert "USING INDEX workflows_by_" in said[0]
    if status or workflow_type or after:
        assert said[0].startswith("SEARCH")


# --- The lock


def test_two_locks_on_one_file_exclude_each_other(tmp_path: Path) -> None:
    first, second = (InterprocessLock(str(tmp_path / "lock"), 0.05) for _ in range(2))
    assert first.open()
    assert second.open()
    with first, pytest.raises(PersistenceError, match=f"process {os.getpid()} on host {os.uname().nodename}"), second:
        pass
    with second:
        pass
    first.close()
    second.close()


def test_one_lock_excludes_the_threads_that_share_it(tmp_path: Path) -> None:
    lock = InterprocessLock(str(tmp_path / "lock"), 0.05)
    lock.open()
    refused: list[BaseException] = []

    def other() -> None:
        try:
            with lock:
                pass
        except PersistenceError as error:
            refused.append(error)

    with lock:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    lock.close()


def test_a_lock_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = (InterprocessLock(str(path), 0.05) for _ in range(2))
    first.open()
    path.unlink()
    second.open()
    with second, pytest.raises(PersistenceError), first:
        pass
    with first:
        assert path.read_text() == f"{os.uname().nodename} {os.getpid()}\n"
    first.close()
    second.close()
