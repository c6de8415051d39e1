"""THE loop: the only place where a run moves on.

Take the pending facts; decide from the state that they lead to; commit them together with the decision's own, at the
version that they build on; perform the action; its outcome is the next pending fact. So "step i ended" and "step i+1
is about to run" share one commit.

What it drives is a `Host`: the process at hand (`local.LocalHost`), a test that crashes at a chosen point, or the
deterministic code of a distributed engine. The state that the loop folds is its own; what others see is what a host
publishes once it has committed.
"""

from typing import Protocol

from .._core.actions import RunRollback, RunStep, Stop, Wait
from .._core.decide import decide
from .._core.events import Event
from .._core.state import FOLD, RunState


class Conflict(Exception):  # noqa: N818 - not an error: the host says that somebody else recorded something meanwhile
    """Somebody appended to a run that this host drives, and the host still drives it.

    Raised by `Host.commit`, with the state read anew. A host that no longer drives raises `LeaseLostError` instead.
    """

    def __init__(self, state: RunState) -> None:
        super().__init__()
        self.state = state


class Host(Protocol):
    """What the loop needs of the world."""

    def now(self) -> int:
        """Return the instant for new facts, in microseconds since 1970 UTC."""
        ...

    async def commit(self, state: RunState, events: list[Event]) -> None:
        """Make events durable that lead to `state`, or raise and leave nothing.

        Raises:
            Conflict: Somebody else appended first.
        """
        ...

    async def wait(self, wait: Wait) -> list[Event]:
        """Return the facts that end a wait, or none to give the caller its thread back."""
        ...

    async def perform(self, action: RunStep | RunRollback) -> list[Event]:
        """Run the user's code and return what happened. Never raises for a failure of the user's own."""
        ...


async def drive(host: Host, state: RunState, pending: list[Event]) -> RunState:
    """Drive a run from `state` and the facts that are to follow it, until it stops or waits.

    Args:
        host: What to drive.
        state: What the journal amounts to so far; owned by the loop from here on.
        pending: Facts that are not committed yet.

    Returns:
        The last state committed.
    """
    handlers = FOLD
    while True:
        for event in pending:
            handlers[type(event)](state, event)
        # What follows from a fact happens at its instant.
        events, action = decide(state, pending[-1].at if pending else host.now())
        for event in events:
            handlers[type(event)](state, event)
        pending += events
        state.version += len(pending)
        try:
            await host.commit(state, pending)
        except Conflict as conflict:
            # What a step did is still true, and appended after what came between.
            state = conflict.state
            pending = pending[: -len(events)] if events else pending
            continue
        if type(action) is RunStep or type(action) is RunRollback:
            pending = await host.perform(action)
        elif type(action) is Wait:
            pending = await host.wait(action)
            if not pending:
                return state
        else:
            assert type(action) is Stop
            return state
