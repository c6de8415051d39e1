"""`FakeClock.run`: waits take the time that they say, by the clock, and none in truth.

That nothing was waited for in truth is counted, where an event loop waits: in its selector.
"""

import asyncio
import contextlib
import gc
import re
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows import (
    InMemoryPersistence,
    LeaseLostError,
    PersistenceError,
    Runtime,
    SQLitePersistence,
    Workflow,
    WorkflowConfigurationError,
    WorkflowExecutionError,
    WorkflowResult,
    WorkflowStatus,
)
from dotmac_workflows.persistence import Lease
from dotmac_workflows.testing import FakeClock
from sqlite_stores import append
from workflows import ABC, Held, Order, Store, asks, raises, seen

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, DAY = 3600, 86_400


class Waits:
    """How long an event loop let its selector wait, each time that it did: real seconds, None for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float | None] = []
        self.begun: threading.Event = threading.Event()
        """Set as soon as it waits in truth."""
        select = selectors.DefaultSelector.select

        def counted(selector: Any, timeout: float | None = None) -> Any:
            if timeout != 0:
                self.seconds.append(timeout)
                self.begun.set()
            return select(selector, timeout)

        monkeypatch.setattr(selectors.DefaultSelector, "select", counted)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


def on(clock: FakeClock, order: Order, **times: Any) -> Order:
    order.runtime = Runtime(clock=clock, **times)
    return order


async def loaded(clock: FakeClock, store: Any, **init: Any) -> Order:
    return on(clock, await Order.load("order-1", store, **init))


# The loop.


def test_sleeps_timeouts_and_timers_take_the_time_that_they_say(clock: FakeClock, waits: Waits) -> None:
    happened: list[tuple[str, float]] = []

    def note(what: str) -> None:
        happened.append((what, clock.monotonic()))

    async def main() -> str:
        asyncio.get_running_loop().call_later(90, note, "called later")
        await asyncio.sleep(60)
        note("slept")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7 * DAY):
                await asyncio.Event().wait()
        note("timed out")
        return "done"

    assert clock.run(main()) == "done"
    assert happened == [("slept", 60), ("called later", 90), ("timed out", 60 + 7 * DAY)]
    assert clock.time_ns() == int(START.timestamp() + 60 + 7 * DAY) * 10**9
    assert waits.seconds == []


def test_the_clock_stops_at_whatever_is_due_next_and_goes_on_with_the_next_run(clock: FakeClock, waits: Waits) -> None:
    woken: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async def main() -> None:
        await asyncio.gather(*(sleeper(seconds) for seconds in (0.25, HOUR, 0.5, 30 * DAY, 0)))

    clock.run(main())
    assert woken == [(0, 0), (0.25, 0.25), (0.5, 0.5), (HOUR, HOUR), (30 * DAY, 30 * DAY)]
    clock.advance(1)
    clock.run(sleeper(2))
    assert woken[-1] == (2, 30 * DAY + 3)
    assert waits.seconds == []


@pytest.mark.parametrize("years", [1, 20])
def test_timers_that_are_due_to_the_instant_run_after_years(clock: FakeClock, waits: Waits, years: int) -> None:
    """Where a float of seconds no longer holds the nanosecond by which an event loop looks ahead."""

    async def main() -> float:
        await asyncio.sleep(years * 365 * DAY)
        called = asyncio.Event()
        asyncio.get_running_loop().call_later(0, called.set)
        await called.wait()
        await asyncio.sleep(0.5)
        return clock.monotonic()

    assert clock.run(main()) == years * 365 * DAY + 0.5
    assert waits.seconds == []


def test_advancing_inside_makes_timers_due(clock: FakeClock, waits: Waits) -> None:
    async def main() -> list[float]:
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append(clock.monotonic())

        tasks = [asyncio.create_task(sleeper(seconds)) for seconds in (10, 20, 40)]
        await asyncio.sleep(0)
        clock.advance(30)
        await asyncio.gather(*tasks)
        return woken

    assert clock.run(main()) == [30, 30, 40]
    assert waits.seconds == []


def test_a_function_in_a_thread_is_waited_for_while_the_clock_stands(clock: FakeClock, waits: Waits) -> None:
    async def main() -> list[float]:
        asyncio.get_running_loop().call_later(1, lambda: None)
        at = []
        for _ in range(2):
            waits.begun.clear()
            assert await asyncio.to_thread(waits.begun.wait, 10), "nobody waited for the thread"
            at.append(clock.monotonic())
        with ThreadPoolExecutor(1) as pool:
            waits.begun.clear()
            assert await asyncio.get_running_loop().run_in_executor(pool, waits.begun.wait, 10)
            at.append(clock.monotonic())
            await asyncio.sleep(HOUR)  # beside the idle threads of two pools
        return at

    assert clock.run(main(), patience=0.001) == [0, 0, 0]
    assert clock.monotonic() == HOUR
    assert set(waits.seconds) == {None}


def test_functions_run_in_the_executor_that_was_set(clock: FakeClock) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="mine"))
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert clock.run(main()) == "mine_0"


def test_a_function_in_a_process_is_waited_for(clock: FakeClock) -> None:
    async def main() -> int:
        asyncio.get_running_loop().call_later(1, lambda: None)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return await asyncio.get_running_loop().run_in_executor(pool, pow, 2, 10)

    assert (clock.run(main(), patience=0), clock.monotonic()) == (1024, 0)


def test_a_thread_that_nobody_waits_for_any_more_ends_with_the_run(clock: FakeClock, waits: Waits) -> None:
    """Neither its being left nor the wait for it at the end lets time pass."""
    done: list[bool] = []

    def work() -> None:
        waits.begun.clear()
        done.append(waits.begun.wait(10))

    async def main() -> None:
        working = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    clock.run(main(), patience=0.001)
    assert (done, clock.monotonic(), set(waits.seconds)) == ([True], 0, {None})


def answer_from_a_thread(waits: Waits, until: Callable[[], object]) -> "tuple[asyncio.Event, threading.Thread]":
    """Return an event, and the thread, not one of a pool, that sets it once something has come."""
    loop, answered = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        until()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(answered.set)

    thread = threading.Thread(target=work)
    thread.start()
    return answered, thread


def test_a_thread_of_ones_own_is_given_patience(clock: FakeClock, waits: Waits) -> None:
    async def main() -> float:
        asyncio.get_running_loop().call_later(1, lambda: None)
        answered, thread = answer_from_a_thread(waits, lambda: waits.begun.wait(10))
        await answered.wait()
        await asyncio.to_thread(thread.join)
        return clock.monotonic()

    assert clock.run(main(), patience=99) == 0
    assert waits.seconds[0] == 99


def test_a_thread_of_ones_own_does_not_hold_up_time_for_ever(clock: FakeClock, waits: Waits) -> None:
    async def main() -> None:
        go = threading.Event()
        answered, thread = answer_from_a_thread(waits, lambda: go.wait(10))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answered.wait(), 60)
        go.set()
        await asyncio.to_thread(thread.join)

    clock.run(main(), patience=0.001)
    assert (clock.monotonic(), waits.seconds[0]) == (60, 0.001)


def test_a_socket_that_is_watched_is_given_patience(clock: FakeClock, waits: Waits) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        loop.call_later(1, lambda: None)
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            receiving = asyncio.create_task(loop.sock_recv(here, 10))
            await asyncio.sleep(1)
            there.send(b"answer")
            return await receiving

    assert (clock.run(main(), patience=0.001), clock.monotonic()) == (b"answer", 1)
    assert waits.seconds == [0.001, 0.001]


def test_what_can_never_go_on_is_an_error_that_says_where(clock: FakeClock, waits: Waits) -> None:
    unwound: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            unwound.append("forgotten")

    async def main() -> None:
        task = asyncio.create_task(forgotten(), name="the other one")
        await asyncio.sleep(1)
        try:
            await task
        finally:
            unwound.append("main")

    with pytest.raises(RuntimeError) as caught:
        clock.run(main())
    said = re.sub(
        rf"Task-\d+|{re.escape(__file__)}:\d+", lambda found: found[0].partition("-")[0][:4], str(caught.value)
    )
    here = __file__[:4]
    assert said == (
        "Everything waits, and nothing is due that would end it: "
        f"Task at {here} in main; the other one at {here} in forgotten."
    )
    assert (sorted(unwound), clock.monotonic(), waits.seconds) == (["forgotten", "main"], 1, [])


def test_what_can_never_go_on_is_an_error_beside_a_thread_too(clock: FakeClock, waits: Waits) -> None:
    go = threading.Event()
    threads = []

    async def main() -> None:
        answered, thread = answer_from_a_thread(waits, lambda: go.wait(10))
        threads.append(thread)
        await answered.wait()

    with pytest.raises(RuntimeError, match=r"did not answer within the patience of 0.001 s\.$"):
        clock.run(main(), patience=0.001)
    go.set()
    threads[0].join()
    assert waits.seconds == [0.001]


def test_what_is_left_is_cancelled_and_closed_as_asyncio_run_does(clock: FakeClock, waits: Waits) -> None:
    ended: list[str] = []

    async def left_over() -> None:
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            await asyncio.sleep(1)  # time passes while it tidies up, too
            ended.append("task")

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append("generator")

    async def main() -> asyncio.AbstractEventLoop:
        kept.append(asyncio.create_task(left_over()))
        kept.append(numbers := generator())
        await anext(numbers)
        await asyncio.sleep(1)
        return asyncio.get_running_loop()

    kept: list[Any] = []
    loop = clock.run(main())
    assert loop.is_closed()
    assert (ended, clock.monotonic(), waits.seconds) == (["task", "generator"], 2, [])


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
def test_what_main_raises_is_raised(clock: FakeClock, error: BaseException) -> None:
    async def main() -> None:
        raise error

    with pytest.raises(type(error)):
        clock.run(main())


# What is refused. Warnings are errors, so that a coroutine that is left unawaited would fail a test.


async def test_it_cannot_run_inside_of_a_loop_that_runs(clock: FakeClock) -> None:
    with pytest.raises(RuntimeError, match="running event loop"):
        clock.run(asyncio.sleep(1))
    gc.collect()


AWARE = r"Give an aware datetime, such as datetime\(2026, 1, 1, tzinfo=UTC\)\.$"


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (datetime(2026, 1, 1), r"FakeClock\(start=datetime.datetime\(2026, 1, 1, 0, 0\)\) has no time zone\. "),
        (date(2026, 1, 1), r"FakeClock\(start=datetime.date\(2026, 1, 1\)\) is no datetime\. "),
        ("2026-01-01", r"FakeClock\(start='2026-01-01'\) is no datetime\. "),
        (1_767_225_600.0, r"FakeClock\(start=1767225600.0\) is no datetime\. "),
        (None, r"FakeClock\(start=None\) is no datetime\. "),
    ],
)
def test_it_begins_at_an_aware_instant_only(start: Any, what: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match=f"^{what}{AWARE}"):
        FakeClock(start)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "-5"),
        (-1e-9, "-1e-09"),
        ("x", "'x'"),
        ("x" * 100, f"'{'x' * 76}..."),
        (None, "None"),
        (True, "True"),
        (1j, "1j"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (1e300, "1e+300"),
        (10**400, "an int of 1,329 bits"),
    ],
)
def test_it_advances_by_a_number_of_seconds_only(clock: FakeClock, seconds: Any, shown: str) -> None:
    clock.advance(1)
    with pytest.raises(WorkflowConfigurationError) as caught:
        clock.advance(seconds)
    assert str(caught.value) == (
        f"FakeClock.advance() was given {shown}. Give a number of seconds, from 0 to 100,000,000,000."
    )
    assert (clock.monotonic(), clock.time_ns()) == (1, int(START.timestamp() + 1) * 10**9)


def test_a_timedelta_is_refused_with_what_to_give_instead(clock: FakeClock) -> None:
    week: Any = timedelta(days=7)
    with pytest.raises(WorkflowConfigurationError, match=r"given datetime.timedelta\(days=7\)\. Give its \.total_s"):
        clock.advance(week)
    clock.advance(week.total_seconds())
    assert clock.monotonic() == 7 * DAY


@pytest.mark.parametrize("patience", ["x", -1, float("nan"), float("inf"), None, True, 86_401])
def test_patience_is_a_number_of_seconds(clock: FakeClock, patience: Any) -> None:
    """No selector waits for longer than some days."""
    with pytest.raises(WorkflowConfigurationError) as caught:
        clock.run(asyncio.sleep(1), patience=patience)
    assert str(caught.value) == (
        f"The patience of FakeClock.run() is {patience!r}. Give a number of seconds, from 0 to 86,400."
    )
    gc.collect()
    with pytest.raises(WorkflowConfigurationError, match=r"timedelta\(seconds=1\)\. Give its \.total_seconds\(\)\.$"):
        clock.run(asyncio.sleep(1), patience=timedelta(seconds=1))  # type: ignore[arg-type]  # the mistake
    gc.collect()
    assert clock.monotonic() == 0


def test_it_runs_a_coroutine_only(clock: FakeClock) -> None:
    async def main() -> None:
        raise AssertionError

    async def numbers() -> AsyncIterator[int]:
        yield 1

    given: list[tuple[Any, str]] = [
        (main, "function. Call it: run(main())."),
        (partial(main), "partial. Call it: run(main())."),
        (numbers(), "async_generator. Give what an async function returns when it is called."),
        (None, "NoneType. Give what an async function returns when it is called."),
        (5, "int. Give what an async function returns when it is called."),
    ]
    for wrong, what in given:
        with pytest.raises(WorkflowConfigurationError) as caught:
            clock.run(wrong)
        assert str(caught.value) == f"FakeClock.run() takes a coroutine, not an object of type {what}"


# Stores.


def test_a_store_that_answers_from_a_thread_is_waited_for_while_the_clock_stands(
    clock: FakeClock, waits: Waits, tmp_path: Path
) -> None:
    async def main() -> list[float]:
        asyncio.get_running_loop().call_later(1, lambda: None)
        async with SQLitePersistence(tmp_path / "journals.db") as store:
            for version in range(0, 20, 2):
                await append(store, "w", version)
                assert len(await store.read("w")) == version + 2
            at = [clock.monotonic()]
            await asyncio.sleep(HOUR)  # beside its idle threads
            at.append(clock.monotonic())
        return [*at, clock.monotonic()]

    assert clock.run(main(), patience=0.001) == [0, HOUR, HOUR]
    assert set(waits.seconds) == {None}


def test_a_call_to_a_store_that_nobody_waits_for_any_more_does_not_hold_up_time(
    clock: FakeClock, waits: Waits, tmp_path: Path
) -> None:
    async def main() -> None:
        async with SQLitePersistence(tmp_path / "journals.db") as store:
            with store._database.lock:  # no write, and no opening, gets any further
                reading = asyncio.create_task(store.read("w"))
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait([reading])
                await asyncio.sleep(HOUR)
        await asyncio.sleep(HOUR)

    clock.run(main(), patience=0.001)
    assert clock.monotonic() == 2 * HOUR
    assert set(waits.seconds) == {None}


# Workflows, as users test theirs.


def store_of(kind: str, folder: Path) -> Store:
    return InMemoryPersistence() if kind == "memory" else SQLitePersistence(folder / "journals.db")


@contextlib.asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    async with store if isinstance(store, SQLitePersistence) else contextlib.nullcontext():
        yield store


@pytest.fixture(params=["memory", "sqlite"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    return partial(lambda: opened(store_of(request.param, tmp_path)))


def only_for_threads(waits: Waits) -> bool:
    """Tell whether nothing was waited for but the answers of a store."""
    return set(waits.seconds) <= {None}


def test_a_gate_waits_a_week(clock: FakeClock, waits: Waits, fresh: Callable[[], Any]) -> None:
    async def main() -> Order:
        async with fresh() as store:
            order = on(clock, Order("order-1", ABC, persistence=store, does={"a": asks}))
            order.configure(require_approval=True)
            await order.execute()
            assert (order.status, clock.monotonic()) == (WorkflowStatus.WAITING_APPROVAL, 0)
            await asyncio.sleep(7 * DAY)
            order = await loaded(clock, store)
            await order.approve_and_continue(actor="approver@example.com")
            return order

    order = clock.run(main())
    assert (seen(order), order.execution_time) == (("completed", ["a", "b", "c"]), 7 * DAY)
    assert clock.monotonic() == 7 * DAY
    assert only_for_threads(waits)


class Counted(InMemoryPersistence):
    """Counts the renewals of leases, and fails them once it is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.renewals = 0
        self.is_cut_off = False

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        if self.is_cut_off:
            raise PersistenceError("the network is down")
        self.renewals += 1
        return await super().renew(workflow_id, token, expires_at)


