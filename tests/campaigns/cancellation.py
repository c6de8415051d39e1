"""The task of a verb cancelled at every await, once and twice.

``python -m tests.campaigns.cancellation --count 250000``, from the repository: first every single cancel over every
script of one and of two steps, then every pair over those of one, for each way to bring a run to its end; then singles
and pairs drawn by chance over scripts of up to four steps, one in ten of them on a SQLite file, until the count is
reached. Prints the seed, how far it is, and at the end how many awaits there were, and how many cancels. The first
broken promise ends it with the script, the schedule and the journal. ``--sampled`` leaves out what is not drawn by
chance.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from campaigns import quiet, whole_number
from cancelled_awaits import TASKS, Count, Task, every_schedule, every_script, sampled_schedules
from crash_simulation import Script
from dotmac_workflows import SQLitePersistence
from dotmac_workflows.testing import FakeClock

_SAMPLES = 20
_TOLD_EACH = 5_000  # plays


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.cancellation", description=__doc__)
    parser.add_argument("--count", type=whole_number, required=True, help="how many plays, at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=whole_number, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--sampled", action="store_true", help="only plays drawn by chance")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    began = time.monotonic()
    share = partial(_share, options.count, options.seed, options.jobs, sampled=options.sampled)
    if options.jobs == 1:
        counts = [share(0)]
    else:
        with multiprocessing.Pool(options.jobs) as pool:
            counts = list(pool.imap_unordered(share, range(options.jobs)))
    total = sum(counts, Count())
    elapsed = time.monotonic() - began
    print(
        f"{total.plays} plays in {elapsed:.0f} s: {total.cancels} cancels, at each of {total.awaits} awaits of runs "
        "that nothing cancels, and at those of their unwinding; no promise was broken"
    )
    if total.plays < options.count:
        print(f"error: that is less than {options.count}", file=sys.stderr)
        return 1
    return 0


def _share(count: int, seed: int, jobs: int, job: int, *, sampled: bool) -> Count:
    """Play one process's part of the campaign."""
    quiet()
    clock = FakeClock()
    chance = random.Random(f"{seed}/{job}")
    with tempfile.TemporaryDirectory() as folder:
        return clock.run(_play(count, jobs, job, chance, clock, Path(folder), sampled=sampled))


async def _play(
    count: int, jobs: int, job: int, chance: random.Random, clock: FakeClock, folder: Path, *, sampled: bool
) -> Count:
    total, told = Count(), 0
    if not sampled:
        for script, task, cancels in islice(_exhaustive(), job, None, jobs):
            total += await every_schedule(script, task, cancels, clock)
            if total.plays - told >= _TOLD_EACH:
                told = total.plays
                print(f"process {job}: {total}, up to {len(script.steps)} steps, {cancels} cancels each", flush=True)
    every = every_script(1, 2, 3, 4)
    async with SQLitePersistence(folder / "journals.db") as store:
        while total.plays * jobs < count:
            script, task = chance.choice(every), chance.choice(TASKS)
            real = store if chance.random() < 0.1 else None
            total += await sampled_schedules(script, task, 2, _SAMPLES, chance, clock, real)
    return total


def _exhaustive() -> Iterator[tuple[Script, Task, int]]:
    for length, cancels in ((1, 1), (2, 1), (1, 2)):
        for script in every_script(length):
            for task in TASKS:
                yield script, task, cancels


if __name__ == "__main__":
    sys.exit(main())
