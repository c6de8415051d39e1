"""A process of a run that is proved: what it sees of the store, how it dies, and where it can."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import ConcurrencyError, WorkflowConfigurationError
from ..persistence import Header, Lease, LeaseChange, Record
from ..status import WorkflowStatus

if TYPE_CHECKING:
    from ._stage import Stage

WORKFLOW_ID = "proof"
APPROVER, OTHER = "approver@example.com", "other@example.com"
UNDOES = "the rollback of "  # how the words for a rollback step begin
MONDAY = datetime(2026, 1, 5, 9, tzinfo=UTC)  # when every run begins
_MONDAY_NS = int(MONDAY.timestamp()) * 1_000_000_000


class Crash(BaseException):
    """The process is gone."""


class Broken(Exception):  # noqa: N818 - what it says is what it is
    """What a schedule must not lead to."""

    def __init__(self, what: str, cause: BaseException | None = None, *, of_the_scenario: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.of_the_scenario = of_the_scenario
        """Whether a function of the scenario did it, and no step."""


class Ending(NamedTuple):
    """How a run ended, without what two right runs may differ in: times, keys, wording."""

    status: WorkflowStatus
    rollback_status: str
    results: tuple[tuple[str, bool, str | None], ...]
    world: object
    """The picture of it."""
    data: tuple[object, ...]
    """What each result brings, where that is the same in each clean run."""


class StageClock:
    """Begins at the same instant in every run, goes with the loop, and jumps where it is told."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._source = monotonic
        self._origin = monotonic()
        self._jumped = 0.0

    def jump(self, seconds: float) -> None:
        """Let seconds pass at once, on this clock alone; fewer than none take them back."""
        self._jumped += seconds

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._source() - self._origin + self._jumped

    def time_ns(self) -> int:
        """See `Clock.time_ns`."""
        return _MONDAY_NS + round(self.monotonic() * 1_000_000_000)


class Process:
    """One life of one process, and the store as it sees it."""

    def __init__(self, stage: "Stage[Any]", number: int) -> None:
        self.stage = stage
        self.number = number
        self.dead = False
        self.frozen = False
        self.token: str | None = None
        """The lease that it drives by."""
        self.acts = False
        """Whether a step or rollback step of the user's runs in it."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """Those that called the world."""

    def must_live(self) -> None:
        """Raise where nothing can have an effect any more."""
        if self.dead:
            raise Crash

    def entered(self) -> None:
        """Keep in mind that the task at hand, if it is one, works for this process."""
        if (loop := asyncio._get_running_loop()) is not None and (task := asyncio.current_task(loop)) is not None:
            self.tasks.add(task)

    async def gone(self) -> None:
        """See to it that nothing goes on in a process that is dead."""
        await end(self.tasks)

    # The store.

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
        stage = self.stage
        self.must_live()
        events = stage.decoded(records)
        await stage.people.decide(events)
        await stage.point(self, Place("before", "append", "", events))
        await stage.store.append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)
        if lease is not None:
            self.token = lease.token
        stage.recorded(events, header.version)
        await stage.point(self, Place("after", "append", "", events))

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        """See `Persistence.read`."""
        self.must_live()
        return await self.stage.store.read(workflow_id, after=after)

    async def delete(self, workflow_id: str) -> bool:
        """See `Persistence.delete`."""
        raise WorkflowConfigurationError("prove() does not let a workflow be deleted while it is proved.")

    async def lease(self, workflow_id: str) -> Lease | None:
        """See `Leases.lease`."""
        self.must_live()
        return await self.stage.store.lease(workflow_id)

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        """See `Leases.renew`."""
        if self.frozen or self.dead:
            raise ConcurrencyError("A process that is frozen or dead renews nothing.", workflow_id=workflow_id)
        return await self.stage.store.renew(workflow_id, token, expires_at)


@dataclass(slots=True)
class Call:
    """A call that a step made of its world."""

    method: str
    said: str
    keys: list[str]
    """What is handed over of the step's idempotency key, alone or with something behind it."""
    answer: str | None = None


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks, but the one that calls it, and see to it that nobody misses their errors."""
    left = [task for task in tasks if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.gather(*left, return_exceptions=True)


class Place(NamedTuple):
    """Where a point is."""

    when: Literal["before", "after"]
    what: Literal["append", "step", "rollback", "call"]
    step: str
    detail: Any = None
    """The events of an append, the name of a call."""

    @property
    def undoes(self) -> bool:
        """Whether a rollback step runs there."""
        return self.what == "rollback" or self.step.startswith(UNDOES)
