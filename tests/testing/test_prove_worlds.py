"""What `prove` sees of a world: what counts of it, which calls of it are points, and what time it is in it."""

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from dotmac_workflows import Persistence, Workflow, WorkflowConfigurationError, WorkflowResult
from dotmac_workflows.testing import ProofError, Report, Scenario, prove

Step = Callable[[Any, Any], Awaitable[dict[str, Any] | None]]


def of(world: Callable[[], Any], *steps: Step, undo: Step | None = None, **options: Any) -> Scenario[Any]:
    """Return a scenario whose steps are functions of the workflow and its world, and return data or None."""

    class Run(Workflow):
        def __init__(self, world: Any, workflow_id: str, persistence: Persistence) -> None:
            super().__init__(workflow_id, [step.__name__ for step in steps], persistence=persistence)
            self.world = world

        async def execute_step(self, step: str) -> WorkflowResult:
            function = next(function for function in steps if function.__name__ == step)
            return WorkflowResult(True, step, await function(self, self.world) or {})

        async def rollback_step(self, step: str) -> WorkflowResult | None:
            if undo is None:
                return None
            await undo(self, self.world)
            return WorkflowResult(True, step)

    return Scenario(world=world, workflow=Run, **options)


def found(scenario: Scenario[Any], **options: Any) -> ProofError:
    with pytest.raises(ProofError) as caught:
        prove(scenario, **options)
    return caught.value


def round_of(report: Report, name: str) -> int:
    return next(part.run for part in report.rounds if part.name == name)


class Box:
    """Takes a thing once a key."""

    def __init__(self) -> None:
        self.things: list[str] = []
        self._keys: set[str] = set()

    def put(self, thing: str, key: str) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self.things.append(thing)

    def take(self, thing: str, key: str) -> None:
        if key not in self._keys:
            self._keys.add(key)
            self.things.remove(thing)


async def put(run: Any, box: Box) -> None:
    box.put("a thing", run.step_context.idempotency_key)


# What counts.


class Hidden:
    """Everything that a step changes is out of sight."""

    shared: tuple[str, ...] = ()
    full = property(lambda self: bool(self._things))

    def __init__(self) -> None:
        self._things: list[str] = []

    def put(self) -> None:
        self._things.append("a thing")


async def hide(run: Any, hidden: Hidden) -> None:
    hidden.put()


def test_a_world_that_shows_nothing_of_what_is_done_to_it_is_refused() -> None:
    with pytest.raises(WorkflowConfigurationError, match=r"would notice nothing.* Give Scenario\(\.\.\., observe="):
        prove(of(Hidden, hide))
    assert found(of(Hidden, hide, observe=lambda hidden: len(hidden._things))).schedule == "clean crash@4"
    assert prove(of(Hidden, hide, check=lambda hidden, run: None), budget=9).schedules > 9


async def think(run: Any, world: object) -> dict[str, Any]:
    return {"thought": len(run.results)}


def test_a_workflow_that_changes_nothing_outside_says_so_by_a_world_of_none() -> None:
    report = prove(of(lambda: None, think, think), budget=20)
    assert "the world: there is none" in report.not_covered
    with pytest.raises(WorkflowConfigurationError, match="would notice nothing"):
        prove(of(object, think, think))


def test_what_results_bring_is_compared_too() -> None:
    async def count(run: Any, box: Box) -> dict[str, Any]:
        box.put(run.step_context.step, run.step_context.idempotency_key)
        run.seen = [*getattr(run, "seen", []), run.step_context.step]
        return {"of": {"steps": len(run.seen)}}

    async def go_on(run: Any, box: Box) -> dict[str, Any]:
        return await count(run, box)

    error = found(of(Box, count, go_on), without=["cancel", "fail", "disconnect"])
    assert error.details == ("the data of 'go_on' shows  of['steps'] is 1", "and should show  of['steps'] is 2")
    assert (error.schedule, error.advice[:32]) == ("pause:count", "Another process went on with it,")


def test_data_that_is_random_is_left_out_and_named() -> None:
    async def draw(run: Any, box: Box) -> dict[str, Any]:
        box.put("a thing", run.step_context.idempotency_key)
        return {"number": str(uuid4())}

    report = prove(of(Box, draw), budget=30)
    assert "the data of draw: it is another in each run" in report.not_covered


def test_what_only_says_that_it_ran_later_is_no_fault() -> None:
    class Diary:
        def __init__(self) -> None:
            self.times: dict[str, datetime] = {}

        def note(self, key: str) -> None:
            self.times.setdefault(key, datetime.now(UTC))

    async def note(run: Any, diary: Diary) -> dict[str, Any]:
        diary.note(run.step_context.idempotency_key)
        return {"at": datetime.now(UTC).isoformat()}

    async def note_again(run: Any, diary: Diary) -> dict[str, Any]:
        return await note(run, diary)

    report = prove(of(Diary, note, note_again), budget=2_000, without=["cancel", "fail", "disconnect"])
    assert round_of(report, "a frozen process") > 50
    assert not any(said.startswith("the data") for said in report.not_covered)


