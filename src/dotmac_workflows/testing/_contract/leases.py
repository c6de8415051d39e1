"""Clauses on leases: who drives, and that nobody else can."""

import asyncio
from random import Random

from ...errors import ConcurrencyError, LeaseLostError
from ...persistence import Lease
from ...status import WorkflowStatus
from .bench import Bench, attempt, refused, together
from .clause import Clause, clause
from .comparing import holds, same
from .rows import NOTHING, header, let_go, records, taken

_LEASES = ("Leases",)


@clause(
    "a lease is stored with its append",
    rule="A change of lease is stored in the transaction of its append: taken, kept for longer, let go. An append "
    "without one leaves the lease as it is.",
    why="A run that is driven looks free and is driven twice; or a decision of a person throws its driver out.",
    remedy="Store token, owner and expiry beside the header, and touch them only where `lease` is not None.",
    needs=_LEASES,
)
async def a_lease_is_stored(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0)
    same(await store.lease("w"), None, "lease('w')")
    await store.append("w", records(2), expected_version=2, lease=taken("t1"))
    same(await store.lease("w"), Lease("owner of t1", "t1", 1000), "lease('w')")
    await store.append("w", records(4), expected_version=4)
    same(await store.lease("w"), Lease("owner of t1", "t1", 1000), "lease('w')")
    await store.append("w", records(6), expected_version=6, lease=taken("t1", replaces="t1", expires_at=2000))
    same(await store.lease("w"), Lease("owner of t1", "t1", 2000), "lease('w')")
    await store.append("w", records(8), expected_version=8, lease=let_go("t1"))
    same(await store.lease("w"), None, "lease('w')")
    await store.append("w", records(10), expected_version=10, lease=taken("t2"))
    same(await store.lease("w"), Lease("owner of t2", "t2", 1000), "lease('w')")
    same(await store.read("w"), records(0, 12), "read('w')")


@clause(
    "a lease is changed only where it replaces the one in place",
    rule="A change says which token it replaces (None: no lease). Where another one is in place the append raises "
    "`LeaseLostError`, and nothing of it is stored.",
    why="Whoever asks takes the run over, and two processes run its steps at once.",
    remedy="Compare the token in place with `lease.replaces`, in the transaction of the append.",
    needs=_LEASES,
)
async def a_lease_replaces_the_one_in_place(bench: Bench) -> None:
    store = await bench.open()
    fresh = store.append("new", records(0), expected_version=0, lease=taken("t2", replaces="t1"))
    await refused(LeaseLostError, fresh, store)
    same(await store.contents("new"), NOTHING, "what is stored of 'new'")
    same(await store.delete("new"), False, "delete('new')")
    await store.append("w", records(0), expected_version=0, lease=taken("t1"))
    before = await store.contents("w")
    for change in (taken("t3"), taken("t3", replaces="t2"), taken("t2", replaces="t2")):
        late = header("w", 4, status=WorkflowStatus.COMPLETED)
        await refused(
            LeaseLostError, store.append("w", records(2), expected_version=2, header=late, lease=change), store
        )
        same(await store.contents("w"), before, "what is stored of 'w'")
    await store.append("w", records(2), expected_version=2, lease=taken("t2", replaces="t1"))
    same(await store.lease("w"), Lease("owner of t2", "t2", 1000), "lease('w')")


