"""The commands that draw: diagram, and show with --svg."""

import asyncio
import os
from collections.abc import Sequence

from ..base import Workflow
from ..errors import WorkflowNotFoundError
from ..persistence import InMemoryPersistence, Record
from ..pictures import timeline_svg, to_mermaid
from .context import Context
from .exits import DONE, CommandError
from .loading import DB_VARIABLE, load_workflow, open_store
from .run import make
from .standing import load_any


def diagram(context: Context) -> int:
    """Draw the plan of a class, or where a run stands."""
    what: str = context.arguments.what
    if not context.arguments.db and not os.environ.get(DB_VARIABLE):
        if ":" not in what:
            raise CommandError(f"{what!r} names no class, and no database is named. Give --db FILE, or MODULE:CLASS.")
        workflow = _plan(what)
    else:
        workflow = asyncio.run(_run(context, what))
    context.out.raw(to_mermaid(workflow))
    return DONE


def _plan(spec: str) -> Workflow:
    """Make a workflow that is not run, and stored nowhere."""
    return make(load_workflow(spec), "diagram", InMemoryPersistence())


async def _run(context: Context, what: str) -> Workflow:
    """Return the run of an id; what is none, and looks like a class, is one."""
    try:
        store = open_store(context.db)
        async with store:
            return await load_any(store, what)
    except (CommandError, WorkflowNotFoundError):
        if ":" not in what:
            raise
    return _plan(what)


def write_svg(context: Context, workflow_id: str, records: Sequence[Record], path: str) -> None:
    """Write the timeline of a run to a file, or for ``-`` to the standard output.

    Raises:
        CommandError: The file cannot be written.
    """
    drawn = timeline_svg(workflow_id, records)
    if path == "-":
        context.out.raw(drawn)
        return
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(drawn)
    except OSError as error:
        raise CommandError(f"The picture cannot be written to {path!r}: {error.strerror}.") from error
    context.tell(f"Written to {path}.")