async def sleeps(seconds: float, workflow: Order, name: str) -> WorkflowResult:
    await asyncio.sleep(seconds)
    return WorkflowResult(True, name)


def test_a_step_of_an_hour_keeps_its_lease_by_its_heartbeat(clock: FakeClock, waits: Waits) -> None:
    store = Counted()
    order = on(clock, Order("order-1", ABC, persistence=store, does={"b": partial(sleeps, HOUR)}), lease_seconds=30)

    async def main() -> None:
        driving = asyncio.create_task(order.execute())
        for _ in range(60):
            await asyncio.sleep(59)
            with pytest.raises(WorkflowExecutionError, match="already running"):
                await (await loaded(clock, store)).resume()
            lease = await store.lease("order-1")
            assert lease is not None
            assert 28_000_000 < lease.expires_at - clock.time_ns() // 1000 <= 30_000_000
        await driving

    clock.run(main())
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])
    assert (order.execution_time, order.results[1].execution_time, clock.monotonic()) == (HOUR, HOUR, HOUR)
    assert (store.renewals, waits.seconds) == (HOUR - 1, [])


def test_a_step_of_a_minute_keeps_its_lease_on_a_store_with_threads(
    clock: FakeClock, waits: Waits, fresh: Callable[[], Any]
) -> None:
    async def main() -> Order:
        async with fresh() as store:
            order = on(clock, Order("order-1", ["a"], persistence=store, does={"a": partial(sleeps, 60)}))
            driving = asyncio.create_task(order.execute())
            await asyncio.sleep(59.5)
            with pytest.raises(WorkflowExecutionError, match="already running"):
                await (await loaded(clock, store)).resume()
            await driving
            return order

    order = clock.run(main())
    assert (seen(order), order.execution_time, clock.monotonic()) == (("completed", ["a"]), 60, 60)
    assert only_for_threads(waits)


