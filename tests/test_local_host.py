"""What the local host makes of clocks, cancels, conflicts and lost leases, to the letter."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from dotmac_workflows import (
    Codec,
    InMemoryPersistence,
    LeaseLostError,
    Runtime,
    WorkflowNotFoundError,
    WorkflowResult,
)
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.actions import RunRollback, RunStep
from dotmac_workflows._core.events import Event
from dotmac_workflows._core.state import apply
from dotmac_workflows._run import lease
from dotmac_workflows._run.journal import StoredJournal
from dotmac_workflows._run.live import LiveJournal
from dotmac_workflows._run.local import LocalHost, Tenure
from dotmac_workflows._run.logs import log_facts, step_of
from dotmac_workflows._run.outcomes import Outcomes
from dotmac_workflows.persistence import Lease, LeaseChange
from journal_events import RUNNING, state
from workflows import Backend, Held, Order, Store, events, fails, raises, seen, within


class OddClock:
    """A clock that stands at an instant which is no whole microsecond; its monotonic side does as it is told."""

    def __init__(self, *readings: float) -> None:
        self.readings = list(readings)

    def time_ns(self) -> int:
        return 1_700_000_000_123_456_789

    def monotonic(self) -> float:
        return self.readings.pop(0) if self.readings else 0.0


async def test_instants_are_whole_microseconds(backend: Backend) -> None:
    order = backend.order(["a", "b", "c"], does={"b": raises(OSError("down")), "c": fails()})
    order.runtime = Runtime(clock=OddClock())
    order.configure(rollback_on_failure=False, continue_on_step_failure=True)
    await order.execute()
    instants = {(type(event.at), event.at) for event in await events(order)}
    assert instants == {(int, 1_700_000_000_123_456)}


@pytest.mark.parametrize(("readings", "elapsed"), [((1.0, 3.5), 2.5), ((3.5, 1.0), 0.0), ((2.0, 2.0), 0.0)])
async def test_a_step_took_what_the_clock_says_and_never_less_than_nothing(
    backend: Backend, readings: tuple[float, float], elapsed: float
) -> None:
    order = backend.order(["a"])
    order.runtime = Runtime(clock=OddClock(*readings))
    (result,) = await order.execute()
    assert (type(result.execution_time), result.execution_time) == (float, elapsed)


async def test_a_cancel_before_the_step_was_called_is_an_interruption_that_says_so(backend: Backend) -> None:
    order = backend.order(["a"])
    order.runtime = Runtime(clock=OddClock())

    async def cancel(step: str) -> None:
        await order.cancel()

    order.on_step_started = cancel
    await order.execute()
    (interrupted,) = [event for event in await events(order) if isinstance(event, ev.StepInterrupted)]
    assert (interrupted.at, interrupted.result) == (
        1_700_000_000_123_456,
        WorkflowResult(False, "a", error="step_interrupted", message="A cancel came before step 'a' was called."),
    )
    assert order.ledger == []


async def test_an_interrupted_step_says_so(backend: Backend) -> None:
    held = Held()
    order = backend.order(["a"], does={"a": held})
    order.runtime = Runtime(clock=OddClock())
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    await order.cancel()
    await within(task)
    (interrupted,) = [event for event in await events(order) if isinstance(event, ev.StepInterrupted)]
    message = "Step 'a' was interrupted by a cancel; its outcome is unknown."
    assert (interrupted.at, interrupted.result) == (
        1_700_000_000_123_456,
        WorkflowResult(False, "a", error="step_interrupted", message=message),
    )


async def test_a_run_that_was_deleted_while_it_ran_is_named(store: Store) -> None:
    held = Held()
    order = Backend(store).order(["a", "b"], does={"a": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    await store.delete("order-1")
    held.go.set()
    with pytest.raises(WorkflowNotFoundError) as caught:
        await within(task)
    assert str(caught.value) == (
        "Workflow 'order-1' was deleted while it ran here; what ran since is recorded nowhere."
    )
    assert caught.value.workflow_id == "order-1"


async def test_a_lease_that_was_lost_names_who_has_it(store: Store) -> None:
    held = Held()
    order = Backend(store).order(["a", "b"], does={"a": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    other = await Order.load("order-1", store)
    records = await store.read("order-1")
    taken = ev.Claimed(1, "elsewhere:7:8:b:n", "theirs")
    await claim(store, taken, len(records))
    held.go.set()
    with pytest.raises(LeaseLostError) as caught:
        await within(task)
    assert str(caught.value) == (
        "Workflow 'order-1' is no longer driven by this process: its lease expired and elsewhere (process 7) took "
        "over. Nothing was recorded since; load the workflow to see where it stands."
    )
    assert (caught.value.workflow_id, caught.value.owner) == ("order-1", "elsewhere:7:8:b:n")
    assert seen(other)[0] == "running"


async def claim(store: Any, taken: ev.Claimed, version: int) -> None:
    """Take a run over, as another process would whose clock says that the lease has expired."""
    journal = StoredJournal(store, "order-1", Codec())
    state = await journal.load()
    assert state.version == version
    held = await store.lease("order-1")
    apply(state, taken)
    await journal.append(state, [taken], LeaseChange(taken.token, taken.owner, 2**61, held.token))


async def test_each_attempt_of_a_step_is_logged_as_that(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    order = Backend(store).order(["a"], does={"a": raises(KeyboardInterrupt())})
    with pytest.raises(KeyboardInterrupt):
        await order.execute()
    again = await Backend(store).again(order)
    again.does = {"a": raises(OSError("down"))}
    with caplog.at_level(logging.ERROR):
        await again.resume()
    (record,) = caplog.records
    assert [vars(record)[key] for key in ("workflow_id", "workflow_type", "event", "step", "attempt")] == [
        "order-1",
        "Order",
        "step_raised",
        "a",
        2,
    ]


def test_a_tenure_changes_the_lease_as_long_as_it_is_held() -> None:
    tenure = Tenure("token", "before", None)
    assert tenure.leases is None
    owner = lease.this_owner()
    running, waiting = state("running"), state("waiting")
    change = tenure.change(running, 77)
    assert change == LeaseChange("token", owner, 77, "before")
    tenure.changed(change)
    assert tenure.in_place == "token"
    change = tenure.change(waiting, 77)
    assert change == LeaseChange("token", owner, None, "token")
    tenure.changed(change)
    assert tenure.in_place is None


async def test_a_lease_lasts_for_what_the_runtime_says(store: Store) -> None:
    held = Held()
    order = Backend(store).order(["a"], does={"a": held})
    order.runtime = Runtime(clock=OddClock(), lease_seconds=2.5)
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    taken = await store.lease("order-1")
    assert taken is not None
    assert (type(taken.expires_at), taken.expires_at) == (int, 1_700_000_002_623_456)
    held.go.set()
    await within(task)
    assert await store.lease("order-1") is None


# The heartbeat, by hand.


class Subject:
    """As much of a workflow as its host looks at."""

    workflow_id = "order-1"
    runtime = Runtime(clock=OddClock(), lease_seconds=2.5)
    on_step_started: Any = None
    on_step_completed: Any = None

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step)

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        return None


EXPIRES = 1_700_000_002_623_456
STARTED = ev.StepStarted(5, "pack", 1, 1, 1)
PACKING = RunStep(STARTED)


class Timers:
    """Notes what the loop is to call later, and never does."""

    def __init__(self, host: LocalHost) -> None:
        self.asked: list[tuple[float, object]] = []
        self.renewals: list[object] = []
        host._loop = self  # type: ignore[assignment]  # as much of a loop as is asked

    def call_later(self, seconds: float, call: object) -> object:
        self.asked.append((seconds, call))
        return SimpleNamespace(cancel=lambda: self.asked.append((-1, call)))

    def create_task(self, renewal: Any) -> Any:
        renewal.close()
        task = SimpleNamespace(finished=False)
        task.done = lambda: task.finished
        self.renewals.append(task)
        return task


@pytest.fixture
async def driven() -> AsyncIterator[tuple[InMemoryPersistence, LocalHost]]:
    """A host that drives a stored run, in the middle of a step."""
    store = InMemoryPersistence()
    journal = StoredJournal(store, "order-1", Codec())
    tenure = Tenure("token", None, store)
    host = LocalHost(Subject(), journal, lambda state: None, tenure)
    await host.commit(state("running"), list(RUNNING))
    assert await store.lease("order-1") == Lease(lease.this_owner(), "token", EXPIRES)
    host.action = PACKING
    yield store, host
    host.close()


async def recorded(store: InMemoryPersistence, event: Event, change: LeaseChange | None = None) -> None:
    """Append what somebody else records."""
    journal = StoredJournal(store, "order-1", Codec())
    read = await journal.load()
    apply(read, event)
    await journal.append(read, [event], change)


def watched(host: LocalHost) -> list[object]:
    """Return what the host interrupts for, instead of doing it."""
    done: list[object] = []
    host.interrupt = lambda: done.append("cancelled")  # type: ignore[method-assign]  # to see that it is called
    host._interrupt = lambda: done.append(host._lost)  # type: ignore[method-assign]  # likewise
    return done


Driven = tuple[InMemoryPersistence, LocalHost]


async def test_a_renewal_moves_the_expiry_and_reads_nothing_where_nothing_was_recorded(driven: Driven) -> None:
    store, host = driven
    done = watched(host)
    store._leases["order-1"] = Lease("owner", "token", 7)
    read: list[str] = []
    store.read = lambda *_, **how: read.append("read")  # type: ignore[method-assign,assignment]  # to see it
    await host._renew()
    assert (store._leases["order-1"], done, read) == (Lease("owner", "token", EXPIRES), [], [])


@pytest.mark.parametrize("still", [True, False])
async def test_a_cancel_that_was_recorded_interrupts_the_step_that_ran_then(driven: Driven, still: bool) -> None:
    store, host = driven
    done = watched(host)
    await recorded(store, ev.PauseRequested(6, None, None))
    await host._renew()
    assert done == []
    await recorded(store, ev.CancelRequested(6, None, None))
    if not still:
        renew = store.renew

        async def later(workflow_id: str, token: str, expires_at: int) -> int:
            host.action = RunStep(STARTED._replace(attempt=2))
            return await renew(workflow_id, token, expires_at)

        store.renew = later  # type: ignore[method-assign]  # another step runs by the time of the answer
    await host._renew()
    assert done == (["cancelled"] if still else [])


@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("how", ["told", "read", "seen"])
async def test_a_lease_that_is_another_s_interrupts_what_ran_then(driven: Driven, how: str, still: bool) -> None:
    store, host = driven
    done = watched(host)
    theirs = ev.Claimed(6, "elsewhere:7:8:b:n", "theirs")
    await recorded(store, theirs, LeaseChange("theirs", theirs.owner, EXPIRES, "token"))

    async def renew(workflow_id: str, token: str, expires_at: int) -> int:
        if not still:
            host.action = None
        if how == "seen":
            return 6
        raise LeaseLostError("lost", owner=theirs.owner if how == "told" else None)

    store.renew = renew  # type: ignore[method-assign]  # tells in each of the ways
    await host._renew()
    if not still:
        assert (done, host._lost) == ([], None)
        return
    (error,) = done
    assert isinstance(error, LeaseLostError)
    assert (error.workflow_id, error.owner) == ("order-1", theirs.owner)
    assert "its lease expired and elsewhere (process 7) took over" in str(error)


async def test_a_lease_that_is_nobody_s_by_now_names_nobody(driven: Driven) -> None:
    store, host = driven
    done = watched(host)

    async def renew(workflow_id: str, token: str, expires_at: int) -> int:
        await store.delete("order-1")
        raise LeaseLostError("lost")

    store.renew = renew  # type: ignore[method-assign]  # the run is gone
    await host._renew()
    (error,) = done
    assert isinstance(error, LeaseLostError)
    assert (error.owner, "its lease expired and somebody else took over" in str(error)) == (None, True)


async def test_a_renewal_that_fails_is_logged_and_the_step_goes_on(
    driven: Driven, caplog: pytest.LogCaptureFixture
) -> None:
    store, host = driven
    done = watched(host)
    error = OSError("down")

    async def renew(workflow_id: str, token: str, expires_at: int) -> int:
        raise error

    store.renew = renew  # type: ignore[method-assign]  # the disk is down
    await host._renew()
    assert done == []
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "The lease of workflow 'order-1' could not be renewed; trying again."
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    names = ("workflow_id", "workflow_type", "event", "step", "attempt")
    assert [vars(record)[name] for name in names] == ["order-1", "Order", "lease_not_renewed", None, None]


async def test_what_is_logged_before_the_run_was_driven_has_no_type(driven: Driven) -> None:
    _, host = driven
    host.run = None
    assert host._keys("event") == {
        "workflow_id": "order-1",
        "workflow_type": None,
        "event": "event",
        "step": None,
        "attempt": None,
    }


@pytest.mark.parametrize(("seconds", "every"), [(30.0, 1.0), (3.0, 1.0), (2.4, 0.8)])
async def test_the_heart_beats_each_second_and_thrice_in_a_short_lease(
    driven: Driven, seconds: float, every: float
) -> None:
    _, host = driven
    timers = Timers(host)
    host._runtime = Runtime(lease_seconds=seconds)
    host._arm_heartbeat()
    ((asked, call),) = timers.asked
    assert asked == pytest.approx(every)
    assert call == host._heartbeat
    host.close()
    assert timers.asked[1:] == [(-1, host._heartbeat)]


async def test_a_beat_renews_what_is_held_one_at_a_time_and_arms_the_next(driven: Driven) -> None:
    _, host = driven
    timers = Timers(host)
    tenure = host._tenure
    assert tenure is not None
    host._heartbeat()
    host._heartbeat()
    assert len(timers.renewals) == 1, "the first one is still under way"
    timers.renewals[0].finished = True  # type: ignore[attr-defined]  # has it
    host._heartbeat()
    assert len(timers.renewals) == 2
    timers.renewals[1].finished = True  # type: ignore[attr-defined]  # has it
    tenure.in_place = "theirs"
    host._heartbeat()
    tenure.in_place = None
    host._heartbeat()
    assert len(timers.renewals) == 2
    assert len(timers.asked) == 5
    assert host._beat is not None


async def test_who_let_go_while_a_renewal_waited_has_lost_nothing(driven: Driven) -> None:
    store, host = driven
    done = watched(host)
    theirs = ev.Claimed(6, "elsewhere:7:8:b:n", "theirs")
    await recorded(store, theirs, LeaseChange("theirs", theirs.owner, EXPIRES, "token"))
    host.close()
    await host._renew()
    assert (done, host._lost) == ([], None)


async def test_a_host_without_leases_has_no_heart() -> None:
    store = InMemoryPersistence()
    journal = StoredJournal(store, "order-1", Codec())
    for tenure in (None, Tenure("token", None, None)):
        host = LocalHost(Subject(), journal, lambda state: None, tenure)
        assert host._beat is None
        host.close()
    host = LocalHost(Subject(), journal, lambda state: None, Tenure("token", None, store))
    assert host._beat is not None
    host.close()
    assert host._beat.cancelled()


# Letting go.


async def test_a_run_that_is_left_is_let_go_of_at_its_instant(driven: Driven) -> None:
    store, host = driven
    await host.release()
    read = await StoredJournal(store, "order-1", Codec()).load()
    assert (read.token, read.version, await store.lease("order-1")) == (None, 6, None)
    assert (await of(store))[-1] == ev.Released(1_700_000_000_123_456)
    await host.release()
    assert len(await store.read("order-1")) == 6, "once is enough"


async def of(store: InMemoryPersistence) -> list[Event]:
    return [codec.decode(row.kind, row.at, row.body, Codec()) for row in await store.read("order-1")]


async def test_a_run_that_is_another_s_is_not_let_go_of(driven: Driven) -> None:
    store, host = driven
    theirs = ev.Claimed(6, "elsewhere:7:8:b:n", "theirs")
    await recorded(store, theirs, LeaseChange("theirs", theirs.owner, EXPIRES, "token"))
    await host.release()
    assert (await of(store))[-1] == theirs
    assert await store.lease("order-1") == Lease(theirs.owner, "theirs", EXPIRES)


async def test_letting_go_gives_way_to_what_is_recorded_meanwhile(driven: Driven) -> None:
    store, host = driven
    append = store.append

    async def beaten(*args: Any, **how: Any) -> None:
        store.append = append  # type: ignore[method-assign]  # only once
        await recorded(store, ev.PauseRequested(6, None, None))
        await append(*args, **how)

    store.append = beaten  # type: ignore[method-assign]  # somebody is faster
    await host.release()
    assert [type(event).__name__ for event in await of(store)][-2:] == ["PauseRequested", "Released"]
    assert await store.lease("order-1") is None


async def test_what_cannot_be_let_go_of_expires_by_itself(driven: Driven, caplog: pytest.LogCaptureFixture) -> None:
    store, host = driven
    error = OSError("down")

    async def down(*_: Any, **__: Any) -> None:
        raise error

    store.append = down  # type: ignore[method-assign]  # the disk is down
    await host.release()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "The lease of workflow 'order-1' could not be let go; it expires by itself."
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    names = ("workflow_id", "workflow_type", "event", "step", "attempt")
    assert [vars(record)[name] for name in names] == ["order-1", "Order", "lease_not_released", None, None]


async def test_a_run_in_its_object_has_nothing_to_let_go_of() -> None:
    host = LocalHost(Subject(), LiveJournal("order-1"), lambda state: None, None)
    await host.release()


# Interrupting.


class Task:
    """As much of a task as is interrupted."""

    def __init__(self, cancelling: int = 0) -> None:
        self.count = cancelling
        self.told: list[str] = []

    def cancelling(self) -> int:
        return self.count

    def cancel(self) -> None:
        self.count += 1
        self.told.append("cancel")

    def uncancel(self) -> int:
        self.count -= 1
        self.told.append("uncancel")
        return self.count


async def test_a_step_is_interrupted_once_and_once_more_after_the_grace(driven: Driven) -> None:
    _, host = driven
    timers, task = Timers(host), Task()
    host._task = task  # type: ignore[assignment]  # as much as is asked of it
    host._runtime = Runtime(cancel_grace_seconds=7.0)
    host.interrupt()
    host.interrupt()
    assert (task.told, timers.asked) == (["cancel"], [(7.0, host._cancel_task)])
    host._cancel_task()
    assert (task.told, host._cancels) == (["cancel", "cancel"], 2)
    assert host._calm_down() is False
    assert (task.told[2:], task.count, host._cancels) == (["uncancel", "uncancel"], 0, 0)
    assert timers.asked[1:] == [(-1, host._cancel_task)], "the grace is over"
    host.action = None
    host._cancel_task()
    assert task.told[4:] == [], "nothing runs any more"


async def test_an_interrupt_knows_its_own_cancels_from_another_s(driven: Driven) -> None:
    _, host = driven
    Timers(host)
    task = Task(cancelling=2)  # it was cancelled before, and went on
    host._task = task  # type: ignore[assignment]  # as much as is asked of it
    host.interrupt()
    assert host._calm_down() is False
    host.interrupt()
    task.cancel()
    assert host._calm_down() is True
    assert task.count == 3


async def test_a_step_does_not_interrupt_itself_and_a_rollback_is_not_interrupted(driven: Driven) -> None:
    _, host = driven
    timers, task = Timers(host), Task()
    host._task = asyncio.current_task()
    host.interrupt()
    host._task = task  # type: ignore[assignment]  # as much as is asked of it
    host.action = RunRollback(ev.RollbackStepStarted(7, "pay", 0, 1, 1), False)
    host.interrupt()
    assert (task.told, timers.asked, host._cancels, host._cancelled_before) == ([], [], 0, False)
    host.action = None
    host.interrupt()
    assert (task.told, host._cancelled_before) == ([], True)
    host._task = None
    host.action = PACKING
    host.interrupt()
    assert (timers.asked, host._cancels) == ([], 0)


# What is logged of each fact.


@pytest.mark.parametrize(
    ("event", "step"),
    [
        (STARTED, "pack"),
        (ev.StepSucceeded(1, WorkflowResult(True, "pack"), False), "pack"),
        (ev.StepSucceeded(1, WorkflowResult(True, "rollback_pack"), False), "rollback_pack"),
        (ev.RollbackStepStarted(1, "pack", 1, 1, 1), "pack"),
        (ev.RollbackStepSucceeded(1, WorkflowResult(True, "rollback_pack")), "pack"),
        (ev.RollbackStepSkipped(1, WorkflowResult(True, "rollback_pack")), "pack"),
        (ev.RollbackStepFailed(1, WorkflowResult(False, "rollback_pack"), None, None), "pack"),
        (ev.WorkflowCompleted(1), None),
    ],
)
def test_a_fact_is_about_a_step(event: Event, step: str | None) -> None:
    assert step_of(event) == step


def test_each_fact_is_logged_with_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    log_facts(state("running"), list(RUNNING))
    assert caplog.records == [], "nobody asked for INFO"
    with caplog.at_level(logging.INFO, "dotmac_workflows"):
        log_facts(state("running"), [STARTED._replace(attempt=3), ev.Paused(1)])
        log_facts(state("not started"), [ev.Paused(1)])
    names = ("workflow_id", "workflow_type", "event", "step", "attempt")
    assert [(record.getMessage(), *(vars(record)[name] for name in names)) for record in caplog.records] == [
        ("Workflow 'order-1': StepStarted 'pack'", "order-1", "Order", "StepStarted", "pack", 3),
        ("Workflow 'order-1': Paused", "order-1", "Order", "Paused", None, None),
        ("Workflow 'order-1': Paused", "order-1", None, "Paused", None, None),
    ]


async def test_an_ordinary_result_takes_the_short_way(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Event:
        raise AssertionError("the long way was taken")

    monkeypatch.setattr(Outcomes, "of_step", refuse)
    order = backend.order(["a"])
    await order.execute()
    assert seen(order) == ("completed", ["a"])


async def test_each_attempt_of_a_rollback_is_logged_as_that(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    does = {"b": fails(), "rollback_a": raises(KeyboardInterrupt())}
    order = Backend(store).order(["a", "b"], does=does)
    with pytest.raises(KeyboardInterrupt):
        await order.execute()
    again = await Backend(store).again(order)
    again.does = {**does, "rollback_a": raises(OSError("down"))}
    with caplog.at_level(logging.ERROR):
        await again.resume()
    (record,) = caplog.records
    assert [vars(record)[key] for key in ("event", "step", "attempt")] == ["step_raised", "a", 2]


def test_where_nobody_says_the_time_is_that_of_the_system_and_these_are_its_limits() -> None:
    runtime = Runtime()
    assert (runtime.clock, runtime.lease_seconds, runtime.cancel_grace_seconds) == (time, 30.0, 10.0)


@pytest.mark.parametrize("name", ["lease_seconds", "cancel_grace_seconds"])
@pytest.mark.parametrize("seconds", [0, -1.5, float("nan")])
def test_a_duration_that_is_none_is_refused_by_name(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a positive number of seconds, not {seconds!r}$"):
        Runtime(**{name: seconds})  # type: ignore[arg-type]  # one of the durations
    Runtime(**{name: 0.001})  # type: ignore[arg-type]  # likewise
