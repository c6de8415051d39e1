"""What a journal amounts to: `RunState`, and the fold that makes it.

`apply` changes a state in place, O(1) an event, so that the cost of a step does not grow with the number of steps.
Whoever folds owns the state. Every event type has its function here, found by type; `decide` and the commands read
nothing but the state, so that the state after any prefix of a journal is the one that a live run had at that point.

An event that cannot follow what came before it is a damaged journal, and said to be one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import JournalCorruptError
from ..result import WorkflowResult
from ..status import WorkflowStatus
from ..types import RollbackStatus
from . import events as ev
from .events import Draft, Event, RollbackStepStarted, Settings, StepStarted, Verdict, WorkflowStarted


class GateDecision(NamedTuple):
    """How a gate was decided, for whoever asks again."""

    gate: int
    """Which gate of the run it was, from 1."""
    step: str
    verdict: Verdict
    actor: str | None
    at: int


class FailedRollback(NamedTuple):
    """A step that could not be undone, and the result that says so."""

    step: StepStarted
    result: WorkflowResult


@dataclass(slots=True)
class Rollback:
    """A rollback under way, or ended."""

    ends_in: WorkflowStatus
    """What the run ends as afterwards: failed or cancelled."""
    todo: list[StepStarted]
    """What is still to be undone; the last one next."""
    failed: list[FailedRollback] = field(default_factory=list)
    """What was tried and could not be undone, in the order tried."""


@dataclass(slots=True)
class RunState:
    """Everything that a journal says of a run."""

    workflow_id: str
    version: int = 0
    """The seq of the last event folded."""
    plan: WorkflowStarted | None = None
    """How the run was started; None: it was not."""
    steps: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    status: WorkflowStatus = WorkflowStatus.PENDING
    index: int = 0
    """The step that is next, running, or waited at."""
    results: list[WorkflowResult] = field(default_factory=list)
    """The current pass: one result a step, and those of its rollback. Grows in place; another list is another past."""
    visits: dict[str, int] = field(default_factory=dict)
    rollback_visits: dict[str, int] = field(default_factory=dict)
    in_flight: StepStarted | None = None
    undoing: RollbackStepStarted | None = None
    undoable: list[StepStarted] = field(default_factory=list)
    """What a rollback would undo; the last one first."""
    interrupted: StepStarted | None = None
    """The step whose outcome is unknown."""
    step_failed: bool = False
    """Whether a failure is to end this pass."""
    gated: bool = False
    """Whether the step that ran asked for an approval that was not requested yet."""
    gate: int = 0
    """The gate waited at: which one of the run, from 1; 0: none."""
    gates: int = 0
    """How many gates have opened."""
    pending_step: str | None = None
    decisions: list[GateDecision] = field(default_factory=list)
    approval_data: dict[str, Any] | None = None
    rejected: bool = False
    pausing: bool = False
    attention: bool = False
    """Whether anything but the next step may be due, or may have just happened: False promises that it is not."""
    cancelling: ev.CancelRequested | None = None
    rollback: Rollback | None = None
    rollback_status: RollbackStatus = "none"
    token: str | None = None
    """The lease that drives; None: nobody does."""
    owner: str | None = None
    """Which process drives, or was the last one to drive."""
    started_at: int | None = None
    ended_at: int | None = None


def apply(state: RunState, event: Event) -> None:
    """Fold one event into the state.

    Raises:
        JournalCorruptError: The event cannot follow what the state was folded from.
    """
    FOLD[type(event)](state, event)
    state.version += 1


def fold(state: RunState, events: Iterable[Event]) -> None:
    """Fold events into the state, in order."""
    for event in events:
        apply(state, event)


def replay(workflow_id: str, events: Iterable[Event]) -> RunState:
    """Return the state that a whole journal amounts to."""
    state = RunState(workflow_id)
    for event in events:
        if state.plan is None and type(event) is not WorkflowStarted:
            raise _misfit(state, event, "the run was not started")
        if isinstance(event, StepStarted | RollbackStepStarted):
            _check_place(state, event)
        elif isinstance(event, ev.ApprovalRequested) and event.step not in state.steps[state.index : state.index + 1]:
            raise _misfit(state, event, f"step {event.step!r} is not the one that ran")
        apply(state, event)
    return state


def _check_place(state: RunState, event: StepStarted | RollbackStepStarted) -> None:
    """Refuse a step that is not in the plan where it says, or not next; `decide` takes every step from there."""
    place = event.position
    if not 0 <= place < len(state.steps) or state.steps[place] != event.step:
        raise _misfit(state, event, f"there is no step {event.step!r} at place {place} of the plan")
    is_next = place == state.index and state.status is WorkflowStatus.RUNNING and not state.gated
    if type(event) is StepStarted and not is_next:
        raise _misfit(state, event, f"it was not the turn of step {event.step!r}")


def _misfit(state: RunState, event: Event, why: str) -> JournalCorruptError:
    seq = state.version + 1
    return JournalCorruptError(
        f"The journal of workflow {state.workflow_id!r} is damaged: record {seq} ({type(event).__name__}) cannot "
        f"follow, for {why}. Restore it from a backup, or delete the workflow.",
        workflow_id=state.workflow_id,
        seq=seq,
    )


def _workflow_started(state: RunState, event: WorkflowStarted) -> None:
    if state.plan is not None:
        raise _misfit(state, event, "the run was started already")
    state.plan = event
    state.steps = event.steps
    state.settings = event.settings
    state.started_at = event.at
    state.status = WorkflowStatus.RUNNING
    if event.draft is not None:
        state.attention = True
        _sow(state, event.draft)


def _sow(state: RunState, draft: Draft) -> None:
    """Begin where a caller's hand-made state says."""
    if not 0 <= draft.current_step_index <= len(state.steps):
        raise ValueError(f"a draft of {len(state.steps)} steps stands at {draft.current_step_index}")
    if draft.status is not WorkflowStatus.PENDING:
        state.status = draft.status
    state.index = draft.current_step_index
    state.results = list(draft.results)
    state.approval_data = draft.approval_data
    done = {result.step: result.success for result in draft.results}
    position = 0
    for result in draft.results:
        if result.success and result.step in state.steps:
            after = state.steps[position:]
            position = position + after.index(result.step) if result.step in after else state.steps.index(result.step)
            visit = state.visits.get(result.step, 0) + 1
            state.visits[result.step] = visit
            state.undoable.append(StepStarted(0, result.step, position, visit, 1))
            position += 1
    if draft.status is WorkflowStatus.WAITING_APPROVAL:
        state.gate = state.gates = 1
        state.pending_step = draft.pending_approval_step or state.steps[state.index]
    if draft.rollback_status != "none":
        state.rollback_status = draft.rollback_status
        ends_in = WorkflowStatus.CANCELLED if draft.status is WorkflowStatus.CANCELLED else WorkflowStatus.FAILED
        state.rollback = Rollback(ends_in, [s for s in state.undoable if f"rollback_{s.step}" not in done])
        by_step = {result.step: result for result in draft.results}
        state.rollback.failed = [
            FailedRollback(started, by_step[f"rollback_{started.step}"])
            for started in reversed(state.undoable)
            if done.get(f"rollback_{started.step}") is False
        ]
        state.undoable = []


