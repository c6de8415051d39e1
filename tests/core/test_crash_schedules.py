"""A crash anywhere loses nothing: every schedule of crashes over short plans, samples of them over longer ones.

The campaign plays the same for as long as one likes: ``python -m tests.campaigns.schedules --count 12000000``.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

import dotmac_workflows._run.drive as loop
from campaigns import schedules as campaign
from crash_simulation import (
    Outcome,
    World,
    every_schedule,
    name_of,
    named,
    play,
    sampled_schedules,
    scripts,
)
from dotmac_workflows._core import commands
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.actions import Decision, RunRollback, RunStep, Stop
from dotmac_workflows._core.decide import decide
from dotmac_workflows._core.events import Event
from dotmac_workflows._core.state import FOLD, RunState
from dotmac_workflows.status import WorkflowStatus
from dotmac_workflows.testing._judge import Violation

SEED = 20_260_701


def test_one_step_and_up_to_three_crashes() -> None:
    played = sum(every_schedule(script, crashes=3) for script in scripts(1))
    print(f"{played} schedules")
    assert played > 10_000


def test_two_steps_and_a_crash_at_every_point() -> None:
    played = sum(every_schedule(script, crashes=1) for script in list(scripts(2))[::2])
    print(f"{played} schedules")
    assert played > 6_500


def test_two_steps_and_every_pair_of_crashes() -> None:
    played = sum(every_schedule(script, crashes=2) for script in list(scripts(2))[::15])
    print(f"{played} schedules")
    assert played > 8_000


@pytest.mark.parametrize("length", [3, 4, 5])
def test_longer_plans_and_a_crash_at_every_point(length: int) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    some = chance.sample(list(scripts(length)), 80)
    played = sum(every_schedule(script, crashes=1) for script in some)
    print(f"{played} schedules")
    assert played > 1_500


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_triples_of_crashes(length: int) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    some = chance.sample(list(scripts(length)), 40)
    played = sum(sampled_schedules(script, 3, 20, chance) for script in some)
    assert played == 800


def test_a_run_that_was_copied_goes_on_as_one_played_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `every_schedule` plays by copies is what `play` plays, and nothing is played twice."""
    copies: dict[tuple[int, ...], World] = {}
    rightly = World.play

    def noting(world: World, *, fork: bool = False) -> Outcome:
        outcome = rightly(world, fork=fork)
        copies[world.schedule] = world
        return outcome

    chance = random.Random(SEED)
    for script in chance.sample([script for length in (1, 2, 3, 4) for script in scripts(length)], 8):
        copies.clear()
        with monkeypatch.context() as patch:
            patch.setattr(World, "play", noting)
            played = every_schedule(script, crashes=2)
        assert played == len(copies) - 1 > 50
        for schedule in chance.sample(sorted(copies), 40):
            alone = play(script, schedule, None)
            assert (alone.journal, alone.points) == (copies[schedule].journal, copies[schedule].points)
            assert vars(alone.judge) == vars(copies[schedule].judge)


def test_every_script_is_another_one_and_has_a_name() -> None:
    every = list(scripts(3))
    assert len(set(every)) == len(every)
    assert named(name_of(every[77], (3, 9))) == (every[77], (3, 9))
    assert named(name_of(every[0], ())) == (every[0], ())


def test_the_campaign_plays_as_many_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--count", "3000", "--seed", "7", "--jobs", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "seed 7, 1 processes"
    parts = [int(line.split(" schedules: ")[0]) for line in said[1:-1]]
    assert all(parts), said
    assert int(said[-1].split(" schedules in ")[0]) == sum(parts) >= 3_000


def test_the_campaign_names_the_schedule_that_broke_a_promise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        FAULTS["a step skipped after a crash"][0](patch)
        assert campaign.main(["--count", "100", "--seed", "7", "--jobs", "1"]) == 1
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith("error: invariant ")
        name = said[-1].removeprefix("again: python -m tests.campaigns.schedules --only ")
        assert campaign.main(["--only", name]) == 1
        assert capsys.readouterr().err.splitlines() == said
    assert campaign.main(["--only", name]) == 0
    assert "StepStarted" in capsys.readouterr().out


def test_a_campaign_of_nothing_is_an_error() -> None:
    with pytest.raises(SystemExit) as told:
        campaign.main(["--count", "0"])
    assert told.value.code == 2


# The judge has power: each fault that is planted here is found, and by the invariant that it breaks. Nearly all of them
# would pass a comparison with a run without crashes, which has the same fault.

Plant = Callable[[pytest.MonkeyPatch], None]


def fold_instead(
    event_type: type[Any], fault: Callable[[RunState, Any, Callable[[RunState, Any], None]], None]
) -> Plant:
    """Have a fault where an event is folded; it is given what folds it rightly."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        rightly = FOLD[event_type]
        patch.setitem(FOLD, event_type, lambda state, event: fault(state, event, rightly))

    return plant


def decide_instead(fault: Callable[[RunState, Decision], Decision]) -> Plant:
    """Have a fault in what is decided."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        rightly = decide
        patch.setattr(loop, "decide", lambda state, now: fault(state, rightly(state, now)))

    return plant


def begin_undoing_with_the_first(state: RunState, decision: Decision) -> Decision:
    events, action = decision
    if isinstance(action, RunRollback) and state.rollback is None and len(state.undoable) > 1:
        first = state.undoable[0]
        wrong = action.started._replace(step=first.step, position=first.position)
        return [*events[:-1], wrong], action._replace(started=wrong)
    return decision


