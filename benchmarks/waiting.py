"""What it costs to have many workflows waiting for an approval: nothing, in any process that does not ask for them.

    PYTHONPATH=src python -m benchmarks.waiting --count 100000

Two stores are filled, one with a few waiting workflows and one with many, by the engine itself. Then fresh processes
open one or the other, and what they need is compared.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.measuring import Pairs, percentile, print_machine, print_table, seconds, spread
from dotmac_workflows import SQLitePersistence, Workflow, WorkflowResult, WorkflowStatus
from dotmac_workflows.persistence import Header

FEW = 10
PAGE = 10
TOGETHER = 500
"""How many workflows are started at once while a store is filled."""
WAITING = WorkflowStatus.WAITING_APPROVAL


class Purchase(Workflow):
    """Waits for an approval after its first step."""

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step, {"amount": 2500}, requires_approval=step == "order")


def purchase_id(number: int) -> str:
    return f"purchase-{number:07}"


async def fill(path: Path, count: int) -> float:
    """Start so many workflows, and return how long that took."""
    began = time.perf_counter()
    async with SQLitePersistence(path) as store:

        async def start(number: int) -> None:
            purchase = Purchase(
                purchase_id(number), steps=["order", "pay"], metadata={"number": number}, persistence=store
            )
            purchase.configure(require_approval=True)
            await purchase.execute()
            assert purchase.is_waiting_approval

        for first in range(0, count, TOGETHER):
            await asyncio.gather(*map(start, range(first, min(first + TOGETHER, count))))
    return time.perf_counter() - began


def resident() -> int:
    """Return the memory that this process occupies, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def memory_of_one(path: Path, number: int) -> int:
    """Return what opening a store and loading one workflow adds to this process, in bytes."""
    import dotmac_workflows.persistence.sqlite  # noqa: F401 - its own size is not the question

    before = resident()
    async with SQLitePersistence(path) as store:
        loaded = await Purchase.load(purchase_id(number), store)
        assert loaded.is_waiting_approval
        return resident() - before


def measured_memory(path: Path, number: int) -> int:
    """Return `memory_of_one` of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.waiting", "--memory-of", str(path), str(number)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


async def last_of(store: SQLitePersistence, position: int) -> Header | None:
    """Return the header at a position of the list of what waits, walking there by pages."""
    header, left = None, position
    while left > 0:
        page = await store.find(status=WAITING, after=header, limit=min(1000, left))
        header, left = page[-1], left - len(page)
    return header


async def milliseconds(run: Callable[[], Awaitable[object]], times: int) -> float:
    """Return how long one of some calls took on average."""

    async def repeated() -> None:
        for _ in range(times):
            await run()

    return await seconds(repeated) / times * 1e3


async def times_of(few: Path, many: Path, count: int, pairs: int, calls: int) -> list[list[str]]:
    """Return the rows of the table about time.

    A call is a hop to a thread and back, and on a busy machine one store's thread may lie better than the other's for
    a while; hence the least beside the median.
    """
    rows = []
    async with SQLitePersistence(few) as small, SQLitePersistence(many) as large:
        middle = count // 2
        deep, deep_in_few = await last_of(large, count - PAGE), None
        wanted: list[tuple[str, Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]] = [
            (
                "load one",
                lambda: Purchase.load(purchase_id(middle), large),
                lambda: Purchase.load(purchase_id(FEW // 2), small),
            ),
            (
                f"find {PAGE} that wait, the first",
                lambda: large.find(status=WAITING, limit=PAGE),
                lambda: small.find(status=WAITING, limit=PAGE),
            ),
            (
                f"find {PAGE} that wait, the last",
                lambda: large.find(status=WAITING, after=deep, limit=PAGE),
                lambda: small.find(status=WAITING, after=deep_in_few, limit=PAGE),
            ),
        ]
        assert len(await large.find(status=WAITING, after=deep, limit=2 * PAGE)) == PAGE
        for title, ours, theirs in wanted:
            samples = Pairs()
            for turn in range(pairs + 1):
                pair = await milliseconds(ours, calls), await milliseconds(theirs, calls)
                if turn:
                    samples.add(*pair)
            rows.append(
                [
                    title,
                    spread(samples.ours).show(3),
                    f"{percentile(samples.ours, 99):.3f}",
                    spread(samples.theirs).show(3),
                    samples.ratio().show(2),
                    f"{min(samples.ours) / min(samples.theirs):.2f}",
                ]
            )
    return rows


async def measure(directory: str | None, count: int, pairs: int, calls: int) -> None:
    """Print all tables."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="benchmark-") as name:
        few, many = Path(name, "few.db"), Path(name, "many.db")
        await fill(few, FEW)
        took = await fill(many, count)
        print_machine("Durability: WAL with synchronous=FULL, the store's own")
        print(f"{count:,} started to the gate, {TOGETHER} at a time: {count / took:,.0f} a second")
        print(f"The file: {os.stat(many).st_size / count:,.0f} bytes a workflow")
        memory = Pairs()
        for _ in range(min(pairs, 10)):
            memory.add(measured_memory(many, count // 2), measured_memory(few, FEW // 2))
        print_table(
            "Memory that opening the store and loading one adds to a fresh process, KiB: median (quartiles)",
            [f"{count:,} wait", f"{FEW} wait", "ratio"],
            [
                [
                    spread(memory.ours).show(0, 1 / 1024),
                    spread(memory.theirs).show(0, 1 / 1024),
                    memory.ratio().show(2),
                ]
            ],
        )
        print_table(
            f"Time of a call, ms: median (quartiles) of {pairs} pairs of {calls} calls",
            ["", f"{count:,} wait", "p99", f"{FEW} wait", "ratio", "least / least"],
            await times_of(few, many, count, pairs, calls),
        )
        print("\nTarget: the same whether few or many wait (a B-tree is a page deeper for each hundredfold).")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="how many wait (%(default)s)")
    parser.add_argument("--pairs", type=int, default=100, help="how many samples of each (%(default)s)")
    parser.add_argument("--directory", help="where to put the files (the system's directory for temporary files)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--memory-of", nargs=2, metavar=("PATH", "NUMBER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        print(asyncio.run(memory_of_one(Path(given.memory_of[0]), int(given.memory_of[1]))))
    elif given.quick:
        asyncio.run(measure(given.directory, 50, 2, 3))
    else:
        asyncio.run(measure(given.directory, given.count, given.pairs, 10))


if __name__ == "__main__":
    main()