def _claimed(state: RunState, event: ev.Claimed) -> None:
    state.token = event.token
    state.owner = event.owner


def _released(state: RunState, event: ev.Released) -> None:
    state.token = None


def _step_started(state: RunState, event: StepStarted) -> None:
    state.in_flight = event
    state.visits[event.step] = event.visit


def _step_succeeded(state: RunState, event: ev.StepSucceeded) -> None:
    started = state.in_flight
    if started is None:
        raise _misfit(state, event, "no step was running")
    state.in_flight = None
    state.results.append(event.result)
    state.undoable.append(started)
    if event.gated and state.settings.require_approval:
        state.gated = state.attention = True
    else:
        state.index += 1


def _step_failed(state: RunState, event: ev.StepFailed) -> None:
    if state.in_flight is None:
        raise _misfit(state, event, "no step was running")
    state.in_flight = None
    state.results.append(event.result)
    if state.settings.continue_on_step_failure:
        state.index += 1
    else:
        state.step_failed = state.attention = True


def _step_interrupted(state: RunState, event: ev.StepInterrupted) -> None:
    started = state.in_flight
    if started is None:
        raise _misfit(state, event, "no step was running")
    state.in_flight = None
    state.interrupted = started
    state.attention = True
    state.results.append(event.result)
    state.undoable.append(started)


