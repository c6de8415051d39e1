"""Facts from outside: what a caller asks, turned into events or refused.

Each command reads the state and returns the events to append; none means that what was asked for is so already. A
refusal says what state the workflow is in and what to do instead. Whoever appends does so at the version that it
read, and asks again when somebody else came first.
"""

from typing import TYPE_CHECKING, Any

from ..errors import AlreadyDecidedError, WorkflowExecutionError
from ..result import WorkflowResult
from ..status import WorkflowStatus
from . import events as ev
from .events import Event, RollbackOutcome, StepOutcome, Verdict
from .state import RunState

if TYPE_CHECKING:
    from datetime import datetime

_WHAT_TO_DO = {
    WorkflowStatus.PENDING: "Call execute() first.",
    WorkflowStatus.RUNNING: "Wait for it, or look at who drives it.",
    WorkflowStatus.COMPLETED: "There is nothing left to do.",
    WorkflowStatus.FAILED: "See its results; retry() runs it again.",
    WorkflowStatus.CANCELLED: "There is nothing left to do.",
    WorkflowStatus.WAITING_APPROVAL: "Approve or reject it.",
    WorkflowStatus.PAUSED: "Call resume() first.",
}


def instant(at: int) -> "datetime":
    """Return microseconds since 1970 UTC as an aware datetime; the first or last there is, for one beyond."""
    from datetime import UTC, datetime, timedelta  # here: most processes get by without its 1 ms

    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if at > 0 else datetime.min.replace(tzinfo=UTC)


def settle(result: WorkflowResult, now: int, exception: str | None = None, traceback: str | None = None) -> StepOutcome:
    """Return the fact that a step ended with a result."""
    if result.success:
        return ev.StepSucceeded(now, result, bool(result.requires_approval))
    return ev.StepFailed(now, result, exception, traceback)


def settle_rollback(
    result: WorkflowResult | None, step: str, now: int, exception: str | None = None, traceback: str | None = None
) -> RollbackOutcome:
    """Return the fact that a rollback step ended with a result, or (None) had nothing to run."""
    if result is None:
        why = f"Step {step!r} has no rollback: nothing was undone."
        return ev.RollbackStepSkipped(now, WorkflowResult(True, f"rollback_{step}", message=why))
    if result.success:
        return ev.RollbackStepSucceeded(now, result)
    return ev.RollbackStepFailed(now, result, exception, traceback)


def approve(state: RunState, now: int, data: dict[str, Any], actor: str | None, gate: int | None) -> list[Event]:
    """Open the gate that the run waits at.

    Args:
        state: The state as read.
        now: The instant of the decision.
        data: What the approver adds.
        actor: Who approves, where they say.
        gate: The gate that the caller has seen (`RunState.gate`); None: whichever is open.

    Raises:
        AlreadyDecidedError: That gate was decided by somebody else.
        WorkflowExecutionError: The run waits at no gate.
    """
    return [ev.Approved(now, actor, data)] if _is_open(state, "approved", actor, gate) else []


def reject(state: RunState, now: int, reason: str | None, actor: str | None, gate: int | None) -> list[Event]:
    """Close the gate that the run waits at; see `approve`."""
    return [ev.Rejected(now, actor, reason)] if _is_open(state, "rejected", actor, gate) else []


def _is_open(state: RunState, verdict: Verdict, actor: str | None, gate: int | None) -> bool:
    """Tell whether the gate can still be decided; False: this very actor has decided it so."""
    if state.gate and gate in (None, 0, state.gate):
        return True
    decided = [decision for decision in state.decisions if decision.gate == gate] or state.decisions
    if not decided:
        raise _refusal(state, "is not waiting for approval")
    last = decided[-1]
    if actor is not None and last.actor == actor and last.verdict == verdict:
        return False
    raise AlreadyDecidedError(
        f"Workflow {state.workflow_id!r} is not waiting for approval of step {last.step!r}: it was {last.verdict} by "
        f"{last.actor or 'somebody who gave no name'} at {show_time(last.at)}. There is nothing left to decide.",
        workflow_id=state.workflow_id,
        step=last.step,
        verdict=last.verdict,
        actor=last.actor,
        decided_at=instant(last.at),
    )


