"""What comes next in each state, to the letter."""

import pytest

from dotmac_workflows import WorkflowResult
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.actions import Action, RunRollback, RunStep, Stop, Wait
from dotmac_workflows._core.decide import decide
from dotmac_workflows._core.events import Event, Settings
from dotmac_workflows._core.state import replay
from journal_events import JOURNALS, WORKFLOW, done, failed, plan, ran, undone

NOW = 1_700_000_000_000_000
UNDOES = Settings(require_approval=True, rollback_on_cancel=True)
GOES_ON = Settings(rollback_on_failure=False, continue_on_step_failure=True)
LEFT = "A crash left step 'pack' unfinished before the workflow was cancelled; its outcome is unknown."

ONE = [*plan(UNDOES), *ran("pay", 0)]
IN_FLIGHT: list[Event] = [*ONE, ev.StepStarted(5, "pack", 1, 1, 1)]
FAILURE = ev.StepFailed(6, failed("pack"), None, None)
INTERRUPTION = ev.StepInterrupted(7, WorkflowResult(False, "pack", error="step_interrupted", message="why"))
TURNED: list[Event] = [*IN_FLIGHT, FAILURE, ev.RollbackStarted(6, "pack")]
HALTS = [ev.WorkflowStarted(1, "run", "Order", ("pay", "pack", "ship"), Settings(on_rollback_failure="halt"), {}, None)]
BOTH_RAN: list[Event] = [
    *ran("pay", 0),
    *ran("pack", 1),
    ev.StepStarted(5, "ship", 2, 1, 1),
    ev.StepFailed(6, failed("ship"), None, None),
    ev.RollbackStarted(6, "ship"),
]


def step(name: str, position: int, visit: int = 1, attempt: int = 1) -> tuple[list[Event], Action]:
    started = ev.StepStarted(NOW, name, position, visit, attempt)
    return [started], RunStep(started)


def rollback(
    *before: Event, step: str = "pay", position: int = 0, visit: int = 1, attempt: int = 1, unknown: bool = False
) -> tuple[list[Event], Action]:
    started = ev.RollbackStepStarted(NOW, step, position, visit, attempt)
    return [*before, started], RunRollback(started, unknown)


def ended(*events: Event) -> tuple[list[Event], Action]:
    return list(events), Stop()


