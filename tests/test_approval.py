"""Approvals: what a gate holds back, who may decide it, and who is told what."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from dotmac_workflows import (
    AlreadyDecidedError,
    ResultNotSerializableError,
    Runtime,
    Workflow,
    WorkflowDefinitionError,
    WorkflowExecutionError,
    WorkflowResult,
    WorkflowStatus,
)
from dotmac_workflows._core.events import Approved, CancelRequested, Rejected
from dotmac_workflows.testing import FakeClock
from workflows import (
    ABC,
    Backend,
    Failing,
    Held,
    Order,
    Store,
    asks,
    crashed_after,
    events,
    kinds,
    nothing,
    seen,
    steps_of,
    within,
)


async def waiting(backend: Backend, *gates: str, steps: tuple[str, ...] = ABC, **settings: Any) -> Order:
    """Return an order that waits at its first gate; each gate is a step that asks."""
    order = backend.order(steps, does=dict.fromkeys(gates or ("a",), asks))
    order.configure(require_approval=True, **settings)
    await order.execute()
    assert order.status is WorkflowStatus.WAITING_APPROVAL
    return order


async def test_a_gate_holds_the_next_step_back_and_the_gated_step_has_run(backend: Backend) -> None:
    order = await waiting(backend, "b")
    assert (seen(order), order.ledger) == (("waiting_approval", ["a", "b"]), ["a", "b"])
    assert (order.is_waiting_approval, order.pending_approval_step, order.current_step_index) == (True, "b", 1)
    assert await kinds(order) == [
        "WorkflowStarted",
        *["StepStarted", "StepSucceeded"] * 2,
        "ApprovalRequested",
    ]


async def test_current_step_index_stays_on_the_gated_step_until_the_decision(backend: Backend) -> None:
    order = await waiting(backend, "b")
    assert order.current_step_index == 1
    await order.approve()
    assert order.current_step_index == 2


async def test_approve_and_continue_keeps_the_data_and_runs_on(backend: Backend) -> None:
    order = await waiting(backend)
    shown: list[object] = []

    def look(workflow: Order, name: str) -> WorkflowResult:
        shown.append(workflow.approval_data)
        return WorkflowResult(True, name)

    order.does = {"b": look}
    results = await order.approve_and_continue({"limit": 500}, actor="lead@example.com")
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])
    assert (results, shown) == (order.results, [{"limit": 500}])
    assert (order.approval_data, order.pending_approval_step) == ({"limit": 500}, None)
    (approved,) = [event for event in await events(order) if isinstance(event, Approved)]
    assert (approved.actor, approved.data) == ("lead@example.com", {"limit": 500})


async def test_approving_without_data_keeps_an_empty_dictionary(backend: Backend) -> None:
    order = await waiting(backend)
    await order.approve_and_continue()
    assert (order.approval_data, order.status) == ({}, WorkflowStatus.COMPLETED)


async def test_a_gate_at_the_last_step_holds_the_end_back(backend: Backend) -> None:
    order = await waiting(backend, "c")
    assert (seen(order), order.current_step_index) == (("waiting_approval", ["a", "b", "c"]), 2)
    await order.approve_and_continue()
    assert (seen(order), order.current_step_index) == (("completed", ["a", "b", "c"]), 3)


async def test_several_gates_are_decided_one_by_one(backend: Backend) -> None:
    order = await waiting(backend, "a", "b")
    await order.approve_and_continue({"first": 1})
    assert (seen(order), order.approval_data) == (("waiting_approval", ["a", "b"]), {"first": 1})
    await order.approve_and_continue({"second": 2})
    assert (seen(order), order.approval_data) == (("completed", ["a", "b", "c"]), {"second": 2})


async def test_reject_and_cancel_appends_one_result_and_undoes_nothing(backend: Backend) -> None:
    order = await waiting(backend, "b")
    results = await order.reject_and_cancel("too dear", actor="lead@example.com")
    assert (seen(order), order.ledger) == (("cancelled", ["a", "b", "b!"]), ["a", "b"])
    assert results == order.results
    assert (results[-1].error, results[-1].data) == ("approval_rejected", {"reason": "too dear"})
    assert (order.rollback_status, order.pending_approval_step) == ("none", None)
    (rejected,) = [event for event in await events(order) if isinstance(event, Rejected)]
    assert (rejected.actor, rejected.reason) == ("lead@example.com", "too dear")


async def test_rejecting_undoes_only_with_rollback_on_cancel(backend: Backend) -> None:
    order = await waiting(backend, "b", rollback_on_cancel=True)
    await order.reject_and_cancel()
    assert seen(order) == ("cancelled", ["a", "b", "b!", "rollback_b", "rollback_a"])
    assert (order.ledger, order.rollback_status) == (["a", "b", "rollback_b", "rollback_a"], "done")


async def test_rejecting_does_not_undo_for_rollback_on_failure(backend: Backend) -> None:
    order = await waiting(backend, "b", rollback_on_failure=True, rollback_on_cancel=False)
    await order.reject_and_cancel()
    assert (order.ledger, order.rollback_status) == (["a", "b"], "none")


async def test_cancel_at_a_gate_ends_the_run_and_follows_the_same_switch(backend: Backend) -> None:
    order = await waiting(backend, "b", rollback_on_cancel=True)
    await order.cancel("changed our mind", actor="owner@example.com")
    assert seen(order) == ("cancelled", ["a", "b", "rollback_b", "rollback_a"])
    (cancelled,) = [event for event in await events(order) if isinstance(event, CancelRequested)]
    assert (cancelled.actor, cancelled.reason) == ("owner@example.com", "changed our mind")


async def test_cancel_at_a_gate_without_the_switch_undoes_nothing(backend: Backend) -> None:
    order = await waiting(backend, "b")
    await order.cancel()
    assert (seen(order), order.ledger, order.pending_approval_step) == (("cancelled", ["a", "b"]), ["a", "b"], None)


async def test_approve_records_the_decision_and_runs_nothing_then_resume_carries_on(backend: Backend) -> None:
    order = await waiting(backend)
    await order.approve({"n": 1}, actor="lead@example.com")
    assert (order.status, order.ledger, order.approval_data) == (WorkflowStatus.RUNNING, ["a"], {"n": 1})
    again = await backend.again(order)
    await again.resume()
    assert (seen(again), again.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


async def test_reject_records_the_decision_and_runs_nothing_then_resume_ends_it(backend: Backend) -> None:
    order = await waiting(backend, rollback_on_cancel=True)
    await order.reject("no", actor="lead@example.com")
    assert (seen(order), order.ledger) == (("running", ["a", "a!"]), ["a"])
    again = await backend.again(order)
    await again.resume()
    assert (seen(again), again.ledger) == (("cancelled", ["a", "a!", "rollback_a"]), ["a", "rollback_a"])


async def test_execute_carries_a_recorded_decision_on_too(backend: Backend) -> None:
    order = await waiting(backend)
    await order.approve()
    await (await backend.again(order)).execute()
    assert order.ledger == ["a", "b", "c"]


async def test_a_run_that_does_not_wait_is_not_waiting_for_approval(backend: Backend) -> None:
    order = backend.order()
    for verb in (order.approve_and_continue, order.reject_and_cancel, order.approve, order.reject):
        with pytest.raises(WorkflowExecutionError, match=r"'order-1' is not waiting for approval; it is pending"):
            await verb()
    await order.execute()
    for verb in (order.approve_and_continue, order.reject_and_cancel, order.approve, order.reject):
        with pytest.raises(WorkflowExecutionError, match=r"'order-1' is not waiting for approval; it is completed"):
            await verb()
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


# Who wins.


async def test_the_same_actor_with_the_same_verdict_is_answered_with_what_is_recorded(backend: Backend) -> None:
    order = await waiting(backend)
    first = await order.approve_and_continue({"n": 1}, actor="lead@example.com")
    before = await kinds(order, leases=True)
    assert await order.approve_and_continue({"n": 2}, actor="lead@example.com") == first
    assert await order.approve({"n": 3}, actor="lead@example.com") == first
    assert await kinds(order, leases=True) == before
    assert order.approval_data == {"n": 1}


async def test_a_rejection_by_the_same_actor_twice_is_answered(backend: Backend) -> None:
    order = await waiting(backend)
    first = await order.reject_and_cancel("no", actor="lead@example.com")
    assert await order.reject_and_cancel("still no", actor="lead@example.com") == first
    assert await order.reject(actor="lead@example.com") == first
    assert seen(order) == ("cancelled", ["a", "a!"])


@pytest.mark.parametrize(
    ("first", "second"),
    [("lead@example.com", "owner@example.com"), (None, None), ("lead@example.com", None), (None, "lead@example.com")],
)
async def test_a_second_decision_by_anybody_else_is_told_who_when_and_what(
    backend: Backend, first: str | None, second: str | None
) -> None:
    """Two decisions without an actor are never the same actor's."""
    order = await waiting(backend, "b")
    order.runtime = Runtime(clock=FakeClock(datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)))
    await order.approve_and_continue(actor=first)
    before = await kinds(order, leases=True)
    who = first or "somebody who gave no name"
    for verb in (order.approve_and_continue, order.reject_and_cancel, order.approve, order.reject):
        with pytest.raises(
            AlreadyDecidedError,
            match=rf"'order-1' is not waiting for approval of step 'b': it was approved by {who} at "
            r"2026-03-01 12:30:05Z",
        ) as caught:
            await verb(actor=second)
        error = caught.value
        assert (error.workflow_id, error.step, error.verdict, error.actor) == ("order-1", "b", "approved", first)
        assert error.decided_at == datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)
    assert await kinds(order, leases=True) == before


