"""What each fact does to the state, whole; and what cannot follow is damage, said to the letter."""

from typing import Any

import pytest

from dotmac_workflows import WorkflowResult, WorkflowStatus
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Draft, Event, Settings, StepStarted
from dotmac_workflows._core.state import FailedRollback, GateDecision, Rollback, RunState, apply, replay
from dotmac_workflows.errors import JournalCorruptError
from journal_events import (
    ASKS,
    INCOMPLETE,
    JOURNALS,
    RUNNING,
    STEPS,
    TURNED,
    WAITING,
    WORKFLOW,
    done,
    failed,
    plan,
    undone,
)
from journal_events import ran as ran_events

PAID = done("pay")
ASKED = done("pay", gated=True)
DECLINED = failed("pack")
PAY, PACK = StepStarted(3, "pay", 0, 1, 1), StepStarted(5, "pack", 1, 1, 1)
OWNED: dict[str, Any] = {"owner": "host:7:8:b:n", "started_at": 1, "steps": STEPS}
DRIVEN: dict[str, Any] = {**OWNED, "token": "token", "status": WorkflowStatus.RUNNING}
AFTER_PAY: dict[str, Any] = {"index": 1, "results": [PAID], "visits": {"pay": 1}, "undoable": [PAY]}
IN_PACK: dict[str, Any] = {**DRIVEN, **AFTER_PAY, "visits": {"pay": 1, "pack": 1}, "in_flight": PACK}
AT_GATE: dict[str, Any] = {
    **OWNED,
    "settings": ASKS,
    "results": [ASKED],
    "visits": {"pay": 1},
    "undoable": [PAY],
    "gates": 1,
}
REJECTED: dict[str, Any] = {
    **AT_GATE,
    "status": WorkflowStatus.RUNNING,
    "results": [
        ASKED,
        WorkflowResult(
            False, "pay", {"reason": "too much"}, error="approval_rejected", message="Workflow cancelled: too much"
        ),
    ],
    "decisions": [GateDecision(1, "pay", "rejected", "ann", 6)],
    "rejected": True,
    "attention": True,
}
FAILURE: dict[str, Any] = {
    **DRIVEN,
    **AFTER_PAY,
    "results": [PAID, DECLINED],
    "visits": {"pay": 1, "pack": 1},
    "step_failed": True,
    "attention": True,
}
BACK: dict[str, Any] = {
    **FAILURE,
    "undoable": [],
    "rollback": Rollback(WorkflowStatus.FAILED, [PAY]),
    "rollback_status": "running",
}
ENDED: dict[str, Any] = {**BACK, "token": None, "status": WorkflowStatus.FAILED, "ended_at": 9}
UNDONE = done("rollback_pay")
NOT_UNDONE = failed("rollback_pay")

STATES: dict[str, dict[str, Any]] = {
    "not started": {},
    "running": IN_PACK,
    "left by its driver": {**DRIVEN, **AFTER_PAY, "token": None},
    "pausing": {**IN_PACK, "pausing": True, "attention": True},
    "paused": {**OWNED, **AFTER_PAY, "status": WorkflowStatus.PAUSED, "attention": True},
    "waiting": {
        **AT_GATE,
        "status": WorkflowStatus.WAITING_APPROVAL,
        "gate": 1,
        "pending_step": "pay",
        "attention": True,
    },
    "approved": {
        **AT_GATE,
        "status": WorkflowStatus.RUNNING,
        "index": 1,
        "decisions": [GateDecision(1, "pay", "approved", "ann", 6)],
        "approval_data": {"limit": 5},
    },
    "rejected": REJECTED,
    "cancelling": {**IN_PACK, "attention": True, "cancelling": ev.CancelRequested(6, "ann", "no more")},
    "rolling back": BACK,
    "completed": {
        **OWNED,
        **AFTER_PAY,
        "steps": ("pay",),
        "status": WorkflowStatus.COMPLETED,
        "attention": True,
        "ended_at": 5,
    },
    "failed": {**FAILURE, "token": None, "status": WorkflowStatus.FAILED, "ended_at": 6},
    "failed and rolled back": {
        **ENDED,
        "results": [PAID, DECLINED, UNDONE],
        "rollback_visits": {"pay": 1},
        "rollback": Rollback(WorkflowStatus.FAILED, []),
        "rollback_status": "done",
    },
    "failed and not undone": {
        **ENDED,
        "results": [PAID, DECLINED, NOT_UNDONE],
        "rollback_visits": {"pay": 1},
        "rollback": Rollback(WorkflowStatus.FAILED, [], [FailedRollback(PAY, NOT_UNDONE)]),
        "rollback_status": "incomplete",
    },
    "cancelled": {
        **REJECTED,
        "status": WorkflowStatus.CANCELLED,
        "results": [
            ASKED,
            WorkflowResult(
                False,
                "pay",
                {"reason": "Approval rejected"},
                error="approval_rejected",
                message="Workflow cancelled: Approval rejected",
            ),
        ],
        "decisions": [GateDecision(1, "pay", "rejected", None, 6)],
        "ended_at": 7,
    },
}

