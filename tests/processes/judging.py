"""Judges what processes did to the orders of one database: the journals, the ledger, and what they were told."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from crash_simulation import Script, interrupting
from dotmac_workflows import InMemoryPersistence, SQLitePersistence, verify
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event
from dotmac_workflows.persistence import Persistence, Record
from dotmac_workflows.testing._judge import Effect, Violation, judge_run
from dotmac_workflows.values import Codec
from processes.orders import NAMES, Order, bring_to_its_end


class Evidence:
    """What is known of the orders of one database, from outside of it.

    Args:
        directory: Where the database and the ledger are, or will be.
    """

    def __init__(self, directory: Path) -> None:
        self.database = directory / "orders.db"
        self.ledger = directory / "ledger"
        self.scripts: dict[str, Script] = {}
        """Every order that was made."""
        self.lost: set[int] = set()
        """The processes from which others may have taken a run over: killed, or stopped past their leases."""
        self.facts: dict[str, Counter[str]] = {}
        """How many times a process said that a fact of a workflow was recorded, by workflow."""
        self.appends: dict[str, dict[int, str]] = {}
        """The digest of the last record of each append of which the store told a process that it is durable, by
        workflow and version. A digest stands for all records before it, too."""
        self.refused: dict[str, set[str]] = {}
        """Likewise, of those of which it told that nothing is stored."""
        self.again: Counter[str] = Counter()
        """How many times something in flight was started once more, by phase."""
        self.judged = 0
        """How many orders were judged."""

    @property
    def acknowledged(self) -> int:
        """How many appends were acknowledged."""
        return sum(len(versions) for versions in self.appends.values())

    @property
    def told(self) -> int:
        """How many facts callbacks and verbs told of as recorded."""
        return sum(facts.total() for facts in self.facts.values())

    def note(self, said: Iterable[str]) -> None:
        """Note what a process said, each line of it.

        Raises:
            Violation: Two were told that they had appended the same version.
        """
        for line in said:
            what, *which = line.split()
            if what == "ack":
                workflow_id, fact = which
                self.facts.setdefault(workflow_id, Counter())[fact] += 1
            elif what == "appended":
                workflow_id, version, digest = which
                known = self.appends.setdefault(workflow_id, {}).setdefault(int(version), digest)
                if known != digest:
                    raise Violation(f"invariant 13 dense: two appends made version {version} of {workflow_id}")
            elif what == "refused":
                workflow_id, digest = which
                self.refused.setdefault(workflow_id, set()).add(digest)

    async def judge(self, *, in_order: bool = True) -> None:
        """Judge all that happened.

        Args:
            in_order: Whether the effects are in the order of their starts, as they are unless somebody was stopped.

        Raises:
            Violation: A promise was broken.
        """
        self.again.clear()
        self.judged = 0
        async with SQLitePersistence(self.database) as store:
            checked = await verify(store)
            if checked.problems or checked.workflows != len(self.scripts):
                raise Violation(f"invariant 14: {checked}, of {len(self.scripts)} workflows")
            effects = effects_of(self.ledger)
            for workflow_id, script in self.scripts.items():
                records = await store.read(workflow_id)
                journal = [codec.decode(row.kind, row.at, row.body, Codec()) for row in records]
                try:
                    self._judge_appends(workflow_id, records)
                    acted = effects.pop(workflow_id, [])
                    self._judge_order(script, journal, acted if in_order else _ordered(acted, journal))
                    self._judge_facts(workflow_id, journal)
                    run = await Order.load(workflow_id, store)
                    if end_of(run) not in await ends_without_crashes(script):
                        raise Violation(f"invariant 11 same end: {end_of(run)}")
                except Violation as error:
                    lines = "\n".join(f"  {seq} {event}" for seq, event in enumerate(journal, 1))
                    raise Violation(f"{error}\n{workflow_id} {script}\n{lines}") from error
                self.judged += 1
            if effects:
                raise Violation(f"invariant 2 durable before: effects of runs that are not there: {effects}")

    def _judge_appends(self, workflow_id: str, records: Sequence[Record]) -> None:
        for version, digest in self.appends.get(workflow_id, {}).items():
            if len(records) < version or records[version - 1].digest != digest:
                raise Violation(f"invariant 10 lost: version {version} of {workflow_id} was acknowledged")
        stored = self.refused.get(workflow_id, set()) & {record.digest for record in records}
        if stored:
            raise Violation(f"invariant 16 fate: {stored} of {workflow_id} is stored, and was said not to be")

    def _judge_order(self, script: Script, journal: Sequence[Event], effects: Sequence[Effect]) -> None:
        driver = 0

        def took_over_from_a_lost_one(seq: int, event: Event) -> bool:
            nonlocal driver
            if not isinstance(event, ev.Claimed):
                return False
            before, driver = driver, int(event.owner.split(":")[1])
            return before in self.lost

        judge_run(NAMES[: len(script.behaviours)], script.settings, journal, effects, took_over_from_a_lost_one)
        for event in journal:
            if isinstance(event, ev.StepStarted | ev.RollbackStepStarted) and event.attempt > 1:
                self.again["forward" if isinstance(event, ev.StepStarted) else "rollback"] += 1

    def _judge_facts(self, workflow_id: str, journal: Sequence[Event]) -> None:
        recorded: Counter[str] = Counter()
        for event in journal:
            recorded[f"!{type(event).__name__}"] += 1
            if isinstance(event, ev.StepSucceeded | ev.StepFailed | ev.StepInterrupted):
                recorded[event.result.step] += 1
        for fact, times in self.facts.get(workflow_id, {}).items():
            if recorded[fact] < times:
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


def _ordered(effects: Sequence[Effect], journal: Sequence[Event]) -> list[Effect]:
    """Return effects in the order of their starts: one who was stopped has the effect of its step when it goes on."""
    starts = {
        ("forward" if isinstance(event, ev.StepStarted) else "rollback", event.step, event.visit, event.attempt): seq
        for seq, event in enumerate(journal)
        if isinstance(event, ev.StepStarted | ev.RollbackStepStarted)
    }
    last = len(journal)  # one that was never started stays one, and is found
    return sorted(
        effects, key=lambda effect: starts.get((effect.phase, effect.step, effect.visit, effect.attempt), last)
    )


End = tuple[str, str, tuple[tuple[str, bool, str | None], ...]]
_ends: dict[Script, list[End]] = {}


def end_of(run: Order) -> End:
    results = tuple((result.step, result.success, result.error) for result in run.results)
    return str(run.status), run.rollback_status, results


async def ends_without_crashes(script: Script) -> list[End]:
    """Return how a run of a script may end: as without crashes, or as if a cancel had interrupted the step it hit."""
    if script not in _ends:
        ends = []
        for behaviours in {script.behaviours, interrupting(script.behaviours)}:
            store: Persistence = InMemoryPersistence()
            ends.append(end_of(await bring_to_its_end("w", script._replace(behaviours=behaviours), store)))
        _ends[script] = ends
    return _ends[script]