def test_the_lease_of_an_owner_that_was_cut_off_expires_and_another_takes_over(clock: FakeClock, waits: Waits) -> None:
    store = Counted()
    held = Held()
    order = on(clock, Order("order-1", ABC, persistence=store, does={"b": held}), lease_seconds=30)

    async def main() -> Order:
        driving = asyncio.create_task(order.execute())
        await asyncio.sleep(0.5)
        store.is_cut_off = True
        await asyncio.sleep(29)
        with pytest.raises(WorkflowExecutionError, match="already running"):
            await (await loaded(clock, store)).resume()
        await asyncio.sleep(1)
        other = await loaded(clock, store, ledger=order.ledger)
        await other.resume()
        held.go.set()
        with pytest.raises(LeaseLostError, match="took over"):
            await driving
        return other

    other = clock.run(main())
    assert (seen(other), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])
    assert (clock.monotonic(), waits.seconds) == (30.5, [])


def test_an_owner_that_was_frozen_hears_that_another_took_over(
    clock: FakeClock, waits: Waits, fresh: Callable[[], Any]
) -> None:
    """Its step stops the whole loop for a minute, and is interrupted by the first heartbeat after."""

    async def main() -> tuple[Order, Order]:
        async with fresh() as store:
            resumed: list[Order] = []

            async def frozen(workflow: Order, name: str) -> WorkflowResult:
                clock.advance(60)
                resumed.append(await loaded(clock, store, ledger=workflow.ledger))
                await resumed[0].resume()
                await asyncio.sleep(DAY)
                raise AssertionError

            order = on(clock, Order("order-1", ABC, persistence=store, does={"b": frozen}), lease_seconds=30)
            # Sooner than the heartbeat that is due by then, which would renew the lease.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(store), "renew", renew_later(store))
                with pytest.raises(LeaseLostError):
                    await order.execute()
            return order, resumed[0]

    order, other = clock.run(main())
    assert (seen(other), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])
    assert clock.monotonic() == 60.5
    assert only_for_threads(waits)


