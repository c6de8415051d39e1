"""`prove` in pytest: a fixture, options that hold for all proofs of a run, and a line for each proof at the end.

    def test_order(prove):
        prove(scenario)

Loaded in every run of pytest where the package is installed, so nothing that proves is imported until a test does. What
a proof came to travels in the test's report, as one of its properties: from the processes of pytest-xdist too, and
into a JUnit file.
"""

import argparse
import shlex
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..testing import Report, Scenario

# The types of pytest are quoted below: older ones do not have them all, and must not fail for that.
_HELD, _NOT_COVERED = "dotmac_workflows proof", "dotmac_workflows not covered"


def pytest_addoption(parser: "pytest.Parser") -> None:
    """Add the options."""
    group = parser.getgroup("dotmac-workflows", "proofs of workflows (the fixture prove)")
    group.addoption("--prove-budget", type=_positive, metavar="N", help="at most N schedules a proof")
    group.addoption("--prove-seed", type=int, metavar="N", help="what the schedules are drawn by that a budget allows")
    group.addoption(
        "--prove-schedule", metavar="SCHEDULE", help='run this one schedule again, such as "clean crash@10"'
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 1")
    return int(text)


class Prove:
    """What the fixture is: `dotmac_workflows.testing.prove`, to which the command line has the last word."""

    def __init__(self, test: "pytest.Item", options: dict[str, Any]) -> None:
        self._test = test
        self._options = options

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"prove(...{options})"

    def __call__(
        self,
        scenario: "Scenario[Any]",
        *,
        budget: int = 10_000,
        seed: int = 0,
        only: str | None = None,
        without: Collection[str] = (),
        progress: Callable[[int, int], object] | None = None,
    ) -> "Report":
        """Run a scenario under every schedule; see `dotmac_workflows.testing.prove`."""
        __tracebackhide__ = True
        from ..testing import ProofError, prove

        asked: dict[str, Any] = {"budget": budget, "seed": seed, "only": only} | self._options
        try:
            report = prove(scenario, without=without, progress=progress, **asked)
        except ProofError as error:
            again = ["pytest", self._test.nodeid, "--prove-schedule", error.schedule]
            error.add_note(f"In pytest:  {shlex.join(again)}")
            raise
        points = f"{report.struck:,} of {report.points:,} points struck"
        held = f"{report.scenario}: {report.schedules:,} schedules held, {points}"
        # Not by the fixture record_property, which warns where the properties of a test are not in JUnit's schema.
        self._test.user_properties.append((_HELD, held))
        self._test.user_properties += [(_NOT_COVERED, what) for what in report.not_covered]
        return report


@pytest.fixture
def prove(request: "pytest.FixtureRequest") -> Prove:
    """Prove a workflow: ``prove(scenario)``; options as for dotmac_workflows.testing.prove."""
    names = {"budget": "prove_budget", "seed": "prove_seed", "only": "prove_schedule"}
    given = {name: request.config.getoption(option) for name, option in names.items()}
    options = {name: value for name, value in given.items() if value is not None}
    return Prove(request.node, options)


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Show a line for each proof that held, and with ``-v`` what it did not cover; nothing with ``-q``."""
    verbosity = terminalreporter.verbosity
    if verbosity < 0:
        return
    titled = False
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", None) != "call":
            continue
        for name, value in report.user_properties:
            if name == _HELD:
                if not titled:
                    terminalreporter.section("proofs")
                    titled = True
                terminalreporter.line(f"{report.nodeid}  {value}")
            elif name == _NOT_COVERED and verbosity > 0:
                terminalreporter.line(f"    not covered: {value}")