MORE: list[tuple[str, list[Event], dict[str, Any]]] = [
    (
        "a step that asked, where nobody wants to be asked",
        [*plan(), *ran_events("pay", 0, gated=True)],
        {**DRIVEN, **AFTER_PAY, "results": [ASKED]},
    ),
    (
        "a step that asked",
        WAITING[:-1],
        {**DRIVEN, **AT_GATE, "gates": 0, "gated": True, "attention": True},
    ),
    (
        "a failure that the run goes on after",
        [*plan(GOES_ON := Settings(False, True)), *ran_events("pay", 0), PACK, *TURNED[5:6]],
        {
            **DRIVEN,
            **AFTER_PAY,
            "settings": GOES_ON,
            "index": 2,
            "results": [PAID, DECLINED],
            "visits": {"pay": 1, "pack": 1},
        },
    ),
    (
        "an interrupted step",
        [*RUNNING, ev.StepInterrupted(6, DECLINED)],
        {
            **DRIVEN,
            **AFTER_PAY,
            "results": [PAID, DECLINED],
            "visits": {"pay": 1, "pack": 1},
            "interrupted": PACK,
            "undoable": [PAY, PACK],
            "attention": True,
        },
    ),
    (
        "approved, while a pause is asked for",
        [*WAITING[:4], ev.PauseRequested(5, None, None), *WAITING[4:], ev.Approved(6, "ann", {"limit": 5})],
        {**STATES["approved"], "pausing": True, "attention": True},
    ),
    (
        "cancelled at a gate",
        [*WAITING, ev.CancelRequested(6, "ann", None)],
        {
            **AT_GATE,
            "status": WorkflowStatus.RUNNING,
            "decisions": [GateDecision(1, "pay", "cancelled", "ann", 6)],
            "cancelling": ev.CancelRequested(6, "ann", None),
            "attention": True,
        },
    ),
    (
        "cancelled while pausing",
        [*JOURNALS["pausing"], ev.CancelRequested(6, "ann", "no more")],
        STATES["cancelling"],
    ),
    (
        "cancelled while paused",
        [*JOURNALS["paused"], ev.CancelRequested(6, "ann", None)],
        {
            **STATES["paused"],
            "status": WorkflowStatus.RUNNING,
            "cancelling": ev.CancelRequested(6, "ann", None),
        },
    ),
    (
        "resumed",
        [*JOURNALS["paused"], ev.Resumed(6, None)],
        {**STATES["paused"], "status": WorkflowStatus.RUNNING, "attention": False},
    ),
    (
        "resumed before it held",
        [*JOURNALS["pausing"], ev.Resumed(6, None)],
        IN_PACK,
    ),
    (
        "ended, although a pause was asked for",
        [*JOURNALS["pausing"], ev.WorkflowCompleted(7)],
        {**IN_PACK, "token": None, "status": WorkflowStatus.COMPLETED, "attention": True, "ended_at": 7},
    ),
    (
        "turned round by a rejection",
        [*JOURNALS["rejected"], ev.RollbackStarted(7, "pay")],
        {
            **REJECTED,
            "undoable": [],
            "rollback": Rollback(WorkflowStatus.CANCELLED, [PAY]),
            "rollback_status": "running",
        },
    ),
    (
        "turned round by a cancel",
        [*JOURNALS["cancelling"], ev.RollbackStarted(7, "pack")],
        {
            **STATES["cancelling"],
            "undoable": [],
            "rollback": Rollback(WorkflowStatus.CANCELLED, [PAY]),
            "rollback_status": "running",
        },
    ),
    (
        "undoing a step",
        [*TURNED, *undone("pay", 0)[:1]],
        {**BACK, "undoing": ev.RollbackStepStarted(7, "pay", 0, 1, 1), "rollback_visits": {"pay": 1}},
    ),
    (
        "a step without a rollback",
        [*TURNED, *undone("pay", 0)[:1], ev.RollbackStepSkipped(8, UNDONE)],
        {
            **BACK,
            "results": [PAID, DECLINED, UNDONE],
            "rollback": Rollback(WorkflowStatus.FAILED, []),
            "rollback_visits": {"pay": 1},
        },
    ),
    (
        "a rollback that is tried again",
        [*INCOMPLETE, ev.RollbackRetried(10, None)],
        {**BACK, "token": None, "rollback_visits": {"pay": 1}},
    ),
    (
        "a rollback that somebody answers for",
        [*INCOMPLETE, ev.RollbackWaived(10, "pay", "ann", "by hand")],
        {
            **STATES["failed and not undone"],
            "results": [
                PAID,
                DECLINED,
                WorkflowResult(True, "rollback_pay", message="Rollback skipped by ann: by hand"),
            ],
            "rollback": Rollback(WorkflowStatus.FAILED, []),
        },
    ),
    (
        "a rollback that nobody in particular answers for",
        [*INCOMPLETE, ev.RollbackWaived(10, "pay", None, "by hand")],
        {
            **STATES["failed and not undone"],
            "results": [PAID, DECLINED, WorkflowResult(True, "rollback_pay", message="Rollback skipped: by hand")],
            "rollback": Rollback(WorkflowStatus.FAILED, []),
        },
    ),
    (
        "tried again where it failed",
        [*JOURNALS["failed"], ev.Retried(7, None, 1)],
        {**DRIVEN, **AFTER_PAY, "token": None, "visits": {"pay": 1, "pack": 1}},
    ),
    (
        "tried again behind its last step",
        [*JOURNALS["failed"], ev.Retried(7, None, 3)],
        {**DRIVEN, **AFTER_PAY, "token": None, "index": 3, "visits": {"pay": 1, "pack": 1}},
    ),
    (
        "tried again from the beginning",
        [*JOURNALS["failed and rolled back"], ev.Retried(10, None, 0)],
        {
            **DRIVEN,
            "token": None,
            "visits": {"pay": 1, "pack": 1},
            "rollback_visits": {"pay": 1},
        },
    ),
    (
        "tried again after an interruption",
        [*RUNNING, ev.StepInterrupted(6, DECLINED), ev.WorkflowFailed(6), ev.Retried(7, None, 1)],
        {
            **DRIVEN,
            **AFTER_PAY,
            "token": None,
            "visits": {"pay": 1, "pack": 1},
            "undoable": [PAY, PACK],
        },
    ),
]


