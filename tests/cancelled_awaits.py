"""Whole runs, verbs and host included, whose task is cancelled at the awaits that a schedule names.

Each time that the task waits, for whatever reason, is a *point*; so is each time that another task waits in the store
on its behalf (those of `recover`, the heartbeat's). A schedule is the numbers of the points at which the task is
cancelled. After each cancel it unwinds, which passes more points, so that the next cancel of a schedule may come in the
midst of that, or when the run was taken up again: for a new task takes it up at once, until it has come to its end.

Cancelling the task is not cancelling the workflow (invariant 17), and nothing may be under way when the task is done
(invariant 16). What came of it all is judged by the journal and by a ledger outside the engine, and its end is held
against the ends that there are without cancels.
"""

import asyncio
import operator
import random
import types
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

from crash_simulation import Script, interrupting, scripts
from dotmac_workflows import (
    InMemoryPersistence,
    Runtime,
    SQLitePersistence,
    WorkflowExecutionError,
    WorkflowResult,
    recover,
    verify,
)
from dotmac_workflows._core import codec
from dotmac_workflows._core.events import Event
from dotmac_workflows.persistence import Header, Lease, Record
from dotmac_workflows.testing import FakeClock
from dotmac_workflows.testing._judge import Violation, judge_run
from dotmac_workflows.values import Codec
from processes.judging import End, end_of
from processes.orders import ListedEffects, Order, bring_to_its_end, order

Result = TypeVar("Result")

Call: TypeAlias = Callable[[], Coroutine[Any, Any, Result]]

HEARTBEAT = 1.0
"""After how many seconds of a step its lease is renewed."""


class Points:
    """Counts the awaits of a task, and cancels it at some of them."""

    def __init__(self, schedule: Collection[int]) -> None:
        self.passed = 0
        self.cancels = 0
        self.task: asyncio.Task[Any] | None = None
        self._schedule = frozenset(schedule)

    def point(self) -> None:
        """Pass a point: something waits from here on."""
        if self.task is None:
            return
        if self.passed in self._schedule:
            self.cancels += 1
            self.task.cancel()
        self.passed += 1

    async def elsewhere(self) -> None:
        """Wait, and pass a point if that is not in the task itself, whose awaits are counted all."""
        if asyncio.current_task() is not self.task:
            self.point()
        await asyncio.sleep(0)

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Run a coroutine in a task that is cancelled as the schedule says."""

        async def counted() -> Result:
            return await self._counted(coroutine)

        self.task = asyncio.create_task(counted())
        return self.task

    @types.coroutine
    def _counted(self, coroutine: Coroutine[Any, Any, Result]) -> Generator[Any, Any, Result]:
        """Drive a coroutine; a cancel that comes right before a task waits is delivered at just that await."""
        step: Callable[..., Any] = coroutine.send
        value: Any = None
        while True:
            try:
                awaited = step(value)
            except StopIteration as end:
                result: Result = end.value
                return result
            self.point()
            try:
                value = yield awaited
                step = coroutine.send
            except BaseException as error:
                value, step = error, coroutine.throw


class SuspendingStore(InMemoryPersistence):
    """Suspends before and after everything that it does, and knows what is under way."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points
        self.writing: list[str] = []

    async def _write(self, what: str, write: Call[Result]) -> Result:
        self.writing.append(what)
        try:
            return await self._suspended(write)
        finally:
            self.writing.remove(what)

    async def _suspended(self, call: Call[Result]) -> Result:
        await self._points.elsewhere()
        answer = await call()
        await self._points.elsewhere()
        return answer

    async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
        kinds = [record.kind for record in records]
        await self._write(f"append of {kinds}", partial(super().append, workflow_id, records, **how))

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return await self._suspended(partial(super().read, workflow_id, after=after))

    async def lease(self, workflow_id: str) -> Lease | None:
        return await self._suspended(partial(super().lease, workflow_id))

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        renew = partial(super().renew, workflow_id, token, expires_at)

        async def slowly() -> int:
            """Be still at it when the step that it was for has ended, and the run is left."""
            for _ in range(10):
                await asyncio.sleep(0)
            return await renew()

        return await self._write("renewal", slowly)

    async def find(self, **which: Any) -> list[Header]:
        return await self._suspended(partial(super().find, **which))


class Left(BaseException):
    """The driver is gone."""


