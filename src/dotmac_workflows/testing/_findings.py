"""Holding a run that ended to what it must be, and telling in words what it was instead."""

from collections import Counter
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from .._core.events import ApprovalRequested, RollbackStepSkipped, RollbackStepStarted
from .._run.callbacks import NAMES as CALLBACKS
from ..status import WorkflowStatus
from . import _words as words
from ._picture import differences
from ._process import UNDOES, Ending
from ._schedule import Schedule
from ._stage import Stage
from .report import ProofError


class Finding(NamedTuple):
    """What is wrong with a run."""

    kind: Literal["broken", "ends", "world", "data", "asks", "clean", "not undone", "incomplete"]
    details: list[str]

    def __str__(self) -> str:
        return "; ".join(self.details)


def hold(schedule: Schedule, ending: Ending, expected: Ending | None, stage: Stage[Any] | None) -> Finding | None:
    """Return what is wrong with how a run ended, or None.

    Args:
        schedule: What happened in it.
        ending: How it ended.
        expected: How it must have ended; None: nothing is known of that.
        stage: Where it was played; None: it is only compared.
    """
    asked = _asked_otherwise(stage) if stage is not None else None
    if asked is not None:
        return asked
    if stage is not None and schedule == Schedule() and ending.status is not stage.scenario.ends:
        return Finding("clean", _ends_otherwise(ending, stage.scenario.ends))
    # A cancel takes hold before or after the step that it hits, as a crash has it; what follows is judged below.
    if expected is not None and "cancel" not in schedule.kinds():
        if ending[:3] != expected[:3]:
            return Finding("ends", _told(ending, expected))
        if ending.world != expected.world:
            return Finding("world", _shown(ending.world, expected.world))
        other = _other_data(ending, expected, _again(stage) if stage is not None else set())
        if other is not None:
            return other
    if stage is None or not _to_be_undone(ending, stage):
        return None
    if ending.rollback_status == "incomplete":
        failed = [f"{step}: {error}" for step, success, error in ending.results if not success and "rollback_" in step]
        return Finding("incomplete", [f"the rollback could not be finished: {', '.join(failed)}"])
    if ending.world != stage.initial:
        return Finding("not undone", _shown(ending.world, stage.initial))
    return None


def _other_data(ending: Ending, expected: Ending, again: set[str]) -> Finding | None:
    """Find a result that brings other data, up to the first step that ran again, which may well say another thing."""
    for (step, *_), brings, should in zip(ending.results, ending.data, expected.data, strict=True):
        if step in again:
            return None
        if brings != should:
            return Finding("data", _shown(brings, should, f"the data of {step!r} shows"))
    return None


def _again(stage: Stage[Any]) -> set[str]:
    """Return the results of what ran more than once under one idempotency key."""
    keys = Counter(context.idempotency_key for _, context in stage.acts)
    forward = {"forward": "", "rollback": "rollback_"}
    return {f"{forward[context.phase]}{context.step}" for _, context in stage.acts if keys[context.idempotency_key] > 1}


def _asked_otherwise(stage: Stage[Any]) -> Finding | None:
    """Find a step that, when it ran again, asked for something else under the same key, and nothing had told it to."""
    for key, attempts in stage.calls.items():
        own_key = key.replace(stage.run_id or "", "<run>", 1)
        for before, again in pairwise(attempts):
            for had, has in zip(before, again, strict=False):
                if had.method != has.method:  # it looked whether it is done
                    break
                if had.said != has.said and own_key in had.said and own_key in has.said:
                    step = key.split(":", 3)[3]
                    return Finding("asks", [f"{step!r} had called {had.said}", f"and when it ran again {has.said}"])
                if had != has:
                    break
    return None


def _ends_otherwise(ending: Ending, ends: WorkflowStatus) -> list[str]:
    """Return, a line each, that a clean run ends in another status than it is said to, and what failed in it."""
    failed = [f"{step}: failed ({error})" for step, success, error in ending.results if not success]
    return [f"it ends {ending.status}", f"and should end {ends}", *failed]


def _to_be_undone(ending: Ending, stage: Stage[Any]) -> bool:
    settings = stage.state.settings
    if ending.status is WorkflowStatus.FAILED:
        return settings.rollback_on_failure
    return ending.status is WorkflowStatus.CANCELLED and settings.rollback_on_cancel


