"""Histories of several drivers and persons on one store that fails, as many as one likes.

``python -m tests.campaigns.histories --count 1000000``, from the repository: two to five processes want to drive one
run with the engine itself, up to five persons decide, cancel, pause, resume and retry it beside each other, calls to
the store fail before they had their effect or after, or hang, processes are stopped, killed and shut down, and clocks
are wrong; all in virtual time, and each history drawn by a seed of its own (`simulation.history`). Prints the first
seed, and how often what happened. The first broken promise ends it, with the option that plays that history again and
prints it.
"""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence

from campaigns import quiet, whole_number
from dotmac_workflows.testing._judge import Violation
from simulation.history import KINDS, History
from simulation.processes import no_operating_system

_BATCH = 250


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.histories", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--count", type=whole_number, help="how many histories to play")
    what.add_argument("--only", type=int, metavar="SEED", help="play this one alone, and print what happens in it")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="of the first one")
    parser.add_argument("--jobs", type=whole_number, default=os.cpu_count() or 1, help="how many processes")
    options = parser.parse_args(arguments)
    quiet()
    if options.only is not None:
        return _play_one(options.only)
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    began = time.monotonic()
    end = options.seed + options.count
    batches = (range(first, min(first + _BATCH, end)) for first in range(options.seed, end, _BATCH))
    counts: Counter[str] = Counter()
    try:
        if options.jobs == 1:
            for batch in batches:
                counts += _play(batch)
        else:
            with multiprocessing.Pool(options.jobs) as pool:
                for some in pool.imap_unordered(_play, batches):
                    counts += some
    except Violation as broken:
        print(f"error: {broken}", file=sys.stderr)
        return 1
    elapsed, played = time.monotonic() - began, counts["histories"]
    print(", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
    print(
        f"{played} histories in {elapsed:.0f} s, {played / elapsed:.0f} a second, {counts['drivers']} drivers, "
        f"{counts['seconds'] / 86400:.1f} days; no promise was broken"
    )
    never = [kind for kind in KINDS if not counts[kind]]
    if played < options.count or (never and played >= _BATCH):
        print(f"error: {options.count} were asked for, and there were no {never}", file=sys.stderr)
        return 1
    return 0


def _play(seeds: range) -> Counter[str]:
    """Play histories, and return how often what happened."""
    quiet()  # in a process of its own
    counts: Counter[str] = Counter()
    with no_operating_system():
        for seed in seeds:
            try:
                story = History(seed).play()
            except Exception as error:
                again = f"again: python -m tests.campaigns.histories --only {seed}"
                raise Violation(f"{type(error).__name__}: {error}\n{again}") from error
            counts += story.counts
            counts.update(histories=1, drivers=story.drivers, seconds=round(story.seconds))
    return counts


def _play_one(seed: int) -> int:
    with no_operating_system():
        history = History(seed, timeline=True)
        print(history.script)
        try:
            history.play()
        except Exception as error:
            print(*history.timeline or (), sep="\n")
            print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        print(*history.timeline or (), sep="\n")
        return 0


if __name__ == "__main__":
    sys.exit(main())
