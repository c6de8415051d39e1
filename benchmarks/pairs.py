"""Measuring in pairs: this library and a peer take turns (A B A B ...), and each A is compared with the B beside it.

A machine that does other things as well is twice as slow from one minute to the next. So what counts are ratios of
neighbours: of many of them the median stays where the figures themselves change by a factor of two.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks.catalogue import OURS, Peer
from benchmarks.environments import UnavailableError, python_of
from benchmarks.figures import Cell, Figures
from benchmarks.session import NotMeasuredError, Session
from benchmarks.sizes import Sizes


class Side(NamedTuple):
    """One of the two that take turns."""

    session: Session
    folder: Path
    """For its store; gone after the case."""


ENOUGH = 5
"""For so many pairs a case may take four times as long."""

Measured = dict[str, float]
"""The figures of one round by their names."""


@dataclass
class Bench:
    """One run of the benchmarks: what is asked for, and what was found."""

    folder: Path
    """On the disk that is measured."""
    environments: Path
    rounds: int
    """At most so many pairs a case."""
    seconds: float
    """No further pair of a case is begun after so long."""
    limit: float
    """A peer that takes longer for one task is not asked on."""
    sizes: Sizes
    figures: Figures = field(default_factory=Figures)
    quiet: bool = False
    _pythons: dict[str, Path] = field(default_factory=dict)

    def say(self, told: str) -> None:
        """Show progress."""
        if not self.quiet:
            print(told, file=sys.stderr, flush=True)

    def prepare(self, peers: list[Peer]) -> list[Peer]:
        """Install the peers, see each start, and return those that do; the others are named in the figures."""
        able = []
        for peer in peers:
            told = {"name": peer.name, "title": peer.title, "kind": peer.kind, "requirements": list(peer.requirements)}
            try:
                self.say(f"{peer.title}: {' '.join(peer.requirements) or 'nothing to install'}")
                self._pythons[peer.name] = python_of(peer, self.environments)
                with self.session(peer) as session:
                    told.update(session.about)
                    if session.about["durable"] is not None:
                        told.update(session.ask("settings", 60, folder=str(self.folder / f"settings-{peer.name}")))
                able.append(peer)
            except (UnavailableError, NotMeasuredError) as error:
                if peer is OURS:
                    raise
                told["missing"] = str(error)
                self.say(f"  left out: {error}")
            self.figures.peers.append(told)
        return able

    def session(self, peer: Peer) -> Session:
        """Start a process of a peer."""
        return Session(peer, self._pythons[peer.name])

    def python(self, peer: Peer) -> Path:
        """Return the Python of a peer."""
        return self._pythons[peer.name]

    def about(self, peer: Peer) -> dict[str, object]:
        """Return what a peer said of itself."""
        return next(told for told in self.figures.peers if told["name"] == peer.name)

    @contextmanager
    def sides(self, peer: Peer) -> Iterator[list[Side]]:
        """Start the processes of a comparison: this library's and the peer's, or only the former where it is both."""
        sides: list[Side] = []
        try:
            for number, one in enumerate([OURS] if peer == OURS else [OURS, peer]):
                sides.append(Side(self.session(one), self.folder / f"store-{number}"))
            yield sides
        finally:
            for side in sides:
                side.session.kill()
            self.clear()

    def clear(self) -> None:
        """Take away the stores."""
        for folder in self.folder.glob("store-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def compare(
        self,
        scenario: str,
        case: str,
        sides: list[Side],
        measure: Callable[[Side], Measured],
        *,
        more_is_better: str | None = None,
        once: bool = False,
    ) -> float:
        """Measure in turns, keep the pairs, and return how many seconds the slowest round of the peer took.

        The first round warms up and is not kept, unless there is no time for a second one.

        Args:
            scenario: Which it is.
            case: Of the scenario.
            sides: Those that take turns.
            measure: Does one round of one side.
            more_is_better: The name of the figure of which that is so.
            once: One round is enough: it is made of many, or does not change.

        Raises:
            NotMeasuredError: The peer gave nothing; that is kept too.
        """
        rounds, seconds = (1, 0.0) if once else (self.rounds, self.seconds)
        peer = sides[-1].session.peer
        cells: dict[str, Cell] = {}
        began, slowest, kept = time.monotonic(), 0.0, 0
        warm = False
        try:
            while kept < rounds:
                until = seconds if kept >= ENOUGH else 4 * seconds
                if kept and time.monotonic() - began + slowest > until:
                    break
                ours = _ours(measure, sides)
                started = time.monotonic()
                theirs = measure(sides[-1])
                slowest = max(slowest, time.monotonic() - started)
                if not warm and slowest < seconds / 4:
                    warm = True
                    continue
                for figure, value in theirs.items():
                    cell = cells.setdefault(figure, Cell(scenario, case, figure, peer.name, figure == more_is_better))
                    cell.values.append(_rounded(value))
                    if figure in ours:
                        cell.ours.append(_rounded(ours[figure]))
                kept += 1
        except NotMeasuredError as error:
            if not kept:
                self.missing(scenario, case, peer, str(error))
                raise
        self.figures.cells += cells.values()
        self.say(f"{scenario}, {case}: {peer.title}: {_shown(cells)}")
        return slowest

    def missing(self, scenario: str, case: str, peer: Peer, reason: str) -> None:
        """Keep why a peer has no figure."""
        if peer == OURS:
            raise RuntimeError(f"{scenario}, {case}: {reason}")
        self.figures.cells.append(Cell(scenario, case, "", peer.name, reason=reason))
        self.say(f"{scenario}, {case}: {peer.title}: n/a: {reason}")

    def afford(self, scenario: str, case: str, peer: Peer, expected: float) -> None:
        """See that a task is expected to stay within the limit of seconds.

        Raises:
            NotMeasuredError: It is not; that is kept as the reason.
        """
        if expected > self.limit and peer != OURS:
            reason = f"would take about {expected:,.0f} s, more than the limit of {self.limit:.0f} s"
            self.missing(scenario, case, peer, reason)
            raise NotMeasuredError(reason)


def _ours(measure: Callable[[Side], Measured], sides: list[Side]) -> Measured:
    if len(sides) == 1:
        return {}
    try:
        return measure(sides[0])
    except NotMeasuredError as error:
        raise RuntimeError(f"{OURS.title}: {error}") from None  # its peer is not to be blamed


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")  # more is noise, and the JSON shorter


def _shown(cells: dict[str, Cell]) -> str:
    told = []
    for figure, cell in cells.items():
        ratio = cell.ratio()
        middle = sorted(cell.values)[len(cell.values) // 2]
        told.append(f"{middle:,.4g} {figure}" + (f" (x{ratio.middle:.2f})" if ratio else ""))
    return "; ".join(told) + f"; {max(len(cell.values) for cell in cells.values())} rounds"
