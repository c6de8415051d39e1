"""The whole engine, verbs and host included, with the process lost at every append: just before it, or just after.

`core/test_crash_schedules.py` does this for the core in a hundredth of the time; here the verbs take the runs up.
"""

import asyncio
import random
from collections.abc import Sequence

import pytest

from crash_simulation import Script
from dotmac_workflows import InMemoryPersistence, verify
from dotmac_workflows._core import codec
from dotmac_workflows.persistence import Header, LeaseChange, Record
from dotmac_workflows.testing._judge import Violation, judge_run
from dotmac_workflows.values import Codec
from processes.judging import end_of, ends_without_crashes
from processes.orders import ListedEffects, Order, bring_to_its_end, scripts_of

SEED = 20_260_704


class Lost(BaseException):
    """The process is gone."""


class LosingStore(InMemoryPersistence):
    """Loses the process at one append, and from then on does nothing for it."""

    def __init__(self, at: int, *, after: bool) -> None:
        super().__init__()
        self.appends = 0
        self.lost_at: int | None = None
        """How many records there were when the process was lost."""
        self._at = at
        self._after = after
        self._gone = False

    def restart(self) -> None:
        self._gone = False

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        self._check()
        self.appends += 1
        here = self.appends == self._at
        if not here or self._after:
            await super().append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)
        if here:
            self._gone = True
            self.lost_at = len(self._records.get(workflow_id, ()))
            raise Lost

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        self._check()
        return await super().read(workflow_id, after=after)

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        self._check()
        return await super().renew(workflow_id, token, expires_at)

    def _check(self) -> None:
        if self._gone:
            raise Lost


async def play(script: Script, at: int, *, after: bool) -> LosingStore:
    """Bring a run to its end, losing the process on the way, and judge it."""
    store, ledger = LosingStore(at, after=after), ListedEffects()
    Order.ledger = ledger
    try:
        run = await bring_to_its_end("w", script, store)
    except Lost:
        store.restart()
        run = await bring_to_its_end("w", script, store)
    finally:
        Order.ledger = None
    journal = [codec.decode(row.kind, row.at, row.body, Codec()) for row in await store.read("w")]
    try:
        judge_run(run.steps, script.settings, journal, ledger.effects, lambda seq, event: seq - 1 == store.lost_at)
        if end_of(run) not in await ends_without_crashes(script):
            raise Violation(f"invariant 11 same end: {end_of(run)}")
        assert (await verify(store)).problems == []
    except Violation as error:
        lines = "\n".join(f"  {seq} {event}" for seq, event in enumerate(journal, 1))
        raise Violation(f"{error}\n{script}\nlost at append {at}, {after=}\n{lines}") from error
    return store


def play_all(script: Script) -> int:
    """Play a script with the process lost at every append, before and after it; return how many plays those were."""
    played = 0
    for after in (False, True):
        at, lost = 0, True
        while lost:
            at += 1
            lost = asyncio.run(play(script, at, after=after)).lost_at is not None
            played += lost
    return played


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_process_lost_at_any_append(length: int) -> None:
    print(f"seed {SEED}")
    some = random.Random(SEED).sample(scripts_of(length), 25)
    played = sum(play_all(script) for script in some)
    print(f"{played} plays")
    assert played > 150
