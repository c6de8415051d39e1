"""What campaigns are alike in whose every case is drawn by a seed of its own: the first seed, and those after it."""

import argparse
import contextlib
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from campaigns import quiet, whole_number
from dotmac_workflows.testing._judge import Violation

_BATCH = 250
_ENOUGH = 250
"""With so many cases, everything that can happen happens."""


class Campaign(NamedTuple):
    """A campaign of cases."""

    name: str
    """Of its module."""
    doc: str | None
    cases: str
    """What its cases are called, in the plural."""
    kinds: Sequence[str]
    """What is to happen sometimes."""
    play: Callable[[int], Counter[str]]
    """Plays the case of a seed, and counts what happened."""
    show: Callable[[int], None]
    """Plays it too, and prints what happens in it, whether it breaks a promise or not."""
    within: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """Where both are called."""


def main(campaign: Campaign, arguments: Sequence[str] | None) -> int:
    """Run a campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.campaigns.{campaign.name}", description=campaign.doc)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--count", type=whole_number, help=f"how many {campaign.cases} to play")
    what.add_argument("--only", type=int, metavar="SEED", help="play this one alone, and print what happens in it")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9), help="of the first one")
    parser.add_argument("--jobs", type=whole_number, default=os.cpu_count() or 1, help="how many processes")
    options = parser.parse_args(arguments)
    quiet()
    if options.only is not None:
        return _show(campaign, options.only)
    try:
        return _play_all(campaign, options.count, options.seed, options.jobs)
    except Violation as broken:
        print(f"error: {broken}", file=sys.stderr)
        return 1


def _show(campaign: Campaign, seed: int) -> int:
    try:
        with campaign.within():
            campaign.show(seed)
    except Exception as broken:
        print(f"error: {_told(broken)}", file=sys.stderr)
        return 1
    return 0


def _play_all(campaign: Campaign, count: int, seed: int, jobs: int) -> int:
    print(f"seed {seed}, {jobs} processes", flush=True)
    began = time.monotonic()
    batches = (range(first, min(first + _BATCH, seed + count)) for first in range(seed, seed + count, _BATCH))
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        players = stack.enter_context(multiprocessing.Pool(jobs)).imap_unordered if jobs > 1 else map
        for some in players(partial(_play, campaign), batches):
            before = 10 * counts[campaign.cases] // count
            counts.update(some)
            if before < 10 * counts[campaign.cases] // count < 10:
                print(f"{counts[campaign.cases]} {campaign.cases} so far", flush=True)
    elapsed, played = time.monotonic() - began, counts.pop(campaign.cases)
    print(", ".join(f"{times} {kind}" for kind, times in sorted(counts.items())))
    print(f"{played} {campaign.cases} in {elapsed:.0f} s, {played / elapsed:.0f} a second; no promise was broken")
    never = [kind for kind in campaign.kinds if not counts[kind]]
    if played < count or (never and played >= _ENOUGH):
        print(f"error: {count} were asked for, and there were no {never}", file=sys.stderr)
        return 1
    return 0


def _play(campaign: Campaign, seeds: Sequence[int]) -> Counter[str]:
    """Play the cases of some seeds."""
    quiet()  # in a process of its own
    counts: Counter[str] = Counter()
    with campaign.within():
        for seed in seeds:
            try:
                counts.update(campaign.play(seed))
            except Exception as error:
                again = f"again: python -m tests.campaigns.{campaign.name} --only {seed}"
                raise Violation(f"{_told(error)}\n{again}") from error
    counts[campaign.cases] = len(seeds)
    return counts


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
