"""What the engine adds to a durable step, against its own rows handed to its own writer thread ready made.

    PYTHONPATH=src python -m benchmarks.sqlite

*Bare* is the floor: the very `append` calls of a run (records, header and lease change), made beforehand and played
back through the same `SQLitePersistence`, so the same thread, file and transactions. What lies between is the engine:
the loop, the fold, the codec, the digests.
"""

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measuring import Pairs, percentile, print_machine, print_table, seconds, spread
from dotmac_workflows import InMemoryPersistence, SQLitePersistence, Workflow, WorkflowResult, WorkflowStatus
from dotmac_workflows.persistence import Header, LeaseChange, Record
from dotmac_workflows.persistence.sqlite._statements import Write

_new_number = count(1)


class Order(Workflow):
    """Steps that return at once, each with a little data."""

    fails_at: str | None = None

    def __init__(self, workflow_id: str | None = None, **init: Any) -> None:
        super().__init__(workflow_id, **init)
        self.times: list[float] = []

    async def execute_step(self, step: str) -> WorkflowResult:
        self.times.append(time.perf_counter())
        if step == self.fails_at:
            return WorkflowResult(False, step, error="refused")
        return WorkflowResult(True, step, {"reference": "REF-0001", "amount": 250, "express": False})

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        self.times.append(time.perf_counter())
        return WorkflowResult(True, step)


class Nothing(Order):
    """Steps that return at once, without data."""

    async def execute_step(self, step: str) -> WorkflowResult:
        self.times.append(time.perf_counter())
        return WorkflowResult(True, step)


class Appended(NamedTuple):
    """One call of `append`."""

    records: Sequence[Record]
    expected_version: int
    header: Header
    lease: LeaseChange | None


class Recorder(InMemoryPersistence):
    """Keeps the calls of `append` that a run made."""

    def __init__(self) -> None:
        super().__init__()
        self.appended: list[Appended] = []

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        """Keep the call, and do it."""
        self.appended.append(Appended(records, expected_version, header, lease))
        await super().append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)


def names(steps: int) -> list[str]:
    return [f"step_{number}" for number in range(steps)]


def new_id() -> str:
    return f"order-{next(_new_number):07}"


async def recorded(order: type[Order], steps: int) -> list[Appended]:
    """Return what a run of so many steps appends."""
    recorder = Recorder()
    await order(new_id(), steps=names(steps), persistence=recorder).execute()
    return recorder.appended


def rekeyed(appended: list[Appended]) -> list[Appended]:
    """Return the same rows for another workflow. (Their digests are another's: what they cost is the same.)"""
    workflow_id = new_id()
    return [call._replace(header=call.header._replace(workflow_id=workflow_id)) for call in appended]


async def play_back(store: SQLitePersistence, appended: list[Appended], times: list[float] | None = None) -> None:
    """Append what was made beforehand."""
    for records, expected_version, header, lease in appended:
        if times is not None:
            times.append(time.perf_counter())
        await store.append(header.workflow_id, records, expected_version=expected_version, header=header, lease=lease)


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(times)]


async def one_at_a_time(store: SQLitePersistence, pairs: int, steps: int) -> None:
    """Print what a step takes when nothing else runs."""
    plan = names(steps)
    rows = await recorded(Order, steps)
    totals, ours, theirs = Pairs(), list[float](), list[float]()
    for turn in range(pairs + 3):
        order = Order(new_id(), steps=plan, persistence=store)
        engine = await seconds(order.execute)
        ready, times = rekeyed(rows), list[float]()
        bare = await seconds(lambda ready=ready, times=times: play_back(store, ready, times))  # type: ignore[misc]  # a lambda with defaults
        if turn >= 3:
            totals.add(engine / steps, bare / steps)
            ours += gaps(order.times)
            theirs += gaps(times)
    print_table(
        f"One workflow of {steps} steps at a time, ms a step: median (quartiles) of {pairs} pairs",
        ["", "a step of a run", "p50 of a step", "p99 of a step"],
        [
            ["engine", spread(totals.ours).show(3, 1e3), *(f"{percentile(ours, p) * 1e3:.3f}" for p in (50, 99))],
            ["bare", spread(totals.theirs).show(3, 1e3), *(f"{percentile(theirs, p) * 1e3:.3f}" for p in (50, 99))],
            [
                "engine / bare",
                totals.ratio().show(2),
                *(f"{percentile(ours, p) / percentile(theirs, p):.2f}" for p in (50, 99)),
            ],
        ],
    )
    print("\nTarget: at most 1.5 times bare.")


async def together(runs: Sequence[Awaitable[object]]) -> None:
    await asyncio.gather(*runs)


