"""The lock that keeps processes from committing beside a checkpoint."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from dotmac_workflows.errors import PersistenceError
from dotmac_workflows.persistence import SQLitePersistence
from dotmac_workflows.persistence.sqlite._lock import InterprocessLock
from journal_rows import records
from sqlite_stores import append


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


@pytest.fixture
def unlocking_fails(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has the next call that lets go of a lock fail, and closing the file too; holds what was tried."""
    tried: list[int] = []
    flock, close = fcntl.flock, os.close

    def fail_to_unlock(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN and not tried:
            tried.append(descriptor)
            raise OSError("simulated")
        flock(descriptor, operation)

    def fail_to_close(descriptor: int) -> None:
        close(descriptor)
        if tried == [descriptor]:
            tried.append(descriptor)
            raise OSError("simulated")

    monkeypatch.setattr(fcntl, "flock", fail_to_unlock)
    monkeypatch.setattr(os, "close", fail_to_close)
    return tried


def test_a_lock_that_cannot_be_let_go_is_let_go_with_its_file(tmp_path: Path, unlocking_fails: list[int]) -> None:
    first, second = (InterprocessLock(str(tmp_path / "lock"), 0.05) for _ in range(2))
    first.available = second.available = True  # without opening them, which lets go of a lock as well
    with first:
        pass
    assert len(unlocking_fails) == 2
    for lock in (second, first):
        with lock:
            pass
        lock.close()


async def test_what_was_written_is_written_even_if_the_lock_cannot_be_let_go(
    tmp_path: Path, unlocking_fails: list[int]
) -> None:
    unlocking_fails.append(-1)
    async with SQLitePersistence(tmp_path / "journals.db") as store:
        unlocking_fails.clear()
        await append(store, "w")
        assert len(unlocking_fails) == 2
        await append(store, "w", 2)
        assert await store.read("w") == records(0, 4)
