"""`execute()` called again: by the same object, by another one, at once, and from within."""

import asyncio
import logging

import pytest

from dotmac_workflows import WorkflowDefinitionError, WorkflowExecutionError, WorkflowResult, WorkflowStatus
from workflows import ABC, Backend, Held, InTurn, Order, Store, Wrapper, asks, crashed_after, fails, kinds, seen, within


async def test_a_completed_run_returns_its_results_and_runs_nothing(backend: Backend) -> None:
    order = backend.order()
    first = await order.execute()
    before = await kinds(order, leases=True)
    assert await order.execute() == first
    assert await (await backend.again(order)).execute() == first
    assert order.ledger == ["a", "b", "c"]
    assert await kinds(order, leases=True) == before


async def test_a_waiting_run_returns_its_results_and_runs_nothing(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    first = await order.execute()
    before = await kinds(order, leases=True)
    assert await order.execute() == first
    again = await backend.again(order)
    assert await again.execute() == first
    assert (seen(again), order.ledger) == (("waiting_approval", ["a"]), ["a"])
    assert await kinds(order, leases=True) == before


async def test_a_paused_run_returns_its_results_and_runs_nothing(backend: Backend) -> None:
    async def pauses(workflow: Order, name: str) -> WorkflowResult:
        await workflow.pause()
        return WorkflowResult(True, name)

    order = backend.order(does={"a": pauses})
    first = await order.execute()
    before = await kinds(order, leases=True)
    assert await order.execute() == first
    again = await backend.again(order)
    assert await again.execute() == first
    assert (seen(again), order.ledger) == (("paused", ["a"]), ["a"])
    assert await kinds(order, leases=True) == before


async def test_a_failed_run_returns_its_results_and_runs_nothing(backend: Backend) -> None:
    order = backend.order(does={"b": fails()})
    first = await order.execute()
    before = await kinds(order, leases=True)
    assert await order.execute() == first
    again = await backend.again(order)
    assert await again.execute() == first
    assert (seen(again), order.ledger) == (("failed", ["a", "b!", "rollback_a"]), ["a", "b", "rollback_a"])
    assert await kinds(order, leases=True) == before


async def test_a_cancelled_run_returns_its_results_and_runs_nothing(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    first = await order.reject_and_cancel("no")
    before = await kinds(order, leases=True)
    assert await order.execute() == first
    again = await backend.again(order)
    assert await again.execute() == first
    assert (seen(again), order.ledger) == (("cancelled", ["a", "a!"]), ["a"])
    assert await kinds(order, leases=True) == before


async def test_a_fresh_object_with_a_known_id_returns_what_is_recorded(store: Store) -> None:
    backend = Backend(store)
    first = await backend.order().execute()
    fresh = backend.order()
    assert await fresh.execute() == first
    assert (seen(fresh), fresh.ledger) == (("completed", ["a", "b", "c"]), [])


async def test_a_fresh_object_may_leave_the_steps_of_a_known_run_out(store: Store) -> None:
    await Backend(store).order().execute()
    fresh = Backend(store).order([])
    await fresh.execute()
    assert (seen(fresh), fresh.steps) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


async def test_a_fresh_object_with_a_known_id_costs_one_refused_append_and_a_read(store: Store) -> None:
    await Backend(store).order().execute()

    class Tried(Wrapper):
        tried = 0

        async def append(self, *args: object, **how: object) -> None:
            self.tried += 1
            await super().append(*args, **how)  # type: ignore[arg-type] # as above

    counted = Tried(store)
    fresh = Order("order-1", ABC, persistence=counted)
    await fresh.execute()
    assert (counted.tried, counted.appends, counted.reads) == (1, [], 1)


async def test_a_run_that_a_crash_left_is_resumed(store: Store) -> None:
    left = await crashed_after(store, 2, lambda failing: Order("order-1", ABC, persistence=failing))
    assert left.ledger == ["a"]
    fresh = Backend(store).order(ledger=left.ledger)
    await fresh.execute()
    assert (seen(fresh), fresh.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


async def test_other_steps_than_the_recorded_ones_are_an_error_that_names_the_difference(store: Store) -> None:
    await Backend(store).order(["a", "b"]).execute()
    other = Backend(store).order(["a", "x"])
    with pytest.raises(WorkflowDefinitionError) as caught:
        await other.execute()
    assert caught.value.workflow_id == "order-1"
    assert "was started with the steps ['a', 'b'], not ['a', 'x']" in str(caught.value)
    assert other.ledger == []
    assert isinstance(caught.value, WorkflowExecutionError)


async def test_another_class_than_the_recorded_one_is_an_error(store: Store) -> None:
    class Invoice(Order):
        pass

    await Invoice("order-1", ABC, persistence=store).execute()
    with pytest.raises(WorkflowDefinitionError, match="was started as a Invoice; a Order has other steps"):
        await Backend(store).order().execute()


async def test_of_other_metadata_and_settings_the_pinned_ones_win_with_a_warning(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first = Backend(store).order(metadata={"customer": "first"}, does={"a": asks})
    first.configure(require_approval=True)
    await first.execute()
    fresh = Backend(store).order(metadata={"customer": "secret-2"})
    with caplog.at_level(logging.WARNING):
        await fresh.execute()
    assert (fresh.metadata, fresh.require_approval, seen(fresh)) == (
        {"customer": "first"},
        True,
        ("waiting_approval", ["a"]),
    )
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "other values of require_approval, metadata" in warning.getMessage()
    assert vars(warning)["workflow_id"] == "order-1"
    assert "secret" not in caplog.text


async def test_the_same_plan_again_is_not_warned_of(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    await Backend(store).order(metadata={"n": (1, 2)}).execute()
    await Backend(store).order(metadata={"n": (1, 2)}).execute()
    await Backend(store).order().execute()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_steps_that_change_in_the_class_do_not_change_a_run_in_flight(store: Store) -> None:
    """The plan is pinned when the run starts."""

    class V1(Order):
        workflow_type = "Purchase"

    class V2(Order):
        workflow_type = "Purchase"

        def __init__(self, workflow_id: str, persistence: Store) -> None:
            super().__init__(workflow_id, ["x", "y"], {"version": 2}, persistence=persistence)
            self.configure(rollback_on_failure=False)

    started = V1("order-1", ABC, {"version": 1}, persistence=store, does={"a": asks})
    started.configure(require_approval=True)
    await started.execute()
    loaded = await V2.load("order-1", store)
    assert (loaded.steps, loaded.metadata, loaded.rollback_on_failure) == (["a", "b", "c"], {"version": 1}, True)
    await loaded.approve_and_continue()
    assert (seen(loaded), loaded.ledger) == (("completed", ["a", "b", "c"]), ["b", "c"])


# Two at once.


async def test_two_executes_at_once_on_one_object_the_second_raises_already_running(backend: Backend) -> None:
    held = Held()
    order = backend.order(["a", "b"], does={"a": held})
    first = asyncio.create_task(order.execute())
    await within(held.running.wait())
    for verb in (order.execute, order.resume, order.retry, order.approve_and_continue, order.retry_rollback):
        with pytest.raises(WorkflowExecutionError, match=r"'order-1' is already running: this very object"):
            await within(verb())
    held.go.set()
    await within(first)
    assert (seen(order), order.ledger) == (("completed", ["a", "b"]), ["a", "b"])


async def test_two_executes_started_together_one_runs(backend: Backend) -> None:
    async def gives_way(workflow: Order, name: str) -> WorkflowResult:
        await asyncio.sleep(0)
        return WorkflowResult(True, name)

    order = backend.order(does={"a": gives_way})
    answers = await within(asyncio.gather(order.execute(), order.execute(), return_exceptions=True))
    assert [type(answer) for answer in answers] == [list, WorkflowExecutionError]
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


async def test_two_objects_of_one_run_at_once_the_second_is_told_owner_and_lease(store: Store) -> None:
    held = Held()
    order = Backend(store).order(["a", "b"], does={"a": held})
    first = asyncio.create_task(order.execute())
    await within(held.running.wait())
    for other in (Backend(store).order(["a", "b"]), await Order.load("order-1", store)):
        with pytest.raises(
            WorkflowExecutionError,
            match=r"'order-1' is already running: \S+ \(process \d+\) holds its lease until \d{4}-\d\d-\d\d [\d:]+Z\. "
            r"Wait for it, or call resume\(\) after that",
        ) as caught:
            await within(other.execute())
        assert caught.value.workflow_id == "order-1"
        assert (other.ledger, other.status) == ([], WorkflowStatus.RUNNING)
    held.go.set()
    await within(first)
    assert (seen(order), order.ledger) == (("completed", ["a", "b"]), ["a", "b"])


async def test_two_fresh_objects_started_together_run_each_step_once(store: Store) -> None:
    ledger: list[str] = []
    one, two = Backend(store).order(ledger=ledger), Backend(store).order(ledger=ledger)
    answers = await within(asyncio.gather(one.execute(), two.execute(), return_exceptions=True))
    assert sorted(ledger) == ["a", "b", "c"]
    for answer in answers:
        assert isinstance(answer, list | WorkflowExecutionError)
    assert any(isinstance(answer, list) for answer in answers)
    assert seen(await Order.load("order-1", store)) == ("completed", ["a", "b", "c"])


async def test_execute_from_a_step_raises_already_running_and_never_deadlocks(backend: Backend) -> None:
    caught: list[str] = []

    async def runs_itself(workflow: Order, name: str) -> WorkflowResult:
        for verb in (workflow.execute, workflow.resume):
            try:
                await verb()
            except WorkflowExecutionError as error:
                caught.append(str(error))
        return WorkflowResult(True, name)

    order = backend.order(["a", "b"], does={"a": runs_itself})
    await within(order.execute())
    assert len(caught) == 2
    assert all("is already running" in text for text in caught)
    assert (seen(order), order.ledger) == (("completed", ["a", "b"]), ["a", "b"])


async def test_execute_from_a_step_through_another_object_raises_already_running(store: Store) -> None:
    caught: list[str] = []

    async def runs_its_twin(workflow: Order, name: str) -> WorkflowResult:
        twin = await Order.load("order-1", store)
        try:
            await twin.execute()
        except WorkflowExecutionError as error:
            caught.append(str(error))
        return WorkflowResult(True, name)

    order = Backend(store).order(["a"], does={"a": runs_its_twin})
    await within(order.execute())
    assert len(caught) == 1
    assert "is already running" in caught[0]
    assert seen(order) == ("completed", ["a"])


async def test_execute_from_a_callback_raises_already_running_and_never_deadlocks(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    order = backend.told(["a"], does={"a": InTurn(None)})

    async def again(*told: object) -> None:
        await order.execute()

    order.on_step_started = again  # type: ignore[method-assign,assignment] # a callback set on the object
    order.on_step_completed = again  # type: ignore[method-assign,assignment] # as above
    order.on_workflow_completed = again  # type: ignore[method-assign,assignment] # as above
    await within(order.execute())
    assert (seen(order), order.ledger) == (("completed", ["a"]), ["a"])
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3
    assert caplog.text.count("is already running") == 3


async def test_deleting_a_run_while_it_is_driven_is_said_and_nothing_more_runs(store: Store) -> None:
    async def deletes(workflow: Order, name: str) -> WorkflowResult:
        await store.delete("order-1")
        return WorkflowResult(True, name)

    order = Backend(store).order(["a", "b"], does={"a": deletes})
    with pytest.raises(WorkflowExecutionError, match="was deleted while it ran here"):
        await order.execute()
    assert (order.ledger, await store.read("order-1"), await store.lease("order-1")) == (["a"], [], None)


async def test_verbs_of_a_run_that_never_started_say_so(backend: Backend) -> None:
    order = backend.order()
    for verb in (order.resume, order.pause, order.cancel, order.retry, order.retry_rollback):
        with pytest.raises(WorkflowExecutionError, match=r"it is pending. Call execute\(\) first|rollback_status is"):
            await verb()
    assert (order.status, order.ledger, await kinds(order)) == (WorkflowStatus.PENDING, [], [])
