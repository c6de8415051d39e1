"""The file of the SQLite backend: what is refused, which settings it has, what happens to it, how it is searched."""

import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows.errors import (
    ConcurrencyError,
    JournalCorruptError,
    JournalTooNewError,
    PersistenceError,
    WorkflowConfigurationError,
)
from dotmac_workflows.persistence import SQLitePersistence
from dotmac_workflows.persistence.sqlite import _lock as lock_module
from dotmac_workflows.persistence.sqlite import _schema as schema
from dotmac_workflows.persistence.sqlite import _statements as statements
from dotmac_workflows.persistence.sqlite._schema import Database, Settings, choose_settings, has_wal_reset_fix
from dotmac_workflows.status import WorkflowStatus
from journal_rows import header, records
from sqlite_stores import Statements, append


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals.db"


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
    threads = set(threading.enumerate())
    store = SQLitePersistence(path)
    assert os.listdir(path.parent) == []
    assert set(threading.enumerate()) <= threads
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


async def test_once_another_file_is_out_of_the_way_the_same_store_goes_on(path: Path) -> None:
    make_foreign(path, "CREATE TABLE users (x)")
    store = SQLitePersistence(path)
    with pytest.raises(PersistenceError, match="another application"):
        await append(store, "w")
    path.rename(path.with_name("users.db"))
    await append(store, "w")
    assert await store.read("w") == records(0)
    await store.close()


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
    store = SQLitePersistence(path)
    seen = Statements(store)
    async with store:
        await append(store, "w")
        content = path.read_bytes()
        path.unlink()
        seen.seen.clear()
        with pytest.raises(PersistenceError, match=r"deleted or replaced.*make a new SQLitePersistence"):
            await append(store, "w", 2)
        assert seen.seen == ["BEGIN IMMEDIATE", "ROLLBACK"]
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


async def test_a_file_replaced_while_it_is_opened_gets_nothing_of_the_log_of_the_old_one(
    path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    async with SQLitePersistence(other) as another:
        await append(another, "w", mark="new")
    content = other.read_bytes()
    (tmp_path / "aside").mkdir()
    async with SQLitePersistence(tmp_path / "aside" / "old.db") as old:  # whose process then dies
        await append(old, "w", mark="old")
        for suffix in ("", "-wal"):
            Path(f"{path}{suffix}").write_bytes(Path(f"{old.path}{suffix}").read_bytes())

    class Connection(sqlite3.Connection):
        def __init__(self, address: str, *arguments: Any, **options: Any) -> None:
            if "mode=rw" in address:
                os.replace(other, path)
            super().__init__(address, *arguments, **options)

    store = SQLitePersistence(path)
    store._database.connection_class = Connection
    with pytest.raises(PersistenceError, match="deleted or replaced"):
        await append(store, "w", 2)
    await store.close()
    assert path.read_bytes() == content


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
        ((3, 51, 0), False),
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


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were flushed by the store, not by SQLite."""
    names: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return names


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the names of open files are looked up there")
class TestWhatAKilledProcessLeft:
    """It may have been handed to the system only: nobody may be shown what a power loss would take back."""

    async def test_is_flushed_before_it_is_read(self, path: Path, tmp_path: Path, flushed: list[str]) -> None:
        other = tmp_path / "other.db"
        async with SQLitePersistence(other) as store:
            await append(store, "w")
            for suffix in ("", "-wal"):
                Path(f"{path}{suffix}").write_bytes(Path(f"{other}{suffix}").read_bytes())
        assert flushed == []
        database = Database(str(path))

        class Watched(sqlite3.Connection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                assert flushed == ["journals.db-wal"]
                super().__init__(*args, **kwargs)

        database.connection_class = Watched
        database.prepare()
        with database.lock:
            database.open().close()
        database.lock.close()

    async def test_is_flushed_without_a_log_whenever_somebody_else_has_written(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, flushed: list[str]
    ) -> None:
        monkeypatch.setattr(lock_module, "fcntl", None)
        monkeypatch.setattr(schema, "has_wal_reset_fix", lambda version: False)
        async with SQLitePersistence(path) as store, SQLitePersistence(path) as another:
            await append(another, "w")
            await append(store, "v")
            flushed.clear()
            await append(store, "v", 2)
            assert flushed == [], "nobody else has written"
            await append(another, "w", 2)
            assert flushed == ["journals.db-journal"], "before it is written over"
            await store.read("w")
            assert flushed == ["journals.db-journal"] * 2, "before anybody is told"
            await store.read("w")
            assert len(flushed) == 2


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
        with pytest.raises(JournalCorruptError, match="cannot be decoded") as damage:
            await store.read("w")
        await append(store, "w", 2)
    left = sorted(os.listdir(path.parent))
    assert left == ["journals.db", "journals.db-lock"], "an error that is kept keeps no transaction open"
    assert damage.value.workflow_id == "w"


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