def test_a_step_that_looks_whether_it_is_done_may_ask_for_something_else() -> None:
    class Bank:
        def __init__(self) -> None:
            self.paid: dict[str, int] = {}

        def status(self, key: str) -> str:
            return "paid"

        def pay(self, amount: int, key: str) -> None:
            self.paid[key] = amount

    async def pay(run: Any, bank: Bank) -> None:
        key = run.step_context.idempotency_key
        if key in bank.paid:
            bank.status(key)
        else:
            bank.pay(50, key)

    assert prove(of(Bank, pay), budget=100).schedules > 50


# What a check says, and what cannot be made.


def test_a_check_that_returns_no_is_one_that_fails() -> None:
    error = found(of(Box, put, check=lambda box, run: not box.things))
    assert (error.schedule, error.details) == ("clean", ("the check returned False",))
    assert prove(of(Box, put, check=lambda box, run: True), budget=9).schedules > 9


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"world": None}, "world is None. Give a function"),
        ({"workflow": "Order"}, "workflow is 'Order'. Give a function"),
        ({"observe": 3}, "observe is 3"),
        ({"check": True}, "check is True"),
        ({"ends": "completed"}, "ends is 'completed'. Give a WorkflowStatus"),
    ],
)
def test_a_scenario_of_something_else_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match=says):
        Scenario(**{"world": Box, "workflow": lambda box, id, store: None, **options})


def raises(*given: object) -> Any:
    raise LookupError("not here")


async def coroutine() -> Box:
    return Box()


@pytest.mark.parametrize(
    ("world", "says"),
    [(raises, "Scenario.world raised LookupError: not here"), (coroutine, "returned something to be awaited")],
)
def test_a_world_that_cannot_be_made_is_named(world: Any, says: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match=says):
        prove(of(world, put))


def test_a_workflow_that_cannot_be_made_is_told_with_its_schedule() -> None:
    def make(box: Box, workflow_id: str, persistence: Persistence) -> Any:
        return of(Box, put).workflow(box, workflow_id, persistence) if not box.things else raises()

    error = found(Scenario(world=Box, workflow=make))
    assert (error.schedule, error.details) == ("clean crash@4", ("Scenario.workflow raised LookupError: not here",))
    error = found(of(Box, put, observe=lambda box: box.things[0]))
    assert (error.schedule, error.details[0]) == (
        "clean",
        "Scenario.observe raised IndexError: list index out of range",
    )


def test_a_world_may_be_an_async_context() -> None:
    left: list[Box] = []

    @asynccontextmanager
    async def world() -> AsyncIterator[Box]:
        box = Box()
        await asyncio.sleep(1)
        yield box
        await asyncio.sleep(1)
        left.append(box)

    assert prove(of(world, put), budget=9).schedules + 1 == len(left)


# The calls.


@dataclass(slots=True)
class Slotted:
    """Has no room for anything but what it declares."""

    things: list[str] = field(default_factory=list)

    def put(self, thing: str) -> None:
        self.things.append(thing)


class Pair:
    """Two of a kind."""

    def __init__(self) -> None:
        self.left, self.right = Slotted(), Slotted()


async def put_twice(run: Any, pair: Pair) -> None:
    if not pair.left.things:
        pair.left.put("a thing")
    if not pair.right.things:
        pair.right.put("a thing")


def test_objects_with_slots_are_watched_and_stay_what_they_are() -> None:
    plain = Slotted.put

    async def put_and_look(run: Any, pair: Pair) -> None:
        await put_twice(run, pair)
        assert pair.left == Slotted(["a thing"])
        copied = copy.deepcopy(pair)
        copied.left.put("another")
        assert pair.left.things == ["a thing"]

    without = ["cancel", "fail", "pause", "disconnect"]
    assert prove(of(Pair, put_twice), budget=200, without=without).points == 10
    assert prove(of(Pair, put_and_look), budget=200, without=without).points == 12
    assert Slotted.put is plain


def test_what_is_changed_without_a_call_is_said_not_to_be_covered() -> None:
    async def change(run: Any, world: dict[str, int]) -> None:
        world["things"] = 1

    report = prove(of(dict, change), budget=20)
    assert "calls: no step was seen to call its world, so nothing strikes between two effects of one" in (
        report.not_covered
    )
    assert not any(said.startswith("calls") for said in prove(of(Box, put), budget=20).not_covered)


class Sealed(type):
    def __setattr__(cls, name: str, value: object) -> None:
        raise TypeError("sealed")


def test_a_class_that_nobody_may_change_is_named() -> None:
    class Kept(Box, metaclass=Sealed):
        pass

    assert "calls of Kept: the class cannot be watched" in prove(of(Kept, put), budget=20).not_covered


