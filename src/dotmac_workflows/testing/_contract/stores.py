"""Clauses on a store that is opened again: after it was closed, by two at once, and after a process was killed."""

import asyncio

from ...errors import ConcurrencyError, LeaseLostError
from ...persistence import Lease
from ...status import WorkflowStatus
from .bench import Bench, refused
from .clause import Clause, clause
from .comparing import holds, same
from .concurrency import race, work
from .killed import BATCH, kill_a_writer, written
from .rows import NOTHING, header, let_go, records, taken

_REOPENS = ("reopens",)
_KILLS = (1, 4, 12)  # after how many acknowledged appends


@clause(
    "a store that is opened again holds what it acknowledged",
    rule="What append, renew and delete have acknowledged is there when the store was closed and is opened again, and "
    "the next append is compared with it.",
    why="Workflows begin again after every restart, or go on where they were long ago.",
    remedy="Write to what outlives the process before you return: commit, flush and fsync. If nothing is there at all, "
    "let the factory open the same store for the same name.",
    needs=_REOPENS,
)
async def a_store_opened_again(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t1"))
    if store.has_leases:
        await store.renew("w", "t1", 5000)
    await store.append("gone", records(0), expected_version=0, lease=taken("t2"))
    await store.append("free", records(0), expected_version=0, lease=taken("t3"))
    await store.append("free", [], expected_version=2, lease=let_go("t3"))
    await store.delete("gone")
    last = header("w", 4, status=WorkflowStatus.WAITING_APPROVAL, pending_step="check")
    await store.append("w", records(2), expected_version=2, header=last)
    before = await store.contents("w")
    await bench.close(store)
    again = await bench.open("again", name=store.name)
    same((await again.contents("w")).records, records(0, 4), "read('w') after the store was opened again")
    same(await again.contents("w"), before, "what is stored of 'w'")
    same(await again.contents("gone"), NOTHING, "what is stored of 'gone'")
    same((await again.contents("free")).lease, None, "the lease of 'free'")
    await refused(ConcurrencyError, again.append("w", records(2, mark="late"), expected_version=2), again)
    await again.append("w", records(4), expected_version=4, lease=taken("t4", replaces="t1"))
    same(await again.read("w"), records(0, 6), "read('w')")


@clause(
    "two handles see one store",
    rule="What one handle has acknowledged, every other one on the same store sees at once, and is refused by.",
    why="An approval that is given in the web server is never seen by the worker, or is overwritten by it.",
    remedy="Read from the store each time; what is kept in the handle is only what never changes.",
    needs=_REOPENS,
)
async def two_handles_see_one_store(bench: Bench) -> None:
    first = await bench.open("first")
    second = await bench.open("second", name=first.name)
    await first.append("w", records(0), expected_version=0, lease=taken("t1"))
    seen = await second.contents("w")
    same(seen.records, records(0), "second.read('w')")
    await first.append("w", records(2), expected_version=2, header=header("w", 4, wake_at=7))
    same(await second.contents("w"), await first.contents("w"), "what the second handle sees of 'w'")
    same(await second.read("w", after=2), records(2), "second.read('w', after=2)")
    await refused(ConcurrencyError, second.append("w", records(2, mark="late"), expected_version=2), second)
    await second.append("w", records(4), expected_version=4, lease=taken("t2", replaces="t1"))
    await refused(ConcurrencyError, first.append("w", records(4, mark="late"), expected_version=4), first)
    same(await first.read("w"), records(0, 6), "first.read('w')")
    if first.has_leases:
        same(await first.lease("w"), Lease("owner of t2", "t2", 1000), "first.lease('w')")
        await refused(LeaseLostError, first.renew("w", "t1", 5000), first)
        same(await second.renew("w", "t2", 5000), 6, "second.renew('w', 't2', 5000)")
        same(await first.lease("w"), Lease("owner of t2", "t2", 5000), "first.lease('w')")
    same(await first.delete("w"), True, "first.delete('w')")
    same(await second.contents("w"), NOTHING, "what the second handle sees of 'w'")
    await second.append("w", records(0, 1, mark="again"), expected_version=0)
    same(await first.read("w"), records(0, 1, mark="again"), "first.read('w')")


@clause(
    "of many writers on many handles one wins",
    rule="Of many appends at one version exactly one is stored, also where each comes by a handle of its own.",
    why="Two processes would both be told that they won.",
    remedy="Let the store compare the version, in the transaction or the conditional update that writes: a lock of the "
    "process keeps other processes from nothing.",
    needs=_REOPENS,
)
async def many_handles(bench: Bench) -> None:
    first = await bench.open("first")
    handles = [first, *[await bench.open(label, name=first.name) for label in ("second", "third", "fourth")]]
    await race(handles)
    await work(handles)


@clause(
    "a killed process loses nothing that it acknowledged",
    rule="A process that appends is killed (SIGKILL): what it acknowledged is there, its last append whole or not at "
    "all, and others go on at once, without a lock that it left.",
    why="This is what the library is for.",
    remedy="Return from append only once the operating system has the data, and let locks end with their process "
    "(flock, a session of the database), not with a file that somebody has to remove.",
    needs=("reopens", "other processes"),
)
async def a_killed_process_loses_nothing(bench: Bench) -> None:
    name = bench.new_name()
    for turn, appends in enumerate(_KILLS):
        workflow_id = f"w{turn}"
        acknowledged = await asyncio.to_thread(kill_a_writer, bench, name, workflow_id, appends)
        store = await bench.open(name=name)
        found = await store.contents(workflow_id)
        count = len(found.records)
        holds(
            count >= acknowledged,
            f"all {acknowledged} records that were acknowledged before the kill",
            f"{count} records are there",
        )
        holds(count % BATCH == 0, f"whole appends of {BATCH} records", f"{count} records are there")
        head, lease = written(workflow_id, count)
        same(found.records, records(0, count), f"read({workflow_id!r})")
        if store.has_leases:
            same(found.lease, lease, f"lease({workflow_id!r})")
        if store.has_queries:
            same(found.headers, [head], "find()")
        await store.append(workflow_id, records(count), expected_version=count)
        await bench.close(store)
    bench.note = f"{len(_KILLS)} processes killed"


CLAUSES: tuple[Clause, ...] = (
    a_store_opened_again,
    two_handles_see_one_store,
    many_handles,
    a_killed_process_loses_nothing,
)