class SuspendingOrder(Order):
    """Waits before and after each effect, as long as a heartbeat takes to come, and in each callback."""

    leaves = False
    """Whether the driver goes in the first step."""

    def acknowledge(self, what: str) -> Any:
        return _Pause()

    async def execute_step(self, step: str) -> WorkflowResult:
        if self.leaves:
            raise Left
        await _until_the_heartbeat()
        result = await super().execute_step(step)
        await asyncio.sleep(0)
        return result

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        await _until_the_heartbeat()
        result = await super().rollback_step(step)
        await asyncio.sleep(0)
        return result


class _Pause:
    """Waits once; unlike a coroutine it need not be awaited, where a callback is called by hand."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def _until_the_heartbeat() -> None:
    await asyncio.sleep(HEARTBEAT)
    for _ in range(3):
        await asyncio.sleep(0)


# What the task does. It may be done again from wherever it was cancelled.


class Task(NamedTuple):
    """Brings a run to its end."""

    go: Callable[[Script, Any, type[Order]], Coroutine[Any, Any, Order]]
    takes_up: bool = False
    """Whether there is a run already, which a driver left in its first step."""

    def __str__(self) -> str:
        return self.go.__name__.strip("_") + " of a run that was left" * self.takes_up


async def _execute(script: Script, store: Any, kind: type[Order]) -> Order:
    """Start it or load it, and do what is due, verb by verb."""
    return await bring_to_its_end("w", script, store, kind=kind)


async def _recover(script: Script, store: Any, kind: type[Order]) -> Order:
    for outcome in await recover(store, [kind]):
        if outcome.error is not None:
            raise outcome.error
    return await bring_to_its_end("w", script, store, kind=kind)


async def _pause(script: Script, store: Any, kind: type[Order]) -> Order:
    run = await kind.load("w", store)
    if not run.results:
        try:
            await run.pause("later")
        except WorkflowExecutionError as error:  # by now it has cancelled itself, and the task was cancelled in between
            if "being undone or cancelled" not in str(error):
                raise
    return await bring_to_its_end("w", script, store, kind=kind)


async def _cancel(script: Script, store: Any, kind: type[Order]) -> Order:
    run = await kind.load("w", store)
    await run.cancel(actor="operator@example.com")
    return await bring_to_its_end("w", script, store, kind=kind)


TASKS = (
    Task(_execute),
    Task(_recover),
    Task(_recover, takes_up=True),
    Task(_pause, takes_up=True),
    Task(_cancel, takes_up=True),
)


# Playing.


class Played(NamedTuple):
    """What a play came to."""

    points: int
    cancels: int
    end: End


class Play:
    """One run, played to its end.

    Args:
        script: What happens to it.
        task: What the task does that is cancelled.
        schedule: The numbers of the points at which it is, from 0.
        clock: The clock in whose time all happens; see `FakeClock.run`.
        real: A store to play in; None: one in memory that suspends.
    """

    def __init__(
        self,
        script: Script,
        task: Task,
        schedule: Sequence[int],
        clock: FakeClock,
        real: SQLitePersistence | None = None,
    ) -> None:
        self._script = script
        self._task = task
        self._schedule = schedule
        self._points = Points(schedule)
        self._suspending = None if real is not None else SuspendingStore(self._points)
        self._store: Any = real or self._suspending
        self._left_at: set[int] = set()
        self._ledger = ListedEffects()

        # Plays follow each other; a class for each would be kept for ever, by what is cached by class.
        self._kind = SuspendingOrder
        self._kind.runtime = Runtime(clock=clock)
        self._kind.ledger = self._ledger

    async def play(self, ends: Collection[End] | None = None) -> Played:
        """Play it, and judge it.

        Args:
            ends: The ends that may be; None: any.

        Raises:
            Violation: A promise was broken.
        """
        try:
            if self._task.takes_up:
                await self._leave()
            run = await self._to_its_end()
            journal = await self._journal()
            effects = self._ledger.effects
            judge_run(run.steps, self._script.settings, journal, effects, lambda seq, event: seq - 1 in self._left_at)
            end = end_of(run)
            _hold(ends is None or end in ends, f"invariant 11 same end: {end} is none of {ends}")
            _hold((await verify(self._store)).problems == [], "invariant 14 intact")
        except Violation as error:
            lines = "\n".join(f"  {seq} {event}" for seq, event in enumerate(await self._journal(), 1))
            how = f"task: {self._task}, cancelled at {tuple(self._schedule)}"
            raise Violation(f"{error}\n{self._script}\n{how}\n{lines}") from error
        await self._store.delete("w")
        return Played(self._points.passed, self._points.cancels, end)

    async def _leave(self) -> None:
        self._kind.leaves = True
        try:
            await order("w", self._script, self._store, self._kind).execute()
        except Left:
            self._left_at.add(len(await self._store.read("w")))
        self._kind.leaves = False

    async def _to_its_end(self) -> Order:
        while True:
            cancels = self._points.cancels
            task = self._points.start(self._task.go(self._script, self._store, self._kind))
            await asyncio.wait([task])
            self._points.task = None
            if self._suspending is not None:
                under_way = self._suspending.writing
                _hold(not under_way, f"invariant 16 known: when the task was done, there was still {under_way}")
            if self._points.cancels == cancels:
                return task.result()
            _hold(task.cancelled(), f"invariant 17: the task was cancelled, and ended with {_outcome(task)}")
            await self._after_a_cancel()

    async def _after_a_cancel(self) -> None:
        records = await self._store.read("w")
        if self._suspending is None:
            await self._store.delete("what is not there")  # comes behind whatever was still to be written
            _hold(await self._store.read("w") == records, "invariant 16 known: something was written afterwards")
        self._left_at.add(len(records))
        held = await self._store.lease("w")
        _hold(held is None, f"invariant 17: the lease was not let go: {held}")

    async def _journal(self) -> list[Event]:
        return [codec.decode(row.kind, row.at, row.body, Codec()) for row in await self._store.read("w")]


def _hold(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


def _outcome(task: "asyncio.Task[Any]") -> str:
    error = None if task.cancelled() else task.exception()
    return "a result" if error is None else repr(error)


async def ends_of(
    script: Script, task: Task, clock: FakeClock, real: SQLitePersistence | None = None
) -> tuple[set[End], int]:
    """Return how a run may end, and how many points it has when nothing cancels its task.

    It ends as it does without cancels of its task, or as if its own cancel had interrupted the step that it hit.
    """
    clean = await Play(script, task, (), clock, real).play()
    hit = await Play(script._replace(behaviours=interrupting(script.behaviours)), task, (), clock).play()
    return {clean.end, hit.end}, clean.points


def every_script(*lengths: int) -> list[Script]:
    """Return every script of these lengths that an order can play."""
    every = [script for length in lengths for script in scripts(length)]
    return [script for script in every if "pause_cancel" not in script.behaviours]


class Count(NamedTuple):
    """What many plays came to."""

    plays: int = 0
    awaits: int = 0
    """How many awaits there were to cancel, in runs that nothing cancels."""
    cancels: int = 0

    def __add__(self, other: "Count") -> "Count":  # type: ignore[override]  # no longer the tuple's
        return Count(*map(operator.add, self, other))


async def every_schedule(script: Script, task: Task, cancels: int, clock: FakeClock) -> Count:
    """Play a script with every schedule of at least one cancel and up to so many.

    Raises:
        Violation: A promise was broken; the message holds the script and the schedule.
    """
    ends, awaits = await ends_of(script, task, clock)
    count = Count(awaits=awaits)

    async def play_on(schedule: tuple[int, ...], points: int) -> None:
        nonlocal count
        for point in range(schedule[-1] + 1 if schedule else 0, points):
            longer = (*schedule, point)
            played = await Play(script, task, longer, clock).play(ends)
            _hold(played.cancels == len(longer), f"{script} {task} {longer}: not the same twice")
            count += Count(1, 0, played.cancels)
            if len(longer) < cancels:
                await play_on(longer, played.points)

    await play_on((), awaits)
    return count


async def sampled_schedules(
    script: Script,
    task: Task,
    cancels: int,
    number: int,
    chance: random.Random,
    clock: FakeClock,
    real: SQLitePersistence | None = None,
) -> Count:
    """Play a script with so many schedules of up to so many cancels, drawn by `chance`."""
    ends, awaits = await ends_of(script, task, clock, real)
    count = Count(awaits=awaits)
    for _ in range(number):
        schedule = sorted(chance.sample(range(awaits), min(chance.randint(1, cancels), awaits)))
        played = await Play(script, task, schedule, clock, real).play(ends)
        count += Count(1, 0, played.cancels)
    return count
