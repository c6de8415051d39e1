"""`retry()`: a failed run goes forward again, from where its rollback left it."""

import pytest

from dotmac_workflows import Runtime, WorkflowExecutionError, WorkflowResult, WorkflowStatus
from dotmac_workflows._core.events import Retried, StepFailed, StepStarted
from dotmac_workflows.testing import FakeClock
from workflows import (
    Backend,
    InTurn,
    Order,
    Store,
    asks,
    crashed_after,
    events,
    fails,
    raises,
    seen,
    steps_of,
)


async def test_when_nothing_was_rolled_back_it_runs_from_the_failed_step(backend: Backend) -> None:
    order = backend.order(does={"b": InTurn(fails(), None)})
    order.configure(rollback_on_failure=False)
    await order.execute()
    again = await backend.again(order)
    await again.retry(actor="operator@example.com")
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "b", "c"])
    (retried,) = [event for event in await events(again) if isinstance(event, Retried)]
    assert (retried.actor, retried.from_index) == ("operator@example.com", 1)


async def test_when_all_was_rolled_back_it_runs_from_the_first_step(backend: Backend) -> None:
    order = backend.order(does={"b": InTurn(fails(), None)})
    await order.execute()
    assert order.rollback_status == "done"
    again = await backend.again(order)
    await again.retry()
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "rollback_a", "a", "b", "c"])
    assert again.rollback_status == "none"


async def test_while_the_rollback_is_incomplete_it_is_refused(backend: Backend) -> None:
    order = backend.order(does={"c": InTurn(fails(), None), "rollback_a": InTurn(fails(), None)})
    await order.execute()
    before = list(order.ledger)
    with pytest.raises(WorkflowExecutionError, match=r"rollback is incomplete: call retry_rollback\(\), or skip"):
        await order.retry()
    assert order.ledger == before
    await order.retry_rollback()
    await order.retry()
    assert seen(order) == ("completed", ["a", "b", "c"])


async def test_after_a_skipped_rollback_it_runs_from_the_first_step(backend: Backend) -> None:
    order = backend.order(does={"b": InTurn(fails(), None), "rollback_a": fails()})
    await order.execute()
    await order.skip_rollback("a", "put right by hand")
    await order.retry()
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "rollback_a", "a", "b", "c"])


async def test_a_failure_of_the_first_step_is_retried_from_it(backend: Backend) -> None:
    order = backend.order(does={"a": InTurn(raises(OSError("down")), None)})
    await order.execute()
    await order.retry()
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "a", "b", "c"])


async def test_what_runs_again_is_a_new_visit_with_a_key_of_its_own(backend: Backend) -> None:
    keys: list[tuple[str, int, int, str]] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        context = workflow.step_context
        keys.append((name, context.visit, context.attempt, context.idempotency_key.partition(":")[2]))
        return WorkflowResult(True, name)

    order = backend.order(["a", "b"], does={"a": look, "b": InTurn(fails(), look), "rollback_a": look})
    await order.execute()
    await order.retry()
    assert keys == [
        ("a", 1, 1, "f:1:a"),
        ("rollback_a", 1, 1, "r:1:a"),
        ("a", 2, 1, "f:2:a"),
        ("b", 2, 1, "f:2:b"),
    ]


async def test_results_show_the_current_pass_and_the_journal_keeps_all(backend: Backend) -> None:
    order = backend.order(["a", "b"], does={"b": InTurn(fails("first"), fails("second"), None)})
    await order.execute()
    await order.retry()
    assert seen(order) == ("failed", ["a", "b!", "rollback_a"])
    assert [result.error for result in order.results if not result.success] == ["second"]
    await order.retry()
    assert seen(order) == ("completed", ["a", "b"])
    journal = await events(order)
    assert [event.result.error for event in journal if isinstance(event, StepFailed)] == ["first", "second"]
    assert [event.visit for event in journal if isinstance(event, StepStarted) and event.step == "b"] == [1, 2, 3]


