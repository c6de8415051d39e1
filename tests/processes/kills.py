"""Kills processes that drive orders, at any moment, has others take up what they left, and judges what came of it."""

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from crash_simulation import Script
from dotmac_workflows.testing._judge import Violation
from processes.judging import Evidence
from processes.nursery import Worker
from processes.orders import scripts_of, to_json

FEW, MANY = 6, 60
"""How many orders one process drives at once."""
LINES_AN_ORDER = 14
"""A process is killed after at most so many lines an order, so after any of its first moments."""


@dataclass
class Report:
    """What a lane of kills came to."""

    kills: int = 0
    workflows: int = 0
    appends: int = 0
    """Of how many appends the store told a process that they are durable, and the process the test."""
    told: int = 0
    """How many transitions callbacks and verbs told of as recorded."""
    again: Counter[str] = field(default_factory=Counter)
    """How many times something in flight was started once more, by phase."""
    last: Counter[str] = field(default_factory=Counter)
    """What the killed had said last."""


def run_lane(directory: Path, seed: int, kills: int, *, appends: int = 0, rivals: bool = False) -> Report:
    """Kill at least so many processes on one database, bring all to its end, and judge it.

    Args:
        directory: Where the database and the ledger go.
        seed: Of everything that is left to chance.
        kills: How many processes to kill.
        appends: How many appends are to be acknowledged at least; where there are to be some, a process drives many
            orders at once in every other batch.
        rivals: Have two processes at a time, which want to drive the same orders.

    Raises:
        Violation: A promise was broken.
    """
    with Lane(directory, random.Random(seed), rivals=rivals, sizes=(FEW, MANY) if appends else (FEW,)) as lane:
        while lane.report.kills < kills or lane.evidence.acknowledged < appends:
            lane.play_batch(kills)
    lane.judge()
    return lane.report


class Lane:
    """One database, one ledger, and one process after the other, or two at a time."""

    def __init__(
        self, directory: Path, chance: random.Random, *, rivals: bool = False, sizes: tuple[int, ...] = (FEW,)
    ) -> None:
        self.evidence = Evidence(directory)
        self.report = Report()
        self._chance = chance
        self._sizes = sizes
        self._workers = [Worker("worker") for _ in range(1 + rivals)]
        self._every_script = scripts_of(2, 3, 4)

    def __enter__(self) -> "Lane":
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.close()

    def play_batch(self, kills: int) -> None:
        """Have some orders brought to their end, killing whoever is at it, until so many were killed."""
        number = len(self.evidence.scripts)
        size = self._chance.choice(self._sizes)
        batch = {f"order-{number + index}": self._chance.choice(self._every_script) for index in range(size)}
        self.evidence.scripts |= batch
        while not self._play(batch, last=self.report.kills >= kills):
            pass

    def judge(self) -> None:
        """Judge all that happened.

        Raises:
            Violation: A promise was broken.
        """
        evidence, report = self.evidence, self.report
        asyncio.run(evidence.judge())
        report.workflows, report.again = evidence.judged, evidence.again
        report.appends, report.told = evidence.acknowledged, evidence.told

    def _play(self, batch: dict[str, Script], *, last: bool) -> bool:
        """Let processes work at a batch, and tell whether they came to the end before they were killed."""
        first, *rivals = self._workers
        for worker in self._workers:
            self._start(worker, batch)
        killed = self._watch(first, LINES_AN_ORDER * len(batch), last=last)
        for rival in rivals:
            if killed:  # It may have taken over by now, or be about to.
                time.sleep(self._chance.random() / 50)
                rival.kill()
            rival.wait()
        for worker in self._workers:
            self._note(worker)
        return all(worker.status == 0 for worker in self._workers)

    def _start(self, worker: Worker, batch: dict[str, Script]) -> None:
        how = self._chance.choice(["recover", "resume"])
        rivals = str(len(self._workers) - 1)
        worker.start(str(self.evidence.database), str(self.evidence.ledger), how, rivals, to_json(batch))

    def _watch(self, worker: Worker, most: int, *, last: bool) -> bool:
        """Listen to a process until its moment has come and kill it, or until it ends; tell whether it was killed."""
        lines, pause, early = self._chance.randint(1, most), self._chance.random() / 200, self._chance.random() < 0.1
        if last:
            lines = sys.maxsize
        elif early:  # before it has said anything: it starts, or opens the store
            lines, pause = 0, self._chance.random() / 20
        while worker.status is None and len(worker.said) < lines:
            worker.listen()
        if worker.status is None:
            time.sleep(pause)
            worker.kill()
        return worker.status == -signal.SIGKILL

    def _note(self, worker: Worker) -> None:
        """Note how a process died, and what it said."""
        if worker.status == -signal.SIGKILL:
            self.evidence.lost.add(worker.process)
            self.report.kills += 1
            self.report.last[_kind(worker.said[-1]) if worker.said else "nothing"] += 1
        elif worker.status != 0:
            raise Violation(f"a worker ended with exit code {worker.status} after\n{worker.last_words}")
        self.evidence.note(worker.said)


def _kind(line: str) -> str:
    """Return what a line is about, without which workflow and which record."""
    what, *which = line.split()
    return what if what in ("appended", "refused") else " ".join([what, *which[1:2]])
