"""`WorkflowResult` and `WorkflowStatus`: the two types that every caller sees."""

from typing import Any

import pytest

from dotmac_workflows import Workflow, WorkflowResult, WorkflowStatus
from workflows import Backend


def test_the_statuses_are_these_and_their_text_is_their_value() -> None:
    assert {status.name: str(status) for status in WorkflowStatus} == {
        "PENDING": "pending",
        "RUNNING": "running",
        "COMPLETED": "completed",
        "FAILED": "failed",
        "CANCELLED": "cancelled",
        "WAITING_APPROVAL": "waiting_approval",
        "PAUSED": "paused",
    }
    assert all(f"{status}" == status.value for status in WorkflowStatus)


def test_a_result_needs_success_and_step_alone() -> None:
    result = WorkflowResult(success=False, step="check")
    assert result.to_dict() == {
        "success": False,
        "step": "check",
        "data": {},
        "error": None,
        "message": None,
        "execution_time": None,
        "requires_approval": False,
    }


def test_a_result_takes_its_fields_in_this_order() -> None:
    result = WorkflowResult(True, "check", {"n": 1}, "code", "text", 0.5, True)
    assert (result.success, result.step, result.data) == (True, "check", {"n": 1})
    assert (result.error, result.message, result.execution_time, result.requires_approval) == (
        "code",
        "text",
        0.5,
        True,
    )


def test_two_results_share_no_data() -> None:
    WorkflowResult(True, "a").data["n"] = 1
    assert WorkflowResult(True, "b").data == {}


@pytest.mark.parametrize("step", ["", None, 3])
def test_a_result_without_a_step_is_a_value_error(step: Any) -> None:
    with pytest.raises(ValueError, match="step must be a non-empty string"):
        WorkflowResult(True, step)


@pytest.mark.parametrize("data", [None, [], "text", 1])
def test_data_that_is_no_dictionary_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError, match="data must be a dictionary"):
        WorkflowResult(True, "check", data)


def test_a_result_survives_the_way_through_a_dictionary() -> None:
    result = WorkflowResult(False, "check", {"n": [1, 2]}, "code", "text", 0.5, True)
    assert WorkflowResult.from_dict(result.to_dict()) == result
    assert WorkflowResult.from_dict({"success": True, "step": "a"}) == WorkflowResult(True, "a")


@pytest.mark.parametrize(
    ("given", "why"), [({"success": True}, r"lacks \['step'\]"), ({"success": True, "step": "a", "x": 1}, r"\['x'\]")]
)
def test_a_dictionary_of_other_keys_is_no_result(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        WorkflowResult.from_dict(given)


def test_a_workflow_begins_pending_and_can_be_made_of_nothing() -> None:
    workflow = Workflow()
    assert workflow.status is WorkflowStatus.PENDING
    assert (workflow.steps, workflow.metadata, workflow.results) == ([], {}, [])
    assert (workflow.current_step_index, workflow.pending_approval_step, workflow.approval_data) == (0, None, None)
    assert (workflow.rollback_on_failure, workflow.continue_on_step_failure, workflow.require_approval) == (
        True,
        False,
        False,
    )
    assert (workflow.is_completed, workflow.is_failed, workflow.is_waiting_approval) == (False, False, False)
    assert (workflow.rollback_status, workflow.execution_time) == ("none", None)


def test_an_id_that_is_left_out_or_empty_is_made() -> None:
    ids = {Workflow().workflow_id, Workflow("").workflow_id, Workflow(None).workflow_id}
    assert len(ids) == 3
    assert all(len(workflow_id) == 36 for workflow_id in ids)


async def test_to_dict_shows_the_run_and_results_as_dictionaries(backend: Backend) -> None:
    order = backend.order(["a"], metadata={"customer": 7})
    await order.execute()
    shown = order.to_dict()
    times = {key: shown.pop(key) for key in ("start_time", "end_time")}
    assert times["start_time"] <= times["end_time"]
    assert shown == {
        "workflow_id": "order-1",
        "steps": ["a"],
        "metadata": {"customer": 7},
        "status": "completed",
        "current_step_index": 1,
        "results": [order.results[0].to_dict()],
        "pending_approval_step": None,
        "approval_data": None,
        "rollback_on_failure": True,
        "continue_on_step_failure": False,
        "require_approval": False,
        "rollback_on_cancel": False,
        "on_rollback_failure": "continue",
        "rollback_status": "none",
    }
    assert (await backend.again(order)).to_dict() == shown | times
