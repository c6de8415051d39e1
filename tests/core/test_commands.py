"""What people may ask in each state: the facts that follow, or the refusal, to the letter."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dotmac_workflows import WorkflowResult
from dotmac_workflows._core import commands
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.state import RunState, replay
from dotmac_workflows.errors import AlreadyDecidedError, WorkflowExecutionError
from journal_events import INCOMPLETE, JOURNALS, WORKFLOW, plan, ran, state, undone

NOW = 1_700_000_000_000_000

# What each state that refuses is called, and what is to be done instead.
PENDING = "it is pending. Call execute() first."
RUNNING = "it is running. Wait for it, or look at who drives it."
COMPLETED = "it is completed. There is nothing left to do."
FAILED = "it is failed. See its results; retry() runs it again."
CANCELLED = "it is cancelled. There is nothing left to do."
WAITING = "it is waiting_approval. Approve or reject it."
PAUSED = "it is paused. Call resume() first."

ASKED: dict[str, Callable[[RunState], Any]] = {
    "approve": lambda state: commands.approve(state, NOW, {"limit": 5}, "bob", None),
    "reject": lambda state: commands.reject(state, NOW, "too much", "bob", None),
    "pause": lambda state: commands.pause(state, NOW, "holidays", "bob"),
    "resume": lambda state: commands.resume(state, NOW, "bob"),
    "cancel": lambda state: commands.cancel(state, NOW, "no more", "bob"),
    "retry": lambda state: commands.retry(state, NOW, "bob"),
    "retry_rollback": lambda state: commands.retry_rollback(state, NOW, "bob"),
    "skip_rollback": lambda state: commands.skip_rollback(state, NOW, "pay", "by hand", "bob"),
}

WAITS_FOR_NOTHING = {
    "not started": PENDING,
    "running": RUNNING,
    "left by its driver": RUNNING,
    "pausing": RUNNING,
    "paused": PAUSED,
    "cancelling": RUNNING,
    "rolling back": RUNNING,
    "completed": COMPLETED,
    "failed": FAILED,
    "failed and rolled back": FAILED,
    "failed and not undone": FAILED,
}
UNDONE = "It is being undone or cancelled; wait for that to end."
REFUSED: dict[str, dict[str, str]] = {
    "approve": {name: f"is not waiting for approval; {why}" for name, why in WAITS_FOR_NOTHING.items()},
    "reject": {name: f"is not waiting for approval; {why}" for name, why in WAITS_FOR_NOTHING.items()},
    "pause": {
        "not started": f"cannot be paused; {PENDING}",
        "waiting": f"cannot be paused; {WAITING}",
        "rejected": f"cannot be paused; it is running. {UNDONE}",
        "cancelling": f"cannot be paused; it is running. {UNDONE}",
        "rolling back": f"cannot be paused; it is running. {UNDONE}",
        "completed": f"cannot be paused; {COMPLETED}",
        "failed": f"cannot be paused; {FAILED}",
        "failed and rolled back": f"cannot be paused; {FAILED}",
        "failed and not undone": f"cannot be paused; {FAILED}",
        "cancelled": f"cannot be paused; {CANCELLED}",
    },
    "resume": {"not started": f"cannot be resumed; {PENDING}"},
    "cancel": {
        "not started": f"cannot be cancelled; {PENDING}",
        "rejected": "cannot be cancelled; it is running. It was rejected and ends cancelled; resume() carries that "
        "out.",
        "rolling back": "cannot be cancelled; it is running. It is rolling back; wait for that to end.",
        "completed": f"cannot be cancelled; {COMPLETED}",
        "failed": f"cannot be cancelled; {FAILED}",
        "failed and rolled back": f"cannot be cancelled; {FAILED}",
        "failed and not undone": f"cannot be cancelled; {FAILED}",
        "cancelled": f"cannot be cancelled; {CANCELLED}",
    },
    "retry": {
        **{
            name: f"cannot be retried: only a failed one can; {why}"
            for name, why in {
                **WAITS_FOR_NOTHING,
                "waiting": WAITING,
                "approved": RUNNING,
                "rejected": RUNNING,
                "cancelled": CANCELLED,
            }.items()
            if not why.startswith("it is failed")
        },
        "failed and not undone": "cannot be retried; it is failed. Its rollback is incomplete: call retry_rollback(), "
        "or skip_rollback(step, reason) for each step that was put right by hand, and then retry().",
    },
    "retry_rollback": {
        name: f"has no incomplete rollback; it is {status}. Its rollback_status is {rollback!r}: nothing to retry."
        for name, status, rollback in [
            ("not started", "pending", "none"),
            ("running", "running", "none"),
            ("waiting", "waiting_approval", "none"),
            ("rolling back", "running", "running"),
            ("completed", "completed", "none"),
            ("failed", "failed", "none"),
            ("failed and rolled back", "failed", "done"),
            ("cancelled", "cancelled", "none"),
        ]
    },
    "skip_rollback": {
        name: f"has no incomplete rollback; it is {status}. Its rollback_status is {rollback!r}: nothing to skip."
        for name, status, rollback in [
            ("not started", "pending", "none"),
            ("running", "running", "none"),
            ("rolling back", "running", "running"),
            ("failed", "failed", "none"),
            ("failed and rolled back", "failed", "done"),
        ]
    },
}


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in REFUSED for name in REFUSED[command]])
def test_a_refusal_says_what_the_state_is_and_what_to_do(command: str, name: str) -> None:
    read = state(name)
    with pytest.raises(WorkflowExecutionError) as caught:
        ASKED[command](read)
    assert type(caught.value) is WorkflowExecutionError
    assert str(caught.value) == f"Workflow {WORKFLOW!r} {REFUSED[command][name]}"
    assert (caught.value.workflow_id, caught.value.step) == (WORKFLOW, "pay" if name == "waiting" else None)


DECIDED = "There is nothing left to decide."
GATE = f"Workflow {WORKFLOW!r} is not waiting for approval of step 'pay': it was"
EPOCH = "at 1970-01-01 00:00:00Z"


@pytest.mark.parametrize(
    ("command", "name", "text", "step", "verdict", "actor"),
    [
        ("approve", "approved", f"{GATE} approved by ann {EPOCH}. {DECIDED}", "pay", "approved", "ann"),
        ("reject", "approved", f"{GATE} approved by ann {EPOCH}. {DECIDED}", "pay", "approved", "ann"),
        ("approve", "rejected", f"{GATE} rejected by ann {EPOCH}. {DECIDED}", "pay", "rejected", "ann"),
        (
            "approve",
            "cancelled",
            f"{GATE} rejected by somebody who gave no name {EPOCH}. {DECIDED}",
            "pay",
            "rejected",
            None,
        ),
        (
            "cancel",
            "cancelling",
            f"Workflow {WORKFLOW!r} was cancelled already, by ann {EPOCH}. {DECIDED}",
            None,
            "cancelled",
            "ann",
        ),
    ],
)
def test_who_comes_second_is_told_who_was_first(
    command: str, name: str, text: str, step: str | None, verdict: str, actor: str | None
) -> None:
    with pytest.raises(AlreadyDecidedError) as caught:
        ASKED[command](state(name))
    error = caught.value
    assert str(error) == text
    assert (error.workflow_id, error.step, error.verdict, error.actor) == (WORKFLOW, step, verdict, actor)
    assert error.decided_at == datetime(1970, 1, 1, 0, 0, 0, 6, tzinfo=UTC)


def test_a_cancel_without_a_name_is_nobodys_own() -> None:
    read = replay(WORKFLOW, [*JOURNALS["running"], ev.CancelRequested(6, None, None)])
    with pytest.raises(AlreadyDecidedError, match="was cancelled already, by somebody who gave no name at") as caught:
        commands.cancel(read, NOW, None, None)
    assert caught.value.actor is None


def test_the_same_actor_may_say_the_same_again() -> None:
    assert commands.approve(state("approved"), NOW, {}, "ann", None) == []
    assert commands.reject(state("rejected"), NOW, None, "ann", None) == []
    assert commands.cancel(state("cancelling"), NOW, None, "ann") == []
    with pytest.raises(AlreadyDecidedError):
        commands.reject(state("approved"), NOW, None, "ann", None)
    with pytest.raises(AlreadyDecidedError):
        commands.approve(state("rejected"), NOW, {}, "ann", None)
    with pytest.raises(AlreadyDecidedError):
        commands.approve(state("approved"), NOW, {}, None, None)
    with pytest.raises(AlreadyDecidedError):
        commands.cancel(state("cancelling"), NOW, None, None)


def test_a_decision_is_about_the_gate_that_was_seen() -> None:
    second = [
        *JOURNALS["approved"],
        ev.StepStarted(7, "pack", 1, 1, 1),
        ev.StepSucceeded(8, WorkflowResult(True, "pack", requires_approval=True), True),
        ev.ApprovalRequested(9, "pack"),
    ]
    read = replay(WORKFLOW, second)
    assert read.gate == 2
    for gate in (None, 0, 2):
        assert commands.approve(read, NOW, {}, "bob", gate) == [ev.Approved(NOW, "bob", {})]
        assert commands.reject(read, NOW, "no", "bob", gate) == [ev.Rejected(NOW, "bob", "no")]
    with pytest.raises(AlreadyDecidedError) as caught:
        commands.approve(read, NOW, {}, "bob", 1)
    assert (caught.value.step, caught.value.actor) == ("pay", "ann")
    both = replay(WORKFLOW, [*second, ev.Rejected(10, "eve", None)])
    for gate, who in ((1, "ann"), (2, "eve"), (3, "eve"), (None, "eve")):
        with pytest.raises(AlreadyDecidedError) as caught:
            commands.approve(both, NOW, {}, "bob", gate)
        assert caught.value.actor == who


GRANTED: list[tuple[str, str, list[ev.Event]]] = [
    ("approve", "waiting", [ev.Approved(NOW, "bob", {"limit": 5})]),
    ("reject", "waiting", [ev.Rejected(NOW, "bob", "too much")]),
    ("pause", "running", [ev.PauseRequested(NOW, "bob", "holidays")]),
    ("pause", "left by its driver", [ev.PauseRequested(NOW, "bob", "holidays"), ev.Paused(NOW)]),
    ("pause", "pausing", []),
    ("pause", "paused", []),
    ("pause", "approved", [ev.PauseRequested(NOW, "bob", "holidays"), ev.Paused(NOW)]),
    ("resume", "paused", [ev.Resumed(NOW, "bob")]),
    ("resume", "running", []),
    ("resume", "pausing", []),
    ("resume", "completed", []),
    ("cancel", "running", [ev.CancelRequested(NOW, "bob", "no more")]),
    ("cancel", "waiting", [ev.CancelRequested(NOW, "bob", "no more")]),
    ("cancel", "paused", [ev.CancelRequested(NOW, "bob", "no more")]),
    ("retry", "failed", [ev.Retried(NOW, "bob", 1)]),
    ("retry", "failed and rolled back", [ev.Retried(NOW, "bob", 0)]),
    ("retry_rollback", "failed and not undone", [ev.RollbackRetried(NOW, "bob")]),
    (
        "skip_rollback",
        "failed and not undone",
        [ev.RollbackWaived(NOW, "pay", "bob", "by hand"), ev.RollbackFinished(NOW, True)],
    ),
]


@pytest.mark.parametrize(("command", "name", "events"), GRANTED)
def test_what_is_granted_is_what_is_recorded(command: str, name: str, events: list[ev.Event]) -> None:
    answer = ASKED[command](state(name))
    assert (answer, list(map(type, answer))) == (events, list(map(type, events)))


def test_a_pause_of_the_drivers_own_object_is_only_requested() -> None:
    read = state("left by its driver")
    assert commands.pause(read, NOW, None, None, driven=True) == [ev.PauseRequested(NOW, None, None)]


def test_a_rollback_that_is_retried_already_cannot_be_retried() -> None:
    read = replay(WORKFLOW, [*INCOMPLETE, ev.RollbackRetried(10, None)])
    with pytest.raises(WorkflowExecutionError, match="it is running. Its rollback_status is 'running'"):
        commands.retry_rollback(read, NOW, None)


TWO_FAILED = [
    *plan(),
    *ran("pay", 0),
    *ran("pack", 1),
    ev.StepStarted(5, "ship", 2, 1, 1),
    ev.StepFailed(6, WorkflowResult(False, "ship"), None, None),
    ev.RollbackStarted(6, "ship"),
    *undone("pack", 1, fails=True),
    *undone("pay", 0, fails=True),
    ev.RollbackFinished(9, False),
    ev.WorkflowFailed(9),
]


def test_a_rollback_is_done_when_its_last_failure_was_skipped() -> None:
    read = replay(WORKFLOW, TWO_FAILED)
    waived = ev.RollbackWaived(NOW, "pay", None, "by hand")
    assert commands.skip_rollback(read, NOW, "pay", "by hand", None) == [waived]
    read = replay(WORKFLOW, [*TWO_FAILED, waived])
    other = ev.RollbackWaived(NOW, "pack", None, "by hand")
    assert commands.skip_rollback(read, NOW, "pack", "by hand", None) == [other, ev.RollbackFinished(NOW, True)]


def test_a_rollback_that_halted_is_not_done_by_skipping_what_failed() -> None:
    halted = [*TWO_FAILED[:11], *TWO_FAILED[-2:]]
    read = replay(WORKFLOW, halted)
    assert read.rollback is not None
    assert len(read.rollback.todo) == 1
    waived = ev.RollbackWaived(NOW, "pack", None, "by hand")
    assert commands.skip_rollback(read, NOW, "pack", "by hand", None) == [waived]


@pytest.mark.parametrize(
    ("journal", "failures"),
    [(TWO_FAILED, "pack, pay"), ([*TWO_FAILED, ev.RollbackWaived(10, "pay", None, ""), *[
        ev.RollbackWaived(10, "pack", None, "")]], "none")],
)  # fmt: skip
def test_only_what_failed_can_be_skipped(journal: list[ev.Event], failures: str) -> None:
    with pytest.raises(WorkflowExecutionError) as caught:
        commands.skip_rollback(replay(WORKFLOW, journal), NOW, "ship", "by hand", None)
    assert str(caught.value) == (
        f"The rollback of step 'ship' of workflow {WORKFLOW!r} did not fail; those that did: {failures}."
    )
    assert (caught.value.workflow_id, caught.value.step) == (WORKFLOW, "ship")


def test_a_settled_step_keeps_everything() -> None:
    good, gated, bad = (
        WorkflowResult(True, "pay"),
        WorkflowResult(True, "pay", requires_approval=True),
        WorkflowResult(False, "pay"),
    )
    assert commands.settle(good, 7) == ev.StepSucceeded(7, good, False)
    assert commands.settle(gated, 7) == ev.StepSucceeded(7, gated, True)
    assert commands.settle(bad, 7, "ValueError", "where") == ev.StepFailed(7, bad, "ValueError", "where")
    failed = commands.settle_rollback(bad, "pay", 7, "ValueError", "where")
    assert (failed, type(failed)) == (ev.RollbackStepFailed(7, bad, "ValueError", "where"), ev.RollbackStepFailed)
    undone = commands.settle_rollback(good, "pay", 7)
    assert (undone, type(undone)) == (ev.RollbackStepSucceeded(7, good), ev.RollbackStepSucceeded)
    skipped = commands.settle_rollback(None, "pay", 7)
    assert type(skipped) is ev.RollbackStepSkipped
    assert skipped == ev.RollbackStepSkipped(
        7, WorkflowResult(True, "rollback_pay", message="Step 'pay' has no rollback: nothing was undone.")
    )


@pytest.mark.parametrize(
    ("at", "instant", "shown"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01 00:00:00Z"),
        (1_700_000_000_123_456, datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC), "2023-11-14 22:13:20Z"),
        (10**18, datetime.max.replace(tzinfo=UTC), "after the year 9999"),
        (1, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), "1970-01-01 00:00:00Z"),
        (-(10**18), datetime.min.replace(tzinfo=UTC), "1-01-01 00:00:00Z"),
        (253402300799_999998, datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC), "9999-12-31 23:59:59Z"),
    ],
)
def test_an_instant_beyond_what_there_is_is_the_first_or_last(at: int, instant: datetime, shown: str) -> None:
    assert commands.instant(at) == instant
    assert commands.instant(at).tzinfo is UTC
    assert commands.show_time(at).lstrip("0") == shown
