"""Rollback: which steps it visits, what it makes of each answer, and what is left when it cannot be finished."""

from typing import Any

import pytest

from dotmac_workflows import PersistenceError, Workflow, WorkflowExecutionError, WorkflowResult, WorkflowStatus
from dotmac_workflows._core.events import RollbackStepFailed, RollbackWaived, StepFailed
from workflows import (
    ABC,
    Backend,
    Behaviour,
    Failing,
    InTurn,
    Order,
    Store,
    Told,
    asks,
    crashed_after,
    events,
    fails,
    kinds,
    raises,
    seen,
    steps_of,
)

ABCD = ("a", "b", "c", "d")


async def failed(backend: Backend, /, steps: tuple[str, ...] = ABCD, **does: Behaviour) -> Order:
    """Return an order whose last step failed; it rolled back."""
    order = backend.order(steps, does={steps[-1]: fails(), **does})
    await order.execute()
    assert order.status is WorkflowStatus.FAILED
    return order


async def test_a_failure_undoes_the_completed_steps_in_reverse_order(backend: Backend) -> None:
    """Invariant 6."""
    order = await failed(backend)
    assert order.ledger == ["a", "b", "c", "d", "rollback_c", "rollback_b", "rollback_a"]
    assert (order.status, order.rollback_status) == (WorkflowStatus.FAILED, "done")
    assert await kinds(order) == [
        "WorkflowStarted",
        *["StepStarted", "StepSucceeded"] * 3,
        *["StepStarted", "StepFailed", "RollbackStarted"],
        *["RollbackStepStarted", "RollbackStepSucceeded"] * 3,
        *["RollbackFinished", "WorkflowFailed"],
    ]


async def test_the_order_of_the_results_is_the_steps_the_failed_one_and_the_rollbacks(backend: Backend) -> None:
    order = await failed(backend)
    assert steps_of(order.results) == ["a", "b", "c", "d!", "rollback_c", "rollback_b", "rollback_a"]
    assert seen(await backend.again(order)) == ("failed", steps_of(order.results))


async def test_a_step_that_failed_or_raised_is_not_undone(backend: Backend) -> None:
    order = backend.order(does={"b": raises(OSError("gone"))})
    await order.execute()
    assert order.ledger == ["a", "b", "rollback_a"]


async def test_a_failure_of_the_first_step_has_nothing_to_undo(backend: Backend) -> None:
    order = await failed(backend, ("a",))
    assert (order.ledger, order.rollback_status, seen(order)) == (["a"], "none", ("failed", ["a!"]))


async def test_without_rollback_on_failure_nothing_is_undone(backend: Backend) -> None:
    order = backend.order(does={"c": fails()})
    order.configure(rollback_on_failure=False)
    await order.execute()
    assert (order.ledger, order.rollback_status) == (["a", "b", "c"], "none")


async def test_the_gated_step_is_undone_too(backend: Backend) -> None:
    order = backend.order(does={"a": asks, "c": fails()})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve_and_continue()
    assert order.ledger == ["a", "b", "c", "rollback_b", "rollback_a"]


async def test_a_step_that_came_twice_is_undone_twice(backend: Backend) -> None:
    order = backend.order(["a", "b", "a", "c"], does={"c": fails()})
    await order.execute()
    assert order.ledger == ["a", "b", "a", "c", "rollback_a", "rollback_b", "rollback_a"]
    assert order.rollback_status == "done"


async def test_rollback_step_is_the_hook_and_by_default_calls_execute_step(backend: Backend) -> None:
    class Own(Order):
        async def rollback_step(self, step: str) -> WorkflowResult | None:
            self.ledger.append(f"undo {step}")
            return WorkflowResult(True, step, {"undone": step})

    order = Own("order-1", ["a", "b"], persistence=backend.persistence, does={"b": fails()})
    await order.execute()
    assert order.ledger == ["a", "b", "undo a"]
    assert (order.results[-1].step, order.results[-1].data) == ("rollback_a", {"undone": "a"})


# A step without a rollback.


class Hooked(Order):
    """Undoes by a hook of its own, which a test gives."""

    undo: Any = None

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        self.ledger.append(f"rollback_{step}")
        if self.undo is NotImplementedError:
            raise NotImplementedError
        return self.undo(self, step)  # type: ignore[no-any-return] # whatever the test gives


