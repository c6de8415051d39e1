"""`load()` and `recover()`: a run taken up by another object, and all that are due at start-up."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows import (
    JournalCorruptError,
    LeaseLostError,
    Persistence,
    PersistenceError,
    Recovered,
    SQLitePersistence,
    Workflow,
    WorkflowConfigurationError,
    WorkflowDefinitionError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowResult,
    WorkflowStatus,
    recover,
)
from dotmac_workflows._core.codec import encode
from dotmac_workflows._core.events import StepStarted
from dotmac_workflows.persistence import Header, InMemoryPersistence
from dotmac_workflows.values import Codec
from workflows import (
    ABC,
    Backend,
    Behaviour,
    Held,
    Order,
    Store,
    Wrapper,
    asks,
    crashed_after,
    fails,
    kinds,
    process,
    seen,
    within,
)

# Load.


class Shipping(Order):
    """Needs a service to run."""

    def __init__(self, *, workflow_id: str, persistence: Persistence, carrier: str) -> None:
        super().__init__(workflow_id, ["other", "steps"], {"other": "metadata"}, persistence=persistence)
        self.configure(rollback_on_failure=False)
        self.carrier = carrier

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step, {"carrier": self.carrier})


async def shipping(store: Store) -> None:
    """Store a Shipping run that waits behind its step a."""
    order = Shipping(workflow_id="order-1", persistence=store, carrier="first")
    order.steps, order.metadata = ["a", "b"], {"customer": 7}
    order.configure(require_approval=True, on_rollback_failure="halt")
    order.execute_step = asks_first  # type: ignore[method-assign] # one step that asks
    await order.execute()
    assert order.is_waiting_approval


async def asks_first(step: str) -> WorkflowResult:
    return WorkflowResult(True, step, requires_approval=True)


async def test_load_hands_init_to_the_constructor_and_takes_the_plan_from_the_journal(store: Store) -> None:
    await shipping(store)
    loaded = await Shipping.load("order-1", store, carrier="second")
    assert type(loaded) is Shipping
    assert (loaded.carrier, loaded.workflow_id, loaded.persistence) == ("second", "order-1", store)
    assert (loaded.steps, loaded.metadata) == (["a", "b"], {"customer": 7})
    assert (loaded.require_approval, loaded.rollback_on_failure, loaded.on_rollback_failure) == (True, True, "halt")
    assert (seen(loaded), loaded.pending_approval_step, loaded.current_step_index) == (
        ("waiting_approval", ["a"]),
        "a",
        0,
    )
    await loaded.approve_and_continue()
    assert (seen(loaded), loaded.results[1].data) == (("completed", ["a", "b"]), {"carrier": "second"})


async def test_load_of_an_unknown_id_is_workflow_not_found(store: Store) -> None:
    with pytest.raises(WorkflowNotFoundError, match="no workflow 'order-1' in this store") as caught:
        await Order.load("order-1", store)
    assert caught.value.workflow_id == "order-1"
    assert await store.read("order-1") == []


async def test_load_of_an_id_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(WorkflowConfigurationError, match="1 to 200 printable characters"):
        await Order.load("a\nb", store)


async def test_load_of_a_class_whose_constructor_cannot_be_called_so_says_what_to_do(store: Store) -> None:
    await shipping(store)
    with pytest.raises(
        WorkflowConfigurationError,
        match=r"Shipping cannot be made with workflow_id, persistence: missing a required.*carrier.*"
        r"keywords; recover\(\) takes a function",
    ) as caught:
        await Shipping.load("order-1", store)
    assert caught.value.workflow_id == "order-1"


async def test_a_type_error_from_within_a_constructor_is_not_mistaken_for_a_wrong_call(store: Store) -> None:
    class Broken(Order):
        def __init__(self, **init: Any) -> None:
            super().__init__(**init)
            raise TypeError("inside")

    await Backend(store).order().execute()
    with pytest.raises(TypeError, match=r"^inside$"):
        await Broken.load("order-1", store)


async def test_load_with_another_class_is_a_definition_error(store: Store) -> None:
    class Refund(Workflow):
        pass

    await Backend(store).order().execute()
    with pytest.raises(WorkflowDefinitionError, match="'order-1' was started as a Order; a Refund has other steps"):
        await Refund.load("order-1", store)


async def test_a_subclass_may_take_up_the_run_of_its_base(store: Store) -> None:
    class Better(Order):
        pass

    order = Backend(store).order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    better = await Better.load("order-1", store, ledger=order.ledger)
    await better.approve_and_continue()
    assert order.ledger == ["a", "b", "c"]


async def test_a_class_that_was_renamed_keeps_its_workflow_type(store: Store) -> None:
    class Old(Order):
        workflow_type = "Purchase"

    class New(Order):
        workflow_type = "Purchase"

    await Old("order-1", ABC, persistence=store).execute()
    assert (await New.load("order-1", store)).is_completed
    assert [header.workflow_type for header in await store.find()] == ["Purchase"]


async def test_the_base_class_loads_any_run_to_look_and_decide_but_refuses_to_drive(store: Store) -> None:
    order = Backend(store).order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    looked = await Workflow.load("order-1", store)
    assert (seen(looked), looked.pending_approval_step) == (("waiting_approval", ["a"]), "a")
    for verb in (looked.execute, looked.resume, looked.approve_and_continue, looked.reject_and_cancel, looked.retry):
        with pytest.raises(WorkflowDefinitionError, match="Load it with the class Order"):
            await verb()
    assert seen(await Workflow.load("order-1", store)) == ("waiting_approval", ["a"])
    await looked.reject("no", actor="lead@example.com")
    assert seen(await Workflow.load("order-1", store)) == ("running", ["a", "a!"])


async def test_nothing_is_imported_or_made_by_a_name_found_in_a_store(store: Store) -> None:
    class Evil(Order):
        workflow_type = "os.system"

    await Evil("order-1", ABC, persistence=store).execute()
    with pytest.raises(WorkflowDefinitionError, match=r"os\.system"):
        await Order.load("order-1", store)


async def test_load_shows_a_run_that_is_driven_as_it_was_last_recorded(store: Store) -> None:
    held = Held()
    order = Backend(store).order(does={"b": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    loaded = await Workflow.load("order-1", store)
    assert (seen(loaded), loaded.current_step_index) == (("running", ["a"]), 1)
    held.go.set()
    await within(task)
    assert seen(loaded) == ("running", ["a"])


async def test_every_verb_reads_the_journal_first(store: Store) -> None:
    """An object that was loaded long ago acts on what is recorded now."""
    order = Backend(store).order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    stale = await Order.load("order-1", store, ledger=order.ledger)
    await order.approve_and_continue()
    assert stale.is_waiting_approval
    await stale.execute()
    assert (seen(stale), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])
    with pytest.raises(WorkflowExecutionError, match="cannot be cancelled; it is completed"):
        await stale.cancel()


async def test_a_run_that_was_deleted_is_gone_for_an_object_that_knew_it(store: Store) -> None:
    order = Backend(store).order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    assert await store.delete("order-1") is True
    for verb in (order.execute, order.resume, order.approve_and_continue, order.approve, order.cancel, order.pause):
        with pytest.raises(WorkflowNotFoundError, match="no workflow 'order-1' in this store"):
            await verb()
    assert (await store.read("order-1"), order.ledger) == ([], ["a"])


# Recover.


async def left_by_a_crash(store: Store, workflow_id: str, does: dict[str, Behaviour] | None = None) -> list[str]:
    """Leave a run behind its first step; return its ledger."""
    left = await crashed_after(
        store, 2, lambda failing: Order(workflow_id, ABC, persistence=failing, does=does, ledger=Noted.ledger)
    )
    return left.ledger


class Noted(Order):
    """Runs what was started as an Order, and keeps one ledger for all."""

    ledger: list[str] = []  # noqa: RUF012 - shared on purpose, emptied by the fixture
    behaviours: dict[str, Behaviour] = {}  # noqa: RUF012 - as above
    workflow_type = "Order"

    def __init__(self, workflow_id: str, *, persistence: Persistence) -> None:
        super().__init__(workflow_id, persistence=persistence, does=type(self).behaviours, ledger=type(self).ledger)


@pytest.fixture(autouse=True)
def _empty_ledger() -> None:
    Noted.ledger.clear()
    Noted.behaviours = {}


async def test_recover_carries_on_what_a_crash_left(store: Store) -> None:
    await left_by_a_crash(store, "order-1")
    assert await recover(store, [Noted]) == [Recovered("order-1", "Order", WorkflowStatus.COMPLETED, None)]
    assert Noted.ledger == ["a", "b", "c"]
    assert seen(await Order.load("order-1", store)) == ("completed", ["a", "b", "c"])
    assert await recover(store, [Noted]) == []


async def test_recover_takes_functions_too(store: Store) -> None:
    ledger = await left_by_a_crash(store, "order-1")
    made: list[tuple[str, object]] = []

    def make(workflow_id: str, persistence: Persistence) -> Workflow:
        made.append((workflow_id, persistence))
        return Order(workflow_id, persistence=persistence, ledger=ledger)

    (outcome,) = await recover(store, [make])
    assert (outcome.status, outcome.error, made) == (WorkflowStatus.COMPLETED, None, [("order-1", store)])
    assert ledger == ["a", "b", "c"]


async def test_recover_takes_classes_and_functions_together_and_asks_each_for_its_own(store: Store) -> None:
    class Invoice(Order):
        pass

    await left_by_a_crash(store, "order-1")
    await crashed_after(store, 2, lambda failing: Invoice("invoice-1", ["x", "y"], persistence=failing))
    made: list[str] = []

    def invoice(workflow_id: str, persistence: Persistence) -> Workflow:
        made.append(workflow_id)
        return Invoice(workflow_id, persistence=persistence)

    outcomes = await recover(store, [Noted, invoice])
    assert {(o.workflow_id, o.workflow_type, str(o.status), o.error) for o in outcomes} == {
        ("order-1", "Order", "completed", None),
        ("invoice-1", "Invoice", "completed", None),
    }
    assert made == ["invoice-1"]


@pytest.mark.parametrize("turned", [False, True])
async def test_recover_gives_a_run_to_its_own_class_before_a_subclass_of_it(store: Store, turned: bool) -> None:
    class Base(Order):
        async def execute_step(self, step: str) -> WorkflowResult:
            return WorkflowResult(True, step, {"by": type(self).__name__})

    class Better(Base):
        pass

    await crashed_after(store, 2, lambda failing: Base("order-1", ABC, persistence=failing))
    makers = [Better, Base] if turned else [Base, Better]
    (outcome,) = await recover(store, makers)
    loaded = await Base.load("order-1", store)
    assert (outcome.status, loaded.results[-1].data) == (WorkflowStatus.COMPLETED, {"by": "Base"})
    await crashed_after(store, 2, lambda failing: Base("order-2", ABC, persistence=failing))
    await recover(store, [Better])
    assert (await Base.load("order-2", store)).results[-1].data == {"by": "Better"}


async def test_recover_leaves_runs_of_other_types_alone(store: Store) -> None:
    class Other(Workflow):
        pass

    await left_by_a_crash(store, "order-1")
    before = await store.read("order-1")
    assert await recover(store, [Other, lambda workflow_id, store: Other(workflow_id, persistence=store)]) == []
    assert await store.read("order-1") == before


async def test_recover_carries_out_decisions_that_were_only_recorded(store: Store) -> None:
    Noted.behaviours = {"a": asks}
    for n, decide in enumerate(["approve", "reject"]):
        order = Order(f"order-{n}", ["a", "b"], persistence=store, does={"a": asks})
        order.configure(require_approval=True)
        await order.execute()
        await getattr(order, decide)()
    outcomes = await recover(store, [Noted])
    assert sorted((o.workflow_id, str(o.status)) for o in outcomes) == [
        ("order-0", "completed"),
        ("order-1", "cancelled"),
    ]


async def test_recover_finishes_a_rollback(store: Store) -> None:
    does: dict[str, Behaviour] = {"c": fails()}
    await crashed_after(
        store, 5, lambda failing: Order("order-1", ABC, persistence=failing, does=does, ledger=Noted.ledger)
    )
    assert Noted.ledger[-1] == "rollback_b"
    (outcome,) = await recover(store, [Noted])
    assert outcome.status is WorkflowStatus.FAILED
    assert Noted.ledger == ["a", "b", "c", "rollback_b", "rollback_a"]


async def test_recover_leaves_what_waits_holds_or_ended_alone(store: Store) -> None:
    async def pauses(workflow: Order, name: str) -> WorkflowResult:
        await workflow.pause()
        return WorkflowResult(True, name)

    behaviours: list[Behaviour] = [asks, pauses, fails()]
    for n, does in enumerate(behaviours):
        order = Order(f"order-{n}", ["a", "b"], persistence=store, does={"a": does})
        order.configure(require_approval=True)
        await order.execute()
    before = [await store.read(f"order-{n}") for n in range(3)]
    assert await recover(store, [Noted]) == []
    assert [await store.read(f"order-{n}") for n in range(3)] == before


async def test_recover_leaves_runs_of_live_owners_alone(store: Store) -> None:
    held = Held()
    order = Backend(store).order(does={"b": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    before = await store.read("order-1")
    assert await within(recover(store, [Noted])) == []
    assert (await store.read("order-1"), Noted.ledger) == (before, [])
    held.go.set()
    await within(task)
    assert order.ledger == ["a", "b", "c"]


LIVE_OWNER = """
    import asyncio, sys
    from dotmac_workflows import SQLitePersistence, Workflow, WorkflowResult

    class Order(Workflow):
        async def execute_step(self, step):
            print("running", flush=True)
            await asyncio.Event().wait()

    async def main():
        async with SQLitePersistence(sys.argv[1]) as store:
            await Order("order-1", ["a", "b"], persistence=store).execute()

    asyncio.run(main())
