"""One store that several processes share, with faults, and with somebody who watches every write.

What is stored is in an `InMemoryPersistence`, which is as strict as SQLite. Each process has a `Store` of its own to
reach it by: there a call can come late, fail before it had its effect or after, or hang for so long that leases expire.
The `Watch` sees what changed, holds it to what a store and its writers promise each other, and tells the judge.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from dotmac_workflows import InMemoryPersistence, PersistenceError, Workflow
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event, RollbackStepStarted, StepStarted
from dotmac_workflows._core.state import RunState, fold
from dotmac_workflows.persistence import Header, Lease, LeaseChange, Record
from dotmac_workflows.status import WorkflowStatus
from dotmac_workflows.testing._judge import Effect, Judge, Violation
from simulation.processes import LEASE_SECONDS, VALUES, Process, give_way

Shown: TypeAlias = tuple[WorkflowStatus, str, tuple[tuple[str, bool, str | None], ...]]
"""What a caller sees of a run: its status, that of its rollback, its results."""


def shown_by(run: RunState | Workflow) -> Shown:
    """Return what is to be seen of a run."""
    return run.status, run.rollback_status, tuple((r.step, r.success, r.error) for r in run.results)


class FaultError(PersistenceError):
    """A fault of the history's own, told from every other error by its class."""


class Watch:
    """Sees everything that is written, and every effect, in the order in which it happens."""

    def __init__(self, workflow_id: str, judge: Judge, counts: Counter[str]) -> None:
        self.judge = judge
        self.journal: list[Event] = []
        self.state = RunState(workflow_id)
        """What the journal amounts to."""
        self.shown: list[Shown] = [shown_by(self.state)]
        """What was to be seen of the run after each append."""
        self._counts = counts
        self.keeps_leases = True
        """Whether drivers can tell that a run is driven; else they take it over from whoever does."""
        self._started: dict[
            tuple[str, str, int, int], str
        ] = {}  # an attempt, and who holds the lease that it began under
        self._acted: set[tuple[str, str, int, int]] = set()
        self._lease: Lease | None = None
        self._seen: dict[int, tuple[Lease | None, bool]] = {}

    # What the stores of the processes tell.

    def looked(self, process: Process, held: Lease | None) -> None:
        """A process was told which lease is in place: it may take over from then on, or not."""
        free = held is None or held.expires_at * 1000 <= process.time_ns() or self._is_dead(process, held)
        self._seen[process.pid] = held, free

    def may_take(self, process: Process) -> bool:
        """Tell whether the lease was free when a process looked last."""
        return self._seen[process.pid][1]

    @staticmethod
    def _is_dead(process: Process, held: Lease) -> bool:
        """Tell whether a process can know that the driver of a lease is gone."""
        if held.owner == process.owner:
            return held.token not in process.tokens
        _, pid, start, boot, _ = held.owner.split(":")
        return boot == process.owner.split(":")[3] and process.machines.is_gone(pid, start)

    def renewed(self, token: str, before: Lease | None, after: Lease | None) -> None:
        """A lease was renewed."""
        if before is None or after is None or before.token != token:
            raise Violation(f"invariant 4 stale token: {token} renewed {before}")
        self._hold(before, self._lease)
        self._lease = after

    def appended(
        self,
        process: Process,
        records: Sequence[Record],
        header: Header,
        change: LeaseChange | None,
        lease: Lease | None,
        stored: Sequence[Record],
    ) -> None:
        """An append was stored: the lease is this one now, and these are the records that came on top."""
        before, self._lease = self._lease, lease
        if list(stored) != list(records):
            raise Violation(f"invariant 10 lost: {records} were acknowledged, and {stored} are stored")
        events = [codec.decode(record.kind, record.at, record.body, VALUES) for record in records]
        if change is None:
            self._hold(before, lease)
        elif (before.token if before else None) != change.replaces:
            raise Violation(f"invariant 4 stale token: {change} while {before} was in place")
        elif before and before.token != change.token and ev.Claimed not in map(type, events):
            raise Violation(f"invariant 4 stale token: {change} without a claim, while {before} was in place")
        for event in events:
            if type(event) is ev.Claimed and before is not None:
                self._took_over(process, before)
            elif type(event) is ev.Released:
                self.judge.crashed()
            elif type(event) is StepStarted or type(event) is RollbackStepStarted:
                self._start(event, lease)
        if change is None and any(type(event) in _DRIVERS_OWN for event in events):
            raise Violation(f"invariant 4 stale token: without a lease, {process.owner} wrote {events}")
        self.journal += events
        self.judge.committed(events, header.version)
        fold(self.state, events)
        state = self.state
        if (header.status, header.pending_step, header.version) != (state.status, state.pending_step, state.version):
            raise Violation(f"invariant 12 header: {header} of {state}")
        if (lease.token if lease else None) != state.token:
            raise Violation(f"invariant 4 lease: {lease}, but the journal says {state.token}")
        self.shown.append(shown_by(state))

    def _hold(self, before: Lease | None, after: Lease | None) -> None:
        if before != after:
            raise Violation(f"invariant 4 lease: {before} became {after} by itself")

    def _took_over(self, process: Process, before: Lease) -> None:
        seen, free = self._seen.get(process.pid, (None, False))
        if self.keeps_leases and (not free or seen is None or seen.token != before.token):
            raise Violation(f"invariant 3 one driver: {process.owner} took over {before}, having seen {seen}")
        self._counts["takeovers"] += 1
        self.judge.crashed()

    def _start(self, event: StepStarted | RollbackStepStarted, lease: Lease | None) -> None:
        attempt = _phase(event), event.step, event.visit, event.attempt
        if attempt in self._started or lease is None:
            raise Violation(f"invariant 3 one attempt once: {event} under {lease}, and before under {self._started}")
        self._started[attempt] = lease.token

    # What the steps tell.

    def acted(self, effect: Effect) -> None:
        """The code of a step had its effect; that of a driver which was overtaken may, and changes nothing else."""
        attempt = effect.phase, effect.step, effect.visit, effect.attempt
        token = self._started.get(attempt)
        if token is None:
            raise Violation(f"invariant 2 durable before: {effect}, and no such attempt was recorded")
        if attempt in self._acted:
            raise Violation(f"invariant 3 one attempt once: {effect} twice")
        self._acted.add(attempt)
        if self._lease is not None and self._lease.token == token:
            self.judge.acted(effect)
        else:
            self._counts["stale effects"] += 1


