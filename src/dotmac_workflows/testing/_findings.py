"""Holding a run that ended to what it must be, and telling in words what it was instead."""

from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from ..status import WorkflowStatus
from . import _words as words
from ._picture import differences
from ._process import Ending
from ._schedule import Schedule
from ._stage import Stage


class Finding(NamedTuple):
    """What is wrong with a run."""

    kind: Literal["broken", "ends", "world", "data", "asks", "clean", "not undone", "incomplete"]
    details: list[str]
    step: str = ""
    """Whose data it is."""

    def __str__(self) -> str:
        return "; ".join(self.details)


def hold(stage: Stage[Any], ending: Ending, expected: Ending | None, unsteady: Collection[str]) -> Finding | None:
    """Return what is wrong with how a run ended, or None.

    Args:
        stage: Where it was played.
        ending: How it ended.
        expected: How it must have ended; None: nothing is known of that.
        unsteady: The results whose data is another in each run.
    """
    asked = _asked_otherwise(stage)
    if asked is not None:
        return asked
    if stage.schedule == Schedule() and ending.status is not stage.scenario.ends:
        return Finding("clean", _ends_otherwise(stage))
    # A cancel takes hold before or after the step that it hits, as a crash has it; what follows is judged below.
    if expected is not None and "cancel" not in stage.schedule.kinds():
        if ending[:3] != expected[:3]:
            return Finding("ends", _told(ending, expected))
        if ending.world != expected.world:
            return Finding("world", _shown(ending.world, expected.world))
        other = _other_data(ending, expected, _again(stage), unsteady)
        if other is not None:
            return other
    if not _to_be_undone(ending, stage):
        return None
    if ending.rollback_status == "incomplete":
        failed = [f"{step}: {error}" for step, success, error in ending.results if not success and "rollback_" in step]
        return Finding("incomplete", [f"the rollback could not be finished: {', '.join(failed)}"])
    if ending.world != stage.initial:
        return Finding("not undone", _shown(ending.world, stage.initial))
    return None


def _other_data(ending: Ending, expected: Ending, again: set[str], unsteady: Collection[str]) -> Finding | None:
    """Find a result that brings other data, up to the first step that ran again, which may well say another thing."""
    for (step, *_), brings, should in zip(ending.results, ending.data, expected.data, strict=True):
        if step in again:
            return None
        if brings != should and step not in unsteady:
            return Finding("data", _shown(brings, should, f"the data of {step!r} shows"), step)
    return None


def _again(stage: Stage[Any]) -> set[str]:
    """Return the results of what ran more than once under one idempotency key."""
    keys = Counter(context.idempotency_key for _, context in stage.acts)
    begins = {"forward": "", "rollback": "rollback_"}
    return {
        f"{begins[context.phase]}{context.step}"
        for _, context in stage.acts
        if context.attempt > 1 or keys[context.idempotency_key] > 1
    }


def _asked_otherwise(stage: Stage[Any]) -> Finding | None:
    """Find a step that, when it ran again, asked for something else under the same key, and nothing had told it to."""
    for key, attempts in stage.calls.items():
        for before, again in pairwise(attempts):
            for had, has in zip(before, again, strict=False):
                if had.method != has.method or had.keys != has.keys:  # it looked what is done, and goes on from there
                    break
                if had.keys and had.said != has.said:
                    step = key.split(":", 3)[3]
                    return Finding("asks", [f"{step!r} had called {had.said}", f"and when it ran again {has.said}"])
                if had != has:
                    break
    return None


def _ends_otherwise(stage: Stage[Any]) -> list[str]:
    """Return, a line each, that a clean run ends in another status than it is said to, and what failed in it."""
    failed = [words.failure(result) for result in stage.state.results if not result.success]
    return [f"it ends {stage.state.status}", f"and should end {stage.scenario.ends}", *failed]


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