"""


async def test_the_run_of_a_live_process_is_left_alone_and_that_of_a_dead_one_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journals.db"
    with process(LIVE_OWNER, path) as (owner, line):
        assert await within(line()) == "running\n"
        async with SQLitePersistence(path) as store:
            assert await recover(store, [Noted]) == []
            with pytest.raises(WorkflowExecutionError, match=rf"already running: .*process {owner.pid}\) holds"):
                await Noted("order-1", persistence=store).execute()
            owner.kill()
            await asyncio.to_thread(owner.wait)
            (outcome,) = await recover(store, [Noted])
            assert (outcome.status, Noted.ledger) == (WorkflowStatus.COMPLETED, ["a", "b"])


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_recover_carries_on_a_bounded_number_at_once(store: Store, concurrency: int) -> None:
    for n in range(7):
        await left_by_a_crash(store, f"order-{n}")
    running, most = 0, 0
    full = asyncio.Event()

    async def counts(workflow: Order, name: str) -> WorkflowResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == concurrency:
            full.set()
        await within(full.wait())
        await asyncio.sleep(0)
        running -= 1
        return WorkflowResult(True, name)

    Noted.behaviours = {"b": counts}
    outcomes = await within(recover(store, [Noted], concurrency=concurrency))
    assert (len(outcomes), most, {str(o.status) for o in outcomes}) == (7, concurrency, {"completed"})


async def test_recover_finds_more_runs_than_a_page_holds(store: Store) -> None:
    for n in range(120):
        order = Order(f"order-{n}", ["a", "b"], persistence=store, does={"a": asks})
        order.configure(require_approval=True)
        await order.execute()
        await order.approve()
    outcomes = await recover(store, [Noted], concurrency=50)
    assert len({o.workflow_id for o in outcomes}) == 120
    assert await store.find(status=WorkflowStatus.RUNNING) == []


async def damage(store: Store, workflow_id: str) -> None:
    """Append a row that does not follow: its digest is none."""
    records = await store.read(workflow_id)
    header = next(h for h in await store.find() if h.workflow_id == workflow_id)
    kind, body = encode(StepStarted(1, "z", 0, 1, 1), Codec())
    row = records[-1]._replace(seq=len(records) + 1, kind=kind, body=body, digest="0" * 64)
    await store.append(
        workflow_id, [row], expected_version=len(records), header=header._replace(version=len(records) + 1)
    )


async def test_a_corrupt_journal_in_one_run_does_not_keep_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Invariant 14: a named error that says where; nothing is overwritten; other workflows still run."""
    for n in range(3):
        await left_by_a_crash(store, f"order-{n}")
    await damage(store, "order-1")
    before = await store.read("order-1")
    outcomes = {outcome.workflow_id: outcome for outcome in await recover(store, [Noted])}
    assert {name: str(outcome.status) for name, outcome in outcomes.items() if outcome.error is None} == {
        "order-0": "completed",
        "order-2": "completed",
    }
    error = outcomes["order-1"].error
    assert isinstance(error, JournalCorruptError)
    assert (error.workflow_id, error.seq) == ("order-1", len(before))
    assert f"record {len(before)} ('step_started') does not match its digest" in str(error)
    assert await store.read("order-1") == before
    assert "'order-1' could not be carried on" in caplog.text


