"""State set by hand before a run: a draft, and what may be set when."""

import asyncio
from typing import Any

import pytest

from dotmac_workflows import (
    AlreadyDecidedError,
    WorkflowConfigurationError,
    WorkflowExecutionError,
    WorkflowResult,
    WorkflowStatus,
)
from dotmac_workflows._core.events import WorkflowStarted
from workflows import Backend, Held, Order, Store, asks, events, fails, kinds, seen, steps_of, within

ATTRIBUTES: dict[str, Any] = {
    "status": WorkflowStatus.PENDING,
    "current_step_index": 1,
    "results": [],
    "pending_approval_step": "a",
    "approval_data": {"n": 1},
    "rollback_on_failure": False,
    "continue_on_step_failure": True,
    "require_approval": True,
    "rollback_on_cancel": True,
    "on_rollback_failure": "halt",
    "steps": ["x"],
    "workflow_id": "order-2",
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_state_is_readable_and_settable_before_a_run(backend: Backend, name: str) -> None:
    order = backend.order()
    setattr(order, name, ATTRIBUTES[name])
    assert getattr(order, name) == ATTRIBUTES[name]


async def test_settings_and_steps_that_were_assigned_are_those_of_the_run(backend: Backend) -> None:
    order = backend.order([])
    order.steps = ["a", "b"]
    order.steps.append("c")
    order.require_approval = True
    order.does = {"a": asks}
    order.metadata["n"] = 1
    await order.execute()
    assert (order.status, order.pending_approval_step) == (WorkflowStatus.WAITING_APPROVAL, "a")
    again = await backend.again(order)
    await again.approve_and_continue()
    assert (seen(again), again.metadata) == (("completed", ["a", "b", "c"]), {"n": 1})


async def test_an_id_that_was_assigned_is_that_of_the_run(store: Store) -> None:
    order = Backend(store).order(["a"])
    order.workflow_id = "order-9"
    await order.execute()
    assert (seen(await Order.load("order-9", store)), await store.read("order-1")) == (("completed", ["a"]), [])


async def test_a_draft_begins_at_its_current_step_index_and_is_kept_in_the_first_event(backend: Backend) -> None:
    order = backend.order()
    order.current_step_index = 1
    order.results = [WorkflowResult(True, "a", {"by": "hand"})]
    order.approval_data = {"n": 1}
    await order.execute()
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["b", "c"])
    assert order.results[0].data == {"by": "hand"}
    assert order.approval_data == {"n": 1}
    started = (await events(order))[0]
    assert isinstance(started, WorkflowStarted)
    assert started.draft is not None
    assert (started.draft.current_step_index, steps_of(list(started.draft.results))) == (1, ["a"])
    again = await backend.again(order)
    assert (seen(again), again.approval_data) == (seen(order), {"n": 1})


async def test_the_steps_of_a_draft_are_undone_too(backend: Backend) -> None:
    order = backend.order(does={"c": fails()})
    order.current_step_index = 2
    order.results = [WorkflowResult(True, "a"), WorkflowResult(True, "b")]
    await order.execute()
    assert order.ledger == ["c", "rollback_b", "rollback_a"]


async def test_a_draft_that_waits_at_a_gate_can_be_approved(backend: Backend) -> None:
    order = backend.order()
    order.status = WorkflowStatus.WAITING_APPROVAL
    order.pending_approval_step = "a"
    order.results = [WorkflowResult(True, "a")]
    assert order.is_waiting_approval
    assert steps_of(await order.execute()) == ["a"]
    assert (order.ledger, await kinds(order)) == ([], [])
    await order.approve_and_continue({"n": 1}, actor="lead@example.com")
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["b", "c"])
    assert seen(await backend.again(order)) == seen(order)


async def test_a_draft_that_waits_at_a_gate_can_be_rejected_cancelled_or_approved_without_running(
    backend: Backend,
) -> None:
    def draft(workflow_id: str) -> Order:
        order = backend.order(workflow_id=workflow_id)
        order.status, order.pending_approval_step = WorkflowStatus.WAITING_APPROVAL, "a"
        order.results = [WorkflowResult(True, "a")]
        return order

    rejected, cancelled, approved = draft("order-1"), draft("order-2"), draft("order-3")
    await rejected.reject_and_cancel("no")
    await cancelled.cancel()
    await approved.approve()
    assert seen(rejected) == ("cancelled", ["a", "a!"])
    assert seen(cancelled) == ("cancelled", ["a"])
    assert (seen(approved), approved.ledger) == (("running", ["a"]), [])
    await (await backend.again(approved)).resume()
    assert approved.ledger == ["b", "c"] or (await backend.again(approved)).is_completed


