"""The commands that only record: approve, reject, pause, cancel, skip-rollback; and delete. None needs the class."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..base import Workflow
from ..errors import PersistenceError, WorkflowExecutionError
from ..status import WorkflowStatus
from .context import Context
from .exits import DONE, REFUSED, CommandError
from .loading import WatchedStore, open_store, read_object
from .standing import load_any, not_found, read_standing, what_next
from .terminal import Styled
from .wording import status_phrase

_ENDED = (WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.CANCELLED)


def approve(context: Context) -> int:
    """Record an approval."""
    data = read_object(context.arguments.data, "The approval's data")
    return _record(context, "approved", lambda workflow: workflow.approve(data, actor=context.actor))


def reject(context: Context) -> int:
    """Record a rejection."""
    _confirm(context, f"Reject {context.arguments.id!r}, which ends it?")
    reason = context.arguments.reason
    return _record(context, "rejected", lambda workflow: workflow.reject(reason, actor=context.actor))


def pause(context: Context) -> int:
    """Ask a run to hold."""
    reason = context.arguments.reason
    return _record(context, "asked to pause", lambda workflow: workflow.pause(reason, actor=context.actor))


def cancel(context: Context) -> int:
    """Ask a run to end."""
    _confirm(context, f"Cancel {context.arguments.id!r}?")
    reason = context.arguments.reason
    return _record(context, "asked to end", lambda workflow: workflow.cancel(reason, actor=context.actor))


def skip_rollback(context: Context) -> int:
    """Record that a step was put right by other means."""
    step, reason = context.arguments.step, context.arguments.reason
    return _record(
        context,
        f"told that {step!r} was put right",
        lambda workflow: workflow.skip_rollback(step, reason, actor=context.actor),
    )


def _record(context: Context, what: str, verb: Callable[[Workflow], Awaitable[Any]]) -> int:
    workflow_id: str = context.arguments.id
    store = open_store(context.db)

    async def work() -> int:
        async with store:
            workflow = await load_any(store, workflow_id)
            await verb(workflow)
            standing = await read_standing(store, workflow_id)
        if standing is None:
            raise not_found(workflow_id, store)
        stands = status_phrase(standing.state.status, driven=standing.driver is not None)
        context.out.line(f"{workflow_id!r} was {what} by {context.actor}; it ", stands, ".")
        context.tell(*what_next(standing, context.commands()))
        return DONE

    return asyncio.run(work())


def delete(context: Context) -> int:
    """Forget a run."""
    workflow_id: str = context.arguments.id
    store = open_store(context.db)
    _confirm(context, f"Delete {workflow_id!r} and its journal for good?")

    async def work() -> int:
        async with store:
            if not context.arguments.force:
                await _refuse_unfinished(store, workflow_id)
            if not await store.delete(workflow_id):
                raise not_found(workflow_id, store)
        context.out.line(f"{workflow_id!r} and its journal were deleted.")
        return DONE

    return asyncio.run(work())


async def _refuse_unfinished(store: WatchedStore, workflow_id: str) -> None:
    try:
        standing = await read_standing(store, workflow_id)
    except PersistenceError:
        return  # damaged beyond reading: to delete it is what its error says
    if standing is not None and (standing.state.status not in _ENDED or standing.state.rollback_status == "incomplete"):
        how = "has an incomplete rollback" if standing.state.status in _ENDED else f"is {standing.state.status}"
        raise WorkflowExecutionError(
            f"Workflow {workflow_id!r} {how}: to delete it forgets what is still to be done or undone. End it "
            "first, or give --force.",
            workflow_id=workflow_id,
        )


def _confirm(context: Context, question: str) -> None:
    """Ask on a terminal; without one, whoever wrote the script has decided.

    Raises:
        CommandError: The answer is not yes.
    """
    if context.arguments.yes or not context.err.can_ask:
        return
    if context.err.ask(Styled(question, "bold"), " [y/N] ").lower() not in ("y", "yes"):
        raise CommandError("Not done, for the answer was not yes.", REFUSED)
