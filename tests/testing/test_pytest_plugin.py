"""The pytest plugin: what somebody sees who has the package installed, in runs of pytest of their own."""

import inspect
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from dotmac_workflows.integrations import pytest_plugin
from dotmac_workflows.testing import prove

pytest_plugins = ["pytester"]

SOURCE = Path(__file__).parents[2] / "src"
SHOP = """
from dotmac_workflows import Workflow, WorkflowResult
from dotmac_workflows.testing import ProofError, Scenario, prove as plain_prove


class Shop:
    def __init__(self):
        self.charges = []

    def charge(self, amount):
        self.charges.append(amount)


class Order(Workflow):
    def __init__(self, workflow_id, shop, persistence):
        super().__init__(workflow_id, ["charge"], persistence=persistence)
        self.shop = shop


class Faulty(Order):
    async def execute_step(self, step):
        self.shop.charge(50)
        return WorkflowResult(True, step)


class Good(Order):
    async def execute_step(self, step):
        self.shop.charges = [50]
        return WorkflowResult(True, step)


def scenario(kind, **more):
    return Scenario(world=Shop, workflow=lambda shop, id, db: kind(id, shop, db), **more)
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run of pytest, in this process, over tests of the shop, with this plugin and no other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(plugin_shop=SHOP)
    pytester.syspathinsert()

    def run(tests: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_shop=f"from plugin_shop import *\n\n{tests}")
        return pytester.runpytest_inprocess("-W", "error", *options, plugins=[pytest_plugin])

    return run


GOOD = "def test_good(prove):\n    prove(scenario(Good), budget=9)\n"
FAULTY = "def test_faulty(prove):\n    prove(scenario(Faulty))\n"


def test_a_proof_that_holds_is_a_line_at_the_end(run: Run) -> None:
    ended = run(f"{GOOD}\ndef test_other():\n    pass\n")
    ended.assert_outcomes(passed=2)
    ended.stdout.re_match_lines(
        [
            r"=+ proofs =+",
            r"test_shop\.py::test_good  Good: [\d,]+ schedules held, \d+ of \d+ points struck",
            r"$",
            r"=.* 2 passed",
        ],
        consecutive=True,
    )
    assert "not covered" not in ended.stdout.str()


def test_what_is_not_covered_is_told_with_v(run: Run) -> None:
    ended = run(GOOD, "-v")
    ended.stdout.fnmatch_lines(["    not covered: gates: no step of the clean run asks for an approval"])


def test_q_says_nothing_and_no_proof_is_no_section(run: Run) -> None:
    assert "proofs" not in run(GOOD, "-q").stdout.str()
    assert "proofs" not in run("def test_other():\n    pass\n").stdout.str()


def test_a_proof_that_fails_shows_the_test_the_message_and_nothing_of_ours(run: Run) -> None:
    ended = run(FAULTY)
    ended.assert_outcomes(failed=1)
    shown = ended.stdout.str()
    (failure,) = shown.split("____ test_faulty ____")[1:]
    ended.stdout.fnmatch_lines(
        [
            "    def test_faulty(prove):",
            ">       prove(scenario(Faulty))",
            "E       dotmac_workflows.testing.ProofError: Faulty does not hold.",
            "E         the world shows  charges is [[]50, 50[]]",
            "E         and should show  charges is [[]50[]]",
            "E       In pytest:  pytest test_shop.py::test_faulty --prove-schedule 'clean crash@*'",
            "test_shop.py:4: ProofError",
        ]
    )
    assert "src/dotmac_workflows" not in failure
    assert "asyncio" not in failure
    assert "schedules held" not in shown


def test_prove_without_the_fixture_reads_as_well(run: Run) -> None:
    ended = run("def test_faulty():\n    plain_prove(scenario(Faulty))\n")
    ended.assert_outcomes(failed=1)
    ended.stdout.fnmatch_lines([">       plain_prove(scenario(Faulty))", "test_shop.py:4: ProofError"])
    assert "src/dotmac_workflows" not in ended.stdout.str()


def test_a_check_that_does_not_hold_shows_its_own_line(run: Run) -> None:
    ended = run(
        "def check(shop, order):\n    assert shop.charges == [50], 'one charge'\n\n"
        "def test_check(prove):\n    prove(scenario(Good, check=check))\n"
    )
    ended.stdout.fnmatch_lines([">       assert shop.charges == [[]50[]], 'one charge'", "*prove(scenario(Good, *"])
    assert "_stage" not in ended.stdout.str()


def test_the_error_can_be_caught_in_a_test(run: Run) -> None:
    run(
        "import pytest\n\ndef test_faulty(prove):\n"
        "    with pytest.raises(ProofError) as caught:\n        prove(scenario(Faulty), budget=50)\n"
        "    assert caught.value.schedule.startswith('clean crash@')\n"
    ).assert_outcomes(passed=1)


def test_the_schedule_that_the_message_names_runs_just_that_one(run: Run) -> None:
    ended = run(FAULTY)
    (schedule,) = {
        line.partition("--prove-schedule ")[2].strip("'") for line in ended.outlines if "--prove-schedule" in line
    }
    again = run(FAULTY, "--prove-schedule", schedule)
    again.assert_outcomes(failed=1)
    assert f"--prove-schedule '{schedule}'" in again.stdout.str()
    run(GOOD, "--prove-schedule", schedule).stdout.re_match_lines([r".*Good: \d schedules held"])


def test_options_have_the_last_word(run: Run) -> None:
    asked = (
        "def test_asked(prove):\n    report = prove(scenario(Good), budget={budget}, seed=1)\n"
        "    assert (sum(r.run for r in report.rounds[1:]), report.seed) == ({run}, {seed})\n"
    )
    run(asked.format(budget=20, run=20, seed=1)).assert_outcomes(passed=1)
    run(asked.format(budget=20, run=30, seed=7), "--prove-budget", "30", "--prove-seed", "7").assert_outcomes(passed=1)
    wrong = run(GOOD, "--prove-budget", "0")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.fnmatch_lines(["*--prove-budget: 0 is no number from 1*"])


def test_the_fixture_takes_what_prove_takes() -> None:
    """And its options mean the same where they are left out."""
    taken = [
        [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]
        for function in (pytest_plugin.Prove.__call__, prove)
    ]
    assert taken[0][0][0] == "self"
    assert taken[0][1:] == taken[1]


def test_progress_is_told_to_whoever_asks_for_it(run: Run) -> None:
    run(
        "def test_good(prove):\n    told = []\n"
        "    report = prove(scenario(Good), progress=lambda *numbers: told.append(numbers))\n"
        "    assert told == [(64 * n, planned) for n, (_, planned) in enumerate(told, 1)]\n"
        "    assert told[-1][1] == report.schedules\n"
    ).assert_outcomes(passed=1)


def test_in_a_coroutine_of_pytest_asyncio(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    run(f"async {GOOD}", "-p", "pytest_asyncio.plugin").assert_outcomes(passed=1)


def test_a_proof_is_a_property_in_junit(pytester: pytest.Pytester, run: Run) -> None:
    """Which is how it comes from the processes of pytest-xdist, too."""
    run(GOOD, "--junitxml=junit.xml")
    written = (pytester.path / "junit.xml").read_text()
    assert '<property name="dotmac_workflows proof" value="Good: ' in written


def test_the_entry_point_loads_it_and_nothing_that_proves(pytester: pytest.Pytester) -> None:
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((name, module),) = project["entry-points"]["pytest11"].items()
    assert EntryPoint(name, module, "pytest11").load() is pytest_plugin
    # A distribution as an installer leaves it, before whatever is installed here.
    installed = pytester.mkdir("installed") / "dotmac_workflows-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: dotmac-workflows\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    pytester.makeconftest(
        "import sys\n\ndef pytest_unconfigure():\n    print()\n"
        "    print('loaded:', *sorted(n for n in sys.modules if n.startswith('dotmac_workflows.')))\n"
    )
    pytester.makepyfile(test_shop="def test_other():\n    pass\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{installed.parent}:{SOURCE}")
        ended = pytester.runpytest_subprocess("-W", "error", "-p", "no:asyncio")
        without = pytester.runpytest_subprocess("-p", f"no:{name}", "--prove-seed", "1")
    ended.assert_outcomes(passed=1)
    (loaded,) = (line.split()[1:] for line in ended.outlines if line.startswith("loaded:"))
    assert module in loaded
    assert [name for name in loaded if name.startswith(("dotmac_workflows.testing", "dotmac_workflows.cli"))] == []
    without.stderr.fnmatch_lines(["*unrecognized arguments: --prove-seed*"])
