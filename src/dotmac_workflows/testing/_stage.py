"""One run under one schedule: a store, a world, and processes that die, freeze and get in each other's way.

Everything is the engine's own: the user's workflow, its verbs, the local host and the loop. Faults come in through the
store that each process is handed, the clock, and the two methods that a host calls, which are wrapped on the object.
Nobody waits for real, and processes are objects: one that died raises `Crash` from wherever it stands, and from
whatever it tries to touch afterwards, so that no ``finally`` of the user's has an effect that a dead process could not
have had.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from .._core import codec
from .._core.events import (
    Event,
    RollbackOutcome,
    StepOutcome,
    WorkflowStarted,
    new_event,
)
from .._core.state import RunState, fold
from .._run.runtime import Runtime
from .._verbs import Verbs
from ..base import StepContext, Workflow
from ..errors import (
    AlreadyDecidedError,
    ConcurrencyError,
    LeaseLostError,
    WorkflowConfigurationError,
    WorkflowExecutionError,
)
from ..persistence import InMemoryPersistence, Record
from . import _words as words
from ._effects import Watch
from ._judge import Effect, Judge, Violation
from ._jumping_loop import place_of
from ._people import People
from ._picture import picture
from ._process import WORKFLOW_ID, Broken, Call, Crash, Ending, Place, Process, StageClock, end
from ._schedule import Fault, Schedule
from ._steps import Steps
from ._time import ProofLoop
from ._world import entered, leave, settled, shown
from .scenario import Scenario

W = TypeVar("W")

_MOST_VERBS = 60  # more than any run takes: one that gets there does not end
_MOST_POINTS = 20_000
_MOST_TURNS = 200_000  # of the event loop that a verb may take: a day's heartbeats, one a second
_OVERTAKEN = (WorkflowExecutionError, LeaseLostError, ConcurrencyError)
"""What a process is told when another one was faster."""


class Sleeper(NamedTuple):
    """A process that is frozen."""

    process: Process
    task: "asyncio.Task[object]"
    thawed: "asyncio.Future[None]"


class Stage(Generic[W]):
    """Plays one schedule.

    Args:
        scenario: What is played.
        schedule: What happens in it.
        outage: How many seconds pass between a crash and the process that takes over, once the run is recorded.
        only_again: Take the clock back when the step that the crash hit is over.
        tell: Told the lines of the timeline; None: nobody wants them.
        set_wall_clock: Told the instant, in nanoseconds since 1970 UTC, whenever it is another.
        known: Records that were decoded before: other schedules write most of the same ones.
        watch: Has the calls of the world pass by.
    """

    def __init__(
        self,
        scenario: Scenario[W],
        schedule: Schedule,
        *,
        outage: float,
        only_again: bool = False,
        tell: Callable[[str], None] | None = None,
        set_wall_clock: Callable[[int], None],
        known: dict[tuple[str, str], Event],
        watch: Watch,
    ) -> None:
        self.scenario = scenario
        self.schedule = schedule
        self.clock = StageClock(asyncio.get_running_loop().time)
        self.store = InMemoryPersistence()
        self.state = RunState(WORKFLOW_ID)
        self.events: list[Event] = []
        self.places: list[Place] = []
        self.acts: list[tuple[Process, StepContext]] = []
        """Every time that the user's step or rollback was called."""
        self.workflow: Workflow | None = None
        """The last one made."""
        self.hit_after_an_effect = False
        """Whether a crash hit a step that had changed the world; known where `only_again` is set."""
        self.calls: dict[str, list[list[Call]]] = {}
        """The calls that steps made of their world, by idempotency key and attempt; of schedules with faults."""
        self.changes = False
        """Whether the world was seen to change by a step; known of schedules without faults."""
        self.struck: set[Fault] = set()
        """The faults that struck."""
        self.tells = tell is not None
        self._steps = Steps(self)
        self._outage = outage
        self._only_again = only_again
        self._late = False
        self._at_start: tuple[object] | None = None
        self._tell = tell
        self._set_wall_clock = set_wall_clock
        self._faults = {fault.point: fault for fault in schedule.faults}
        self._freezes = any(fault.kind == "freeze" for fault in schedule.faults)
        self._known = known
        self._watch = watch
        self._held_back = 0.0
        """Seconds that passed for the engine, and are not shown."""
        self._waited_at: str | None = None
        self._judge: Judge | None = None
        self._broken: Violation | None = None
        self._process: Process | None = None
        """The one whose points count."""
        self._everybody: list[Process] = []
        self.people: People[W] = People(self)
        self._froze: asyncio.Future[asyncio.Future[None]] | None = None
        self._sleepers: list[Sleeper] = []
        self._woke = False
        """Whether the frozen process went on while the verb at hand was under way, and may have come first."""
        self._runtimes: list[tuple[Runtime, Runtime]] = []
        """Those of the user's, and the same with the clock of the stage."""

    # The play.

    async def play(self) -> Ending:
        """Bring the run to its end.

        Raises:
            Broken: It did not come to one, or a promise was broken on the way.
        """
        self.show_time()
        async with AsyncExitStack() as worlds:
            self.world: W = await entered(self.scenario, worlds)
            self.initial = await self._shown()
            self._watch.look_at(self.world)
            try:
                await self._to_the_end()
                while self._sleepers:
                    await self._wake()
            finally:
                self._watch.look_away()
                await end({*asyncio.all_tasks(), *(task for process in self._everybody for task in process.tasks)})
            ending = await self._ending()
            await leave(worlds)
        return ending

    async def play_or_broken(self) -> "Ending | Broken":
        """Return how the run ended, or what it broke."""
        try:
            return await self.play()
        except Broken as broken:
            return broken

    async def _to_the_end(self) -> None:
        for _ in range(_MOST_VERBS):
            verb = self.people.next_verb(len(self._everybody))
            if verb is None:
                return
            self._process = self.new_process()
            await self._live(self._process, *verb)
        raise Broken(f"the run did not end: it is {self.state.status} after {_MOST_VERBS} verbs")

    async def _live(self, process: Process, name: str, verb: Callable[[Workflow], Awaitable[object]]) -> None:
        """Have a process call a verb, and come to its end one way or another."""
        self.say(f"process {process.number}: {name}")
        self._woke = False
        workflow = self.make(process)
        try:
            if self._freezes:
                await self._until_frozen(process, workflow, verb)
            else:
                await self._patiently(workflow, verb)
        except AlreadyDecidedError as error:
            if not self.people.was_told_that_somebody_was_faster():
                raise Broken(f"{name} raised {words.error(error)}", error) from error
            self.say("    is told that somebody else decided first")
        except BaseException as error:
            if self._woke and isinstance(error, _OVERTAKEN):
                self.say(f"    is told: {words.error(error)}")
            elif not process.dead:
                task = asyncio.current_task()
                ends_the_proof = isinstance(error, KeyboardInterrupt) or (task is not None and task.cancelling())
                if ends_the_proof or isinstance(error, Broken | Violation):
                    raise
                raise Broken(f"{name} raised {words.error(error)}", error) from error
        if process.dead:
            await process.gone()
            await self._crashed()
        elif self.state.plan is None and workflow.is_failed:
            result = workflow.results[0]
            raise WorkflowConfigurationError(
                f"The workflow of the scenario cannot start: {result.error}: {result.message}. Make one that can."
            )

    async def _patiently(self, workflow: Workflow, verb: Callable[[Workflow], Awaitable[object]]) -> object:
        """Await a verb, which may take a day or so."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None and isinstance(loop, ProofLoop)
        loop.limit(_MOST_TURNS, partial(self._waits_for_ever, task))
        try:
            return await verb(workflow)
        except asyncio.CancelledError:
            if self._waited_at is None:
                raise
            task.uncancel()
        finally:
            loop.limit(0, None)
        raise Broken(f"it waits for ever, or longer than a day, or goes round and round, at {self._waited_at}")

    def _waits_for_ever(self, task: "asyncio.Task[Any]") -> None:
        self._waited_at = place_of(task)
        task.cancel()

    async def _crashed(self) -> None:
        self._lost()
        if self.state.plan is None or self._late:
            return
        if self._only_again:
            if not self.state.in_flight and not self.state.undoing:
                return
            self._late = True
            self.hit_after_an_effect |= self._at_start not in (None, (await self._shown(),))
        self._pass(self._outage)

    def _lost(self) -> None:
        if self._judge is not None:
            self._judge.crashed()

    def make(self, process: Process) -> Workflow:
        """Have the user make a workflow for a process."""
        try:
            workflow: object = self.scenario.workflow(self.world, WORKFLOW_ID, process)
        except Exception as error:
            raise Broken(f"Scenario.workflow raised {words.error(error)}", error, of_the_scenario=True) from error
        if not isinstance(workflow, Workflow):
            raise WorkflowConfigurationError(
                f"Scenario.workflow returned {type(workflow).__name__}. Let it return a Workflow."
            )
        if workflow.workflow_id != WORKFLOW_ID or workflow.persistence is not process:
            raise WorkflowConfigurationError(
                "Scenario.workflow made a workflow with another id or persistence than it was given. Hand both on: "
                "lambda world, workflow_id, persistence: Order(workflow_id, persistence=persistence)."
            )
        workflow.runtime = self._on_stage(workflow.runtime)
        self._steps.watch(process, workflow)
        self.workflow = workflow
        return workflow

    def _on_stage(self, runtime: Runtime) -> Runtime:
        for known, ours in self._runtimes:
            if known is runtime:
                return ours
        self._runtimes.append((runtime, replace(runtime, clock=self.clock)))
        return self._runtimes[-1][1]

    def new_process(self) -> Process:
        self._everybody.append(Process(self, len(self._everybody) + 1))
        return self._everybody[-1]

    async def _ending(self) -> Ending:
        state = self.state
        if self._judge is not None:
            try:
                self._judge.finished(state.status.value, state.rollback_status)
            except Violation as violation:
                self._broken = self._broken or violation
        if self._broken is not None:
            raise Broken(f"the engine broke a promise of its own: {self._broken}", self._broken)
        if not self.schedule.faults:
            self.people.see_that_the_loser_was_told()
        if self.scenario.check is not None:
            workflow = self.make(self.new_process())
            await Verbs(workflow).attach()
            try:
                answer = await settled(self.scenario.check(self.world, workflow))
            except Exception as error:
                raise Broken(f"the check says {words.assertion(error)}", error) from error
            if answer is not None and not answer:
                raise Broken(f"the check returned {answer!r}")
        results = tuple((result.step, result.success, result.error) for result in state.results)
        data = tuple(picture(result.data, self.run_id) for result in state.results)
        return Ending(state.status, state.rollback_status, results, await self._shown(), data)

    async def _shown(self) -> object:
        return await shown(self.scenario, self.world, self.run_id)

    # The points, and the faults that strike there.

    async def point(self, process: Process, place: Place) -> None:
        """Pass a point where anything may strike."""
        fault = self.pass_by(process, place)
        if fault is None:
            return
        if fault.kind == "rival":
            await self._rival()
        elif fault.kind == "freeze":
            await self._freeze(process)
        elif fault.kind == "wake":
            await self._wake()

    def pass_by(self, process: Process, place: Place) -> Fault | None:
        """Count a point, and die there where the schedule says so."""
        process.must_live()
        if process is not self._process:
            return None
        number = len(self.places)
        self.places.append(place)
        if number > _MOST_POINTS:
            raise Broken("the run goes on and on")
        fault = self._faults.get(number)
        if fault is None or not self._can_strike(fault, place):
            return None
        self.struck.add(fault)
        self.say(f"    {words.STRIKES[fault.kind]}, {words.place(place)}")
        if fault.kind == "crash":
            process.dead = True
            raise Crash
        return fault

    def _can_strike(self, fault: Fault, place: Place) -> bool:
        """Tell whether a fault has anything to strike at a place: most need a coroutine to stand there."""
        match fault.kind:
            case "crash":
                return True
            case "disconnect":
                return (place.when, place.what) == ("before", "call")
            case "rival":
                return place.what != "call"
            case "freeze":
                return place.what != "call" and self._froze is not None
            case "wake":
                return place.what != "call" and bool(self._sleepers)

    async def _rival(self) -> None:
        rival = self.new_process()
        self.say(f"process {rival.number}: execute(), at the same time")
        try:
            await self.make(rival).execute()
        except WorkflowExecutionError as error:
            self.say(f"    is refused: {words.error(error)}")

    async def _until_frozen(
        self, process: Process, workflow: Workflow, verb: Callable[[Workflow], Awaitable[object]]
    ) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._patiently(workflow, verb))
        self._froze = loop.create_future()
        waiting: set[asyncio.Future[Any]] = {task, self._froze}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        froze, self._froze = self._froze, None
        if not froze.done():
            froze.cancel()
            await task
            return
        thawed = froze.result()
        self._sleepers.append(Sleeper(process, task, thawed))
        self._lost()
        self._pass(workflow.runtime.lease_seconds + 1)

    async def _freeze(self, process: Process) -> None:
        assert self._froze is not None
        thawed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        process.frozen = True
        self._froze.set_result(thawed)
        await thawed
        process.frozen = False

    async def _wake(self) -> None:
        """Let the frozen process go on, to its end."""
        self._woke = True
        sleeper = self._sleepers.pop()
        self.say(f"process {sleeper.process.number} wakes up and goes on")
        sleeper.thawed.set_result(None)
        (error,) = await asyncio.gather(sleeper.task, return_exceptions=True)
        if isinstance(error, _OVERTAKEN):
            self.say(f"    is told: {words.error(error)}")
        elif isinstance(error, BaseException) and not sleeper.process.dead:
            raise Broken(f"the process that was frozen raised {words.error(error)}", error)

    # What the store tells.

    def decoded(self, records: Sequence[Record]) -> list[Event]:
        """Return what records say."""
        assert self.workflow is not None
        values, known, events = self.workflow.runtime.codec, self._known, []
        for record in records:
            event = known.get((record.kind, record.body))
            if event is None:
                event = known[record.kind, record.body] = codec.decode(record.kind, record.at, record.body, values)
            events.append(new_event(type(event), (record.at, *event[1:])))
        return events

    def recorded(self, events: list[Event], version: int) -> None:
        """Events were committed."""
        if self._judge is None and events and isinstance(events[0], WorkflowStarted):
            self._judge = Judge(events[0].steps, events[0].settings)
        assert self._judge is not None
        try:
            self._judge.committed(events, version)
        except Violation as violation:
            self._broken = self._broken or violation
        fold(self.state, events)
        self.events += events
        if any(isinstance(event, StepOutcome | RollbackOutcome) for event in events):
            self._at_start = None
            if self._late:
                self._late = False
                self._pass(-self._outage)
        for event in events if self._tell is not None else ():
            if (line := words.fact(event)) is not None:
                self.say(f"    recorded: {line}")

    def acted(self, process: Process, context: StepContext) -> None:
        """The user's code is called."""
        self.acts.append((process, context))
        self.say(f"    {words.act(context)}")
        # A stale process may act once more: the journal is what it cannot touch.
        if self._judge is None or process.token != self.state.token:
            return
        started = self.state.in_flight or self.state.undoing
        position = started.position if started is not None else -1
        effect = Effect(context.phase, context.step, position, context.visit, context.attempt, context.idempotency_key)
        try:
            self._judge.acted(effect)
        except Violation as violation:
            self._broken = self._broken or violation

    async def has_acted(self) -> None:
        """The user's code has run."""
        if not self.changes and not self.schedule.faults:
            self.changes = await self._shown() != self.initial

    async def about_to_act(self) -> None:
        """The user's code is about to see the world and the clock."""
        self.show_time()
        if self._only_again:
            self._at_start = (await self._shown(),)

    # The time.

    def _pass(self, seconds: float) -> None:
        """Let time pass at once; where no outage is wanted, so that nobody who looks at the wall sees it."""
        self.clock.jump(seconds)
        if not self._outage:
            self._held_back += seconds
        self.show_time()

    def show_time(self) -> None:
        """Have the clock on the wall show what time it is."""
        self._set_wall_clock(self.clock.time_ns() - round(self._held_back * 1_000_000_000))

    # What they share.

    @property
    def run_id(self) -> str | None:
        """The id of the run; None: it was not recorded yet."""
        return self.state.plan.run_id if self.state.plan else None

    def say(self, line: str) -> None:
        """Add a line to the timeline."""
        if self._tell is not None:
            self._tell(line)
