"""What `prove` sees of a world: what counts of it, which calls of it are points, and what time it is in it."""

import asyncio
import copy
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple
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


def test_a_step_that_goes_on_where_it_stopped_asks_for_what_is_left() -> None:
    class Pier:
        def __init__(self) -> None:
            self.shipped: dict[str, str] = {}
            self.notes: list[str] = []

        def ship(self, piece: str, key: str) -> None:
            self.shipped.setdefault(piece, key)

        def note(self, text: str) -> None:
            pass

    async def ship(run: Any, pier: Pier) -> None:
        key = run.step_context.idempotency_key
        for piece in "ab":
            if piece not in pier.shipped:
                pier.note(f"attempt {run.step_context.attempt} of {key}")
                pier.ship(piece, f"{key}:{piece}")

    assert prove(of(Pier, ship), budget=200, without=["disconnect"]).schedules > 100

    async def ship_at_random(run: Any, pier: Pier) -> None:
        pier.notes.append("one more")
        pier.ship(str(len(pier.notes)), f"{run.step_context.idempotency_key}:1")

    error = found(of(Pier, ship_at_random), only="clean crash@4")
    assert error.advice.startswith("A step that runs again has to ask for the same")


def test_what_says_which_attempt_it_is_may_differ() -> None:
    async def count(run: Any, box: Box) -> dict[str, Any]:
        await put(run, box)
        return {"attempt": run.step_context.attempt}

    assert prove(of(Box, count), budget=100).schedules > 50


def test_data_that_differs_now_and_then_is_left_out_as_soon_as_it_does() -> None:
    numbers = iter(range(10**9))

    async def measure(run: Any, box: Box) -> dict[str, Any]:
        await put(run, box)
        return {"milliseconds": next(numbers) // 50}

    async def go_on(run: Any, box: Box) -> None:
        box.put("another", run.step_context.idempotency_key)

    report = prove(of(Box, measure, go_on), budget=100, without=["fail", "cancel", "disconnect"])
    assert "the data of measure: it is another in each run" in report.not_covered


def test_a_step_may_call_another_one() -> None:
    class Composed(Workflow):
        def __init__(self, box: Box, workflow_id: str, persistence: Persistence) -> None:
            super().__init__(workflow_id, ["both"], persistence=persistence)
            self.box = box

        async def execute_step(self, step: str) -> WorkflowResult:
            if step == "both":
                await self.execute_step("part")
            else:
                self.box.put("a thing", self.step_context.idempotency_key)
            return WorkflowResult(True, step)

    assert prove(Scenario(world=Box, workflow=Composed), budget=100).schedules > 50


@pytest.mark.parametrize("make", [asyncio.Lock, asyncio.Queue, threading.Lock, asyncio.Event, lambda: float("nan")])
def test_a_world_may_hold_what_has_no_value_of_its_own(make: Callable[[], Any]) -> None:
    class Holding(Box):
        def __init__(self) -> None:
            super().__init__()
            self.held = make()

    assert prove(of(Holding, put), budget=50).schedules > 50


def test_numbers_are_compared_as_numbers_and_what_is_cached_is_no_state() -> None:
    class Account(Box):
        def __init__(self) -> None:
            super().__init__()
            self.balance = Decimal(100)

        @cached_property
        def currency(self) -> str:
            return "EUR"

        def add(self, amount: str, key: str) -> None:
            if key not in self._keys:
                self._keys.add(key)
                self.balance += Decimal(amount)

    async def pay(run: Any, account: Account) -> None:
        assert account.currency
        account.add("-1.5", run.step_context.idempotency_key)

    async def end(run: Any, account: Account) -> None:
        pass

    async def undo(run: Any, account: Account) -> None:
        if run.step_context.step == "pay" and account.balance != 100:
            account.add("1.5", run.step_context.idempotency_key)

    assert prove(of(Account, pay, end, undo=undo), budget=200).schedules > 200


def test_of_a_large_world_the_difference_is_shown() -> None:
    class Ledger:
        def __init__(self) -> None:
            self.rows = {f"order-{number}": {"state": "open"} for number in range(30)}
            self.log = ["a line of some length"] * 30

        def close(self) -> None:
            self.rows["order-7"] = {"state": "closed"}
            self.rows["order-31"] = {"state": "new"}
            del self.rows["order-29"]
            self.log.append("closed")

    async def close(run: Any, ledger: Ledger) -> None:
        ledger.close()

    async def end(run: Any, ledger: Ledger) -> None:
        pass

    assert found(of(Ledger, close, end)).details == (
        "the world shows  rows['order-7']['state'] is 'closed'",
        "and should show  rows['order-7']['state'] is 'open'",
        "the world shows  rows['order-29'] is not there",
        "and should show  rows['order-29'] is {'state': 'open'}",
        "the world shows  rows['order-31'] is {'state': 'new'}",
        "and should show  rows['order-31'] is not there",
        "the world shows  log[30] is 'closed'",
        "and should show  log[30] is not there",
    )


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, GeneratorExit])
def test_a_step_that_ends_its_process_is_told(error: type[BaseException]) -> None:
    async def leave(run: Any, box: Box) -> None:
        await put(run, box)
        raise error

    told = found(of(Box, leave))
    assert (told.schedule, told.details[0][:26]) == ("clean", f"execute() raised {error.__name__}: "[:26])


