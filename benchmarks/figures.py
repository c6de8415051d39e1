"""What was measured: values in pairs, their middle and spread, and the whole as JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
"""Of the JSON; a reader of another one is told so."""


class Spread(NamedTuple):
    """The middle of some values, and how far they reach."""

    least: float
    middle: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Return the least, the median and the greatest of some values."""
    return Spread(min(values), statistics.median(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass
class Cell:
    """One figure of one peer, in one case of one scenario."""

    scenario: str
    case: str
    figure: str
    """What was measured, with its unit: "µs a step"."""
    peer: str
    more_is_better: bool = False
    values: list[float] = field(default_factory=list)
    """Its own, one a round."""
    ours: list[float] = field(default_factory=list)
    """Those of this library, each taken beside the one of the same place; none: there is nothing to compare."""
    reason: str | None = None
    """Why there are no values."""

    def ratio(self) -> Spread | None:
        """Return how many times as long as this library it took, of each pair; above 1 it is slower, or needs more."""
        if not self.ours or not all(self.ours) or not all(self.values):
            return None
        pairs = zip(self.values, self.ours, strict=True)
        return spread([ours / value if self.more_is_better else value / ours for value, ours in pairs])


@dataclass
class Figures:
    """A whole run of the benchmarks."""

    machine: dict[str, Any] = field(default_factory=dict)
    peers: list[dict[str, Any]] = field(default_factory=list)
    """Each that was asked for, in the order of the tables: name, title, kind, version, settings, or why not."""
    cells: list[Cell] = field(default_factory=list)

    def to_json(self) -> str:
        """Return all of it as JSON, with the ratios and percentiles that follow from the values."""
        told: dict[str, Any] = {"format": FORMAT, "machine": self.machine, "peers": self.peers, "cells": []}
        for cell in self.cells:
            kept = asdict(cell)
            ratio = cell.ratio()
            kept["ratio"] = None if ratio is None else {key: float(f"{v:.4g}") for key, v in ratio._asdict().items()}
            kept["p50"] = percentile(cell.values, 50) if cell.values else None
            kept["p99"] = percentile(cell.values, 99) if cell.values else None
            told["cells"].append(kept)
        return json.dumps(told, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Figures":
        """Read what `to_json` made."""
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"{path} is of format {told['format']}, not {FORMAT}")
        kept = Cell.__dataclass_fields__
        cells = [Cell(**{name: value for name, value in cell.items() if name in kept}) for cell in told["cells"]]
        return cls(told["machine"], told["peers"], cells)
