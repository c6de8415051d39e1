"""What a step knows of itself: `step_context`, and the idempotency key that makes a second attempt harmless."""

import asyncio
import logging
from typing import Any

import pytest

from dotmac_workflows import StepContext, WorkflowExecutionError, WorkflowResult
from workflows import (
    ABC,
    Backend,
    Behaviour,
    Failing,
    Held,
    InTurn,
    Order,
    Store,
    asks,
    crashed_after,
    fails,
    seen,
    within,
)


def notes(contexts: list[StepContext], then: Behaviour | None = None) -> Behaviour:
    def behaviour(workflow: Order, name: str) -> Any:
        contexts.append(workflow.step_context)
        return WorkflowResult(True, name) if then is None else then(workflow, name)

    return behaviour


async def test_step_context_gives_step_attempt_visit_phase_and_key(backend: Backend) -> None:
    contexts: list[StepContext] = []
    order = backend.order(
        ["a", "b"], does={"a": notes(contexts), "b": notes(contexts, fails()), "rollback_a": notes(contexts)}
    )
    await order.execute()
    shown = [(c.workflow_id, c.step, c.phase, c.attempt, c.visit, c.outcome_unknown) for c in contexts]
    assert shown == [
        ("order-1", "a", "forward", 1, 1, False),
        ("order-1", "b", "forward", 1, 1, False),
        ("order-1", "a", "rollback", 1, 1, False),
    ]
    runs = {context.idempotency_key.partition(":")[0] for context in contexts}
    assert len(runs) == 1
    assert [context.idempotency_key.partition(":")[2] for context in contexts] == ["f:1:a", "f:1:b", "r:1:a"]


async def test_outside_a_step_there_is_no_step_context(backend: Backend) -> None:
    order = backend.order(["a"])
    refused: list[str] = []

    def look(step: str) -> None:
        with pytest.raises(WorkflowExecutionError) as caught:
            _ = order.step_context
        refused.append(str(caught.value))

    order.on_step_started = look
    with pytest.raises(WorkflowExecutionError, match="No step of workflow 'order-1' runs at this moment"):
        _ = order.step_context
    await order.execute()
    assert len(refused) == 1
    assert "No step of workflow 'order-1' runs at this moment" in refused[0]
    with pytest.raises(WorkflowExecutionError, match="No step of workflow 'order-1' runs at this moment"):
        _ = order.step_context


async def test_the_key_is_the_same_in_every_attempt(store: Store) -> None:
    """Invariant 5."""
    contexts: list[StepContext] = []
    does = {"b": notes(contexts)}
    ledger: list[str] = []
    for _ in range(3):
        # The third append would record b: of the first run its result, of the others after a refused start and a claim.
        failing = Failing(store, at=3, down=True)
        order = Order("order-1", ABC, persistence=failing, does=does, ledger=ledger)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - the crash of the helper
            await order.execute()
        assert type(caught.value).__name__ == "Crash"
    last = await Order.load("order-1", store, does=does, ledger=ledger)
    await last.resume()
    assert [(c.visit, c.attempt) for c in contexts] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert len({c.idempotency_key for c in contexts}) == 1
    assert ledger == ["a", "b", "b", "b", "b", "c"]


async def test_the_key_differs_for_every_run_phase_step_and_visit(backend: Backend) -> None:
    """Invariant 5."""
    contexts: list[StepContext] = []
    look = notes(contexts)
    for workflow_id in ("order-1", "order-2"):
        does: dict[str, Behaviour] = {
            "a": look,
            "b": InTurn(notes(contexts, fails()), look),
            "rollback_a": look,
        }
        order = backend.order(["a", "a", "b"], workflow_id=workflow_id, does=does)
        await order.execute()
        await order.retry()
        assert order.is_completed
    keys = [context.idempotency_key for context in contexts]
    assert len(keys) == len(set(keys)) == 2 * (3 + 2 + 3)
    assert [key.partition(":")[2] for key in keys[:8]] == [
        *["f:1:a", "f:2:a", "f:1:b"],
        *["r:1:a", "r:2:a"],
        *["f:3:a", "f:4:a", "f:2:b"],
    ]


async def test_an_id_that_was_deleted_and_used_again_is_another_run(store: Store) -> None:
    """Invariant 5."""
    contexts: list[StepContext] = []
    for _ in range(2):
        await Backend(store).order(["a"], does={"a": notes(contexts)}).execute()
        await store.delete("order-1")
    assert len({context.idempotency_key for context in contexts}) == 2


