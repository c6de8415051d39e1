"""`recover`: carry on every run that is due, at start-up."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from ._listing import headers
from ._run.logs import keys
from ._verbs import Verbs, call_constructor, type_name
from .base import Workflow
from .errors import WorkflowConfigurationError
from .persistence import Header, Leases, Persistence, Queries
from .status import WorkflowStatus

_logger = logging.getLogger(__name__)

WorkflowMaker: TypeAlias = type[Workflow] | Callable[[str, Persistence], Workflow]
"""A class, or what makes a workflow of an id and the store: for those that need more than these two."""


class Recovered(NamedTuple):
    """What became of one run that was due."""

    workflow_id: str
    workflow_type: str
    status: WorkflowStatus
    """Where the run stands now."""
    error: Exception | None
    """What kept it from being carried on; it stays due."""


async def recover(
    persistence: Persistence, workflows: Iterable[WorkflowMaker], *, concurrency: int = 10
) -> list[Recovered]:
    """Carry on every run of these workflows that is due and that nobody drives.

    These are the runs that a crash left, and those whose approval, rejection or cancel was only recorded. One that
    fails to be carried on (a damaged journal, say) keeps nothing else from it. Runs of other types are left alone.

    Args:
        persistence: The store; it must have `Queries` and `Leases`.
        workflows: The classes, or functions of ``(workflow_id, persistence)`` that make them.
        concurrency: How many are carried on at once, from 1.

    Returns:
        What became of each, in the order in which they ended.

    Raises:
        WorkflowConfigurationError: The store cannot find runs, or cannot tell which are driven.
        PersistenceError: The store cannot be listed; what was begun by then was carried on.
    """
    if not isinstance(persistence, Queries) or not isinstance(persistence, Leases):
        missing = "find (Queries)" if not isinstance(persistence, Queries) else "lease and renew (Leases)"
        raise WorkflowConfigurationError(
            f"recover() needs a persistence that has {missing}; {type(persistence).__name__} does not. "
            "Call load() and resume() for each id instead."
        )
    if concurrency < 1:
        raise WorkflowConfigurationError(f"concurrency must be at least 1, not {concurrency}.")
    make = _makers(workflows)
    outcomes: list[Recovered] = []
    places = asyncio.Semaphore(concurrency)

    async def carry_on(header: Header) -> None:
        try:
            outcome = await _carry_on(header, persistence, make)
            if outcome is not None:
                outcomes.append(outcome)
        finally:
            places.release()

    unlisted: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        try:
            async for header in headers(persistence, status=WorkflowStatus.RUNNING):
                await places.acquire()
                tasks.create_task(carry_on(header))
        except Exception as error:
            unlisted = error  # what was begun goes on to its end first, and no group is made of one error
    if unlisted is not None:
        raise unlisted
    return outcomes


def _makers(workflows: Iterable[WorkflowMaker]) -> Callable[[Header, Persistence], Workflow | None]:
    classes: dict[str, type[Workflow]] = {}
    functions: list[Callable[[str, Persistence], Workflow]] = []
    for maker in workflows:
        if not isinstance(maker, type):
            functions.append(maker)
        else:
            for ancestor in maker.__mro__:
                if ancestor not in (Workflow, object) and (ancestor is maker or type_name(ancestor) not in classes):
                    classes[type_name(ancestor)] = maker

    def make(header: Header, persistence: Persistence) -> Workflow | None:
        workflow_class = classes.get(header.workflow_type)
        if workflow_class is not None:
            return call_constructor(workflow_class, workflow_id=header.workflow_id, persistence=persistence)
        for function in functions:
            workflow = function(header.workflow_id, persistence)
            if Verbs(workflow).is_own_type(header.workflow_type):
                return workflow
        return None

    return make


async def _carry_on(
    header: Header, persistence: Persistence, make: Callable[[Header, Persistence], Workflow | None]
) -> Recovered | None:
    """Carry on one run; None: it is driven by now, or of a type that is not ours."""
    workflow = None
    try:
        workflow = make(header, persistence)
        if workflow is None:
            _logger.info(
                "Workflow %r is due and none of these.",
                header.workflow_id,
                extra=keys(header.workflow_id, header.workflow_type, "not_ours"),
            )
            return None
        await Verbs(workflow).attach()
        if not await Verbs(workflow).carry_on():
            return None
    except Exception as error:
        _logger.exception(
            "Workflow %r could not be carried on.",
            header.workflow_id,
            extra=keys(header.workflow_id, header.workflow_type, "not_recovered"),
        )
        status = workflow.status if workflow is not None else header.status
        return Recovered(header.workflow_id, header.workflow_type, status, error)
    return Recovered(header.workflow_id, header.workflow_type, workflow.status, None)
