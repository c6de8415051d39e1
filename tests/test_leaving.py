"""A driver that is left before the end: its task cancelled, the process told to stop, the coroutine closed.

Shutting down is not cancelling: nothing terminal is recorded, the lease is let go, and the run can be resumed.
"""

import asyncio
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from dotmac_workflows import (
    InMemoryPersistence,
    LeaseLostError,
    PersistenceError,
    Runtime,
    WorkflowResult,
    WorkflowStatus,
)
from dotmac_workflows._core.events import StepStarted
from dotmac_workflows._run import lease
from dotmac_workflows.testing import FakeClock
from workflows import (
    ABC,
    Backend,
    Behaviour,
    Held,
    InTurn,
    Order,
    Store,
    Wrapper,
    asks,
    events,
    fails,
    kinds,
    raises,
    seen,
    within,
)


class Shutdown(BaseException):
    """Something else that is no Exception."""


LEAVING = [KeyboardInterrupt, SystemExit, Shutdown, asyncio.CancelledError]


async def test_cancelling_the_task_is_not_cancelling_the_workflow(backend: Backend) -> None:
    """Invariant 17."""
    held = Held()
    order = backend.order(does={"b": held})
    order.configure(rollback_on_cancel=True)
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert task.cancelled()
    assert (seen(order), order.rollback_status) == (("running", ["a"]), "none")
    assert (await kinds(order))[-2:] == ["StepSucceeded", "StepStarted"]
    again = await backend.again(order)
    held.go.set()
    await again.resume()
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])
    attempts = [event.attempt for event in await events(again) if isinstance(event, StepStarted) and event.step == "b"]
    assert attempts == [1, 2]


@pytest.mark.parametrize("error", LEAVING)
async def test_what_is_no_exception_passes_through_and_the_run_is_resumable(
    backend: Backend, error: type[BaseException]
) -> None:
    order = backend.order(does={"b": InTurn(raises(error()), None)})
    with pytest.raises(error):
        await order.execute()
    assert seen(order) == ("running", ["a"])
    if backend.persistence is not None:
        assert (await kinds(order, leases=True))[-2:] == ["StepStarted", "Released"]
        assert await backend.persistence.lease("order-1") is None  # type: ignore[attr-defined] # both backends have it
    again = await backend.again(order)
    await again.execute()
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])


@pytest.mark.parametrize("error", LEAVING)
async def test_in_a_rollback_too(backend: Backend, error: type[BaseException]) -> None:
    order = backend.order(does={"c": fails(), "rollback_b": InTurn(raises(error()), None)})
    with pytest.raises(error):
        await order.execute()
    assert (order.status, order.rollback_status) == (WorkflowStatus.RUNNING, "running")
    again = await backend.again(order)
    await again.resume()
    assert (seen(again), again.rollback_status) == (("failed", ["a", "b", "c!", "rollback_b", "rollback_a"]), "done")
    assert again.ledger == ["a", "b", "c", "rollback_b", "rollback_b", "rollback_a"]


@pytest.mark.parametrize("error", LEAVING)
async def test_letting_the_lease_go_costs_one_write_more(store: Store, error: type[BaseException]) -> None:
    counted = Wrapper(store)
    order = Order("order-1", ABC, persistence=counted, does={"b": raises(error())})
    with pytest.raises(error):
        await order.execute()
    assert [kinds for _, kinds in counted.appends] == [
        ["workflow_started", "claimed", "step_started"],
        ["step_succeeded", "step_started"],
        ["released"],
    ]
    assert await store.lease("order-1") is None


@pytest.mark.parametrize("error", LEAVING)
async def test_a_cancel_that_is_pending_does_not_keep_the_lease(store: Store, error: type[BaseException]) -> None:
    """As of a second Ctrl-C, while a step that blocks has not noticed the first."""

    async def blocks(workflow: Order, name: str) -> WorkflowResult:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise error

    order = Order("order-1", ABC, persistence=store, does={"b": blocks})

    async def execute() -> None:
        with pytest.raises(error):
            await order.execute()

    try:
        await asyncio.create_task(execute())
    except asyncio.CancelledError:
        pass
    assert (await kinds(order, leases=True))[-2:] == ["StepStarted", "Released"]
    assert await store.lease("order-1") is None


async def test_a_lease_that_cannot_be_let_go_hides_nothing_and_expires_by_itself(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Wrapper):
        async def append(self, workflow_id: str, records: Any, **how: Any) -> None:
            if records[-1].kind == "released":
                raise PersistenceError("disk full")
            await super().append(workflow_id, records, **how)

    order = Order("order-1", ABC, persistence=Full(store), does={"a": raises(KeyboardInterrupt())})
    with pytest.raises(KeyboardInterrupt):
        await order.execute()
    assert await store.lease("order-1") is not None
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "The lease of workflow 'order-1' could not be let go" in warning.getMessage()
    again = await Order.load("order-1", store, ledger=order.ledger)
    await again.resume()
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "a", "b", "c"])


async def test_a_time_limit_around_execute_leaves_a_run_that_can_be_resumed(backend: Backend) -> None:
    async def runs_out_of_time(workflow: Order, name: str) -> WorkflowResult:
        limit.reschedule(asyncio.get_running_loop().time())
        await asyncio.Event().wait()
        raise AssertionError

    order = backend.order(does={"b": InTurn(runs_out_of_time, None)})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            await order.execute()
    assert seen(order) == ("running", ["a"])
    await order.resume()
    assert seen(order) == ("completed", ["a", "b", "c"])


async def test_a_time_limit_inside_a_step_is_a_failure_of_the_step(backend: Backend) -> None:
    async def slow(workflow: Order, name: str) -> WorkflowResult:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
        raise AssertionError

    order = backend.order(["a"], does={"a": slow})
    await order.execute()
    assert (seen(order), order.results[0].error) == (("failed", ["a!"]), "step_execution_error")
    assert order.results[0].message == "Step 'a' failed: TimeoutError"


