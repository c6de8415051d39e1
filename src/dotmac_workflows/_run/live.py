"""Where a run's events are committed: what every journal does, and the one of a run without persistence.

The journal of a run in a store is in `journal`, which such a run alone imports.
"""

from typing import Protocol, TypeVar

from .._core.events import Approved, Event, RollbackOutcome, StepOutcome, WorkflowStarted
from .._core.state import RunState, replay
from ..errors import ConcurrencyError
from ..persistence import LeaseChange

Sealed = TypeVar("Sealed", bound=WorkflowStarted | Approved | StepOutcome | RollbackOutcome)


class Journal(Protocol):
    """What a host commits to."""

    async def load(self) -> RunState:
        """Read it all, and return what it amounts to; appends go on from there."""
        ...

    async def append(self, state: RunState, events: list[Event], lease: LeaseChange | None = None) -> None:
        """Make events durable that lead to `state`; see `Persistence.append` for the errors."""
        ...

    def seal(self, event: Sealed) -> Sealed:
        """Return an event with values of the user's as it will be read back."""
        ...


class LiveJournal:
    """The journal of a workflow without persistence: a list, holding live values."""

    def __init__(self, workflow_id: str) -> None:
        self._workflow_id = workflow_id
        self._events: list[Event] = []

    async def load(self) -> RunState:
        """See `Journal.load`."""
        return replay(self._workflow_id, self._events)

    async def append(self, state: RunState, events: list[Event], lease: LeaseChange | None = None) -> None:
        """See `Journal.append`."""
        self.add(state, events)

    def add(self, state: RunState, events: list[Event]) -> None:
        """Do what `append` does, without the price of a coroutine."""
        if len(self._events) + len(events) != state.version:
            raise ConcurrencyError(
                f"Workflow {self._workflow_id!r} moved on; read it again and decide again.",
                workflow_id=self._workflow_id,
                expected_version=state.version - len(events),
                stored_version=len(self._events),
            )
        self._events += events

    def seal(self, event: Sealed) -> Sealed:
        """See `Journal.seal`."""
        return event