async def test_a_draft_that_says_running_refuses_execute(backend: Backend) -> None:
    order = backend.order()
    order.status = WorkflowStatus.RUNNING
    with pytest.raises(WorkflowExecutionError, match="'order-1' is already running: its status says so"):
        await order.execute()
    assert (order.ledger, await kinds(order)) == ([], [])


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "paused"])
async def test_a_draft_that_ended_or_holds_runs_nothing(backend: Backend, status: str) -> None:
    order = backend.order()
    order.status = WorkflowStatus(status)
    order.results = [WorkflowResult(True, "a")]
    assert steps_of(await order.execute()) == ["a"]
    assert (seen(order), order.ledger, await kinds(order)) == ((status, ["a"]), [], [])


async def test_a_paused_draft_can_be_resumed_and_a_failed_one_retried(backend: Backend) -> None:
    paused = backend.order()
    paused.status, paused.current_step_index = WorkflowStatus.PAUSED, 1
    paused.results = [WorkflowResult(True, "a")]
    await paused.resume()
    assert (seen(paused), paused.ledger) == (("completed", ["a", "b", "c"]), ["b", "c"])
    failed = backend.order(workflow_id="order-2")
    failed.status, failed.current_step_index = WorkflowStatus.FAILED, 1
    failed.results = [WorkflowResult(True, "a"), WorkflowResult(False, "b")]
    await failed.retry()
    assert (seen(failed), failed.ledger) == (("completed", ["a", "b", "c"]), ["b", "c"])


@pytest.mark.parametrize("index", [-1, 4])
async def test_a_draft_whose_index_is_none_of_its_steps_is_refused(backend: Backend, index: int) -> None:
    order = backend.order()
    order.current_step_index = index
    with pytest.raises(
        WorkflowConfigurationError, match=f"is {index}, but it has 3 steps and is pending. Set it to 0 up to 3"
    ):
        await order.execute()
    assert (order.ledger, await kinds(order)) == ([], [])


async def test_a_draft_that_waits_behind_the_last_step_is_refused(backend: Backend) -> None:
    order = backend.order()
    order.status, order.current_step_index = WorkflowStatus.WAITING_APPROVAL, 3
    with pytest.raises(WorkflowConfigurationError, match=r"is waiting_approval. Set it to 0 up to 2"):
        await order.approve_and_continue()
    order.steps, order.current_step_index = [], 0
    with pytest.raises(WorkflowConfigurationError, match="Give it the step that it waits at"):
        await order.approve_and_continue()
    assert (order.ledger, await kinds(order)) == ([], [])


async def test_from_dict_makes_a_draft_that_a_verb_goes_on_from(backend: Backend) -> None:
    order = backend.order(does={"a": asks, "c": fails()})
    order.configure(require_approval=True)
    await order.execute()
    shown = order.to_dict()
    twin = Order.from_dict(shown | {"workflow_id": "order-2"}, persistence=backend.persistence, does=order.does)
    assert (seen(twin), twin.pending_approval_step) == (("waiting_approval", ["a"]), "a")
    assert twin.to_dict() == shown | {"workflow_id": "order-2"}
    await twin.approve_and_continue()
    assert twin.ledger == ["b", "c", "rollback_b", "rollback_a"]
    assert (twin.status, twin.rollback_status) == (WorkflowStatus.FAILED, "done")
    assert order.status is WorkflowStatus.WAITING_APPROVAL


async def test_from_dict_of_an_incomplete_rollback_can_be_retried(backend: Backend) -> None:
    order = backend.order(does={"c": fails(), "rollback_a": fails()})
    await order.execute()
    twin = Order.from_dict(order.to_dict() | {"workflow_id": "order-2"}, persistence=backend.persistence)
    assert twin.rollback_status == "incomplete"
    with pytest.raises(WorkflowExecutionError, match="rollback is incomplete"):
        await twin.retry()
    await twin.retry_rollback()
    assert (twin.ledger, twin.rollback_status) == (["rollback_a"], "done")


def test_from_dict_of_what_the_original_wrote_needs_id_and_steps_alone() -> None:
    order = Order.from_dict({"workflow_id": "order-1", "steps": ["a"]})
    assert (order.workflow_id, order.steps, seen(order)) == ("order-1", ["a"], ("pending", []))
    assert (order.rollback_on_failure, order.require_approval) == (True, False)


@pytest.mark.parametrize("bad", [{"status": "nowhere"}, {"results": [{"success": True}]}])
def test_from_dict_of_what_no_to_dict_returns_is_a_value_error(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"nowhere|lacks"):
        Order.from_dict({"workflow_id": "order-1", "steps": ["a"], **bad})


def test_from_dict_of_a_class_that_cannot_be_made_so_says_what_to_do() -> None:
    class Odd(Order):
        def __init__(self, service: object) -> None:
            super().__init__()

    with pytest.raises(WorkflowConfigurationError, match="Odd cannot be made with"):
        Odd.from_dict({"workflow_id": "order-1", "steps": ["a"]})


