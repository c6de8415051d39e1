"""Telling the user's callbacks what was committed.

After the commit, at most once, and never changing an outcome.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from .._core import events as ev
from .._core.events import Event
from .._core.state import RunState
from ..types import AsyncWorkflowCallback, WorkflowCallback
from .logs import keys, logger, step_of

Callback: TypeAlias = WorkflowCallback | AsyncWorkflowCallback | None

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


async def tell(subject: object, state: RunState, events: list[Event]) -> None:
    """Tell the callbacks that a subject has of events that were committed."""
    for event in events:
        name = NAMES.get(type(event))
        if name is not None and (callback := getattr(subject, name)) is not None:
            await call(callback, event, state)


async def call(callback: Callable[..., object], event: Event, state: RunState) -> None:
    """Call a callback with what it is told of an event, and await it where it is async.

    What it raises is logged. Only a cancellation of the task itself, and what is to end the process, goes through.
    """
    task = asyncio.current_task()
    cancels = task.cancelling() if task else 0
    try:
        answer = callback(_argument(event, state))
        if inspect.isawaitable(answer):
            await answer
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > cancels:
            raise
        _log(error, event, state)
    except Exception as error:
        _log(error, event, state)


def _argument(event: Event, state: RunState) -> object:
    """Return what a callback is told: the step, the result, or all results."""
    if isinstance(event, ev.StepStarted | ev.ApprovalRequested | ev.RollbackStarted):
        return event.step
    if isinstance(event, ev.StepSucceeded | ev.StepFailed | ev.StepInterrupted):
        return event.result
    return list(state.results)


def _log(error: BaseException, event: Event, state: RunState) -> None:
    name = NAMES[type(event)]
    logger.error(
        "Callback %s of workflow %r raised %s; the workflow goes on.",
        name,
        state.workflow_id,
        type(error).__name__,
        exc_info=error,
        extra=keys(
            state.workflow_id,
            state.plan.workflow_type if state.plan else None,
            name,
            step_of(event),
            getattr(event, "attempt", None),
        ),
    )
