"""What the engine adds to a step in memory, against a loop that keeps no journal at all.

PYTHONPATH=src python -m benchmarks.in_memory
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.measuring import Pairs, print_machine, print_table, seconds, spread
from dotmac_workflows import Workflow, WorkflowResult

STEPS_PER_SAMPLE = 10_000
"""A sample runs about so many steps, in as many workflows as that takes: 10 to 40 ms."""


@dataclass
class PlainResult:
    """The fields of a `WorkflowResult` and what it checks, the way that anybody would write it."""

    success: bool
    step: str
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    message: str | None = None
    execution_time: float | None = None
    requires_approval: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.data, dict):
            raise TypeError("data must be a dictionary")
        if not self.step or not isinstance(self.step, str):
            raise ValueError("step must be a non-empty string")


class PlainLoop:
    """The least that runs steps: a result a step, two looks at the clock, two at a callback."""

    on_step_started: Callable[[str], None] | None = None
    on_step_completed: Callable[[PlainResult], None] | None = None

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.results: list[PlainResult] = []

    async def execute_step(self, step: str) -> PlainResult:
        return PlainResult(True, step)

    async def execute(self) -> list[PlainResult]:
        for step in self.steps:
            if self.on_step_started is not None:
                self.on_step_started(step)
            began = time.monotonic()
            result = await self.execute_step(step)
            result.execution_time = time.monotonic() - began
            self.results.append(result)
            if self.on_step_completed is not None:
                self.on_step_completed(result)
        return self.results


class Engine(Workflow):
    """The same steps on the engine."""

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step)


def runs_of(make: Callable[[list[str]], Engine | PlainLoop], steps: int, runs: int) -> Callable[[], Awaitable[None]]:
    """Return what runs so many workflows of so many steps, one after the other; making them is a part of it."""
    names = [f"step_{number}" for number in range(steps)]

    async def run() -> None:
        for _ in range(runs):
            results = await make(names).execute()
            assert len(results) == steps
            assert results[-1].success

    return run


async def measure(sizes: list[int], pairs: int, steps_per_sample: int) -> None:
    """Print the table."""
    rows = []
    by_size: dict[int, list[float]] = {}
    sampled = {size: Pairs() for size in sizes}
    # The sizes take turns as well, so that one can be compared with another.
    for turn in range(pairs + 1):
        for size, samples in sampled.items():
            runs = max(1, steps_per_sample // size)
            ours = await seconds(runs_of(lambda names: Engine(steps=names), size, runs))
            theirs = await seconds(runs_of(PlainLoop, size, runs))
            if turn:  # the first one warms up
                samples.add(ours / size / runs, theirs / size / runs)
                by_size.setdefault(size, []).append(ours / size / runs)
    for size, samples in sampled.items():
        rows.append(
            [
                f"{size:,}",
                spread(samples.ours).show(2, 1e6),
                spread(samples.theirs).show(2, 1e6),
                samples.ratio().show(2),
            ]
        )
    print_table(
        f"In memory, µs a step: median (quartiles) of {pairs} pairs",
        ["steps", "engine", "plain loop", "engine / plain loop"],
        rows,
    )
    if {100, 10_000} <= by_size.keys():
        growth = spread([long / short for long, short in zip(by_size[10_000], by_size[100], strict=True)])
        print(f"\nA step of 10,000 against one of 100: {growth.show(2)}")
    print("\nTargets: at most 5 times the plain loop (3.5 aimed for); 10,000 steps at most 1.3 times 100.")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="how many samples of each (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    given = parser.parse_args()
    print_machine("Durability: none; the journal is a list in memory")
    sizes = [10, 100, 1000, 10_000]
    if given.quick:
        asyncio.run(measure(sizes[:2], 2, 100))
    else:
        asyncio.run(measure(sizes, given.pairs, STEPS_PER_SAMPLE))


if __name__ == "__main__":
    main()
