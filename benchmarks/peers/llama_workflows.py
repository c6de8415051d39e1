"""LlamaIndex Workflows: a `Workflow` with a step that answers each event with the next one until all are done.

It can serialise the context of a run for its user to keep, and keeps none itself: its server, another package, does.
So it takes part in memory only.
"""

from typing import ClassVar

from workflows.events import Event, StartEvent, StopEvent

from benchmarks.peers._adapter import Adapter
from benchmarks.peers._serve import serve
from workflows import Workflow, step


class Next(Event):
    """A step that is to be done."""

    names: list[str]
    at: int


class Order(Workflow):
    """Named steps in order."""

    @step
    async def begin(self, event: StartEvent) -> Next:
        return Next(names=event.names, at=0)

    @step
    async def do(self, event: Next) -> Next | StopEvent:
        at = event.at + 1
        return Next(names=event.names, at=at) if at < len(event.names) else StopEvent(result=at)


class LlamaWorkflows(Adapter):
    """LlamaIndex Workflows."""

    distribution = "llama-index-workflows"
    imports: ClassVar[dict[str, str]] = {"memory": "from workflows import Workflow, step"}
    memory = "its only one"

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        return int(await Order(timeout=None).run(names=names))


if __name__ == "__main__":
    serve(LlamaWorkflows())