async def test_to_dict_and_from_dict_survive_a_whole_run(backend: Backend) -> None:
    order = backend.order(["a", "b"], metadata={"n": 1}, does={"b": fails("no")})
    await order.execute()
    assert Order.from_dict(order.to_dict()).to_dict() == order.to_dict()


# Assigning once there is a run.


@pytest.mark.parametrize("name", [*ATTRIBUTES, "metadata"])
async def test_once_a_run_is_stored_assigning_is_refused(store: Store, name: str) -> None:
    order = Backend(store).order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    for known in (order, await Order.load("order-1", store)):
        before = getattr(known, name)
        with pytest.raises(WorkflowExecutionError, match=rf"{name} of workflow 'order-1' cannot be set.*stored"):
            setattr(known, name, ATTRIBUTES.get(name, {}))
        assert getattr(known, name) == before


@pytest.mark.parametrize("name", ATTRIBUTES)
async def test_while_it_runs_assigning_is_refused(backend: Backend, name: str) -> None:
    errors: list[str] = []

    def assigns(workflow: Order, step: str) -> WorkflowResult:
        try:
            setattr(workflow, name, ATTRIBUTES[name])
        except WorkflowExecutionError as error:
            errors.append(str(error))
        return WorkflowResult(True, step)

    order = backend.order(["a"], does={"a": assigns})
    await order.execute()
    assert errors == [f"{name} of workflow 'order-1' cannot be set: it runs. Set it before execute()."]
    assert seen(order) == ("completed", ["a"])


async def test_configure_of_a_stored_run_is_refused(store: Store) -> None:
    order = Backend(store).order()
    await order.execute()
    with pytest.raises(WorkflowExecutionError, match="cannot be set"):
        order.configure(require_approval=True)
    assert order.require_approval is False


