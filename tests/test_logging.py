"""What is logged: each transition with its ids, and never what the user's values say."""

import asyncio
import logging
from typing import Any

import pytest

from dotmac_workflows import Workflow, WorkflowResult
from workflows import Backend, Held, InTurn, Order, asks, fails, nothing, raises, within

KEYS = {"workflow_id", "workflow_type", "step", "attempt", "event"}
SECRET = "4111-1111"


def of_the_library(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("dotmac_workflows")]


async def everything_that_may_go_wrong(backend: Backend) -> None:
    """Let everything that the library logs happen, with a secret in all values."""

    def secretive(workflow: Order, name: str) -> WorkflowResult:
        return WorkflowResult(True, name, {"card": SECRET}, message=SECRET, requires_approval=True)

    def unstorable(workflow: Order, name: str) -> WorkflowResult:
        return WorkflowResult(False, name, {"card": {SECRET}, "thing": object()}, error=SECRET, message=SECRET)

    def misnamed(workflow: Order, name: str) -> WorkflowResult:
        return WorkflowResult(True, "elsewhere", {"card": SECRET})

    order = backend.order(
        ["a", "b", "c", "d"],
        metadata={"card": SECRET},
        does={
            "a": secretive,
            "b": misnamed,
            "c": InTurn(unstorable, lambda workflow, name: SECRET, raises(OSError("down"))),
            "d": fails(SECRET, SECRET),
            "rollback_a": nothing,
            "rollback_b": InTurn(unstorable, raises(OSError("down")), lambda workflow, name: [SECRET], misnamed),
        },
    )
    order.configure(require_approval=True)

    def breaks(told: object) -> None:
        raise LookupError("no mailbox")

    order.on_step_started = breaks
    await order.execute()
    await order.approve_and_continue({"card": SECRET}, actor="lead@example.com")
    for _ in range(3):
        await order.retry_rollback() if order.rollback_status == "incomplete" else None
    for _ in range(2):
        await order.retry()
        await order.approve_and_continue({"card": SECRET})
        while order.rollback_status == "incomplete":
            await order.retry_rollback()
    if backend.persistence is not None:
        fresh = backend.order([], metadata={"card": SECRET + "2"}, workflow_id="order-1")
        await fresh.execute()
    refused = backend.order(["a"], workflow_id="order-2", metadata={"card": SECRET}, does={"a": asks})
    refused.configure(require_approval=True)
    await refused.execute()
    await refused.reject_and_cancel(SECRET)
    held = Held()
    cancelled = backend.order(["a"], workflow_id="order-3", does={"a": held})
    task = asyncio.create_task(cancelled.execute())
    await within(held.running.wait())
    await cancelled.cancel(SECRET)
    await within(task)

    class Invalid(Order):
        async def validate(self) -> WorkflowResult:
            raise OSError("down")

    await Invalid("order-4", ["a"], {"card": SECRET}, persistence=backend.persistence).execute()


async def test_every_record_has_the_same_keys(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await everything_that_may_go_wrong(backend)
    records = of_the_library(caplog)
    levels = {record.levelname for record in records}
    assert levels >= {"INFO", "WARNING", "ERROR"}
    for record in records:
        assert vars(record).keys() >= KEYS, record.getMessage()
        assert vars(record)["workflow_id"] in record.getMessage()
        assert vars(record)["workflow_type"] in ("Order", "Invalid")
        assert isinstance(vars(record)["event"], str)


async def test_no_payload_is_in_any_log_text(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await everything_that_may_go_wrong(backend)
    assert SECRET not in caplog.text
    for record in of_the_library(caplog):
        assert SECRET not in repr(vars(record))


async def test_each_transition_is_logged_at_info_with_step_and_attempt(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    order = backend.order(["a", "b"], does={"a": asks, "b": fails()})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve_and_continue()
    logged = [
        (shown["event"], shown["step"], shown["attempt"])
        for shown in map(vars, of_the_library(caplog))
        if shown["levelname"] == "INFO" and shown["event"] not in ("Claimed", "Released")
    ]
    assert logged == [
        ("WorkflowStarted", None, None),
        ("StepStarted", "a", 1),
        ("StepSucceeded", "a", None),
        ("ApprovalRequested", "a", None),
        ("Approved", None, None),
        ("StepStarted", "b", 1),
        ("StepFailed", "b", None),
        ("RollbackStarted", "b", None),
        ("RollbackStepStarted", "a", 1),
        ("RollbackStepSucceeded", "a", None),
        ("RollbackFinished", None, None),
        ("WorkflowFailed", None, None),
    ]


async def test_what_is_only_recorded_is_logged_too(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    order = backend.order(["a", "b"], does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    caplog.set_level(logging.INFO)
    await order.approve(actor="lead@example.com")
    assert [vars(record)["event"] for record in of_the_library(caplog)] == ["Approved"]


async def test_a_step_that_raises_is_logged_with_its_traceback(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    await backend.order(["a"], does={"a": raises(OSError("down"))}).execute()
    (error,) = [record for record in of_the_library(caplog) if record.levelno == logging.ERROR]
    assert error.getMessage() == "Step 'a' of workflow 'order-1' raised OSError."
    assert error.exc_info is not None
    assert (vars(error)["step"], vars(error)["attempt"]) == ("a", 1)


async def test_the_library_adds_no_handler_and_prints_nothing(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    await everything_that_may_go_wrong(backend)
    captured = capsys.readouterr()
    assert captured.out == ""
    for name in ("dotmac_workflows", "dotmac_workflows.recovery"):
        logger = logging.getLogger(name)
        assert (logger.handlers, logger.level) == ([], logging.NOTSET)


def test_the_text_of_a_workflow_is_its_class_id_and_status() -> None:
    workflow: Any = Workflow("order-1", ["a"], {"card": SECRET})
    assert repr(workflow) == "<Workflow 'order-1' pending>"
