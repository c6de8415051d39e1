"""What every adapter is made of, and the tasks that it is given.

An adapter says how its peer does six things, each as the peer's own documentation would have it: run steps in memory,
run them durably, start a run up to a gate, approve it, carry on what a crash left, undo. All else is the same for all
and is done here: the clock is read around the same calls, the steps do the same work, and what they did is counted.
"""

import asyncio
import gc
import os
import random
import sqlite3
import time
import tracemalloc
import uuid
from collections.abc import Awaitable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

TOGETHER = 500
"""How many runs are started at once where many are wanted, but not their throughput."""
KEPT = 2000
"""Of the latencies of one task so many are handed back at most, evenly taken."""

DATA: dict[str, Any] = {"reference": "REF-0001", "amount": 250, "express": False}
"""What a durable step leaves behind, and its peer is to keep."""

Told = dict[str, Any]
"""A task's answer: what goes into JSON."""


class NotPossibleError(Exception):
    """The peer cannot do this; the text says why."""


class Work:
    """What the steps do, and what they saw: when each was entered and left, and how many were done and undone."""

    def __init__(self) -> None:
        self.done = 0
        self.undone = 0
        self.waits: list[float] = []
        """Seconds from the end of a step's code to the beginning of the next step's, or to the end of the run."""
        self.failed_at = 0.0
        self.fails_at: str | None = None
        self.sleeps: random.Random | None = None
        self.hangs_at: str | None = None
        self.hanging = 0
        self._left: dict[str, float] = {}

    async def step(self, workflow_id: str, name: str) -> bool:
        """Do a step's work; False: it failed."""
        self._enter(workflow_id)
        if self.sleeps is not None:
            await asyncio.sleep(self.sleeps.random() * 0.020)
        if name == self.hangs_at:
            self.hanging += 1
            await asyncio.Event().wait()
        self.done += 1
        self._left[workflow_id] = time.perf_counter()
        if name == self.fails_at:
            self.failed_at = self._left[workflow_id]
            return False
        return True

    async def undo(self, workflow_id: str, name: str) -> None:
        """Do the work of undoing a step."""
        self.undone += 1

    def ended(self, workflow_id: str) -> None:
        """Note that a run is known to be over."""
        self._enter(workflow_id)

    def _enter(self, workflow_id: str) -> None:
        left = self._left.pop(workflow_id, None)
        if left is not None:
            self.waits.append(time.perf_counter() - left)


class Adapter:
    """How one peer does the work. A method that is left out is one thing that the peer cannot do."""

    distribution: ClassVar[str | None] = None
    """The name under which its version is found; None for code of our own."""
    imports: ClassVar[dict[str, str]] = {}
    """What a program imports that uses it in memory (`memory`) or on SQLite (`durable`), for the cost of that."""
    memory: ClassVar[str | None] = None
    """Its setting in memory, in words; None: it does not run without a store."""
    durable: ClassVar[str | None] = None
    """Its setting on SQLite, in words; None: it keeps nothing, or leaves keeping it to its user."""
    cannot: ClassVar[dict[str, str]] = {}
    """Why it cannot do a task."""
    file: ClassVar[str] = "store.db"
    tables: ClassVar[dict[str, str]] = {}
    """The tables that hold a run, each with the column that has the run's id."""

    def __init__(self) -> None:
        self.work = Work()

    async def in_memory(self, names: list[str]) -> int:
        """Make and run one workflow of trivial steps, and return how many it recorded."""
        raise NotPossibleError("it has no mode without a store")

    async def open(self, folder: Path) -> None:
        """Open the store in a folder, made when it is not there."""
        raise NotPossibleError("it keeps no runs by itself")

    async def close(self) -> None:
        """Close it, all of it on the disk."""

    async def settings(self) -> dict[str, object]:
        """Read journal_mode and synchronous back from the connection that writes."""
        raise NotPossibleError("it keeps no runs by itself")

    async def run(self, workflow_id: str, names: list[str]) -> None:
        """Run a workflow durably, each step `await self.work.step(workflow_id, name)`."""
        raise NotPossibleError("it keeps no runs by itself")

    async def run_all(self, ids: list[str], names: list[str], at_once: int) -> None:
        """Run workflows, so many at once."""

        async def run(workflow_id: str) -> None:
            await self.run(workflow_id, names)
            self.work.ended(workflow_id)

        await in_groups(map(run, ids), at_once)

    async def start(self, workflow_id: str, names: list[str]) -> None:
        """Run the first step, and return when the run durably waits for an approval."""
        raise NotPossibleError("it has no approvals")

    async def approve(self, workflow_id: str, names: list[str]) -> None:
        """Approve a run that another process started, and return when it is complete."""
        raise NotPossibleError("it has no approvals")

    async def recover(self, ids: list[str], names: list[str]) -> None:
        """Carry on what a killed process left, and return when all is complete."""
        raise NotPossibleError("it does not carry on after a crash by itself")

    async def undo(self, workflow_id: str, names: list[str]) -> None:
        """Run a workflow whose last step fails, and return when the others are undone."""
        raise NotPossibleError("it has no rollback")

    async def undo_in_memory(self, names: list[str]) -> None:
        """Do the same without a store."""
        raise NotPossibleError("it has no rollback")