async def test_a_step_that_swallows_the_cancellation_of_its_task_goes_on(backend: Backend) -> None:
    running = asyncio.Event()

    async def swallows(workflow: Order, name: str) -> WorkflowResult:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return WorkflowResult(True, name, {"swallowed": True})
        raise AssertionError

    order = backend.order(["a", "b"], does={"a": swallows})
    task = asyncio.create_task(order.execute())
    await within(running.wait())
    task.cancel()
    await within(task)
    assert (seen(order), order.results[0].data) == (("completed", ["a", "b"]), {"swallowed": True})


@types.coroutine
def closed_once(coroutine: Coroutine[Any, Any, Any], reached: Callable[[], bool]) -> Generator[Any, None, None]:
    """Drive a coroutine by hand, inside the task at hand, and close it when something is reached."""
    while True:
        awaited = coroutine.send(None)
        if reached():
            break
        yield awaited
    coroutine.close()


async def test_a_coroutine_that_is_closed_writes_nothing_and_the_run_is_resumable_at_once(backend: Backend) -> None:
    """GeneratorExit may not await, so that the lease stays; its token is no longer held by anybody here."""
    held = Held()
    order = backend.order(does={"b": held})
    await within(closed_once(order.execute(), held.running.is_set))
    before = await kinds(order, leases=True)
    assert before[-2:] == ["StepSucceeded", "StepStarted"]
    assert seen(order) == ("running", ["a"])
    held.go.set()
    again = await backend.again(order)
    await again.resume()
    assert (await kinds(order, leases=True))[: len(before)] == before
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])


async def test_after_leaving_the_object_can_be_used_on(backend: Backend) -> None:
    does: dict[str, Behaviour] = {"a": InTurn(raises(SystemExit()), asks)}
    order = backend.order(does=does)
    order.configure(require_approval=True)
    with pytest.raises(SystemExit):
        await order.execute()
    await order.execute()
    await order.approve_and_continue()
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "a", "b", "c"])


async def test_a_run_that_was_left_may_be_paused_or_cancelled_by_anybody(backend: Backend) -> None:
    paused = backend.order(does={"b": InTurn(raises(SystemExit()), None)})
    with pytest.raises(SystemExit):
        await paused.execute()
    await paused.pause()
    assert paused.status is WorkflowStatus.PAUSED
    await paused.execute()
    assert paused.ledger == ["a", "b"]
    await paused.resume()
    assert (seen(paused), paused.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])
    cancelled = backend.order(workflow_id="order-2", does={"b": raises(SystemExit())})
    with pytest.raises(SystemExit):
        await cancelled.execute()
    await cancelled.cancel()
    assert seen(cancelled) == ("cancelled", ["a", "b!"])


class SlowToRenew(InMemoryPersistence):
    """Takes a minute to renew a lease, and ends what it has begun whoever is cancelled, as a store must."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.under_way = self.is_full = False

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        self.under_way = True
        self.begun.set()
        writing = asyncio.create_task(asyncio.sleep(60))
        while not writing.done():
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                continue
        self.under_way = False
        return await super().renew(workflow_id, token, expires_at)

    async def append(self, workflow_id: str, records: Any, **how: Any) -> None:
        if self.is_full:
            raise PersistenceError("disk full")
        await super().append(workflow_id, records, **how)


async def _is_taken_over(workflow: Order, name: str) -> WorkflowResult:
    assert isinstance(workflow.runtime.clock, FakeClock)
    workflow.runtime.clock.advance(31)
    other = await Order.load("order-1", workflow.persistence)  # type: ignore[arg-type]  # it has one
    other.runtime = workflow.runtime
    await other.resume()
    return WorkflowResult(True, name)


def _fills_the_disk(workflow: Order, name: str) -> WorkflowResult:
    assert isinstance(workflow.persistence, SlowToRenew)
    workflow.persistence.is_full = True
    return WorkflowResult(True, name)


@pytest.mark.parametrize(
    ("then", "error"),
    [
        (InTurn(None), type(None)),
        (fails(), type(None)),
        (raises(Shutdown()), Shutdown),
        (_fills_the_disk, PersistenceError),
        (_is_taken_over, LeaseLostError),
    ],
    ids=["all is well", "a failure", "the process is told to stop", "a failing store", "a lost lease"],
)
@pytest.mark.parametrize("cancels", [0, 1, 2])
def test_a_renewal_that_is_under_way_has_ended_when_the_run_is_left(
    then: Behaviour, error: type[BaseException | None], cancels: int
) -> None:
    """Invariant 16, for the one write that the driver does not wait for as it goes."""
    clock = FakeClock()

    async def main() -> None:
        store = SlowToRenew()

        async def step(workflow: Order, name: str) -> Any:
            await store.begun.wait()
            answer = then(workflow, name)
            return await answer if inspect.isawaitable(answer) else answer

        order = Order("order-1", ["a"], persistence=store, does={"a": step})
        order.runtime = Runtime(clock=clock)
        task = asyncio.create_task(order.execute())
        await store.begun.wait()
        for _ in range(cancels):
            await asyncio.sleep(10)  # by then it waits for the renewal
            task.cancel()
        await asyncio.wait([task])
        assert not store.under_way
        if cancels and error is not Shutdown:  # which is on its way already
            assert task.cancelled()
        else:
            assert type(task.exception()) is error
        assert not lease._live, "nobody holds it any more"
        store.is_full = False
        again = await Order.load("order-1", store)
        await again.resume()
        assert again.is_completed or again.is_failed
        assert await store.lease("order-1") is None

    clock.run(main())