def test_a_function_that_a_world_holds_is_a_call_too() -> None:
    class Holder:
        def __init__(self) -> None:
            self.things: dict[str, str] = {}
            self.put: Callable[[str], str] = lambda key: self.things.setdefault(key, "a thing")

    async def put(run: Any, holder: Holder) -> None:
        holder.put(run.step_context.idempotency_key)

    shared = Holder()
    assert prove(of(Holder, put), budget=20, without=["cancel", "fail", "pause"]).points == 8

    def emptied() -> Holder:
        shared.things.clear()
        return shared

    assert prove(of(emptied, put), budget=20, without=["cancel", "fail", "pause"]).points == 8, (
        "however often it is looked at"
    )


class Slow:
    """Two things that take their time."""

    def __init__(self) -> None:
        self.things: set[str] = set()

    async def put(self, thing: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.things.add(thing)

    async def refuse(self) -> None:
        await asyncio.sleep(1)
        raise LookupError("not here")


def test_two_calls_at_the_same_time_are_two_effects() -> None:
    async def put_both(run: Any, slow: Slow) -> None:
        await asyncio.gather(slow.put("short", 1), slow.put("long", 5))

    without = ["cancel", "fail", "pause", "disconnect"]
    assert prove(of(Slow, put_both), budget=200, without=without).points == 10
    # A process that is lost between them does not do the other one later.
    dead: list[set[str]] = []

    async def put_slowly(run: Any, slow: Slow) -> None:
        if run.step_context.attempt == 1:
            await asyncio.gather(slow.put("short", 1), slow.put("long", 5))
        else:
            await asyncio.sleep(60)
            dead.append(set(slow.things))
            slow.things |= {"short", "long"}

    prove(of(Slow, put_slowly), only="clean crash@5", without=without)
    assert dead == [{"short"}]


def test_a_process_may_die_after_a_call_that_raised() -> None:
    async def ask(run: Any, slow: Slow) -> None:
        try:
            await slow.refuse()
        except LookupError:
            await slow.put("a thing", 1)

    without = ["cancel", "fail", "pause", "disconnect"]
    assert prove(of(Slow, ask), budget=200, without=without).points == 10


# Calls that fail.


def test_a_step_with_two_effects_is_caught_between_them() -> None:
    async def put_two(run: Any, box: Box) -> None:
        box.put("one", f"{run.step_context.idempotency_key}-1")
        box.put("two", f"{run.step_context.idempotency_key}-2")

    error = found(of(Box, put_two))
    assert error.schedule == "clean disconnect@5"
    assert error.headline == "A connection fails in step 'put_two', before Box.put()."
    assert error.details == ("the world shows  things is ['one']", "and should show  things is []")
    assert error.advice.startswith("A step that fails is not rolled back")

    async def put_both_or_none(run: Any, box: Box) -> None:
        try:
            await put_two(run, box)
        except ConnectionError:
            box.take("one", f"{run.step_context.idempotency_key}-3") if box.things else None
            raise

    report = prove(of(Box, put_both_or_none), budget=200)
    assert round_of(report, "a call that fails") == 2


def test_a_rollback_with_two_effects_is_retried_in_between() -> None:
    async def put_two(run: Any, box: Box) -> None:
        key = run.step_context.idempotency_key
        try:
            box.put("one", f"{key}-1")
            box.put("two", f"{key}-2")
        except ConnectionError:
            box.take("one", f"{key}-3") if box.things else None
            raise

    async def end(run: Any, box: Box) -> None:
        pass

    async def take_both(run: Any, box: Box) -> None:
        if run.step_context.step == "put_two":
            key = run.step_context.idempotency_key
            for thing in ("one", "two"):
                box.take(thing, f"{key}-{thing}")

    async def take_what_is_left(run: Any, box: Box) -> None:
        if run.step_context.step == "put_two":
            key = run.step_context.idempotency_key
            for thing in list(box.things):
                box.take(thing, f"{key}-{thing}")

    error = found(of(Box, put_two, end, undo=take_both))
    assert error.schedule.startswith("fail:end disconnect@")
    assert error.advice.startswith("The rollback was retried: it had another visit and idempotency key")
    prove(of(Box, put_two, end, undo=take_what_is_left), only=error.schedule)


# The time.


def test_the_clock_on_the_wall_goes_on_while_a_step_waits_and_begins_alike() -> None:
    class Diary:
        def __init__(self) -> None:
            self.began = datetime.now(UTC)
            self.slept: list[float] = []

        def note(self, seconds: float) -> None:
            self.slept = [seconds]

    async def sleep(run: Any, diary: Diary) -> None:
        before = time.time()
        await asyncio.sleep(3600)
        diary.note(time.time() - before)

    def check(diary: Diary, run: Workflow) -> None:
        assert diary.slept in ([], [3600.0])

    real = time.time()
    assert prove(of(Diary, sleep, check=check), budget=10).schedules > 10
    assert abs(time.time() - real) < 3600, "and is the real one again"


def test_a_step_that_waits_for_ever_is_told_with_its_place() -> None:
    async def wait(run: Any, box: Box) -> None:
        await asyncio.get_running_loop().create_future()

    error = found(of(Box, wait))
    assert error.schedule == "clean"
    assert error.details[0].startswith("what began a day ago still waits, at ")
    assert error.details[0].endswith("in wait")
