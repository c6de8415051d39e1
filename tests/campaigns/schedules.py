"""Crash schedules over the pure core, as many as one likes.

``python -m tests.campaigns.schedules --count 12000000``, from the repository. First, up to nine tenths of the count,
every schedule there is, in this order:

1. of up to three crashes, over every script of one step and of two,
2. of up to two, over every script of three steps,
3. of one, over every script of four steps and of five,
4. of two, over every script of four steps.

Then schedules of two and of three crashes drawn by chance, over scripts of three to five steps drawn by chance. What a
script is, `crash_simulation.scripts` says. Prints the seed, what was played of each of these, and how many in all. The
first broken promise ends it, with the option that plays that one again.
"""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar

from crash_simulation import Script, every_schedule, lines, named, play, sampled_schedules, scripts, without_crashes
from dotmac_workflows.testing._judge import Violation

_T = TypeVar("_T")
Players: TypeAlias = Callable[[Callable[[Any], int], list[Any]], list[int]]
"""Plays batches of scripts, in this process or in several, as ``pool.map`` does."""

_BATCH = 10  # scripts
_SAMPLES = 10  # schedules of each script that is drawn


class _Part(NamedTuple):
    """Every schedule of so many crashes over every script of so many steps."""

    steps: int
    fewest: int
    most: int


_EVERY = (_Part(1, 1, 3), _Part(2, 1, 3), _Part(3, 1, 2), _Part(4, 1, 1), _Part(5, 1, 1), _Part(4, 2, 2))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.schedules", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--count", type=_positive, help="how many schedules to play, at least")
    what.add_argument("--only", metavar="SCHEDULE", help="play this one alone, as a broken promise names it")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="how many processes")
    options = parser.parse_args(arguments)
    try:
        if options.only is not None:
            return _play_one(options.only)
        print(f"seed {options.seed}, {options.jobs} processes", flush=True)
        began = time.monotonic()
        if options.jobs == 1:
            played = _play(options.count, options.seed, 1, lambda play, batches: list(map(play, batches)))
        else:
            with multiprocessing.Pool(options.jobs) as pool:
                played = _play(options.count, options.seed, options.jobs, pool.map)
    except Violation as broken:
        print(f"error: {broken}", file=sys.stderr)
        return 1
    elapsed = time.monotonic() - began
    print(f"{played} schedules in {elapsed:.0f} s, {played / elapsed:.0f} a second; no promise was broken")
    if played < options.count:
        print(f"error: that is less than {options.count}", file=sys.stderr)
        return 1
    return 0


def _play(count: int, seed: int, jobs: int, players: Players) -> int:
    chance = random.Random(seed)
    played = 0
    for part in _EVERY:
        played += _play_part(part, count * 9 // 10 - played, jobs, players, chance)
    every = [script for steps in (3, 4, 5) for script in scripts(steps)]
    for crashes, share in ((2, 2), (3, 1)):
        aim, drawn = max(-(-count // 20), -(-(count - played) // share)), 0
        while drawn < aim:
            some = ((chance.choice(every), chance.randrange(2**32)) for _ in range(jobs * _BATCH))
            drawn += sum(players(partial(_sample, crashes), _batches(some, jobs)))
        print(
            f"{drawn} schedules: {crashes} crashes drawn by chance, scripts of 3 to 5 steps drawn by chance", flush=True
        )
        played += drawn
    return played


def _play_part(part: _Part, limit: int, jobs: int, players: Players, chance: random.Random) -> int:
    """Play a part, or so much of it that the limit is reached."""
    if limit <= 0:
        return 0
    every = list(scripts(part.steps))
    chance.shuffle(every)  # so that a part that is not played to its end is a fair one
    left = iter(every)
    played = taken = 0
    while played < limit and (batches := _batches(left, jobs)):
        played += sum(players(partial(_play_every, part), batches))
        taken += sum(map(len, batches))
    crashes = {(1, 1): "1 crash", (2, 2): "2 crashes"}.get(part[1:], f"1 to {part.most} crashes")
    which = "all" if taken == len(every) else f"{taken} of the"
    print(
        f"{played} schedules: every one of {crashes}, {which} {len(every)} scripts of {part.steps} steps",
        flush=True,
    )
    return played


def _batches(some: Iterator[_T], jobs: int) -> list[list[_T]]:
    """Return the next batches, one for each process; fewer at the end."""
    batches = (list(islice(some, _BATCH)) for _ in range(jobs))
    return [batch for batch in batches if batch]


def _play_every(part: _Part, batch: list[Script]) -> int:
    return sum(every_schedule(script, part.most, fewest=part.fewest) for script in batch)


def _sample(crashes: int, batch: list[tuple[Script, int]]) -> int:
    return sum(sampled_schedules(script, crashes, _SAMPLES, random.Random(seed)) for script, seed in batch)


def _play_one(name: str) -> int:
    """Play the one schedule of a name, and print its journal."""
    script, schedule = named(name)
    ends, _ = without_crashes(script)
    print(script)
    world = play(script, schedule, ends)
    print(lines(world.journal))
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1: a campaign of nothing proves nothing")
    return number


if __name__ == "__main__":
    sys.exit(main())
