"""Telling in words what a schedule broke, and what to do."""

from typing import Any

from .._core.events import ApprovalRequested, RollbackStepSkipped, RollbackStepStarted
from .._run.callbacks import NAMES as CALLBACKS
from . import _words as words
from ._findings import Finding
from ._process import UNDOES
from ._schedule import Schedule
from ._stage import Stage
from .report import ProofError

_DEPARTS = {
    "fail": "step {!r} fails",
    "undo-fails": "the rollback of {!r} fails once and is retried",
    "reject": "the gate behind {!r} is rejected",
    "cancel-at": "the run is cancelled at the gate behind {!r}",
    "approve-only": "the gate behind {!r} is approved by one process and carried on by another",
    "approve-twice": "the gate behind {!r} is approved twice",
    "reject-first": "somebody rejects the gate behind {!r} while it is being approved",
    "approve-first": "somebody approves the gate behind {!r} while it is being rejected",
    "pause": "the run is paused while {!r} runs",
    "cancel": "the run is cancelled while {!r} runs",
}
_FAULTS = {
    "crash": "a crash",
    "rival": "a rival process",
    "freeze": "the process is frozen past its lease",
    "wake": "it wakes",
    "disconnect": "a connection fails",
}
_CLEAN = "in a clean run, where nothing strikes and every gate is approved"

_STATE = "What a step keeps in the object is lost with the process: return it in `data`, and read it from `results`."
_BY_CLOCK = (
    "It depends on the clock: the process that took over came much later, and saw another time. Take the time once: in "
    "`metadata`, or in a step of its own that returns it in `data`, for those behind it to read."
)
_ASKS_THE_SAME = (
    "A step that runs again has to ask for the same: whoever knows the idempotency key refuses another request under "
    "it, or answers the old one. Take what is random or changes from `metadata` or an earlier result."
)
_FAILS_HALFWAY = (
    "A step that fails is not rolled back: it has to take back itself what it did before, or be split, so that each "
    "step has one effect."
)
_RETRIED = (
    "{} was retried: it had another visit and idempotency key than when it failed, and has to take back what is left."
)
_ACTS_LATE = (
    "{} ran once more in a process that had been frozen, when another one had gone on. To look around does not help "
    "there: only who is handed self.step_context.idempotency_key knows that it is too late."
)
_UNDONE_TWICE = (
    "{} is not idempotent. A crash between an effect and its record makes it run twice: let the second time find that "
    "all is done, by self.step_context.idempotency_key or by looking."
)
_DONE_TWICE = (
    "{} is not idempotent. A crash between an effect and its record makes it run twice: hand "
    "self.step_context.idempotency_key to whoever takes one, or look first whether it is done."
)
_UNKNOWN = (
    "The crash left it unknown whether the step had its effect: self.step_context.outcome_unknown says so to its "
    "rollback, which has to look whether there is anything to undo."
)
_CALLBACK = (
    "Nothing ran twice. If it is an effect of {}: a callback is called once at most, and a crash may come first, so "
    "what must happen belongs in a step. Else it is what the new process does not know. {}"
)


def explain(
    name: str, schedule: Schedule, stage: Stage[Any], finding: Finding, timeline: list[str], *, by_clock: bool
) -> ProofError:
    """Return the error that tells of a finding.

    Args:
        name: The scenario's.
        schedule: What happened.
        stage: Where it was played.
        finding: What is wrong.
        timeline: The lines of the run.
        by_clock: Whether all is well when no time passes between the crash and the process that takes over.
    """
    what = [_DEPARTS[departure.kind].format(departure.step) for departure in schedule.departures]
    for fault in schedule.faults:
        if fault.point < len(stage.places):
            what.append(f"{_FAULTS[fault.kind]} {words.place(stage.places[fault.point])}")
        else:
            what.append(f"{_FAULTS[fault.kind]} when the run has ended")
    headline = f"{_capital('; then '.join(what) or _CLEAN)}."
    again = _ran_again(stage)
    if again:
        headline += f" {_capital(' and '.join(again))} ran again, with the same idempotency key."
    if by_clock:
        headline += " Where no time passes in between, all is well."
    return ProofError(
        name,
        str(schedule),
        headline,
        tuple(finding.details),
        _advice(schedule, stage, finding, by_clock=by_clock),
        tuple(timeline),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ran_again(stage: Stage[Any]) -> list[str]:
    """Return the steps and rollbacks that one idempotency key was given to more than once, in words."""
    seen: set[str] = set()
    again: list[str] = []
    for _, context in stage.acts:
        named = words.named(context)
        if context.idempotency_key in seen and named not in again:
            again.append(named)
        seen.add(context.idempotency_key)
    return again


def _advice(schedule: Schedule, stage: Stage[Any], finding: Finding, *, by_clock: bool) -> str:
    if by_clock:
        return _BY_CLOCK
    if finding.kind == "asks":
        return _ASKS_THE_SAME
    if not schedule.faults:
        return _advice_without_faults(schedule, stage, finding)
    failed = [stage.places[fault.point] for fault in schedule.faults if fault.kind == "disconnect"]
    if failed:
        return _RETRIED.format("The rollback") if failed[0].undoes else _FAILS_HALFWAY
    again = _ran_again(stage)
    if again and "freeze" in schedule.kinds():
        return _ACTS_LATE.format(_capital(again[0]))
    if any(named.startswith(UNDOES) for named in again):
        return _UNDONE_TWICE.format(_capital(again[-1]))
    if again:
        return _DONE_TWICE.format(_capital(again[0]))
    if any(context.outcome_unknown for _, context in stage.acts):
        return _UNKNOWN
    told = [name for name in sorted(set(CALLBACKS.values())) if getattr(stage.workflow, name, None) is not None]
    if told and finding.kind == "world":
        return _CALLBACK.format(" or ".join(told), _STATE)
    if schedule.kinds().isdisjoint({"crash", "freeze"}):
        return ""
    return f"Nothing ran twice, so what differs is what the new process does not know. {_STATE}"


def _advice_without_faults(schedule: Schedule, stage: Stage[Any], finding: Finding) -> str:
    if finding.kind == "clean":
        raised = any(result.error == "step_execution_error" for result in stage.state.results)
        meant = "" if raised else "If the run is meant to end so, say it: Scenario(..., ends=...)."
        several = any(isinstance(event, ApprovalRequested) for event in stage.events)
        return f"Behind a gate, another process goes on. {_STATE} {meant}".rstrip() if several else meant
    if finding.kind in ("ends", "world", "data") and len({process for process, _ in stage.acts}) > 1:
        return f"Another process went on with it, and does not know what the first one knew. {_STATE}"
    if finding.kind == "incomplete":
        return "A rollback that fails leaves its step done: let it succeed, also where there is nothing more to undo."
    if finding.kind != "not undone":
        return ""
    retried = [departure.step for departure in schedule.departures if departure.kind == "undo-fails"]
    if retried:
        return _RETRIED.format(f"The rollback of {retried[0]!r}")
    undone = [event.step for event in stage.events if isinstance(event, RollbackStepStarted)]
    if not undone:
        return "No step was undone: a step that fails has to leave nothing behind."
    # Schedules in which an earlier step failed were run before, and held: the last step done makes the difference.
    last = undone[0]
    if any(
        isinstance(event, RollbackStepSkipped) and event.result.step == f"rollback_{last}" for event in stage.events
    ):
        return f"Step {last!r} has no rollback: write one, or let observe leave out what may stay."
    return (
        f"The rollback of {last!r} is the one to look at: without that step all was undone. It has to take back "
        "everything that the step did, or observe leaves out what may stay."
    )