async def test_a_step_behind_a_gate_has_a_key_of_the_same_run(backend: Backend) -> None:
    contexts: list[StepContext] = []
    order = backend.order(["a", "b"], does={"a": notes(contexts, asks), "b": notes(contexts)})
    order.configure(require_approval=True)
    await order.execute()
    await (await backend.again(order)).approve_and_continue()
    assert [c.idempotency_key.partition(":")[2] for c in contexts] == ["f:1:a", "f:1:b"]
    assert len({c.idempotency_key.partition(":")[0] for c in contexts}) == 1


async def test_it_works_with_steps_of_several_workflows_at_once(backend: Backend) -> None:
    together = asyncio.Barrier(3)
    contexts: dict[str, list[StepContext]] = {}

    async def look(workflow: Order, name: str) -> WorkflowResult:
        for _ in range(2):
            await together.wait()
            contexts.setdefault(workflow.workflow_id, []).append(workflow.step_context)
        return WorkflowResult(True, name)

    orders = [backend.order(["a", "b"], workflow_id=f"order-{n}", does={"a": look, "b": look}) for n in range(3)]
    await within(asyncio.gather(*(order.execute() for order in orders)))
    for order in orders:
        own = contexts[order.workflow_id]
        assert [(c.workflow_id, c.step) for c in own] == [(order.workflow_id, s) for s in ("a", "a", "b", "b")]
    assert len({c.idempotency_key for own in contexts.values() for c in own}) == 6


async def test_it_is_there_in_tasks_and_threads_of_the_step(backend: Backend) -> None:
    async def look(workflow: Order, name: str) -> WorkflowResult:
        async def inner() -> str:
            return workflow.step_context.step

        steps = [await asyncio.create_task(inner()), await asyncio.to_thread(lambda: workflow.step_context.step)]
        return WorkflowResult(True, name, {"steps": steps})

    (result,) = await backend.order(["a"], does={"a": look}).execute()
    assert result.data == {"steps": ["a", "a"]}


async def test_the_logger_of_a_step_adds_the_ids(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    def logs(workflow: Order, name: str) -> WorkflowResult:
        workflow.step_context.logger.warning("stock is low", extra={"shelf": 4})
        return WorkflowResult(True, name)

    await backend.order(["a"], does={"a": logs}).execute()
    (record,) = [record for record in caplog.records if record.getMessage() == "stock is low"]
    shown = vars(record)
    assert (record.name, shown["shelf"]) == (Order.__module__, 4)
    assert (shown["workflow_id"], shown["workflow_type"], shown["step"], shown["attempt"]) == (
        "order-1",
        "Order",
        "a",
        1,
    )
    assert logging.getLogger(Order.__module__).handlers == []


async def test_while_another_objects_step_runs_this_object_has_no_context(store: Store) -> None:
    held = Held()
    order = Backend(store).order(["a"], does={"a": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    other = await Order.load("order-1", store)
    with pytest.raises(WorkflowExecutionError, match="No step"):
        _ = other.step_context
    assert order.step_context.step == "a"
    held.go.set()
    await within(task)


# Which steps run again.


@pytest.mark.parametrize("appends", range(1, 5))
async def test_a_recorded_completion_is_never_executed_again(store: Store, appends: int) -> None:
    """Invariants 1 and 2: a crash after any append repeats nothing but the step in flight."""
    left = await crashed_after(store, appends, lambda failing: Order("order-1", ABC, persistence=failing))
    assert left.ledger == list(ABC[: appends - 1])
    again = await Order.load("order-1", store, ledger=left.ledger)
    await again.resume()
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


@pytest.mark.parametrize("at", range(2, 5))
async def test_a_crash_adds_at_most_one_execution_of_the_step_in_flight(store: Store, at: int) -> None:
    """Invariant 2: what a step did before the crash was not recorded, so that it runs once more."""
    failing = Failing(store, at=at, down=True)
    left = Order("order-1", ABC, persistence=failing)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - the crash of the helper
        await left.execute()
    again = await Order.load("order-1", store, ledger=left.ledger)
    await again.resume()
    in_flight = ABC[at - 2]
    assert {step: again.ledger.count(step) for step in ABC} == {s: 2 if s == in_flight else 1 for s in ABC}
    assert seen(again) == ("completed", ["a", "b", "c"])


async def test_step_started_is_durable_before_user_code_runs(store: Store) -> None:
    """Invariant 2."""
    found: list[tuple[str, str]] = []

    async def look(workflow: Order, name: str) -> WorkflowResult:
        record = (await store.read("order-1"))[-1]
        found.append((record.kind, record.body))
        return WorkflowResult(True, name)

    order = Backend(store).order(["a", "b"], does={"a": look, "b": fails(), "rollback_a": look})
    await order.execute()
    assert [kind for kind, _ in found] == ["step_started", "rollback_step_started"]
    assert all('"step":"a"' in body for _, body in found)