def pause(state: RunState, now: int, reason: str | None, actor: str | None, *, driven: bool = False) -> list[Event]:
    """Hold the run before its next step: at once when nobody drives it.

    Args:
        state: The state as read.
        now: The instant of the request.
        reason: Why, where they say.
        actor: Who asks, where they say.
        driven: Whether the caller's own object drives the run; one that lives in its object has no lease to tell.

    Raises:
        WorkflowExecutionError: There is nothing to hold.
    """
    if state.status is WorkflowStatus.PAUSED or state.pausing:
        return []
    if state.status is not WorkflowStatus.RUNNING:
        raise _refusal(state, "cannot be paused")
    if state.rollback is not None or state.rejected or state.cancelling is not None:
        raise _refusal(state, "cannot be paused", "It is being undone or cancelled; wait for that to end.")
    requested = ev.PauseRequested(now, actor, reason)
    return [requested] if driven or state.token is not None else [requested, ev.Paused(now)]


def resume(state: RunState, now: int, actor: str | None) -> list[Event]:
    """Let a paused run go on; nothing for any other."""
    if state.plan is None:
        raise _refusal(state, "cannot be resumed")
    return [ev.Resumed(now, actor)] if state.status is WorkflowStatus.PAUSED else []


def cancel(state: RunState, now: int, reason: str | None, actor: str | None) -> list[Event]:
    """Ask the run to end."""
    earlier = state.cancelling
    if earlier is not None:
        if actor is not None and earlier.actor == actor:
            return []
        raise AlreadyDecidedError(
            f"Workflow {state.workflow_id!r} was cancelled already, by {earlier.actor or 'somebody who gave no name'} "
            f"at {show_time(earlier.at)}. There is nothing left to decide.",
            workflow_id=state.workflow_id,
            verdict="cancelled",
            actor=earlier.actor,
            decided_at=instant(earlier.at),
        )
    if state.status not in (WorkflowStatus.RUNNING, WorkflowStatus.WAITING_APPROVAL, WorkflowStatus.PAUSED):
        raise _refusal(state, "cannot be cancelled")
    if state.rollback is not None:
        raise _refusal(state, "cannot be cancelled", "It is rolling back; wait for that to end.")
    if state.rejected:
        raise _refusal(state, "cannot be cancelled", "It was rejected and ends cancelled; resume() carries that out.")
    return [ev.CancelRequested(now, actor, reason)]


def retry(state: RunState, now: int, actor: str | None) -> list[Event]:
    """Run a failed workflow forward again."""
    if state.status is not WorkflowStatus.FAILED:
        raise _refusal(state, "cannot be retried: only a failed one can")
    if state.rollback_status == "incomplete":
        raise _refusal(
            state,
            "cannot be retried",
            "Its rollback is incomplete: call retry_rollback(), or skip_rollback(step, reason) for each step that "
            "was put right by hand, and then retry().",
        )
    return [ev.Retried(now, actor, 0 if state.rollback_status == "done" else state.index)]


def retry_rollback(state: RunState, now: int, actor: str | None) -> list[Event]:
    """Try again what a rollback left undone."""
    if state.rollback_status != "incomplete" or state.status is WorkflowStatus.RUNNING:
        raise _refusal(
            state, "has no incomplete rollback", f"Its rollback_status is {state.rollback_status!r}: nothing to retry."
        )
    return [ev.RollbackRetried(now, actor)]


def skip_rollback(state: RunState, now: int, step: str, reason: str, actor: str | None) -> list[Event]:
    """Record that a failed rollback step was put right by other means."""
    rollback = state.rollback
    if rollback is None or state.rollback_status != "incomplete":
        raise _refusal(
            state, "has no incomplete rollback", f"Its rollback_status is {state.rollback_status!r}: nothing to skip."
        )
    failed = [failure.step.step for failure in rollback.failed]
    if step not in failed:
        raise WorkflowExecutionError(
            f"The rollback of step {step!r} of workflow {state.workflow_id!r} did not fail; "
            f"those that did: {', '.join(failed) or 'none'}.",
            workflow_id=state.workflow_id,
            step=step,
        )
    waived = ev.RollbackWaived(now, step, actor, reason)
    return [waived, ev.RollbackFinished(now, True)] if len(failed) == 1 and not rollback.todo else [waived]


def show_time(at: int) -> str:
    """Return an instant for a message, to the second, in UTC."""
    shown = instant(at)
    if (shown.year, shown.month, shown.microsecond) == (9999, 12, 999999):
        return "after the year 9999"
    return f"{shown:%Y-%m-%d %H:%M:%SZ}"


def _refusal(state: RunState, why: str, instead: str | None = None) -> WorkflowExecutionError:
    return WorkflowExecutionError(
        f"Workflow {state.workflow_id!r} {why}; it is {state.status}. {instead or _WHAT_TO_DO[state.status]}",
        workflow_id=state.workflow_id,
        step=state.pending_step,
    )
