"""Clauses on `Queries`: what is found, in which order, and page by page."""

from random import Random

from ...persistence import Header
from ...status import WorkflowStatus
from .bench import Bench, Handle, attempt, together
from .clause import Clause, clause
from .comparing import holds, same
from .rows import header, records

_QUERIES = ("Queries",)
_PAUSED = WorkflowStatus.PAUSED


async def _make_some(store: Handle) -> list[Header]:
    """Make eight workflows, and return them in the order of lists; written in another one."""
    made = [
        header("b", 1, created_at=10),
        header("a", 1, created_at=20, status=_PAUSED),
        header("c", 1, created_at=20, workflow_type="Billing", wake_at=100),
        header("z", 1, created_at=20, wake_at=200),
        header("\u00e9", 1, created_at=20, workflow_type="Billing", status=_PAUSED, wake_at=300),
        header("\uff21", 1, created_at=20),  # by its number before the next one, in UTF-16 after it
        header("\U0001f600", 1, created_at=20),
        header("0", 1, created_at=30, workflow_type="Billing"),
    ]
    for n in (4, 1, 7, 0, 5, 3, 6, 2):
        await store.append(made[n].workflow_id, records(0, 1), expected_version=0, header=made[n])
    return made


@clause(
    "find lists the oldest first",
    rule="Headers come by created_at, then by workflow_id, compared by code points, as Python and bytes of UTF-8 do.",
    why="What has waited longest is shown last; and where pages follow another order than the list, some are left out.",
    remedy='ORDER BY created_at, workflow_id in a binary collation (in PostgreSQL COLLATE "C").',
    needs=_QUERIES,
)
async def find_lists_the_oldest_first(bench: Bench) -> None:
    store = await bench.open()
    made = await _make_some(store)
    same(await store.find(), made, "find()")


@clause(
    "find keeps to its filters",
    rule="Only headers of the status, of the type, and with a wake_at at or before due_before; all that are given "
    "count, each left out asks for nothing. A header without wake_at is never due.",
    why="recover() drives what waits for a person, and an inbox shows what is long over.",
    remedy="Test for `is not None`, since 0 is an instant; join the conditions with AND.",
    needs=_QUERIES,
)
async def find_keeps_to_its_filters(bench: Bench) -> None:
    store = await bench.open()
    made = await _make_some(store)
    same(await store.find(status=_PAUSED), [made[1], made[4]], "find(status=paused)")
    same(await store.find(status=WorkflowStatus.COMPLETED), [], "find(status=completed)")
    same(await store.find(workflow_type="Billing"), [made[2], made[4], made[7]], "find(workflow_type='Billing')")
    same(await store.find(workflow_type="billing"), [], "find(workflow_type='billing')")
    same(await store.find(workflow_type="' OR 1=1 --"), [], "find(workflow_type=...)")
    same(await store.find(workflow_type="Bill%"), [], "find(workflow_type='Bill%')")
    same(await store.find(due_before=200), [made[2], made[3]], "find(due_before=200)")
    same(await store.find(due_before=99), [], "find(due_before=99)")
    same(await store.find(due_before=0), [], "find(due_before=0)")
    found = await store.find(status=_PAUSED, workflow_type="Billing", due_before=300)
    same(found, [made[4]], "find of all three")


@clause(
    "an append replaces the header",
    rule="The header of the last append is the one that is found, whole; by its old status or type it is found no "
    "more.",
    why="Lists show a run as it was, and recover() drives runs that have ended.",
    remedy="Replace all columns of the header, and the indexes that are kept of them, in the transaction of the "
    "append.",
    needs=_QUERIES,
)
async def an_append_replaces_the_header(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, header=header("w", 2, pending_step="check", wake_at=7))
    then = header("w", 4, workflow_type="Billing", status=WorkflowStatus.FAILED, created_at=5, wake_at=9)
    await store.append("w", records(2), expected_version=2, header=then)
    same(await store.find(), [then], "find()")
    same(await store.find(status=WorkflowStatus.RUNNING), [], "find(status=running)")
    same(await store.find(workflow_type="Onboarding"), [], "find(workflow_type='Onboarding')")
    same(await store.find(status=WorkflowStatus.FAILED, workflow_type="Billing"), [then], "find of what it is now")
    bare = header("w", 5, workflow_type="Billing", created_at=5)
    await store.append("w", records(4, 1), expected_version=4, header=bare)
    same(await store.find(), [bare], "find()")


