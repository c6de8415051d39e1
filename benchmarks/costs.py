"""Where a microsecond of a step goes: processor time by what it is spent on, in memory and on SQLite.

    python -m benchmarks.costs

Processor time, of each thread by its own clock, so that a busy machine changes little and waiting for the disk counts
for nothing. What a step costs is measured without a profile; the profile, which slows what it looks at, only says in
which shares. The kinds take turns.
"""

import argparse
import asyncio
import cProfile
import pstats
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers._adapter import DATA, new_ids, step_names
from benchmarks.report import table
from dotmac_workflows import SQLitePersistence, Workflow, WorkflowResult

PARTS = (
    ("the loop", ("_run/drive.py",)),
    ("what comes next", ("_core/decide.py", "_core/actions.py", "_core/commands.py")),
    ("the fold", ("_core/state.py", "_core/events.py")),
    ("the host: calling the step, committing", ("_run/local.py", "_run/outcomes.py", "_run/lease.py")),
    ("keeping the events", ("_run/live.py", "_run/journal.py")),
    ("what the object shows", ("_view.py", "_verbs.py", "base.py", "_read_only.py")),
    ("results", ("result.py",)),
    ("JSON", ("_core/codec.py", "values.py", "_built_in_types.py", "_value_types.py", "json/encoder.py", "_json.")),
    ("digests", ("_hashlib", "hexdigest", "openssl_sha256")),
    ("to the writer's thread and back", ("sqlite/store.py", "sqlite/_calls.py", "_queue.", "_thread.", "_socket.")),
    ("the event loop", ("asyncio/", "select.epoll", "_asyncio.", "_contextvars.", "'run' of", "selectors.py")),
    ("SQLite", ("sqlite3.", "sqlite/_statements.py", "sqlite/_writer.py", "sqlite/_lock.py", "fcntl", "posix.")),
    ("the step's own code", ("benchmarks/",)),
)
"""What time is spent on, and how a function of it is known: a part of its file's name, or of its own if it has none."""
REST = "the rest: tuples, lists, clocks, numbers"


class Trivial(Workflow):
    """Steps of nothing."""

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step)


class Order(Workflow):
    """Steps that leave a little data."""

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step, DATA)


class Undone(Workflow):
    """Its last step fails."""

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(step != self.steps[-1], step)

    async def rollback_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step)


class Cost(NamedTuple):
    """Processor time, in microseconds a step."""

    here: float
    """Of the thread that runs the workflows."""
    elsewhere: float
    """Of all others."""


async def in_memory(steps: int) -> None:
    names = step_names(100)
    for _ in range(steps // 100):
        await Trivial(steps=names).execute()


async def undone(steps: int) -> None:
    names = step_names(101)
    for _ in range(steps // 100):
        await Undone(steps=names).execute()


async def on_sqlite(steps: int) -> None:
    names = step_names(10)
    with tempfile.TemporaryDirectory(dir=".", prefix="benchmark-") as folder:
        async with SQLitePersistence(Path(folder, "store.db")) as store:
            for _ in range(steps // 1000):
                await asyncio.gather(*(Order(one, steps=names, persistence=store).execute() for one in new_ids(100)))


WORKS: dict[str, Callable[[int], Awaitable[None]]] = {
    "in memory, 100 steps": in_memory,
    "in memory, 100 steps and undone": undone,
    "on SQLite, 100 runs of ten steps at once": on_sqlite,
}


def cost(work: Callable[[int], Awaitable[None]], steps: int) -> Cost:
    """Return what a step costs, without a profile."""
    here, everywhere = time.thread_time(), time.process_time()
    asyncio.run(_awaited(work, steps))
    here, everywhere = time.thread_time() - here, time.process_time() - everywhere
    return Cost(here / steps * 1e6, (everywhere - here) / steps * 1e6)


def shares(work: Callable[[int], Awaitable[None]], steps: int) -> list[dict[str, float]]:
    """Return which share of the time each part takes, of this thread and of all others."""
    others: list[cProfile.Profile] = []

    def begin(*_: object) -> None:
        others.append(cProfile.Profile(time.thread_time))
        others[-1].enable()

    mine = cProfile.Profile(time.thread_time)
    threading.setprofile(begin)
    try:
        mine.enable()
        asyncio.run(_awaited(work, steps))
        mine.disable()
    finally:
        threading.setprofile(None)
    return [_shares([mine]), _shares(others)]


def _shares(profiles: list[cProfile.Profile]) -> dict[str, float]:
    found: dict[str, float] = {}
    for profile in profiles:
        profile.create_stats()
        for (path, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]  # not in its stub
            found[part_of(path, name)] = found.get(part_of(path, name), 0.0) + own
    total = sum(found.values()) or 1.0
    return {part: own / total for part, own in found.items()}


def part_of(path: str, name: str) -> str:
    """Return what a function's time is spent on."""
    known = name if path == "~" else Path(path).as_posix()
    return next((part for part, marks in PARTS if any(mark in known for mark in marks)), REST)


async def _awaited(work: Callable[[int], Awaitable[None]], steps: int) -> None:
    await work(steps)


def main(given: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=20_000, help="how many of each, in each of five turns (%(default)s)"
    )
    asked = parser.parse_args(given)
    costs: dict[str, list[Cost]] = {name: [] for name in WORKS}
    for _ in range(5):
        for name, work in WORKS.items():
            costs[name].append(cost(work, asked.steps))
    for name, work in WORKS.items():
        totals = [statistics.median(values) for values in zip(*costs[name], strict=True)]
        parts = shares(work, asked.steps)
        rows = [
            [part, *(f"{total * of.get(part, 0.0):.2f}" for total, of in zip(totals, parts, strict=True))]
            for part in (*(part for part, _ in PARTS), REST)
            if any(total * of.get(part, 0.0) >= 0.005 for total, of in zip(totals, parts, strict=True))
        ]
        rows.append(["all", *(f"{total:.2f}" for total in totals)])
        heads = [f"{name}: µs of processor time a step", "this thread", "other threads"]
        if totals[1] < 0.05:
            heads, rows = heads[:2], [row[:2] for row in rows]
        print(table(heads, rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
