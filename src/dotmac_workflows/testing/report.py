"""What `prove` answers: a report of what was run, or the error that tells of what broke."""

from dataclasses import dataclass
from typing import NamedTuple


class Round(NamedTuple):
    """Schedules of one kind."""

    name: str
    run: int
    """How many were run."""
    total: int
    """How many there are."""
    exact: bool = True
    """Whether there are just that many; else at least, as those that would tell were not all run."""


@dataclass(frozen=True)
class Report:
    """What `prove` ran, all of which held. ``str(report)`` is a table."""

    scenario: str
    """Its name."""
    schedules: int
    """How many schedules were run."""
    points: int
    """How many points there were, over all courses, where a process could die."""
    struck: int
    """How many of them a fault struck."""
    rounds: tuple[Round, ...]
    """The schedules by kind."""
    steps: dict[str, int]
    """How often each step ran, over all schedules."""
    rollbacks: dict[str, int]
    """How often the rollback of each step ran."""
    gates: tuple[str, ...]
    """The steps behind which a run waited for an approval."""
    not_covered: tuple[str, ...]
    """What was not looked at, and why."""
    seed: int
    """What the samples were drawn by."""
    seconds: float
    """How long it took."""

    def __str__(self) -> str:
        rate = f"{self.schedules / self.seconds:,.0f} a second" if self.seconds else "at once"
        number = f"{self.schedules:,} schedules"
        all_of_them = all(part.run == part.total and part.exact for part in self.rounds)
        held = f"every one of {number} held" if all_of_them else f"{number} were run, and all held"
        lines = [f"{self.scenario}: {held} ({self.seconds:.1f} s, {rate})", ""]
        lines += [
            f"  {part.name:<26}{part.run:>8,}{'' if part.run == part.total and part.exact else self._drawn(part)}"
            for part in self.rounds
        ]
        struck = "" if self.struck == self.points else f", {self.struck:,} of them struck"
        lines += [
            "",
            f"  {'points to die at':<26}{self.points:>8,}{struck}",
            f"  {'steps run':<26}{sum(self.steps.values()):>8,}  {', '.join(self.steps) or '-'}",
            f"  {'rollbacks run':<26}{sum(self.rollbacks.values()):>8,}  {', '.join(self.rollbacks) or '-'}",
            f"  {'gates':<26}{len(self.gates):>8,}  {', '.join(self.gates) or '-'}",
        ]
        lines += ["", "  Not covered:", *(f"    {what}" for what in self.not_covered)] if self.not_covered else []
        return "\n".join(lines)

    def _drawn(self, part: Round) -> str:
        return f" of {'' if part.exact else 'at least '}{part.total:,}, drawn by seed {self.seed}"


class ProofError(AssertionError):
    """A schedule breaks the workflow; the message tells which, how, and what to do.

    Attributes:
        scenario: The name of the scenario.
        schedule: The schedule, for ``prove(..., only=...)``.
        headline: What happened, in a sentence or two.
        details: What is wrong, a line each.
        advice: What to do.
        timeline: What happened in the run, a line each.
    """

    __module__ = "dotmac_workflows.testing"  # where users import it from, and what tracebacks call it

    def __init__(
        self,
        scenario: str,
        schedule: str,
        headline: str,
        details: tuple[str, ...],
        advice: str,
        timeline: tuple[str, ...],
    ) -> None:
        super().__init__(scenario, schedule, headline, details, advice, timeline)
        self.scenario = scenario
        self.schedule = schedule
        self.headline = headline
        self.details = details
        self.advice = advice
        self.timeline = timeline

    def __str__(self) -> str:
        lines = [f"{self.scenario} does not hold.", "", self.headline, *(f"  {line}" for line in self.details), ""]
        lines += [self.advice, ""] if self.advice else []
        lines += ["What happened:", *(f"  {line}" for line in self.timeline), ""]
        lines += [f"Once more: prove(..., only={self.schedule!r})"]
        return "\n".join(lines)
