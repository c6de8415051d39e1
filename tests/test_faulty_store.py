"""What the engine does when its store fails: at every single call, before it wrote or after, at once or after a hang.

Judged by the promises (`testing._judge`), on what the store holds and on a ledger of effects, not by a clean run alone.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from dotmac_workflows import (
    ConcurrencyError,
    InMemoryPersistence,
    JournalCorruptError,
    LeaseLostError,
    PersistenceError,
    Runtime,
    SQLitePersistence,
    Workflow,
    WorkflowConfigurationError,
    WorkflowResult,
    WorkflowStatus,
    recover,
    verify,
)
from dotmac_workflows._core import codec
from dotmac_workflows._core.events import Settings
from dotmac_workflows.persistence import Header, Lease, LeaseChange, Leases, Persistence, Queries, Record
from dotmac_workflows.testing import FakeClock
from dotmac_workflows.testing._judge import Effect, Judge
from dotmac_workflows.values import Codec
from scripted import Scripted, kinds, ran, shape
from workflows import Store

Result = TypeVar("Result")
Way = Literal["before", "after", "hangs before", "hangs after", "raw"]
STEPS = ["a", "b", "c", "d"]


class FaultError(PersistenceError):
    """The fault of a test, told from every other error by its class."""


class RawError(Exception):
    """What a backend lets through that does not keep to the protocol."""


class Faulty:
    """Passes everything on, and fails at one call of all."""

    def __init__(self, inner: Store, judge: Judge, *, at: int = 0, way: Way = "before") -> None:
        self.inner = inner
        self.judge = judge
        self.at = at
        self.way = way
        self.calls: list[str] = []
        self.fault: Exception | None = None
        """What was raised, once it was."""

    async def _call(self, name: str, pass_on: Callable[[], Awaitable[Result]], done: Callable[[], None]) -> Result:
        self.calls.append(name)
        if len(self.calls) != self.at:
            answer = await pass_on()
            done()
            return answer
        if self.way.startswith("hangs"):
            for _ in range(5):
                await asyncio.sleep(0)
        if self.way.endswith("after"):
            await pass_on()
            done()
        self.judge.crashed()
        self.fault = RawError("no disk") if self.way == "raw" else FaultError("There is no disk. Mend it.")
        raise self.fault

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        def done() -> None:
            events = [codec.decode(record.kind, record.at, record.body, Codec()) for record in records]
            self.judge.committed(events, header.version)

        await self._call(
            "append",
            lambda: self.inner.append(
                workflow_id, records, expected_version=expected_version, header=header, lease=lease
            ),
            done,
        )

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return await self._call("read", lambda: self.inner.read(workflow_id, after=after), _nothing)

    async def delete(self, workflow_id: str) -> bool:
        return await self._call("delete", lambda: self.inner.delete(workflow_id), _nothing)

    async def lease(self, workflow_id: str) -> Lease | None:
        return await self._call("lease", lambda: self.inner.lease(workflow_id), _nothing)

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        return await self._call("renew", lambda: self.inner.renew(workflow_id, token, expires_at), _nothing)


def _nothing() -> None:
    pass


class Judged(Workflow):
    """Steps ``a`` to ``d``: a gate after ``b``, and ``d`` fails, so that the rest is undone; told to a judge."""

    def __init__(
        self,
        workflow_id: str | None = None,
        steps: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        persistence: Persistence | None = None,
        judge: Judge | None = None,
        effects: list[str] | None = None,
        fails: bool = True,
    ) -> None:
        super().__init__(workflow_id, steps, metadata, persistence=persistence)
        self.judge = judge
        self.effects = effects if effects is not None else []
        self.fails = fails
        self.configure(require_approval=True)

    async def execute_step(self, step: str) -> WorkflowResult:
        context = self.step_context
        position = STEPS.index(context.step)
        self.effects.append(step)
        if self.judge is not None:
            self.judge.acted(
                Effect(context.phase, context.step, position, context.visit, context.attempt, context.idempotency_key)
            )
        await asyncio.sleep(0)
        if step == "d" and self.fails:
            return WorkflowResult(False, step, {"why": "as planned"}, error="no_stock", message="There is no stock.")
        return WorkflowResult(True, step, {"did": step}, requires_approval=step == "b")


def make_judge() -> Judge:
    return Judge(STEPS, Settings(require_approval=True))


CLEAN = [
    ("a", True, None),
    ("b", True, None),
    ("c", True, None),
    ("d", False, "no_stock"),
    ("rollback_c", True, None),
    ("rollback_b", True, None),
    ("rollback_a", True, None),
]
CLEAN_EFFECTS = [step for step, _, _ in CLEAN]


async def make(store: Persistence, judge: Judge, effects: list[str]) -> Judged:
    return Judged("order-1", STEPS, {"order": 1}, persistence=store, judge=judge, effects=effects)


async def load(store: Persistence, judge: Judge, effects: list[str]) -> Judged:
    return await Judged.load("order-1", store, judge=judge, effects=effects)


async def carry_through(store: Faulty, effects: list[str]) -> tuple[Judged, list[Exception]]:
    """Do what an application does: run, approve when asked, and after an error take the run up with a fresh object."""
    errors: list[Exception] = []
    start = make
    while True:
        assert len(errors) < 5, errors
        before = len(effects)
        try:
            workflow = await start(store, store.judge, effects)
            if workflow.status is not WorkflowStatus.WAITING_APPROVAL:
                await workflow.execute()
            if workflow.status is WorkflowStatus.WAITING_APPROVAL:
                await workflow.approve_and_continue({"ok": True}, actor="approver@example.com")
        except (PersistenceError, RawError) as error:
            errors.append(error)
            happened = list(effects[before:])
            for _ in range(10):
                await asyncio.sleep(0)
            assert effects[before:] == happened, "it went on after it had raised"
            start = load if await store.inner.read("order-1") else make
        else:
            return workflow, errors


async def open_store(kind: str, path: Path) -> Store:
    return InMemoryPersistence() if kind == "memory" else SQLitePersistence(path)


async def close_store(store: Store) -> None:
    if isinstance(store, SQLitePersistence):
        await store.close()


CALLS = 10


async def test_the_calls_are_as_many_as_the_tests_below_let_fail() -> None:
    """One append a step and one for each start, and nothing read that need not be."""
    store = Faulty(InMemoryPersistence(), make_judge())
    workflow, errors = await carry_through(store, [])
    assert errors == []
    assert shape(workflow.results) == CLEAN
    assert Counter(store.calls) == {"append": 9, "read": 1}
    assert len(store.calls) == CALLS


@pytest.mark.parametrize("way", ["before", "after", "hangs before", "hangs after", "raw"])
@pytest.mark.parametrize("at", range(1, CALLS + 1))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_fault_is_raised_and_a_fresh_object_goes_on(kind: str, at: int, way: Way, tmp_path: Path) -> None:
    inner = await open_store(kind, tmp_path / "journals.db")
    store = Faulty(inner, make_judge(), at=at, way=way)
    effects: list[str] = []

    workflow, errors = await carry_through(store, effects)

    assert errors == [store.fault], "raised as it was, once, and not swallowed"
    assert shape(workflow.results) == CLEAN
    assert (workflow.status, workflow.rollback_status) == (WorkflowStatus.FAILED, "done")
    store.judge.finished(str(workflow.status), workflow.rollback_status)
    again = [step for step, count in Counter(effects).items() if count > 1]
    assert [step for step, _ in itertools.groupby(effects)] == CLEAN_EFFECTS, "another order"
    assert len(effects) - len(CLEAN_EFFECTS) == len(again) <= 1, "only the step in flight runs again"
    assert (await verify(inner)).problems == []
    assert await inner.lease("order-1") is None
    loaded = await Judged.load("order-1", inner)
    assert loaded.results == workflow.results
    await close_store(inner)


@pytest.mark.parametrize("way", ["before", "after"])
@pytest.mark.parametrize("at", range(1, 16))
async def test_the_very_same_object_goes_on_too(at: int, way: Way) -> None:
    """Also where a fault hits a verb that resumes after a fault: two are placed, one `at`, one three calls later."""
    store = Faulty(InMemoryPersistence(), make_judge(), at=at, way=way)
    effects: list[str] = []
    workflow = await make(store, store.judge, effects)
    raised = 0
    while workflow.status not in (WorkflowStatus.FAILED, WorkflowStatus.COMPLETED):
        try:
            if workflow.status is WorkflowStatus.WAITING_APPROVAL:
                await workflow.approve_and_continue(actor="approver@example.com")
            else:
                await workflow.execute()
        except FaultError:
            raised += 1
            store.at = at + 3 if raised == 1 else 0
    assert raised == (2 if at + 3 <= len(store.calls) else 1 if at <= len(store.calls) else 0)
    assert shape(workflow.results) == CLEAN
    store.judge.finished(str(workflow.status), workflow.rollback_status)


class Lasting(Faulty):
    """Fails from one call on, for good."""

    async def _call(self, name: str, pass_on: Callable[[], Awaitable[Result]], done: Callable[[], None]) -> Result:
        if self.fault is not None:
            raise self.fault
        return await super()._call(name, pass_on, done)


@pytest.mark.parametrize("at", range(1, CALLS + 1))
async def test_while_the_store_is_down_nothing_runs_and_every_verb_says_so(at: int) -> None:
    store = Lasting(InMemoryPersistence(), make_judge(), at=at, way="after")
    effects: list[str] = []
    workflow = await make(store, store.judge, effects)
    try:
        await workflow.execute()
        await workflow.approve_and_continue()
    except FaultError:
        pass
    assert store.fault is not None
    happened = list(effects)
    for verb in ("execute", "resume", "approve", "reject", "pause", "cancel", "retry", "approve_and_continue"):
        with pytest.raises(FaultError):
            await getattr(workflow, verb)()
    with pytest.raises(FaultError):
        await Judged.load("order-1", store)
    assert effects == happened
    store.fault, store.at = None, 0
    if workflow.status is WorkflowStatus.PENDING:
        store.judge.crashed()
    workflow, errors = await carry_through(store, effects)
    assert errors == []
    assert shape(workflow.results) == CLEAN


class TestConflicts:
    """A store that says "somebody else came first", rightly or not."""

    class Stormy(InMemoryPersistence):
        def __init__(self, refusals: int, from_append: int) -> None:
            super().__init__()
            self.refusals = refusals
            self.from_append = from_append
            self.appends = 0

        async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
            if self.appends + 1 >= self.from_append and self.refusals:
                self.refusals -= 1
                raise ConcurrencyError("Somebody else was first.", workflow_id=workflow_id)
            await super().append(workflow_id, records, **how)
            self.appends += 1

    @pytest.mark.parametrize("refusals", [1, 2, 7, 100])
    @pytest.mark.parametrize("from_append", range(1, 10))
    async def test_a_storm_of_them_changes_nothing(self, from_append: int, refusals: int) -> None:
        store = self.Stormy(refusals, from_append)
        workflow = Judged("order-1", STEPS, persistence=store)
        await workflow.execute()
        if workflow.status is WorkflowStatus.WAITING_APPROVAL:
            await workflow.approve_and_continue(actor="approver@example.com")
        assert store.refusals == 0
        assert shape(workflow.results) == CLEAN
        assert workflow.effects == CLEAN_EFFECTS
        assert (await verify(store)).problems == []

    @pytest.mark.parametrize("verb", ["approve", "reject", "cancel", "pause"])
    async def test_a_decision_is_asked_again_until_it_is_recorded(self, verb: str) -> None:
        store = self.Stormy(0, 0)
        workflow = Judged("order-1", STEPS, persistence=store)
        if verb == "pause":
            await _interrupt(workflow)
        else:
            await workflow.execute()
        store.refusals = 5
        await getattr(workflow, verb)(actor="approver@example.com")
        recorded = await kinds(store, "order-1")
        assert (
            recorded[-3:].count(
                {"approve": "approved", "reject": "rejected", "cancel": "cancel_requested"}.get(verb, "pause_requested")
            )
            == 1
        )

    async def test_a_run_that_was_deleted_between_two_looks_is_started(self) -> None:
        """The first append is refused, and then there is nothing to be read."""

        class Vanishing(InMemoryPersistence):
            async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
                try:
                    await super().append(workflow_id, records, **how)
                except ConcurrencyError:
                    await self.delete(workflow_id)
                    raise

        store = Vanishing()
        await Scripted("order-1", ["a"], persistence=store).execute()
        workflow = Scripted("order-1", ["a"], persistence=store)
        results = await workflow.execute()
        assert shape(results) == [("a", True, None)]
        assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["a"])


async def _interrupt(workflow: Workflow) -> None:
    """Leave a run as a shutdown does."""
    workflow.on_step_started = _stop
    with pytest.raises(KeyboardInterrupt):
        await workflow.execute()
    workflow.on_step_started = None


def _stop(_: object) -> None:
    raise KeyboardInterrupt


class Renewals(InMemoryPersistence):
    """Fails to renew, in a way that the test says, and tells when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []
        """Raised one by one; the last one again and again."""
        self.asked = 0
        self.enough = asyncio.Event()
        """Set once it was asked three times more than there are errors."""
        self.appends = 0

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        self.asked += 1
        if self.asked >= len(self.errors) + 3:
            self.enough.set()
        if self.asked <= len(self.errors):
            raise self.errors[self.asked - 1]
        return await super().renew(workflow_id, token, expires_at)

    async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
        self.appends += 1
        await super().append(workflow_id, records, **how)