_DRIVERS_OWN = (
    ev.Claimed,
    ev.Released,
    ev.StepStarted,
    ev.StepSucceeded,
    ev.StepFailed,
    ev.RollbackStepStarted,
    ev.RollbackStepSucceeded,
    ev.RollbackStepSkipped,
    ev.RollbackStepFailed,
    ev.RollbackStarted,
    ev.WorkflowStarted,
)


def _phase(event: StepStarted | RollbackStepStarted) -> str:
    return "forward" if type(event) is StepStarted else "rollback"


_TOLD = {
    "before": "failures before",
    "after": "failures after",
    "hang before": "hangs before",
    "hang after": "hangs after",
}


class Faults:
    """Which calls to a store fail or hang.

    Args:
        chance: What is drawn by.
        rate: Of how many calls, as a fraction.
    """

    def __init__(self, chance: random.Random, rate: float, counts: Counter[str]) -> None:
        self.chance = chance
        self.rate = rate
        """Zero once there are to be no more."""
        self._counts = counts

    def draw(self, *ways: str) -> str | None:
        """Return which way the next call fails, of those that it can; None: it does not."""
        if not self.rate or self.chance.random() >= self.rate:
            return None
        way = self.chance.choice(ways)
        self._counts[_TOLD[way]] += 1
        return way


