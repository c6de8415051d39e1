"""Where faults can strike: the schedules of each round, drawn up from what runs passed before."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from .._core.events import RollbackStepStarted
from ..status import WorkflowStatus
from ._process import Ending, Place
from ._schedule import Fault, Schedule


class Course(NamedTuple):
    """A run without faults, to which those with faults are compared."""

    schedule: Schedule
    ending: Ending
    places: list[Place]
    events: list[Any]
    world: object


Strike: TypeAlias = tuple[Course, tuple[Fault, ...]]


class Struck(NamedTuple):
    """A course with one crash: what a second one can hit."""

    course: Course
    point: int
    points: int
    """How many it passed in all."""
    waits: list[int]
    """Those where a coroutine stands, behind the crash."""


def calls(courses: Sequence[Course]) -> list[Strike]:
    """Return each call of a step in the clean run, the first, and of a rollback where the most is undone, failing."""
    clean, most = courses[0], deepest(courses)
    return [
        (course, (Fault("disconnect", point),))
        for course in ([clean] if most is clean else [clean, most])
        for point, place in enumerate(course.places)
        if (place.when, place.what) == ("before", "call") and (course is clean or place.undoes)
    ]


def crashes(courses: Sequence[Course]) -> list[Strike]:
    """Return a crash at each point."""
    return [(course, (Fault("crash", point),)) for course in courses for point in range(len(course.places))]


def rivals(courses: Sequence[Course]) -> list[Strike]:
    """Return a rival at each point where one can come."""
    return [(course, (Fault("rival", point),)) for course in courses for point in waits(course.places)]


def freezes(struck: Sequence[Struck]) -> list[Strike]:
    """Return what single crashes showed that a frozen process can meet.

    What one does after a cancel, which runs nothing again, no key can make harmless: left out.
    """
    return [
        (crashed.course, (Fault("freeze", crashed.point), Fault("wake", wake)))
        for crashed in struck
        if crashed.point in waits(crashed.course.places) and "cancel" not in crashed.course.schedule.kinds()
        for wake in [*crashed.waits, crashed.points + 1]
    ]


def pairs(struck: Sequence[Struck]) -> list[Strike]:
    """Return a second crash at each point behind the first."""
    return [
        (crashed.course, (Fault("crash", crashed.point), Fault("crash", second)))
        for crashed in struck
        for second in range(crashed.point + 1, crashed.points)
    ]


def deepest(courses: Sequence[Course]) -> Course:
    """Return the course that fails and undoes the most; where none fails, any."""
    once = [course for course in courses if "undo-fails" not in course.schedule.kinds()]
    return max(once, key=lambda course: len(undone(course.events)) if fails(course) else -1)


def fails(course: Course) -> bool:
    """Tell whether a course ends as a failed one."""
    return course.ending.status is WorkflowStatus.FAILED


def undone(events: Sequence[Any]) -> list[tuple[str, int]]:
    """Return the steps whose rollback began, and at which visit."""
    return [(e.step, e.visit) for e in events if isinstance(e, RollbackStepStarted) and e.attempt == 1]


def waits(places: Sequence[Place], after: int = -1) -> list[int]:
    """Return the points where a coroutine stands, so that others can go on meanwhile."""
    return [number for number, place in enumerate(places) if place.what != "call" and number > after]


def shares(left: int, wanted: Sequence[int]) -> list[int]:
    """Share out what is left as evenly as the wants allow."""
    shares = [0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    for done, number in enumerate(order):
        shares[number] = min(wanted[number], left // (len(wanted) - done))
        left -= shares[number]
    return shares