def _approval_requested(state: RunState, event: ev.ApprovalRequested) -> None:
    if not state.gated:
        raise _misfit(state, event, "no step had asked for it")
    state.gated = False
    state.gates += 1
    state.gate = state.gates
    state.pending_step = event.step
    state.status = WorkflowStatus.WAITING_APPROVAL
    state.token = None


def _close_gate(state: RunState, verdict: Verdict, event: ev.Approved | ev.Rejected | ev.CancelRequested) -> str:
    """Note how the gate was decided, and return the step that it stood behind."""
    step = state.pending_step
    if not state.gate or step is None:
        raise _misfit(state, event, "no gate was open")
    state.decisions.append(GateDecision(state.gate, step, verdict, event.actor, event.at))
    state.gate = 0
    state.pending_step = None
    state.status = WorkflowStatus.RUNNING
    return step


def _approved(state: RunState, event: ev.Approved) -> None:
    _close_gate(state, "approved", event)
    state.approval_data = event.data
    state.attention = state.pausing
    state.index += 1


def _rejected(state: RunState, event: ev.Rejected) -> None:
    step = _close_gate(state, "rejected", event)
    reason = event.reason or "Approval rejected"
    state.results.append(
        WorkflowResult(
            False,
            step,
            {"reason": reason},
            error="approval_rejected",
            message=f"Workflow cancelled: {reason}",
        )
    )
    state.rejected = state.attention = True


def _pause_requested(state: RunState, event: ev.PauseRequested) -> None:
    state.pausing = state.attention = True


def _paused(state: RunState, event: ev.Paused) -> None:
    state.pausing = False
    state.attention = True
    state.status = WorkflowStatus.PAUSED
    state.token = None


def _resumed(state: RunState, event: ev.Resumed) -> None:
    state.pausing = state.attention = False
    state.status = WorkflowStatus.RUNNING


def _cancel_requested(state: RunState, event: ev.CancelRequested) -> None:
    if state.gate:
        _close_gate(state, "cancelled", event)
    state.cancelling = event
    state.attention = True
    state.pausing = False
    state.status = WorkflowStatus.RUNNING


def _rollback_started(state: RunState, event: ev.RollbackStarted) -> None:
    if state.rollback is not None:
        raise _misfit(state, event, "the run had turned round already")
    ends_in = WorkflowStatus.CANCELLED if state.cancelling or state.rejected else WorkflowStatus.FAILED
    state.rollback = Rollback(ends_in, state.undoable)
    state.undoable = []
    state.rollback_status = "running"


def _rollback_step_started(state: RunState, event: RollbackStepStarted) -> None:
    if state.rollback is None or not state.rollback.todo:
        raise _misfit(state, event, "nothing was left to undo")
    state.undoing = event
    state.rollback_visits[event.step] = event.visit


def _rollback_step_ended(state: RunState, event: ev.RollbackOutcome) -> None:
    rollback = state.rollback
    if rollback is None or state.undoing is None or not rollback.todo:
        raise _misfit(state, event, "no rollback step was running")
    state.undoing = None
    state.results.append(event.result)
    undone = rollback.todo.pop()
    if type(event) is ev.RollbackStepFailed:
        rollback.failed.append(FailedRollback(undone, event.result))


