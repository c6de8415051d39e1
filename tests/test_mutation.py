"""Mutation testing itself: that it notices what it must, and that its list of survivors is about the code at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dotmac_workflows
from mutation import survivors

SOURCE = Path(dotmac_workflows.__file__).parent
TOP = Path(__file__).parents[1]


def without_indentation(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize("survivor", survivors.listed(), ids=lambda survivor: f"{survivor.module}:{survivor.function}")
def test_a_listed_survivor_is_about_the_code_at_hand(survivor: survivors.Survivor) -> None:
    code = without_indentation((SOURCE / survivor.module).read_text(encoding="utf-8"))
    changed = without_indentation(survivor.before)
    assert any(code[at : at + len(changed)] == changed for at in range(len(code))), "it is gone: take it off the list"
    assert survivor.after != survivor.before
    assert survivor.why.strip()


def test_no_survivor_is_listed_twice() -> None:
    listed = [survivor._replace(why="") for survivor in survivors.listed()]
    assert [survivor for survivor in listed if listed.count(survivor) > survivor.times] == []


PLANTED = [
    # What is changed, what it is changed to, what becomes of it.
    (
        "_core/decide.py",
        "_turn_round",
        "is not None or state.rejected\n        events",
        "is not None\n        events",
        "survived",
    ),
    ("_core/decide.py", "_turn_round", "if cancelled else", "if not cancelled else", "killed"),
    ("_core/state.py", "", "ev.CancelRequested: _cancel_requested", "ev.CancelRequested: _claimed", "killed"),
    ("_core/state.py", "", "rollback: Rollback | None = None", "rollback: Any = Rollback", "killed"),
    ("_core/state.py", "", "gates: int = 0\n", "gates: int = 1\n", "survived"),
    (
        "_core/state.py",
        "_claimed",
        "    state.owner = event.owner",
        "    # unowned\n    state.owner = event.owner",
        "same",
    ),
    (
        "_core/state.py",
        "_step_failed",
        "    state.in_flight = None\n    state.results.append(event.result)\n    if",
        "    while True: pass\n    if",
        "timeout",
    ),
]

RUN = """
import json, sys
from functools import partial
from pathlib import Path
from mutation import trying

trying.PATIENCE = 2.0
scratch, changes = json.loads(sys.argv[1])
outcomes = {}
trying.try_all(
    [trying.Change(module, function, partial(str, text)) for module, function, text in changes],
    ["tests/core/test_turning_round.py"],
    jobs=2,
    limits=[60.0],
    told=outcomes.__setitem__,
    scratch=Path(scratch),
    known={},
    measured=lambda costs: None,
)
print(json.dumps([outcomes[number].verdict for number in range(len(changes))]))
"""


def planted(module: str, before: str, after: str) -> str:
    text = (SOURCE / module).read_text(encoding="utf-8")
    assert text.count(before) == 1, before
    return text.replace(before, after)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_planted_mutant_is_noticed_and_one_that_no_test_can_see_survives(tmp_path: Path) -> None:
    changes = [(module, function, planted(module, before, after)) for module, function, before, after, _ in PLANTED]
    ran = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([str(tmp_path), changes])],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP / "src"), str(TOP / "tests")])},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert json.loads(ran.stdout.splitlines()[-1]) == [verdict for *_, verdict in PLANTED]
