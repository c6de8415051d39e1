"""This library, as its README would have it: a `SQLitePersistence`, all else by default.

`recover()` is told to carry on 100 runs at once; it does 10 unless told.
"""

import sqlite3
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers._adapter import DATA, SETTINGS, Adapter, Work
from benchmarks.peers._serve import serve
from dotmac_workflows import SQLitePersistence, Workflow, WorkflowResult, WorkflowStatus, recover
from dotmac_workflows.persistence.sqlite._statements import Write


class Trivial(Workflow):
    """Steps of nothing."""

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step)


class Order(Workflow):
    """Steps that do the work, each with a little data."""

    work: Work

    def __init__(self, workflow_id: str | None = None, *, work: Work, **options: Any) -> None:
        super().__init__(workflow_id, **options)
        self.work = work

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(await self.work.step(self.workflow_id, step), step, DATA)

    async def rollback_step(self, step: str) -> WorkflowResult:
        await self.work.undo(self.workflow_id, step)
        return WorkflowResult(True, step)


class Purchase(Order):
    """Waits for an approval after its first step."""

    def __init__(self, workflow_id: str | None = None, **options: Any) -> None:
        super().__init__(workflow_id, **options)
        self.configure(require_approval=True)

    async def execute_step(self, step: str) -> WorkflowResult:
        await self.work.step(self.workflow_id, step)
        return WorkflowResult(True, step, DATA, requires_approval=(step == self.steps[0]))


class ReadSettings(Write[dict[str, object]]):
    """Asks the connection that the store writes through for its settings: they are its own, not the file's."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(certain=True)
        self.workflow_id = ""

    def perform(self, cursor: sqlite3.Cursor) -> dict[str, object]:
        """See `Write.perform`."""
        return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in SETTINGS}


class Dotmac(Adapter):
    """This library."""

    imports: ClassVar[dict[str, str]] = {
        "memory": "from dotmac_workflows import Workflow",
        "durable": "from dotmac_workflows import SQLitePersistence, Workflow",
    }
    memory: ClassVar[str | None] = "no persistence: the journal is a list"
    durable = "SQLitePersistence"
    tables: ClassVar[dict[str, str]] = {"workflows": "workflow_id", "records": "workflow_id"}

    store: SQLitePersistence

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        return len(await Trivial(steps=names).execute())

    async def open(self, folder: Path) -> None:
        """See `Adapter`."""
        self.store = SQLitePersistence(folder / self.file)
        await self.store.__aenter__()

    async def close(self) -> None:
        """See `Adapter`."""
        await self.store.close()

    async def settings(self) -> dict[str, object]:
        """See `Adapter`."""
        return await self.store._write(ReadSettings())

    async def run(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        await Order(workflow_id, steps=names, persistence=self.store, work=self.work).execute()

    async def start(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        await Purchase(workflow_id, steps=names, persistence=self.store, work=self.work).execute()

    async def approve(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        purchase = await Purchase.load(workflow_id, self.store, work=self.work)
        await purchase.approve_and_continue(actor="approver@example.com")
        assert purchase.status is WorkflowStatus.COMPLETED

    async def recover(self, ids: list[str], names: list[str]) -> None:
        """See `Adapter`."""

        def order(workflow_id: str, persistence: Any) -> Order:
            return Order(workflow_id, persistence=persistence, work=self.work)

        recovered = await recover(self.store, [order], concurrency=100)
        assert [run.status for run in recovered] == [WorkflowStatus.COMPLETED] * len(ids)

    async def undo(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        order = Order(workflow_id, steps=names, persistence=self.store, work=self.work)
        await order.execute()
        assert order.rollback_status == "done"

    async def undo_in_memory(self, names: list[str]) -> None:
        """See `Adapter`."""
        order = Order(steps=names, work=self.work)
        await order.execute()
        assert order.rollback_status == "done"


if __name__ == "__main__":
    serve(Dotmac())
