"""What the tests of the SQLite backend share: short appends, and ways to look into its threads."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dotmac_workflows.persistence import Persistence, SQLitePersistence
from journal_rows import header, records


async def append(store: Persistence, workflow_id: str, version: int = 0, *, mark: str = "") -> None:
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
    transact, entered = store._writer._transact, threading.Event()

    def enter(writes: Any) -> None:
        entered.set()
        transact(writes)

    store._writer._transact = enter  # type: ignore[method-assign]  # to know when its batch is closed
    with store._database.lock:
        first = asyncio.create_task(append(store, "held up"))
        await wait_until(entered.is_set)
        store._writer._transact = transact  # type: ignore[method-assign]  # as it was
        yield
        await asyncio.sleep(0)
    await first


async def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.002)


def failure(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"simulated {name}")
    error.sqlite_errorname = name
    return error
