"""The library replaces an in-memory original of the same name: its import paths, names, codes and phrases stay."""

import copy
from typing import Any

import pytest

import dotmac_workflows
from dotmac_workflows import base, persistence, result, status, types
from workflows import Backend, Order, Told, asks, fails, seen, steps_of


def test_the_import_paths_of_the_original_keep_working() -> None:
    from dotmac_workflows.base import Workflow, WorkflowConfigurationError, WorkflowError, WorkflowExecutionError
    from dotmac_workflows.persistence import InMemoryStateStore, WorkflowStateStore
    from dotmac_workflows.result import WorkflowResult
    from dotmac_workflows.status import WorkflowStatus
    from dotmac_workflows.types import AsyncWorkflowCallback, StepName, WorkflowCallback, WorkflowId
    from dotmac_workflows.types import WorkflowStateStore as Protocol

    for thing in (
        Workflow,
        WorkflowConfigurationError,
        WorkflowError,
        WorkflowExecutionError,
        InMemoryStateStore,
        WorkflowResult,
        WorkflowStatus,
        AsyncWorkflowCallback,
        StepName,
        WorkflowCallback,
        WorkflowId,
    ):
        assert thing is not None
    assert Protocol is WorkflowStateStore
    assert {module.__name__ for module in (base, persistence, result, status, types)} == {
        f"dotmac_workflows.{name}" for name in ("base", "persistence", "result", "status", "types")
    }
    assert issubclass(WorkflowConfigurationError, WorkflowError)
    assert issubclass(WorkflowExecutionError, WorkflowError)


@pytest.mark.parametrize(
    "name",
    [
        "Workflow",
        "WorkflowResult",
        "WorkflowStatus",
        "WorkflowError",
        "WorkflowConfigurationError",
        "WorkflowExecutionError",
        "InMemoryStateStore",
        "WorkflowStateStore",
        "WorkflowId",
        "StepName",
        "WorkflowCallback",
        "AsyncWorkflowCallback",
    ],
)
def test_the_names_of_the_original_are_importable_from_the_package(name: str) -> None:
    assert name in dotmac_workflows.__all__
    assert getattr(dotmac_workflows, name) is not None


async def test_a_class_written_for_the_original_runs() -> None:
    """No persistence, positional arguments, a step dispatched by name, and its rollback in execute_step."""

    class Onboarding(dotmac_workflows.Workflow):
        async def execute_step(self, step: str) -> dotmac_workflows.WorkflowResult:
            if step == "check":
                return dotmac_workflows.WorkflowResult(success=True, step=step, data={"ok": True})
            if step == "charge":
                self.metadata["charged"] = False
                return dotmac_workflows.WorkflowResult(success=False, step=step, data={}, error="declined")
            if step == "rollback_check":
                return dotmac_workflows.WorkflowResult(success=True, step=step, data={})
            return dotmac_workflows.WorkflowResult(success=False, step=step, error="unknown_step")

    workflow = Onboarding("customer-1", ["check", "charge"], {"customer": object()})
    workflow.configure(True, False, False)
    results = await workflow.execute()
    assert steps_of(results) == ["check", "charge!", "rollback_check"]
    assert (workflow.is_failed, workflow.metadata["charged"]) == (True, False)


@pytest.mark.parametrize(
    ("does", "steps", "code"),
    [({"a": lambda workflow, name: 1 / 0}, ["a"], "step_execution_error"), ({}, [], "empty_steps")],
)
async def test_the_error_codes_of_the_original_stay(does: Any, steps: list[str], code: str) -> None:
    (outcome,) = await Order("order-1", steps, does=does).execute()
    assert outcome.error == code