def test_what_observe_returns_must_show_something() -> None:
    with pytest.raises(WorkflowConfigurationError, match="observe returned None, which shows nothing"):
        prove(of(Box, put, observe=lambda box: None))
    with pytest.raises(WorkflowConfigurationError, match="observe returned a generator"):
        prove(of(Box, put, observe=lambda box: (thing for thing in box.things)))
    with pytest.raises(WorkflowConfigurationError, match="whatever the steps do, observe returns 5"):
        prove(of(Box, put, observe=lambda box: 5))


def test_one_world_for_all_is_told_of_as_that() -> None:
    box = Box()
    with pytest.raises(WorkflowConfigurationError, match="returned the same object twice: let it make a new one"):
        prove(of(lambda: box, put, observe=lambda box: len(box._keys)))


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
        ({"approval": "yes"}, "approval is 'yes'. Give the data that it brings"),
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
    with pytest.raises(WorkflowConfigurationError, match="Scenario.observe raised IndexError: list index out of range"):
        prove(of(Box, put, observe=lambda box: box.things[0]))


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


class Door(Box):
    """A context that does not open, or does not close."""

    fault = ""

    def __enter__(self) -> "Door":
        if self.fault == "enter":
            raise OSError("no database")
        return self

    def __exit__(self, *error: object) -> None:
        if self.fault == "leave":
            raise OSError("no database")


@pytest.mark.parametrize(("fault", "says"), [("enter", "entered"), ("leave", "left")])
def test_a_context_that_cannot_be_entered_or_left_is_named(fault: str, says: str) -> None:
    kind = type("Door", (Door,), {"fault": fault})
    with pytest.raises(WorkflowConfigurationError, match=f"when what it returned was {says}, raised OSError: no datab"):
        prove(of(kind, put))


def test_a_world_may_answer_to_every_name() -> None:
    class Proxy:
        def __init__(self) -> None:
            self.box = Box()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.box, name)

    assert prove(of(Proxy, put), budget=9).schedules > 9


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


class Rows(dict[str, str]):
    def put(self, key: str) -> None:
        self.setdefault(key, "a thing")


class Columns(NamedTuple):
    rows: dict[str, str]

    def put(self, key: str) -> None:
        self.rows.setdefault(key, "a thing")


@pytest.mark.parametrize("world", [Rows, lambda: Columns({})])
def test_containers_of_ones_own_are_watched_too(world: Callable[[], Any]) -> None:
    async def put(run: Any, rows: Any) -> None:
        rows.put(run.step_context.idempotency_key)

    assert prove(of(world, put), budget=20, without=["cancel", "fail", "pause"]).points == 8


def test_a_call_in_a_thread_is_a_call_too() -> None:
    async def put_in_a_thread(run: Any, box: Box) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, box.put, "a thing", run.step_context.idempotency_key)

    assert prove(of(Box, put_in_a_thread), budget=20, without=["cancel", "fail", "pause"]).points == 8


class Request:
    """What some clients return: to be awaited, or entered."""

    def __init__(self, box: Box, key: str) -> None:
        self.box, self.key = box, key

    def __await__(self) -> Generator[Any, None, None]:
        return self.send().__await__()

    async def send(self) -> None:
        await asyncio.sleep(1)
        self.box.put("a thing", self.key)

    async def __aenter__(self) -> None:
        await self

    async def __aexit__(self, *error: object) -> None:
        pass


