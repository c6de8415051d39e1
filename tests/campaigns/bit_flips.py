"""Flipped bits, as many as one likes.

``python -m tests.campaigns.bit_flips --count 10000``, from the repository: one bit after the other is flipped in the
file of a store, or in the log that a killed process left; then all is read, verified and used. Each must be noticed, in
an error of ours and with nothing overwritten, or be without effect on what can be read. (Only the last commit of a log
may be gone instead: nobody can tell it from one that a crash cut off.) Prints the seed, and what came of it. The first
broken promise ends it with the flip; ``--only FLIP`` plays that one again.
"""

import argparse
import asyncio
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from campaigns import quiet, whole_number
from damage.flips import Flipper, parse
from dotmac_workflows.testing._judge import Violation
from power_loss.playing import scratch

_CHUNK = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.bit_flips", description=__doc__)
    parser.add_argument("--count", type=whole_number, help="how many bits to flip")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=whole_number, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--only", type=parse, metavar="FLIP", help="this one alone, as an error names it")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    if options.only is not None:
        with tempfile.TemporaryDirectory(dir=scratch()) as directory, asyncio.Runner() as runner:
            print(Flipper(Path(directory) / "flipped", runner).play(options.only))
        return 0
    if options.count is None:
        parser.error("--count is required")
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    shares = [(start, min(_CHUNK, options.count - start)) for start in range(0, options.count, _CHUNK)]
    play = partial(_play, options.seed)
    outcomes: Counter[str] = Counter()
    if options.jobs == 1:
        for share in shares:
            outcomes += play(share)
    else:
        with multiprocessing.Pool(options.jobs) as pool:
            for found in pool.imap_unordered(play, shares):
                outcomes += found
    print("; ".join(f"{name}: {count}" for name, count in sorted(outcomes.items())))
    print(
        f"{outcomes.total()} bits flipped in {time.monotonic() - began:.0f} s: none that matters in silence, no error "
        "but ours, and nothing overwritten"
    )
    return 0 if outcomes.total() >= options.count and outcomes["noticed"] else 1


def _play(seed: int, share: tuple[int, int]) -> Counter[str]:
    start, count = share
    chance = random.Random(f"{seed}/{start}")
    with tempfile.TemporaryDirectory(dir=scratch()) as directory, asyncio.Runner() as runner:
        flipper = Flipper(Path(directory) / "flipped", runner)
        for _ in range(count):
            flip = flipper.draw(chance)
            try:
                flipper.play(flip)
            except Violation as violation:
                print(f"play it again: python -m tests.campaigns.bit_flips --only {flip}", file=sys.stderr, flush=True)
                raise violation
    return flipper.outcomes


if __name__ == "__main__":
    quiet()
    sys.exit(main())