CHANGES: list[Any] = [
    lambda steps: steps.append("x"),
    lambda steps: steps.extend(["x"]),
    lambda steps: steps.insert(0, "x"),
    lambda steps: steps.remove("a"),
    lambda steps: steps.pop(),
    lambda steps: steps.clear(),
    lambda steps: steps.reverse(),
    lambda steps: steps.sort(),
    lambda steps: steps.__setitem__(0, "x"),
    lambda steps: steps.__delitem__(0),
    lambda steps: steps.__iadd__(["x"]),
    lambda steps: steps.__imul__(2),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_to_steps_while_it_runs_is_refused_never_ignored(backend: Backend, change: Any) -> None:
    errors: list[str] = []

    def changes(workflow: Order, step: str) -> WorkflowResult:
        try:
            change(workflow.steps)
        except WorkflowExecutionError as error:
            errors.append(str(error))
        return WorkflowResult(True, step)

    order = backend.order(["a", "b"], does={"a": changes})
    await order.execute()
    assert len(errors) == 1
    assert "pinned for the run" in errors[0]
    assert (seen(order), order.steps) == (("completed", ["a", "b"]), ["a", "b"])


METADATA_CHANGES: list[Any] = [
    lambda metadata: metadata.__setitem__("n", 2),
    lambda metadata: metadata.update(n=2),
    lambda metadata: metadata.pop("n"),
    lambda metadata: metadata.popitem(),
    lambda metadata: metadata.clear(),
    lambda metadata: metadata.setdefault("m", 2),
    lambda metadata: metadata.__delitem__("n"),
    lambda metadata: metadata.__ior__({"n": 2}),
    lambda metadata: metadata["deep"]["list"].append(3),
    lambda metadata: metadata["deep"].update(x=1),
]


@pytest.mark.parametrize("change", METADATA_CHANGES)
async def test_with_a_persistence_metadata_is_read_only_while_it_runs_at_any_depth(store: Store, change: Any) -> None:
    errors: list[str] = []

    def changes(workflow: Order, step: str) -> WorkflowResult:
        try:
            change(workflow.metadata)
        except WorkflowExecutionError as error:
            errors.append(str(error))
        return WorkflowResult(True, step)

    given = {"n": 1, "deep": {"list": [1, 2]}}
    order = Backend(store).order(["a"], metadata=given, does={"a": changes})
    await order.execute()
    assert len(errors) == 1
    assert "data of its result" in errors[0]
    assert (order.metadata, order.status) == ({"n": 1, "deep": {"list": [1, 2]}}, WorkflowStatus.COMPLETED)


async def test_with_a_persistence_assigning_metadata_while_it_runs_is_refused(store: Store) -> None:
    errors: list[str] = []

    def assigns(workflow: Order, step: str) -> WorkflowResult:
        try:
            workflow.metadata = {}
        except WorkflowExecutionError as error:
            errors.append(str(error))
        return WorkflowResult(True, step)

    order = Backend(store).order(["a"], metadata={"n": 1}, does={"a": assigns})
    await order.execute()
    assert errors == ["metadata of workflow 'order-1' cannot be set: it runs. Set it before execute()."]
    assert order.metadata == {"n": 1}


async def test_without_a_persistence_metadata_may_change_while_it_runs() -> None:
    """As in the original."""
    shared = {"n": 1}

    def changes(workflow: Order, step: str) -> WorkflowResult:
        workflow.metadata["n"] += 1
        return WorkflowResult(True, step)

    order = Order("order-1", ["a", "b"], shared, does={"a": changes, "b": changes})
    await order.execute()
    assert (order.metadata, shared, order.status) == ({"n": 3}, {"n": 3}, WorkflowStatus.COMPLETED)
    order.metadata = {"n": 9}
    assert (order.metadata, seen(order)) == ({"n": 9}, ("completed", ["a", "b"]))


async def test_without_a_persistence_metadata_may_be_replaced_while_it_runs() -> None:
    def replaces(workflow: Order, name: str) -> WorkflowResult:
        workflow.metadata = {"n": 2}
        return WorkflowResult(True, name)

    order = Order("order-1", ["a", "b"], {"n": 1}, does={"a": replaces})
    await order.execute()
    assert (order.metadata, seen(order)) == ({"n": 2}, ("completed", ["a", "b"]))
    assert (await kinds(order))[-1] == "WorkflowCompleted"


async def test_without_a_persistence_a_run_that_waits_may_be_set_and_still_be_approved() -> None:
    order = Order("order-1", ["a", "b", "c"], does={"a": asks, "b": asks})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve_and_continue()
    assert order.pending_approval_step == "b"
    order.approval_data = {"by": "hand"}
    await order.approve_and_continue({"n": 1})
    assert (seen(order), order.ledger, order.approval_data) == (
        ("completed", ["a", "b", "c"]),
        ["a", "b", "c"],
        {"n": 1},
    )


async def test_a_status_set_after_a_failed_validation_is_a_draft_like_any_other(backend: Backend) -> None:
    order = backend.order([])
    await order.execute()
    assert order.is_failed
    order.steps = ["a", "b"]
    order.status, order.results = WorkflowStatus.COMPLETED, [WorkflowResult(True, "a"), WorkflowResult(True, "b")]
    assert steps_of(await order.execute()) == ["a", "b"]
    assert (seen(order), order.ledger) == (("completed", ["a", "b"]), [])


async def test_the_gate_of_a_draft_is_the_first_and_the_next_one_is_another(store: Store) -> None:
    order = Backend(store).order(does={"b": asks})
    order.configure(require_approval=True)
    order.status, order.pending_approval_step = WorkflowStatus.WAITING_APPROVAL, "a"
    order.results = [WorkflowResult(True, "a")]
    await order.approve_and_continue(actor="lead@example.com")
    assert (seen(order), order.pending_approval_step) == (("waiting_approval", ["a", "b"]), "b")
    late = Backend(store).order()
    late.status, late.pending_approval_step = WorkflowStatus.WAITING_APPROVAL, "a"
    late._workflow_view.gate = 1  # as an object that was loaded while the run waited there would have it
    with pytest.raises(AlreadyDecidedError, match="of step 'a'"):
        await late.approve_and_continue(actor="owner@example.com")
    assert order.ledger == ["b"]


async def test_without_a_persistence_a_run_that_ended_may_be_set_and_run_again() -> None:
    order = Order("order-1", ["a", "b"])
    await order.execute()
    order.status, order.current_step_index, order.results = WorkflowStatus.PENDING, 0, []
    order.steps.append("c")
    await order.execute()
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "a", "b", "c"])


async def test_while_one_verb_waits_for_the_step_another_may_look_but_not_set(backend: Backend) -> None:
    held = Held()
    order = backend.order(["a"], does={"a": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    with pytest.raises(WorkflowExecutionError, match="it runs"):
        order.status = WorkflowStatus.PENDING
    assert (order.status, order.to_dict()["status"]) == (WorkflowStatus.RUNNING, "running")
    held.go.set()
    await within(task)


@pytest.mark.parametrize("seconds", [float("inf"), True, "1"])
async def test_a_hand_made_result_whose_time_is_none_is_refused(store: Store, seconds: Any) -> None:
    order = Order("order-1", ["a", "b"], persistence=store)
    order.results = [WorkflowResult(True, "a", execution_time=seconds)]
    order.current_step_index = 1
    with pytest.raises(
        WorkflowConfigurationError, match="execution_time is of type .* finite number of seconds"
    ) as caught:
        await order.execute()
    assert caught.value.workflow_id == "order-1"
    assert (await store.read("order-1"), order.ledger) == ([], [])