async def test_the_same_actor_with_the_other_verdict_is_told_so(backend: Backend) -> None:
    order = await waiting(backend)
    await order.approve(actor="lead@example.com")
    with pytest.raises(AlreadyDecidedError, match=r"it was approved by lead@example.com"):
        await order.reject_and_cancel(actor="lead@example.com")
    assert order.status is WorkflowStatus.RUNNING


async def test_a_decision_after_a_cancel_at_the_gate_is_told_that_it_was_cancelled(backend: Backend) -> None:
    order = await waiting(backend)
    await order.cancel(actor="owner@example.com")
    with pytest.raises(AlreadyDecidedError, match=r"it was cancelled by owner@example.com") as caught:
        await order.approve_and_continue(actor="lead@example.com")
    assert (caught.value.verdict, order.ledger) == ("cancelled", ["a"])


async def test_exactly_one_of_approve_reject_and_cancel_at_once_wins_and_the_others_are_told(store: Store) -> None:
    """Invariant 8: journal order decides."""
    backend = Backend(store)
    verbs = ["approve_and_continue", "reject_and_cancel", "cancel", "approve", "reject"]
    for shift in range(len(verbs)):
        await store.delete("order-1")
        ledger = (await waiting(backend)).ledger
        objects = [await Order.load("order-1", store, ledger=ledger) for _ in verbs]
        turns = verbs[shift:] + verbs[:shift]
        answers = await within(
            asyncio.gather(
                *(
                    getattr(order, verb)(actor=f"actor-{n}")
                    for n, (verb, order) in enumerate(zip(turns, objects, strict=True))
                ),
                return_exceptions=True,
            )
        )
        journal = [
            event for event in await events(objects[0]) if isinstance(event, Approved | Rejected | CancelRequested)
        ]
        gate = journal[0]
        winner = int(str(gate.actor).removeprefix("actor-"))
        assert isinstance(answers[winner], list)
        losers = [answer for n, answer in enumerate(answers) if n != winner]
        final = await Order.load("order-1", store, ledger=ledger)
        if isinstance(gate, Approved):
            # A cancel may still come while the approved run goes on: that is another decision than the gate's.
            assert [type(event) for event in journal[1:]] in ([], [CancelRequested])
        else:
            assert len(journal) == 1
            assert ledger == ["a"]
        told = [answer for answer in losers if isinstance(answer, AlreadyDecidedError)]
        assert len(told) >= 3
        assert {(answer.actor, answer.decided_at is not None) for answer in told} >= {(gate.actor, True)}
        assert final.status is not WorkflowStatus.WAITING_APPROVAL


