"""A scripted workflow for the tests of the contract, and what lets them look at a run from outside the engine."""

import asyncio
import copy
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from dotmac_workflows import Persistence, Workflow, WorkflowResult
from dotmac_workflows._core import codec
from dotmac_workflows._core.events import Event
from dotmac_workflows._core.state import RunState
from dotmac_workflows._run.journal import read_state
from dotmac_workflows.persistence import (
    Header,
    InMemoryPersistence,
    Lease,
    LeaseChange,
    Leases,
    Queries,
    Record,
    SQLitePersistence,
)
from dotmac_workflows.status import WorkflowStatus
from dotmac_workflows.values import Codec

ABC = ("a", "b", "c")
Store: TypeAlias = InMemoryPersistence | SQLitePersistence
"""The backends that are shipped; every one of them can do everything."""

Behaviour: TypeAlias = Callable[["Order", str], Any]
"""What a step or its rollback does: it is given the workflow and its name, and may be async."""


class Order(Workflow):
    """Writes each step into a ledger outside the engine, then does what the test wants; by default all is well."""

    def __init__(
        self,
        workflow_id: str | None = None,
        steps: Sequence[str] | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        persistence: Persistence | None = None,
        does: Mapping[str, Behaviour] | None = None,
        ledger: list[str] | None = None,
    ) -> None:
        super().__init__(workflow_id, list(steps) if steps is not None else None, metadata, persistence=persistence)
        self.does = does if does is not None else {}
        self.ledger = ledger if ledger is not None else []

    async def execute_step(self, step: str) -> WorkflowResult:
        return await self._act(step)  # type: ignore[no-any-return] # what is none is the point of some tests

    async def _act(self, name: str) -> Any:
        self.ledger.append(name)
        behaviour = self.does.get(name)
        if behaviour is None:
            return WorkflowResult(True, name, {"did": name})
        answer = behaviour(self, name)
        return await answer if inspect.isawaitable(answer) else answer


