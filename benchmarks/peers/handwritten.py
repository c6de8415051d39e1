"""A loop of one's own: a row a workflow in a SQLite table, whose state is written anew after each step.

What an application developer writes on an afternoon: `sqlite3` on the event loop's own thread, WAL with
`synchronous=FULL`, an UPDATE and a commit a step. It keeps where each run stands and what its steps returned, and can
carry on after a crash, wait for an approval, and undo. It has no journal of who did what, nothing that keeps two
processes from driving one run, and no commit shared between runs.
"""

import json
import sqlite3
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers._adapter import DATA, Adapter, in_groups, settings_of
from benchmarks.peers._serve import serve

TABLE = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, status TEXT NOT NULL, step INTEGER NOT NULL, results TEXT NOT NULL
) WITHOUT ROWID"""


class Handwritten(Adapter):
    """A state column of one's own."""

    durable = "sqlite3, one UPDATE and commit a step"
    imports: ClassVar[dict[str, str]] = {"durable": "import json, sqlite3"}
    tables: ClassVar[dict[str, str]] = {"runs": "id"}

    connection: sqlite3.Connection

    async def open(self, folder: Path) -> None:
        """See `Adapter`."""
        self.connection = sqlite3.connect(folder / self.file, isolation_level=None, timeout=30)
        self.connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(TABLE)
        self.connection.execute("CREATE INDEX IF NOT EXISTS runs_by_status ON runs (status)")

    async def close(self) -> None:
        """See `Adapter`."""
        self.connection.close()

    async def settings(self) -> dict[str, object]:
        """See `Adapter`."""
        return settings_of(self.connection)

    def _insert(self, workflow_id: str) -> None:
        self.connection.execute("INSERT INTO runs VALUES (?, 'running', 0, '[]')", (workflow_id,))

    def _save(self, workflow_id: str, status: str, step: int, results: list[Any]) -> None:
        self.connection.execute(
            "UPDATE runs SET status = ?, step = ?, results = ? WHERE id = ?",
            (status, step, json.dumps(results), workflow_id),
        )

    async def _carry_on(self, workflow_id: str, names: list[str]) -> None:
        """Run what is left of a run."""
        step, kept = self.connection.execute("SELECT step, results FROM runs WHERE id = ?", (workflow_id,)).fetchone()
        await self._steps(workflow_id, names, step, json.loads(kept))

    async def _steps(self, workflow_id: str, names: list[str], step: int, results: list[Any]) -> None:
        while step < len(names):
            fine = await self.work.step(workflow_id, names[step])
            if not fine:
                await self._undo(workflow_id, names, step, results)
                return
            results.append(DATA)
            step += 1
            self._save(workflow_id, "running" if step < len(names) else "completed", step, results)

    async def _undo(self, workflow_id: str, names: list[str], step: int, results: list[Any]) -> None:
        self._save(workflow_id, "undoing", step, results)
        while step > 0:
            step -= 1
            await self.work.undo(workflow_id, names[step])
            self._save(workflow_id, "undoing" if step else "undone", step, results)

    async def run(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        self._insert(workflow_id)
        await self._steps(workflow_id, names, 0, [])

    async def start(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        self._insert(workflow_id)
        await self.work.step(workflow_id, names[0])
        self._save(workflow_id, "waiting", 1, [DATA])

    async def approve(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        approved = self.connection.execute(
            "UPDATE runs SET status = 'running' WHERE id = ? AND status = 'waiting'", (workflow_id,)
        )
        assert approved.rowcount == 1
        await self._carry_on(workflow_id, names)

    async def recover(self, ids: list[str], names: list[str]) -> None:
        """See `Adapter`."""
        left = [row[0] for row in self.connection.execute("SELECT id FROM runs WHERE status = 'running'")]
        assert len(left) == len(ids)
        await in_groups((self._carry_on(workflow_id, names) for workflow_id in left), 100)

    async def undo(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        await self.run(workflow_id, names)


if __name__ == "__main__":
    serve(Handwritten())
