"""What a run costs, counted: appends, reads and records."""

from typing import Any

import pytest

from dotmac_workflows import Workflow
from workflows import ABC, Order, Store, Wrapper, asks, crashed_after, fails, nothing, seen


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
async def test_a_run_of_n_steps_makes_n_plus_1_appends_lease_included(store: Store, steps: int) -> None:
    counted = Wrapper(store)
    order = Order("order-1", [f"s{n}" for n in range(steps)], persistence=counted)
    await order.execute()
    assert order.is_completed
    assert len(counted.appends) == steps + 1
    assert counted.reads == 0
    assert counted.appends[0][1] == ["workflow_started", "claimed", "step_started"]
    assert counted.appends[-1][1] == ["step_succeeded", "workflow_completed"]
    assert await store.lease("order-1") is None


async def test_an_approval_in_between_costs_one_append_and_one_read_more(store: Store) -> None:
    counted = Wrapper(store)
    order = Order("order-1", ABC, persistence=counted, does={"b": asks})
    order.configure(require_approval=True)
    await order.execute()
    assert (len(counted.appends), counted.reads) == (3, 0)
    assert counted.appends[-1][1] == ["step_succeeded", "approval_requested"]
    await order.approve_and_continue()
    assert [kinds for _, kinds in counted.appends[3:]] == [
        ["approved", "claimed", "step_started"],
        ["step_succeeded", "workflow_completed"],
    ]
    assert counted.reads == 1


@pytest.mark.parametrize("steps", [2, 10, 40])
@pytest.mark.parametrize("undo", [None, nothing, fails()])
async def test_a_rollback_costs_one_append_a_step(store: Store, steps: int, undo: Any) -> None:
    names = [f"s{n}" for n in range(steps)]
    does = {f"rollback_{name}": undo for name in names if undo is not None}
    counted = Wrapper(store)
    order = Order("order-1", names, persistence=counted, does={**does, names[-1]: fails()})
    await order.execute()
    assert order.is_failed
    forward, undone = steps, steps - 1
    assert len(counted.appends) == forward + 1 + undone
    assert all(len(kinds) <= 3 for _, kinds in counted.appends)
    assert counted.reads == 0


async def test_the_records_of_a_step_do_not_grow_with_the_number_of_steps(store: Store) -> None:
    sizes = []
    for count in (5, 50):
        order = Order(f"order-{count}", [f"s{n}" for n in range(count)], persistence=store)
        await order.execute()
        records = await store.read(f"order-{count}")
        sizes.append(max(len(record.body) for record in records[3:]))
    assert sizes[1] - sizes[0] < 40


async def test_a_decision_that_is_only_recorded_costs_one_append_and_one_read(store: Store) -> None:
    order = Order("order-1", ABC, persistence=store, does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    counted = Wrapper(store)
    approver = await Workflow.load("order-1", counted)
    await approver.approve(actor="lead@example.com")
    assert (counted.appends, counted.reads) == ([("order-1", ["approved"])], 2)


async def test_execute_of_a_run_that_ended_appends_nothing(store: Store) -> None:
    counted = Wrapper(store)
    order = Order("order-1", ABC, persistence=counted)
    await order.execute()
    before = len(counted.appends)
    await order.execute()
    assert (len(counted.appends), counted.reads, seen(order)) == (before, 1, ("completed", ["a", "b", "c"]))


async def test_resuming_what_a_crash_left_costs_the_same_appends_as_running_it(store: Store) -> None:
    await crashed_after(store, 2, lambda failing: Order("order-1", ABC, persistence=failing))
    counted = Wrapper(store)
    again = await Order.load("order-1", counted)
    counted.reads = 0
    await again.resume()
    assert [kinds for _, kinds in counted.appends] == [
        ["claimed", "step_started"],
        ["step_succeeded", "step_started"],
        ["step_succeeded", "workflow_completed"],
    ]
    assert counted.reads == 1