class Client(Box):
    def post(self, key: str) -> Request:
        return Request(self, key)

    def start(self, key: str) -> "asyncio.Task[None]":
        return asyncio.get_running_loop().create_task(Request(self, key).send())


def test_what_a_call_returns_is_handed_on_as_it_is() -> None:
    async def post(run: Any, client: Client) -> None:
        key = run.step_context.idempotency_key
        await client.post(f"{key}-1")
        async with client.post(f"{key}-2"):
            pass
        await asyncio.wait({client.start(f"{key}-3")})

    report = prove(of(Client, post), budget=100, without=["cancel", "fail", "pause", "disconnect"])
    assert report.points == 6 + 2 * 5, "two more, where a request is awaited by the step"


def test_a_function_that_outlives_a_world_is_what_it_was() -> None:
    shared = SimpleNamespace()

    class Hooked(Box):
        def __init__(self) -> None:
            super().__init__()
            self.hook = shared.hook

    class Hook:
        def __init__(self) -> None:
            self.call = lambda: None

    shared.hook = Hook()
    before = shared.hook.call
    prove(of(Hooked, put), budget=9)
    assert shared.hook.call is before


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


class Two:
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
    async def put_both(run: Any, two: Two) -> None:
        await asyncio.gather(two.put("short", 1), two.put("long", 5))

    without = ["cancel", "fail", "pause", "disconnect"]
    assert prove(of(Two, put_both), budget=200, without=without).points == 10
    # A process that is lost between them does not do the other one later.
    dead: list[set[str]] = []

    async def put_slowly(run: Any, two: Two) -> None:
        if run.step_context.attempt == 1:
            await asyncio.gather(two.put("short", 1), two.put("long", 5))
        else:
            await asyncio.sleep(60)
            dead.append(set(two.things))
            two.things |= {"short", "long"}

    prove(of(Two, put_slowly), only="clean crash@5", without=without)
    assert dead == [{"short"}]


def test_a_process_may_die_after_a_call_that_raised() -> None:
    async def ask(run: Any, two: Two) -> None:
        try:
            await two.refuse()
        except LookupError:
            await two.put("a thing", 1)

    without = ["cancel", "fail", "pause", "disconnect"]
    assert prove(of(Two, ask), budget=200, without=without).points == 10


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
    assert error.details[0].startswith("it waits for ever, or longer than a day, or goes round and round, at ")
    assert error.details[0].endswith("in wait")

    async def spin(run: Any, box: Box) -> None:
        while time.time() < 1e12:  # noqa: ASYNC110 - people do
            await asyncio.sleep(0)

    assert found(of(Box, spin)).details[0].endswith("in spin")


class Slow(Box):
    async def put_slowly(self, thing: str, key: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.put(thing, key)


@pytest.mark.parametrize("seconds", [0.5, 1, 2])
@pytest.mark.parametrize("limit", [None, 5])
def test_what_is_due_at_the_same_instant_comes_in_the_same_order(seconds: float, limit: float | None) -> None:
    async def first(run: Any, slow: Slow) -> None:
        async with asyncio.timeout(limit):
            await slow.put_slowly(run.step_context.step, run.step_context.idempotency_key, seconds)

    async def second(run: Any, slow: Slow) -> None:
        await first(run, slow)

    async def undo(run: Any, slow: Slow) -> None:
        if run.step_context.step in slow.things:
            slow.take(run.step_context.step, run.step_context.idempotency_key)

    assert prove(of(Slow, first, second, undo=undo), budget=700).schedules > 700


def test_a_task_that_a_step_leaves_behind_ends_with_its_schedule(caplog: pytest.LogCaptureFixture) -> None:
    async def leave(run: Any, box: Box) -> None:
        key = run.step_context.idempotency_key

        async def later() -> None:
            await asyncio.sleep(0.5)
            box.put("later", f"{key}-later")

        run.task = asyncio.create_task(later())
        box.put("at once", f"{key}-now")
        await asyncio.sleep(1)

    async def undo(run: Any, box: Box) -> None:
        box.things.clear()

    prove(of(Box, leave, put, undo=undo), budget=300, without=["disconnect", "freeze"])
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []
