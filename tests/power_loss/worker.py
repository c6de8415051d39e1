"""A process whose file operations are recorded: ``python -m power_loss.worker DATABASE MARKS TASK``.

It drives orders on the store, and writes a mark to the file MARKS before each write that it asks for, one when the
write is acknowledged or refused, and one for each journal that it was shown. `promises` reads them.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

from crash_simulation import Script, scripts
from dotmac_workflows import SQLitePersistence, WorkflowResult, recover
from dotmac_workflows.errors import ConcurrencyError, LeaseLostError
from dotmac_workflows.persistence import LeaseChange, Record
from dotmac_workflows.persistence.sqlite import _writer
from power_loss.modes import in_mode
from processes.orders import Order, bring_to_its_end


class Task(NamedTuple):
    """What a process is to do."""

    seed: int
    """Of everything that is left to chance."""
    mode: str
    """How the store commits."""
    orders: list[str]
    """Which orders to bring to their end, all at once, whether or not another process began them."""
    look_first: bool = False
    """Whether to read all that there is before anything else."""
    recover: bool = False
    """Whether to carry on by `recover` what is due, before anything is loaded."""
    forget: bool = False
    """Whether to delete some of the orders at the end, and to begin one of those anew."""
    small_cache: bool = False
    """Whether SQLite has room for few pages in memory, and writes them out in the middle of transactions."""
    slow_reader: bool = False
    """Whether somebody reads in one transaction all the while, which keeps checkpoints from coming to their end.

    Not without a write-ahead log, where that keeps everybody from writing.
    """


class Marks:
    """A file of one JSON object a line, each written by one call."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._numbers = count(1)

    def write(self, what: str, workflow_id: str, **more: Any) -> None:
        mark = {"what": what, "process": os.getpid(), "workflow": workflow_id, **more}
        os.write(self._file, json.dumps(mark).encode() + b"\n")

    @contextlib.contextmanager
    def around(self, workflow_id: str, **target: Any) -> Iterator[None]:
        """Mark the beginning and the end of a write."""
        number = next(self._numbers)
        self.write("begin", workflow_id, number=number, **target)
        try:
            yield
        except (ConcurrencyError, LeaseLostError):
            self.write("refused", workflow_id, number=number)
            raise
        self.write("acknowledged", workflow_id, number=number)


class MarkingStore(SQLitePersistence):
    """Marks what is asked of it, and what it answers."""

    marks: Marks

    async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
        target: dict[str, Any] = {"kind": "append"}
        if records:
            target["journal"] = [records[-1].seq, records[-1].digest]
        lease: LeaseChange | None = how.get("lease")
        if lease is not None:
            target["lease"] = None if lease.expires_at is None else [lease.owner, lease.token, lease.expires_at]
        with self.marks.around(workflow_id, **target):
            await super().append(workflow_id, records, **how)

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        held = await self.lease(workflow_id)
        owner = held.owner if held is not None else ""
        with self.marks.around(workflow_id, kind="renew", lease=[owner, token, expires_at]):
            return await super().renew(workflow_id, token, expires_at)

    async def delete(self, workflow_id: str) -> bool:
        with self.marks.around(workflow_id, kind="delete"):
            return await super().delete(workflow_id)

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        rows = await super().read(workflow_id, after=after)
        if rows:
            self.marks.write("shown", workflow_id, journal=[rows[-1].seq, rows[-1].digest])
        return rows


class Bulky(Order):
    """An order whose results are of all sizes, from nothing to some pages of the file."""

    async def execute_step(self, step: str) -> WorkflowResult:
        result = await super().execute_step(step)
        size = random.Random(f"{self.workflow_id}/{step}").choice((0, 0, 50, 700, 3000, 9000))
        if size:
            result.data["note"] = "x" * size
        return result


class _SmallCache(sqlite3.Connection):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA cache_size = 2")


EVERY_SCRIPT = [
    script
    for length in (1, 2, 3, 4)
    for script in scripts(length)
    # Whoever takes up a paused run here cannot tell which step it was paused in.
    if "pause_cancel" not in script.behaviours
]


def script_of(seed: int, workflow_id: str) -> Script:
    """Return what happens to an order: the same for each process that takes it up."""
    return random.Random(f"{seed}/{workflow_id}").choice(EVERY_SCRIPT)


async def work(store: MarkingStore, task: Task) -> None:
    """Do it."""
    if task.look_first:
        for header in await store.find():
            await store.read(header.workflow_id)
    if task.recover:
        for outcome in await recover(store, [Bulky]):
            if outcome.error is not None:
                raise outcome.error
    async with _reading(store) if task.slow_reader else contextlib.nullcontext(), asyncio.TaskGroup() as tasks:
        for workflow_id in task.orders:
            script = script_of(task.seed, workflow_id)
            tasks.create_task(bring_to_its_end(workflow_id, script, store, kind=Bulky))
    if task.forget:
        for workflow_id in task.orders[::2]:
            await store.delete(workflow_id)
        for workflow_id in task.orders[::4]:
            await bring_to_its_end(workflow_id, script_of(task.seed, workflow_id), store, kind=Bulky)
        await _log_is_emptied(store)


@contextlib.asynccontextmanager
async def _reading(store: MarkingStore) -> AsyncIterator[None]:
    await store.find(limit=1)  # it is open, so that this one is never the last to close the file
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM records").fetchall()
        yield
        connection.execute("COMMIT")


async def _log_is_emptied(store: MarkingStore) -> None:
    """Wait until the log is as an idle store leaves it."""
    deadline = time.monotonic() + 10
    while os.path.exists(f"{store.path}-wal") and os.path.getsize(f"{store.path}-wal"):
        assert time.monotonic() < deadline, "the log was never emptied"
        await asyncio.sleep(0.002)


async def main(database: str, marks: str, task: Task) -> None:
    # A log that is short enough for some hundred operations to bring about all that happens to a long one.
    _writer._LOG_MARK, _writer._LOG_STEP, _writer._LOG_LIMIT = 60_000, 30_000, 200_000
    _writer._CHECKPOINT_PATIENCE_MS = 5
    with in_mode(task.mode):
        store = MarkingStore(database)
        store.marks = Marks(marks)
        store._writer.idle_seconds = 0.02
        if task.small_cache:
            store._database.connection_class = _SmallCache
        await work(store, task)
        await store.close()


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # what the engine says of the orders
    asyncio.run(main(sys.argv[1], sys.argv[2], Task(**json.loads(sys.argv[3]))))
