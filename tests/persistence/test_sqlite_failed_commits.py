"""A COMMIT that fails has an unknown fate: the SQLite backend finds out, or says that it cannot."""

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows.errors import (
    ConcurrencyError,
    PersistenceError,
)
from dotmac_workflows.persistence import LeaseChange, SQLitePersistence
from dotmac_workflows.persistence.sqlite import _lock as lock_module
from dotmac_workflows.persistence.sqlite import _schema as schema
from dotmac_workflows.persistence.sqlite._log import log_grows
from dotmac_workflows.persistence.sqlite._schema import Database
from dotmac_workflows.persistence.sqlite._statements import Append, Delete, Renew, Write
from journal_rows import header, records
from sqlite_stores import append, failure, wait_until, writer_held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals.db"


class Faults:
    """Makes the COMMIT of a batch fail, before or after it is made, and what comes after it."""

    def __init__(self, store: SQLitePersistence) -> None:
        self.made = 0
        self.opening_fails = False
        self.sealing_fails = False
        self.sealing_error = "SQLITE_IOERR_FSYNC"
        self.folding_fails = False
        self._when, self._name, self._workflow_id, self._then = "", "", "", ""
        self._armed = False
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, /, *parameters: Any) -> sqlite3.Cursor:
                if faults.opening_fails:
                    raise failure("SQLITE_IOERR_READ")
                if faults.sealing_fails and sql.startswith("PRAGMA user_version ="):
                    raise failure(faults.sealing_error)
                if faults.folding_fails and sql == "PRAGMA wal_checkpoint(TRUNCATE)":
                    raise failure(faults.sealing_error)
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


NO_ROOM = ["SQLITE_FULL", "SQLITE_IOERR_WRITE"]


@pytest.mark.parametrize("name", [*NO_ROOM, "SQLITE_IOERR_SHMSIZE"])
async def test_what_is_not_found_after_a_failed_commit_is_written_over(path: Path, name: str) -> None:
    """All of it may be in the log, which nobody sees before a crash."""
    store = SQLitePersistence(path)
    faults = Faults(store)
    async with store:
        await append(store, "w")
        faults.plan("w", "before", name)
        with pytest.raises(PersistenceError, match="Nothing of this was stored"):
            await append(store, "w", 2)
        assert os.stat(f"{path}-wal").st_size == 0


def checkpoint(store: SQLitePersistence, mode: str) -> int:
    """Checkpoint from outside, and return the size of the log."""
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute(f"PRAGMA wal_checkpoint({mode})")
    return os.stat(f"{store.path}-wal").st_size


async def use_log_again(store: SQLitePersistence) -> None:
    """Have the log begin anew, with frames of its use before behind its last one."""
    for version in range(2, 10, 2):
        await append(store, "w", version)
    size = checkpoint(store, "PASSIVE")
    await append(store, "w", 10)
    assert os.stat(f"{store.path}-wal").st_size == size


@pytest.mark.parametrize("commit", NO_ROOM)
@pytest.mark.parametrize("seal", NO_ROOM)
@pytest.mark.parametrize("obstacle", ["sealing_fails", "folding_fails"])
@pytest.mark.parametrize("log", ["grows", "is empty", "is used again"])
async def test_with_no_room_to_write_over_it_a_log_that_grows_ends_in_what_is_not_found(
    path: Path, commit: str, seal: str, obstacle: str, log: str
) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    faults.sealing_error = seal
    store._writer.settle_seconds = 0.05
    async with store:
        await append(store, "w")
        if log == "is used again":
            await use_log_again(store)
        elif log == "is empty":
            assert checkpoint(store, "TRUNCATE") == 0
        version = len(await store.read("w"))
        faults.plan("w", "before", commit, then=obstacle)
        known = log != "is used again" or obstacle == "folding_fails"
        with pytest.raises(PersistenceError, match="Nothing of this was stored" if known else "may be stored or not"):
            await append(store, "w", version)
        setattr(faults, obstacle, False)
        await append(store, "w", version)
        assert await store.read("w") == records(0, version + 2)


@pytest.mark.parametrize("obstacle", ["opening_fails", "sealing_fails", "folding_fails"])
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


async def test_a_file_that_cannot_be_seen_after_the_commit_is_read_back(path: Path) -> None:
    store = SQLitePersistence(path)
    async with store:
        await append(store, "w")
        original, failures = store._database.wal_size, [OSError("simulated")]

        def wal_size() -> int:
            if failures:
                raise failures.pop()
            return original()

        store._database.wal_size = wal_size  # type: ignore[method-assign]  # to fail once
        await append(store, "w", 2)
        assert failures == []
        assert await store.read("w") == records(0, 4)


async def test_a_system_error_at_an_idle_moment_does_not_end_the_thread(path: Path) -> None:
    store = SQLitePersistence(path)
    store._writer.idle_seconds = 0.01
    async with store:
        await append(store, "w")
        original, failures = store._database.check_not_replaced, [OSError("simulated")]

        def check() -> None:
            if failures:
                raise failures.pop()
            original()

        store._database.check_not_replaced = check  # type: ignore[method-assign]  # to fail once
        await wait_until(lambda: not failures)
        await append(store, "w", 2)
        assert await store.read("w") == records(0, 4)