def state_of(events: list[Event], values: dict[str, Any]) -> RunState:
    """Return a state in which everything that is not said is as it was before the run."""
    plan = events[0] if events else None
    assert plan is None or isinstance(plan, ev.WorkflowStarted)
    return RunState(WORKFLOW, **{"version": len(events), "plan": plan, **values})


def test_where_nobody_says_a_run_is_undone_when_it_fails_and_goes_on_undoing() -> None:
    assert Settings() == Settings(
        rollback_on_failure=True,
        continue_on_step_failure=False,
        require_approval=False,
        rollback_on_cancel=False,
        on_rollback_failure="continue",
    )


def test_before_its_journal_a_run_is_this() -> None:
    assert replay(WORKFLOW, []) == RunState(
        workflow_id=WORKFLOW,
        version=0,
        plan=None,
        steps=(),
        settings=Settings(),
        status=WorkflowStatus.PENDING,
        index=0,
        results=[],
        visits={},
        rollback_visits={},
        in_flight=None,
        undoing=None,
        undoable=[],
        interrupted=None,
        step_failed=False,
        gated=False,
        gate=0,
        gates=0,
        pending_step=None,
        decisions=[],
        approval_data=None,
        rejected=False,
        pausing=False,
        attention=False,
        cancelling=None,
        rollback=None,
        rollback_status="none",
        token=None,
        owner=None,
        started_at=None,
        ended_at=None,
    )