async def test_approve_and_reject_by_two_objects_at_once_one_wins_the_other_is_told(store: Store) -> None:
    await waiting(Backend(store))
    one, two = await Order.load("order-1", store), await Order.load("order-1", store)
    answers = await within(
        asyncio.gather(
            one.approve_and_continue(actor="lead@example.com"),
            two.reject_and_cancel("no", actor="owner@example.com"),
            return_exceptions=True,
        )
    )
    decisions = [event for event in await events(one) if isinstance(event, Approved | Rejected)]
    assert len(decisions) == 1
    won = 0 if isinstance(decisions[0], Approved) else 1
    assert isinstance(answers[won], list)
    error = answers[1 - won]
    assert isinstance(error, AlreadyDecidedError)
    assert (error.actor, error.verdict) == [("lead@example.com", "approved"), ("owner@example.com", "rejected")][won]
    assert error.decided_at is not None
    assert (
        seen(await Order.load("order-1", store)) == ([("completed", ["a", "b", "c"]), ("cancelled", ["a", "a!"])][won])
    )


@pytest.mark.parametrize("verb", ["approve_and_continue", "reject_and_cancel", "approve", "reject"])
async def test_an_approver_who_loaded_gate_1_does_not_approve_gate_2(store: Store, verb: str) -> None:
    """The gate that a caller saw is the gate that is decided."""
    order = await waiting(Backend(store), "a", "b")
    late = await Order.load("order-1", store, does=order.does)
    await order.approve_and_continue(actor="lead@example.com")
    assert order.pending_approval_step == "b"
    with pytest.raises(AlreadyDecidedError, match=r"of step 'a': it was approved by lead@example.com"):
        await getattr(late, verb)(actor="owner@example.com")
    assert seen(await Order.load("order-1", store)) == ("waiting_approval", ["a", "b"])
    assert order.ledger == ["a", "b"]


