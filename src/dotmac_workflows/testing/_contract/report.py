"""What a check found, as a table and as an error."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

_Outcome: TypeAlias = Literal["held", "broken", "not applicable"]

_WIDTH = 100


@dataclass(frozen=True)
class CheckedClause:
    """What `check_persistence` found of one clause of the contract."""

    name: str
    """What it promises."""
    outcome: _Outcome
    """Whether it does."""
    calls: int
    """How many calls of the backend it was checked by."""
    note: str = ""
    """Of one that held, what else there is to say; of one that is not applicable, why."""


@dataclass(frozen=True)
class PersistenceReport:
    """What `check_persistence` found; as a text, a table."""

    backend: str
    """The name of the backend's class."""
    capabilities: tuple[str, ...]
    """What it claims: ``Persistence``, and of ``Leases``, ``Queries`` and ``Checks`` those that it has."""
    clauses: tuple[CheckedClause, ...]
    """Every clause, in the order in which they were checked."""

    @property
    def calls(self) -> int:
        """How many calls of the backend were made in all."""
        return sum(clause.calls for clause in self.clauses)

    def __str__(self) -> str:
        not_applicable = self._of("not applicable")
        counts = [f"{len(self._of('held'))} clauses held"]
        counts += [f"{len(self._of('broken'))} broken"] if self._of("broken") else []
        counts += [f"{len(not_applicable)} not applicable"] if not_applicable else []
        lines = [f"{self.backend} ({', '.join(self.capabilities)}): {', '.join(counts)}, {self.calls:,} calls", ""]
        width = max(len(clause.name) for clause in self.clauses)
        for clause in self.clauses:
            if clause.outcome != "not applicable":
                calls = f"{clause.calls:>5,} call{'' if clause.calls == 1 else 's'}"
                lines.append(f"  {clause.outcome:<6}  {clause.name:<{width}}  {calls:<11}  {clause.note}".rstrip())
        for reason in dict.fromkeys(clause.note for clause in not_applicable):
            lines += ["", f"  not applicable, since {reason}:"]
            lines += [f"          {clause.name}" for clause in not_applicable if clause.note == reason]
        return "\n".join(lines)

    def _of(self, outcome: _Outcome) -> tuple[CheckedClause, ...]:
        return tuple(clause for clause in self.clauses if clause.outcome == outcome)


class Finding(NamedTuple):
    """A broken clause, told."""

    name: str
    """See `Clause.name`; so with `rule`, `why` and `remedy`."""
    rule: str
    why: str
    expected: str
    """What was to come."""
    happened: str
    """What came."""
    calls: tuple[str, ...]
    """The calls that show it, with what they answered."""
    remedy: str

    def __str__(self) -> str:
        parts = [
            _part("rule", self.rule),
            _part("why", self.why),
            _part("expected", self.expected),
            _part("happened", self.happened),
            *(_part("calls" if not n else "", call, more="    ") for n, call in enumerate(self.calls)),
            _part("remedy", self.remedy),
        ]
        return "\n".join([self.name, *parts])


class PersistenceContractError(AssertionError):
    """A backend breaks the contract. The message lists every broken clause, with the calls that show it."""

    report: PersistenceReport
    """What was found of every clause."""
    broken: tuple[str, ...]
    """The names of the broken clauses."""

    def __init__(self, message: str, *, report: PersistenceReport, broken: tuple[str, ...]) -> None:
        super().__init__(message)
        self.report = report
        self.broken = broken


def contract_error(report: PersistenceReport, findings: Sequence[Finding]) -> PersistenceContractError:
    """Build the error that tells of all that is broken."""
    clauses = "a clause" if len(findings) == 1 else f"{len(findings)} clauses"
    paragraphs = [
        f"{report.backend} breaks {clauses} of the contract of a backend; {len(report._of('held'))} held, "
        f"{len(report._of('not applicable'))} are not applicable.",
        *(f"{n}. {finding}" for n, finding in enumerate(findings, 1)),
    ]
    if len(findings) > 1:
        paragraphs.append("Begin with the first: others may follow from it.")
    broken = tuple(finding.name for finding in findings)
    return PersistenceContractError("\n\n".join(paragraphs), report=report, broken=broken)


def _part(title: str, text: str, more: str = "") -> str:
    begin = f"   {title + ':' if title else '':<10}"
    indent = " " * len(begin) + more
    return textwrap.fill(text, _WIDTH, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False)
