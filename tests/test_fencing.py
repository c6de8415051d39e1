"""Leases: at most one process drives a run, and one that lost its lease changes nothing."""

import asyncio
from typing import Any

import pytest

from dotmac_workflows import (
    LeaseLostError,
    PersistenceError,
    Runtime,
    WorkflowExecutionError,
    WorkflowResult,
    WorkflowStatus,
)
from dotmac_workflows._core.events import Claimed, StepStarted
from dotmac_workflows.persistence import Header, Lease, LeaseChange
from dotmac_workflows.testing import FakeClock
from workflows import ABC, Backend, Held, Order, Store, Wrapper, asks, events, seen, within


def order_of(store: Any, clock: FakeClock, **init: Any) -> Order:
    order = Order("order-1", ABC, persistence=store, **init)
    order.runtime = Runtime(clock=clock, lease_seconds=30)
    return order


async def loaded(store: Any, clock: FakeClock, **init: Any) -> Order:
    order = await Order.load("order-1", store, **init)
    order.runtime = Runtime(clock=clock, lease_seconds=30)
    return order


async def stopped_past_its_lease(store: Store, held: Held) -> tuple[Order, "asyncio.Task[Any]", FakeClock]:
    """Return an order whose driver stands still in step b until its lease has expired."""
    clock = FakeClock()
    zombie = order_of(store, clock, does={"b": held})
    task = asyncio.create_task(zombie.execute())
    await within(held.running.wait())
    clock.advance(31)
    return zombie, task, clock


async def test_a_lease_that_expired_is_taken_over_and_the_old_driver_changes_nothing(store: Store) -> None:
    """Invariant 4: neither journal nor header nor lease nor decision."""
    held = Held()
    zombie, task, clock = await stopped_past_its_lease(store, held)
    gate = Held()
    taker = await loaded(store, clock, ledger=zombie.ledger, does={"c": gate})
    taking = asyncio.create_task(taker.resume())
    await within(gate.running.wait())
    before = await store.read("order-1"), await store.find(), await store.lease("order-1")
    held.go.set()
    with pytest.raises(LeaseLostError, match=r"'order-1' is no longer driven by this process.*took over") as caught:
        await within(task)
    assert (caught.value.workflow_id, caught.value.owner is not None) == ("order-1", True)
    assert (await store.read("order-1"), await store.find(), await store.lease("order-1")) == before
    gate.go.set()
    await within(taking)
    assert (seen(taker), taker.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])


async def test_a_driver_whose_run_was_ended_meanwhile_changes_nothing(store: Store) -> None:
    """Invariant 4."""
    held = Held()
    zombie, task, clock = await stopped_past_its_lease(store, held)
    taker = await loaded(store, clock, ledger=zombie.ledger)
    await taker.resume()
    before = await store.read("order-1"), await store.find(), await store.lease("order-1")
    held.go.set()
    with pytest.raises(LeaseLostError):
        await within(task)
    assert (await store.read("order-1"), await store.find(), await store.lease("order-1")) == before
    assert (seen(taker), zombie.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])
    assert await zombie.execute() == taker.results


async def test_a_lease_that_has_not_expired_is_not_taken_over(store: Store) -> None:
    held = Held()
    clock = FakeClock()
    order = order_of(store, clock, does={"b": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    clock.advance(29)
    with pytest.raises(WorkflowExecutionError, match="is already running"):
        await (await loaded(store, clock)).resume()
    held.go.set()
    await within(task)
    assert order.ledger == ["a", "b", "c"]


async def test_a_stale_token_is_refused_by_the_store_itself(store: Store) -> None:
    """Invariant 4."""
    held = Held()
    zombie, task, clock = await stopped_past_its_lease(store, held)
    stale = await store.lease("order-1")
    assert stale is not None
    taker = await loaded(store, clock, does={"b": asks}, ledger=zombie.ledger)
    await taker.resume()
    before = await store.read("order-1"), await store.find(), await store.lease("order-1")
    (header,) = await store.find()
    with pytest.raises(LeaseLostError):
        await store.renew("order-1", stale.token, stale.expires_at + 1_000_000_000)
    change = LeaseChange(stale.token, stale.owner, stale.expires_at + 1, stale.token)
    with pytest.raises(LeaseLostError):
        await store.append("order-1", [], expected_version=header.version, header=header, lease=change)
    assert (await store.read("order-1"), await store.find(), await store.lease("order-1")) == before
    task.cancel()
    with pytest.raises((LeaseLostError, asyncio.CancelledError)):
        await within(task)
    assert (await store.read("order-1"), await store.find(), await store.lease("order-1")) == before


async def test_a_long_step_keeps_its_lease_by_a_heartbeat(store: Store) -> None:
    renewed: list[int] = []
    thrice = asyncio.Event()

    class Counted(Wrapper):
        async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
            renewed.append(expires_at)
            if len(renewed) == 3:
                thrice.set()
            return await super().renew(workflow_id, token, expires_at)

    first: list[Lease | None] = []

    async def long(workflow: Order, name: str) -> WorkflowResult:
        first.append(await store.lease("order-1"))
        await within(thrice.wait())
        return WorkflowResult(True, name)

    order = Order("order-1", ABC, persistence=Counted(store), does={"b": long})
    order.runtime = Runtime(lease_seconds=0.3)
    await order.execute()
    assert first[0] is not None
    assert first[0].expires_at < renewed[0] < renewed[1] < renewed[2]
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])
    assert [type(event) for event in await events(order)].count(Claimed) == 1