def renew_later(store: Store) -> Any:
    """Return a renewal that is under way for half a second before it reaches the store."""
    renew = type(store).renew

    async def later(self: Any, workflow_id: str, token: str, expires_at: int) -> int:
        await asyncio.sleep(0.5)
        return await renew(self, workflow_id, token, expires_at)

    return later


def test_a_cancel_gives_a_step_its_grace(clock: FakeClock, waits: Waits, fresh: Callable[[], Any]) -> None:
    interrupted: list[float] = []

    async def deaf(workflow: Order, name: str) -> WorkflowResult:
        while len(interrupted) < 2:
            try:
                await asyncio.sleep(HOUR)
            except asyncio.CancelledError:
                interrupted.append(clock.monotonic())
        raise asyncio.CancelledError

    async def main() -> Order:
        async with fresh() as store:
            order = on(clock, Order("order-1", ABC, persistence=store, does={"b": deaf}), cancel_grace_seconds=120)
            order.configure(rollback_on_cancel=True)
            driving = asyncio.create_task(order.execute())
            await asyncio.sleep(5.5)
            await order.cancel(actor="operator@example.com")
            await driving
            return order

    order = clock.run(main())
    assert order.status is WorkflowStatus.CANCELLED
    assert order.ledger == ["a", "b", "rollback_b", "rollback_a"]
    assert (interrupted, clock.monotonic()) == ([5.5, 125.5], 125.5)
    assert only_for_threads(waits)


