"""The command that proves a workflow: loads a scenario, shows how far it is, and tells what held or what broke."""

import argparse
import contextlib
import time
import traceback
from typing import Any

from ..testing import ProofError, Report, Scenario
from ..testing import prove as prove_scenario
from .context import Context
from .exits import DONE, FAILED
from .loading import find
from .quiet import can_be_quiet
from .terminal import Styled, Terminal, clean, wrap

_EVERY = 0.1  # seconds between two words of progress
_VALUES = 38  # the column where a report's values stand


def prove(context: Context) -> int:
    """Run a scenario under every schedule; what its steps write is dropped, unless ``--debug`` asks for it."""
    arguments = context.arguments
    out, shown = context.out, context.progress  # before others see other streams
    try:
        with can_be_quiet() as quiet:
            scenario = _load_scenario(arguments.scenario)
            with contextlib.nullcontext() if arguments.debug else quiet():
                report = _proved(scenario, arguments, _Progress(shown))
    except ProofError as error:
        if arguments.json:
            context.print_json(_failure(error))
        else:
            again = context.commands()("prove", arguments.scenario, "--schedule", error.schedule)
            _show_failure(out, error, again)
        if arguments.debug and error.__cause__ is not None:
            for line in "".join(traceback.format_exception(error.__cause__)).splitlines():
                context.err.line(line)
        return FAILED
    if arguments.json:
        context.print_json(_held(report))
    else:
        _show_report(out, report)
    return DONE


def _proved(scenario: Scenario[Any], arguments: argparse.Namespace, progress: "_Progress") -> Report:
    return prove_scenario(
        scenario,
        budget=arguments.budget,
        seed=arguments.seed,
        only=arguments.schedule,
        without=arguments.without,
        progress=progress.tell,
    )


def _load_scenario(spec: str) -> Scenario[Any]:
    named = find(spec, "SCENARIO", "tests.proofs:order")
    found = named.found
    if callable(found) and not isinstance(found, type):
        found = named.called()
    if isinstance(found, Scenario):
        return found
    known = [name for name, value in vars(named.module).items() if isinstance(value, Scenario)]
    raise named.wrong("scenario", known, "give a dotmac_workflows.testing.Scenario, or a function that returns one")


class _Progress:
    """One line that is written over; on a terminal only."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._began = self._told = time.monotonic()

    def tell(self, run: int, planned: int) -> None:
        """Tell how many schedules were run, and how many there will be, as far as is known."""
        now = time.monotonic()
        if now - self._told >= _EVERY:
            self._told = now
            self._terminal.begin(f"{run:,} of {planned:,} schedules, {run / (now - self._began):,.0f} a second")


def _show_report(out: Terminal, report: Report) -> None:
    first, *rest = str(report).splitlines()
    out.line(Styled(first, "good"))
    for line in rest:
        _write(out, line, hang=_VALUES if line[2:3].strip() else 6)


def _show_failure(out: Terminal, error: ProofError, again: str) -> None:
    out.line(Styled(error.scenario, "bold"), " ", Styled("does not hold.", "bad"))
    out.line()
    _write(out, error.headline, "bold")
    for line in error.details:
        _write(out, f"  {line}", "bad")
    if error.advice:
        out.line()
        _write(out, error.advice)
    out.line()
    out.line("What happened:")
    for line in error.timeline:
        # What strikes is written in capitals; the rest is how things should go.
        struck = line.split()[0].isupper()
        _write(out, f"  {line}", "bad" if struck else "dim")
    out.line()
    out.line("Once more:")
    out.line("  ", Styled(again, "bold"))


def _write(out: Terminal, text: str, style: str = "", hang: int | None = None) -> None:
    """Write a line, broken where the terminal is too narrow, the rest of it further in."""
    shown = clean(text)
    lead = len(shown) - len(shown.lstrip())
    further = (lead + 2 if lead else 0) if hang is None else hang
    if out.width is None or len(shown) <= out.width:
        out.line(Styled(shown, style))
        return
    head = shown[:further] if hang is not None and lead < hang else shown[:lead]
    first, *rest = wrap(shown[len(head) :], max(20, out.width - max(further, len(head))))
    out.line(Styled(head + first, style))
    for line in rest:
        out.line(Styled(" " * further + line, style))


def _held(report: Report) -> dict[str, Any]:
    rounds = [part._asdict() for part in report.rounds]
    return {"scenario": report.scenario, "holds": True} | vars(report) | {"rounds": rounds}


def _failure(error: ProofError) -> dict[str, Any]:
    names = ("scenario", "schedule", "headline", "details", "advice", "timeline")
    return {"holds": False} | {name: getattr(error, name) for name in names}