async def test_a_rejection_keeps_its_error_code(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    assert (await order.reject_and_cancel("no"))[-1].error == "approval_rejected"


async def test_the_order_of_results_is_steps_failed_one_rollbacks() -> None:
    order = Order("order-1", ["a", "b", "c"], does={"c": fails()})
    assert steps_of(await order.execute()) == ["a", "b", "c!", "rollback_b", "rollback_a"]


async def test_on_rollback_started_is_told_the_failed_step_once() -> None:
    order = Told("order-1", ["a", "b", "c"], does={"c": fails()})
    await order.execute()
    assert [what for name, what in order.told if name == "rollback_started"] == ["c"]


async def test_unknown_step_for_a_rollback_is_a_skipped_rollback_in_results_as_success() -> None:
    order = Order("order-1", ["a", "b"], does={"b": fails(), "rollback_a": fails("unknown_step")})
    await order.execute()
    assert (seen(order), order.rollback_status) == (("failed", ["a", "b!", "rollback_a"]), "done")
    assert "no rollback" in str(order.results[-1].message)


# The original's store of whole workflows.


async def test_the_store_loads_a_class_that_can_run_on() -> None:
    store = persistence.InMemoryStateStore()
    order = Order("order-1", ["a", "b"], {"n": 1}, does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await store.save(order)
    loaded = await store.load("order-1")
    assert type(loaded) is Order
    assert loaded is not order
    assert (seen(loaded), loaded.metadata, loaded.pending_approval_step) == (("waiting_approval", ["a"]), {"n": 1}, "a")
    await loaded.approve_and_continue()
    assert (seen(loaded), loaded.ledger) == (("completed", ["a", "b"]), ["b"])
    assert seen(order) == ("waiting_approval", ["a"])


async def test_what_was_saved_does_not_change_with_the_workflow() -> None:
    store = persistence.InMemoryStateStore()
    order = Order("order-1", ["a"], {"deep": {"n": 1}})
    await store.save(order)
    order.metadata["deep"]["n"] = 2
    order.steps.append("b")
    first = await store.load("order-1")
    assert first is not None
    assert (first.metadata, first.steps) == ({"deep": {"n": 1}}, ["a"])
    first.metadata["deep"]["n"] = 3
    second = await store.load("order-1")
    assert second is not None
    assert second.metadata == {"deep": {"n": 1}}


async def test_save_replaces_what_was_saved_under_the_id() -> None:
    store = persistence.InMemoryStateStore()
    order = Order("order-1", ["a"])
    await store.save(order)
    await order.execute()
    await store.save(order)
    loaded = await store.load("order-1")
    assert loaded is not None
    assert seen(loaded) == ("completed", ["a"])
    assert await loaded.execute() == order.results


async def test_delete_and_clear_forget() -> None:
    store = persistence.InMemoryStateStore()
    for n in range(3):
        await store.save(Order(f"order-{n}", ["a"]))
    assert await store.delete("order-0") is True
    assert await store.delete("order-0") is False
    assert await store.load("order-0") is None
    assert await store.load("order-1") is not None
    store.clear()
    assert [await store.load(f"order-{n}") for n in range(3)] == [None] * 3


async def test_a_workflow_without_an_id_cannot_be_saved() -> None:
    order = Order("order-1", ["a"])
    order.workflow_id = ""
    with pytest.raises(ValueError, match="Workflow must have an ID"):
        await persistence.InMemoryStateStore().save(order)


async def test_a_store_of_ones_own_fits_the_protocol_of_the_original() -> None:
    class Mine:
        def __init__(self) -> None:
            self.kept: dict[str, dict[str, Any]] = {}

        async def save(self, workflow: dotmac_workflows.Workflow) -> None:
            self.kept[workflow.workflow_id] = copy.deepcopy(workflow.to_dict())

        async def load(self, workflow_id: str) -> dotmac_workflows.Workflow | None:
            return Order.from_dict(self.kept[workflow_id]) if workflow_id in self.kept else None

        async def delete(self, workflow_id: str) -> bool:
            return self.kept.pop(workflow_id, None) is not None

    mine: persistence.WorkflowStateStore = Mine()
    order = Order("order-1", ["a"])
    await order.execute()
    await mine.save(order)
    loaded = await mine.load("order-1")
    assert loaded is not None
    assert (seen(loaded), await mine.delete("order-1"), await mine.load("order-1")) == (
        ("completed", ["a"]),
        True,
        None,
    )


async def test_what_the_original_got_wrong_is_mended() -> None:
    """A failing result needs no data, PAUSED is reachable, and a failing rollback step does not hide the rest."""

    async def pauses(workflow: Order, name: str) -> dotmac_workflows.WorkflowResult:
        await workflow.pause()
        return dotmac_workflows.WorkflowResult(success=True, step=name)

    order = Order("order-1", ["a", "b", "c"], does={"a": pauses, "c": fails(), "rollback_b": fails()})
    await order.execute()
    assert order.status is dotmac_workflows.WorkflowStatus.PAUSED
    await order.resume()
    assert steps_of(order.results) == ["a", "b", "c!", "rollback_b!", "rollback_a"]
