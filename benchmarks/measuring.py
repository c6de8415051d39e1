"""What the benchmarks share: samples in pairs, medians and spreads, the machine, tables.

The machine is shared and noisy, so a figure counts only against another one that was taken in the same run: A and B
are sampled in turns (A B A B ...), and what is compared is each A with the B beside it. A median of many such ratios
stays the same where the figures themselves change by a factor of two from one minute to the next.
"""

import gc
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Spread(NamedTuple):
    """The middle of many samples, and how far half of them lie from it."""

    low: float
    middle: float
    high: float

    def show(self, digits: int = 2, scale: float = 1.0, unit: str = "") -> str:
        """Return the median, and the quartiles in brackets."""
        low, middle, high = (f"{value * scale:,.{digits}f}" for value in self)
        return f"{middle}{unit} ({low}-{high})"


def spread(samples: Sequence[float]) -> Spread:
    """Return the quartiles of some samples."""
    if len(samples) < 2:
        return Spread(samples[0], samples[0], samples[0])
    return Spread(*statistics.quantiles(samples, n=4, method="inclusive"))


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the sample that so many of a hundred do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Pairs:
    """Samples of two things, taken in turns."""

    def __init__(self) -> None:
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def add(self, ours: float, theirs: float) -> None:
        """Keep two samples that were taken side by side."""
        self.ours.append(ours)
        self.theirs.append(theirs)

    def ratio(self) -> Spread:
        """Return how many times theirs ours is."""
        return spread([ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)])


async def seconds(run: Callable[[], Awaitable[object]]) -> float:
    """Return how long something took, without the garbage that was there before."""
    gc.collect()
    began = time.perf_counter()
    await run()
    return time.perf_counter() - began


def print_machine(*more: str) -> None:
    """Say on what the figures were taken."""
    processor = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"Machine: {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {processor}; load {load}")
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    for line in more:
        print(line)


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of Markdown, so that it can be pasted into a page."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (heads, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