def _told(ending: Ending, expected: Ending) -> list[str]:
    lines = [f"it ends {_status(ending)}", f"and should end {_status(expected)}"]
    if ending[:2] == expected[:2]:
        lines = [f"it ends {ending.status} all the same, but not by the same results"]
    had = [result for result in ending.results if result not in expected.results]
    lacks = [result for result in expected.results if result not in ending.results]
    lines += [f"{step}: {'done' if success else f'failed ({error})'}" for step, success, error in had]
    lines += [f"{step}: {'done' if success else f'failed ({error})'} is not there" for step, success, error in lacks]
    return lines


def _status(ending: Ending) -> str:
    undone = "" if ending.rollback_status == "none" else f", rollback {ending.rollback_status}"
    return f"{ending.status}{undone}"


def _shown(shows: object, should: object, what: str = "the world shows") -> list[str]:
    lines = []
    for place, one, other in differences(shows, should):
        where = f"{place} is " if place else ""
        lines += [f"{what}  {where}{one}", f"and should show  {where}{other}"]
    return lines


# In words.

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

_STATE = "What a step keeps in the object is lost with the process: return it in `data`, and read it from `results`."


_RETRIED = (
    "{} was retried: it had another visit and idempotency key than when it failed, and has to take back what is left."
)


_CLEAN = "in a clean run, where nothing strikes and every gate is approved"


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
        return (
            "It depends on the clock: the process that took over came much later, and saw another time. Take the time "
            "once: in `metadata`, or in a step of its own that returns it in `data`, for those behind it to read."
        )
    again = _ran_again(stage)
    if finding.kind == "asks":
        return (
            "A step that runs again has to ask for the same: whoever knows the idempotency key refuses another request "
            "under it, or answers the old one. Take what is random or changes from `metadata` or an earlier result."
        )
    if not schedule.faults:
        return _advice_without_faults(schedule, stage, finding)
    if "disconnect" in schedule.kinds():
        if any(place.undoes for place in map(stage.places.__getitem__, [fault.point for fault in schedule.faults])):
            return _RETRIED.format("The rollback")
        return (
            "A step that fails is not rolled back: it has to take back itself what it did before, or be split, so that "
            "each step has one effect."
        )
    if again and "freeze" in schedule.kinds():
        return (
            f"{_capital(again[0])} ran once more in a process that had been frozen, when another one had gone on. To "
            "look around does not help there: only who is handed self.step_context.idempotency_key knows that it is "
            "too late."
        )
    unknown = any(context.outcome_unknown for _, context in stage.acts)
    if any(named.startswith(UNDOES) for named in again):
        return (
            f"{_capital(again[-1])} is not idempotent. A crash between an effect and its record makes it run twice: "
            "let the second time find that all is done, by self.step_context.idempotency_key or by looking."
        )
    if again:
        return (
            f"{_capital(again[0])} is not idempotent. A crash between an effect and its record makes it run twice: "
            "hand self.step_context.idempotency_key to whoever takes one, or look first whether it is done."
        )
    if unknown:
        return (
            "The crash left it unknown whether the step had its effect: self.step_context.outcome_unknown says so to "
            "its rollback, which has to look whether there is anything to undo."
        )
    told = _callbacks(stage)
    if told and finding.kind == "world":
        return (
            f"Nothing ran twice. If it is an effect of {' or '.join(told)}: a callback is called once at most, and a "
            f"crash may come first, so what must happen belongs in a step. Else it is what the new process does not "
            f"know. {_STATE}"
        )
    return f"Nothing ran twice, so what differs is what the new process does not know. {_STATE}"


def _callbacks(stage: Stage[Any]) -> list[str]:
    """Return the names of the callbacks that the workflow has."""
    return [name for name in sorted(set(CALLBACKS.values())) if getattr(stage.workflow, name, None) is not None]


def _advice_without_faults(schedule: Schedule, stage: Stage[Any], finding: Finding) -> str:
    meant = "If the run is meant to end so, say it: Scenario(..., ends=...)."
    if finding.kind == "clean":
        several = any(isinstance(event, ApprovalRequested) for event in stage.events)
        return f"Behind a gate, another process goes on. {_STATE} {meant}" if several else meant
    if finding.kind in ("ends", "world", "data") and len({process for process, _ in stage.acts}) > 1:
        return f"Another process went on with it, and does not know what the first one knew. {_STATE}"
    if finding.kind not in ("not undone", "incomplete"):
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
        "everything that the step did."
    )
