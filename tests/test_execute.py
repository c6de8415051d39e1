"""`execute()`: steps in order, what they may answer, and what cannot be run at all."""

import asyncio
from typing import Any

import pytest

from dotmac_workflows import (
    InMemoryPersistence,
    Runtime,
    Workflow,
    WorkflowConfigurationError,
    WorkflowResult,
    WorkflowStatus,
)
from dotmac_workflows._core.events import StepFailed
from dotmac_workflows.testing import FakeClock
from workflows import Backend, Behaviour, Order, Store, asks, events, fails, kinds, nothing, raises, seen, steps_of


async def test_steps_run_in_order_and_each_result_is_returned(backend: Backend) -> None:
    order = backend.order(["a", "b", "c"])
    results = await order.execute()
    assert order.ledger == ["a", "b", "c"]
    assert [(r.success, r.step, r.data) for r in results] == [
        (True, "a", {"did": "a"}),
        (True, "b", {"did": "b"}),
        (True, "c", {"did": "c"}),
    ]
    assert (order.status, order.is_completed, order.current_step_index) == (WorkflowStatus.COMPLETED, True, 3)
    assert order.results == results
    assert await kinds(order) == [
        "WorkflowStarted",
        *["StepStarted", "StepSucceeded"] * 3,
        "WorkflowCompleted",
    ]


async def test_the_list_that_is_returned_is_the_callers_own(backend: Backend) -> None:
    order = backend.order()
    results = await order.execute()
    results.clear()
    assert seen(order) == ("completed", ["a", "b", "c"])


async def test_while_a_step_runs_the_state_says_so(backend: Backend) -> None:
    shown: list[tuple[str, int, list[str]]] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        shown.append((str(workflow.status), workflow.current_step_index, steps_of(workflow.results)))
        return WorkflowResult(True, name)

    await backend.order(["a", "b"], does={"a": look, "b": look}).execute()
    assert shown == [("running", 0, []), ("running", 1, ["a"])]


