"""Every prefix of a journal amounts to the state that was live there (invariant 12), for random workflows.

The campaign does the same for as long as one likes: ``python -m tests.campaigns.prefixes --count 100000``.
"""

from collections.abc import Callable
from typing import Any

import pytest

from campaigns import prefixes
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.state import FOLD, RunState


def test_the_campaign_compares_every_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    assert prefixes.main(["--count", "300", "--seed", "7", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "seed 7" in said
    compared = int(said.split(" prefixes")[0].split()[-1])
    assert compared > 5_000
    assert compared == sum(prefixes.compare(f"7/{number}") for number in range(300))


def remembers_who(state: RunState, event: Any, rightly: Callable[[RunState, Any], None]) -> None:
    """Fold what was not read back, but was made here: a difference between the live and the folded."""
    rightly(state, event)
    if type(event.step) is _Live:
        state.owner = "the live one"


class _Live(str):
    """A text as only the process that made it has it."""


def test_a_state_that_only_the_live_run_has_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("crash_simulation.NAMES", tuple(_Live(f"step {number}") for number in range(12)))
    rightly = FOLD[ev.StepStarted]
    monkeypatch.setitem(FOLD, ev.StepStarted, lambda state, event: remembers_who(state, event, rightly))
    assert prefixes.main(["--count", "200", "--seed", "7", "--jobs", "1"]) == 1
    said = capsys.readouterr().err
    assert "again: python -m tests.campaigns.prefixes --only 7/0\n" in said


def test_a_campaign_of_nothing_is_an_error() -> None:
    with pytest.raises(SystemExit) as told:
        prefixes.main(["--count", "0"])
    assert told.value.code == 2
