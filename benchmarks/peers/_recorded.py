"""The calls of `append` that a run of this library makes, to be made again without it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from dotmac_workflows import InMemoryPersistence, Workflow, WorkflowResult
from dotmac_workflows.persistence import Header, LeaseChange, Record


class Appended(NamedTuple):
    """One call of `append`."""

    records: Sequence[Record]
    expected_version: int
    header: Header
    lease: LeaseChange | None = None


class Recorder(InMemoryPersistence):
    """Keeps the calls of `append` that a run made."""

    def __init__(self) -> None:
        super().__init__()
        self.appended: list[Appended] = []

    async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
        """Keep the call, and do it."""
        self.appended.append(Appended(records, **how))
        await super().append(workflow_id, records, **how)


class Order(Workflow):
    """Steps that return at once."""

    data: dict[str, Any]

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step, self.data)


async def recorded(names: list[str], data: dict[str, Any]) -> list[Appended]:
    """Return what a run of these steps appends."""
    recorder = Recorder()
    order = Order(steps=names, persistence=recorder)
    order.data = data
    await order.execute()
    return recorder.appended


def rekeyed(appended: list[Appended], workflow_id: str) -> list[Appended]:
    """Return the same rows for another workflow. (Their digests are another's: what they cost is the same.)"""
    return [call._replace(header=call.header._replace(workflow_id=workflow_id)) for call in appended]
