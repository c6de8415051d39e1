"""`pause()` and `cancel()`: between steps and into one, from this object, another one, and another process."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows import (
    AlreadyDecidedError,
    Runtime,
    SQLitePersistence,
    Workflow,
    WorkflowExecutionError,
    WorkflowResult,
    WorkflowStatus,
)
from dotmac_workflows._core.events import CancelRequested, PauseRequested
from workflows import (
    Backend,
    Behaviour,
    Held,
    InTurn,
    Order,
    Store,
    Wrapper,
    asks,
    crashed_after,
    events,
    fails,
    kinds,
    process,
    seen,
    within,
)


def pauses(reason: str | None = None, actor: str | None = None) -> Behaviour:
    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        await workflow.pause(reason, actor=actor)
        return WorkflowResult(True, name)

    return behaviour


def cancels(**how: Any) -> Behaviour:
    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        await workflow.cancel(**how)
        return WorkflowResult(True, name)

    return behaviour


async def started(order: Order, held: Held) -> "asyncio.Task[list[WorkflowResult]]":
    """Let an order run in a task of its own until its held step runs."""
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    return task


# Pause.


async def test_pause_holds_the_run_between_steps_until_resume(backend: Backend) -> None:
    order = backend.order(does={"a": pauses("lunch", "operator@example.com")})
    await order.execute()
    assert (seen(order), order.ledger, order.current_step_index) == (("paused", ["a"]), ["a"], 1)
    (asked,) = [event for event in await events(order) if isinstance(event, PauseRequested)]
    assert (asked.actor, asked.reason) == ("operator@example.com", "lunch")
    assert (await kinds(order))[-3:] == ["PauseRequested", "StepSucceeded", "Paused"]
    again = await backend.again(order)
    await again.resume(actor="operator@example.com")
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


async def test_pause_is_cooperative_the_step_that_runs_is_not_disturbed(backend: Backend) -> None:
    held = Held()
    order = backend.order(does={"a": held})
    task = await started(order, held)
    await order.pause()
    assert not task.done()
    held.go.set()
    await within(task)
    assert (seen(order), order.ledger) == (("paused", ["a"]), ["a"])


async def test_pause_from_another_object_is_heard(store: Store) -> None:
    held = Held()
    order = Backend(store).order(does={"a": held})
    task = await started(order, held)
    await (await Workflow.load("order-1", store)).pause("audit")
    held.go.set()
    await within(task)
    assert (seen(order), order.ledger) == (("paused", ["a"]), ["a"])
    await order.resume()
    assert order.ledger == ["a", "b", "c"]


async def test_pause_asked_twice_is_asked_once(backend: Backend) -> None:
    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        await workflow.pause()
        await workflow.pause()
        return WorkflowResult(True, name)

    order = backend.order(does={"a": behaviour})
    await order.execute()
    before = await kinds(order)
    await order.pause()
    assert (before.count("PauseRequested"), await kinds(order)) == (1, before)


async def test_pause_at_the_last_step_holds_nothing(backend: Backend) -> None:
    order = backend.order(["a"], does={"a": pauses()})
    await order.execute()
    assert seen(order) == ("completed", ["a"])


async def test_pause_before_a_step_that_fails_does_not_hold_the_rollback(backend: Backend) -> None:
    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        await workflow.pause()
        return WorkflowResult(False, name)

    order = backend.order(does={"b": behaviour})
    await order.execute()
    assert seen(order) == ("failed", ["a", "b!", "rollback_a"])


async def test_pause_before_a_gate_waits_at_the_gate_and_holds_after_it(backend: Backend) -> None:
    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        await workflow.pause()
        return WorkflowResult(True, name, requires_approval=True)

    order = backend.order(does={"a": behaviour})
    order.configure(require_approval=True)
    await order.execute()
    assert seen(order) == ("waiting_approval", ["a"])
    await order.approve_and_continue()
    assert (seen(order), order.ledger) == (("paused", ["a"]), ["a"])
    await order.resume()
    assert order.ledger == ["a", "b", "c"]


async def test_pause_of_a_run_that_nobody_drives_holds_it_at_once(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve()
    await order.pause()
    assert order.status is WorkflowStatus.PAUSED
    await order.execute()
    assert order.ledger == ["a"]
    await order.resume()
    assert order.ledger == ["a", "b", "c"]


async def test_pause_of_a_run_that_waits_or_ended_is_refused(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    with pytest.raises(WorkflowExecutionError, match="cannot be paused; it is waiting_approval"):
        await order.pause()
    await order.approve_and_continue()
    with pytest.raises(WorkflowExecutionError, match="cannot be paused; it is completed"):
        await order.pause()


async def test_pause_of_a_rollback_is_refused(backend: Backend) -> None:
    refused: list[str] = []

    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        try:
            await workflow.pause()
        except WorkflowExecutionError as error:
            refused.append(str(error))
        return WorkflowResult(True, name)

    order = backend.order(["a", "b"], does={"b": fails(), "rollback_a": behaviour})
    await order.execute()
    assert len(refused) == 1
    assert "It is being undone or cancelled" in refused[0]
    assert order.rollback_status == "done"


async def test_a_paused_run_can_be_cancelled(backend: Backend) -> None:
    order = backend.order(does={"a": pauses()})
    order.configure(rollback_on_cancel=True)
    await order.execute()
    await order.cancel()
    assert (seen(order), order.ledger) == (("cancelled", ["a", "rollback_a"]), ["a", "rollback_a"])


async def test_resume_of_a_run_that_waits_or_ended_runs_nothing(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await order.resume()
    assert (seen(order), order.ledger) == (("waiting_approval", ["a"]), ["a"])
    await order.reject_and_cancel()
    await order.resume()
    assert (seen(order), order.ledger) == (("cancelled", ["a", "a!"]), ["a"])


# Cancel.


async def test_cancel_interrupts_the_step_that_runs_and_its_outcome_is_unknown(backend: Backend) -> None:
    held = Held()
    order = backend.order(does={"b": held})
    task = await started(order, held)
    await order.cancel("too late", actor="owner@example.com")
    results = await within(task)
    assert (seen(order), order.ledger) == (("cancelled", ["a", "b!"]), ["a", "b"])
    assert (results[-1].error, results[-1].step) == ("step_interrupted", "b")
    assert "its outcome is unknown" in str(results[-1].message)
    assert (await kinds(order))[-4:] == ["StepStarted", "CancelRequested", "StepInterrupted", "WorkflowCancelled"]
    (asked,) = [event for event in await events(order) if isinstance(event, CancelRequested)]
    assert (asked.actor, asked.reason) == ("owner@example.com", "too late")
    assert task.cancelling() == 0


async def test_a_cancel_undoes_a_step_of_unknown_outcome_which_can_see_that_it_is_unknown(backend: Backend) -> None:
    held = Held()
    unknown: list[tuple[str, bool]] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        unknown.append((name, workflow.step_context.outcome_unknown))
        return WorkflowResult(True, name)

    order = backend.order(does={"b": held, "rollback_a": look, "rollback_b": look})
    order.configure(rollback_on_cancel=True)
    task = await started(order, held)
    await order.cancel()
    await within(task)
    assert seen(order) == ("cancelled", ["a", "b!", "rollback_b", "rollback_a"])
    assert unknown == [("rollback_b", True), ("rollback_a", False)]
    assert order.rollback_status == "done"


async def test_cancel_without_rollback_on_cancel_undoes_nothing(backend: Backend) -> None:
    held = Held()
    order = backend.order(does={"b": held})
    task = await started(order, held)
    await order.cancel()
    await within(task)
    assert (order.ledger, order.rollback_status) == (["a", "b"], "none")


async def test_a_step_that_finishes_anyway_has_its_result_recorded_and_the_cancel_applies(backend: Backend) -> None:
    running = asyncio.Event()

    async def finishes(workflow: Order, name: str) -> WorkflowResult:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return WorkflowResult(True, name, {"finished": True})
        raise AssertionError

    order = backend.order(does={"b": finishes})
    order.configure(rollback_on_cancel=True)
    task = asyncio.create_task(order.execute())
    await within(running.wait())
    await order.cancel()
    await within(task)
    assert seen(order) == ("cancelled", ["a", "b", "rollback_b", "rollback_a"])
    assert order.results[1].data == {"finished": True}
    assert task.cancelling() == 0


async def test_a_step_that_swallows_the_cancel_is_waited_for_and_the_next_one_does_not_start(backend: Backend) -> None:
    running, go = asyncio.Event(), asyncio.Event()

    async def swallows(workflow: Order, name: str) -> WorkflowResult:
        running.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                swallowed.set()
        return WorkflowResult(True, name)

    swallowed = asyncio.Event()
    order = backend.order(does={"b": swallows})
    task = asyncio.create_task(order.execute())
    await within(running.wait())
    await order.cancel()
    await within(swallowed.wait())
    assert not task.done()
    assert order.status is WorkflowStatus.RUNNING
    go.set()
    await within(task)
    assert (seen(order), order.ledger) == (("cancelled", ["a", "b"]), ["a", "b"])


async def test_a_step_that_needs_the_second_interrupt_gets_it_after_the_grace(backend: Backend) -> None:
    """Nothing is undone beside a running step."""
    running = asyncio.Event()
    interrupts: list[list[str]] = []

    async def stubborn(workflow: Order, name: str) -> WorkflowResult:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            interrupts.append(list(workflow.ledger))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            interrupts.append(list(workflow.ledger))
            raise
        raise AssertionError

    order = backend.order(does={"b": stubborn})
    order.configure(rollback_on_cancel=True)
    order.runtime = Runtime(cancel_grace_seconds=0.01)
    task = asyncio.create_task(order.execute())
    await within(running.wait())
    await order.cancel()
    await within(task)
    assert interrupts == [["a", "b"], ["a", "b"]]
    assert seen(order) == ("cancelled", ["a", "b!", "rollback_b", "rollback_a"])
    assert task.cancelling() == 0


async def test_a_step_that_fails_because_of_the_cancel_ends_the_run_cancelled(backend: Backend) -> None:
    """The cancel was recorded first: journal order decides."""
    running = asyncio.Event()

    async def breaks(workflow: Order, name: str) -> WorkflowResult:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("connection reset") from None
        raise AssertionError

    order = backend.order(does={"b": breaks})
    task = asyncio.create_task(order.execute())
    await within(running.wait())
    await order.cancel()
    await within(task)
    assert (seen(order), order.results[-1].error) == (("cancelled", ["a", "b!"]), "step_execution_error")
    with pytest.raises(WorkflowExecutionError, match="cannot be retried"):
        await order.retry()


async def test_a_step_that_cancels_its_own_run_ends_by_itself_first(backend: Backend) -> None:
    order = backend.order(does={"b": cancels()})
    order.configure(rollback_on_cancel=True)
    await within(order.execute())
    assert seen(order) == ("cancelled", ["a", "b", "rollback_b", "rollback_a"])


async def test_cancel_from_a_task_of_the_step_interrupts_it(backend: Backend) -> None:
    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        task = asyncio.create_task(workflow.cancel())
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.shield(task)
        raise AssertionError

    order = backend.order(does={"b": behaviour})
    await within(order.execute())
    assert seen(order) == ("cancelled", ["a", "b!"])


async def test_the_request_is_recorded_first(store: Store) -> None:
    held = Held()
    order = Backend(store).order(["a"], does={"a": held})
    task = await started(order, held)
    await order.cancel()
    assert (await kinds(order))[-1] == "CancelRequested"
    assert not task.done()
    await within(task)


async def test_a_cancel_whose_answer_is_slow_does_not_interrupt_the_rollback_that_it_led_to(store: Store) -> None:
    """The driver may hear of it by its own next append, before the caller does."""
    undoing = Held()

    class Slow(Wrapper):
        async def append(self, workflow_id: str, records: Any, **how: Any) -> None:
            await super().append(workflow_id, records, **how)
            if records[0].kind == "cancel_requested":
                held.go.set()
                await undoing.running.wait()

    held = Held()
    order = Order("order-1", ["a", "b"], persistence=Slow(store), does={"b": held, "rollback_b": undoing})
    order.configure(rollback_on_cancel=True)
    task = await started(order, held)
    await within(order.cancel())
    undoing.go.set()
    await within(task)
    assert seen(order) == ("cancelled", ["a", "b", "rollback_b", "rollback_a"])
    assert order.ledger == ["a", "b", "rollback_b", "rollback_a"]


async def test_cancel_from_another_object_is_heard_by_the_heartbeat(store: Store) -> None:
    held = Held()
    order = Backend(store).order(does={"b": held})
    task = await started(order, held)
    stranger = await Workflow.load("order-1", store)
    await stranger.cancel(actor="owner@example.com")
    assert stranger.status is WorkflowStatus.RUNNING
    await within(task)
    assert (seen(order), order.ledger) == (("cancelled", ["a", "b!"]), ["a", "b"])


async def test_cancel_from_another_object_between_steps_is_heard_by_the_next_append(store: Store) -> None:
    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        await (await Workflow.load("order-1", store)).cancel()
        return WorkflowResult(True, name)

    order = Backend(store).order(does={"b": behaviour})
    await within(order.execute())
    assert (seen(order), order.ledger) == (("cancelled", ["a", "b"]), ["a", "b"])
    assert (await kinds(order))[-3:] == ["CancelRequested", "StepSucceeded", "WorkflowCancelled"]


DRIVER = """
    import asyncio, sys
    from dotmac_workflows import SQLitePersistence, Workflow, WorkflowResult

    class Slow(Workflow):
        async def execute_step(self, step):
            if step == "b":
                print("running", flush=True)
                await asyncio.Event().wait()
            return WorkflowResult(True, step)

    async def main():
        async with SQLitePersistence(sys.argv[1]) as store:
            slow = Slow("order-1", ["a", "b", "c"], persistence=store)
            await slow.execute()
            print(slow.status, [r.step for r in slow.results], slow.results[-1].error, flush=True)

    asyncio.run(main())
