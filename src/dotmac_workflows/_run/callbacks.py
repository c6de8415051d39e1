"""Telling the user's callbacks what was committed: after the commit, at most once, and never changing an outcome."""

import asyncio
import inspect
import logging
from typing import Any

from .._core import events as ev

logger = logging.getLogger("dotmac_workflows")

NAMES: dict[type[Any], str] = {
    ev.StepStarted: "on_step_started",
    ev.StepSucceeded: "on_step_completed",
    ev.StepFailed: "on_step_completed",
    ev.StepInterrupted: "on_step_completed",
    ev.ApprovalRequested: "on_approval_required",
    ev.RollbackStarted: "on_rollback_started",
    ev.RollbackFinished: "on_rollback_completed",
    ev.WorkflowCompleted: "on_workflow_completed",
    ev.WorkflowFailed: "on_workflow_failed",
    ev.WorkflowCancelled: "on_workflow_cancelled",
}
"""Which callback is told of which event."""


async def call(callback: Any, event: Any, results: list[Any], workflow_id: str, name: str) -> None:
    """Call a callback with what it is told of an event, and await it where it is async.

    What it raises is logged. Only a cancellation of the task itself, and what is to end the process, goes through.
    """
    if hasattr(event, "step"):
        argument = event.step
    elif hasattr(event, "result"):
        argument = event.result
    else:
        argument = list(results)
    task = asyncio.current_task()
    cancels = task.cancelling() if task else 0
    try:
        answer = callback(argument)
        if inspect.isawaitable(answer):
            await answer
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > cancels:
            raise
        _log(error, event, workflow_id, name)
    except Exception as error:
        _log(error, event, workflow_id, name)


def _log(error: BaseException, event: Any, workflow_id: str, name: str) -> None:
    logger.error(
        "Callback %s of workflow %r raised %s; the workflow goes on.",
        name,
        workflow_id,
        type(error).__name__,
        exc_info=error,
        extra={"workflow_id": workflow_id, "step": getattr(event, "step", None), "event": name},
    )
