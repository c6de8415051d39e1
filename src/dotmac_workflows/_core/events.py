"""What happened: one small immutable tuple a fact, named in the past tense.

A journal is a list of these, and the only truth; `state.apply` folds them, `codec` turns them into rows. Every event
begins with ``at``, the instant in microseconds since 1970 UTC. Named tuples rather than frozen dataclasses because
two of them are built for every step: 0.25 µs instead of 1.5, and a quarter of the import time. Being tuples, events
of two types with equal fields compare equal: compare the type too.

Where a step's own events are made, `new_event` takes the fields ready made: half the price of calling the type.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

from ..result import WorkflowResult
from ..status import WorkflowStatus
from ..types import RollbackFailurePolicy, RollbackStatus

new_event: Any = tuple.__new__
"""Make an event of its type and the tuple of all its fields."""


class Settings(NamedTuple):
    """What `Workflow.configure` sets; pinned when a run starts."""

    rollback_on_failure: bool = True
    continue_on_step_failure: bool = False
    require_approval: bool = False
    rollback_on_cancel: bool = False
    on_rollback_failure: RollbackFailurePolicy = "continue"


class Draft(NamedTuple):
    """State that a caller set by hand before the run: the seed that it starts from."""

    status: WorkflowStatus
    current_step_index: int
    results: tuple[WorkflowResult, ...]
    pending_approval_step: str | None
    approval_data: dict[str, Any] | None
    rollback_status: RollbackStatus


class WorkflowStarted(NamedTuple):
    """A run began, with the plan that it keeps to its end."""

    at: int
    run_id: str
    """Made anew for each run: an id that was deleted and used again names another run."""
    workflow_type: str
    steps: tuple[str, ...]
    settings: Settings
    metadata: dict[str, Any]
    draft: Draft | None


class Claimed(NamedTuple):
    """A process took the lease and drives from here on."""

    at: int
    owner: str
    token: str


class Released(NamedTuple):
    """The driver let go before the run ended; it is due."""

    at: int


class StepStarted(NamedTuple):
    """A step is about to run; durable before the user's code is called."""

    at: int
    step: str
    position: int
    """Where the step stands in the plan, from 0."""
    visit: int
    """Which time the run comes by a step of this name, from 1."""
    attempt: int
    """Which time this visit is tried, from 1; a crash adds one."""


class StepSucceeded(NamedTuple):
    """The step in flight did what it was for."""

    at: int
    result: WorkflowResult
    gated: bool
    """Whether it asked for an approval. Kept apart from the result, which a callback could change."""


class StepFailed(NamedTuple):
    """The step in flight failed: it said so, or raised."""

    at: int
    result: WorkflowResult
    exception: str | None
    """The type of what was raised."""
    traceback: str | None
    """Its traceback, without locals."""


class StepInterrupted(NamedTuple):
    """A cancel ended the step in flight, or found it left by a crash: whether it had its effect is unknown."""

    at: int
    result: WorkflowResult


class ApprovalRequested(NamedTuple):
    """The run waits at a gate: the step has run, and the next one needs a decision."""

    at: int
    step: str


class Approved(NamedTuple):
    """Somebody opened the gate."""

    at: int
    actor: str | None
    data: dict[str, Any]


class Rejected(NamedTuple):
    """Somebody closed the gate for good; the run is to end cancelled."""

    at: int
    actor: str | None
    reason: str | None


class PauseRequested(NamedTuple):
    """Somebody asked the run to hold before its next step."""

    at: int
    actor: str | None
    reason: str | None


class Paused(NamedTuple):
    """The run holds."""

    at: int


class Resumed(NamedTuple):
    """Somebody asked a paused run to go on."""

    at: int
    actor: str | None


class CancelRequested(NamedTuple):
    """Somebody asked the run to end."""

    at: int
    actor: str | None
    reason: str | None


class RollbackStarted(NamedTuple):
    """The run turned round: from here on it only undoes."""

    at: int
    step: str
    """Where it turned: the step that failed, waited or was interrupted."""


class RollbackStepStarted(NamedTuple):
    """The undoing of a step is about to run; durable before the user's code is called."""

    at: int
    step: str
    """The step that is undone."""
    position: int
    """Where the step stands in the plan, from 0."""
    visit: int
    """Which time a step of this name is undone in this run, from 1."""
    attempt: int


class RollbackStepSucceeded(NamedTuple):
    """The rollback step in flight undid its step."""

    at: int
    result: WorkflowResult


class RollbackStepSkipped(NamedTuple):
    """The rollback step in flight turned out to have nothing to run."""

    at: int
    result: WorkflowResult


class RollbackStepFailed(NamedTuple):
    """The rollback step in flight failed: it said so, or raised."""

    at: int
    result: WorkflowResult
    exception: str | None
    traceback: str | None


class RollbackFinished(NamedTuple):
    """Nothing is left to undo, or nothing more will be tried."""

    at: int
    complete: bool


class RollbackRetried(NamedTuple):
    """Somebody asked for what the rollback left undone to be tried again."""

    at: int
    actor: str | None


class RollbackWaived(NamedTuple):
    """Somebody answers for a rollback step that failed: it is not tried again."""

    at: int
    step: str
    actor: str | None
    reason: str


class WorkflowCompleted(NamedTuple):
    """Every step ran."""

    at: int


class WorkflowFailed(NamedTuple):
    """The run ended with a step's failure."""

    at: int


class WorkflowCancelled(NamedTuple):
    """The run ended because somebody rejected or cancelled it."""

    at: int


class Retried(NamedTuple):
    """Somebody asked a failed run to go forward again."""

    at: int
    actor: str | None
    from_index: int


StepOutcome: TypeAlias = StepSucceeded | StepFailed | StepInterrupted
RollbackOutcome: TypeAlias = RollbackStepSucceeded | RollbackStepSkipped | RollbackStepFailed
Event: TypeAlias = (
    WorkflowStarted
    | Claimed
    | Released
    | StepStarted
    | StepOutcome
    | ApprovalRequested
    | Approved
    | Rejected
    | PauseRequested
    | Paused
    | Resumed
    | CancelRequested
    | RollbackStarted
    | RollbackStepStarted
    | RollbackOutcome
    | RollbackFinished
    | RollbackRetried
    | RollbackWaived
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
    | Retried
)

Verdict: TypeAlias = Literal["approved", "rejected", "cancelled"]