async def test_a_retried_run_that_fails_again_undoes_each_step_once(backend: Backend) -> None:
    order = backend.order(does={"c": fails()})
    order.configure(rollback_on_failure=False)
    await order.execute()
    await order.retry()
    assert order.ledger == ["a", "b", "c", "c"]
    rolled = backend.order(workflow_id="order-2", does={"c": fails()})
    await rolled.execute()
    await rolled.retry()
    assert rolled.ledger == ["a", "b", "c", "rollback_b", "rollback_a"] * 2
    assert seen(rolled) == ("failed", ["a", "b", "c!", "rollback_b", "rollback_a"])


async def test_a_gate_of_the_pass_before_does_not_open_that_of_this_one(backend: Backend) -> None:
    order = backend.order(does={"a": asks, "b": InTurn(fails(), None)})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve_and_continue(actor="lead@example.com")
    assert order.is_failed
    await order.retry()
    assert (order.is_waiting_approval, order.ledger[-1]) == (True, "a")
    await order.approve_and_continue(actor="lead@example.com")
    assert (seen(order), order.ledger[-3:]) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


@pytest.mark.parametrize("ended", ["pending", "completed", "waiting_approval", "cancelled"])
async def test_only_a_failed_run_can_be_retried(backend: Backend, ended: str) -> None:
    order = backend.order(does={"a": asks} if ended != "completed" else {})
    order.configure(require_approval=True)
    if ended != "pending":
        await order.execute()
    if ended == "cancelled":
        await order.reject_and_cancel()
    before = list(order.ledger)
    with pytest.raises(WorkflowExecutionError, match=f"cannot be retried: only a failed one can; it is {ended}"):
        await order.retry()
    assert (order.status, order.ledger) == (WorkflowStatus(ended), before)


async def test_a_crash_in_a_retry_is_resumed_as_the_same_visit(store: Store) -> None:
    order = Backend(store).order(does={"b": InTurn(fails(), None)})
    order.configure(rollback_on_failure=False)
    await order.execute()

    def make(failing: object) -> Order:
        left = Order("order-1", order.steps, persistence=failing, does=order.does, ledger=order.ledger)  # type: ignore[arg-type] # a Wrapper
        left.configure(rollback_on_failure=False)
        return left

    left = await crashed_after(store, 2, make, verb="retry")
    assert left.ledger == ["a", "b", "b"]
    again = await Order.load("order-1", store, ledger=left.ledger)
    await again.resume()
    assert steps_of(again.results) == ["a", "b", "c"]
    visits = [(e.step, e.visit, e.attempt) for e in await events(again) if isinstance(e, StepStarted)]
    assert visits == [("a", 1, 1), ("b", 1, 1), ("b", 2, 1), ("c", 1, 1), ("c", 1, 2)]


async def test_a_pause_asked_of_the_pass_that_failed_does_not_hold_this_one(backend: Backend) -> None:
    async def pauses_and_fails(workflow: Order, name: str) -> WorkflowResult:
        await workflow.pause()
        return WorkflowResult(False, name)

    order = backend.order(does={"b": InTurn(pauses_and_fails, asks)})
    order.configure(require_approval=True)
    await order.execute()
    assert seen(order) == ("failed", ["a", "b!", "rollback_a"])
    await order.retry()
    await order.approve_and_continue()
    assert seen(order) == ("completed", ["a", "b", "c"])


@pytest.mark.parametrize("verb", ["retry", "retry_rollback"])
async def test_a_run_that_goes_on_has_not_ended(backend: Backend, verb: str) -> None:
    clock = FakeClock()
    times: list[float | None] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        clock.advance(5)
        times.append(workflow.execution_time)
        return WorkflowResult(True, name)

    undoes = fails() if verb == "retry_rollback" else None
    order = backend.order(["a", "b"], does={"b": InTurn(fails(), look), "rollback_a": InTurn(undoes, look)})
    order.runtime = Runtime(clock=clock)
    await order.execute()
    assert order.execution_time == 0
    clock.advance(10)
    await getattr(order, verb)()
    assert (times, order.execution_time) == ([15], 15)
