"""The lock that keeps processes from committing beside a checkpoint."""

import os
import threading
from pathlib import Path

import pytest

from dotmac_workflows.errors import PersistenceError
from dotmac_workflows.persistence.sqlite._lock import InterprocessLock


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