@clause(
    "nobody lets go of another's lease",
    rule="Letting go too is stored only where the lease in place is the one that it replaces.",
    why="A driver that was overtaken, on its way out, throws out the one that took over, and a third one comes in.",
    remedy="Compare the token for a change without expiry as for every other.",
    needs=_LEASES,
)
async def nobody_lets_go_of_anothers_lease(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t2"))
    before = await store.contents("w")
    for change in (let_go("t1"), let_go("t3", replaces="t1")):
        for rows in ([], records(2)):
            await refused(LeaseLostError, store.append("w", rows, expected_version=2, lease=change), store)
            same(await store.contents("w"), before, "what is stored of 'w'")


@clause(
    "leases are compared by their token alone",
    rule="The token decides, not the owner: one process may drive a workflow twice in a row, with a token for each "
    "time.",
    why="A driver that a process lost, and that still hangs somewhere in it, would write into the run of its successor "
    "of the same process.",
    remedy="Compare `Lease.token`; store `owner` for people to read.",
    needs=_LEASES,
)
async def leases_are_compared_by_token(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t2", owner="process 1"))
    before = await store.contents("w")
    for change in (taken("t1", replaces="t1", owner="process 1"), taken("t1", owner="process 1")):
        await refused(LeaseLostError, store.append("w", records(2), expected_version=2, lease=change), store)
        same(await store.contents("w"), before, "what is stored of 'w'")
    kept = taken("t2", replaces="t2", owner="process 1, renamed")
    await store.append("w", records(2), expected_version=2, lease=kept)
    same(await store.lease("w"), Lease("process 1, renamed", "t2", 1000), "lease('w')")


@clause(
    "an expired lease stays in place",
    rule="lease gives it, its driver renews it, and who takes over has to name it, expired or not: only the engine "
    "knows what time it is.",
    why="The engine cannot tell whose run a crash left, and a driver that was only slow is thrown out without need.",
    remedy="Keep the expiry as a number, and let nothing expire by itself (no TTL on the key).",
    needs=_LEASES,
)
async def an_expired_lease_stays(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t1", expires_at=1))
    same(await store.lease("w"), Lease("owner of t1", "t1", 1), "lease('w')")
    await refused(LeaseLostError, store.append("w", records(2), expected_version=2, lease=taken("t2")), store)
    same(await store.renew("w", "t1", 2), 2, "renew('w', 't1', 2)")
    same(await store.lease("w"), Lease("owner of t1", "t1", 2), "lease('w')")


@clause(
    "a wrong version is told before a lost lease",
    rule="An append whose version and whose lease are both out of date raises `ConcurrencyError`.",
    why="Who calls execute() for a run that a crash left would be told that a lease was lost, instead of taking it "
    "over.",
    remedy="Compare the version first.",
    needs=_LEASES,
)
async def a_wrong_version_is_told_first(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t1"))
    await refused(ConcurrencyError, store.append("w", records(0), expected_version=0, lease=taken("t2")), store)
    late = store.append("w", records(1), expected_version=1, lease=taken("t3", replaces="t2"))
    await refused(ConcurrencyError, late, store)


@clause(
    "a lease is renewed by its holder alone",
    rule="renew moves the expiry of the lease that the token holds and changes nothing else; without that lease it "
    "raises `LeaseLostError`, and makes none.",
    why="A driver that was overtaken would keep the run from its successor, or go on in the belief that it still "
    "drives.",
    remedy="Update the expiry where id and token are these, and raise where that finds no row.",
    needs=_LEASES,
)
async def a_lease_is_renewed_by_its_holder(bench: Bench) -> None:
    store = await bench.open()
    await refused(LeaseLostError, store.renew("new", "t1", 5000), store)
    same(await store.contents("new"), NOTHING, "what is stored of 'new'")
    await store.append("w", records(0), expected_version=0)
    before = await store.contents("w")
    await refused(LeaseLostError, store.renew("w", "t1", 5000), store)
    same(await store.contents("w"), before, "what is stored of 'w'")
    await store.append("w", records(2), expected_version=2, lease=taken("t1"))
    before = await store.contents("w")
    await refused(LeaseLostError, store.renew("w", "t2", 9000), store)
    same(await store.contents("w"), before, "what is stored of 'w'")
    await store.renew("w", "t1", 5000)
    same(await store.contents("w"), before._replace(lease=Lease("owner of t1", "t1", 5000)), "what is stored of 'w'")


@clause(
    "renew gives the stored version",
    rule="renew returns the version of the journal, also when somebody else has appended since the lease was taken.",
    why="It is how a driver learns, while a step runs, that a cancel was recorded: the step would run to its end.",
    remedy="Return the version that the same transaction reads.",
    needs=_LEASES,
)
async def renew_gives_the_stored_version(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0, 3), expected_version=0, lease=taken("t1"))
    same(await store.renew("w", "t1", 5000), 3, "renew('w', 't1', 5000)")
    await store.append("w", records(3), expected_version=3)
    same(await store.renew("w", "t1", 6000), 5, "renew('w', 't1', 6000)")
    await store.append("w", [], expected_version=5)
    same(await store.renew("w", "t1", 7000), 5, "renew('w', 't1', 7000)")


@clause(
    "a stale lease changes nothing",
    rule="After another driver took over, or the workflow was deleted and begun again, the old token appends nothing, "
    "renews nothing and lets go of nothing.",
    why="A process that was frozen for a minute wakes up and writes into a run that is no longer its own.",
    remedy="Compare the token in every write that carries one, in the transaction of the write; delete the lease with "
    "its workflow.",
    needs=_LEASES,
)
async def a_stale_lease_changes_nothing(bench: Bench) -> None:
    store = await bench.open()
    await store.append("over", records(0), expected_version=0, lease=taken("t1"))
    await store.append("over", records(2), expected_version=2, lease=taken("t2", replaces="t1"))
    await store.append("again", records(0), expected_version=0, lease=taken("t1"))
    await store.delete("again")
    await store.append("again", records(0), expected_version=0)
    for workflow_id, version in (("over", 4), ("again", 2)):
        before = await store.contents(workflow_id)
        for change in (taken("t1", replaces="t1"), let_go("t1")):
            late = store.append(workflow_id, records(version), expected_version=version, lease=change)
            await refused(LeaseLostError, late, store)
        await refused(LeaseLostError, store.renew(workflow_id, "t1", 9000), store)
        what = f"what is stored of {workflow_id!r}"
        same(await store.contents(workflow_id), before, what, about=workflow_id)


@clause(
    "of many who take a lease one gets it",
    rule="The lease in place is compared and changed in one, also where the version does not change.",
    why="Two processes both believe that they drive.",
    remedy="Compare and write in one transaction, one conditional update or under one lock.",
    needs=_LEASES,
)
async def of_many_one_gets_the_lease(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0)
    holder: str | None = None
    for turn, takers in enumerate((2, 8, 8)):
        tokens = [f"t{turn}{n}" for n in range(takers)]
        errors = await together(
            [
                attempt(store.append("w", [], expected_version=2, lease=taken(token, replaces=holder)), LeaseLostError)
                for token in tokens
            ]
        )
        winners = [token for token, error in zip(tokens, errors, strict=True) if error is None]
        holds(len(winners) == 1, f"one of {takers} to take the lease", f"{len(winners)} were told that they have it")
        holder = winners[0]
        same(await store.lease("w"), Lease(f"owner of {holder}", holder, 1000), "lease('w')")


@clause(
    "a renewal never undoes what comes meanwhile",
    rule="renew is one step: it cannot bring back a lease that was taken over, let go or deleted while it ran, nor the "
    "records and header of before.",
    why="A driver that was overtaken gets the lease back by its heartbeat, and two drive.",
    remedy="Update the expiry alone, in one conditional statement; do not read the row and write it back.",
    needs=_LEASES,
)
async def a_renewal_undoes_nothing(bench: Bench) -> None:
    store = await bench.open()
    random = Random(1)
    for turn in range(8):
        over, gone, free = f"over-{turn}", f"gone-{turn}", f"free-{turn}"
        for workflow_id in (over, gone, free):
            await store.append(workflow_id, records(0), expected_version=0, lease=taken("t1"))

        async def renew(workflow_id: str) -> None:
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            for n in range(3):
                await attempt(store.renew(workflow_id, "t1", 2000 + n), LeaseLostError)

        await together(
            [
                *(renew(workflow_id) for workflow_id in (over, gone, free) for _ in range(2)),
                store.append(over, records(2), expected_version=2, lease=taken("t2", replaces="t1")),
                store.append(free, records(2), expected_version=2, lease=let_go("t1")),
                store.delete(gone),
            ]
        )
        found = await store.contents(over)
        same(found.lease, Lease("owner of t2", "t2", 1000), f"lease({over!r})", about=over)
        same(found.records, records(0, 4), f"read({over!r})", about=over)
        same((await store.contents(free)).lease, None, f"lease({free!r})", about=free)
        same(await store.contents(gone), NOTHING, f"what is stored of {gone!r}", about=gone)


CLAUSES: tuple[Clause, ...] = (
    a_lease_is_stored,
    a_lease_replaces_the_one_in_place,
    nobody_lets_go_of_anothers_lease,
    leases_are_compared_by_token,
    an_expired_lease_stays,
    a_wrong_version_is_told_first,
    a_lease_is_renewed_by_its_holder,
    renew_gives_the_stored_version,
    a_stale_lease_changes_nothing,
    of_many_one_gets_the_lease,
    a_renewal_undoes_nothing,
)
