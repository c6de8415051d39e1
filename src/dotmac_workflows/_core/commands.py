"""Facts from outside: what a caller asks, turned into events or refused.

Each command reads the state and returns the events to append; none means that what was asked for is so already. A
refusal says what state the workflow is in and what to do instead. Whoever appends does so at the version that it
read, and asks again when somebody else came first.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from ..errors import AlreadyDecidedError, WorkflowConfigurationError, WorkflowExecutionError
from ..result import WorkflowResult
from ..status import WorkflowStatus
from . import events as ev
from .events import Event, RollbackOutcome, StepOutcome, Verdict
from .state import RunState

_T = TypeVar("_T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_WHAT_TO_DO = {
    WorkflowStatus.PENDING: "Call execute() first.",
    WorkflowStatus.RUNNING: "Wait for it, or look at who drives it.",
    WorkflowStatus.COMPLETED: "There is nothing left to do.",
    WorkflowStatus.FAILED: "See its results; retry() runs it again.",
    WorkflowStatus.CANCELLED: "There is nothing left to do.",
    WorkflowStatus.WAITING_APPROVAL: "Approve or reject it.",
    WorkflowStatus.PAUSED: "Call resume() first.",
}


def instant(at: int) -> datetime:
    """Return microseconds since 1970 UTC as an aware datetime; the first or last there is, for one beyond."""
    try:
        return _EPOCH + timedelta(microseconds=at)
    except OverflowError:
        return _LAST if at > 0 else _FIRST


def check_name(what: str, name: object, workflow_id: str | None = None) -> None:
    """Refuse an id or a step name that a store, a log or a terminal could garble.

    Raises:
        WorkflowConfigurationError: It is not 1 to 200 printable characters.
    """
    # Exactly a str: what stands in a row and in a digest must be what any other process makes of the same text.
    if type(name) is not str or not 1 <= len(name) <= 200 or not name.isprintable():
        shown = ascii(name) if len(ascii(name)) <= 80 else ascii(name)[:77] + "..."
        raise WorkflowConfigurationError(
            f"{what} must be a string of 1 to 200 printable characters, not {shown}.", workflow_id=workflow_id
        )


def plain(name: _T) -> _T | str:
    """Return a text of a class of its own (a member of an enum, say) as a plain one; all else as it is."""
    return str.__str__(name) if isinstance(name, str) and type(name) is not str else name


def plain_steps(steps: object, workflow_id: str) -> tuple[str, ...]:
    """Return step names as a plan holds them; `check_plan` looks at each.

    Raises:
        WorkflowConfigurationError: They are no list: a text, say, which would be taken letter by letter.
    """
    if not isinstance(steps, list | tuple):
        raise WorkflowConfigurationError(
            f"The steps of workflow {workflow_id!r} are of type {type(steps).__name__}, and must be a list of names.",
            workflow_id=workflow_id,
        )
    return tuple(steps) if set(map(type, steps)) <= {str} else tuple(map(plain, steps))


def check_plan(plan: ev.WorkflowStarted, workflow_id: str) -> None:
    """Refuse a plan that no run can keep to.

    Raises:
        WorkflowConfigurationError: An id or a step name is none, or the settings contradict each other.
    """
    check_name("A workflow id", workflow_id)
    for step in plan.steps if _has_odd_name(plan.steps) else ():
        check_name(f"A step name of workflow {workflow_id!r}", step, workflow_id)
    check_settings(plan.settings, workflow_id)
    draft = plan.draft
    if draft is not None:
        _check_seed(draft, plan.steps, workflow_id)


def check_draft(draft: ev.Draft, workflow_id: str) -> None:
    """Refuse a state set by hand that holds something else than what its attributes are for.

    Raises:
        WorkflowConfigurationError: It does.
    """
    for name, value, kind in (
        ("status", draft.status, WorkflowStatus),
        ("current_step_index", draft.current_step_index, int),
        *(("each of the results", result, WorkflowResult) for result in draft.results),
    ):
        if not isinstance(value, kind) or isinstance(value, bool):
            raise WorkflowConfigurationError(
                f"{name} of workflow {workflow_id!r} must be of type {kind.__name__}, and not {type(value).__name__}.",
                workflow_id=workflow_id,
            )


def _check_seed(draft: ev.Draft, steps: tuple[str, ...], workflow_id: str) -> None:
    index, pending = draft.current_step_index, draft.pending_approval_step
    last = len(steps) - (draft.status is WorkflowStatus.WAITING_APPROVAL)  # a run waits at one of its steps
    if not 0 <= index <= last:
        instead = f"Set it to 0 up to {last}." if last >= 0 else "Give it the step that it waits at."
        raise WorkflowConfigurationError(
            f"current_step_index of workflow {workflow_id!r} is {index}, but it has {len(steps)} steps and is "
            f"{draft.status}. {instead}",
            workflow_id=workflow_id,
        )
    if pending is not None and pending not in steps:
        shown = ascii(pending) if len(ascii(pending)) <= 80 else ascii(pending)[:77] + "..."
        raise WorkflowConfigurationError(
            f"pending_approval_step of workflow {workflow_id!r} is {shown}, which is none of its steps. Set it to the "
            "step that is waited at.",
            workflow_id=workflow_id,
        )


def _has_odd_name(steps: tuple[str, ...]) -> bool:
    """Tell whether a name may be none, looking at all at once: a plan may have ten thousand."""
    return not (
        all(steps)
        and set(map(type, steps)) <= {str}
        and "".join(steps).isprintable()
        and max(map(len, steps), default=0) <= 200
    )


def check_settings(settings: ev.Settings, workflow_id: str) -> None:
    """Refuse settings that contradict each other.

    Raises:
        WorkflowConfigurationError: They do.
    """
    if settings.continue_on_step_failure and settings.rollback_on_failure:
        raise WorkflowConfigurationError(
            f"Workflow {workflow_id!r} cannot both continue after a failed step and roll back. "
            "Call configure(continue_on_step_failure=True, rollback_on_failure=False), or leave the first one out.",
            workflow_id=workflow_id,
        )
    if settings.on_rollback_failure not in ("continue", "halt"):
        raise WorkflowConfigurationError(
            f"on_rollback_failure of workflow {workflow_id!r} is {settings.on_rollback_failure!r}; "
            "it must be 'continue' or 'halt'.",
            workflow_id=workflow_id,
        )


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
    if shown == _LAST:
        return "after the year 9999"
    return f"{shown:%Y-%m-%d %H:%M:%SZ}"


def _refusal(state: RunState, why: str, instead: str | None = None) -> WorkflowExecutionError:
    return WorkflowExecutionError(
        f"Workflow {state.workflow_id!r} {why}; it is {state.status}. {instead or _WHAT_TO_DO[state.status]}",
        workflow_id=state.workflow_id,
        step=state.pending_step,
    )