@pytest.mark.parametrize(
    ("frames", "rest", "grows"),
    [
        ("", 0, True),
        ("", 500, True),
        ("n", 0, True),
        ("o", 0, False),
        ("nn", 0, True),
        ("nn", 500, True),
        ("no", 0, False),
        ("no", 500, False),
    ],
)
def test_a_log_grows_unless_its_last_frame_is_of_an_earlier_use(
    path: Path, frames: str, rest: int, grows: bool
) -> None:
    salts = {"n": b"new salt", "o": b"old salt"}
    header = bytes(8) + (512).to_bytes(4, "big") + bytes(4) + salts["n"] + bytes(8)
    log = header + b"".join(bytes(8) + salts[frame] + bytes(8 + 512) for frame in frames) + bytes(rest)
    Path(f"{path}-wal").write_bytes(log)
    assert log_grows(f"{path}-wal") is grows


async def test_without_a_log_a_commit_that_was_cut_off_is_rolled_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "fcntl", None)
    monkeypatch.setattr(schema, "has_wal_reset_fix", lambda version: False)
    store = SQLitePersistence(path)
    faults = Faults(store)
    faults.sealing_error = "SQLITE_FULL"
    async with store:
        await append(store, "w")
        assert store._database.settings.journal_mode == "truncate"
        faults.plan("w", "before", "SQLITE_FULL", then="sealing_fails")
        with pytest.raises(PersistenceError, match="Nothing of this was stored"):
            await append(store, "w", 2)
        assert await store.read("w") == records(0)


@pytest.mark.parametrize(("when", "commit"), [("before", "SQLITE_IOERR_FSYNC"), ("after", "SQLITE_FULL")])
@pytest.mark.parametrize("obstacle", ["sealing_fails", "folding_fails"])
async def test_with_no_room_to_seal_it_nothing_else_is_known(path: Path, when: str, commit: str, obstacle: str) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    faults.sealing_error = "SQLITE_FULL"
    store._writer.settle_seconds = 0.05
    async with store:
        await append(store, "w")
        faults.plan("w", when, commit, then=obstacle)
        with pytest.raises(PersistenceError, match="may be stored or not"):
            await append(store, "w", 2)


async def test_what_cannot_be_sealed_for_a_reader_is_not_answered(path: Path) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    store._database.lock.time_limit = 0.05
    store._writer.settle_seconds = 0.1
    async with store:
        await append(store, "w")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM records").fetchall()
        faults.plan("w", "after", "SQLITE_IOERR_FSYNC")
        with pytest.raises(PersistenceError, match="may be stored or not"):
            await append(store, "w", 2)
        reader.close()
        assert await store.read("w") == records(0, 4)
        await append(store, "w", 4)


def test_a_write_has_landed_only_if_everything_is_as_it_wanted(path: Path) -> None:
    lease = LeaseChange("t1", "owner", 100, None)

    async def writes() -> tuple[list[Write[Any]], list[Write[Any]], list[Write[Any]]]:  # a call needs an event loop
        empty = header("empty", 0)
        made: list[Write[Any]] = [
            Append("w", records(0), 0, header("w", 2), lease),
            Append("empty", [], 0, empty, lease),
        ]
        landed = [*made, Renew("w", "t1", 100), Delete("other"), Append("empty", [], 0, empty, None)]
        missing: list[Write[Any]] = [
            Append("w", records(0, mark="other"), 0, header("w", 2), lease),
            Append("w", records(0, 3), 0, header("w", 3), lease),
            Append("x", records(0), 0, header("x", 2), lease),
            Append("empty", [], 0, header("empty", 0, wake_at=1), lease),
            Append("empty", [], 0, empty, lease._replace(token="t2")),
            Append("empty", [], 0, empty, lease._replace(expires_at=200)),
            Append("empty", [], 0, empty, lease._replace(expires_at=None)),
            Append("unknown", [], 0, header("unknown", 0), None),
            Renew("w", "t1", 200),
            Renew("w", "t2", 100),
            Renew("x", "t1", 100),
            Delete("w"),
        ]
        return made, landed, missing

    made, landed, missing = asyncio.run(writes())
    database = Database(str(path))
    database.prepare()
    with database.lock, contextlib.closing(database.open()) as connection:
        cursor = connection.cursor()
        for write in made:
            write.perform(cursor)
        assert [write.has_landed(cursor) for write in landed] == [True] * len(landed)
        assert [write.has_landed(cursor) for write in missing] == [False] * len(missing)
    database.lock.close()


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


async def test_a_file_that_is_gone_after_a_failed_commit_is_told_at_once(path: Path) -> None:
    store = SQLitePersistence(path)
    faults = Faults(store)
    async with store:
        await append(store, "w")
        original = store._writer._settle

        def settle(*arguments: Any) -> None:
            path.unlink()
            original(*arguments)

        store._writer._settle = settle  # type: ignore[assignment]  # for the file to be gone by then
        faults.plan("w", "after", "SQLITE_IOERR_FSYNC")
        with pytest.raises(PersistenceError, match="deleted or replaced"):
            await append(store, "w", 2)
