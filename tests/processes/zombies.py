"""Stops processes that drive orders, past their leases, takes over, lets them go on, and judges what came of it."""

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash_simulation import Script
from dotmac_workflows import PersistenceError, SQLitePersistence
from dotmac_workflows.persistence.sqlite._lock import InterprocessLock
from dotmac_workflows.testing._judge import Violation
from processes.judging import Evidence, effects_of
from processes.nursery import Worker
from processes.orders import Ledger, Order, bring_to_its_end, scripts_of, to_json

AT_ONCE = 3
"""How many orders one process drives at once."""
LINES = 40
"""A process is stopped after at most so many lines."""
LEASE_SECONDS = 0.05
PACES = (0.0, 0.02)
"""How long the pauses in a step are at most: with none, a process is mostly stopped in an append."""


@dataclass
class Report:
    """What a lane of zombies came to."""

    zombies: int = 0
    """How many processes went on after a run had been taken over from them."""
    taken: Counter[str] = field(default_factory=Counter)
    """How many runs were taken over, by where their driver was stopped."""
    refused: int = 0
    """How many appends of zombies were refused."""
    held: int = 0
    """How many times one was stopped with the writer's lock in hand, and the lock named it."""
    workflows: int = 0


async def run_lane(directory: Path, seed: int, zombies: int) -> Report:
    """Make at least so many zombies on one database, one after the other, and judge it.

    Args:
        directory: Where the database and the ledger go.
        seed: Of everything that is left to chance.
        zombies: How many.

    Raises:
        Violation: A promise was broken.
    """
    with Lane(directory, random.Random(seed)) as lane:
        async with SQLitePersistence(lane.evidence.database) as store:
            while lane.report.zombies < zombies:
                await lane.play(store)
    await lane.judge()
    return lane.report


class Lane:
    """One database, one ledger, one process after the other, and this one, which takes over."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.evidence = Evidence(directory)
        self.report = Report()
        self.worker = Worker("owner")
        self._chance = chance
        self._every_script = scripts_of(2, 3, 4)
        self._lock = InterprocessLock(f"{self.evidence.database}-lock", 0)

        class Taker(Order):
            workflow_type = "Order"
            ledger = Ledger(str(self.evidence.ledger))

        self._taker = Taker

    def __enter__(self) -> "Lane":
        return self

    def __exit__(self, *exception: object) -> None:
        self.worker.close()
        self._lock.close()

    async def play(self, store: SQLitePersistence) -> None:
        """Have a process stopped somewhere, take over what it drove, and let it go on."""
        number = len(self.evidence.scripts)
        batch = {f"order-{number + index}": self._chance.choice(self._every_script) for index in range(AT_ONCE)}
        self.evidence.scripts |= batch
        self._start(batch)
        in_append = self._stop()
        leases = {workflow_id: await store.lease(workflow_id) for workflow_id in batch}
        driven = [
            workflow_id
            for workflow_id, lease in leases.items()
            if lease is not None and int(lease.owner.split(":")[1]) == self.worker.process
        ]
        if self.worker.status is None and driven:
            await self._note_places(driven, store, in_append=in_append)
            self.evidence.lost.add(self.worker.process)
            await self._bring_to_their_ends(batch, store)
            self._let_zombie_go_on(driven)
        else:
            self.worker.go_on()
            self.worker.wait()
            await self._bring_to_their_ends(batch, store)
        if self.worker.status != 0:
            raise Violation(f"an owner ended with exit code {self.worker.status} after\n{self.worker.last_words}")
        self.evidence.note(self.worker.said)

    async def judge(self) -> None:
        """Judge all that happened.

        Raises:
            Violation: A promise was broken.
        """
        await self.evidence.judge(in_order=False)
        self.report.workflows = self.evidence.judged

    def contents(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of the database: journals, headers, leases."""
        with closing(sqlite3.connect(self.evidence.database)) as connection:
            tables = ("workflows", "records")
            return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}

    def _start(self, batch: dict[str, Script]) -> None:
        evidence, pace, seed = self.evidence, self._chance.choice(PACES), self._chance.random()
        arguments = (LEASE_SECONDS, seed, pace, to_json(batch))
        self.worker.start(str(evidence.database), str(evidence.ledger), *map(str, arguments))

    def _stop(self) -> bool:
        """Stop the process at a moment drawn by chance; tell whether it waits for the lock to append by then."""
        lines, keep_waiting = self._chance.randint(1, LINES), self._chance.random() < 0.3
        while self.worker.status is None and len(self.worker.said) < lines:
            self.worker.listen()
        while self.worker.status is None:
            self._pause()
            locked = self._lock_out() if keep_waiting else False
            self.worker.stop()
            if locked:
                self._lock.__exit__(None, None, None)
            if not self._holds_lock():
                return locked
            # Nobody else can write now, or take over: that is another moment.
            self.worker.go_on()
        return False

    def _pause(self) -> None:
        time.sleep(self._chance.random() / 100)

    def _lock_out(self) -> bool:
        """Take the lock, and leave the process time to come and wait for it."""
        self._lock.time_limit = 10
        self._lock.open()
        self._lock.__enter__()
        self._pause()
        return True

    def _holds_lock(self) -> bool:
        """Tell whether the stopped process holds the writer's lock; it must be named then."""
        self._lock.time_limit = 0
        self._lock.open()
        try:
            with self._lock:
                return False
        except PersistenceError as error:
            if f"process {self.worker.process} on host" in str(error):
                self.report.held += 1
            return self.worker.status is None

    async def _note_places(self, driven: Iterable[str], store: SQLitePersistence, *, in_append: bool) -> None:
        effects = effects_of(self.evidence.ledger)
        for workflow_id in driven:
            last = (await store.read(workflow_id))[-1]
            place = f"after {last.kind}"
            if last.kind.endswith("step_started"):
                started = sum(row.kind == last.kind for row in await store.read(workflow_id))
                phase = "rollback" if last.kind.startswith("rollback") else "forward"
                acted = sum(effect.phase == phase for effect in effects.get(workflow_id, ()))
                place = f"{phase}, {'before' if acted < started else 'after'} the effect"
            self.report.taken[f"{place}, locked out" if in_append else place] += 1

    async def _bring_to_their_ends(self, batch: dict[str, Script], store: SQLitePersistence) -> None:
        await asyncio.gather(*(bring_to_its_end(*item, store, self._taker, rivals=True) for item in batch.items()))

    def _let_zombie_go_on(self, driven: Iterable[str]) -> None:
        before, said = self.contents(), len(self.worker.said)
        self.worker.go_on()
        self.worker.wait()
        if self.contents() != before:
            raise Violation(f"invariant 4 stale: a zombie changed the store, and said\n{self.worker.last_words}")
        lines = self.worker.said[said:]
        for workflow_id in driven:
            if f"left {workflow_id} LeaseLostError" not in lines:
                raise Violation(
                    f"invariant 4 stale: nobody told the zombie of {workflow_id}:\n{self.worker.last_words}"
                )
        self.report.zombies += 1
        self.report.refused += sum(line.startswith("refused ") for line in lines)
