"""LangGraph: a `StateGraph` compiled with a checkpointer, a node that does a step and goes round until all are done.

One node in a loop, not a node a step: its cost grows with the number of nodes. In memory with `InMemorySaver`, which
its documentation has for what must be able to wait; on SQLite with `AsyncSqliteSaver` and `durability="sync"`, the
mode in which a step is kept before the next one starts. A gate is `interrupt()`, its approval `Command(resume=...)`
under the same thread id; a run that a crash left goes on when it is invoked with None. It puts the file into WAL
itself. It has no rollback, and its documentation shows none.
"""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from benchmarks.peers._adapter import DATA, Adapter, in_groups, settings_of_async
from benchmarks.peers._serve import serve


class State(TypedDict):
    """Where a run stands."""

    names: list[str]
    at: int
    last: dict[str, Any]


class Position(TypedDict):
    """The same of a run of trivial steps."""

    names: list[str]
    at: int


async def trivial(state: Position) -> dict[str, Any]:
    return {"at": state["at"] + 1}


async def step(state: State, config: RunnableConfig) -> dict[str, Any]:
    await adapter.work.step(config["configurable"]["thread_id"], state["names"][state["at"]])
    return {"at": state["at"] + 1, "last": DATA}


async def gate(state: State) -> dict[str, Any]:
    interrupt({"ask": "approve?"})
    return {}


def way(state: Any) -> str:
    return "step" if state["at"] < len(state["names"]) else END


def gated_way(state: State) -> str:
    return "gate" if state["at"] == 1 else way(state)


def settings_of(workflow_id: str, names: list[str]) -> Any:
    return {"configurable": {"thread_id": workflow_id}, "recursion_limit": len(names) + 10}


def looped(kind: Any, node: Any, checkpointer: Any) -> Any:
    graph = StateGraph(kind)
    graph.add_node("step", node)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", way, ["step", END])
    return graph.compile(checkpointer=checkpointer)


def gated(checkpointer: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_node("gate", gate)
    graph.add_edge(START, "step")
    graph.add_edge("gate", "step")
    graph.add_conditional_edges("step", gated_way, ["step", "gate", END])
    return graph.compile(checkpointer=checkpointer)


class LangGraph(Adapter):
    """LangGraph."""

    distribution = "langgraph"
    imports: ClassVar[dict[str, str]] = {
        "memory": "from langgraph.checkpoint.memory import InMemorySaver; from langgraph.graph import StateGraph",
        "durable": "import langgraph.graph; from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver",
    }
    memory = "InMemorySaver"
    durable = 'AsyncSqliteSaver, durability="sync"'
    cannot: ClassVar[dict[str, str]] = {"undo": "it has no rollback, and its documentation shows none"}
    tables: ClassVar[dict[str, str]] = {"checkpoints": "thread_id", "writes": "thread_id"}

    saver: AsyncSqliteSaver
    opened: AbstractAsyncContextManager[AsyncSqliteSaver]

    def __init__(self) -> None:
        super().__init__()
        self.in_memory_graph = looped(Position, trivial, InMemorySaver())
        self.number = 0

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        self.number += 1
        config = settings_of(str(self.number), names)
        ended = await self.in_memory_graph.ainvoke({"names": names, "at": 0}, config)
        return int(ended["at"])

    async def open(self, folder: Path) -> None:
        """See `Adapter`."""
        self.opened = AsyncSqliteSaver.from_conn_string(str(folder / self.file))
        self.saver = await self.opened.__aenter__()
        await self.saver.setup()
        self.graph, self.gated_graph = looped(State, step, self.saver), gated(self.saver)

    async def close(self) -> None:
        """See `Adapter`."""
        await self.opened.__aexit__(None, None, None)

    async def settings(self) -> dict[str, object]:
        """See `Adapter`."""
        return await settings_of_async(self.saver.conn)

    async def run(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        begun = {"names": names, "at": 0, "last": {}}
        await self.graph.ainvoke(begun, settings_of(workflow_id, names), durability="sync")

    async def start(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        begun = {"names": names, "at": 0, "last": {}}
        config = settings_of(workflow_id, names)
        stopped = await self.gated_graph.ainvoke(begun, config, durability="sync")
        assert stopped["__interrupt__"]

    async def approve(self, workflow_id: str, names: list[str]) -> None:
        """See `Adapter`."""
        config = settings_of(workflow_id, names)
        ended = await self.gated_graph.ainvoke(Command(resume=True), config, durability="sync")
        assert ended["at"] == len(names)

    async def recover(self, ids: list[str], names: list[str]) -> None:
        """See `Adapter`."""

        async def carry_on(workflow_id: str) -> None:
            ended = await self.graph.ainvoke(None, settings_of(workflow_id, names), durability="sync")
            assert ended["at"] == len(names)

        await in_groups(map(carry_on, ids), 100)


adapter = LangGraph()

if __name__ == "__main__":
    serve(adapter)
