"""Callbacks: told after the commit, by the driver, at most once, and never changing an outcome."""

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from dotmac_workflows import PersistenceError, Workflow, WorkflowResult, WorkflowStatus
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.state import RunState, replay
from dotmac_workflows._run import callbacks
from workflows import Backend, Failing, Held, Order, Store, Told, asks, crashed_after, fails, kinds, seen, within

NAMES = (
    "on_step_started",
    "on_step_completed",
    "on_approval_required",
    "on_rollback_started",
    "on_rollback_completed",
    "on_workflow_completed",
    "on_workflow_failed",
    "on_workflow_cancelled",
)


def listen(order: Workflow, *, asynchronous: bool) -> list[tuple[str, Any]]:
    """Set every callback on the object, and return the list of what they will be told."""
    told: list[tuple[str, Any]] = []

    def listener(name: str) -> Any:
        def callback(what: Any) -> None:
            told.append((name, what))

        async def later(what: Any) -> None:
            await asyncio.sleep(0)
            told.append((name, what))

        return later if asynchronous else callback

    for name in NAMES:
        setattr(order, name, listener(name))
    return told


async def whole_life(order: Order) -> None:
    """Let an order meet everything that there is a callback for; its steps are a (gated), b (fails)."""
    order.configure(require_approval=True, rollback_on_cancel=True)
    await order.execute()
    await order.approve_and_continue()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_callbacks_are_attributes_sync_or_async(backend: Backend, asynchronous: bool) -> None:
    order = backend.order(["a", "b"], does={"a": asks, "b": fails()})
    told = listen(order, asynchronous=asynchronous)
    await whole_life(order)
    a, b, undone = order.results
    assert told == [
        ("on_step_started", "a"),
        ("on_step_completed", a),
        ("on_approval_required", "a"),
        ("on_step_started", "b"),
        ("on_step_completed", b),
        ("on_rollback_started", "b"),
        ("on_rollback_completed", [a, b, undone]),
        ("on_workflow_failed", [a, b, undone]),
    ]


async def test_callbacks_are_methods_of_the_subclass(backend: Backend) -> None:
    order = backend.told(["a", "b"], does={"a": asks, "b": fails()})
    await whole_life(order)
    assert order.told == [
        ("step_started", "a"),
        ("step_completed", ("a", True)),
        ("approval_required", "a"),
        ("step_started", "b"),
        ("step_completed", ("b", False)),
        ("rollback_started", "b"),
        ("rollback_completed", ["a", "b!", "rollback_a"]),
        ("workflow_failed", ["a", "b!", "rollback_a"]),
    ]


async def test_on_workflow_completed_is_told_all_results(backend: Backend) -> None:
    order = backend.told(["a", "b"])
    await order.execute()
    assert order.told[-1] == ("workflow_completed", ["a", "b"])
    assert [name for name, _ in order.told].count("workflow_completed") == 1


async def test_on_workflow_cancelled_is_told_all_results_after_the_rollback(backend: Backend) -> None:
    order = backend.told(["a", "b"], does={"a": asks})
    order.configure(require_approval=True, rollback_on_cancel=True)
    await order.execute()
    await order.reject_and_cancel()
    assert order.told[-3:] == [
        ("rollback_started", "a"),
        ("rollback_completed", ["a", "a!", "rollback_a"]),
        ("workflow_cancelled", ["a", "a!", "rollback_a"]),
    ]


async def test_an_interrupted_step_is_told_as_completed_without_success(backend: Backend) -> None:
    held = Held()
    order = backend.told(["a"], does={"a": held})
    task = asyncio.create_task(order.execute())
    await within(held.running.wait())
    await order.cancel()
    await within(task)
    assert order.told == [
        ("step_started", "a"),
        ("step_completed", ("a", False)),
        ("workflow_cancelled", ["a!"]),
    ]


async def test_an_incomplete_rollback_is_told_as_completed_and_its_status_says_so(backend: Backend) -> None:
    order = backend.told(["a", "b"], does={"b": fails(), "rollback_a": fails()})
    statuses: list[str] = []
    order.on_rollback_completed = lambda results: statuses.append(order.rollback_status)  # type: ignore[method-assign]
    await order.execute()
    assert statuses == ["incomplete"]


async def test_what_a_callback_sees_is_committed(store: Store) -> None:
    order = Backend(store).order(["a", "b"])
    seen_in_store: list[tuple[object, list[str]]] = []

    async def look(told: object) -> None:
        seen_in_store.append((told, (await kinds(await Workflow.load("order-1", store)))[-1:]))

    order.on_step_started = look
    order.on_workflow_completed = look
    await order.execute()
    assert seen_in_store == [
        ("a", ["StepStarted"]),
        ("b", ["StepStarted"]),
        (order.results, ["WorkflowCompleted"]),
    ]


