"""Walking through all that a store lists."""

from collections.abc import AsyncIterator

from .persistence import Header, Queries
from .status import WorkflowStatus


async def headers(queries: Queries, *, status: WorkflowStatus | None = None) -> AsyncIterator[Header]:
    """Yield all headers, page by page, and each once: a damaged index could list one again and again."""
    seen: set[str] = set()
    page = await queries.find(status=status)
    while fresh := [header for header in page if header.workflow_id not in seen]:
        for header in fresh:
            yield header
        seen.update(header.workflow_id for header in fresh)
        page = await queries.find(status=status, after=page[-1])