@clause(
    "find keeps to its limit",
    rule="At most `limit` headers, and 100 where none is given; a limit larger than all gives all.",
    why="A list of a million runs fills the memory of whoever looks; or a list ends early, and recover() leaves runs "
    "behind.",
    remedy="LIMIT in the query, with a default of 100; bound a limit that the database cannot take.",
    needs=_QUERIES,
)
async def find_keeps_to_its_limit(bench: Bench) -> None:
    store = await bench.open()
    made = [header(f"w{n:03}", 1, created_at=n) for n in range(105)]
    await together(
        store.append(one.workflow_id, records(0, 1), expected_version=0, header=one) for one in reversed(made)
    )
    for limit in (1, 2, 104, 105, 106, 10**12):
        same(await store.find(limit=limit), made[:limit], f"find(limit={limit})")
    same(await store.find(), made[:100], "find()")
    error = await attempt(store.find(limit=0), Exception)
    holds(error is not None or store.calls[-1].answer == "[]", "find(limit=0) to give nothing", "it gave headers")


@clause(
    "pages follow on each other",
    rule="`after` is the last header of the page before: what comes next is what follows it in order, filtered alike, "
    "whether that header is still stored as it was, has changed or was deleted.",
    why="recover() and verify() leave out runs, or list the same ones for ever.",
    remedy="Compare (created_at, workflow_id) with those of `after`; do not look for its row, and do not count rows.",
    needs=_QUERIES,
)
async def pages_follow_on_each_other(bench: Bench) -> None:
    store = await bench.open()
    made = await _make_some(store)
    for limit in (1, 2, 3, 8, 50):
        same(await _pages(store, limit), made, f"all pages of {limit}")
        same(await store.find(status=_PAUSED, after=made[1], limit=limit), [made[4]], "find(status=paused, after=a)")
    found = await store.find(workflow_type="Billing", due_before=300, after=made[2])
    same(found, [made[4]], "find(workflow_type='Billing', due_before=300, after=c)")
    await store.delete("c")
    same(await store.find(after=made[2]), made[3:], "find(after=c), after c was deleted")
    later = header("z", 2, created_at=20, status=_PAUSED)
    await store.append("z", records(1, 1), expected_version=1, header=later)
    same(await store.find(after=made[3]), made[4:], "find(after=z as it was)")


@clause(
    "paging goes on while others write",
    rule="Whoever was there from the first page to the last, and matches, is listed once, whatever is begun, changed "
    "or deleted meanwhile.",
    why="A run that a crash left is not recovered, because another one ended while the list was read.",
    remedy="As for pages that follow on each other: no OFFSET, no list that is kept from page to page.",
    needs=_QUERIES,
)
async def paging_while_others_write(bench: Bench) -> None:
    store = await bench.open()
    made = [header(f"{'stay' if n % 3 else 'go'}{n:02}", 1, created_at=100 + n) for n in range(45)]
    await together(store.append(one.workflow_id, records(0, 1), expected_version=0, header=one) for one in made)
    to_go = made[::3]
    Random(1).shuffle(to_go)

    async def write(turn: int) -> list[Header]:
        for one in (header(f"early{turn}", 1, created_at=turn), header(f"late{turn}", 1, created_at=1000 + turn)):
            await store.append(one.workflow_id, records(0, 1), expected_version=0, header=one)
        if to_go:
            await store.delete(to_go.pop().workflow_id)
        if to_go:
            one = to_go.pop()
            ended = one._replace(status=WorkflowStatus.COMPLETED, version=2)
            await store.append(one.workflow_id, records(1, 1), expected_version=1, header=ended)
        return []

    async def page() -> list[Header]:
        return await store.find(status=WorkflowStatus.RUNNING, after=seen[-1] if seen else None, limit=4)

    seen: list[Header] = []
    last = made
    while last and len(seen) < 2 * len(made):
        last, _ = await together([page(), write(len(seen))])
        seen += last
    listed = [one.workflow_id for one in seen]
    twice = sorted({workflow_id for workflow_id in listed if listed.count(workflow_id) > 1})
    holds(not twice, "each header on one page", f"{twice[:5]} were listed twice")
    missed = [one.workflow_id for one in made if one.workflow_id[:4] == "stay" and one.workflow_id not in listed]
    holds(not missed, "every header that was there all the time on some page", f"{missed[:5]} were left out")


async def _pages(store: Handle, limit: int) -> list[Header]:
    """Read page by page, as the library does, and end what would go on for ever."""
    seen: list[Header] = []
    while len(seen) < 50 and (page := await store.find(after=seen[-1] if seen else None, limit=limit)):
        seen += page
    return seen


CLAUSES: tuple[Clause, ...] = (
    find_lists_the_oldest_first,
    find_keeps_to_its_filters,
    an_append_replaces_the_header,
    find_keeps_to_its_limit,
    pages_follow_on_each_other,
    paging_while_others_write,
)