def retarget(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    assert state.rollback is not None
    state.rollback.todo.reverse()


def open_the_gate(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event._replace(gated=False))


def wait_at_no_gate(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    state.gate, state.pending_step, state.status = 0, None, WorkflowStatus.RUNNING
    state.index += 1


def run_a_completed_step_again(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    if state.in_flight is None and state.index and state.rollback is None and not state.attention:
        state.index -= 1


def undo_all_but_the_first(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    assert state.rollback is not None
    if len(state.rollback.todo) > 1:
        del state.rollback.todo[0]


def forget_the_rollback_at_a_takeover(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    if state.undoing is not None:
        state.rollback, state.undoing, state.step_failed, state.attention = None, None, False, False
        state.cancelling, state.rejected = None, False


def undo_twice(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    undone = state.rollback.todo[-1] if state.rollback else None
    rightly(state, event)
    if state.rollback and undone and state.rollback_visits[undone.step] == 1:
        state.rollback.todo.append(undone)


def forget_the_interrupted(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    state.undoable.pop()


def go_on_after_a_halt(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    state.settings = state.settings._replace(on_rollback_failure="continue")
    rightly(state, event)


def hush_up_a_failed_rollback(state: RunState, decision: Decision) -> Decision:
    events, action = decision
    done = [event._replace(complete=True) if isinstance(event, ev.RollbackFinished) else event for event in events]
    return done, action


def start_without_a_record(state: RunState, decision: Decision) -> Decision:
    events, action = decision
    return [event for event in events if not isinstance(event, ev.StepStarted)], action


def a_new_visit_after_a_crash(state: RunState, decision: Decision) -> Decision:
    events, action = decision
    if isinstance(action, RunStep) and action.started.attempt > 1:
        again = action.started._replace(visit=action.started.visit + 1, attempt=1)
        return [*events[:-1], again], RunStep(again)
    return decision


def the_first_attempt_after_a_crash(state: RunState, decision: Decision) -> Decision:
    events, action = decision
    if isinstance(action, RunRollback) and action.started.attempt > 1:
        again = action.started._replace(attempt=1)
        return [*events[:-1], again], action._replace(started=again)
    return decision


def skip_a_step_after_a_crash(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    if state.in_flight is not None:
        state.in_flight = None
        state.index += 1


def forget_a_cancel(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    if state.in_flight is None:
        rightly(state, event)


def go_on_in_a_pause(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    rightly(state, event)
    state.status, state.attention = WorkflowStatus.RUNNING, False


def forget_the_owed_rollback(state: RunState, decision: Decision) -> Decision:
    events, _ = decision
    if any(isinstance(event, ev.RollbackStarted) for event in events):
        return [ev.WorkflowFailed(events[-1].at)], Stop()
    return decision


def retry_from_the_start(patch: pytest.MonkeyPatch) -> None:
    rightly = commands.retry

    def retry(state: RunState, now: int, actor: str | None) -> list[Event]:
        return [event._replace(from_index=0) for event in rightly(state, now, actor) if isinstance(event, ev.Retried)]

    patch.setattr(commands, "retry", retry)


FAULTS: dict[str, tuple[Plant, str]] = {
    "wrong order of undoing": (fold_instead(ev.RollbackStarted, retarget), "6 exactly, in reverse"),
    "wrong order from the first on": (decide_instead(begin_undoing_with_the_first), "6 exactly, in reverse"),
    "a gate passed": (fold_instead(ev.StepSucceeded, open_the_gate), "9 gate"),
    "a gate not waited at": (fold_instead(ev.ApprovalRequested, wait_at_no_gate), "9 gate"),
    "a completed step run again": (fold_instead(ev.Claimed, run_a_completed_step_again), "1 never again"),
    "a rollback that skips a step": (fold_instead(ev.RollbackStarted, undo_all_but_the_first), "6 exactly|7 visible"),
    "forward in a rollback": (fold_instead(ev.Claimed, forget_the_rollback_at_a_takeover), "6 never forward"),
    "undone twice": (fold_instead(ev.RollbackStepSucceeded, undo_twice), "6 exactly, in reverse|6 at most once"),
    "an interrupted step not undone": (fold_instead(ev.StepInterrupted, forget_the_interrupted), "6 exactly"),
    "no halt": (fold_instead(ev.RollbackStarted, go_on_after_a_halt), "7 halt"),
    "a failed rollback hushed up": (decide_instead(hush_up_a_failed_rollback), "7 visible"),
    "an effect before its record": (decide_instead(start_without_a_record), "2 durable before|1 never again"),
    "a new key after a crash": (decide_instead(a_new_visit_after_a_crash), "2 only in flight"),
    "an attempt counted twice": (decide_instead(the_first_attempt_after_a_crash), "2 only in flight"),
    "a step skipped after a crash": (
        fold_instead(ev.Claimed, skip_a_step_after_a_crash),
        "11 in order|11 complete|2 only in flight",
    ),
    "a cancel forgotten": (fold_instead(ev.CancelRequested, forget_a_cancel), "6 never forward|11 same end"),
    "no pause": (fold_instead(ev.Paused, go_on_in_a_pause), "6 over"),
    "an owed rollback forgotten": (decide_instead(forget_the_owed_rollback), "6 exactly|11 same end"),
    "a retry that does all again": (retry_from_the_start, "1 never again"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, invariant = FAULTS[fault]
    plant(monkeypatch)
    with pytest.raises(Violation, match=f"^invariant ({invariant})"):
        sum(every_schedule(script, crashes=1) for length in (1, 2, 3) for script in scripts(length))
