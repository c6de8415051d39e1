"""What the local host makes of clocks, cancels, conflicts and lost leases, to the letter."""

import asyncio
import logging
from typing import Any

import pytest

from dotmac_workflows import Codec, LeaseLostError, Runtime, WorkflowNotFoundError, WorkflowResult
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.state import apply
from dotmac_workflows._run import lease
from dotmac_workflows._run.journal import StoredJournal
from dotmac_workflows._run.local import Tenure
from dotmac_workflows.persistence import LeaseChange
from journal_events import state
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
