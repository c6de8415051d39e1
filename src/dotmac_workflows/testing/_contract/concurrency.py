"""Clauses on many at once, on one handle: writers, readers, and who deletes what is written."""

import asyncio
from collections.abc import Sequence
from random import Random

from ...errors import ConcurrencyError, LeaseLostError
from ...persistence import Header, Record
from .bench import Bench, Handle, attempt, together
from .clause import Clause, clause
from .comparing import Broken, holds, same
from .rows import NOTHING, header, records, taken

_WRITERS = 8
_TURNS = (2, 2, 8, 8)  # writers in a race; two show most faults, and in few words
_APPENDS = 24
_BATCH = 3


async def race(handles: Sequence[Handle]) -> None:
    """Have many writers append at one version, again and again: one wins each time, and all else leaves nothing.

    Raises:
        Broken: Several won, or none, or what is stored is not the winner's.
    """
    store = handles[0]
    for turn, writers in enumerate(_TURNS):
        version = turn * 2
        errors = await together(
            attempt(
                handles[n % len(handles)].append(
                    "race",
                    records(version, mark=f"writer {n}"),
                    expected_version=version,
                    header=header("race", version + 2, pending_step=f"writer {n}"),
                ),
                ConcurrencyError,
            )
            for n in range(writers)
        )
        winners = [n for n, error in enumerate(errors) if error is None]
        happened = f"{len(winners)} were told that they are stored"
        holds(len(winners) == 1, f"one of {writers} appends at version {version} to be stored", happened)
        found = await store.contents("race")
        mark = f"writer {winners[0]}"
        same(found.records[version:], records(version, mark=mark), f"the end of read('race'), which {mark} wrote,")
        for stored in found.headers:
            same(stored, header("race", version + 2, pending_step=mark), f"the header that {mark} wrote")


async def work(handles: Sequence[Handle]) -> None:
    """Have many writers read, append and try again, as drivers and deciders do, until the journal is long enough.

    Raises:
        Broken: What was acknowledged and what is stored differ.
    """
    random = Random(1)
    acknowledged: dict[int, str] = {}

    async def write(number: int) -> None:
        store, mark = handles[number % len(handles)], f"writer {number}"
        while True:
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            version = len(await store.read("work"))
            if version >= _APPENDS:
                return
            call = store.append("work", records(version, 1, mark=mark), expected_version=version)
            if await attempt(call, ConcurrencyError) is None:
                if version in acknowledged:
                    raise Broken(f"one append at version {version}", f"{acknowledged[version]} and {mark} were stored")
                acknowledged[version] = mark

    await together(write(number) for number in range(_WRITERS))
    wanted = [record for version in range(_APPENDS) for record in records(version, 1, mark=acknowledged[version])]
    same(await handles[0].read("work"), wanted, "read('work'), by what was acknowledged,")


@clause(
    "of many writers one wins",
    rule="Of many appends at one version exactly one is stored, however they overlap; the others raise "
    "`ConcurrencyError` and leave nothing.",
    why="Records that were acknowledged are lost or stand twice in the journal; an order is approved and rejected.",
    remedy="Let nothing come between the comparison of the version and the write: one transaction, one conditional "
    "update or a lock around both. An await between them needs the lock too.",
)
async def of_many_writers_one_wins(bench: Bench) -> None:
    store = await bench.open()
    await race([store])
    await work([store])


@clause(
    "one refused append does not touch its neighbours",
    rule="Appends to several workflows at once stand and fall each by itself.",
    why="A run fails because another one, which has nothing to do with it, was decided twice.",
    remedy="Where writes share a transaction, put each into a savepoint, or refuse before anything is written.",
)
async def neighbours_stay_untouched(bench: Bench) -> None:
    store = await bench.open()
    late = (2, 5)
    for n in late:
        await store.append(f"w{n}", records(0, mark="first"), expected_version=0)

    errors = await together(
        attempt(store.append(f"w{n}", records(0), expected_version=0, lease=taken(f"t{n}")), ConcurrencyError)
        for n in range(_WRITERS)
    )
    refused = [n for n, error in enumerate(errors) if error is not None]
    holds(refused == list(late), f"of w0 to w7 the appends to {late} to be refused", f"refused were {refused}")
    for n in range(_WRITERS):
        wanted = records(0, mark="first" if n in late else "")
        same(await store.read(f"w{n}"), wanted, f"read('w{n}')")


