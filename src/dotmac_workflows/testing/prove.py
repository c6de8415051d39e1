"""`prove`: run a workflow under every schedule of failures, decisions, crashes and takeovers, and say what broke.

The schedules come in rounds, the simplest first, so that the first one that breaks something is a shortest one:

1. every *course*: a clean run, a failure of each step, each decision at each gate, a pause and a cancel in each step,
   each rollback step failing once;
2. each course with one crash, at every point; 3. with a rival at every point; 4. with a process that is frozen at one
point and wakes at a later one; 5. with two crashes.

Rounds that are larger than what the budget leaves are sampled, by the seed, and the report says how many were left.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, get_args

from .._core.events import ApprovalRequested, Event, RollbackStepStarted, StepStarted
from ..errors import WorkflowConfigurationError
from ..status import WorkflowStatus
from ._findings import Finding, explain, hold
from ._process import Broken, Ending, Place
from ._schedule import GATES, STEPS, Departure, DepartureKind, Fault, FaultKind, Schedule, parse
from ._stage import Stage
from .clock import FakeClock
from .report import ProofError, Report, Round
from .scenario import Scenario

W = TypeVar("W")
Progress: TypeAlias = Callable[[int, int], object]

OUTAGE = (400 * 24 + 13) * 3600.0 + 37 * 60
"""Seconds between a crash and the process that takes over: another year, month, weekday and hour."""
_MAY_BE_LEFT_OUT = {*get_args(DepartureKind), *get_args(FaultKind), "pair", "clock"} - {"wake"}
_LIKE_CLEAN: tuple[DepartureKind, ...] = ("approve-only", "approve-twice", "approve-first", "pause")
_MOST_KNOWN = 10_000  # records
_EVERY = 64  # schedules between two words of progress


def prove(
    scenario: Scenario[Any],
    *,
    budget: int = 10_000,
    seed: int = 0,
    only: str | None = None,
    without: Collection[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Run a scenario under every schedule, and hold each run to the engine's promises and to the scenario's own.

    Time is virtual, and nothing is written to a disk. Works in any code, a coroutine of a test included, where it
    blocks the event loop; `prove_async` does not.

    Args:
        scenario: What to prove.
        budget: How many schedules at most, beside those without a fault; what does not fit is sampled.
        seed: What the samples are drawn by.
        only: The schedule that a `ProofError` named: runs just that one.
        without: Kinds to leave out: ``fail``, ``reject``, ``cancel``, ``crash``, ``rival``, ``freeze``, ``pair`` ...;
            ``clock``: no time passes between a crash and the process that takes over.
        progress: Told how many schedules were run, and how many there will be.

    Returns:
        What was run and covered.

    Raises:
        ProofError: A schedule breaks something; the simplest one, with its timeline.
        WorkflowConfigurationError: The scenario cannot be run, is not the same twice, or passes no point.
    """
    wrong = set(without) - _MAY_BE_LEFT_OUT
    if wrong or budget < 1:
        what = f"without names {', '.join(sorted(wrong))}" if wrong else f"the budget is {budget}"
        known = ", ".join(sorted(_MAY_BE_LEFT_OUT))
        raise WorkflowConfigurationError(f"prove(): {what}. A budget is at least 1, and without may name {known}.")
    proof = _Proof(scenario, budget, seed, frozenset(without), progress)
    schedule = parse(only) if only is not None else None
    __tracebackhide__ = True  # pytest shows the line of the test, and not this one
    try:
        return _in_a_loop_of_its_own(lambda: proof.run(schedule))
    except ProofError as error:
        # The way from there to here says nothing; what counts is the message, and the cause where there is one.
        raise error.with_traceback(None) from error.__cause__


async def prove_async(scenario: Scenario[Any], **options: Any) -> Report:
    """Do what `prove` does, in a thread, so that the event loop goes on; takes the same options."""
    return await asyncio.to_thread(prove, scenario, **options)


def _in_a_loop_of_its_own(make: Callable[[], Any]) -> Report:
    """Run a coroutine on an event loop whose time is virtual; in a thread where one runs here already."""
    if asyncio._get_running_loop() is None:
        return _run(make, patience=0.01)
    with ThreadPoolExecutor(1, "dotmac-workflows proof") as thread:
        # The thread that waits here is none to be patient with.
        return thread.submit(_run, make, patience=0.0).result()


def _run(make: Callable[[], Any], patience: float) -> Report:
    logger = logging.getLogger("dotmac_workflows")
    disabled, logger.disabled = logger.disabled, True  # thousands of failures, all of them wanted
    try:
        report: Report = FakeClock().run(make(), patience=patience)
        return report
    finally:
        logger.disabled = disabled


