"""A store that fails: what callers get, and that a run is never left with an unknown write under way."""

import asyncio
from typing import Any

import pytest

from dotmac_workflows import PersistenceError, WorkflowStatus
from workflows import (
    ABC,
    Backend,
    Behaviour,
    Failing,
    Order,
    Store,
    Wrapper,
    asks,
    fails,
    kinds,
    seen,
    steps_of,
    within,
)

DOES: dict[str, Behaviour] = {"c": fails()}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize("error", [PersistenceError("disk full"), OSError("unplugged")])
async def test_an_append_that_fails_raises_and_the_run_is_as_last_recorded_and_resumable(
    store: Store, at: int, after: bool, error: Exception
) -> None:
    """Invariants 10 and 16. Six appends: three steps, the last of which fails, and two rollbacks."""
    failing = Failing(store, at=at, after=after, error=error)
    order = Order("order-1", ABC, persistence=failing, does=DOES)
    with pytest.raises(type(error), match=str(error)):
        await order.execute()
    recorded = await kinds(order)
    started = bool(recorded)
    assert started is (at > 1 or after)
    again = Order("order-1", ABC, persistence=store, does=DOES, ledger=order.ledger)
    await again.execute()
    assert seen(again) == ("failed", ["a", "b", "c!", "rollback_b", "rollback_a"])
    assert again.rollback_status == "done"
    assert (await kinds(again))[: len(recorded)] == recorded
    repeated = [name for name in set(again.ledger) if again.ledger.count(name) > 1]
    assert len(repeated) <= (0 if after else 1)
    assert all(again.ledger.count(name) <= 2 for name in repeated)
    assert await store.lease("order-1") is None


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 7))
async def test_the_same_object_goes_on_once_the_store_is_mended(store: Store, at: int, after: bool) -> None:
    failing = Failing(store, at=at, after=after, error=PersistenceError("disk full"))
    order = Order("order-1", ABC, persistence=failing, does=DOES)
    with pytest.raises(PersistenceError):
        await order.execute()
    await order.execute()
    assert seen(order) == ("failed", ["a", "b", "c!", "rollback_b", "rollback_a"])


async def test_nothing_is_shown_that_was_not_committed(store: Store) -> None:
    failing = Failing(store, at=2, error=PersistenceError("disk full"))
    order = Order("order-1", ABC, persistence=failing)
    with pytest.raises(PersistenceError):
        await order.execute()
    assert (seen(order), order.ledger, order.current_step_index) == (("running", []), ["a"], 0)


@pytest.mark.parametrize("after", [False, True])
async def test_a_decision_whose_append_fails_can_be_given_again(store: Store, after: bool) -> None:
    order = Order("order-1", ABC, persistence=store, does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    failing = Failing(store, at=1, after=after, error=PersistenceError("disk full"))
    approver = await Order.load("order-1", failing, ledger=order.ledger)
    with pytest.raises(PersistenceError):
        await approver.approve(actor="lead@example.com")
    await approver.approve(actor="lead@example.com")
    assert (await kinds(approver)).count("Approved") == 1
    await approver.resume()
    assert steps_of(approver.results) == ["a", "b", "c"]


class CancelledAt(Wrapper):
    """Cancels the task that appends, once, while the append is under way."""

    at = 0
    asked = 0

    async def append(self, workflow_id: str, records: Any, **how: Any) -> None:
        self.asked += 1
        if self.asked == self.at:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        await super().append(workflow_id, records, **how)


@pytest.mark.parametrize("at", range(1, 7))
async def test_execute_never_raises_while_the_fate_of_a_write_is_unknown(
    store: Store, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Invariant 16: a task that is cancelled in the middle of an append learns first what became of it."""
    wrapped = CancelledAt(store)
    wrapped.at = at
    order = Order("order-1", ABC, persistence=wrapped, does=DOES)
    task = asyncio.create_task(order.execute())
    try:
        await within(asyncio.shield(task))
    except asyncio.CancelledError:
        assert task.done()
    after = await store.read("order-1")
    lease = await store.lease("order-1")
    # Whatever were still under way would be committed before this one is.
    await Order("order-2", ["a"], persistence=store).execute()
    assert await store.read("order-1") == after
    assert await store.lease("order-1") == lease
    assert lease is None
    assert "could not be let go" not in caplog.text
    again = Order("order-1", ABC, persistence=store, does=DOES, ledger=order.ledger)
    await again.execute()
    assert seen(again) == ("failed", ["a", "b", "c!", "rollback_b", "rollback_a"])
    assert max(again.ledger.count(name) for name in again.ledger) <= 2
    assert sum(again.ledger.count(name) - 1 for name in set(again.ledger)) <= 1


async def test_a_read_that_fails_raises_and_changes_nothing(store: Store) -> None:
    class Unreadable(Wrapper):
        async def read(self, workflow_id: str, *, after: int = 0) -> Any:
            raise PersistenceError("unplugged")

    order = Order("order-1", ABC, persistence=store, does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    before = await store.read("order-1")
    with pytest.raises(PersistenceError, match="unplugged"):
        await Order.load("order-1", Unreadable(store))
    assert (await store.read("order-1"), order.status) == (before, WorkflowStatus.WAITING_APPROVAL)


async def test_a_failing_store_of_one_workflow_does_not_touch_another(store: Store) -> None:
    failing = Order("order-1", ABC, persistence=Failing(store, at=2, error=PersistenceError("disk full")))
    well = Backend(store).order(workflow_id="order-2")
    answers = await within(asyncio.gather(failing.execute(), well.execute(), return_exceptions=True))
    assert isinstance(answers[0], PersistenceError)
    assert seen(well) == ("completed", ["a", "b", "c"])
