"""Clauses on what is refused, and that nothing is left of it."""

from ...errors import ConcurrencyError
from ...persistence import Record
from ...status import WorkflowStatus
from .bench import Bench, Handle, attempt, refused
from .clause import Clause, clause
from .comparing import same
from .rows import NOTHING, header, records, taken

_LONE_SURROGATE = '{"step":"\ud800"}'
_COMPARE = "Write where the stored version is the expected one, and nowhere else: in one transaction, one conditional "
_COMPARE += "update or under one lock; raise `ConcurrencyError` where that finds nothing."


@clause(
    "a duplicate append is refused",
    rule="An append that was stored before, or another one at its version, raises `ConcurrencyError`.",
    why="Two processes that decide at the same moment would both be told that they won: an order is approved and "
    "rejected, a step runs twice.",
    remedy=_COMPARE,
)
async def a_duplicate_append(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0)
    await refused(ConcurrencyError, store.append("w", records(0), expected_version=0), store)
    await refused(ConcurrencyError, store.append("w", records(0, mark="other"), expected_version=0), store)
    await refused(ConcurrencyError, store.append("w", records(1, mark="other"), expected_version=1), store)
    await refused(ConcurrencyError, store.append("w", records(0, 1, mark="other"), expected_version=0), store)
    same(await store.read("w"), records(0), "read('w')")


@clause(
    "an append out of order is refused",
    rule="An append at a version that the journal has not reached raises `ConcurrencyError`; an unknown id is at 0.",
    why="The journal would have a gap: it reads as damaged, and the workflow can never be loaded again.",
    remedy=_COMPARE,
)
async def an_append_out_of_order(bench: Bench) -> None:
    store = await bench.open()
    await refused(ConcurrencyError, store.append("w", records(2), expected_version=2), store)
    same(await store.read("w"), [], "read('w')")
    await store.append("w", records(0), expected_version=0)
    await refused(ConcurrencyError, store.append("w", records(3), expected_version=3), store)
    await refused(ConcurrencyError, store.append("w", records(4), expected_version=4), store)
    same(await store.read("w"), records(0), "read('w')")
    await store.append("w", records(2), expected_version=2)
    same(await store.read("w"), records(0, 4), "read('w')")


@clause(
    "a refused append leaves nothing",
    rule="An append that is refused for its version stores no record, no header and no lease, and makes no workflow.",
    why="Lists would show what nobody recorded; a driver that came too late would hold the lease of the one that won.",
    remedy="Compare the version before anything is changed, or roll everything back.",
)
async def a_refused_append_leaves_nothing(bench: Bench) -> None:
    store = await bench.open()
    late = header("new", 4, status=WorkflowStatus.FAILED)
    await refused(
        ConcurrencyError, store.append("new", records(2), expected_version=2, header=late, lease=taken("t1")), store
    )
    same(await store.contents("new"), NOTHING, "what is stored of 'new'")
    same(await store.delete("new"), False, "delete('new')")
    await store.append("w", records(0), expected_version=0)
    before = await store.contents("w")
    for version in (0, 1, 3):
        late = header("w", version + 2, status=WorkflowStatus.FAILED, wake_at=1)
        rows = records(version, mark="late")
        call = store.append("w", rows, expected_version=version, header=late, lease=taken("t1"))
        await refused(ConcurrencyError, call, store)
        same(await store.contents("w"), before, "what is stored of 'w'")


@clause(
    "an append that fails midway leaves nothing",
    rule="Where one of an append's records cannot be stored, none is, nor its header, nor its lease.",
    why="The store's error says that nothing is stored, so the driver decides again, and what it finds is half of its "
    "own append.",
    remedy="Write everything in one transaction, and roll it back on any error; or encode everything before you write.",
)
async def an_append_that_fails_midway(bench: Bench) -> None:
    refusals = 0
    for whole, odd in (
        (True, records(2, 1)[0]._replace(body=_LONE_SURROGATE)),  # cannot be encoded
        (True, records(2, 1)[0]._replace(at=2**70)),  # does not fit into 64 bits
        (False, records(2, 1)[0]._replace(seq=2)),  # stands twice under one key
        (False, records(2, 1)[0]._replace(seq=4)),  # leaves a gap
    ):
        store = await bench.open()
        await store.append("old", records(0), expected_version=0, lease=taken("t1"))
        refusals += await _fails(store, "new", records(0, 2), odd, whole=whole)
        if odd.seq == 3:
            refusals += await _fails(store, "old", records(2, 2, mark="late"), odd._replace(seq=5), whole=whole)
    bench.note = f"{refusals} refused" if refusals else "it stores them all"


async def _fails(store: Handle, workflow_id: str, good: list[Record], odd: Record, *, whole: bool) -> int:
    """Append two good records and an odd one; all or nothing of them must be there. Return 1 where it was refused."""
    version = good[0].seq - 1
    before = await store.contents(workflow_id)
    replaces = None if before.lease is None else before.lease.token
    late = header(workflow_id, version + 3, status=WorkflowStatus.FAILED)
    change = taken("t9", replaces=replaces)
    call = store.append(workflow_id, [*good, odd], expected_version=version, header=late, lease=change)
    error = await attempt(call, Exception)
    if error is not None:
        same(await store.contents(workflow_id), before, f"what is stored of {workflow_id!r}", about=workflow_id)
        same(await store.delete(workflow_id), bool(before.records), f"delete({workflow_id!r})", about=workflow_id)
    elif whole:  # what contradicts itself may be stored as it is: nobody else writes so
        same(len(await store.read(workflow_id)), version + 3, f"the length of read({workflow_id!r})", about=workflow_id)
    return error is not None


CLAUSES: tuple[Clause, ...] = (
    a_duplicate_append,
    an_append_out_of_order,
    a_refused_append_leaves_nothing,
    an_append_that_fails_midway,
)