async def test_a_late_decision_is_told_of_the_gate_that_its_caller_saw_not_of_a_later_one(store: Store) -> None:
    order = await waiting(Backend(store), "a", "b")
    late = await Order.load("order-1", store, does=order.does)
    await order.approve_and_continue(actor="lead@example.com")
    await order.reject_and_cancel("no", actor="owner@example.com")
    with pytest.raises(AlreadyDecidedError, match=r"of step 'a': it was approved by lead@example\.com") as caught:
        await late.approve_and_continue(actor="third@example.com")
    assert (caught.value.step, caught.value.actor, caught.value.verdict) == ("a", "lead@example.com", "approved")


async def test_the_same_verdict_again_is_answered_also_while_somebody_drives_the_run(store: Store) -> None:
    held = Held()
    order = await waiting(Backend(store))
    order.does = {"b": held}
    again = await Order.load("order-1", store)
    task = asyncio.create_task(order.approve_and_continue(actor="lead@example.com"))
    await within(held.running.wait())
    assert steps_of(await again.approve_and_continue(actor="lead@example.com")) == ["a"]
    assert again.status is WorkflowStatus.RUNNING
    held.go.set()
    await within(task)
    assert (seen(order), order.ledger) == (("completed", ["a", "b", "c"]), ["a", "b", "c"])


async def test_the_same_actor_who_saw_gate_1_is_answered_and_gate_2_stays_closed(store: Store) -> None:
    order = await waiting(Backend(store), "a", "b")
    late = await Order.load("order-1", store, does=order.does)
    await order.approve_and_continue(actor="lead@example.com")
    await late.approve_and_continue(actor="lead@example.com")
    loaded = await Order.load("order-1", store)
    assert (seen(loaded), loaded.pending_approval_step) == (("waiting_approval", ["a", "b"]), "b")


