"""Burr: an `Application` with an async action that goes round until all steps are done, built by `abuild()`.

The graph is built once, the application for each run, as its documentation has it for a server. On SQLite with
`AsyncSQLitePersister`, which keeps the state after each action; a run that waits, or that a crash left, is built again
by `initialize_from(..., resume_at_next_action=True)`. A gate is the application halting before an action that takes
the approval as an input. It has no rollback, and its documentation shows none.

Its best honest setting: the file is put into WAL beforehand, which Burr does not do (its default, DELETE with FULL,
is slower and may lose a commit at power loss). Telemetry is off.
"""

from pathlib import Path
from typing import Any, ClassVar

from burr import telemetry
from burr.core import ApplicationBuilder, State, action, default, when
from burr.core.graph import GraphBuilder
from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister

from benchmarks.peers._adapter import DATA, Adapter, in_groups, settings_of_async
from benchmarks.peers._serve import serve

telemetry.disable_telemetry()


@action(reads=["at", "of"], writes=["at", "more"])
async def trivial(state: State) -> State:
    at = state["at"] + 1
    return state.update(at=at, more=at < state["of"])


@action(reads=["id", "names", "at", "gated"], writes=["at", "more", "asks", "last"])
async def step(state: State) -> State:
    at, names = state["at"], state["names"]
    await adapter.work.step(state["id"], names[at])
    return state.update(at=at + 1, more=at + 1 < len(names), asks=at == 0 and state["gated"], last=DATA)


@action(reads=[], writes=["asks", "approved"])
async def gate(state: State, approved: bool) -> State:
    return state.update(asks=False, approved=approved)


@action(reads=[], writes=[])
async def done(state: State) -> State:
    return state


in_memory = (
    GraphBuilder()
    .with_actions(step=trivial, done=done)
    .with_transitions(("step", "step", when(more=True)), ("step", "done", default))
    .build()
)
graph = (
    GraphBuilder()
    .with_actions(step=step, gate=gate, done=done)
    .with_transitions(
        ("step", "gate", when(asks=True)),
        ("gate", "step", default),
        ("step", "step", when(more=True)),
        ("step", "done", default),
    )
    .build()
)


class Burr(Adapter):
    """Burr."""

    distribution = "burr"
    imports: ClassVar[dict[str, str]] = {
        "memory": "from burr.core import ApplicationBuilder, State, action",
        "durable": "import burr.core; from burr.integrations.persisters.b_aiosqlite import AsyncSQLitePersister",
    }
    memory = "no persister"
    durable = "AsyncSQLitePersister, SQLite in WAL"
    cannot: ClassVar[dict[str, str]] = {"undo": "it has no rollback, and its documentation shows none"}
    tables: ClassVar[dict[str, str]] = {"burr_state": "app_id"}

    persister: AsyncSQLitePersister

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        application = await (
            ApplicationBuilder()
            .with_graph(in_memory)
            .with_state(at=0, of=len(names), more=True)
            .with_entrypoint("step")
            .abuild()
        )
        _, _, state = await application.arun(halt_before=["done"])
        return int(state["at"])

    async def open(self, folder: Path) -> None:
        """See `Adapter`."""
        self.persister = await AsyncSQLitePersister.from_values(db_path=str(folder / self.file))
        async with self.persister.connection.execute("PRAGMA journal_mode = WAL"):
            pass
        await self.persister.initialize()

    async def close(self) -> None:
        """See `Adapter`."""
        await self.persister.cleanup()

    async def settings(self) -> dict[str, object]:
        """See `Adapter`."""
        return await settings_of_async(self.persister.connection)

    async def _made(self, workflow_id: str, names: list[str], *, gated: bool = False) -> Any:
        return await (
            ApplicationBuilder()
            .with_graph(graph)
            .with_identifiers(app_id=workflow_id)
            .with_state(id=workflow_id, names=names, at=0, more=True, asks=False, gated=gated)
            .with_entrypoint("step")
            .with_state_persister(self.persister)
            .abuild()
        )

    async def _loaded(self, workflow_id: str) -> Any:
        return await (
            ApplicationBuilder()
            .with_graph(graph)
            .with_identifiers(app_id=workflow_id)
            .initialize_from(self.persister, resume_at_next_action=True, default_state={}, default_entrypoint="step")
            .with_state_persister(self.persister)
            .abuild()
        )

    async def run(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        await (await self._made(workflow_id, names)).arun(halt_before=["done"])

    async def start(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        await (await self._made(workflow_id, names, gated=True)).arun(halt_before=["gate"])

    async def approve(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        application = await self._loaded(workflow_id)
        _, _, state = await application.arun(halt_before=["done"], inputs={"approved": True})
        assert state["at"] == len(names)

    async def recover(self, ids: list[str], names: list[str]) -> None:
        """See `Adapter`."""

        async def carry_on(workflow_id: str) -> None:
            _, _, state = await (await self._loaded(workflow_id)).arun(halt_before=["done"])
            assert state["at"] == len(names)

        await in_groups(map(carry_on, ids), 100)


adapter = Burr()

if __name__ == "__main__":
    serve(adapter)