async def test_execution_time_is_seconds_of_the_injected_clock(backend: Backend) -> None:
    clock = FakeClock()

    def takes(seconds: float) -> Behaviour:
        def behaviour(workflow: Order, name: str) -> WorkflowResult:
            clock.advance(seconds)
            return WorkflowResult(True, name, execution_time=99.0)

        return behaviour

    order = backend.order(["a", "b"], does={"a": takes(1.5), "b": takes(0.25)})
    order.runtime = Runtime(clock=clock)
    results = await order.execute()
    assert [result.execution_time for result in results] == [1.5, 0.25]
    assert order.execution_time == 1.75
    clock.advance(100)
    assert order.execution_time == 1.75
    assert [event.at - clock.time_ns() // 1000 for event in await events(order)][-1] == -100_000_000


async def test_execution_time_is_set_however_a_step_ends_and_for_rollbacks_too(backend: Backend) -> None:
    clock = FakeClock()

    def takes(seconds: float, then: Behaviour) -> Behaviour:
        def behaviour(workflow: Order, name: str) -> Any:
            clock.advance(seconds)
            return then(workflow, name)

        return behaviour

    order = backend.order(
        ["a", "b", "c"],
        does={
            "a": takes(1, asks),
            "b": takes(2, lambda workflow, name: WorkflowResult(True, "elsewhere", execution_time=9)),
            "c": takes(3, raises(OSError("down"))),
            "rollback_b": takes(4, nothing),
            "rollback_a": takes(5, fails()),
        },
    )
    order.runtime = Runtime(clock=clock)
    results = await order.execute()
    assert [(result.step, result.execution_time) for result in results] == [
        ("a", 1),
        ("b", 2),
        ("c", 3),
        ("rollback_b", 4),
        ("rollback_a", 5),
    ]


async def test_a_failed_step_ends_the_run_failed(backend: Backend) -> None:
    order = backend.order(does={"b": fails("declined", "no funds")})
    order.configure(rollback_on_failure=False)
    results = await order.execute()
    assert seen(order) == ("failed", ["a", "b!"])
    assert (results[1].error, results[1].message, results[1].data) == ("declined", "no funds", {})
    assert (order.is_failed, order.current_step_index, order.ledger) == (True, 1, ["a", "b"])


async def test_a_step_that_raises_is_a_failed_result_with_type_and_traceback_in_the_journal(backend: Backend) -> None:
    order = backend.order(["a"], does={"a": raises(KeyError("stock"))})
    (result,) = await order.execute()
    assert seen(order) == ("failed", ["a!"])
    assert result.error == "step_execution_error"
    assert result.message == "Step 'a' failed: KeyError: 'stock'"
    (failed,) = [event for event in await events(order) if isinstance(event, StepFailed)]
    assert failed.exception == "KeyError"
    assert failed.traceback is not None
    assert "in behaviour" in failed.traceback
    assert failed.traceback.endswith("KeyError: 'stock'\n")


@pytest.mark.parametrize("answer", [None, True, {"success": True, "step": "a"}, "a"])
async def test_a_step_that_returns_no_result_is_an_invalid_result_naming_step_and_type(
    backend: Backend, answer: object
) -> None:
    order = backend.order(["a", "b"], does={"a": lambda workflow, name: answer})
    (result,) = await order.execute()
    assert seen(order) == ("failed", ["a!"])
    assert (result.error, result.step) == ("invalid_result", "a")
    assert result.message is not None
    assert f"Step 'a' returned {type(answer).__name__}, not a WorkflowResult" in result.message


async def test_a_result_under_another_steps_name_is_recorded_under_the_step_that_ran(backend: Backend) -> None:
    given = WorkflowResult(True, "elsewhere", {"n": 1})
    order = backend.order(["a"], does={"a": lambda workflow, name: given})
    (result,) = await order.execute()
    assert (order.status, result.step, result.data) == (WorkflowStatus.COMPLETED, "a", {"n": 1})
    assert given.step == "elsewhere"


async def test_continue_on_step_failure_records_failures_and_ends_completed(backend: Backend) -> None:
    order = backend.order(does={"a": fails(), "b": raises(OSError("gone"))})
    order.configure(rollback_on_failure=False, continue_on_step_failure=True)
    await order.execute()
    assert seen(order) == ("completed", ["a!", "b!", "c"])
    assert order.ledger == ["a", "b", "c"]
    assert order.rollback_status == "none"


def test_continuing_and_rolling_back_exclude_each_other_and_the_error_says_how_to_mend_it(backend: Backend) -> None:
    order = backend.order()
    with pytest.raises(WorkflowConfigurationError, match="continue_on_step_failure=True, rollback_on_failure=False"):
        order.configure(rollback_on_failure=True, continue_on_step_failure=True)
    with pytest.raises(WorkflowConfigurationError) as caught:
        order.configure(continue_on_step_failure=True)
    assert caught.value.workflow_id == "order-1"
    assert (order.rollback_on_failure, order.continue_on_step_failure) == (True, False)


async def test_settings_that_were_assigned_are_checked_when_the_run_starts(backend: Backend) -> None:
    order = backend.order()
    order.continue_on_step_failure = True
    with pytest.raises(WorkflowConfigurationError, match="rollback_on_failure=False"):
        await order.execute()
    assert (order.ledger, seen(order), await kinds(order)) == ([], ("pending", []), [])


def test_configure_sets_all_settings_and_what_is_left_out_gets_its_default() -> None:
    workflow = Workflow("w")
    workflow.configure(False, True, True, rollback_on_cancel=True, on_rollback_failure="halt")
    names = [
        "rollback_on_failure",
        "continue_on_step_failure",
        "require_approval",
        "rollback_on_cancel",
        "on_rollback_failure",
    ]
    assert [getattr(workflow, name) for name in names] == [False, True, True, True, "halt"]
    workflow.configure()
    assert [getattr(workflow, name) for name in names] == [True, False, False, False, "continue"]


def test_an_unknown_policy_for_failing_rollbacks_is_refused() -> None:
    with pytest.raises(WorkflowConfigurationError, match="must be 'continue' or 'halt'"):
        Workflow("w").configure(on_rollback_failure="give up")  # type: ignore[arg-type] # what users may get wrong


# What cannot run.


async def test_no_steps_is_failed_with_empty_steps(backend: Backend) -> None:
    order = backend.order([])
    (result,) = await order.execute()
    assert (result.success, result.error, order.status) == (False, "empty_steps", WorkflowStatus.FAILED)
    assert await kinds(order) == []


async def test_an_id_that_was_emptied_is_failed_with_missing_id(backend: Backend) -> None:
    order = backend.order(["a"])
    order.workflow_id = ""
    (result,) = await order.execute()
    assert (result.success, result.error, order.status, order.ledger) == (False, "missing_id", order.status, [])
    assert order.is_failed


async def test_validate_of_a_good_plan_succeeds_and_says_empty_steps_or_missing_id_else() -> None:
    assert (await Workflow("w", ["a"]).validate()).success
    assert (await Workflow("w").validate()).error == "empty_steps"
    nameless = Workflow("w", ["a"])
    nameless.workflow_id = ""
    assert (await nameless.validate()).error == "missing_id"


@pytest.mark.parametrize("workflow_id", ["x" * 201, "a\nb", "a\0b", "a\u202eb", "\x1b[31m", "\ud800", "a\u2028b"])
async def test_an_id_is_1_to_200_printable_characters(backend: Backend, workflow_id: str) -> None:
    order = backend.order(["a"], workflow_id)
    with pytest.raises(WorkflowConfigurationError, match="1 to 200 printable characters") as caught:
        await order.execute()
    assert str(caught.value).isprintable()
    assert order.ledger == []


async def test_an_id_of_200_characters_is_fine(backend: Backend) -> None:
    order = backend.order(["a"], "é" * 200)
    await order.execute()
    assert seen(await backend.again(order)) == ("completed", ["a"])


@pytest.mark.parametrize("step", ["", "a\n", "s" * 201, 7, None])
async def test_a_step_name_that_is_none_is_refused(backend: Backend, step: Any) -> None:
    order = backend.order(["a", step])
    with pytest.raises(WorkflowConfigurationError, match=r"step name of workflow 'order-1' must be a string"):
        await order.execute()
    assert (order.ledger, await kinds(order)) == ([], [])


def test_a_persistence_that_lacks_a_method_is_refused_when_the_workflow_is_made() -> None:
    class Half:
        async def append(self) -> None: ...

    with pytest.raises(WorkflowConfigurationError, match="append, read and delete; Half does not have all three"):
        Workflow("w", ["a"], persistence=Half())  # type: ignore[arg-type] # what users may get wrong


async def test_the_base_class_has_no_steps_of_its_own() -> None:
    with pytest.raises(NotImplementedError, match="execute_step"):
        await Workflow("w", ["a"]).execute_step("a")


# Validation.


class Checked(Order):
    """A workflow with checks of its own."""

    problem: Any = None

    async def validate(self) -> WorkflowResult:
        if isinstance(self.problem, Exception):
            raise self.problem
        if self.problem is not None:
            return self.problem  # type: ignore[no-any-return] # as users who use no type checker
        return await super().validate()


def checked(backend: Backend) -> Checked:
    return Checked("order-1", ["a"], {"amount": -1}, persistence=backend.persistence)


async def test_a_failed_validation_ends_failed_with_that_one_result(backend: Backend) -> None:
    order = checked(backend)
    told: list[object] = []
    order.on_workflow_failed = told.append
    order.problem = WorkflowResult(False, "validation", error="bad_amount", message="amount must be positive")
    results = await order.execute()
    assert results == [order.problem]
    assert (seen(order), order.ledger, told) == (("failed", ["validation!"]), [], [[order.problem]])


async def test_a_failed_validation_is_not_journaled_so_that_a_mended_order_can_run(backend: Backend) -> None:
    order = checked(backend)
    order.problem = WorkflowResult(False, "validation", error="bad_amount")
    await order.execute()
    assert await kinds(order) == []
    order.problem, order.metadata = None, {"amount": 1}
    await order.execute()
    assert (seen(order), order.metadata) == (("completed", ["a"]), {"amount": 1})
    if backend.persistence is not None:
        other = Checked("order-2", ["a"], persistence=backend.persistence)
        other.problem = WorkflowResult(False, "validation", error="bad_amount")
        await other.execute()
        mended = Checked("order-2", ["a"], persistence=backend.persistence)
        await mended.execute()
        assert seen(mended) == ("completed", ["a"])


async def test_a_validation_that_raises_is_a_failed_validation(backend: Backend) -> None:
    order = checked(backend)
    order.problem = LookupError("no such customer")
    (result,) = await order.execute()
    assert (order.status, result.error) == (WorkflowStatus.FAILED, "validation_error")
    assert result.message == "validate() raised LookupError: no such customer"


async def test_a_validation_that_returns_no_result_is_a_failed_validation(backend: Backend) -> None:
    order = checked(backend)
    order.problem = True
    (result,) = await order.execute()
    assert (order.status, result.error, order.ledger) == (WorkflowStatus.FAILED, "invalid_result", [])
    assert result.message == "validate() returned bool, not a WorkflowResult."


async def test_a_validation_that_forgets_the_steps_does_not_let_an_empty_plan_run(backend: Backend) -> None:
    class Careless(Order):
        async def validate(self) -> WorkflowResult:
            return WorkflowResult(True, "validation")

    order = Careless("order-1", [], persistence=backend.persistence)
    (result,) = await order.execute()
    assert (order.status, result.error) == (WorkflowStatus.FAILED, "empty_steps")


async def test_a_known_run_is_not_validated_again(store: Store) -> None:
    order = checked(Backend(store))
    await order.execute()
    order.problem = WorkflowResult(False, "validation", error="too_late")
    await order.execute()
    assert seen(order) == ("completed", ["a"])
    again = checked(Backend(store))
    again.problem = WorkflowResult(False, "validation", error="too_late")
    await again.execute()
    assert (seen(again), again.ledger) == (("completed", ["a"]), [])


async def test_a_failed_result_never_asks_for_approval(backend: Backend) -> None:
    order = backend.order(
        does={"a": lambda workflow, name: WorkflowResult(False, name, error="no", requires_approval=True)}
    )
    order.configure(rollback_on_failure=False, continue_on_step_failure=True, require_approval=True)
    await order.execute()
    assert seen(order) == ("completed", ["a!", "b", "c"])


async def test_a_result_that_asks_gates_nothing_unless_require_approval_is_configured(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    await order.execute()
    assert (seen(order), order.results[0].requires_approval) == (("completed", ["a", "b", "c"]), True)


async def test_a_step_may_come_several_times(backend: Backend) -> None:
    order = backend.order(["a", "b", "a"], does={"rollback_a": nothing})
    await order.execute()
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "a"]), ["a", "b", "a"])


async def test_many_workflows_run_in_one_store_at_once(store: Store) -> None:
    orders = [Order(f"order-{n}", ["a", "b"], persistence=store) for n in range(20)]
    await asyncio.gather(*(order.execute() for order in orders))
    assert {tuple(order.ledger) for order in orders} == {("a", "b")}
    assert len(await store.find(status=WorkflowStatus.COMPLETED)) == 20


async def test_a_private_in_memory_run_asks_for_no_serialisation_and_a_persistence_does() -> None:
    thing = object()
    does: dict[str, Behaviour] = {"a": lambda workflow, name: WorkflowResult(True, name, {"thing": thing})}
    live = Order("order-1", ["a"], {"key": thing}, does=does)
    (result,) = await live.execute()
    assert (result.data["thing"], live.metadata["key"], live.status) == (thing, thing, WorkflowStatus.COMPLETED)
    strict = Order("order-1", ["a"], persistence=InMemoryPersistence(), does=does)
    (result,) = await strict.execute()
    assert (result.error, strict.status) == ("result_not_serializable", WorkflowStatus.FAILED)
