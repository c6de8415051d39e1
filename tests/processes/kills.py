"""Kills processes that drive orders, at any moment, has others take up what they left, and judges what came of it."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crash_simulation import Script, interrupting, scripts
from dotmac_workflows import InMemoryPersistence, SQLitePersistence, verify
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event
from dotmac_workflows.persistence import Persistence
from dotmac_workflows.testing._judge import Effect, Violation, judge_run
from dotmac_workflows.values import Codec
from processes.orders import NAMES, Order, bring_to_its_end, to_json

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])}
AT_ONCE = 6
"""How many orders one process drives at once."""
LINES = 25
"""A process is killed after at most so many lines, so after any of its first moments."""


@dataclass
class Report:
    """What a lane of kills came to."""

    kills: int = 0
    workflows: int = 0
    acknowledged: int = 0
    """How many transitions a process was told of as recorded, and told the test."""
    again: Counter[str] = field(default_factory=Counter)
    """How many times something in flight was started once more, by phase."""
    last: Counter[str] = field(default_factory=Counter)
    """What the killed had said last."""


def run_lane(directory: Path, seed: int, kills: int, *, rivals: bool = False) -> Report:
    """Kill at least so many processes on one database, bring all to its end, and judge it.

    Args:
        directory: Where the database and the ledger go.
        seed: Of everything that is left to chance.
        kills: How many processes to kill.
        rivals: Have two processes at a time, which want to drive the same orders.

    Raises:
        Violation: A promise was broken.
    """
    with Lane(directory, random.Random(seed), rivals=rivals) as lane:
        while lane.report.kills < kills:
            lane.play_batch(kills)
    lane.judge()
    return lane.report


class Worker:
    """One process after the other, each born when the one before it is dead."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "processes.nursery"]
        self._nursery = subprocess.Popen(
            command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.said: list[str] = []
        """What the one at work has said so far."""
        self.process = 0
        self.status: int | None = None
        """How it died: its exit code, or the signal with a minus; None while it lives."""

    def start(self, *arguments: str) -> None:
        """Have a process born, which works."""
        assert self._nursery.stdin is not None
        self.said, self.process, self.status = [], 0, None
        self._nursery.stdin.write(json.dumps(arguments) + "\n")
        while not self.process:
            self.listen()

    def listen(self) -> None:
        """Wait for it to say something, or to die."""
        assert self._nursery.stdout is not None
        line = self._nursery.stdout.readline().strip()
        what, _, rest = line.partition(" ")
        if what == "born":
            self.process = int(rest)
        elif what == "died":
            self.status = int(rest)
        elif line:
            self.said.append(line)
        else:
            raise Violation(f"the nursery is gone, after {self.said}")

    def kill(self) -> None:
        """Kill it with signal 9, if it still lives, and wait until it is dead."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        while self.status is None:
            self.listen()

    def close(self) -> None:
        """End the nursery."""
        self._nursery.communicate()


class Lane:
    """One database, one ledger, and one process after the other, or two at a time."""

    def __init__(self, directory: Path, chance: random.Random, *, rivals: bool = False) -> None:
        self.database = directory / "orders.db"
        self.ledger = directory / "ledger"
        self.report = Report()
        self._chance = chance
        self._workers = [Worker() for _ in range(1 + rivals)]
        every = [script for length in (2, 3, 4) for script in scripts(length)]
        # Whoever takes up a paused run here cannot tell which step it was paused in.
        self._every_script = [script for script in every if "pause_cancel" not in script.behaviours]
        self._scripts: dict[str, Script] = {}
        self.acknowledged: Counter[tuple[str, str]] = Counter()
        """How many times a process said that a fact of a workflow was recorded."""
        self.killed: set[int] = set()

    def __enter__(self) -> "Lane":
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.close()

    def play_batch(self, kills: int) -> None:
        """Have some orders brought to their end, killing whoever is at it."""
        number = len(self._scripts)
        batch = {f"order-{number + index}": self._chance.choice(self._every_script) for index in range(AT_ONCE)}
        self._scripts |= batch
        while not self._play(batch, last=self.report.kills >= kills):
            pass

    def judge(self) -> None:
        """Judge all that happened.

        Raises:
            Violation: A promise was broken.
        """
        self.report.again.clear()
        self.report.workflows = 0
        asyncio.run(self._judge())

    def _play(self, batch: dict[str, Script], *, last: bool) -> bool:
        """Let processes work at a batch, and tell whether they came to the end before they were killed."""
        first, *rivals = self._workers
        for worker in self._workers:
            self._start(worker, batch)
        killed = self._watch(first, last=last)
        for rival in rivals:
            if killed:  # It may have taken over by now, or be about to.
                time.sleep(self._chance.random() / 50)
                rival.kill()
            while rival.status is None:
                rival.listen()
        for worker in self._workers:
            self._note(worker)
        return all(worker.status == 0 for worker in self._workers)

    def _start(self, worker: Worker, batch: dict[str, Script]) -> None:
        how = self._chance.choice(["recover", "resume"])
        rivals = str(len(self._workers) - 1)
        worker.start(str(self.database), str(self.ledger), how, rivals, to_json(batch))

    def _watch(self, worker: Worker, *, last: bool) -> bool:
        """Listen to a process until its moment has come and kill it, or until it ends; tell whether it was killed."""
        lines, pause, early = self._chance.randint(1, LINES), self._chance.random() / 200, self._chance.random() < 0.1
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
            self.killed.add(worker.process)
            self.report.kills += 1
            self.report.last[" ".join(worker.said[-1].split()[::2]) if worker.said else "nothing"] += 1
        elif worker.status != 0:
            raise Violation(f"a worker ended with exit code {worker.status} after {worker.said}")
        for line in worker.said:
            what, *which = line.split()
            if what == "ack":
                workflow_id, fact = which
                self.acknowledged[workflow_id, fact] += 1
                self.report.acknowledged += 1

    # The judgement.

    async def _judge(self) -> None:
        store = SQLitePersistence(self.database)
        checked = await verify(store)
        if checked.problems or checked.workflows != len(self._scripts):
            raise Violation(f"invariant 14: {checked}")
        effects = effects_of(self.ledger)
        for workflow_id, script in self._scripts.items():
            journal = [codec.decode(row.kind, row.at, row.body, Codec()) for row in await store.read(workflow_id)]
            try:
                self._judge_order(script, journal, effects.pop(workflow_id, []))
                self._judge_acknowledged(workflow_id, journal)
                run = await Order.load(workflow_id, store)
                if end_of(run) not in await ends_without_crashes(script):
                    raise Violation(f"invariant 11 same end: {end_of(run)}")
            except Violation as error:
                lines = "\n".join(f"  {seq} {event}" for seq, event in enumerate(journal, 1))
                raise Violation(f"{error}\n{workflow_id} {script}\n{lines}") from error
            self.report.workflows += 1
        if effects:
            raise Violation(f"invariant 2 durable before: effects of runs that are not there: {effects}")
        await store.close()

    def _judge_order(self, script: Script, journal: Sequence[Event], effects: list[Effect]) -> None:
        driver = 0

        def took_over_from_a_killed_one(seq: int, event: Event) -> bool:
            nonlocal driver
            if not isinstance(event, ev.Claimed):
                return False
            before, driver = driver, int(event.owner.split(":")[1])
            return before in self.killed

        judge_run(NAMES[: len(script.behaviours)], script.settings, journal, effects, took_over_from_a_killed_one)
        for event in journal:
            if isinstance(event, ev.StepStarted | ev.RollbackStepStarted) and event.attempt > 1:
                self.report.again["forward" if isinstance(event, ev.StepStarted) else "rollback"] += 1

    def _judge_acknowledged(self, workflow_id: str, journal: Sequence[Event]) -> None:
        recorded: Counter[str] = Counter()
        for event in journal:
            recorded[f"!{type(event).__name__}"] += 1
            if isinstance(event, ev.StepSucceeded | ev.StepFailed | ev.StepInterrupted):
                recorded[event.result.step] += 1
        for (whose, fact), times in self.acknowledged.items():
            if whose == workflow_id and recorded[fact] < times:
                raise Violation(f"invariant 10 lost: {fact} was acknowledged {times} times")


def effects_of(ledger: Path) -> dict[str, list[Effect]]:
    """Return the lines of a ledger by workflow."""
    effects: dict[str, list[Effect]] = {}
    for text in ledger.read_text().splitlines() if ledger.exists() else ():
        line = json.loads(text)
        step = line["step"]
        effects.setdefault(line["workflow"], []).append(
            Effect(line["phase"], step, NAMES.index(step), line["visit"], line["attempt"], line["key"])
        )
    return effects


End = tuple[str, str, tuple[tuple[str, bool, str | None], ...]]


def end_of(run: Order) -> End:
    results = tuple((result.step, result.success, result.error) for result in run.results)
    return str(run.status), run.rollback_status, results


async def ends_without_crashes(script: Script) -> list[End]:
    """Return how a run of a script may end: as without crashes, or as if a cancel had interrupted the step it hit."""
    ends = []
    for behaviours in {script.behaviours, interrupting(script.behaviours)}:
        store: Persistence = InMemoryPersistence()
        ends.append(end_of(await bring_to_its_end("w", script._replace(behaviours=behaviours), store)))
    return ends