class Told(Order):
    """Keeps what each callback was told, in order; as methods of the subclass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[tuple[str, Any]] = []

    def on_step_started(self, step: str) -> None:
        self.told.append(("step_started", step))

    def on_step_completed(self, result: WorkflowResult) -> None:
        self.told.append(("step_completed", (result.step, result.success)))

    def on_approval_required(self, step: str) -> None:
        self.told.append(("approval_required", step))

    def on_rollback_started(self, step: str) -> None:
        self.told.append(("rollback_started", step))

    def on_rollback_completed(self, results: list[WorkflowResult]) -> None:
        self.told.append(("rollback_completed", steps_of(results)))

    def on_workflow_completed(self, results: list[WorkflowResult]) -> None:
        self.told.append(("workflow_completed", steps_of(results)))

    def on_workflow_failed(self, results: list[WorkflowResult]) -> None:
        self.told.append(("workflow_failed", steps_of(results)))

    def on_workflow_cancelled(self, results: list[WorkflowResult]) -> None:
        self.told.append(("workflow_cancelled", steps_of(results)))


# What steps do.


def fails(code: str = "declined", message: str | None = None) -> Behaviour:
    return lambda workflow, name: WorkflowResult(False, name, error=code, message=message)


def raises(error: BaseException) -> Behaviour:
    def behaviour(workflow: Order, name: str) -> None:
        raise copy.copy(error)  # one that is raised again and again keeps the frames of all runs

    return behaviour


def asks(workflow: Order, name: str) -> WorkflowResult:
    """Ask for an approval before the next step."""
    return WorkflowResult(True, name, {"did": name}, requires_approval=True)


def nothing(workflow: Order, name: str) -> None:
    """Answer None: a rollback that there is none of."""


class InTurn:
    """Behaves otherwise each time; as the last one from then on."""

    def __init__(self, *behaviours: Behaviour | None) -> None:
        self.left = list(behaviours)

    def __call__(self, workflow: Order, name: str) -> Any:
        behaviour = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return WorkflowResult(True, name, {"did": name}) if behaviour is None else behaviour(workflow, name)


class Held:
    """A step that tells when it runs, and ends when it is let go."""

    def __init__(self, then: Behaviour | None = None) -> None:
        self.running = asyncio.Event()
        self.go = asyncio.Event()
        self.then = then

    async def __call__(self, workflow: Order, name: str) -> Any:
        self.running.set()
        await self.go.wait()
        return WorkflowResult(True, name, {"did": name}) if self.then is None else self.then(workflow, name)


async def within(awaitable: Awaitable[Any], seconds: float = 20) -> Any:
    """Await what must not take for ever: where it would, the test fails instead of hanging."""
    async with asyncio.timeout(seconds):
        return await awaitable


@contextmanager
def process(program: str, *arguments: str | Path) -> Iterator[tuple["subprocess.Popen[str]", Callable[[], Any]]]:
    """Run a program in a process of its own; yield it and what waits for its next line. It is dead at the end."""
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        assert started.stdout is not None
        try:
            yield started, partial(asyncio.to_thread, started.stdout.readline)
        finally:
            started.kill()


# What a run looks like from outside.


def steps_of(results: list[WorkflowResult]) -> list[str]:
    return [result.step if result.success else f"{result.step}!" for result in results]


def seen(workflow: Workflow) -> tuple[str, list[str]]:
    """The status and the steps of the results, those that failed with a mark: what most tests assert."""
    return workflow.status.value, steps_of(workflow.results)


async def events(workflow: Workflow) -> list[Event]:
    """The journal of a run, wherever it is kept."""
    persistence = workflow.persistence
    if persistence is None:
        live = workflow._workflow_view.live
        return list(live._events) if live is not None else []
    values = workflow.runtime.codec
    return [codec.decode(r.kind, r.at, r.body, values) for r in await persistence.read(workflow.workflow_id)]


async def kinds(workflow: Workflow, *, leases: bool = False) -> list[str]:
    """The names of the events of a run; without those of its lease, which a run that lives in its object lacks."""
    names = [type(event).__name__ for event in await events(workflow)]
    return names if leases else [name for name in names if name not in ("Claimed", "Released")]


async def stored_state(persistence: Persistence, workflow_id: str) -> RunState:
    return read_state(workflow_id, await persistence.read(workflow_id), Codec())


# Where runs are kept.


@dataclass
class Backend:
    """Where the runs of a test are kept; without a persistence each lives in its object."""

    persistence: Persistence | None

    def order(self, steps: Sequence[str] = ABC, workflow_id: str = "order-1", **init: Any) -> Order:
        return Order(workflow_id, steps, persistence=self.persistence, **init)

    def told(self, steps: Sequence[str] = ABC, workflow_id: str = "order-1", **init: Any) -> Told:
        return Told(workflow_id, steps, persistence=self.persistence, **init)

    async def again(self, workflow: Order) -> Order:
        """The same run as another object sees it; the very object where the run lives in it."""
        if self.persistence is None:
            return workflow
        return await type(workflow).load(
            workflow.workflow_id, self.persistence, does=workflow.does, ledger=workflow.ledger
        )


class Crash(BaseException):
    """The process is gone: no code of the library hears of it in time to write anything."""


@dataclass
class Wrapper:
    """A store that passes everything on, and counts."""

    inner: Any
    appends: list[tuple[str, list[str]]] = field(default_factory=list)
    """Of each append that was stored: the workflow, and the kinds of its records."""
    reads: int = 0

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        await self.inner.append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)
        self.appends.append((workflow_id, [record.kind for record in records]))

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        self.reads += 1
        return list(await self.inner.read(workflow_id, after=after))

    async def delete(self, workflow_id: str) -> bool:
        return bool(await self.inner.delete(workflow_id))

    async def lease(self, workflow_id: str) -> Lease | None:
        assert isinstance(self.inner, Leases)
        return await self.inner.lease(workflow_id)

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        assert isinstance(self.inner, Leases)
        return await self.inner.renew(workflow_id, token, expires_at)

    async def find(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str | None = None,
        due_before: int | None = None,
        after: Header | None = None,
        limit: int = 100,
    ) -> list[Header]:
        assert isinstance(self.inner, Queries)
        return await self.inner.find(
            status=status, workflow_type=workflow_type, due_before=due_before, after=after, limit=limit
        )


@dataclass
class Failing(Wrapper):
    """A store one of whose appends fails: before it writes, or after."""

    at: int = 1
    """Which append, from 1."""
    after: bool = False
    error: BaseException = field(default_factory=Crash)
    down: bool = False
    """Whether everything fails from then on, as for a process that is gone."""
    tried: int = 0
    failed: bool = False

    async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
        if self.failed and self.down:
            raise self.error
        self.tried += 1
        if self.tried != self.at:
            return await super().append(workflow_id, records, **how)
        if self.after:
            await super().append(workflow_id, records, **how)
        self.failed = True
        raise self.error

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        if self.failed and self.down:
            raise self.error
        return await super().read(workflow_id, after=after)


async def crashed_after(
    persistence: Persistence, appends: int, workflow: Callable[[Persistence], Order], verb: str = "execute"
) -> Order:
    """Let a run be left by a process that dies right after an append; return the object that it had."""
    left = workflow(Failing(persistence, at=appends, after=True, down=True))
    try:
        await getattr(left, verb)()
    except Crash:
        return left
    raise AssertionError(f"the run made fewer than {appends} appends")
