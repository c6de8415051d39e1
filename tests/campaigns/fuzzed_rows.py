"""Rows that no engine wrote, as many as one likes.

``python -m tests.campaigns.fuzzed_rows --count 1000000``, from the repository: golden journals of which a few rows are
changed (`damage.rows` says how) are read; every one in some is used by every verb in memory, and some in a SQLite file
and by the command line too. What cannot be read is told in an error of ours, and is never written to. Prints the seed,
and what came of it. The first broken promise ends it with the journal; ``--only NUMBER`` makes that one again.
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
from typing import NamedTuple

from campaigns import quiet, whole_number
from damage.fuzzing import Fuzzer
from dotmac_workflows.testing._judge import Violation

_CHUNK = 2000  # journals


class Played(NamedTuple):
    """What became of some journals."""

    journals: int
    rows: int
    outcomes: Counter[str]
    verbs: Counter[str]
    broken: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.fuzzed_rows", description=__doc__)
    parser.add_argument("--count", type=whole_number, help="how many rows to change, at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=whole_number, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this journal alone, as an error names it")
    options = parser.parse_args(arguments)
    if options.only is not None:
        return _tell(_play(options.seed, 1, options.only), 0.0)
    if options.count is None:
        parser.error("--count is required")
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    began = time.monotonic()
    chunk = min(_CHUNK, options.count)
    play = partial(_play, options.seed, chunk)
    total = Played(0, 0, Counter(), Counter(), None)
    pool = multiprocessing.Pool(options.jobs) if options.jobs > 1 else None
    while total.rows < options.count and not total.broken:
        wanted = -(-(options.count - total.rows) // (2 * chunk))
        starts = range(total.journals, total.journals + wanted * chunk, chunk)
        for played in pool.imap_unordered(play, starts) if pool else map(play, starts):
            total = Played(
                total.journals + played.journals,
                total.rows + played.rows,
                total.outcomes + played.outcomes,
                total.verbs + played.verbs,
                played.broken,
            )
            if total.broken or total.rows >= options.count:
                break
    if pool:
        pool.terminate()
    code = _tell(total, time.monotonic() - began)
    if not code and (total.rows < options.count or not total.outcomes["read"]):
        print(f"error: that is less than {options.count}, or none of them could be read", file=sys.stderr)
        code = 1
    return code


def _play(seed: int, count: int, start: int) -> Played:
    """Play journals by their number."""
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:
        fuzzer = Fuzzer(str(seed), Path(directory), runner)
        broken = None
        for number in range(start, start + count):
            try:
                fuzzer.play(number)
            except Violation as violation:
                broken = (
                    f"{violation}\nplay it again: python -m tests.campaigns.fuzzed_rows --seed {seed} --only {number}"
                )
                break
        return Played(fuzzer.journals, fuzzer.rows, fuzzer.outcomes, fuzzer.verbs, broken)


def _tell(total: Played, seconds: float) -> int:
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(total.outcomes.items()))
    verbs = ", ".join(f"{name} {count}" for name, count in sorted(total.verbs.items()))
    print(f"what became of the journals: {outcomes}\nwhat became of verbs and commands: {verbs}")
    if total.broken:
        print(f"error: {total.broken}", file=sys.stderr)
        return 1
    print(
        f"{total.rows} rows changed in {total.journals} journals in {seconds:.0f} s: no error but ours, and nothing "
        "that cannot be read was written to"
    )
    return 0


if __name__ == "__main__":
    quiet()
    sys.exit(main())