@clause(
    "a reader never sees half an append",
    rule="While others append, read gives whole appends, in order and without a gap, and never less than before; a "
    "header is found as it was written, all of it.",
    why="A run is loaded in a state in which it never was, and a decision is made on it.",
    remedy="Read in one statement or one transaction, and write so that nobody sees it before it is whole.",
)
async def a_reader_never_sees_half(bench: Bench) -> None:
    store = await bench.open()
    writing = True

    async def write() -> None:
        nonlocal writing
        try:
            for version in range(0, _APPENDS * _BATCH, _BATCH):
                await store.append(
                    "w",
                    records(version, _BATCH, mark=str(version)),
                    expected_version=version,
                    header=_header_of(version + _BATCH),
                )
                await asyncio.sleep(0)
        finally:
            writing = False

    async def read() -> None:
        seen = 0
        while writing:
            found = await store.read("w")
            holds(len(found) >= seen, f"read('w') to give {seen} records or more", f"{len(found)}")
            seen = len(found)
            same(found, _whole(seen), "read('w')")
            if store.has_queries:
                for one in await store.find():
                    same(one, _header_of(one.version), "find()")
            await asyncio.sleep(0)

    await together([write(), read(), read()])
    same(await store.read("w"), _whole(_APPENDS * _BATCH), "read('w')")


def _whole(count: int) -> list[Record]:
    """Return what whole appends amount to, the last one made whole."""
    return [row for start in range(0, count, _BATCH) for row in records(start, _BATCH, mark=str(start))]


def _header_of(version: int) -> Header:
    return header("w", version, workflow_type=f"Type{version}", pending_step=f"step {version}", wake_at=version)


@clause(
    "a workflow that is deleted while it is written stays deleted",
    rule="An append that comes after a deletion is refused with `ConcurrencyError` where it builds on a record; of "
    "what was there before nothing comes back.",
    why="Half a journal comes back without its beginning: it reads as damaged, and its id cannot be used again.",
    remedy="Delete under the same lock or in a transaction of the same kind as an append; compare the version with "
    "what is stored, not with what was read earlier.",
)
async def deleted_while_written(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t1"))
    await store.delete("w")
    error = await attempt(store.append("w", records(2), expected_version=2), ConcurrencyError)
    holds(error is not None, "an append at version 2 after the deletion to raise ConcurrencyError", "it was done")
    same(await store.contents("w"), NOTHING, "what is stored of 'w'")
    random = Random(1)
    for turn in range(10):
        name = f"w{turn}"
        await store.append(name, records(0), expected_version=0, lease=taken("t1"))

        async def write(name: str) -> None:
            version = 2
            for _ in range(random.randrange(3)):
                await asyncio.sleep(0)
            while version < 8:
                call = store.append(name, records(version), expected_version=version, lease=taken("t1", replaces="t1"))
                if await attempt(call, ConcurrencyError, LeaseLostError) is not None:
                    return
                version += 2

        async def delete(name: str) -> None:
            for _ in range(random.randrange(6)):
                await asyncio.sleep(0)
            same(await store.delete(name), True, f"delete({name!r})", about=name)

        await together([write(name), delete(name)])
        same(await store.contents(name), NOTHING, f"what is stored of {name!r}", about=name)


CLAUSES: tuple[Clause, ...] = (
    neighbours_stay_untouched,
    of_many_writers_one_wins,
    a_reader_never_sees_half,
    deleted_while_written,
)