async def test_a_heartbeat_that_fails_is_logged_and_tried_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []
    thrice = asyncio.Event()

    class Flaky(Wrapper):
        async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
            tried.append(expires_at)
            if len(tried) == 1:
                raise PersistenceError("disk full")
            if len(tried) == 3:
                thrice.set()
            return await super().renew(workflow_id, token, expires_at)

    async def long(workflow: Order, name: str) -> WorkflowResult:
        await within(thrice.wait())
        return WorkflowResult(True, name)

    order = Order("order-1", ["a"], persistence=Flaky(store), does={"a": long})
    order.runtime = Runtime(lease_seconds=0.06)
    await order.execute()
    assert seen(order) == ("completed", ["a"])
    assert caplog.text.count("could not be renewed; trying again") == 1


async def test_a_driver_that_lost_its_lease_hears_of_it_in_the_middle_of_a_step(store: Store) -> None:
    """The heartbeat interrupts the step, so that two processes do not go on beside each other."""
    clock = FakeClock()
    running, interrupted = asyncio.Event(), asyncio.Event()

    async def endless(workflow: Order, name: str) -> WorkflowResult:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()
        raise AssertionError

    zombie = Order("order-1", ABC, persistence=store, does={"b": endless})
    zombie.runtime = Runtime(clock=clock, lease_seconds=0.3)
    task = asyncio.create_task(zombie.execute())
    await within(running.wait())
    clock.advance(1)
    taker = await loaded(store, clock, ledger=zombie.ledger)
    # The heartbeat may have renewed in between: then the lease is not free, and is let expire again.
    while not taker.is_completed:
        try:
            await taker.resume()
        except WorkflowExecutionError:
            clock.advance(1)
    before = await store.read("order-1")
    with pytest.raises(LeaseLostError):
        await within(task)
    assert interrupted.is_set()
    assert await store.read("order-1") == before
    assert zombie.ledger == ["a", "b", "b", "c"]


async def test_for_one_attempt_at_most_one_gets_past_step_started(store: Store) -> None:
    """Invariant 3: many drivers race for a run that is free."""
    order = Order("order-1", ABC, persistence=store, does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve()
    ran: list[tuple[str, int, int]] = []

    async def notes(workflow: Order, name: str) -> WorkflowResult:
        context = workflow.step_context
        ran.append((context.step, context.visit, context.attempt))
        await asyncio.sleep(0)
        return WorkflowResult(True, name)

    does = {"b": notes, "c": notes}
    racers = [await Order.load("order-1", store, does=does) for _ in range(6)]
    answers = await within(asyncio.gather(*(racer.resume() for racer in racers), return_exceptions=True))
    assert sorted(ran) == [("b", 1, 1), ("c", 1, 1)]
    assert all(isinstance(answer, list | WorkflowExecutionError) for answer in answers)
    assert seen(await Order.load("order-1", store)) == ("completed", ["a", "b", "c"])
    starts = [(event.step, event.attempt) for event in await events(racers[0]) if isinstance(event, StepStarted)]
    assert starts == [("a", 1), ("b", 1), ("c", 1)]


async def test_an_approver_needs_no_lease_and_cannot_overwrite_one(store: Store) -> None:
    """A fact from outside is appended beside a driver, whose lease stays as it is."""
    held = Held()
    order = Backend(store).order(does={"a": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    lease = await store.lease("order-1")
    await (await Order.load("order-1", store)).pause()
    assert await store.lease("order-1") == lease
    held.go.set()
    await within(task)
    assert order.status is WorkflowStatus.PAUSED
    assert await store.lease("order-1") is None


async def test_the_lease_is_no_part_of_the_header(store: Store) -> None:
    assert {"lease", "token", "owner", "expires_at"}.isdisjoint(Header._fields)


async def test_every_take_over_is_journaled_with_another_token(store: Store) -> None:
    held = Held()
    zombie, task, clock = await stopped_past_its_lease(store, held)
    taker = await loaded(store, clock, ledger=zombie.ledger)
    await taker.resume()
    held.go.set()
    with pytest.raises(LeaseLostError):
        await within(task)
    claims = [event for event in await events(taker) if isinstance(event, Claimed)]
    assert len(claims) == len({claim.token for claim in claims}) == 2