async def test_who_has_been_told_sees_the_new_gate_and_may_decide_that_one(store: Store) -> None:
    order = await waiting(Backend(store), "a", "b")
    late = await Order.load("order-1", store, does=order.does, ledger=order.ledger)
    await order.approve_and_continue(actor="lead@example.com")
    with pytest.raises(AlreadyDecidedError):
        await late.approve_and_continue(actor="owner@example.com")
    assert late.pending_approval_step == "b"
    await late.approve_and_continue(actor="owner@example.com")
    assert seen(late) == ("completed", ["a", "b", "c"])


async def test_the_base_class_approves_any_workflow_without_its_code(store: Store) -> None:
    order = await waiting(Backend(store))
    approver = await Workflow.load("order-1", store)
    await approver.approve({"n": 1}, actor="lead@example.com")
    with pytest.raises(WorkflowDefinitionError, match="was started as a Order"):
        await approver.resume()
    await order.resume()
    assert (seen(order), order.approval_data) == (("completed", ["a", "b", "c"]), {"n": 1})


async def test_no_step_behind_a_gate_starts_without_a_recorded_approval(store: Store) -> None:
    """Invariant 9: not by any verb but an approval, and not after a crash at any append."""
    order = await waiting(Backend(store))
    for verb in ("execute", "resume"):
        await getattr(await Order.load("order-1", store, ledger=order.ledger), verb)()
    for verb in ("pause", "retry", "retry_rollback"):
        with pytest.raises(WorkflowExecutionError):
            await getattr(await Order.load("order-1", store, ledger=order.ledger), verb)()
    assert order.ledger == ["a"]
    assert seen(await Order.load("order-1", store)) == ("waiting_approval", ["a"])


@pytest.mark.parametrize("after", [False, True])
async def test_an_approval_whose_append_fails_starts_nothing_unless_it_is_recorded(store: Store, after: bool) -> None:
    """Invariant 9."""
    order = await waiting(Backend(store))
    failing = Failing(store, at=1, after=after, error=OSError("gone"))
    approver = await Order.load("order-1", failing, ledger=order.ledger)
    with pytest.raises(OSError, match="gone"):
        await approver.approve_and_continue(actor="lead@example.com")
    assert order.ledger == ["a"]
    recorded = await Order.load("order-1", store, ledger=order.ledger)
    assert recorded.is_waiting_approval is not after
    await recorded.resume()
    assert order.ledger == (["a", "b", "c"] if after else ["a"])


async def test_a_gate_reached_just_before_a_crash_is_still_a_gate(store: Store) -> None:
    def make(failing: Any) -> Order:
        order = Order("order-1", ABC, persistence=failing, does={"a": asks})
        order.configure(require_approval=True)
        return order

    left = await crashed_after(store, 2, make)
    again = await Order.load("order-1", store, ledger=left.ledger)
    await again.execute()
    assert (seen(again), again.ledger) == (("waiting_approval", ["a"]), ["a"])
    assert await store.lease("order-1") is None


async def test_a_gate_without_a_rollback_step_is_skipped_when_rejected(backend: Backend) -> None:
    order = await waiting(backend, rollback_on_cancel=True)
    order.does = {"rollback_a": nothing}
    await order.reject_and_cancel()
    assert (seen(order), order.rollback_status) == (("cancelled", ["a", "a!", "rollback_a"]), "done")
    assert order.results[-1].message == "Step 'a' has no rollback: nothing was undone."


async def test_approval_data_that_cannot_be_stored_is_refused_and_the_gate_stays(store: Store) -> None:
    order = await waiting(Backend(store))
    with pytest.raises(ResultNotSerializableError, match=r"approval_data\.signature") as caught:
        await order.approve_and_continue({"signature": object()})
    assert (caught.value.path, caught.value.workflow_id) == ("approval_data.signature", "order-1")
    assert (seen(order), order.ledger) == (("waiting_approval", ["a"]), ["a"])
    await order.approve_and_continue({"signature": "s"})
    assert seen(order) == ("completed", ["a", "b", "c"])