class Long(Scripted):
    """Its steps take their time, and its lease is short."""

    runtime = Runtime(lease_seconds=0.03, cancel_grace_seconds=60)


async def forever(_: object = None) -> None:
    await asyncio.Event().wait()


class TestHeartbeat:
    @pytest.mark.parametrize("error", [PersistenceError("no disk"), JournalCorruptError("no"), RawError("no")])
    async def test_a_renewal_that_fails_is_logged_and_tried_again(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = Renewals()
        store.errors = [error] * 3

        async def step() -> WorkflowResult:
            await asyncio.wait_for(store.enough.wait(), 10)
            return WorkflowResult(True, "a")

        workflow = Long("order-1", ["a", "b"], persistence=store, script={"a": lambda _: step()})
        await workflow.execute()
        assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["a", "b"])
        logged = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert [record.getMessage() for record in logged] == [
            "The lease of workflow 'order-1' could not be renewed; trying again."
        ] * 3
        assert all(record.exc_info and record.exc_info[1] is error for record in logged)

    @pytest.mark.parametrize("way", ["waits", "swallows", "fails", "returns a result"])
    @pytest.mark.parametrize("phase", ["forward", "rollback"])
    async def test_a_lost_lease_interrupts_the_step_and_nothing_more_is_recorded(self, way: str, phase: str) -> None:
        store = Renewals()
        ended: list[str] = []

        async def step() -> WorkflowResult:
            store.errors = [LeaseLostError("It is another's.", workflow_id="order-1", owner="host-7:42:1:2:3")] * 100
            store.asked = 0
            try:
                await forever()
            except asyncio.CancelledError:
                ended.append(way)
                if way == "waits":
                    raise
                if way == "fails":
                    raise RuntimeError("interrupted") from None
            return WorkflowResult(True, "a")

        script: dict[str, Any] = {"a": lambda _: step()} if phase == "forward" else {}
        if phase == "rollback":
            script = {"b": RuntimeError("no"), "rollback_a": lambda _: step()}
        workflow = Long("order-1", ["a", "b"], persistence=store, script=script)

        with pytest.raises(LeaseLostError) as caught:
            await workflow.execute()

        assert str(caught.value) == (
            "Workflow 'order-1' is no longer driven by this process: its lease expired and host-7 (process 42) took "
            "over. Nothing was recorded since; load the workflow to see where it stands."
        )
        assert (caught.value.workflow_id, caught.value.owner) == ("order-1", "host-7:42:1:2:3")
        assert ended == [way]
        recorded = await kinds(store, "order-1")
        assert recorded[-1] == ("step_started" if phase == "forward" else "rollback_step_started")
        assert "released" not in recorded
        assert store.appends == (1 if phase == "forward" else 3)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async def test_nothing_is_renewed_once_the_run_has_ended(self) -> None:
        store = Renewals()

        async def step() -> WorkflowResult:
            await asyncio.wait_for(store.enough.wait(), 10)
            return WorkflowResult(True, "a")

        workflow = Long("order-1", ["a"], persistence=store, script={"a": lambda _: step()})
        await workflow.execute()
        asked = store.asked
        loop = asyncio.get_running_loop()
        fired = loop.create_future()
        loop.call_later(0.05, fired.set_result, None)  # five beats of the heart
        await fired
        assert store.asked == asked

    @pytest.mark.parametrize(
        "error", [LeaseLostError("Nobody holds it.", workflow_id="order-1", owner=None), PersistenceError("closed")]
    )
    async def test_a_renewal_that_comes_after_the_end_of_the_run_says_nothing(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It waits behind the append that ends the run and lets go of the lease; then the store may be closed."""
        asked, ended, reads = asyncio.Event(), asyncio.Event(), list[str]()

        class Late(InMemoryPersistence):
            async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
                asked.set()
                await ended.wait()
                raise error

            async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
                reads.append(workflow_id)
                raise PersistenceError("It is closed.")

        async def step() -> WorkflowResult:
            await asyncio.wait_for(asked.wait(), 10)
            return WorkflowResult(True, "a")

        await Long("order-1", ["a"], persistence=Late(), script={"a": lambda _: step()}).execute()
        ended.set()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
        assert reads == []


class TestTakenOver:
    async def test_a_driver_that_was_overtaken_changes_nothing_and_says_so(self, store: Store) -> None:
        ahead = FakeClock()
        ahead.advance(3_600 * 24 * 365 * 100)
        there: list[Any] = []

        async def step(workflow: Scripted) -> WorkflowResult:
            if workflow.step_context.attempt == 1:
                other = await Scripted.load("order-1", store, script=workflow.script)
                other.runtime = Runtime(clock=ahead)
                await other.resume()
                there.append(other)
                there.append(await store.read("order-1"))
            return WorkflowResult(True, "a")

        workflow = Scripted("order-1", ["a", "b"], persistence=store, script={"a": step})
        with pytest.raises(LeaseLostError) as caught:
            await workflow.execute()
        assert caught.value.workflow_id == "order-1"
        assert str(caught.value).startswith("Workflow 'order-1' is no longer driven by this process: ")
        assert there[0].status is WorkflowStatus.COMPLETED
        assert await store.read("order-1") == there[1]
        assert ran(workflow) == ["a"]
        assert ran(there[0]) == ["a", "b"]
        assert [effect.attempt for effect in there[0].effects] == [2, 1]
        assert (await verify(store)).problems == []


class Bare:
    """Only what a backend must have."""

    def __init__(self) -> None:
        self.kept = InMemoryPersistence()
        self.raises: Exception | None = None

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        if self.raises is not None:
            raise self.raises
        await self.kept.append(workflow_id, records, expected_version=expected_version, header=header)

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        if self.raises is not None:
            raise self.raises
        return await self.kept.read(workflow_id, after=after)

    async def delete(self, workflow_id: str) -> bool:
        return await self.kept.delete(workflow_id)


class TestCapabilities:
    def test_a_backend_without_leases_is_warned_of_once_a_class(self, caplog: pytest.LogCaptureFixture) -> None:
        class Fresh(Bare):
            pass

        class Another(Fresh):
            pass

        for store in (Fresh(), Fresh(), Another(), InMemoryPersistence(), None, Fresh()):
            Scripted("order-1", ["a"], persistence=store)
        assert [(record.levelno, record.name, record.getMessage()) for record in caplog.records] == [
            (
                logging.WARNING,
                "dotmac_workflows",
                f"{name} does not have lease and renew (Leases): nobody can tell who drives a run, so execute() and "
                "resume() take over whoever is running. That is safe, but the step in flight runs twice. See "
                "dotmac_workflows.persistence.Leases.",
            )
            for name in ("Fresh", "Another")
        ]
        assert not isinstance(Fresh(), Leases | Queries)

    async def test_without_leases_resume_takes_over_whoever_runs(self) -> None:
        store = Bare()
        there: list[Scripted] = []

        async def step(workflow: Scripted) -> WorkflowResult:
            if workflow.step_context.attempt == 1:
                other = await Scripted.load("order-1", store, script=workflow.script)
                await other.resume()
                there.append(other)
            return WorkflowResult(True, "a")

        workflow = Scripted("order-1", ["a", "b"], persistence=store, script={"a": step})
        with pytest.raises(LeaseLostError) as caught:
            await workflow.execute()
        assert caught.value.workflow_id == "order-1"
        (other,) = there
        assert other.status is WorkflowStatus.COMPLETED
        assert ran(workflow) + ran(other) == ["a", "a", "b"]
        recorded = await kinds(store, "order-1")
        assert recorded[-1] == "workflow_completed"
        assert (recorded.count("claimed"), recorded.count("step_succeeded")) == (2, 2)

    async def test_verify_and_recover_name_what_is_missing(self) -> None:
        class Listing(Bare):
            async def find(self, **filters: Any) -> list[Header]:
                raise AssertionError

        with pytest.raises(WorkflowConfigurationError) as caught:
            await verify(Bare())
        assert str(caught.value) == "verify() needs a persistence that has find (Queries); Bare does not."
        with pytest.raises(WorkflowConfigurationError) as caught:
            await recover(Bare(), [Scripted])
        assert str(caught.value) == (
            "recover() needs a persistence that has find (Queries); Bare does not. Call load() and resume() for each "
            "id instead."
        )
        with pytest.raises(WorkflowConfigurationError) as caught:
            await recover(Listing(), [Scripted])
        assert str(caught.value) == (
            "recover() needs a persistence that has lease and renew (Leases); Listing does not. Call load() and "
            "resume() for each id instead."
        )
        with pytest.raises(WorkflowConfigurationError, match=r"^concurrency must be at least 1, not 0\.$"):
            await recover(InMemoryPersistence(), [Scripted], concurrency=0)


class TestBackendsThatBreakTheProtocol:
    async def test_what_they_raise_comes_out_unmasked_when_a_run_is_left(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Letting go of the lease fails as well: the first error is the one to be told."""
        store = Bare()

        def step(_: Scripted) -> None:
            store.raises = OSError(5, "Input/output error")
            raise KeyboardInterrupt

        workflow = Scripted("order-1", ["a"], persistence=store, script={"a": step})
        with pytest.raises(KeyboardInterrupt):
            await workflow.execute()
        (record,) = [record for record in caplog.records if "could not be let go" in record.getMessage()]
        assert record.exc_info
        assert record.exc_info[1] is store.raises
        store.raises = None
        again = await Scripted.load("order-1", store)
        await again.resume()
        assert again.status is WorkflowStatus.COMPLETED