async def hooked(backend: Backend, undo: Any) -> Hooked:
    order = Hooked("order-1", ["a", "b"], persistence=backend.persistence, does={"b": fails()})
    order.undo = undo
    await order.execute()
    return order


def assert_skipped(order: Order, caplog: pytest.LogCaptureFixture) -> None:
    result = order.results[-1]
    assert (seen(order), order.rollback_status) == (("failed", ["a", "b!", "rollback_a"]), "done")
    assert (result.success, result.step, result.error) == (True, "rollback_a", None)
    assert result.message == "Step 'a' has no rollback: nothing was undone."
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == [
        "Step 'a' of workflow 'order-1' has no rollback: nothing was undone."
    ]


async def test_a_rollback_that_returns_none_is_skipped_and_warned_of(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    order = await hooked(backend, lambda workflow, step: None)
    assert_skipped(order, caplog)
    assert (await kinds(order))[-3:] == ["RollbackStepSkipped", "RollbackFinished", "WorkflowFailed"]


async def test_not_implemented_raised_by_rollback_step_itself_is_skipped(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    assert_skipped(await hooked(backend, NotImplementedError), caplog)


async def test_not_implemented_raised_by_execute_step_itself_is_skipped(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(Order):
        async def execute_step(self, step: str) -> WorkflowResult:
            if step.startswith("rollback_"):
                raise NotImplementedError(step)
            return await super().execute_step(step)

    order = Plain("order-1", ["a", "b"], persistence=backend.persistence, does={"b": fails()})
    await order.execute()
    assert_skipped(order, caplog)


async def test_a_step_that_does_not_know_its_rollback_is_skipped(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """A result with error="unknown_step", in the default rollback_step."""
    order = await failed(backend, ("a", "b"), rollback_a=fails("unknown_step"))
    assert_skipped(order, caplog)


async def test_unknown_step_from_a_rollback_step_of_ones_own_is_a_failure(backend: Backend) -> None:
    order = await hooked(backend, lambda workflow, step: WorkflowResult(False, step, error="unknown_step"))
    assert (seen(order), order.rollback_status) == (("failed", ["a", "b!", "rollback_a!"]), "incomplete")


async def test_not_implemented_raised_deeper_is_a_failure_like_any_other(backend: Backend) -> None:
    order = await failed(backend, ("a", "b"), rollback_a=raises(NotImplementedError("driver")))
    assert (seen(order), order.rollback_status) == (("failed", ["a", "b!", "rollback_a!"]), "incomplete")
    assert order.results[-1].error == "step_execution_error"


async def test_not_implemented_raised_by_a_step_going_forward_is_a_failure(backend: Backend) -> None:
    class Plain(Workflow):
        pass

    order = Plain("order-1", ["a"], persistence=backend.persistence)
    (result,) = await order.execute()
    assert (order.status, result.error) == (WorkflowStatus.FAILED, "step_execution_error")


async def test_a_rollback_that_returns_no_result_is_an_invalid_result(backend: Backend) -> None:
    order = await hooked(backend, lambda workflow, step: "done")
    assert (seen(order), order.rollback_status) == (("failed", ["a", "b!", "rollback_a!"]), "incomplete")
    assert order.results[-1].error == "invalid_result"
    assert "rollback of step 'a' returned str" in str(order.results[-1].message)


# A rollback step that fails.


async def test_a_failing_rollback_step_does_not_hide_the_rest_and_ends_incomplete(backend: Backend) -> None:
    """Invariant 7."""
    order = await failed(backend, rollback_b=raises(OSError("host is down")))
    assert order.ledger == ["a", "b", "c", "d", "rollback_c", "rollback_b", "rollback_a"]
    assert seen(order) == ("failed", ["a", "b", "c", "d!", "rollback_c", "rollback_b!", "rollback_a"])
    assert order.rollback_status == "incomplete"
    again = await backend.again(order)
    assert again.rollback_status == "incomplete"


async def test_the_original_error_is_kept_beside_the_rollback_error(backend: Backend) -> None:
    """Invariant 7."""
    order = backend.order(
        ["a", "b"], does={"b": raises(ValueError("no stock")), "rollback_a": raises(OSError("host is down"))}
    )
    await order.execute()
    assert [(r.step, r.error, r.message) for r in order.results if not r.success] == [
        ("b", "step_execution_error", "Step 'b' failed: ValueError: no stock"),
        ("rollback_a", "step_execution_error", "Step 'rollback_a' failed: OSError: host is down"),
    ]
    kept = [e.exception for e in await events(order) if isinstance(e, StepFailed | RollbackStepFailed)]
    assert kept == ["ValueError", "OSError"]


async def test_retry_rollback_retries_only_what_failed(backend: Backend) -> None:
    order = await failed(
        backend, rollback_c=InTurn(fails("first"), None), rollback_a=InTurn(raises(OSError("down")), None)
    )
    assert order.rollback_status == "incomplete"
    order.ledger.clear()
    again = await backend.again(order)
    await again.retry_rollback(actor="operator@example.com")
    assert again.ledger == ["rollback_c", "rollback_a"]
    assert (again.status, again.rollback_status) == (WorkflowStatus.FAILED, "done")
    assert seen(again) == ("failed", ["a", "b", "c", "d!", "rollback_b", "rollback_c", "rollback_a"])


async def test_a_rollback_can_be_retried_until_it_is_done(backend: Backend) -> None:
    order = await failed(backend, ("a", "b"), rollback_a=InTurn(fails(), fails(), None))
    await order.retry_rollback()
    assert (order.rollback_status, steps_of(order.results)) == ("incomplete", ["a", "b!", "rollback_a!"])
    await order.retry_rollback()
    assert (order.rollback_status, steps_of(order.results)) == ("done", ["a", "b!", "rollback_a"])
    with pytest.raises(WorkflowExecutionError, match="has no incomplete rollback"):
        await order.retry_rollback()
    assert order.ledger.count("rollback_a") == 3


async def test_halt_stops_at_the_first_rollback_failure(backend: Backend) -> None:
    order = backend.order(ABCD, does={"d": fails(), "rollback_b": InTurn(fails(), None)})
    order.configure(on_rollback_failure="halt")
    await order.execute()
    assert order.ledger == ["a", "b", "c", "d", "rollback_c", "rollback_b"]
    assert order.rollback_status == "incomplete"
    again = await backend.again(order)
    await again.retry_rollback()
    assert again.ledger == ["a", "b", "c", "d", "rollback_c", "rollback_b", "rollback_b", "rollback_a"]
    assert again.rollback_status == "done"


async def test_skip_rollback_records_that_a_step_was_put_right_by_other_means(backend: Backend) -> None:
    order = await failed(backend, rollback_b=fails(), rollback_a=fails())
    await order.skip_rollback("b", "paid back by hand", actor="operator@example.com")
    assert (order.rollback_status, order.ledger.count("rollback_b")) == ("incomplete", 1)
    again = await backend.again(order)
    await again.skip_rollback("a", "never shipped")
    assert again.rollback_status == "done"
    assert seen(again) == ("failed", ["a", "b", "c", "d!", "rollback_c", "rollback_b", "rollback_a"])
    assert [result.message for result in again.results[-2:]] == [
        "Rollback skipped by operator@example.com: paid back by hand",
        "Rollback skipped: never shipped",
    ]
    waived = [(e.step, e.actor, e.reason) for e in await events(again) if isinstance(e, RollbackWaived)]
    assert waived == [("b", "operator@example.com", "paid back by hand"), ("a", None, "never shipped")]


async def test_after_skip_rollback_a_halted_rollback_goes_on_with_the_rest(backend: Backend) -> None:
    order = backend.order(does={"c": fails(), "rollback_b": fails()})
    order.configure(on_rollback_failure="halt")
    await order.execute()
    await order.skip_rollback("b", "by hand")
    assert order.rollback_status == "incomplete"
    await order.retry_rollback()
    assert (order.ledger, order.rollback_status) == (["a", "b", "c", "rollback_b", "rollback_a"], "done")


async def test_skip_rollback_of_a_step_whose_rollback_did_not_fail_is_refused(backend: Backend) -> None:
    order = await failed(backend, rollback_b=fails())
    with pytest.raises(WorkflowExecutionError, match=r"of step 'a' of workflow 'order-1' did not fail.*: b"):
        await order.skip_rollback("a", "?")
    done = backend.order(workflow_id="order-2")
    await done.execute()
    with pytest.raises(WorkflowExecutionError, match="has no incomplete rollback"):
        await done.skip_rollback("a", "?")
    assert (order.rollback_status, done.rollback_status) == ("incomplete", "none")


async def test_execute_again_leaves_an_incomplete_rollback_as_it_is(backend: Backend) -> None:
    order = await failed(backend, rollback_b=fails())
    before = list(order.ledger)
    await order.execute()
    await order.resume()
    assert (order.ledger, order.rollback_status) == (before, "incomplete")


async def test_a_rollback_after_a_cancel_that_fails_is_resumed_into_cancelled(backend: Backend) -> None:
    order = backend.order(does={"a": asks, "rollback_a": InTurn(fails(), None)})
    order.configure(require_approval=True, rollback_on_cancel=True)
    await order.execute()
    await order.reject_and_cancel("no")
    assert (order.status, order.rollback_status) == (WorkflowStatus.CANCELLED, "incomplete")
    await order.retry_rollback()
    assert (order.status, order.rollback_status) == (WorkflowStatus.CANCELLED, "done")


async def test_while_it_is_undone_the_run_says_so(backend: Backend) -> None:
    shown: list[tuple[str, str]] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        shown.append((str(workflow.status), workflow.rollback_status))
        return WorkflowResult(True, name)

    await failed(backend, ("a", "b"), rollback_a=look)
    assert shown == [("running", "running")]


# A crash in a rollback.


@pytest.mark.parametrize("appends", [5, 6, 7, 8])
async def test_a_crash_in_a_rollback_resumes_it_and_never_goes_forward_again(store: Store, appends: int) -> None:
    """Invariant 6: only the rollback step in flight may be visited again."""

    def make(failing: Any) -> Order:
        return Order("order-1", ABCD, persistence=failing, does={"d": fails()})

    left = await crashed_after(store, appends, make)
    crashed_in = left.ledger[-1]
    again = await Order.load("order-1", store, does=left.does, ledger=left.ledger)
    await again.resume()
    undone = [name for name in again.ledger if name.startswith("rollback_")]
    assert again.ledger[:4] == ["a", "b", "c", "d"]
    assert list(dict.fromkeys(undone)) == ["rollback_c", "rollback_b", "rollback_a"]
    assert all(undone.count(name) == 1 for name in undone if name != crashed_in)
    assert (again.status, again.rollback_status) == (WorkflowStatus.FAILED, "done")


async def test_the_step_in_flight_at_a_crash_in_a_rollback_is_a_second_attempt(store: Store) -> None:
    attempts: list[tuple[int, int, str]] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        context = workflow.step_context
        attempts.append((context.visit, context.attempt, context.idempotency_key))
        return WorkflowResult(True, name)

    def make(failing: Any) -> Order:
        return Order("order-1", ["a", "b"], persistence=failing, does={"b": fails(), "rollback_a": look})

    failing = Failing(store, at=4, after=False, down=True)
    left = make(failing)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - the crash of the helper
        await left.execute()
    again = await Order.load("order-1", store, does=left.does, ledger=left.ledger)
    await again.resume()
    assert [(visit, attempt) for visit, attempt, _ in attempts] == [(1, 1), (1, 2)]
    assert attempts[0][2] == attempts[1][2]
    assert again.rollback_status == "done"


async def test_a_failing_store_in_a_rollback_leaves_it_resumable(store: Store) -> None:
    failing = Failing(store, at=4, after=False, error=PersistenceError("disk full"))
    order = Order("order-1", ABC, persistence=failing, does={"c": fails()})
    with pytest.raises(PersistenceError, match="disk full"):
        await order.execute()
    assert (order.status, order.rollback_status) == (WorkflowStatus.RUNNING, "none")
    await order.resume()
    assert (order.status, order.rollback_status) == (WorkflowStatus.FAILED, "done")
    assert order.ledger == ["a", "b", "c", "c", "rollback_b", "rollback_a"]


async def test_on_rollback_started_is_told_the_failed_step_once(backend: Backend) -> None:
    order = Told("order-1", ABCD, persistence=backend.persistence, does={"d": fails()})
    await order.execute()
    assert [what for kind, what in order.told if kind == "rollback_started"] == ["d"]
