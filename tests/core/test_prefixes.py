"""Invariant 12: what is folded of any prefix of a journal is what was live there, and what comes next is the same.

The campaign folds the same for as long as one likes: ``python -m tests.campaigns.prefixes --count 100000``.
"""

from collections import Counter
from collections.abc import Callable

import pytest

import dotmac_workflows._run.drive as loop
import random_workflows
from campaigns import prefixes as campaign
from dotmac_workflows._core import codec, state
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.actions import Decision
from dotmac_workflows._core.decide import decide
from dotmac_workflows._core.events import Event
from dotmac_workflows._core.state import FOLD, RunState
from dotmac_workflows.testing._judge import Violation
from dotmac_workflows.values import Codec
from random_workflows import fold_every_prefix

SEED = 20_261_125


def fold(count: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(SEED, SEED + count):
        counts.update(fold_every_prefix(seed)[1])
    return counts


def test_every_prefix_amounts_to_what_was_live_there() -> None:
    print(f"seed {SEED}")
    counts = fold(400)
    assert [kind for kind in campaign.KINDS if not counts[kind]] == []
    assert counts["prefixes"] > 8_000


# It has power: each fault that is planted here is found.

Plant = Callable[[pytest.MonkeyPatch], None]


def read_without_a_gate(patch: pytest.MonkeyPatch) -> None:
    """What is read back is not what was written."""
    rightly = codec.decode

    def read(kind: str, at: int, body: str, values: Codec) -> Event:
        event = rightly(kind, at, body, values)
        return event._replace(gated=False) if isinstance(event, ev.StepSucceeded) else event

    patch.setattr(codec, "decode", read)


def folded_by_what_was_folded_before(patch: pytest.MonkeyPatch) -> None:
    """A fold that keeps something of its own beside the state."""
    rightly, seen = FOLD[ev.StepStarted], [0]

    def started(run: RunState, event: ev.StepStarted) -> None:
        rightly(run, event)
        seen[0] += 1
        run.gates += seen[0] % 7 == 0

    patch.setitem(FOLD, ev.StepStarted, started)


def known_only_to_the_driver(patch: pytest.MonkeyPatch) -> None:
    """The driver sets something in its state that no event says."""
    rightly = decide

    def deciding(run: RunState, now: int) -> Decision:
        decision = rightly(run, now)
        if run.undoing is not None:
            run.approval_data = {"undone": True}
        return decision

    patch.setattr(loop, "decide", deciding)


def decided_by_writing(patch: pytest.MonkeyPatch) -> None:
    """`decide` changes the state that it is asked about."""
    rightly = decide

    def deciding(run: RunState, now: int) -> Decision:
        decision = rightly(run, now)
        run.visits["reserve"] = run.visits.get("reserve", 0) + 1
        return decision

    patch.setattr(random_workflows, "decide", deciding)


def a_list_of_two_states(patch: pytest.MonkeyPatch) -> None:
    """The fold changes what an event holds, which is folded again by others."""
    rightly = FOLD[ev.Approved]

    def approved(run: RunState, event: ev.Approved) -> None:
        event.data["times"] = event.data.get("times", 0) + 1
        rightly(run, event)

    patch.setitem(FOLD, ev.Approved, approved)


def a_step_that_is_found_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """Replaying sees a fault in a journal that is right."""
    patch.setattr(
        state,
        "_check_place",
        lambda run, event: None if run.steps.index(event.step) == event.position else run.results.clear(),
    )


FAULTS: dict[Plant, str] = {
    read_without_a_gate: "invariant 12 (read back|stored)",
    folded_by_what_was_folded_before: "invariant 12",
    known_only_to_the_driver: "invariant 12",
    decided_by_writing: "invariant 12 prefix",
    a_list_of_two_states: "invariant 12",
    a_step_that_is_found_elsewhere: "invariant 12",
}


@pytest.mark.parametrize("plant", FAULTS)
def test_a_planted_fault_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation, match=f"^{FAULTS[plant]}"):
        fold(100)


# The campaign.


def test_the_campaign_plays_as_many_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--count", "20", "--seed", "7", "--jobs", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "seed 7, 1 processes"
    assert said[-1].startswith("20 workflows in ")


def test_the_campaign_names_the_workflow_that_broke_a_promise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        decided_by_writing(patch)
        assert campaign.main(["--count", "60", "--seed", "7", "--jobs", "1"]) == 1
        *broken, again = capsys.readouterr().err.splitlines()
        seed = again.removeprefix("again: python -m tests.campaigns.prefixes --only ")
        assert campaign.main(["--only", seed]) == 1
        assert capsys.readouterr().err.splitlines() == broken
    assert campaign.main(["--only", seed]) == 0
    assert "WorkflowStarted" in capsys.readouterr().out
