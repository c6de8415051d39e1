"""What `prove` has happen to a run: what the people and steps do, and which faults strike where.

A schedule is written as one line, which runs it again: ``clean``, ``fail:ship crash@17``, ``reject:check freeze@9
wake@14``. The words before the faults say how the run departs from one in which every step does well and every gate
is approved. A fault strikes at a *point*: the moments before and after every append, before and after every step and
rollback step, and before and after every call that a step makes of its world, counted from 0 as they come.
"""

import re
import shlex
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias, get_args

from ..errors import WorkflowConfigurationError

DepartureKind: TypeAlias = Literal[
    "fail",  # the step fails before it has any effect
    "undo-fails",  # the rollback of the step fails once, before it has any effect, and is retried
    "reject",  # the gate behind the step is rejected
    "cancel-at",  # the run is cancelled while it waits there
    "approve-only",  # the approval is only recorded; another process goes on
    "approve-twice",  # the same actor approves again, and so does another one
    "reject-first",  # while the approval is under way, somebody rejects
    "approve-first",  # while the rejection is under way, somebody approves
    "pause",  # the run is paused while the step runs, and resumed
    "cancel",  # the run is cancelled while the step runs
]
FaultKind: TypeAlias = Literal[
    "crash",  # the process is gone, and another one takes over
    "rival",  # another process tries to drive at the same time
    "freeze",  # the process is frozen past its lease, and another one takes over
    "wake",  # the frozen one goes on
    "disconnect",  # the call of the world raises, before it has any effect
]
GATES: tuple[DepartureKind, ...] = (
    "reject",
    "cancel-at",
    "approve-only",
    "approve-twice",
    "reject-first",
    "approve-first",
)
STEPS: tuple[DepartureKind, ...] = ("fail", "pause", "cancel")
_DEPARTURES: dict[str, DepartureKind] = {kind: kind for kind in get_args(DepartureKind)}
_FAULTS: dict[str, FaultKind] = {kind: kind for kind in get_args(FaultKind)}
_WORDS = ", ".join(["clean", *(f"{kind}:STEP" for kind in _DEPARTURES), *(f"{kind}@POINT" for kind in _FAULTS)])


class Departure(NamedTuple):
    """One thing that goes otherwise than in a clean run."""

    kind: DepartureKind
    step: str
    visit: int = 1
    """Which time the run comes by a step of this name, for plans that name one twice."""

    def __str__(self) -> str:
        if self.visit != 1 or re.search(r":\d+$", self.step):
            return f"{self.kind}:{self.step}:{self.visit}"
        return f"{self.kind}:{self.step}"


class Fault(NamedTuple):
    """A fault, and the number of the point where it strikes."""

    kind: FaultKind
    point: int

    def __str__(self) -> str:
        return f"{self.kind}@{self.point}"


class Schedule(NamedTuple):
    """All that happens to one run."""

    departures: tuple[Departure, ...] = ()
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        words = [*map(str, self.departures), *map(str, self.faults)]
        return shlex.join(words) if self.departures else shlex.join(["clean", *words])

    def struck_by(self, *faults: Fault) -> "Schedule":
        """Return the same course of things with other faults."""
        return self._replace(faults=faults)

    def kinds(self) -> set[str]:
        """Return the kinds of all that is in it."""
        return {departure.kind for departure in self.departures} | {fault.kind for fault in self.faults}


def parse(text: str) -> Schedule:
    """Return the schedule that a line says.

    Raises:
        WorkflowConfigurationError: It says none; the message names the word.
    """
    departures: list[Departure] = []
    faults: list[Fault] = []
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _wrong(text, text, str(error)) from error
    if not words:
        raise _wrong(text, text, "it is empty, and the one in which nothing happens is 'clean'")
    for word in words:
        if word == "clean":
            continue
        fault = re.fullmatch(r"([a-z]+)@(\d{1,9})", word)
        if fault and fault[1] in _FAULTS:
            faults.append(Fault(_FAULTS[fault[1]], int(fault[2])))
            continue
        kind, colon, step = word.partition(":")
        if not colon or kind not in _DEPARTURES or not step:
            raise _wrong(text, word, f"the words are {_WORDS}")
        numbered = re.fullmatch(r"(.+):(\d{1,9})", step, re.DOTALL)
        name, visit = (numbered[1], int(numbered[2])) if numbered else (step, 1)
        departures.append(Departure(_DEPARTURES[kind], name, visit))
    faults.sort(key=lambda fault: fault.point)
    for before, behind in pairwise(faults):
        if before.point == behind.point:
            raise _wrong(text, str(behind), "no two faults strike at one point")
    if [fault.kind for fault in faults if fault.kind in ("freeze", "wake")][:1] == ["wake"]:
        raise _wrong(text, "wake", "nobody is frozen before")
    return Schedule(tuple(departures), tuple(faults))


def _wrong(text: str, word: str, why: str) -> WorkflowConfigurationError:
    return WorkflowConfigurationError(
        f"{word!r} in the schedule {text!r} cannot be read: {why}. Copy the schedule from the message that named it."
    )
