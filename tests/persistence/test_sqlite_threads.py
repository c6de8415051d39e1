"""How the SQLite backend gets from event loops to its threads and back: batches, cancellation, closing, its log."""

import asyncio
import gc
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows.errors import (
    ConcurrencyError,
    LeaseLostError,
    PersistenceError,
)
from dotmac_workflows.persistence import SQLitePersistence
from dotmac_workflows.persistence.sqlite import _statements as statements
from dotmac_workflows.persistence.sqlite import _writer as writer
from dotmac_workflows.persistence.sqlite._writer import Read
from journal_rows import header, records
from sqlite_stores import Statements, append, failure, wait_until, writer_held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals.db"


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


async def test_what_one_turn_of_the_event_loop_asks_for_is_one_commit(path: Path) -> None:
    store = SQLitePersistence(path)
    seen = Statements(store)

    async def slowly(workflow_id: str) -> None:
        time.sleep(0.002)  # the writer would begin with what was there
        await append(store, workflow_id)

    async with store:
        before = seen.count("COMMIT")
        await asyncio.gather(*(slowly(f"w{number}") for number in range(10)))
        assert seen.count("COMMIT") - before == 1


async def test_what_was_asked_for_before_close_is_written(path: Path) -> None:
    store = await SQLitePersistence(path).__aenter__()
    write = asyncio.create_task(append(store, "w"))
    await asyncio.sleep(0)
    assert list(map(len, store._unsent.values())) == [1], "it is not with the writer yet"
    await store.close()
    await write
    async with SQLitePersistence(path) as again:
        assert await again.read("w") == records(0)


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
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        go_on = threading.Event()
        store._reader.submit(Read(lambda cursor: go_on.wait(10)))
        task = asyncio.create_task(store.read("w"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert await store.read("w") == records(0)
        assert complaints == []


def test_a_loop_that_is_closed_meanwhile_does_not_disturb_the_others(path: Path) -> None:
    store = SQLitePersistence(path)

    async def submit_only() -> None:
        await append(store, "w")
        held.__enter__()
        assert store._writer.submit(statements.Append("abandoned", records(0), 0, header("abandoned", 2), None))

    held = store._database.lock
    asyncio.run(submit_only())
    held.__exit__(None, None, None)

    async def go_on() -> None:
        await append(store, "w", 2)
        assert await store.read("abandoned") == records(0), "it was written all the same"
        await store.close()

    asyncio.run(go_on())


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


async def test_closing_empties_the_log_even_if_somebody_else_has_the_file_open(path: Path) -> None:
    async with SQLitePersistence(path) as other:
        async with SQLitePersistence(path) as store:
            await append(store, "w")
        assert os.stat(f"{path}-wal").st_size == 0
        assert await other.read("w") == records(0)


async def test_a_busy_lock_costs_no_connection(path: Path) -> None:
    store = SQLitePersistence(path)
    seen = Statements(store)
    async with store:
        await append(store, "w")
        store._database.lock.time_limit = 0.01
        with store._database.lock, pytest.raises(PersistenceError, match="was not to be had"):
            await append(store, "w", 2)
        seen.seen.clear()
        await append(store, "w", 2)
        assert seen.seen == ["BEGIN IMMEDIATE", "COMMIT"]


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