def _rollback_finished(state: RunState, event: ev.RollbackFinished) -> None:
    if state.rollback is None:
        raise _misfit(state, event, "no rollback was under way")
    state.rollback_status = "done" if event.complete else "incomplete"


def _rollback_retried(state: RunState, event: ev.RollbackRetried) -> None:
    rollback = _ended_rollback(state, event)
    again = {id(failure.result) for failure in rollback.failed}
    state.results = [result for result in state.results if id(result) not in again]
    rollback.todo.extend(failure.step for failure in reversed(rollback.failed))
    rollback.failed = []
    state.rollback_status = "running"
    state.status = WorkflowStatus.RUNNING
    state.ended_at = None


def _rollback_waived(state: RunState, event: ev.RollbackWaived) -> None:
    rollback = _ended_rollback(state, event)
    waived = next((failure for failure in rollback.failed if failure.step.step == event.step), None)
    if waived is None:
        raise _misfit(state, event, f"the rollback of step {event.step!r} did not fail")
    rollback.failed.remove(waived)
    by = f" by {event.actor}" if event.actor else ""
    answer = WorkflowResult(True, waived.result.step, message=f"Rollback skipped{by}: {event.reason}")
    state.results = [answer if result is waived.result else result for result in state.results]


def _ended_rollback(state: RunState, event: Event) -> Rollback:
    if state.rollback is None or state.rollback_status != "incomplete":
        raise _misfit(state, event, "no rollback had ended incomplete")
    return state.rollback


def _ended(status: WorkflowStatus) -> Callable[[RunState, Event], None]:
    def end(state: RunState, event: Event) -> None:
        state.status = status
        state.attention = True
        state.ended_at = event.at
        state.token = None
        state.pausing = False

    return end


def _retried(state: RunState, event: ev.Retried) -> None:
    if state.status is not WorkflowStatus.FAILED or state.gated or state.in_flight or state.undoing:
        raise _misfit(state, event, "the run had not failed")
    if not 0 <= event.from_index <= len(state.steps):
        raise _misfit(state, event, f"there is no place {event.from_index} in the plan")
    if state.rollback_status == "done":
        state.results = []
    elif state.results and not state.results[-1].success:
        state.results = state.results[:-1]
    state.index = event.from_index
    state.rollback = None
    state.rollback_status = "none"
    state.interrupted = None
    state.step_failed = state.attention = False
    state.status = WorkflowStatus.RUNNING
    state.ended_at = None


FOLD: dict[type[Any], Callable[[RunState, Any], None]] = {
    ev.WorkflowStarted: _workflow_started,
    ev.Claimed: _claimed,
    ev.Released: _released,
    ev.StepStarted: _step_started,
    ev.StepSucceeded: _step_succeeded,
    ev.StepFailed: _step_failed,
    ev.StepInterrupted: _step_interrupted,
    ev.ApprovalRequested: _approval_requested,
    ev.Approved: _approved,
    ev.Rejected: _rejected,
    ev.PauseRequested: _pause_requested,
    ev.Paused: _paused,
    ev.Resumed: _resumed,
    ev.CancelRequested: _cancel_requested,
    ev.RollbackStarted: _rollback_started,
    ev.RollbackStepStarted: _rollback_step_started,
    ev.RollbackStepSucceeded: _rollback_step_ended,
    ev.RollbackStepSkipped: _rollback_step_ended,
    ev.RollbackStepFailed: _rollback_step_ended,
    ev.RollbackFinished: _rollback_finished,
    ev.RollbackRetried: _rollback_retried,
    ev.RollbackWaived: _rollback_waived,
    ev.WorkflowCompleted: _ended(WorkflowStatus.COMPLETED),
    ev.WorkflowFailed: _ended(WorkflowStatus.FAILED),
    ev.WorkflowCancelled: _ended(WorkflowStatus.CANCELLED),
    ev.Retried: _retried,
}