SETTINGS = ("journal_mode", "synchronous")


def settings_of(connection: sqlite3.Connection) -> dict[str, object]:
    """Ask a connection how it writes."""
    return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in SETTINGS}


async def settings_of_async(connection: Any) -> dict[str, object]:
    """Ask a connection of aiosqlite the same."""
    found: dict[str, object] = {}
    for name in SETTINGS:
        async with connection.execute(f"PRAGMA {name}") as cursor:
            found[name] = (await cursor.fetchone())[0]
    return found


def step_names(count: int) -> list[str]:
    return [f"step_{number}" for number in range(count)]


def new_ids(count: int) -> list[str]:
    """Return ids as most users would have them: random, so that nothing is written in their order."""
    return [uuid.uuid4().hex for _ in range(count)]


def evenly(samples: list[float]) -> list[float]:
    ordered = sorted(samples)
    if len(ordered) <= KEPT:
        return ordered
    return [ordered[number * (len(ordered) - 1) // (KEPT - 1)] for number in range(KEPT)]


async def in_groups(runs: Iterable[Awaitable[object]], at_once: int) -> None:
    """Await runs, so many together."""
    group: list[Awaitable[object]] = []
    for run in runs:
        if at_once == 1:
            await run
            continue
        group.append(run)
        if len(group) == at_once:
            await asyncio.gather(*group)
            group = []
    await asyncio.gather(*group)


class Tasks:
    """The tasks, as the tool asks for them by name."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._folder: Path | None = None
        self._hanging: list[asyncio.Future[None]] = []

    async def in_memory(self, *, steps: int, runs: int) -> Told:
        """Run workflows one after the other, each with its making."""
        names, run = step_names(steps), self._adapter.in_memory
        recorded = 0
        gc.collect()
        began = time.perf_counter()
        for _ in range(runs):
            recorded = await run(names)
        took = time.perf_counter() - began
        _expect("steps recorded", recorded, steps)
        return {"seconds": took}

    async def durable(self, *, folder: str, steps: int, workflows: int, at_once: int, sleeps: bool) -> Told:
        """Run workflows durably, so many at once."""
        work = await self._opened(folder)
        work.sleeps = random.Random(workflows) if sleeps else None
        names, ids = step_names(steps), new_ids(workflows)
        gc.collect()
        began = time.perf_counter()
        await self._adapter.run_all(ids, names, at_once)
        took = time.perf_counter() - began
        _expect("steps done", work.done, steps * workflows)
        return {"seconds": took, "waits": evenly(work.waits), "ids": ids}

    async def start(self, *, folder: str, count: int, steps: int) -> Told:
        """Start runs up to their gate."""
        work = await self._opened(folder)
        names, ids = step_names(steps), new_ids(count)
        began = time.perf_counter()
        await in_groups((self._adapter.start(workflow_id, names) for workflow_id in ids), TOGETHER)
        took = time.perf_counter() - began
        _expect("steps done", work.done, count)
        return {"seconds": took, "ids": ids}

    async def approve(self, *, folder: str, ids: list[str], steps: int) -> Told:
        """Approve runs one after the other."""
        began = time.perf_counter()
        await self._opened(folder)
        opened = time.perf_counter() - began
        names, samples = step_names(steps), []
        for workflow_id in ids:
            began = time.perf_counter()
            await self._adapter.approve(workflow_id, names)
            samples.append(time.perf_counter() - began)
        return {"opened": opened, "waits": samples}

    async def hang(self, *, folder: str, count: int, steps: int) -> Told:
        """Start runs that all stop in the middle of a step, and leave them there."""
        return {"ids": await self._hang(await self._opened(folder), count, steps)}

    async def recover(self, *, folder: str, ids: list[str], steps: int) -> Told:
        """Open the store and carry on what is there."""
        gc.collect()
        began = time.perf_counter()
        work = await self._opened(folder)
        await self._adapter.recover(ids, step_names(steps))
        took = time.perf_counter() - began
        if work.done < len(ids) * (steps - steps // 2):
            raise RuntimeError(f"only {work.done} steps were done while recovering")
        return {"seconds": took}

    async def undo(self, *, folder: str | None, steps: int, workflows: int) -> Told:
        """Run workflows whose last step fails, one after the other; only the undoing is timed."""
        work = await self._opened(folder) if folder else self._fresh()
        names, took = step_names(steps + 1), 0.0
        work.fails_at = names[-1]
        for workflow_id in new_ids(workflows):
            if folder:
                await self._adapter.undo(workflow_id, names)
            else:
                await self._adapter.undo_in_memory(names)
            took += time.perf_counter() - work.failed_at
        _expect("steps undone", work.undone, steps * workflows)
        return {"seconds": took}

    async def memory(self, *, folder: str, kind: str, count: int, steps: int) -> Told:
        """Return what this process needs for runs that are live, or that wait, in bytes."""
        work = await self._opened(folder)

        async def make(wanted: int) -> None:
            if kind == "live":
                await self._hang(work, wanted, steps)
            else:
                await self.start(folder=folder, count=wanted, steps=steps)

        found = {}
        for name, needed in (("resident", _resident), ("traced", _traced)):
            if name == "traced":
                tracemalloc.start()
            await make(10)  # what is made once is not the question
            before = needed()
            await make(count)
            found[name] = needed() - before
        return found

    async def settings(self, *, folder: str) -> Told:
        """Return how the store writes."""
        await self._opened(folder)
        found: Told = dict(await self._adapter.settings())
        return found

    async def grow(self, *, folder: str, runs: int) -> Told:
        """Make a store of so many completed runs: one that the peer wrote, and copies of its rows by SQL.

        The copies have random ids, so that the rows of new runs fall between theirs.
        """
        await self.durable(folder=folder, steps=10, workflows=1, at_once=1, sleeps=False)
        await self.close()
        copy_runs(Path(folder) / self._adapter.file, self._adapter.tables, runs)
        return {}

    async def close(self) -> Told:
        """Close the store."""
        if self._folder is not None:
            self._folder = None
            await self._adapter.close()
        return {}

    def _fresh(self) -> Work:
        self._adapter.work = Work()
        return self._adapter.work

    async def _opened(self, folder: str) -> Work:
        if self._folder != Path(folder):
            await self.close()
            os.makedirs(folder, exist_ok=True)
            work = self._fresh()
            await self._adapter.open(Path(folder))
            self._folder = Path(folder)
            return work
        return self._fresh()

    async def _hang(self, work: Work, count: int, steps: int) -> list[str]:
        names, ids = step_names(steps), new_ids(count)
        work.hangs_at, wanted = names[steps // 2], work.hanging + count
        self._hanging += [asyncio.ensure_future(self._adapter.run(workflow_id, names)) for workflow_id in ids]
        while work.hanging < wanted:
            await asyncio.wait(self._hanging, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)
            for task in self._hanging:
                if task.done():
                    task.result()
                    raise RuntimeError("a run ended that was to hang")
        return ids


def _expect(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{what}: {found}, not {wanted}")


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def copy_runs(path: Path, tables: dict[str, str], runs: int) -> None:
    """Copy the rows of the one run in a database until there are so many runs, each with a random id."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (kept,) = connection.execute("PRAGMA journal_mode").fetchone()
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        table, column = next(iter(tables.items()))
        (template,) = connection.execute(f"SELECT DISTINCT {column} FROM {table}").fetchone()
        connection.execute("CREATE TEMP TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO ids VALUES (?)", ((workflow_id,) for workflow_id in new_ids(runs - 1)))
        for table, column in tables.items():
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            keys = [(name, kind) for _, name, kind, _, _, key in columns if key]
            numbered = keys[0][0] if len(keys) == 1 and keys[0][1].upper() == "INTEGER" else None  # SQLite counts
            copied = [name for _, name, *_ in columns if name != numbered]
            values = ", ".join("ids.id" if name == column else f"t.{name}" for name in copied)
            connection.execute(
                f"INSERT INTO {table} ({', '.join(copied)}) SELECT {values} FROM ids CROSS JOIN {table} t "
                f"WHERE t.{column} = ? ORDER BY ids.id",
                (template,),
            )
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA journal_mode = {kept}").fetchall()
