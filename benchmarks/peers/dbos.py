"""DBOS on SQLite, as its programming guide has it: a `@DBOS.workflow()` that awaits `@DBOS.step()`s.

Async throughout, so that many run on one event loop. A gate is `DBOS.recv_async`; the run stays in the process that
started it, and another one approves by `DBOSClient.send_async`. What a crash left is carried on by `DBOS.launch()`.
Undoing is written by hand, as its guide undoes a reservation: further steps, in the workflow's own `except`.

Its best honest setting: the file is put into WAL beforehand, which DBOS does not do (its SQLite default, DELETE with
FULL, is slower and may lose a commit at power loss); results and messages are polled for each 20 ms instead of each
second; logging is left at WARNING.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID

from benchmarks.peers._adapter import DATA, SETTINGS, Adapter
from benchmarks.peers._serve import serve

POLLED = 0.02
at_gate: dict[str, asyncio.Event] = {}


class RefusedError(Exception):
    """A step that failed."""


@DBOS.step()
async def step(workflow_id: str, name: str) -> dict[str, Any]:
    if not await adapter.work.step(workflow_id, name):
        raise RefusedError(name)
    return DATA


@DBOS.step()
async def undo_step(workflow_id: str, name: str) -> None:
    await adapter.work.undo(workflow_id, name)


@DBOS.workflow()
async def order(workflow_id: str, names: list[str]) -> None:
    for name in names:
        await step(workflow_id, name)


@DBOS.workflow()
async def purchase(workflow_id: str, names: list[str]) -> None:
    await step(workflow_id, names[0])
    if workflow_id in at_gate:
        at_gate.pop(workflow_id).set()
    await DBOS.recv_async("decision", timeout_seconds=86_400)
    for name in names[1:]:
        await step(workflow_id, name)


@DBOS.workflow()
async def undone_order(workflow_id: str, names: list[str]) -> None:
    done: list[str] = []
    try:
        for name in names:
            await step(workflow_id, name)
            done.append(name)
    except RefusedError:
        for name in reversed(done):
            await undo_step(workflow_id, name)


class Dbos(Adapter):
    """DBOS."""

    distribution = "dbos"
    imports: ClassVar[dict[str, str]] = {"durable": "from dbos import DBOS"}
    durable = "async workflows and steps, SQLite in WAL; undoing written by hand"
    tables: ClassVar[dict[str, str]] = {"workflow_status": "workflow_uuid", "operation_outputs": "workflow_uuid"}

    client: DBOSClient | None = None
    launched: Any = None

    async def open(self, folder: Path) -> None:
        """See `Adapter`."""
        with closing(sqlite3.connect(folder / self.file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        self.url = f"sqlite:///{folder / self.file}"

    async def close(self) -> None:
        """See `Adapter`."""
        if self.launched is not None:
            DBOS.destroy()
            self.launched = None
        if self.client is not None:
            self.client.destroy()
            self.client = None

    def _launch(self) -> None:
        if self.launched is None:
            config: DBOSConfig = {
                "name": "order",
                "system_database_url": self.url,
                "log_level": "WARNING",
                "notification_listener_polling_interval_sec": POLLED,
            }
            self.launched = DBOS(config=config)
            DBOS.launch()

    async def settings(self) -> dict[str, object]:
        """See `Adapter`."""
        self._launch()
        with self.launched._sys_db.engine.connect() as connection:
            return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in SETTINGS}

    async def run(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        self._launch()
        with SetWorkflowID(workflow_id):
            await order(workflow_id, names)

    async def start(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        self._launch()
        waits = at_gate[workflow_id] = asyncio.Event()
        with SetWorkflowID(workflow_id):
            await DBOS.start_workflow_async(purchase, workflow_id, names)
        await waits.wait()

    async def approve(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        if self.client is None:
            self.client = DBOSClient(system_database_url=self.url)
        await self.client.send_async(workflow_id, {"approved": True}, topic="decision")
        handle: Any = await self.client.retrieve_workflow_async(workflow_id)
        await handle.get_result(polling_interval_sec=POLLED)

    async def recover(self, ids: list[str], names: list[str]) -> None:
        """See `Adapter`."""
        self._launch()
        for workflow_id in ids:
            handle: Any = await DBOS.retrieve_workflow_async(workflow_id)
            await handle.get_result(polling_interval_sec=POLLED)

    async def undo(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        self._launch()
        with SetWorkflowID(workflow_id):
            await undone_order(workflow_id, names)


adapter = Dbos()

if __name__ == "__main__":
    serve(adapter)