@pytest.mark.parametrize("name", STATES)
def test_a_journal_leads_to_its_state(name: str) -> None:
    assert replay(WORKFLOW, JOURNALS[name]) == state_of(JOURNALS[name], STATES[name])


@pytest.mark.parametrize(("events", "values"), [each[1:] for each in MORE], ids=[each[0] for each in MORE])
def test_a_fact_changes_the_state_so_and_no_more(events: list[Event], values: dict[str, Any]) -> None:
    assert replay(WORKFLOW, events) == state_of(events, values)


def test_what_is_tried_again_is_undone_in_reverse_and_other_results_stay() -> None:
    both: list[Event] = [
        *plan(),
        *ran_events("pay", 0),
        *ran_events("pack", 1),
        ev.StepStarted(5, "ship", 2, 1, 1),
        ev.StepFailed(6, failed("ship"), None, None),
        ev.RollbackStarted(6, "ship"),
        *undone("pack", 1, fails=True),
        *undone("pay", 0, fails=True),
        ev.RollbackFinished(9, False),
        ev.WorkflowFailed(9),
    ]
    state = replay(WORKFLOW, both)
    first, second = StepStarted(3, "pay", 0, 1, 1), StepStarted(3, "pack", 1, 1, 1)
    rollback = state.rollback
    assert rollback is not None
    assert rollback.failed == [
        FailedRollback(second, failed("rollback_pack")),
        FailedRollback(first, failed("rollback_pay")),
    ]
    waived = replay(WORKFLOW, [*both, ev.RollbackWaived(10, "pay", None, "by hand")])
    assert [result.step for result in waived.results] == ["pay", "pack", "ship", "rollback_pack", "rollback_pay"]
    assert [result.success for result in waived.results] == [True, True, False, False, True]
    apply(state, ev.RollbackRetried(10, None))
    assert rollback == Rollback(WorkflowStatus.FAILED, [first, second])
    assert [result.step for result in state.results] == ["pay", "pack", "ship"]


# What cannot follow.

START = plan()[0]
FAILED = ev.WorkflowFailed(9)
MISFITS: list[tuple[list[Event], Event, str]] = [
    ([], ev.Claimed(1, "o", "t"), "the run was not started"),
    (plan(), START, "the run was started already"),
    (plan(), StepStarted(1, "pay", 3, 1, 1), "there is no step 'pay' at place 3 of the plan"),
    (plan(), StepStarted(1, "pay", -3, 1, 1), "there is no step 'pay' at place -3 of the plan"),
    (plan(), StepStarted(1, "pay", 1, 1, 1), "there is no step 'pay' at place 1 of the plan"),
    (
        plan(),
        ev.RollbackStepStarted(1, "pay", 2, 1, 1),
        "there is no step 'pay' at place 2 of the plan",
    ),
    (plan(), StepStarted(1, "pack", 1, 1, 1), "it was not the turn of step 'pack'"),
    (WAITING[:-1], ev.ApprovalRequested(1, "pack"), "step 'pack' is not the one that ran"),
    (plan(), ev.StepSucceeded(1, PAID, False), "no step was running"),
    (plan(), ev.StepFailed(1, DECLINED, None, None), "no step was running"),
    (plan(), ev.StepInterrupted(1, DECLINED), "no step was running"),
    (plan(), ev.Approved(1, None, {}), "no gate was open"),
    (plan(), ev.Rejected(1, None, None), "no gate was open"),
    (TURNED, ev.RollbackStarted(1, "pack"), "the run had turned round already"),
    (plan(), ev.RollbackStepStarted(1, "pay", 0, 1, 1), "nothing was left to undo"),
    ([*TURNED, *undone("pay", 0)], ev.RollbackStepStarted(1, "pay", 0, 1, 1), "nothing was left to undo"),
    (plan(), ev.RollbackStepSucceeded(1, UNDONE), "no rollback step was running"),
    (TURNED, ev.RollbackStepFailed(1, UNDONE, None, None), "no rollback step was running"),
    (plan(), ev.RollbackFinished(1, True), "no rollback was under way"),
    (plan(), ev.RollbackRetried(1, None), "no rollback had ended incomplete"),
    (TURNED, ev.RollbackRetried(1, None), "no rollback had ended incomplete"),
    (plan(), ev.RollbackWaived(1, "pay", None, ""), "no rollback had ended incomplete"),
    (INCOMPLETE, ev.RollbackWaived(1, "pack", None, ""), "the rollback of step 'pack' did not fail"),
    (plan(), ev.Retried(1, None, 0), "the run had not failed"),
    ([*plan(ASKS), *ran_events("pay", 0, gated=True), FAILED], ev.Retried(1, None, 0), "the run had not failed"),
    ([*RUNNING, FAILED], ev.Retried(1, None, 0), "the run had not failed"),
    ([*TURNED, ev.RollbackStepStarted(7, "pay", 0, 1, 1), FAILED], ev.Retried(1, None, 0), "the run had not failed"),
    (JOURNALS["failed"], ev.Retried(1, None, -1), "there is no place -1 in the plan"),
    (JOURNALS["failed"], ev.Retried(1, None, 4), "there is no place 4 in the plan"),
]


