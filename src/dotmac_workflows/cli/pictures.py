"""`diagram`, and `show --svg`: pictures of a plan and of a run."""

import asyncio
import os
from collections.abc import Sequence

from ..base import Workflow
from ..errors import WorkflowNotFoundError
from ..persistence import InMemoryPersistence, Record
from ..pictures import timeline_svg
from .context import Context
from .exits import DONE, CommandError
from .loading import DB_VARIABLE, load_workflow, open_store
from .run import make
from .standing import load_any


def diagram(context: Context) -> int:
    """Print the plan of a class, or that of a run and where it stands, as a Mermaid flowchart."""
    subject: str = context.arguments.subject
    for line in asyncio.run(_find(context, subject)).to_mermaid().splitlines():
        context.out.line(line)
    return DONE


async def _find(context: Context, subject: str) -> Workflow:
    """Return the run of an id, which may hold a colon; else what a class makes, which is not run nor stored."""
    is_spec = ":" in subject
    if not is_spec or context.arguments.db or os.environ.get(DB_VARIABLE):
        try:
            store = open_store(context.db)
            async with store:
                return await load_any(store, subject)
        except (CommandError, WorkflowNotFoundError):
            if not is_spec:
                raise
    return make(load_workflow(subject), "diagram", InMemoryPersistence())


def write_timeline(path: str, workflow_id: str, records: Sequence[Record]) -> None:
    """Write the timeline of a run into an SVG file.

    Raises:
        CommandError: The file cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(timeline_svg(workflow_id, records))
    except OSError as error:
        raise CommandError(f"{path!r} cannot be written: {error.strerror}. Give another file.") from error