async def test_a_callback_is_not_told_of_what_could_not_be_committed(store: Store) -> None:
    failing = Failing(store, at=2, error=PersistenceError("disk full"))
    order = Told("order-1", ["a", "b"], persistence=failing)
    with pytest.raises(PersistenceError):
        await order.execute()
    assert order.told == [("step_started", "a")]


async def test_callbacks_are_told_at_most_once_over_a_crash(store: Store) -> None:
    """What the crashed process may or may not have told is not told again."""

    def make(failing: Any) -> Told:
        return Told("order-1", ["a", "b"], persistence=failing)

    left = await crashed_after(store, 2, make)
    again = await Told.load("order-1", store)
    await again.resume()
    assert isinstance(left, Told)
    assert left.told == [("step_started", "a")]
    assert again.told == [
        ("step_started", "b"),
        ("step_completed", ("b", True)),
        ("workflow_completed", ["a", "b"]),
    ]


async def test_callbacks_are_told_in_the_process_that_drives_alone(store: Store) -> None:
    order = Backend(store).told(["a", "b"], does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    before = list(order.told)
    driver = await Told.load("order-1", store)
    await driver.approve_and_continue()
    await order.execute()
    assert order.told == before
    assert [name for name, _ in driver.told] == ["step_started", "step_completed", "workflow_completed"]


async def test_nothing_is_told_again_when_a_run_is_looked_at(backend: Backend) -> None:
    order = backend.told(["a"])
    await order.execute()
    before = list(order.told)
    await order.execute()
    await order.resume()
    assert order.told == before


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_callback_that_raises_is_logged_with_its_traceback_and_changes_nothing(
    backend: Backend, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Invariant 15."""

    def breaks(told: object) -> None:
        raise LookupError("no such mailbox")

    async def breaks_later(told: object) -> None:
        await asyncio.sleep(0)
        raise LookupError("no such mailbox")

    order = backend.order(["a", "b"], does={"a": asks, "b": fails()})
    for name in NAMES:
        setattr(order, name, breaks_later if asynchronous else breaks)
    await whole_life(order)
    assert (seen(order), order.rollback_status) == (("failed", ["a", "b!", "rollback_a"]), "done")
    plain = backend.order(["a", "b"], workflow_id="order-2", does=order.does)
    await whole_life(plain)
    assert (seen(plain), await kinds(plain)) == (seen(order), await kinds(order))
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record)["event"] for record in errors] == [
        "on_step_started",
        "on_step_completed",
        "on_approval_required",
        "on_step_started",
        "on_step_completed",
        "on_rollback_started",
        "on_rollback_completed",
        "on_workflow_failed",
    ]
    for record in errors:
        assert vars(record)["workflow_id"] == "order-1"
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], LookupError)


async def test_a_callback_that_raises_cancelled_error_of_its_own_changes_nothing(backend: Backend) -> None:
    """Invariant 15."""

    async def cancelled(told: object) -> None:
        inner = asyncio.create_task(asyncio.Event().wait())
        inner.cancel()
        await inner

    order = backend.order(["a", "b"])
    order.on_step_started = cancelled
    order.on_workflow_completed = cancelled
    await within(order.execute())
    assert seen(order) == ("completed", ["a", "b"])


async def test_a_callback_that_cancels_the_run_is_a_cancel_like_any_other(backend: Backend) -> None:
    order = backend.order()
    order.configure(rollback_on_cancel=True)

    async def cancel(result: WorkflowResult) -> None:
        if result.step == "a":
            await order.cancel(actor="watchdog")

    order.on_step_completed = cancel
    await within(order.execute())
    assert seen(order) == ("cancelled", ["a", "b!", "rollback_b", "rollback_a"])


async def test_a_callback_that_pauses_the_run_is_a_pause_like_any_other(backend: Backend) -> None:
    order = backend.order()

    async def pause(step: str) -> None:
        if step == "b":
            await order.pause()

    order.on_step_started = pause
    await within(order.execute())
    assert (seen(order), order.ledger) == (("paused", ["a", "b"]), ["a", "b"])


async def test_a_callback_that_changes_the_result_it_is_told_does_not_open_or_close_a_gate(backend: Backend) -> None:
    """Invariant 15."""

    def meddle(result: WorkflowResult) -> None:
        result.requires_approval = not result.requires_approval
        result.success = False

    order = backend.order(["a", "b", "c"], does={"b": asks})
    order.configure(require_approval=True)
    order.on_step_completed = meddle
    await order.execute()
    assert (order.status, order.ledger) == (WorkflowStatus.WAITING_APPROVAL, ["a", "b"])


async def test_a_callback_that_empties_the_list_it_is_told_empties_its_own(backend: Backend) -> None:
    order = backend.order(["a"])
    order.on_workflow_completed = lambda results: results.clear()
    await order.execute()
    assert seen(await backend.again(order)) == ("completed", ["a"])
    assert seen(order) == ("completed", ["a"])


async def test_a_callback_that_ends_the_process_ends_it_and_the_run_is_resumable(backend: Backend) -> None:
    order = backend.order(["a", "b"])

    def stop(step: str) -> None:
        if step == "b":
            raise SystemExit(3)

    order.on_step_started = stop
    with pytest.raises(SystemExit):
        await order.execute()
    again = await backend.again(order)
    again.on_step_started = None
    await again.resume()
    assert (seen(again), again.ledger) == (("completed", ["a", "b"]), ["a", "b"])


async def test_a_task_that_is_cancelled_in_a_callback_is_cancelled_and_the_run_is_resumable(backend: Backend) -> None:
    """Invariant 17."""
    order = backend.order(["a", "b"])
    waits = asyncio.Event()

    async def slow(step: str) -> None:
        waits.set()
        await asyncio.Event().wait()

    order.on_step_started = slow
    task = asyncio.create_task(order.execute())
    await within(waits.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await within(task)
    assert (seen(order), order.ledger) == (("running", []), [])
    order.on_step_started = None
    await order.resume()
    assert (seen(order), order.ledger) == (("completed", ["a", "b"]), ["a", "b"])


async def test_a_slow_callback_of_another_workflow_holds_nothing_up(store: Store) -> None:
    stuck, go = asyncio.Event(), asyncio.Event()

    async def slow(step: str) -> None:
        stuck.set()
        await go.wait()

    one, two = Backend(store).order(["a"]), Backend(store).order(["a"], workflow_id="order-2")
    one.on_step_started = slow
    task = asyncio.create_task(one.execute())
    await within(stuck.wait())
    await within(two.execute())
    go.set()
    await within(task)
    assert (seen(one), seen(two)) == (("completed", ["a"]), ("completed", ["a"]))


DONE, LEFT = WorkflowResult(True, "a"), WorkflowResult(True, "rollback_a")
STATE = replay("order-1", [ev.WorkflowStarted(1, "run", "Order", ("a",), ev.Settings(), {}, None)])


@pytest.mark.parametrize(
    ("event", "name", "step", "attempt"),
    [
        (ev.StepStarted(1, "a", 0, 1, 3), "on_step_started", "a", 3),
        (ev.StepSucceeded(1, DONE, False), "on_step_completed", "a", None),
        (ev.ApprovalRequested(1, "a"), "on_approval_required", "a", None),
        (ev.RollbackStarted(1, "a"), "on_rollback_started", "a", None),
        (ev.WorkflowCompleted(1), "on_workflow_completed", None, None),
    ],
)
async def test_a_callback_that_raises_is_logged_with_all_ids(
    event: ev.Event, name: str, step: str | None, attempt: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    error = LookupError("no such mailbox")

    def breaks(told: object) -> None:
        raise error

    await callbacks.call(breaks, event, STATE)
    (record,) = caplog.records
    assert record.getMessage() == f"Callback {name} of workflow 'order-1' raised LookupError; the workflow goes on."
    shown = vars(record)
    assert [shown[key] for key in ("workflow_id", "workflow_type", "event", "step", "attempt")] == [
        "order-1",
        "Order",
        name,
        step,
        attempt,
    ]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_a_callback_that_raises_before_there_is_a_plan_is_logged_without_its_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when it is told that a workflow is not valid."""

    def breaks(told: object) -> None:
        raise LookupError

    await callbacks.call(breaks, ev.WorkflowFailed(1), RunState("order-1"))
    (record,) = caplog.records
    assert (vars(record)["workflow_id"], vars(record)["workflow_type"]) == ("order-1", None)


async def test_a_callback_of_a_task_that_was_cancelled_before_may_raise_cancelled_error_of_its_own() -> None:
    def cancelled(told: object) -> None:
        raise asyncio.CancelledError

    async def called() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await callbacks.call(cancelled, ev.WorkflowCompleted(1), STATE)
        return "went on"

    task = asyncio.create_task(called())
    await asyncio.sleep(0)
    task.cancel()
    assert await within(task) == "went on"


async def test_where_there_is_no_task_a_cancelled_error_goes_through() -> None:
    """A coroutine that is driven by hand, in a callback of the loop."""
    ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def cancelled(told: object) -> None:
        raise asyncio.CancelledError

    def breaks(told: object) -> None:
        raise LookupError

    def drive(callback: Any) -> type[BaseException]:
        try:
            callbacks.call(callback, ev.WorkflowCompleted(1), STATE).send(None)
        except BaseException as error:
            return type(error)
        raise AssertionError

    asyncio.get_running_loop().call_soon(lambda: ended.set_result((drive(cancelled), drive(breaks))))
    assert await within(ended) == (asyncio.CancelledError, StopIteration)
