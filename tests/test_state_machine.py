"""The public API does what a simple model says, whatever is called in whatever order (`state_machine`).

The campaign does the same for as long as one likes: ``python -m tests.campaigns.state_machine --count 2000``.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from campaigns import state_machine as campaign
from dotmac_workflows import SQLitePersistence, WorkflowStatus
from dotmac_workflows._core import commands
from dotmac_workflows._core.events import Event
from dotmac_workflows._core.state import RunState
from state_machine import Machine

FEW = settings(
    max_examples=30,
    stateful_step_count=25,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def run(machine: type[Machine], examples: settings = FEW) -> int:
    before = Machine.calls_made
    run_state_machine_as_test(machine, settings=examples)
    return Machine.calls_made - before


def test_the_api_does_what_the_model_says() -> None:
    assert run(Machine) > 300


def test_it_does_so_on_sqlite(tmp_path: Path) -> None:
    made = iter(range(10**6))

    class OnDisk(Machine):
        def open_store(self) -> SQLitePersistence:
            return SQLitePersistence(tmp_path / f"{next(made)}.db")

        def teardown(self) -> None:
            asyncio.run(self.store.store.close())
            super().teardown()

    assert run(OnDisk, settings(FEW, max_examples=6, stateful_step_count=15)) > 30


def anybody_is_the_same(rightly: Any) -> Any:
    def is_open(state: RunState, verdict: Any, actor: str | None, gate: int | None) -> bool:
        last = state.decisions[-1] if state.decisions else None
        return False if last is not None and not state.gate else rightly(state, verdict, actor, gate)

    return is_open


def for_nobody(rightly: Any) -> Any:
    def resume(state: RunState, now: int, actor: str | None) -> list[Event]:
        rightly(state, now, actor)
        return []

    return resume


def not_at_all(rightly: Any) -> Any:
    def pause(state: RunState, *arguments: Any, **keywords: Any) -> list[Event]:
        return [] if state.status is WorkflowStatus.RUNNING else rightly(state, *arguments, **keywords)

    return pause


@pytest.mark.parametrize(
    ("name", "fault"), [("_is_open", anybody_is_the_same), ("resume", for_nobody), ("pause", not_at_all)]
)
def test_a_planted_fault_is_found(name: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, name, fault(getattr(commands, name)))
    with pytest.raises(AssertionError):
        run(Machine, settings(FEW, max_examples=100))


def test_the_campaign_calls_as_often_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--count", "5", "--seed", "7"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("seed 7\n5 examples in ")
    assert int(said.split(" calls of verbs")[0].split()[-1]) > 20