async def test_a_run_whose_workflow_cannot_be_made_does_not_keep_the_others(store: Store) -> None:
    await left_by_a_crash(store, "order-1")
    await left_by_a_crash(store, "order-2")

    def make(workflow_id: str, persistence: Persistence) -> Workflow:
        if workflow_id == "order-1":
            raise LookupError("no such customer")
        return Order(workflow_id, persistence=persistence)

    outcomes = {o.workflow_id: (str(o.status), type(o.error)) for o in await recover(store, [make])}
    assert outcomes == {"order-1": ("running", LookupError), "order-2": ("completed", type(None))}


async def test_a_step_that_fails_in_recovery_fails_its_run_as_ever(store: Store) -> None:
    await left_by_a_crash(store, "order-1")
    Noted.behaviours = {"b": fails()}
    (outcome,) = await recover(store, [Noted])
    assert (outcome.status, outcome.error) == (WorkflowStatus.FAILED, None)
    assert Noted.ledger == ["a", "b", "rollback_a"]


async def test_recover_cancelled_lets_its_runs_go_and_they_can_be_recovered_again(store: Store) -> None:
    for n in range(3):
        await left_by_a_crash(store, f"order-{n}")
    held = Held()
    Noted.behaviours = {"b": held}
    task = asyncio.create_task(recover(store, [Noted]))
    await within(held.running.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert [await store.lease(f"order-{n}") for n in range(3)] == [None] * 3
    held.go.set()
    assert len(await within(recover(store, [Noted]))) == 3


@pytest.mark.parametrize("page", [1, 2])
async def test_a_store_that_cannot_be_listed_any_more_is_said_and_what_was_begun_is_finished(
    store: Store, page: int
) -> None:
    await left_by_a_crash(store, "order-1")

    class Unlisted(Wrapper):
        asked = 0

        async def find(self, **how: Any) -> list[Header]:
            self.asked += 1
            if self.asked == page:
                raise PersistenceError("unplugged")
            return await super().find(**how)

    with pytest.raises(PersistenceError, match="unplugged"):
        await within(recover(Unlisted(store), [Noted], concurrency=1))
    assert Noted.ledger == (["a"] if page == 1 else ["a", "b", "c"])


async def test_recover_by_two_at_once_runs_each_once(store: Store) -> None:
    for n in range(5):
        await left_by_a_crash(store, f"order-{n}")
    Noted.ledger.clear()
    answers = await within(asyncio.gather(recover(store, [Noted]), recover(store, [Noted])))
    recovered = [outcome for answer in answers for outcome in answer]
    assert sorted(outcome.workflow_id for outcome in recovered) == [f"order-{n}" for n in range(5)]
    assert [outcome.error for outcome in recovered] == [None] * 5
    assert (Noted.ledger.count("b"), Noted.ledger.count("c")) == (5, 5)


class Bare:
    """A backend as small as the protocol allows."""

    def __init__(self) -> None:
        self.inner = InMemoryPersistence()

    async def append(
        self, workflow_id: str, records: Any, *, expected_version: int, header: Any, lease: Any = None
    ) -> None:
        await self.inner.append(workflow_id, records, expected_version=expected_version, header=header)

    async def read(self, workflow_id: str, *, after: int = 0) -> Any:
        return await self.inner.read(workflow_id, after=after)

    async def delete(self, workflow_id: str) -> bool:
        return await self.inner.delete(workflow_id)


class WithLeases(Bare):
    async def lease(self, workflow_id: str) -> Any:
        return None

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        return len(await self.inner.read(workflow_id))


async def test_a_missing_capability_is_an_error_that_names_it() -> None:
    with pytest.raises(WorkflowConfigurationError, match=r"has find \(Queries\); Bare does not"):
        await recover(Bare(), [Noted])
    with pytest.raises(WorkflowConfigurationError, match=r"has find \(Queries\); WithLeases does not"):
        await recover(WithLeases(), [Noted])


async def test_a_backend_without_leases_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    class Own(Bare):
        pass

    store = Own()
    await Order("order-1", ABC, persistence=store).execute()
    await Order("order-2", ABC, persistence=store).execute()
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "Own does not have lease and renew (Leases): nobody can tell who drives a run" in warning.getMessage()
    Order("order-3", ABC, persistence=InMemoryPersistence())
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


async def test_a_concurrency_of_none_is_refused(store: Store) -> None:
    with pytest.raises(WorkflowConfigurationError, match="concurrency must be at least 1, not 0"):
        await recover(store, [Noted], concurrency=0)


async def test_a_backend_of_three_methods_runs_workflows_and_resumes_them() -> None:
    """Safe without leases: the version check fences whoever is overtaken."""
    bare = Bare()
    order = Order("order-1", ABC, persistence=bare, does={"b": Held()})
    task = asyncio.create_task(order.execute())
    await within(order.does["b"].running.wait())  # type: ignore[attr-defined] # a Held
    taker = await Order.load("order-1", bare, ledger=order.ledger)
    await within(taker.resume())
    assert seen(taker) == ("completed", ["a", "b", "c"])
    order.does["b"].go.set()  # type: ignore[attr-defined] # a Held
    with pytest.raises(LeaseLostError):
        await within(task)
    assert seen(await Order.load("order-1", bare)) == ("completed", ["a", "b", "c"])
    assert (await kinds(taker)).count("WorkflowCompleted") == 1