async def many_at_once(store: SQLitePersistence, pairs: int, steps: int, workflows: int) -> None:
    """Print how many steps are done in a second when many workflows run."""
    plan = names(steps)
    table = []
    for title, kind in (("with a little data", Order), ("without data", Nothing)):
        rows = await recorded(kind, steps)
        samples, total = Pairs(), steps * workflows
        for turn in range(pairs + 1):
            orders = [kind(new_id(), steps=plan, persistence=store) for _ in range(workflows)]
            ours = await seconds(lambda: together([order.execute() for order in orders]))  # noqa: B023 - awaited at once
            ready = [rekeyed(rows) for _ in range(workflows)]
            theirs = await seconds(lambda: together([play_back(store, calls) for calls in ready]))  # noqa: B023 - same
            if turn:
                samples.add(total / ours, total / theirs)
        table.append(
            [
                title,
                spread(samples.ours).show(0),
                spread(samples.theirs).show(0),
                samples.ratio().show(0, 100, " %"),
            ]
        )
    print_table(
        f"{workflows} workflows of {steps} steps at once, steps a second: median (quartiles) of {pairs} pairs",
        ["results", "engine", "bare, 100 tasks" if workflows == 100 else "bare", "engine / bare"],
        table,
    )
    print("\nTarget: at least 60 % of bare.")


async def by_length(store: SQLitePersistence, sizes: Sequence[int], steps_per_size: int) -> None:
    """Print what a step, and the undoing of one, takes in runs of different lengths."""
    table = []
    for size in sizes:
        plan, rows = names(size), await recorded(Order, size)
        samples, forward, back = Pairs(), list[float](), list[float]()
        for _ in range(max(3, steps_per_size // size)):
            ours = await seconds(Order(new_id(), steps=plan, persistence=store).execute)
            ready = rekeyed(rows)
            theirs = await seconds(lambda: play_back(store, ready))  # noqa: B023 - awaited at once
            samples.add(ours / size, theirs / size)
            undone = Order(new_id(), steps=plan, persistence=store)
            undone.fails_at = plan[-1]
            await undone.execute()
            ended = time.perf_counter()
            assert undone.status is WorkflowStatus.FAILED
            assert undone.rollback_status == "done"
            assert len(undone.times) == 2 * size - 1
            forward.append((undone.times[size] - undone.times[0]) / size)
            back.append((ended - undone.times[size]) / (size - 1))
        table.append(
            [
                f"{size:,}",
                spread(samples.ours).show(3, 1e3),
                spread(samples.theirs).show(3, 1e3),
                samples.ratio().show(2),
                spread(back).show(3, 1e3),
                spread([one / other for one, other in zip(back, forward, strict=True)]).show(2),
            ]
        )
    print_table(
        "By length, ms a step: median (quartiles)",
        ["steps", "engine", "bare", "engine / bare", "a rolled-back step", "rolled back / forward"],
        table,
    )
    print("\nTarget: flat from 10 to 10,000 steps, rollback included.")


class ReadSettings(Write[dict[str, object]]):
    """Asks the connection that the store writes through for its settings: they are its own, not the file's."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(certain=True)
        self.workflow_id = ""

    def perform(self, cursor: sqlite3.Cursor) -> dict[str, object]:
        """See `Write.perform`."""
        asked = ("journal_mode", "synchronous", "wal_autocheckpoint")
        return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in asked}


def flushes(directory: Path, times: int) -> list[float]:
    """Return how long each of some small appends took to reach the disk."""
    samples = []
    descriptor = os.open(directory / "flushed", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(times):
            os.write(descriptor, bytes(4096))
            began = time.perf_counter()
            os.fsync(descriptor)
            samples.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
    return samples


async def measure(given: argparse.Namespace) -> None:
    """Print all tables."""
    quick = given.quick
    with tempfile.TemporaryDirectory(dir=given.directory, prefix="benchmark-") as name:
        async with SQLitePersistence(Path(name, "workflows.db")) as store:
            settings = await store._write(ReadSettings())
            flushed = flushes(Path(name), 20 if quick else 500)
            print_machine(
                "Durability, read back: " + ", ".join(f"{key} = {value}" for key, value in settings.items()),
                f"fsync of 4 KiB appended, ms: p50 {percentile(flushed, 50) * 1e3:.3f}, "
                f"p99 {percentile(flushed, 99) * 1e3:.3f}",
            )
            assert settings["synchronous"] in (2, 3), "not durable"
            if "one" in given.parts:
                await one_at_a_time(store, 2 if quick else given.pairs * 10, 10)
            if "many" in given.parts:
                await many_at_once(store, 2 if quick else given.pairs, 10, 100)
            if "length" in given.parts:
                await by_length(store, (10, 20) if quick else (10, 100, 1000, 10_000), 10 if quick else 3000)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["one", "many", "length"], help="one, many, length; all of them")
    parser.add_argument("--pairs", type=int, default=20, help="how many samples of each (%(default)s)")
    parser.add_argument("--directory", help="where to put the file: what is measured is this disk")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