class _Course(NamedTuple):
    """A run without faults, to which those with faults are compared."""

    schedule: Schedule
    ending: Ending
    places: list[Place]
    events: list[Any]


_Strike: TypeAlias = tuple[_Course, tuple[Fault, ...]]


class _Struck(NamedTuple):
    """A course with one crash: what a second one can hit."""

    course: _Course
    point: int
    points: int
    """How many it passed in all."""
    waits: list[int]
    """Those where a coroutine stands, behind the crash."""


class _Proof(Generic[W]):
    def __init__(
        self, scenario: Scenario[W], budget: int, seed: int, without: frozenset[str], progress: Progress | None
    ) -> None:
        self._scenario = scenario
        self._budget = budget
        self._seed = seed
        self._without = without
        self._progress = progress
        self._chance = random.Random(seed)
        self._outage = 0.0 if "clock" in without else OUTAGE
        self._wall_clock = _wall_clock()
        self._courses: list[_Course] = []
        self._struck: list[_Struck] = []
        self._rounds: list[Round] = []
        self._played = 0
        self._planned = 0
        self._acts: Counter[tuple[str, str]] = Counter()
        self._points = 0
        self._name = scenario.name
        self._known: dict[tuple[str, str], Event] = {}

    async def run(self, only: Schedule | None) -> Report:
        began = time.perf_counter()
        with self._wall_clock:
            await self._play_courses(only)
            if only is not None:
                await self._play_only(only)
                self._rounds.append(Round("the schedule asked for", 1, 1))
            else:
                await self._strike()
        if not self._points:
            raise WorkflowConfigurationError(
                "prove() passed no point where anything could strike: the workflow ran no step. Give it one that does."
            )
        gates = sorted({e.step for course in self._courses for e in course.events if isinstance(e, ApprovalRequested)})
        return Report(
            scenario=self._name,
            schedules=self._played,
            points=self._points,
            rounds=tuple(self._rounds),
            steps=self._ran("forward"),
            rollbacks=self._ran("rollback"),
            gates=tuple(gates),
            not_covered=tuple(self._not_covered()),
            seed=self._seed,
            seconds=time.perf_counter() - began,
        )

    def _ran(self, phase: str) -> dict[str, int]:
        return {step: times for (ran, step), times in self._acts.items() if ran == phase}

    def _not_covered(self) -> list[str]:
        missing = [f"{kind}: left out" for kind in sorted(self._without)]
        clean = self._courses[0]
        if "clock" not in self._without and not self._wall_clock.covers_everything:
            missing.append("time.time() and datetime.now(): they show real time; install dotmac-workflows[prove]")
        started = {event.step for event in clean.events if isinstance(event, StepStarted)}
        undone = set(self._ran("rollback"))
        if not any(isinstance(event, ApprovalRequested) for event in clean.events):
            missing.append("gates: no step of the clean run asks for an approval")
        if not undone:
            missing.append("rollback: no schedule undoes anything (rollback_on_failure is off, or no step fails)")
        elif started - undone:
            last = ", ".join(sorted(started - undone))
            missing.append(f"the rollback of {last}: nothing fails, is rejected or cancelled behind it")
        return missing

    # Round one: what there is without faults.

    async def _play_courses(self, only: Schedule | None) -> None:
        clean = await self._course(Schedule())
        if clean.ending.status is not self._scenario.ends:
            wrong = Finding("clean", [f"it ends {clean.ending.status}", f"and should end {self._scenario.ends}"])
            raise await self._found(Schedule(), self._stage_of(Schedule()), wrong, None)
        again = await self._stage_of(Schedule()).play_or_broken()
        if isinstance(again, Broken) or again != clean.ending:
            shown = again.what if isinstance(again, Broken) else hold(Schedule(), again, clean.ending, None)
            raise WorkflowConfigurationError(
                f"Two clean runs of the scenario are not alike: {shown}. Make what they start from the same each time, "
                "and let observe leave out what is random."
            )
        if only is not None:
            if only.departures:
                await self._course(Schedule(only.departures))
            return
        for departures in self._departures(clean.events):
            if not {departure.kind for departure in departures} & self._without:
                await self._course(Schedule(departures))
        deepest = max(self._courses, key=lambda course: len(_undone(course.events)) if _fails(course) else -1)
        if _fails(deepest) and "undo-fails" not in self._without:
            for step, visit in _undone(deepest.events):
                await self._course(Schedule((*deepest.schedule.departures, Departure("undo-fails", step, visit))))
        self._rounds.append(Round("courses without a fault", len(self._courses), len(self._courses)))

    @staticmethod
    def _departures(events: Sequence[Any]) -> list[tuple[Departure, ...]]:
        started = [(e.step, e.visit) for e in events if isinstance(e, StepStarted) and e.attempt == 1]
        opened: Counter[str] = Counter()
        gates = []
        for event in events:
            if isinstance(event, ApprovalRequested):
                opened[event.step] += 1
                gates.append((event.step, opened[event.step]))
        found: list[tuple[Departure, ...]] = [(Departure(STEPS[0], *at),) for at in started]
        found += [(Departure(kind, *at),) for kind in GATES for at in gates]
        found += [(Departure(kind, *at),) for kind in STEPS[1:] for at in started]
        return found

    async def _course(self, schedule: Schedule) -> _Course:
        stage = self._stage_of(schedule)
        ending = await self._ended(stage, schedule, None)
        course = _Course(schedule, ending, stage.places, stage.events)
        expected = self._should_be(schedule)
        await self._hold(schedule, stage, ending, expected)
        self._courses.append(course)
        self._points += len(stage.places)
        return course

    def _should_be(self, schedule: Schedule) -> Ending | None:
        """Return how a course must end because another one, that differs in nothing that counts, does."""
        if not schedule.departures and self._courses:
            return self._courses[0].ending
        for departure in schedule.departures:
            if departure.kind in _LIKE_CLEAN:
                return self._courses[0].ending
            if departure.kind == "reject-first":
                rejected = Schedule((departure._replace(kind="reject"),))
                return next((course.ending for course in self._courses if course.schedule == rejected), None)
        return None

    async def _play_only(self, only: Schedule) -> None:
        """Play the schedule that was asked for, after its course.

        Raises:
            WorkflowConfigurationError: The scenario has no such step, or passes fewer points.
        """
        clean, course = self._courses[0], self._courses[-1]
        possible = {departure for one in self._departures(clean.events) for departure in one}
        possible |= {Departure("undo-fails", *at) for at in _undone(course.events)}
        missing = [str(departure) for departure in only.departures if departure not in possible]
        stage = await self._play(course, only)
        missing += [str(fault) for fault in only.faults if fault.kind != "wake" and fault.point >= len(stage.places)]
        if missing:
            raise WorkflowConfigurationError(
                f"The schedule {str(only)!r} is of another scenario, or of this one before it was changed: "
                f"{', '.join(missing)} did not come to pass. Prove it as a whole."
            )

    # The rounds with faults.

    async def _strike(self) -> None:
        crashes: list[_Strike] = [
            (course, (Fault("crash", point),)) for course in self._courses for point in range(len(course.places))
        ]
        rivals: list[_Strike] = [
            (course, (Fault("rival", point),)) for course in self._courses for point in _waits(course.places)
        ]
        left = self._budget
        self._planned = self._played + min(left, len(crashes))
        left -= await self._round("one crash", "crash", crashes, left)
        # What a frozen process does after a cancel, which runs nothing again, no key can make harmless: left out.
        freezes: list[_Strike] = [
            (struck.course, (Fault("freeze", struck.point), Fault("wake", wake)))
            for struck in self._struck
            if struck.point in _waits(struck.course.places) and "cancel" not in struck.course.schedule.kinds()
            for wake in [*struck.waits, struck.points + 1]
        ]
        pairs: list[_Strike] = [
            (struck.course, (Fault("crash", struck.point), Fault("crash", second)))
            for struck in self._struck
            for second in range(struck.point + 1, struck.points)
        ]
        # What is left is shared so that none of these rounds starves.
        shares = _shares(left, [len(rivals), len(freezes), len(pairs)])
        self._planned = self._played + sum(shares)
        await self._round("a rival", "rival", rivals, shares[0])
        await self._round("a frozen process", "freeze", freezes, shares[1])
        await self._round("two crashes", "pair", pairs, shares[2])

    async def _round(self, name: str, kind: str, strikes: list[_Strike], share: int) -> int:
        if kind in self._without or (kind == "pair" and "crash" in self._without):
            return 0
        total = len(strikes)
        if total > share:
            chosen = sorted(self._chance.sample(range(total), share))
            strikes = [strikes[number] for number in chosen]
        for course, faults in strikes:
            stage = await self._play(course, course.schedule.struck_by(*faults))
            if kind == "crash":
                point, places = faults[0].point, stage.places
                self._struck.append(_Struck(course, point, len(places), _waits(places, point)))
        if strikes or total:
            self._rounds.append(Round(name, len(strikes), total))
        return len(strikes)

    async def _play(self, course: _Course, schedule: Schedule) -> Stage[W]:
        stage = self._stage_of(schedule)
        ending = await self._ended(stage, schedule, course.ending)
        await self._hold(schedule, stage, ending, course.ending)
        return stage

    def _stage_of(self, schedule: Schedule, **options: Any) -> Stage[W]:
        return Stage(
            self._scenario,
            schedule,
            **{"outage": self._outage, "set_wall_clock": self._wall_clock.set, "known": self._known, **options},
        )

    async def _ended(self, stage: Stage[W], schedule: Schedule, expected: Ending | None) -> Ending:
        self._played += 1
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        if self._played % _EVERY == 0:
            await asyncio.sleep(0)  # most schedules never wait: here Ctrl-C gets through
            if self._progress is not None:
                self._progress(self._played, max(self._planned, self._played))
        ending = await stage.play_or_broken()
        if not self._name and stage.workflow is not None:
            self._name = type(stage.workflow).__name__
        self._acts.update((context.phase, context.step) for _, context in stage.acts)
        if isinstance(ending, Broken):
            raise await self._found(schedule, stage, Finding("broken", [ending.what]), expected) from ending.cause
        return ending

    async def _hold(self, schedule: Schedule, stage: Stage[W], ending: Ending, expected: Ending | None) -> None:
        finding = hold(schedule, ending, expected, stage)
        if finding is not None and not await self._was_only_later(schedule, finding, expected):
            raise await self._found(schedule, stage, finding, expected)

    async def _was_only_later(self, schedule: Schedule, finding: Finding, expected: Ending | None) -> bool:
        """Tell whether a world differs only because a step ran later, which being slow would have done as well.

        It is not so where the step that the crash hit had its effect, and changes it when it runs again at a later
        time, whatever comes behind it.
        """
        crashed = any(fault.kind == "crash" for fault in schedule.faults)
        if finding.kind != "world" or not crashed or not self._outage:
            return False
        if await self._finding(schedule, expected, outage=0.0) is not None:
            return False
        again = await self._finding(schedule, expected, only_again=True)
        return again is None or not again[0].hit_after_an_effect

    async def _found(
        self, schedule: Schedule, stage: Stage[W], finding: Finding, expected: Ending | None
    ) -> ProofError:
        """Return the error that tells of a violation: the shortest schedule that leads to one, in words."""
        for fault in schedule.faults if len(schedule.faults) > 1 else ():
            shorter = schedule.struck_by(*(other for other in schedule.faults if other != fault))
            found = await self._finding(shorter, expected)
            if found is not None:
                return await self._found(shorter, found[0], found[1], expected)
        timeline: list[str] = []
        await self._finding(schedule, expected, tell=timeline.append)
        crashed = any(fault.kind == "crash" for fault in schedule.faults)
        by_clock = crashed and bool(self._outage) and await self._finding(schedule, expected, outage=0.0) is None
        return explain(self._name, schedule, stage, finding, timeline, by_clock=by_clock)

    async def _finding(
        self, schedule: Schedule, expected: Ending | None, **options: Any
    ) -> tuple[Stage[W], Finding] | None:
        stage = self._stage_of(schedule, **options)
        ending = await stage.play_or_broken()
        finding = (
            Finding("broken", [ending.what]) if isinstance(ending, Broken) else hold(schedule, ending, expected, stage)
        )
        return None if finding is None else (stage, finding)


