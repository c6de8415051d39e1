"""What happens in a run that is proved, in plain words."""

import traceback

from .._core import events as ev
from .._core.events import Event
from ..base import StepContext
from ..result import WorkflowResult
from ._process import UNDOES

STRIKES = {
    "crash": "CRASH",
    "freeze": "FROZEN past the lease",
    "rival": "A RIVAL comes",
    "wake": "THE FROZEN ONE WAKES",
    "disconnect": "A CONNECTION FAILS",
}


def place(at: "tuple[str, str, str, object]") -> str:
    """Return where a point is, as the end of a sentence: "after step 'charge' had its effect ..."."""
    when, what, step, detail = at
    if what == "step":
        return f"before step {step!r} ran" if when == "before" else _unrecorded(f"step {step!r} had its effect")
    if what == "rollback":
        undone = f"the rollback of {step!r}"
        return f"before {undone} ran" if when == "before" else _unrecorded(f"{undone} had its effect")
    if what == "call":
        return f"in {step}, {when} {detail}()" + (" and before that was recorded" if when == "after" else "")
    events = detail if isinstance(detail, list) else []
    return _before_append(events) if when == "before" else _after_append(events)


def _unrecorded(what: str) -> str:
    return f"after {what} and before that was recorded"


def _before_append(events: list[Event]) -> str:
    first = events[0] if events else None
    match first:
        case ev.WorkflowStarted():
            return "before the run was recorded at all"
        case ev.StepSucceeded():
            return _unrecorded(f"step {first.result.step!r} had its effect")
        case ev.StepFailed():
            return _unrecorded(f"step {first.result.step!r} failed")
        case ev.RollbackStepSucceeded() | ev.RollbackStepSkipped():
            return _unrecorded(f"the rollback of {_undone(first)!r} had its effect")
        case ev.RollbackStepFailed():
            return _unrecorded(f"the rollback of {_undone(first)!r} failed")
        case ev.Claimed():
            return "before the process that took over had recorded that"
    said = fact(first) if first is not None else None
    return f"before it was recorded: {said or 'a change of the lease'}"


def _after_append(events: list[Event]) -> str:
    last = events[-1] if events else None
    match last:
        case ev.StepStarted():
            done = [e for e in events if isinstance(e, ev.StepSucceeded)]
            so_far = (
                f"step {done[0].result.step!r} was recorded"
                if done
                else f"it was recorded that step {last.step!r} begins,"
            )
            return f"after {so_far} and before {f'step {last.step!r}' if done else 'it'} ran"
        case ev.RollbackStepStarted():
            return f"after it was recorded that the rollback of {last.step!r} begins, and before it ran"
        case ev.WorkflowCompleted() | ev.WorkflowFailed() | ev.WorkflowCancelled():
            return "after the end was recorded and before the caller heard of it"
    said = fact(last) if last is not None else None
    return f"after it was recorded: {said or 'a change of the lease'}"


def _undone(event: "ev.RollbackOutcome") -> str:
    return event.result.step.removeprefix("rollback_")


def fact(event: Event) -> str | None:
    """Return what an event says; None where it says nothing to somebody who reads a story."""
    match event:
        case ev.WorkflowStarted():
            return f"the run begins, with the steps {', '.join(event.steps)}"
        case ev.StepStarted():
            return f"step {event.step!r} begins" + _attempt(event.attempt)
        case ev.StepSucceeded():
            return f"step {event.result.step!r} is done"
        case ev.StepFailed() | ev.StepInterrupted():
            how = "failed" if isinstance(event, ev.StepFailed) else "was interrupted"
            return f"step {event.result.step!r} {how}: {failure(event.result)}"
        case ev.RollbackStepStarted():
            return f"the rollback of {event.step!r} begins" + _attempt(event.attempt)
        case ev.RollbackStepSucceeded():
            return f"{_undone(event)!r} is undone"
        case ev.RollbackStepSkipped():
            return f"{_undone(event)!r} has no rollback: nothing was undone"
        case ev.RollbackStepFailed():
            return f"the rollback of {_undone(event)!r} failed: {failure(event.result)}"
        case ev.RollbackFinished():
            return "the rollback is done" if event.complete else "the rollback is incomplete"
        case ev.Claimed() | ev.Released():
            return None
    return _OTHERS[type(event)].format(getattr(event, "step", ""))


_OTHERS: dict[type[Event], str] = {
    ev.ApprovalRequested: "the run waits for an approval behind step {!r}",
    ev.Approved: "the gate is approved",
    ev.Rejected: "the gate is rejected",
    ev.PauseRequested: "somebody asks for a pause",
    ev.Paused: "the run is paused",
    ev.Resumed: "the run is to go on",
    ev.CancelRequested: "somebody cancels the run",
    ev.RollbackStarted: "the run turns round, at step {!r}",
    ev.RollbackRetried: "what was left undone is to be tried again",
    ev.RollbackWaived: "the rollback of {!r} was put right by hand",
    ev.WorkflowCompleted: "the run completed",
    ev.WorkflowFailed: "the run failed",
    ev.WorkflowCancelled: "the run was cancelled",
    ev.Retried: "the run is to go forward again",
}


def _attempt(number: int) -> str:
    return f" again, attempt {number}" if number > 1 else ""


def act(context: StepContext) -> str:
    """Return that the user's code is called."""
    again = f" again (attempt {context.attempt}, the same idempotency key)" if context.attempt > 1 else ""
    return f"{named(context)} runs{again}"


def named(context: StepContext) -> str:
    """Return what of the user's runs."""
    return f"step {context.step!r}" if context.phase == "forward" else f"{UNDOES}{context.step!r}"


def failure(result: WorkflowResult) -> str:
    """Return why something failed, in a line."""
    said = [text for text in (_line(result.error), _line(result.message)) if text]
    return ": ".join(said) or "it does not say why"


def error(raised: BaseException) -> str:
    """Return what was raised, in a line."""
    return f"{type(raised).__name__}: {_line(str(raised))}"


def assertion(raised: Exception) -> str:
    """Return what a check said: its message, or else the line that did not hold."""
    frames = traceback.extract_tb(raised.__traceback__)
    line = frames[-1].line if frames else None
    text = _line(str(raised))
    if isinstance(raised, AssertionError):
        return " - ".join(part for part in (line, text) if part) or "AssertionError"
    return error(raised) + (f" (at {line!r})" if line else "")


def _line(text: str | None) -> str:
    return " ".join(str(text or "").split())