"""


async def test_cancel_from_another_process_is_heard_by_the_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "journals.db"
    with process(DRIVER, path) as (driver, line):
        assert await within(line()) == "running\n"
        async with SQLitePersistence(path) as store:
            stranger = await Workflow.load("order-1", store)
            await stranger.cancel("from outside", actor="owner@example.com")
            assert await within(line()) == "cancelled ['a', 'b'] step_interrupted\n"
            assert await asyncio.to_thread(driver.wait) == 0
            loaded = await Workflow.load("order-1", store)
            assert (seen(loaded), await store.lease("order-1")) == (("cancelled", ["a", "b!"]), None)


async def test_cancel_during_a_rollback_is_refused(backend: Backend) -> None:
    refused: list[str] = []

    async def behaviour(workflow: Order, name: str) -> WorkflowResult:
        try:
            await workflow.cancel()
        except WorkflowExecutionError as error:
            refused.append(str(error))
        return WorkflowResult(True, name)

    order = backend.order(["a", "b"], does={"b": fails(), "rollback_a": behaviour})
    await within(order.execute())
    assert refused == [
        "Workflow 'order-1' cannot be cancelled; it is running. It is rolling back; wait for that to end."
    ]
    assert (seen(order), order.rollback_status) == (("failed", ["a", "b!", "rollback_a"]), "done")


async def test_cancel_of_a_run_that_ended_is_refused(backend: Backend) -> None:
    order = backend.order()
    await order.execute()
    with pytest.raises(WorkflowExecutionError, match="cannot be cancelled; it is completed"):
        await order.cancel()
    failed = backend.order(workflow_id="order-2", does={"b": fails()})
    await failed.execute()
    with pytest.raises(WorkflowExecutionError, match="cannot be cancelled; it is failed"):
        await failed.cancel()
    assert seen(order) == ("completed", ["a", "b", "c"])


async def test_cancel_twice_by_the_same_actor_is_answered_and_anybody_else_is_told(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    first = await order.cancel(actor="owner@example.com")
    assert await order.cancel(actor="owner@example.com") == first
    for actor in ("lead@example.com", None):
        with pytest.raises(AlreadyDecidedError, match=r"was cancelled already, by owner@example\.com at") as caught:
            await order.cancel(actor=actor)
        assert (caught.value.verdict, caught.value.actor) == ("cancelled", "owner@example.com")
        assert caught.value.decided_at is not None
    assert (await kinds(order)).count("CancelRequested") == 1


async def test_two_cancels_without_an_actor_are_never_the_same_actors(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await order.cancel()
    with pytest.raises(AlreadyDecidedError, match="by somebody who gave no name"):
        await order.cancel()


async def test_cancel_of_a_rejected_run_that_nobody_ended_yet_is_refused(backend: Backend) -> None:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await order.reject()
    with pytest.raises(WorkflowExecutionError, match=r"It was rejected and ends cancelled; resume\(\)"):
        await order.cancel()


async def test_cancel_of_a_run_that_a_crash_left_ends_it_and_the_step_left_is_unknown(store: Store) -> None:
    unknown: list[tuple[str, bool]] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        unknown.append((name, workflow.step_context.outcome_unknown))
        return WorkflowResult(True, name)

    def make(failing: Any) -> Order:
        order = Order("order-1", ["a", "b"], persistence=failing, does={"rollback_a": look, "rollback_b": look})
        order.configure(rollback_on_cancel=True)
        return order

    left = await crashed_after(store, 2, make)
    assert left.ledger == ["a"]
    again = await Order.load("order-1", store, does=left.does, ledger=left.ledger)
    await again.cancel()
    assert seen(again) == ("cancelled", ["a", "b!", "rollback_b", "rollback_a"])
    assert again.results[1].error == "step_interrupted"
    assert unknown == [("rollback_b", True), ("rollback_a", False)]


async def test_cancel_through_the_base_class_is_carried_out_by_who_has_the_code(store: Store) -> None:
    order = Backend(store).order(does={"a": pauses()})
    await order.execute()
    stranger = await Workflow.load("order-1", store)
    await stranger.cancel()
    assert stranger.status is WorkflowStatus.RUNNING
    await order.resume()
    assert seen(order) == ("cancelled", ["a"])


async def test_a_cancel_of_the_driving_task_beside_a_cancel_of_the_run_goes_through(backend: Backend) -> None:
    """Shutting down is not cancelling: the task's own cancellation is not mistaken for the run's."""
    held = Held()
    order = backend.order(does={"b": held})
    task = await started(order, held)
    await order.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    again = await backend.again(order)
    await again.resume()
    assert again.status is WorkflowStatus.CANCELLED
    assert again.ledger == ["a", "b"]


async def test_a_second_run_of_the_same_object_is_not_touched_by_an_earlier_interrupt(backend: Backend) -> None:
    """The grace timer of one step never reaches a later one."""
    held = Held()
    order = backend.order(["a"], does={"a": held})
    order.runtime = Runtime(cancel_grace_seconds=0.01)
    task = await started(order, held)
    await order.cancel()
    await within(task)
    other = backend.order(["a"], workflow_id="order-2", does={"a": InTurn(None)})
    await within(other.execute())
    assert (seen(order), seen(other)) == (("cancelled", ["a!"]), ("completed", ["a"]))


@pytest.mark.parametrize("callback", ["on_step_started", "on_step_completed"])
async def test_cancel_from_a_callback_interrupts_the_step_that_was_about_to_run(
    backend: Backend, callback: str
) -> None:
    order = backend.order(does={"b": Held()})

    async def cancel(told: str | WorkflowResult) -> None:
        if told == "b" or getattr(told, "step", None) == "a":
            await order.cancel()

    setattr(order, callback, cancel)
    await within(order.execute())
    assert order.status is WorkflowStatus.CANCELLED
    assert order.ledger[:1] == ["a"]
    assert "c" not in order.ledger
