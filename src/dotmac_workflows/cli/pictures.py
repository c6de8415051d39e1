"""`diagram`, and `show --svg`: pictures of a plan and of a run."""

import asyncio
from collections.abc import Sequence
from inspect import signature

from .._run.runtime import Runtime
from .._verbs import Verbs
from ..base import Workflow
from ..persistence import Record
from ..pictures import timeline_svg
from .context import Context
from .exits import DONE, CommandError
from .loading import load_workflow, open_store, said
from .standing import PlainCodec


def diagram(context: Context) -> int:
    """Print the plan of a class, or that of a run and where it stands, as a Mermaid flowchart."""
    subject: str = context.arguments.subject
    workflow = _planned(subject) if ":" in subject else asyncio.run(_stored(context, subject))
    for line in workflow.to_mermaid().splitlines():
        context.out.line(line)
    return DONE


def write_timeline(path: str, workflow_id: str, records: Sequence[Record]) -> None:
    """Write the timeline of a run into an SVG file.

    Raises:
        CommandError: The file cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(timeline_svg(workflow_id, records))
    except OSError as error:
        raise CommandError(f"{path!r} cannot be written: {error.strerror}. Give another file.") from error


def _planned(spec: str) -> Workflow:
    maker = load_workflow(spec)
    try:
        signature(maker).bind()
    except TypeError as error:
        raise CommandError(
            f"{spec} cannot be made without arguments: {error}. Give the id of a run, whose plan is stored."
        ) from error
    try:
        return maker()  # type: ignore[call-arg] # bound above
    except Exception as error:
        raise CommandError(f"{spec} cannot be made: {said(error)}.") from error


async def _stored(context: Context, workflow_id: str) -> Workflow:
    async with open_store(context.db) as store:
        shown = Workflow(workflow_id, persistence=store)
        # Whatever types its values are of, they are shown nowhere.
        shown.runtime = Runtime(codec=PlainCodec())
        await Verbs(shown).attach()
        return shown