@pytest.mark.parametrize(("events", "event", "why"), MISFITS)
def test_what_cannot_follow_is_damage(events: list[Event], event: Event, why: str) -> None:
    with pytest.raises(JournalCorruptError) as caught:
        replay(WORKFLOW, [*events, event])
    seq = len(events) + 1
    assert str(caught.value) == (
        f"The journal of workflow {WORKFLOW!r} is damaged: record {seq} ({type(event).__name__}) cannot follow, for "
        f"{why}. Restore it from a backup, or delete the workflow."
    )
    assert (caught.value.workflow_id, caught.value.seq) == (WORKFLOW, seq)


@pytest.mark.parametrize(
    "event", [ev.Approved(6, None, {}), ev.Rejected(6, None, None), ev.CancelRequested(6, None, None)]
)
def test_a_gate_that_names_no_step_cannot_be_decided(event: Event) -> None:
    state = replay(WORKFLOW, WAITING)
    state.pending_step = None
    with pytest.raises(JournalCorruptError, match=rf"{type(event).__name__}\) cannot follow, for no gate was open"):
        apply(state, event)


# A draft: the state that a caller set by hand.


def sown(draft: Draft, steps: tuple[str, ...] = STEPS) -> RunState:
    return replay(WORKFLOW, [ev.WorkflowStarted(1, "run", "Order", steps, Settings(), {}, draft)])


def seed(**values: Any) -> Draft:
    defaults: dict[str, Any] = {
        "status": WorkflowStatus.PENDING,
        "current_step_index": 0,
        "results": (),
        "pending_approval_step": None,
        "approval_data": None,
        "rollback_status": "none",
    }
    return Draft(**{**defaults, **values})


def test_a_draft_is_taken_as_it_is() -> None:
    draft = seed(current_step_index=1, results=(PAID,), approval_data={"limit": 5})
    assert sown(draft) == RunState(
        WORKFLOW,
        version=1,
        plan=ev.WorkflowStarted(1, "run", "Order", STEPS, Settings(), {}, draft),
        steps=STEPS,
        status=WorkflowStatus.RUNNING,
        index=1,
        results=[PAID],
        visits={"pay": 1},
        undoable=[StepStarted(0, "pay", 0, 1, 1)],
        approval_data={"limit": 5},
        attention=True,
        started_at=1,
    )


@pytest.mark.parametrize("status", WorkflowStatus)
def test_a_draft_begins_in_its_status(status: WorkflowStatus) -> None:
    pending = status is WorkflowStatus.PENDING
    assert sown(seed(status=status)).status is (WorkflowStatus.RUNNING if pending else status)


