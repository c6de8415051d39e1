"""The limits: a loop that only awaits its steps, and this library's own rows written by plain `sqlite3`.

The rows are those that a run of this library appends (records, header, lease), made beforehand, by the same statements
in a file with the same tables, journal_mode and synchronous: each step a commit of its own where one workflow runs at
a time, and where N run at once a commit of one step of each of the N. No engine, no event loop, no other thread, and
no lock against the WAL-reset bug: nothing that writes these rows durably is faster on this disk.
"""

import sqlite3
import time
from pathlib import Path

from benchmarks.peers._adapter import DATA, Adapter, NotPossibleError, settings_of
from benchmarks.peers._recorded import Appended, recorded, rekeyed
from benchmarks.peers._serve import serve
from dotmac_workflows import SQLitePersistence
from dotmac_workflows.persistence.sqlite._statements import Append


async def trivial(name: str) -> str:
    return name


class Bare(Adapter):
    """No engine at all."""

    memory = "a loop that awaits each step and keeps its result"
    durable = "the rows of this library, plain sqlite3"

    connection: sqlite3.Connection

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        results = []
        for name in names:
            results.append(await trivial(name))
        return len(results)

    async def open(self, folder: Path) -> None:
        """See `Adapter`."""
        async with SQLitePersistence(folder / self.file):
            pass  # for its tables
        self.connection = sqlite3.connect(folder / self.file, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self.connection.execute("PRAGMA synchronous = FULL")

    async def close(self) -> None:
        """See `Adapter`."""
        self.connection.close()

    async def settings(self) -> dict[str, object]:
        """See `Adapter`."""
        return settings_of(self.connection)

    async def run_all(self, ids: list[str], names: list[str], at_once: int) -> None:
        """See `Adapter`."""
        if self.work.sleeps is not None:
            raise NotPossibleError("it waits for nobody")
        made = await recorded(names, DATA)
        for first in range(0, len(ids), at_once):
            runs = [rekeyed(made, workflow_id) for workflow_id in ids[first : first + at_once]]
            for commit in zip(*runs, strict=True):
                self._commit(list(commit))
        self.work.done = len(ids) * len(names)

    def _commit(self, calls: list[Appended]) -> None:
        began = time.perf_counter()
        cursor = self.connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        for call in calls:
            Append(call.header.workflow_id, *call).perform(cursor)
        cursor.execute("COMMIT")
        self.work.waits.append(time.perf_counter() - began)


if __name__ == "__main__":
    serve(Bare())
