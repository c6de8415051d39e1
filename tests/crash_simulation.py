"""Runs over the pure core that crash where a schedule says, in no process and no event loop.

A `Script` says what the world does to a run: how each step and each rollback step ends, who approves, rejects, cancels
and pauses, and whether somebody retries. A `World` plays it, with the loop of the engine and a host of its own: every
commit and every effect is a *point* where the driver can be lost, and another one then takes over from what was
committed. A schedule is the numbers of the points at which that happens. `testing._judge` looks on.

The coroutine of the loop is driven by hand (nothing in it waits), so that a schedule costs a fraction of a
millisecond. Where every schedule of a script is played, a world is copied at each point that it passes, and the copy
loses its driver there: what two schedules have in common is played once.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from dotmac_workflows._core import commands
from dotmac_workflows._core.actions import RunRollback, RunStep, Wait
from dotmac_workflows._core.decide import interrupted
from dotmac_workflows._core.events import Claimed, Event, Settings, WorkflowStarted
from dotmac_workflows._core.state import Rollback, RunState, fold, replay
from dotmac_workflows._run.drive import Conflict, drive
from dotmac_workflows.result import WorkflowResult
from dotmac_workflows.status import WorkflowStatus
from dotmac_workflows.testing._judge import Effect, Judge, Violation

Behaviour: TypeAlias = Literal[
    "ok",
    "fail",
    "approve",  # asks for an approval, and gets it
    "reject",
    "cancel_at_gate",
    "pause",  # somebody pauses while it runs
    "pause_approve",
    "pause_cancel",  # somebody pauses while it runs, and then cancels
    "cancel",  # somebody cancels while it runs, and it ends well all the same
    "cancel_fail",
    "interrupt",  # somebody cancels while it runs, and that interrupts it
]
Undoing: TypeAlias = Literal["ok", "none", "fail"]
GOES_ON: tuple[Behaviour, ...] = ("ok", "approve", "pause", "pause_approve")
STOPS: tuple[Behaviour, ...] = (
    "fail",
    "reject",
    "cancel_at_gate",
    "pause_cancel",
    "cancel",
    "cancel_fail",
    "interrupt",
)
CANCELS: tuple[Behaviour, ...] = ("cancel", "cancel_fail", "interrupt")
GATES: tuple[Behaviour, ...] = ("approve", "pause_approve", "reject", "cancel_at_gate")
NAMES = ("reserve", "book", "reserve", "send", "book", "bill", "send", "reserve", "file", "bill", "send", "close")
"""Most come more than once."""
MIXED = 3
"""Up to so many steps are undone in every mix of ways; see `_undoings`."""
LONG = 400
"""More points than any run has: one that gets there does not end."""


class Script(NamedTuple):
    """What the world does to a run."""

    behaviours: tuple[Behaviour, ...]
    undoings: tuple[Undoing, ...]
    settings: Settings
    then: Literal["nothing", "retry", "waive"] = "nothing"
    """What somebody does once it has failed: retry what is left undone, or answer for it, and then retry the run."""

    @property
    def steps(self) -> tuple[str, ...]:
        return NAMES[: len(self.behaviours)]


class Outcome(NamedTuple):
    """How a run ended, without what two runs may differ in: times, keys, wording."""

    status: str
    rollback_status: str
    results: tuple[tuple[str, bool, str | None], ...]
    approval: str


class Crash(BaseException):
    """The driver is lost."""


class World:
    """One run, played to its end.

    Args:
        script: What happens to it.
        schedule: The numbers of the points at which the driver is lost, from 0.
    """

    host: "type[SimulatedHost]"
    """What drives in it."""

    def __init__(self, script: Script, schedule: Iterable[int] = ()) -> None:
        self.script = script
        self.schedule = tuple(schedule)
        self.points = 0
        """How many points were passed."""
        self.forks: list[World] = []
        """Worlds like this one that lose their driver at a point that it passed."""
        self.journal: list[Event] = []
        self.judge = Judge(script.steps, script.settings)
        self._fork = False
        self._passes = self._rollback_passes = 0
        self._happened: set[int] = set()
        self._instant = 0
        self._drivers = 0
        self._folded: RunState | None = None

    def play(self, *, fork: bool = False) -> Outcome:
        """Play it to the end.

        Args:
            fork: Whether to keep, of every point from here on, a world that loses its driver there.

        Raises:
            Violation: A promise was broken.
        """
        self._fork = fork
        while (next_facts := self._next_facts()) is not None:
            self._take_over(*next_facts)
        state = self.state()
        self.judge.finished(state.status.value, state.rollback_status)
        self.outcome = Outcome(
            state.status.value,
            state.rollback_status,
            tuple((result.step, result.success, result.error) for result in state.results),
            str(state.approval_data),
        )
        return self.outcome

    def _without_driver(self, point: int) -> "World":
        """Return a world that is as this one, but loses its driver at this point."""
        other = _with_its_own(self)
        other.schedule = (*self.schedule, point)
        other.forks = []
        other.judge = _with_its_own(self.judge)
        other.judge.crashed()
        other._folded = None
        return other

    # The persons and processes outside.

    def _next_facts(self) -> tuple[RunState, list[Event]] | None:
        """Return what somebody does next, with the state that it rests on; None: nobody does anything more."""
        script, now = self.script, self.now()
        state = self.state()
        if state.plan is None:
            run_id = f"run-{self._drivers}"
            return state, [WorkflowStarted(now, run_id, "Simulated", script.steps, script.settings, {}, None)]
        if state.status is WorkflowStatus.RUNNING:
            return state, []
        if state.status is WorkflowStatus.PAUSED:
            if any(script.behaviours[position] == "pause_cancel" for position in self._happened):
                return state, commands.cancel(state, now, None, None)
            return state, commands.resume(state, now, None)
        if state.status is WorkflowStatus.WAITING_APPROVAL:
            return self._decide(state, now)
        if script.then == "nothing":
            return None
        if state.rollback_status == "incomplete":
            assert state.rollback is not None
            if script.then == "retry" or not state.rollback.failed:
                return state, commands.retry_rollback(state, now, None)
            self.outside(commands.skip_rollback(state, now, state.rollback.failed[0].step.step, "by hand", None))
            return self._next_facts()
        if state.status is WorkflowStatus.FAILED and not self._passes:
            return state, commands.retry(state, now, None)
        return None

    def _decide(self, state: RunState, now: int) -> tuple[RunState, list[Event]]:
        """Decide the gate: in one go with driving on, or, at every other step, by only recording the decision."""
        behaviour = self.script.behaviours[state.index]
        if behaviour == "reject":
            facts = commands.reject(state, now, None, "approver@example.com", state.gate)
        elif behaviour == "cancel_at_gate":
            facts = commands.cancel(state, now, None, None)
        else:
            facts = commands.approve(state, now, self.data(state.index), "approver@example.com", state.gate)
        if state.index % 2:
            self.outside(facts)
            return self.state(), []
        return state, facts

    def outside(self, facts: list[Event]) -> None:
        """Append what somebody did who does not drive."""
        self.append(facts, len(self.journal) + len(facts))

    def _take_over(self, state: RunState, facts: list[Event]) -> None:
        self._drivers += 1
        driver = f"driver-{self._drivers}"
        coroutine = drive(self.host(self, driver), state, [*facts, Claimed(self.now(), driver, driver)])
        try:
            coroutine.send(None)
        except StopIteration as end:
            if end.value != self._folded:
                raise Violation(f"invariant 12 fold: live {end.value} is not folded {self._folded}") from None
        except Crash:
            self.lost(driver)

    def lost(self, driver: str) -> None:
        """A driver was lost."""
        self.judge.crashed()

    # The store, and the points.

    def now(self) -> int:
        self._instant += 1
        return self._instant

    def state(self) -> RunState:
        """Return what the journal amounts to, for one caller to own."""
        if self._folded is None:
            self._folded = replay("simulated", self.journal)
        return owned(self._folded)

    def append(self, events: list[Event], version: int) -> None:
        self.judge.committed(events, version)
        if self._folded is not None:
            fold(self._folded, events)
        self.journal += events
        for event in events:
            name = type(event).__name__
            self._passes += name == "Retried"
            self._rollback_passes += name == "RollbackRetried"

    def point(self) -> None:
        """Pass a point, unless the schedule says that the driver is lost here."""
        point = self.points
        self.points += 1
        if self._fork:
            self.forks.append(self._without_driver(point))
        elif point in self.schedule:
            raise Crash
        if point > LONG:
            raise Violation("invariant 20 ends: the run goes on and on")

    # The user's code.

    def data(self, position: int) -> dict[str, Any]:
        """Return what a step answers, or an approver adds."""
        return {"at": position}

    def run_step(self, action: RunStep) -> Event:
        started = action.started
        self._act("forward", action)
        behaviour = self.script.behaviours[started.position] if not self._passes else "ok"
        fails = behaviour in ("fail", "cancel_fail")
        error = "declined" if fails else None
        asks = behaviour in GATES
        result = WorkflowResult(not fails, started.step, self.data(started.position), error, requires_approval=asks)
        if behaviour in CANCELS or behaviour.startswith("pause"):
            self.point()
            self._interfere(started.position, behaviour)
        if behaviour == "interrupt":
            return interrupted(started, self.now(), "cancelled")
        return commands.settle(result, self.now())

    def _interfere(self, position: int, behaviour: Behaviour) -> None:
        """Have somebody cancel or pause while the step runs, once."""
        if position in self._happened:
            return
        self._happened.add(position)
        command: Callable[..., list[Event]] = commands.cancel if behaviour in CANCELS else commands.pause
        self.outside(command(self.state(), self.now(), None, None))

    def run_rollback(self, action: RunRollback) -> Event:
        started = action.started
        self._act("rollback", action)
        how = self.script.undoings[started.position]
        if how == "none":
            return commands.settle_rollback(None, started.step, self.now())
        fails = how == "fail" and not self._rollback_passes
        error = "stuck" if fails else None
        result = WorkflowResult(not fails, f"rollback_{started.step}", {}, error)
        return commands.settle_rollback(result, started.step, self.now())

    def _act(self, phase: Literal["forward", "rollback"], action: RunStep | RunRollback) -> None:
        _, step, position, visit, attempt = action.started
        assert isinstance(self.journal[0], WorkflowStarted)
        key = f"{self.journal[0].run_id}:{phase[0]}:{visit}:{step}"
        self.judge.acted(Effect(phase, step, position, visit, attempt, key))


class SimulatedHost:
    """Drives in the world; see `dotmac_workflows._run.drive.Host`."""

    def __init__(self, world: World, token: str) -> None:
        self._world = world
        self._token = token

    def now(self) -> int:
        return self._world.now()

    async def commit(self, state: RunState, events: list[Event]) -> None:
        world = self._world
        world.point()
        if len(world.journal) != state.version - len(events):
            raise Conflict(world.state())
        world.append(events, state.version)
        world.point()

    async def wait(self, wait: Wait) -> list[Event]:
        return []

    async def perform(self, action: RunStep | RunRollback) -> list[Event]:
        world = self._world
        return [world.run_step(action) if isinstance(action, RunStep) else world.run_rollback(action)]


World.host = SimulatedHost

# Copies.

_Thing = TypeVar("_Thing", World, Judge)
_CONTAINERS = (list, set, dict)
_values = attrgetter(*RunState.__slots__)


def _with_its_own(thing: _Thing) -> _Thing:
    """Return another of its kind with containers of its own; what they hold never changes."""
    other = object.__new__(type(thing))
    for name, value in vars(thing).items():
        vars(other)[name] = value.copy() if type(value) in _CONTAINERS else value
    return other


def owned(state: RunState) -> RunState:
    """Return another state that is equal, and shares nothing that a fold changes."""
    other = RunState(*_values(state))
    other.results = state.results.copy()
    other.visits = state.visits.copy()
    other.rollback_visits = state.rollback_visits.copy()
    other.undoable = state.undoable.copy()
    other.decisions = state.decisions.copy()
    if state.rollback is not None:
        other.rollback = Rollback(state.rollback.ends_in, state.rollback.todo.copy(), state.rollback.failed.copy())
    return other


# Scripts.

_OK: tuple[Behaviour, ...] = ("ok",)
_UNDONE: tuple[Undoing, ...] = ("ok",)
_STUCK: tuple[Undoing, ...] = ("fail",)


def scripts(length: int) -> Iterator[Script]:
    """Return every script of a length, without those that differ in what never happens alone."""
    for behaviours in _behaviours(length, GOES_ON):
        yield from _with_settings(behaviours)
    for behaviours in _behaviours(length, (*GOES_ON, "fail")):
        if "fail" in behaviours:
            yield from _continuing(behaviours)


def _behaviours(length: int, goes_on: tuple[Behaviour, ...]) -> Iterator[tuple[Behaviour, ...]]:
    """Return every mix; after a step that stops the run come steps that must never run."""
    if length == 0:
        yield ()
        return
    for first in goes_on:
        for rest in _behaviours(length - 1, goes_on):
            yield (first, *rest)
    for stop in STOPS:
        if stop not in goes_on:
            yield (stop, *_OK * (length - 1))


def _settings(behaviours: tuple[Behaviour, ...]) -> Settings:
    return Settings(rollback_on_failure=False, require_approval=any(behaviour in GATES for behaviour in behaviours))


def _continuing(behaviours: tuple[Behaviour, ...]) -> Iterator[Script]:
    settings = _settings(behaviours)._replace(continue_on_step_failure=True)
    undoings = _UNDONE * len(behaviours)
    yield Script(behaviours, undoings, settings)
    if any(behaviour in STOPS and behaviour != "fail" for behaviour in behaviours):
        yield Script(behaviours, undoings, settings._replace(rollback_on_cancel=True))


def _with_settings(behaviours: tuple[Behaviour, ...]) -> Iterator[Script]:
    stop = next((index for index, behaviour in enumerate(behaviours) if behaviour in STOPS), None)
    plain = _settings(behaviours)
    all_undone = _UNDONE * len(behaviours)
    yield Script(behaviours, all_undone, plain)
    if stop is None:
        return
    failed = behaviours[stop] == "fail"
    if failed:
        yield Script(behaviours, all_undone, plain, "retry")
        undoing = plain._replace(rollback_on_failure=True)
    else:
        undoing = plain._replace(rollback_on_cancel=True)
    for undoings in _undoings(len(behaviours), stop + (not failed)):
        yield Script(behaviours, undoings, undoing)
        if failed or "fail" in undoings:
            yield Script(behaviours, undoings, undoing, "retry")
        if "fail" in undoings:
            yield Script(behaviours, undoings, undoing, "waive")
            halting = undoing._replace(on_rollback_failure="halt")
            yield Script(behaviours, undoings, halting)
            yield Script(behaviours, undoings, halting, "retry")
            yield Script(behaviours, undoings, halting, "waive")


def _undoings(length: int, count: int) -> Iterator[tuple[Undoing, ...]]:
    """Return the mixes of how `count` steps are undone; of more than `MIXED`: all well, each otherwise, all failing."""
    rest = _UNDONE * (length - count)
    if count <= MIXED:
        for mix in product((*_UNDONE, "none", *_STUCK), repeat=count):
            yield (*mix, *rest)
        return
    yield _UNDONE * length
    for index in range(count):
        for how in (*_STUCK, "none"):
            yield (*_UNDONE * index, how, *_UNDONE * (length - index - 1))
    yield (*_STUCK * count, *rest)


def interrupting(behaviours: tuple[Behaviour, ...]) -> tuple[Behaviour, ...]:
    """Return what happens where a cancel interrupts the step that it hits."""
    return tuple("interrupt" if how in CANCELS or how == "pause_cancel" else how for how in behaviours)


def without_crashes(script: Script) -> tuple[set[Outcome], int]:
    """Return how a run may end, and how many points it has when nothing crashes.

    It ends as it does without crashes, or as if a cancel had interrupted the step that it hit.
    """
    clean = play(script, (), None)
    outcomes = {clean.outcome}
    hit = interrupting(script.behaviours)
    if hit != script.behaviours:
        outcomes.add(play(script._replace(behaviours=hit), (), None).outcome)
    return outcomes, clean.points


# Schedules.


def every_schedule(script: Script, crashes: int, *, fewest: int = 1) -> int:
    """Play a script with every schedule of at least one crash and up to so many; return how many those were.

    Those of less than the `fewest` crashes are played, since the longer ones grow out of them, and not counted.

    Raises:
        Violation: A promise was broken; the message ends with the command that plays that one again.
    """
    ends, _ = without_crashes(script)
    worlds = [World(script)]
    played = 0
    while worlds:
        world = worlds.pop()
        _play(world, ends, fork=len(world.schedule) < crashes)
        worlds += world.forks
        played += len(world.schedule) >= fewest
    return played


def sampled_schedules(script: Script, crashes: int, count: int, chance: random.Random) -> int:
    """Play a script with so many schedules of so many crashes, drawn by `chance`; return how many those were."""
    ends, points = without_crashes(script)
    points += 3 * crashes  # each is followed by some
    played = 0
    while played < count:
        schedule = sorted(chance.sample(range(points), min(crashes, points)))
        played += play(script, schedule, ends).points > schedule[-1]  # else it ended before the last one
    return played


def play(script: Script, schedule: Sequence[int], ends: set[Outcome] | None) -> World:
    """Play one schedule, and hold its end against those that may be."""
    world = World(script, schedule)
    _play(world, ends)
    return world


def _play(world: World, ends: set[Outcome] | None, *, fork: bool = False) -> None:
    try:
        outcome = world.play(fork=fork)
        if ends is not None and outcome not in ends:
            raise Violation(f"invariant 11 same end: {outcome} instead of {ends}")
    except Exception as error:
        again = f"python -m tests.campaigns.schedules --only {name_of(world.script, world.schedule)}"
        raise Violation(f"{error}\n{world.script}\n{lines(world.journal)}\nagain: {again}") from error


def name_of(script: Script, schedule: Iterable[int]) -> str:
    """Return what names one schedule of one script; see `named`."""
    length = len(script.behaviours)
    return f"{length}:{list(scripts(length)).index(script)}:{','.join(map(str, schedule))}"


def named(name: str) -> tuple[Script, tuple[int, ...]]:
    """Return the script and the schedule that `name_of` named."""
    length, number, points = name.split(":")
    script = list(scripts(int(length)))[int(number)]
    return script, tuple(map(int, points.split(","))) if points else ()


def lines(journal: Iterable[Event]) -> str:
    """Return a journal to read, an event a line."""
    return "\n".join(f"  {seq} {event}" for seq, event in enumerate(journal, 1))