DECISIONS: list[tuple[str, list[Event], tuple[list[Event], Action]]] = [
    ("the first step", plan(), step("pay", 0)),
    ("the next step", ONE, step("pack", 1)),
    ("a step that a crash left", IN_FLIGHT, step("pack", 1, attempt=2)),
    ("the end", JOURNALS["completed"][:-1], ended(ev.WorkflowCompleted(NOW))),
    ("after the end", JOURNALS["completed"], ended()),
    ("the next step after a failure", [*plan(GOES_ON), *IN_FLIGHT[2:], FAILURE], step("ship", 2)),
    ("a gate", JOURNALS["waiting"][:-1], ([ev.ApprovalRequested(NOW, "pay")], Wait())),
    ("an open gate", JOURNALS["waiting"], ([], Wait())),
    ("after a gate", JOURNALS["approved"], step("pack", 1)),
    ("a pause", [*ONE, ev.PauseRequested(5, None, None)], ended(ev.Paused(NOW))),
    ("a pause before a step is tried again", [*IN_FLIGHT, ev.PauseRequested(6, None, None)], ended(ev.Paused(NOW))),
    (
        "a pause of the last step",
        [*plan(steps=("pay",)), *ran("pay", 0)[:1], ev.PauseRequested(6, None, None)],
        ended(ev.Paused(NOW)),
    ),
    (
        "the end, although a pause was asked for",
        [*plan(steps=("pay",)), *ran("pay", 0), ev.PauseRequested(6, None, None)],
        ended(ev.WorkflowCompleted(NOW)),
    ),
    ("paused", JOURNALS["paused"], ended()),
    ("after a pause", [*JOURNALS["paused"], ev.Resumed(6, None)], step("pack", 1)),
    ("a failure", [*IN_FLIGHT, FAILURE], rollback(ev.RollbackStarted(NOW, "pack"))),
    (
        "a failure of the last step",
        [*plan(), *BOTH_RAN[: BOTH_RAN.index(ev.RollbackStarted(6, "ship"))]],
        rollback(ev.RollbackStarted(NOW, "ship"), step="pack", position=1),
    ),
    ("a failure that undoes nothing", [*plan(), *ran("pay", 0)[:1], FAILURE], ended(ev.WorkflowFailed(NOW))),
    (
        "a failure that is not undone",
        [*plan(Settings(rollback_on_failure=False)), *IN_FLIGHT[2:], FAILURE],
        ended(ev.WorkflowFailed(NOW)),
    ),
    ("a rejection", JOURNALS["rejected"], ended(ev.WorkflowCancelled(NOW))),
    (
        "a rejection that is undone",
        [*plan(UNDOES), *JOURNALS["rejected"][2:]],
        rollback(ev.RollbackStarted(NOW, "pay")),
    ),
    (
        "a cancel before anything ran",
        [*plan(UNDOES), ev.CancelRequested(3, None, None)],
        ended(ev.WorkflowCancelled(NOW)),
    ),
    (
        "a cancel after a step",
        [*ONE, ev.CancelRequested(5, None, None)],
        rollback(ev.RollbackStarted(NOW, "pack")),
    ),
    (
        "a cancel after the last step",
        [*plan(UNDOES, ("pay",)), *ran("pay", 0), ev.CancelRequested(5, None, None)],
        rollback(ev.RollbackStarted(NOW, "pay")),
    ),
    (
        "a cancel that finds a step which a crash left",
        [*IN_FLIGHT, ev.CancelRequested(6, None, None)],
        rollback(
            ev.StepInterrupted(NOW, WorkflowResult(False, "pack", error="step_interrupted", message=LEFT)),
            ev.RollbackStarted(NOW, "pack"),
            step="pack",
            position=1,
            unknown=True,
        ),
    ),
    (
        "a cancel that finds one, and undoes nothing",
        [*plan(), *IN_FLIGHT[2:], ev.CancelRequested(6, None, None)],
        ended(
            ev.StepInterrupted(NOW, WorkflowResult(False, "pack", error="step_interrupted", message=LEFT)),
            ev.WorkflowCancelled(NOW),
        ),
    ),
    (
        "a cancel that interrupted a step",
        [*IN_FLIGHT, ev.CancelRequested(6, None, None), INTERRUPTION],
        rollback(ev.RollbackStarted(NOW, "pack"), step="pack", position=1, unknown=True),
    ),
    (
        "what is undone after the step that was interrupted",
        [
            *IN_FLIGHT,
            ev.CancelRequested(6, None, None),
            INTERRUPTION,
            ev.RollbackStarted(7, "pack"),
            *undone("pack", 1),
        ],
        rollback(),
    ),
    (
        "the rollback of an interrupted step, which a crash left",
        [
            *IN_FLIGHT,
            ev.CancelRequested(6, None, None),
            INTERRUPTION,
            ev.RollbackStarted(7, "pack"),
            *undone("pack", 1)[:1],
        ],
        rollback(step="pack", position=1, attempt=2, unknown=True),
    ),
    ("a rollback step that a crash left", [*TURNED, *undone("pay", 0)[:1]], rollback(attempt=2)),
    ("a rollback that begins", TURNED, rollback()),
    ("a rollback goes on", [*plan(), *BOTH_RAN, *undone("pack", 1)], rollback()),
    ("a rollback goes on after a failure", [*plan(), *BOTH_RAN, *undone("pack", 1, fails=True)], rollback()),
    (
        "a rollback halts after a failure",
        [*HALTS, *BOTH_RAN, *undone("pack", 1, fails=True)],
        ended(ev.RollbackFinished(NOW, False), ev.WorkflowFailed(NOW)),
    ),
    ("a rollback does not halt without one", [*HALTS, *BOTH_RAN, *undone("pack", 1)], rollback()),
    (
        "a rollback that is done",
        [*TURNED, *undone("pay", 0)],
        ended(ev.RollbackFinished(NOW, True), ev.WorkflowFailed(NOW)),
    ),
    (
        "a rollback that is not",
        [*TURNED, *undone("pay", 0, fails=True)],
        ended(ev.RollbackFinished(NOW, False), ev.WorkflowFailed(NOW)),
    ),
    (
        "a rollback after a cancel",
        [*ONE, ev.CancelRequested(5, None, None), ev.RollbackStarted(5, "pack"), *undone("pay", 0)],
        ended(ev.RollbackFinished(NOW, True), ev.WorkflowCancelled(NOW)),
    ),
    ("failed", JOURNALS["failed"], ended()),
    ("a retry of the step that failed", [*JOURNALS["failed"], ev.Retried(7, None, 1)], step("pack", 1, visit=2)),
    (
        "a retry from the beginning",
        [*JOURNALS["failed and rolled back"], ev.Retried(7, None, 0)],
        step("pay", 0, visit=2),
    ),
    (
        "a rollback that is tried again",
        [*JOURNALS["failed and not undone"], ev.RollbackRetried(10, None)],
        rollback(visit=2),
    ),
]


@pytest.mark.parametrize(("events", "decision"), [each[1:] for each in DECISIONS], ids=[each[0] for each in DECISIONS])
def test_what_comes_next(events: list[Event], decision: tuple[list[Event], Action]) -> None:
    state = replay(WORKFLOW, events)
    answer = decide(state, NOW)
    assert answer == decision
    assert [type(event) for event in answer[0]] == [type(event) for event in decision[0]]
    assert type(answer[1]) is type(decision[1])
    assert state == replay(WORKFLOW, events)  # it is only read


def test_a_rollback_of_a_step_that_ran_twice_knows_which_time_was_interrupted() -> None:
    again: list[Event] = [
        *plan(UNDOES, ("pay", "pay")),
        *ran("pay", 0),
        ev.StepStarted(5, "pay", 1, 2, 1),
        ev.CancelRequested(6, None, None),
        ev.StepInterrupted(7, WorkflowResult(False, "pay")),
        ev.RollbackStarted(7, "pay"),
    ]
    first = rollback(position=1, unknown=True)
    assert decide(replay(WORKFLOW, again), NOW) == first
    ends: list[Event] = [ev.RollbackStepStarted(8, "pay", 1, 1, 1), ev.RollbackStepSucceeded(8, done("rollback_pay"))]
    assert decide(replay(WORKFLOW, [*again, *ends]), NOW) == rollback(visit=2)
