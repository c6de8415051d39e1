"""Goes through the schedules of a scenario, holds each to what must be, and says what broke.

The schedules come in rounds, the simplest first, so that the first one that breaks something is a shortest one:

1. every *course*: a clean run, a failure of each step, each decision at each gate, a pause and a cancel in each step,
   each rollback step failing once;
2. a clean run in which one call of the world fails, and one that is undone in which one call of a rollback does;
3. each course with one crash, at every point; 4. with a rival at every point; 5. with a process that is frozen at one
point and wakes at a later one; 6. with two crashes.

Rounds that are larger than what the budget leaves are sampled, by the seed, and the report says how many were left.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from .._core.events import ApprovalRequested, Event, StepStarted
from ..errors import WorkflowConfigurationError
from . import _strikes as strikes
from ._advice import explain
from ._effects import Watch
from ._findings import Finding, hold
from ._options import Options, wrong
from ._picture import short
from ._process import Broken, Ending
from ._schedule import GATES, STEPS, Departure, DepartureKind, Schedule, parse
from ._stage import Stage
from ._strikes import Course, Strike, Struck
from ._time import ProofTime, wall_clock
from .report import ProofError, Report, Round
from .scenario import Scenario

W = TypeVar("W")

_OUTAGE = (400 * 24 + 13) * 3600.0 + 37 * 60
"""Seconds between a crash and the process that takes over: another year, month, weekday and hour."""
_LIKE_CLEAN: tuple[DepartureKind, ...] = ("approve-only", "approve-twice", "approve-first", "pause")
_MOST_KNOWN = 10_000  # records
_EVERY = 64  # schedules between two words of progress


class Stopped(BaseException):
    """Nobody waits for the proof any more."""


class Proof(Generic[W]):
    """A scenario that goes through its schedules, once."""

    def __init__(self, scenario: Scenario[W], options: Options) -> None:
        if not isinstance(scenario, Scenario):
            raise wrong(f"{scenario!r} is no scenario", "Give a dotmac_workflows.testing.Scenario")
        options.check()
        self.time = ProofTime()
        self.stopped = False
        """Whether nobody waits for it any more."""
        self._scenario = scenario
        self._budget = options.budget
        self._seed = options.seed
        self._only = parse(options.only) if options.only is not None else None
        self._without = frozenset(options.without)
        self._progress = options.progress
        self._chance = random.Random(options.seed)
        self._outage = 0.0 if "clock" in self._without else _OUTAGE
        self._wall_clock = wall_clock()
        self._watch = Watch()
        self._unsteady: set[str] = set()
        """The results whose data is another in each clean run."""
        self._courses: list[Course] = []
        self._struck: list[Struck] = []
        self._rounds: list[Round] = []
        self._played = 0
        self._planned = 0
        self._acts: Counter[tuple[str, str]] = Counter()
        self._points = 0
        self._hit: set[tuple[Schedule, int]] = set()
        self._has_a_world = True
        self._changes = False
        """Whether the world was seen to change."""
        self._name = scenario.name
        self._known: dict[tuple[str, str], Event] = {}

    async def run(self) -> Report:
        """Run every schedule, or the one that was asked for."""
        began = time.perf_counter()
        with self._wall_clock, self._watch:
            await self._play_courses()
            if self._only is not None:
                self._see_that_it_came_to_pass(await self._play(self._courses[-1], self._only))
                self._rounds.append(Round("the schedule asked for", 1, 1))
            else:
                self._see_that_it_shows_something()
                await self._strike()
        gates = sorted({e.step for course in self._courses for e in course.events if isinstance(e, ApprovalRequested)})
        return Report(
            scenario=self._name,
            schedules=self._played,
            points=self._points,
            struck=len(self._hit),
            rounds=tuple(self._rounds),
            steps=self._ran("forward"),
            rollbacks=self._ran("rollback"),
            gates=tuple(gates),
            not_covered=tuple(self._not_covered()),
            seed=self._seed,
            seconds=time.perf_counter() - began,
        )

    def go_on(self) -> None:
        """Raise where nobody waits any more.

        Raises:
            Stopped: The task was cancelled.
        """
        if self.stopped:
            raise Stopped

    def _see_that_it_shows_something(self) -> None:
        """Refuse a proof that could not fail.

        Raises:
            WorkflowConfigurationError: The world shows the same in all courses, and nothing else is asked.
        """
        if self._changes or not self._has_a_world or self._scenario.check is not None:
            return
        nothing = "prove() would notice nothing: whatever the steps do,"
        if self._scenario.observe is not None:
            shown = short(self._courses[0].ending.world)
            raise WorkflowConfigurationError(f"{nothing} observe returns {shown}. Let it return what they change.")
        raise WorkflowConfigurationError(
            f"{nothing} the world shows the same before and after it. What counts are the public attributes of the "
            "object that Scenario.world returns, and of the objects in them; no properties, no attributes of a class, "
            "and no names with a leading underscore. Give Scenario(..., observe=...) what else counts, or a check; "
            "where the steps change nothing outside of the workflow, let world return None."
        )

    def _ran(self, phase: str) -> dict[str, int]:
        return {step: times for (ran, step), times in self._acts.items() if ran == phase}

    def _not_covered(self) -> list[str]:
        clean, by_name = self._courses[0], ", ".join
        missing = [f"{kind}: left out" for kind in sorted(self._without)]
        if "crash" in self._without:
            missing.append("freeze and pair: left out, as they are drawn from what single crashes lead to")
        missing += [f"{name}: none was run, the budget is too small" for name, run, *_ in self._rounds if not run]
        if not self._has_a_world:
            missing.append("the world: there is none")
        elif not any(place.what == "call" for course in self._courses for place in course.places):
            missing.append("calls: no step was seen to call its world, so nothing strikes between two effects of one")
        if self._watch.blind:
            missing.append(f"calls of {by_name(sorted(self._watch.blind))}: the class cannot be watched")
        if self._unsteady:
            missing.append(f"the data of {by_name(sorted(self._unsteady))}: it is another in each run")
        if "clock" not in self._without and not self._wall_clock.covers_everything:
            missing.append("time.time() and datetime.now(): they show real time; install dotmac-workflows[prove]")
        started = {event.step for event in clean.events if isinstance(event, StepStarted)}
        undone = set(self._ran("rollback"))
        if not any(isinstance(event, ApprovalRequested) for event in clean.events):
            missing.append("gates: no step of the clean run asks for an approval")
        if not undone:
            missing.append("rollback: no schedule undoes anything (rollback_on_failure is off, or no step fails)")
        elif started - undone:
            last = by_name(sorted(started - undone))
            missing.append(f"the rollback of {last}: nothing fails, is rejected or cancelled behind it")
        return missing

    # Round one: what there is without faults.

    async def _play_courses(self) -> None:
        clean = await self._course(Schedule())
        stage = self._stage_of(Schedule())
        again = await stage.play_or_broken()
        self._has_a_world = stage.world is not None
        if isinstance(again, Broken) or again[:4] != clean.ending[:4]:
            shown = again.what if isinstance(again, Broken) else hold(stage, again, clean.ending, ())
            remedy = "Make what they start from the same each time, and let observe leave out what is random"
            if stage.world is clean.world:
                remedy = "Scenario.world returned the same object twice: let it make a new one each time"
            raise WorkflowConfigurationError(f"Two clean runs of the scenario are not alike: {shown}. {remedy}.")
        both = zip(clean.ending.results, clean.ending.data, again.data, strict=True)
        self._unsteady |= {step for (step, *_), had, has in both if had != has}
        if self._only is not None:
            if self._only.departures:
                await self._course(Schedule(self._only.departures))
            return
        for departure in _departures(clean.events):
            if departure.kind not in self._without:
                await self._course(Schedule((departure,)))
        deepest = strikes.deepest(self._courses)
        if strikes.fails(deepest) and "undo-fails" not in self._without:
            for step, visit in strikes.undone(deepest.events):
                await self._course(Schedule((*deepest.schedule.departures, Departure("undo-fails", step, visit))))
        self._rounds.append(Round("courses without a fault", len(self._courses), len(self._courses)))

    async def _course(self, schedule: Schedule) -> Course:
        stage = self._stage_of(schedule)
        ending = await self._ended(stage, schedule, None)
        self._see_that_it_came_to_pass(stage)
        course = Course(schedule, ending, stage.places, stage.events, stage.world)
        expected = self._should_be(schedule)
        await self._hold(schedule, stage, ending, expected)
        self._courses.append(course)
        self._points += len(stage.places)
        self._changes |= stage.changes
        return course

    def _should_be(self, schedule: Schedule) -> Ending | None:
        """Return how a course must end because another one, that differs in nothing that counts, does."""
        for departure in schedule.departures:
            if departure.kind in _LIKE_CLEAN:
                return self._courses[0].ending
            if departure.kind == "reject-first":
                rejected = Schedule((departure._replace(kind="reject"),))
                return next((course.ending for course in self._courses if course.schedule == rejected), None)
        return None

    # The rounds with faults.

    async def _strike(self) -> None:
        wanted = self._wanted
        calls = wanted("disconnect", strikes.calls(self._courses))
        crashes = wanted("crash", strikes.crashes(self._courses))
        rivals = wanted("rival", strikes.rivals(self._courses))
        # What is rarer is not starved by what is simpler.
        first = strikes.shares(self._budget - self._budget // 4, [len(calls), len(crashes)])
        self._planned = self._played + sum(first)
        await self._round("a call that fails", calls, first[0])
        await self._round("one crash", crashes, first[1])
        freezes, pairs = wanted("freeze", strikes.freezes(self._struck)), wanted("pair", strikes.pairs(self._struck))
        then = strikes.shares(self._budget - sum(first), [len(rivals), len(freezes), len(pairs)])
        self._planned = self._played + sum(then)
        exact = first[1] == len(crashes)
        await self._round("a rival", rivals, then[0])
        await self._round("a frozen process", freezes, then[1], exact=exact)
        await self._round("two crashes", pairs, then[2], exact=exact)

    def _wanted(self, kind: str, found: list[Strike]) -> list[Strike]:
        return [] if kind in self._without else found

    async def _round(self, name: str, found: list[Strike], share: int, *, exact: bool = True) -> None:
        total = len(found)
        if total > share:
            found = [found[number] for number in sorted(self._chance.sample(range(total), share))]
        for course, faults in found:
            stage = await self._play(course, course.schedule.struck_by(*faults))
            self._see_that_it_came_to_pass(stage)
            point = faults[0].point
            self._hit.add((course.schedule, point))
            if len(faults) == 1 and faults[0].kind == "crash":
                self._struck.append(Struck(course, point, len(stage.places), strikes.waits(stage.places, point)))
        if total:
            self._rounds.append(Round(name, len(found), total, exact))

    def _see_that_it_came_to_pass(self, stage: Stage[W]) -> None:
        """Refuse a run that went another way than those before it, on which its schedule was drawn up.

        Raises:
            WorkflowConfigurationError: With what did not strike.
        """
        missing = _missing(stage.schedule, stage)
        if missing and self._only is not None:
            raise WorkflowConfigurationError(
                f"The schedule {str(self._only)!r} is of another scenario, or of this one before it was changed: "
                f"{missing} did not come to pass. Prove it as a whole."
            )
        if missing:
            raise _not_the_same(stage.schedule, f"{missing} did not come to pass")

    async def _play(self, course: Course, schedule: Schedule) -> Stage[W]:
        stage = self._stage_of(schedule)
        # A step whose call failed may fail or go on: what follows is judged by itself.
        expected = None if "disconnect" in schedule.kinds() else course.ending
        ending = await self._ended(stage, schedule, expected)
        await self._hold(schedule, stage, ending, expected)
        return stage

    def _stage_of(self, schedule: Schedule, **options: Any) -> Stage[W]:
        ours = {
            "outage": self._outage,
            "set_wall_clock": self._wall_clock.set,
            "known": self._known,
            "watch": self._watch,
        }
        stage = Stage(self._scenario, schedule, **{**ours, **options})
        self.time.moved = stage.show_time
        return stage

    async def _ended(self, stage: Stage[W], schedule: Schedule, expected: Ending | None) -> Ending:
        self.go_on()
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
        if isinstance(ending, Broken) and ending.of_the_scenario and schedule == Schedule():
            raise WorkflowConfigurationError(ending.what) from ending.cause
        if isinstance(ending, Broken):
            raise await self._found(schedule, stage, Finding("broken", [ending.what]), expected) from ending.cause
        return ending

    async def _hold(self, schedule: Schedule, stage: Stage[W], ending: Ending, expected: Ending | None) -> None:
        finding = hold(stage, ending, expected, self._unsteady)
        while finding is not None and expected is not None and await self._is_unsteady(schedule, finding, expected):
            self._unsteady.add(finding.step)
            finding = hold(stage, ending, expected, self._unsteady)
        if finding is None:
            return
        await self._see_that_it_is_the_same(schedule, finding, expected)
        if not await self._was_only_later(schedule, finding, expected):
            raise await self._found(schedule, stage, finding, expected)

    async def _is_unsteady(self, schedule: Schedule, finding: Finding, expected: Ending) -> bool:
        """Tell whether data is another each time, with the same schedule or with none."""
        if finding.kind != "data":
            return False
        if await self._finding(schedule, expected) is None:
            return True
        if not schedule.faults:
            return False
        again = await self._stage_of(Schedule(schedule.departures)).play_or_broken()
        return not isinstance(again, Broken) and again.data != expected.data

    async def _was_only_later(self, schedule: Schedule, finding: Finding, expected: Ending | None) -> bool:
        """Tell whether a world differs only because a step ran later, which being slow would have done as well.

        It is not so where the step that the crash hit had its effect, and changes it when it runs again at a later
        time, whatever comes behind it. Single crashes show that.
        """
        gone = not schedule.kinds().isdisjoint({"crash", "freeze"})
        if finding.kind not in ("world", "data") or not gone or not self._outage:
            return False
        if await self._finding(schedule, expected, outage=0.0) is not None:
            return False
        if len(schedule.faults) > 1:
            return True
        again = await self._finding(schedule, expected, only_again=True)
        return again is None or not again[0].hit_after_an_effect

    async def _found(
        self, schedule: Schedule, stage: Stage[W], finding: Finding, expected: Ending | None
    ) -> ProofError:
        """Return the error that tells of a violation: the shortest schedule that leads to one, in words."""
        for fault in schedule.faults if len(schedule.faults) > 1 else ():
            shorter = schedule.struck_by(*(other for other in schedule.faults if other != fault))
            if shorter.faults[0].kind == "wake":  # and nobody is frozen
                continue
            found = await self._finding(shorter, expected)
            if found is not None and not await self._was_only_later(shorter, found[1], expected):
                return await self._found(shorter, found[0], found[1], expected)
        timeline: list[str] = []
        await self._see_that_it_is_the_same(schedule, finding, expected, tell=timeline.append)
        crashed = any(fault.kind == "crash" for fault in schedule.faults)
        by_clock = crashed and bool(self._outage) and await self._finding(schedule, expected, outage=0.0) is None
        return explain(self._name, schedule, stage, finding, timeline, by_clock=by_clock)

    async def _see_that_it_is_the_same(
        self, schedule: Schedule, finding: Finding, expected: Ending | None, **options: Any
    ) -> None:
        """Refuse a finding that another run of the same schedule does not come to.

        Raises:
            WorkflowConfigurationError: With both.
        """
        again = await self._finding(schedule, expected, **options)
        if again is None or again[1].kind != finding.kind:
            now = again[1] if again is not None else "nothing was wrong"
            raise _not_the_same(schedule, f"{finding}; when it was run again, {now}")

    async def _finding(
        self, schedule: Schedule, expected: Ending | None, **options: Any
    ) -> tuple[Stage[W], Finding] | None:
        stage = self._stage_of(schedule, **options)
        ending = await stage.play_or_broken()
        if isinstance(ending, Broken):
            return stage, Finding("broken", [ending.what])
        finding = hold(stage, ending, expected, self._unsteady)
        return None if finding is None else (stage, finding)


def _departures(events: Sequence[Any]) -> list[Departure]:
    """Return each way in which a run can depart from the clean one, whose events these are."""
    started = [(e.step, e.visit) for e in events if isinstance(e, StepStarted) and e.attempt == 1]
    opened: Counter[str] = Counter()
    gates = []
    for event in events:
        if isinstance(event, ApprovalRequested):
            opened[event.step] += 1
            gates.append((event.step, opened[event.step]))
    found = [Departure(STEPS[0], *at) for at in started]
    found += [Departure(kind, *at) for kind in GATES for at in gates]
    found += [Departure(kind, *at) for kind in STEPS[1:] for at in started]
    return found


def _missing(schedule: Schedule, stage: Stage[Any]) -> str:
    """Return what of a schedule did not come to pass, as a text; a process that nothing woke wakes at the end."""
    parts = [departure for departure in schedule.departures if departure not in stage.people.happened]
    faults = [fault for fault in schedule.faults if fault not in stage.struck and fault.kind != "wake"]
    return ", ".join(map(str, [*parts, *faults]))


def _not_the_same(schedule: Schedule, what: str) -> WorkflowConfigurationError:
    return WorkflowConfigurationError(
        f"The scenario is not the same twice: under the schedule {str(schedule)!r}, {what}. Make all that it starts "
        "from the same each time: no random numbers, no order that threads decide, nothing global."
    )
