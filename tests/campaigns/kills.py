"""Real processes killed with ``kill -9``, as many as one likes.

``python -m tests.campaigns.kills --count 10000``, from the repository: every process drives several orders at once on a
SQLite file, is killed at a moment drawn by chance, and another one takes up what it left; in every other lane of a
hundred kills, two at a time want to drive the same orders. Prints the seed, and how many
were killed. The first broken promise ends it.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from processes.kills import Report, run_lane

_KILLS_A_LANE = 100  # then a new database


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.kills", description=__doc__)
    parser.add_argument("--count", type=_positive, required=True, help="how many processes to kill, at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=_positive, default=2 * (os.cpu_count() or 1), help="how many at a time")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()

    def lane(number: int) -> Report:
        with tempfile.TemporaryDirectory() as directory:
            kills = min(_KILLS_A_LANE, options.count - number * _KILLS_A_LANE)
            return run_lane(Path(directory), options.seed + number, kills, rivals=number % 2 == 1)

    with ThreadPoolExecutor(options.jobs) as pool:
        reports = list(pool.map(lane, range(-(-options.count // _KILLS_A_LANE))))
    killed = sum(report.kills for report in reports)
    print(
        f"{killed} processes killed in {time.monotonic() - began:.0f} s, "
        f"{sum(report.workflows for report in reports)} orders, "
        f"{sum(report.acknowledged for report in reports)} transitions acknowledged, none lost; "
        f"{sum(report.again['forward'] for report in reports)} steps and "
        f"{sum(report.again['rollback'] for report in reports)} rollback steps in flight were started again"
    )
    return 0 if killed >= options.count else 1


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1: a campaign of nothing proves nothing")
    return number


if __name__ == "__main__":
    sys.exit(main())