class BareStore:
    """The store as one process has it, with no more than any backend must have."""

    def __init__(
        self,
        process: Process,
        shared: InMemoryPersistence,
        watch: Watch,
        faults: Faults,
        note: Callable[[str], None] | None,
    ) -> None:
        self.under_way = 0
        """How many appends were begun whose fate nobody was told yet."""
        self._process = process
        self._shared = shared
        self._watch = watch
        self._faults = faults
        self._chance = faults.chance
        self._note = note

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        """See `Persistence.append`."""
        way = self._faults.draw("before", "after", "hang before", "hang after")
        told = f"append {expected_version}+{[record.kind for record in records]}"
        self.under_way += 1
        cancelled = await self._wait(way == "hang before")
        try:
            if way == "before":
                raise FaultError("There is no disk. Mend it.")
            await self._shared.append(
                workflow_id, records, expected_version=expected_version, header=header, lease=lease
            )
            held = await self._shared.lease(workflow_id)
            stored = await self._shared.read(workflow_id, after=expected_version)
            self._tell(lambda: self._watch.appended(self._process, records, header, lease, held, stored))
            if cancelled is None:
                cancelled = await self._wait(way == "hang after")
            if way == "after":
                raise FaultError("The disk gave no answer. Mend it.")
        except PersistenceError as error:
            self._say(f"{told}: {way or type(error).__name__}")
            if cancelled is None:
                raise
        else:
            self._say(f"{told}: {way or 'stored'}")
        finally:
            self.under_way -= 1
        if cancelled is not None:
            raise cancelled

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        """See `Persistence.read`."""
        await self._before("read")
        return await self._shared.read(workflow_id, after=after)

    async def delete(self, workflow_id: str) -> bool:
        """See `Persistence.delete`; nobody does."""
        raise NotImplementedError

    async def _before(self, call: str, *more: str) -> str | None:
        """Let a call that writes nothing of its own come late, hang or fail; return how else it is to."""
        way = self._faults.draw("before", "hang before", *more)
        if way is not None:
            self._say(f"{call}: {way}")
        if (cancelled := await self._wait(way == "hang before")) is not None:
            raise cancelled
        if way == "before":
            raise FaultError("There is no disk. Mend it.")
        return way

    async def _wait(self, hang: bool) -> asyncio.CancelledError | None:
        """Let others come first, or much time pass; return what cancelled that, to be raised once a fate is known."""
        try:
            if hang:
                await asyncio.sleep(self._chance.uniform(0.5, 3) * LEASE_SECONDS)
            elif self._chance.random() < 0.5:
                await give_way()
        except asyncio.CancelledError as cancelled:
            return cancelled
        return None

    def _tell(self, what: Callable[[], None]) -> None:
        """Tell the watch, and not the engine what it says of it."""
        try:
            what()
        except Violation as broken:
            self._process.machines.broke(broken)

    def _say(self, what: str) -> None:
        if self._note is not None:
            self._note(what)


class Store(BareStore):
    """The same, of a store that keeps leases and finds runs."""

    async def lease(self, workflow_id: str) -> Lease | None:
        """See `Leases.lease`."""
        await self._before("lease")
        held = await self._shared.lease(workflow_id)
        self._watch.looked(self._process, held)  # and nothing comes between this and what the caller makes of it
        return held

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        """See `Leases.renew`."""
        way = await self._before("renew", "after")
        before = await self._shared.lease(workflow_id)
        version = await self._shared.renew(workflow_id, token, expires_at)
        held = await self._shared.lease(workflow_id)
        self._tell(lambda: self._watch.renewed(token, before, held))
        if way == "after":
            raise FaultError("The disk gave no answer. Mend it.")
        return version

    async def find(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str | None = None,
        due_before: int | None = None,
        after: Header | None = None,
        limit: int = 100,
    ) -> list[Header]:
        """See `Queries.find`."""
        await self._before("find")
        return await self._shared.find(
            status=status, workflow_type=workflow_type, due_before=due_before, after=after, limit=limit
        )