def test_a_run_whose_owner_is_not_heard_of_is_taken_over_once_its_lease_expired(clock: FakeClock, waits: Waits) -> None:
    class Elsewhere(InMemoryPersistence):
        """Shows leases as those of another machine: of which only time tells."""

        async def lease(self, workflow_id: str) -> Lease | None:
            lease = await super().lease(workflow_id)
            return lease and lease._replace(owner="elsewhere:1:1:1:1")

    store = Elsewhere()

    async def main() -> Order:
        order = on(clock, Order("order-1", ABC, persistence=store, does={"b": raises(GeneratorExit())}))
        with pytest.raises(GeneratorExit):
            await order.execute()
        for _ in range(2):
            order = await loaded(clock, store, ledger=order.ledger)
            with pytest.raises(WorkflowExecutionError, match="already running"):
                await order.resume()
            await asyncio.sleep(15)
        await order.resume()
        return order

    order = clock.run(main())
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])
    assert (clock.monotonic(), waits.seconds) == (30, [])


class Patient(Workflow):
    """Tries again by itself, with backoff."""

    def __init__(self, *args: Any, answers: list[bool], **options: Any) -> None:
        super().__init__(*args, **options)
        self.answers = answers

    async def execute_step(self, step: str) -> WorkflowResult:
        pause = 1.0
        while not self.answers.pop(0):
            if pause > 100:
                return WorkflowResult(False, step, error="no_courier")
            await asyncio.sleep(pause)
            pause *= 4
        return WorkflowResult(True, step)

    async def rollback_step(self, step: str) -> None:
        return None


@pytest.mark.parametrize(
    ("answers", "status", "seconds"),
    [([True], "completed", 0), ([False, False, True], "completed", 5), ([False] * 5, "failed", 85)],
)
def test_a_step_tries_again_with_backoff(
    clock: FakeClock, waits: Waits, fresh: Callable[[], Any], answers: list[bool], status: str, seconds: float
) -> None:
    async def main() -> Workflow:
        async with fresh() as store:
            order = Patient("order-1", ["book"], answers=list(answers), persistence=store)
            order.runtime = Runtime(clock=clock)
            await order.execute()
            return order

    order = clock.run(main())
    assert (order.status.value, order.execution_time, clock.monotonic()) == (status, seconds, seconds)
    assert only_for_threads(waits)
