"""pydantic-graph: a `GraphBuilder` with a step and a decision that leads back to it until all are done.

Built once, run for each workflow. Since version 2 it keeps no runs: its documentation leaves durable execution to
Temporal, DBOS or Prefect. So it takes part in memory only.
"""

from dataclasses import dataclass
from typing import ClassVar

from pydantic_graph import BaseNode, End, GraphBuilder, GraphRunContext, StepContext

from benchmarks.peers._adapter import Adapter
from benchmarks.peers._serve import serve


@dataclass
class State:
    """Where a run stands."""

    names: list[str]
    at: int = 0


@dataclass
class Step(BaseNode[State, None, int]):
    """Does a step, and says which node is next."""

    async def run(self, ctx: GraphRunContext[State, None]) -> "Step | End[int]":
        ctx.state.at += 1
        return Step() if ctx.state.at < len(ctx.state.names) else End(ctx.state.at)


builder = GraphBuilder(state_type=State, output_type=int)


@builder.step
async def begin(ctx: StepContext[State, None, None]) -> Step:
    return Step()


builder.add(builder.edge_from(builder.start_node).to(begin), builder.node(Step), builder.edge_from(begin).to(Step))
graph = builder.build()


class PydanticGraph(Adapter):
    """pydantic-graph."""

    distribution = "pydantic-graph"
    imports: ClassVar[dict[str, str]] = {"memory": "from pydantic_graph import GraphBuilder"}
    memory = "its only one"

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        return int(await graph.run(state=State(names)))


if __name__ == "__main__":
    serve(PydanticGraph())
