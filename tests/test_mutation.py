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


# What is changed, in which function, and to what; what becomes of it.
PLANTED = [
    ("_core/decide.py", "_attend", "state.step_failed:", "state.step_failed and not state.gated:", "survived"),
    ("_core/decide.py", "_turn_round", "if cancelled else", "if not cancelled else", "killed"),
    ("_core/state.py", "", "ev.CancelRequested: _cancel_requested", "ev.CancelRequested: _claimed", "killed"),
    ("_core/state.py", "", "rollback: Rollback | None = None", "rollback: Any = Rollback", "killed"),
    ("_core/state.py", "", "gates: int = 0\n", "gates: int = 1\n", "survived"),
    ("_core/state.py", "_claimed", "state.owner = event.owner", "state.owner = event.owner  # alone", "same"),
    ("_core/state.py", "_claimed", "state.owner = event.owner", "while True: pass", "timeout"),
    ("_core/codec.py", "_kind", ".__name__).lower()", ".__name__)", "killed"),
    ("_core/codec.py", "seal", "return stored, row", "return event, row", "killed"),  # it has an assert
    ("_core/codec.py", "_kind", "(?<=[a-z])", "(?<=[a-zA-Z])", "survived"),
]  # fmt: skip

RUN = """
import json, sys
from functools import partial
from pathlib import Path
from mutation import trying

trying.PATIENCE = 2.0
file = Path(sys.argv[1])
outcomes = {}
trying.try_all(
    [trying.Change(module, function, partial(str, text)) for module, function, text in json.load(file.open())],
    [f"tests/core/test_{name}.py" for name in ("turning_round", "codec", "codec_shortcuts")],
    jobs=2,
    limits=[60.0],
    told=outcomes.__setitem__,
    scratch=file.parent,
    known={},
    measured=lambda costs: None,
)
print(json.dumps([outcomes[number].verdict for number in range(len(outcomes))]))
"""


def planted(module: str, before: str, after: str) -> str:
    text = (SOURCE / module).read_text(encoding="utf-8")
    assert text.count(before) == 1, before
    return text.replace(before, after)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_planted_mutant_is_noticed_and_one_that_no_test_can_see_survives(tmp_path: Path) -> None:
    pytest.importorskip("mutmut", reason="it is in the mutation extra only; .ci/run installs it")
    changes = [(module, function, planted(module, before, after)) for module, function, before, after, _ in PLANTED]
    file = tmp_path / "changes.json"
    file.write_text(json.dumps(changes), encoding="utf-8")
    assert json.loads(run(RUN, file)[-1]) == [verdict for *_, verdict in PLANTED]


def run(script: str, argument: object) -> list[str]:
    """Run a script in a process of its own, since forks and threads do not go together, and return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(argument)],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP / "src"), str(TOP / "tests")])},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return ran.stdout.splitlines()


DOUBTFUL = """
import json, sys
from functools import partial
from pathlib import Path
from mutation.trying import Change, Cost, Passes

def work(change, tests, out):
    for name in tests:
        out.write(f"{name}\\n")
        if name == "broken" or (name == "sound" and change.text() == "bad"):
            out.write("killed\\n")
            return
    out.write("survived\\n")

place = ("a.py", "f")
costs = {name: Cost(seconds, frozenset({place})) for name, seconds in [("broken", 0.1), ("sound", 0.2), ("slow", 3.0)]}
tried = [(place, "good"), (place, "bad"), (("a.py", "g"), "bad"), (("b.py", ""), "bad")]
changes = [Change(*where, partial(str, text)) for where, text in tried]
outcomes = {}
Passes(changes, 1, costs, outcomes.__setitem__, work, Path(sys.argv[1])).run([0, 1, 2, 3], [1.0, 5.0, 5.0])
print(json.dumps([outcomes[number] for number in range(4)]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_kills_nothing_is_no_kill(tmp_path: Path) -> None:
    """A test that fails without the change too; and there being no test at all."""
    ran = run(DOUBTFUL, tmp_path)
    assert ran == [
        "not used, since it fails without a change too: broken",
        json.dumps([["survived", "", 2], ["killed", "sound", 1], ["survived", "", 0], ["killed", "sound", 1]]),
    ]


MODULE = '''\
"""A module."""

from typing import TypeAlias

Number: TypeAlias = int | None
LIMIT = 3
SQL = "SELECT a FROM b"


class Till:
    """A class."""

    open: bool = False

    def pay(self, sum: int, times: int = 2) -> str:
        # Why.
        if sum > LIMIT:
            raise ValueError("too much to pay")
        return f"{sum}" + "!"
'''


def test_the_mutants_are_those_of_the_tool_and_what_is_left_out_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    making = pytest.importorskip("mutation.making", reason="mutmut is in the mutation extra only; .ci/run installs it")
    monkeypatch.setattr(making, "SOURCE", tmp_path)
    (tmp_path / "till.py").write_text(MODULE, encoding="utf-8")
    mutants = making.mutants("till.py")
    changes = {(mutant.function, mutant.change.before, mutant.change.after): mutant.left_out for mutant in mutants}
    assert (
        changes.items()
        >= {
            ("Till.pay", "if sum > LIMIT:", "if sum >= LIMIT:"): "",
            ("Till.pay", 'return f"{sum}" + "!"', 'return f"{sum}" - "!"'): "",
            ("Till.pay", 'return f"{sum}" + "!"', 'return f"{sum}" + "XX!XX"'): "",
            ("Till.pay", 'raise ValueError("too much to pay")', "raise ValueError(None)"): "",
            ("Till.pay", 'raise ValueError("too much to pay")', 'raise ValueError("TOO MUCH TO PAY")'): "wording",
            (
                "",
                "def pay(self, sum: int, times: int = 2) -> str:",
                "def pay(self, sum: int, times: int = 3) -> str:",
            ): "",
            ("", "LIMIT = 3", "LIMIT = 4"): "",
            ("", "open: bool = False", "open: bool = True"): "",
            ("", 'SQL = "SELECT a FROM b"', 'SQL = "select a from b"'): "case of SQL",
            ("", 'SQL = "SELECT a FROM b"', 'SQL = "XXSELECT a FROM bXX"'): "",
            ("", "Number: TypeAlias = int | None", "Number: TypeAlias = int & None"): "types",
        }.items()
    )
    assert not any("Why" in text or "A class" in text for _, *texts in changes for text in texts)
    for mutant in mutants:
        line, before, after = mutant.change
        lines = mutant.source.splitlines()
        assert [text.strip() for text in lines[line - 1 : line - 1 + after.count("\n") + 1]] == [
            text.strip() for text in after.split("\n")
        ]
        assert mutant.source.count("\n") - MODULE.count("\n") == after.count("\n") - before.count("\n")


def test_a_campaign_of_nothing_is_an_error() -> None:
    pytest.importorskip("mutmut", reason="mutmut is in the mutation extra only; .ci/run installs it")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.mutation", "--modules", "_core/__init__.py"],
        cwd=TOP,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (1, "error: there is nothing to try\n")
