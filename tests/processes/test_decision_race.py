"""Two processes approve and reject the same workflow at once: one wins, and the other is told who did."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crash_simulation import Script
from dotmac_workflows import SQLitePersistence
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event, Settings
from dotmac_workflows.values import Codec
from processes.nursery import ENVIRONMENT
from processes.orders import Order, order

RACES = 200
GATED = Script(("approve", "ok"), ("ok", "ok"), Settings(require_approval=True))
ROUNDS = [
    ("approve", "reject"),
    ("reject_and_cancel", "approve_and_continue"),
    ("approve_and_continue", "reject"),
    ("reject_and_cancel", "approve"),
]
"""Which verbs meet; over the races, each process approves as often as it rejects, and is let go first as often."""


class Decider:
    """A process that decides."""

    def __init__(self, database: Path, name: str) -> None:
        self.actor = f"{name}@example.com"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "processes.decider", str(database)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def listen(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


class Race(NamedTuple):
    """One race: what each of two did, and what each was told."""

    workflow_id: str
    deciders: tuple[Decider, Decider]
    verbs: tuple[str, str]
    answers: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "orders.db"


@pytest.fixture
def deciders(database: Path) -> Iterator[list[Decider]]:
    two = [Decider(database, name) for name in ("first", "second")]
    yield two
    for decider in two:
        decider.process.communicate(timeout=60)
        assert decider.process.returncode == 0


async def make_waiting_orders(database: Path) -> None:
    async with SQLitePersistence(database) as store:
        await asyncio.gather(*(order(f"order-{number}", GATED, store).execute() for number in range(RACES)))


def race(number: int, deciders: list[Decider]) -> Race:
    first, second = deciders if number % 8 < 4 else deciders[::-1]
    verbs = ROUNDS[number % 4]
    for decider, verb in zip((first, second), verbs, strict=True):
        decider.tell(f"order-{number} {verb} {decider.actor}")
    assert [first.listen(), second.listen()] == ["loaded\n", "loaded\n"]
    first.tell("go")
    second.tell("go")
    return Race(f"order-{number}", (first, second), verbs, (json.loads(first.listen()), json.loads(second.listen())))


async def test_two_hundred_races(database: Path, deciders: list[Decider]) -> None:
    await make_waiting_orders(database)
    races = [race(number, deciders) for number in range(RACES)]
    winners = Counter[str]()
    async with SQLitePersistence(database) as store:
        for run in races:
            rows = await store.read(run.workflow_id)
            journal = [codec.decode(row.kind, row.at, row.body, Codec()) for row in rows]
            winners[judge(run, journal)] += 1
            shown = await Order.load(run.workflow_id, store)
            await shown.resume()
            approved = any(isinstance(event, ev.Approved) for event in journal)
            assert str(shown.status) == ("completed" if approved else "cancelled")
    print(f"{len(races)} races: {dict(winners)}")
    assert winners.total() == RACES
    assert {winner.split()[1] for winner in winners} == {"approved", "rejected"}


def judge(run: Race, journal: list[Event]) -> str:
    """Hold what two were told against the journal; return who won with what."""
    decisions = [event for event in journal if isinstance(event, ev.Approved | ev.Rejected)]
    assert len(decisions) == 1
    decision = decisions[0]
    verdict = "approved" if isinstance(decision, ev.Approved) else "rejected"
    winners = [index for index in (0, 1) if run.answers[index]["won"]]
    assert len(winners) == 1
    winner = winners[0]
    assert decision.actor == run.deciders[winner].actor
    assert run.verbs[winner].startswith(verdict.removesuffix("d").removesuffix("e"))
    at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=decision.at)
    assert run.answers[1 - winner] == {
        "won": False,
        "said": f"Workflow {run.workflow_id!r} is not waiting for approval of step 'reserve': it was {verdict} by "
        f"{decision.actor} at {at:%Y-%m-%d %H:%M:%SZ}. There is nothing left to decide.",
        "workflow": run.workflow_id,
        "step": "reserve",
        "verdict": verdict,
        "actor": decision.actor,
        "at": str(at),
    }
    return f"{decision.actor} {verdict}"