def test_the_results_of_a_draft_are_its_undoable_steps_where_they_stand_in_the_plan() -> None:
    steps = ("pay", "pack", "pay", "ship", "pay")
    results = tuple(done(step) for step in ("pay", "pay", "pack", "pay", "other"))
    failures = (failed("ship"),)
    state = sown(seed(results=results + failures), steps)
    assert state.undoable == [
        StepStarted(0, "pay", 0, 1, 1),
        StepStarted(0, "pay", 2, 2, 1),  # the next one of its name
        StepStarted(0, "pack", 1, 1, 1),  # there is none behind: the first
        StepStarted(0, "pay", 2, 3, 1),
    ]
    assert state.visits == {"pay": 3, "pack": 1}
    again = sown(seed(results=(done("pay"),) * 3), ("pay", "pack", "pay", "ship"))
    assert [started.position for started in again.undoable] == [0, 2, 0]


def test_a_draft_may_stand_behind_its_last_step_and_no_further() -> None:
    assert sown(seed(current_step_index=3)).index == 3
    for index in (-1, 4):
        with pytest.raises(ValueError, match=f"^a draft of 3 steps stands at {index}$"):
            sown(seed(current_step_index=index))


@pytest.mark.parametrize(("pending", "step"), [("ship", "ship"), (None, "pack"), ("", "pack")])
def test_a_draft_that_waits_is_at_a_gate(pending: str | None, step: str) -> None:
    status = WorkflowStatus.WAITING_APPROVAL
    state = sown(seed(status=status, current_step_index=1, pending_approval_step=pending))
    assert (state.gate, state.gates, state.pending_step) == (1, 1, step)
    apply(state, ev.Approved(2, None, {}))
    assert (state.gate, state.gates, state.decisions[0].gate) == (0, 1, 1)
    other = sown(seed(status=WorkflowStatus.PAUSED, pending_approval_step="ship"))
    assert (other.gate, other.gates, other.pending_step) == (0, 0, None)


@pytest.mark.parametrize(
    ("status", "ends_in"),
    [
        (WorkflowStatus.CANCELLED, WorkflowStatus.CANCELLED),
        (WorkflowStatus.FAILED, WorkflowStatus.FAILED),
        (WorkflowStatus.RUNNING, WorkflowStatus.FAILED),
    ],
)
def test_a_draft_that_was_rolled_back_knows_what_is_left(status: WorkflowStatus, ends_in: WorkflowStatus) -> None:
    not_unpacked = failed("rollback_pack")
    results = (done("pay"), done("pack"), done("ship"), not_unpacked, done("rollback_ship"))
    state = sown(seed(status=status, results=results, rollback_status="incomplete"))
    pay, pack = StepStarted(0, "pay", 0, 1, 1), StepStarted(0, "pack", 1, 1, 1)
    assert state.rollback == Rollback(ends_in, [pay], [FailedRollback(pack, not_unpacked)])
    assert (state.rollback_status, state.undoable) == ("incomplete", [])


def test_what_a_draft_failed_to_undo_is_told_in_the_order_tried() -> None:
    results = (done("pay"), done("pack"), failed("rollback_pack"), failed("rollback_pay"))
    state = sown(seed(status=WorkflowStatus.FAILED, results=results, rollback_status="incomplete"))
    assert state.rollback is not None
    assert [failure.step.step for failure in state.rollback.failed] == ["pack", "pay"]
    assert [failure.result for failure in state.rollback.failed] == [results[2], results[3]]
    assert state.rollback.todo == []


def test_a_draft_without_a_rollback_has_none() -> None:
    state = sown(seed(results=(PAID,)))
    assert (state.rollback, state.rollback_status) == (None, "none")


@pytest.mark.parametrize(
    ("results", "left"),
    [((), []), ((PAID,), [PAID]), ((PAID, DECLINED), [PAID]), ((DECLINED, PAID), [DECLINED, PAID])],
)
def test_a_retry_takes_back_no_more_than_the_failure(
    results: tuple[WorkflowResult, ...], left: list[WorkflowResult]
) -> None:
    state = sown(seed(status=WorkflowStatus.FAILED, results=results))
    apply(state, ev.Retried(7, None, 1))
    assert state.results == left