def _fails(course: _Course) -> bool:
    return course.ending.status is WorkflowStatus.FAILED


def _undone(events: Sequence[Any]) -> list[tuple[str, int]]:
    return [(e.step, e.visit) for e in events if isinstance(e, RollbackStepStarted) and e.attempt == 1]


def _waits(places: Sequence[Place], after: int = -1) -> list[int]:
    """Return the points where a coroutine stands, so that others can go on meanwhile."""
    return [number for number, place in enumerate(places) if place.what != "call" and number > after]


def _shares(left: int, wanted: Sequence[int]) -> list[int]:
    """Share out what is left as evenly as the wants allow."""
    shares = [0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda number: wanted[number])
    for done, number in enumerate(order):
        shares[number] = min(wanted[number], left // (len(wanted) - done))
        left -= shares[number]
    return shares


def _wall_clock() -> Any:
    """Return what sets the time that the whole process sees, where that can be had."""
    try:
        from ..integrations.wall_clock import WallClock
    except ImportError:
        return RuntimeClockOnly()
    return WallClock()


class RuntimeClockOnly:
    """Leaves the time of the process alone: only ``Runtime.clock`` is virtual."""

    covers_everything = False
    set = None

    def __enter__(self) -> "RuntimeClockOnly":
        return self

    def __exit__(self, *error: object) -> None:
        pass
