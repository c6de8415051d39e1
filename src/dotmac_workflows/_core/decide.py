"""What comes next: a pure function of the state.

`decide` answers for any state that a journal can lead to, so that a run can be taken up after any record. A step in
flight in the state that it is asked about is one that a crash left (a driver folds the outcome of its own step
before it asks again), and is tried again.

What wins when several things are due: a rollback under way, then a rejection or a cancel, then a failure, then the
gate, the end, a pause, the next step. So a pause holds a run only where it would start a step.
"""

from ..result import WorkflowResult
from ..status import WorkflowStatus
from .actions import Decision, RunRollback, RunStep, Stop, Wait
from .events import (
    ApprovalRequested,
    Event,
    Paused,
    RollbackFinished,
    RollbackStarted,
    RollbackStepStarted,
    StepInterrupted,
    StepStarted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    new_event,
)
from .state import Rollback, RunState

_STOP, _WAIT = Stop(), Wait()


def decide(state: RunState, now: int) -> Decision:
    """Return the facts to record next, and what to do once they are.

    Args:
        state: The state after everything that has happened; it is only read.
        now: The instant that the new facts are given, in microseconds since 1970 UTC.
    """
    if state.attention and (decision := _attend(state, now)) is not None:
        return decision
    left = state.in_flight
    if left is not None:
        again = left._replace(at=now, attempt=left.attempt + 1)
        return [again], RunStep(again)
    index, steps = state.index, state.steps
    if index >= len(steps):
        return [WorkflowCompleted(now)], _STOP
    step = steps[index]
    started = new_event(StepStarted, (now, step, index, state.visits.get(step, 0) + 1, 1))
    return [started], new_event(RunStep, (started,))


def _attend(state: RunState, now: int) -> Decision | None:
    """Return what comes before the next step, or None."""
    if state.status is not WorkflowStatus.RUNNING:
        return [], _WAIT if state.status is WorkflowStatus.WAITING_APPROVAL else _STOP
    if state.rollback is not None:
        return _go_on_undoing(state, state.rollback, now)
    if state.cancelling is not None or state.rejected:
        return _turn_round(state, now, undo=state.settings.rollback_on_cancel)
    if state.step_failed:
        return _turn_round(state, now, undo=state.settings.rollback_on_failure)
    if state.gated:
        return [ApprovalRequested(now, state.steps[state.index])], _WAIT
    if state.pausing and (state.in_flight is not None or state.index < len(state.steps)):
        return [Paused(now)], _STOP
    return None


def interrupted(started: StepStarted, now: int, why: str) -> StepInterrupted:
    """Return the fact that a step ended without telling its outcome."""
    result = WorkflowResult(False, started.step, error="step_interrupted", message=why)
    return StepInterrupted(now, result)


def _turn_round(state: RunState, now: int, *, undo: bool) -> Decision:
    """End the forward pass: undo what was done where that is wanted, else end at once."""
    events: list[Event] = []
    left = state.in_flight
    if left is not None:
        why = f"A crash left step {left.step!r} unfinished before the workflow was cancelled; its outcome is unknown."
        events.append(interrupted(left, now, why))
    target = left or (state.undoable[-1] if state.undoable else None)
    if not undo or target is None:
        cancelled = state.cancelling is not None or state.rejected
        events.append(WorkflowCancelled(now) if cancelled else WorkflowFailed(now))
        return events, _STOP
    turned_at = state.steps[min(state.index, len(state.steps) - 1)]
    events.append(RollbackStarted(now, turned_at))
    return _undo(state, target, now, events)


def _go_on_undoing(state: RunState, rollback: Rollback, now: int) -> Decision:
    left = state.undoing
    if left is not None:
        started = left._replace(at=now, attempt=left.attempt + 1)
        return [started], RunRollback(started, _is_unknown(state, rollback.todo[-1]))
    halted = bool(rollback.failed) and state.settings.on_rollback_failure == "halt"
    if rollback.todo and not halted:
        return _undo(state, rollback.todo[-1], now, [])
    ending = WorkflowCancelled(now) if rollback.ends_in is WorkflowStatus.CANCELLED else WorkflowFailed(now)
    return [RollbackFinished(now, not rollback.todo and not rollback.failed), ending], _STOP


def _undo(state: RunState, target: StepStarted, now: int, before: list[Event]) -> Decision:
    visit = state.rollback_visits.get(target.step, 0) + 1
    started = RollbackStepStarted(now, target.step, target.position, visit, 1)
    return [*before, started], RunRollback(started, _is_unknown(state, target))


def _is_unknown(state: RunState, target: StepStarted) -> bool:
    unknown = state.in_flight or state.interrupted
    return unknown is not None and (unknown.position, unknown.visit) == (target.position, target.visit)
