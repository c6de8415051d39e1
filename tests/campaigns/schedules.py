"""Crash schedules over the pure core, as many as one likes.

``python -m tests.campaigns.schedules --count 10000000``, from the repository: first every single crash over every
script of up to four steps, every pair over up to two, every triple over one; then triples drawn by chance over plans of
up to four steps, until the count is reached. Prints the seed, and how many schedules were played. The first broken
promise ends it with the script, the schedule and the journal.
"""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count as count_up
from itertools import islice

from crash_simulation import Script, every_schedule, sampled_schedules, scripts

_SAMPLES = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.schedules", description=__doc__)
    parser.add_argument("--count", type=_positive, required=True, help="how many schedules to play, at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="how many processes")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    began = time.monotonic()
    share = partial(_share, options.count, options.seed, options.jobs)
    if options.jobs == 1:
        played = share(0)
    else:
        with multiprocessing.Pool(options.jobs) as pool:
            played = sum(pool.imap_unordered(share, range(options.jobs)))
    elapsed = time.monotonic() - began
    print(f"{played} schedules in {elapsed:.0f} s, {played / elapsed:.0f} a second; no promise was broken")
    if played < options.count:
        print(f"error: that is less than {options.count}", file=sys.stderr)
        return 1
    return 0


def _share(count: int, seed: int, jobs: int, job: int) -> int:
    """Play one process's part of the campaign."""
    chance = random.Random(f"{seed}/{job}")
    played = 0
    for script, crashes in islice(_exhaustive(), job, None, jobs):
        if played * jobs >= count:
            return played
        played += every_schedule(script, crashes)
    every_script = [script for length in (1, 2, 3, 4) for script in scripts(length)]
    for _ in count_up():
        if played * jobs >= count:
            break
        played += sampled_schedules(chance.choice(every_script), 3, _SAMPLES, chance)
    return played


def _exhaustive() -> Iterator[tuple[Script, int]]:
    for length, crashes in ((1, 3), (2, 2), (3, 1), (4, 1)):
        for script in scripts(length):
            yield script, crashes


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1: a campaign of nothing proves nothing")
    return number


if __name__ == "__main__":
    sys.exit(main())
