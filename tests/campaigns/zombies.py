"""Processes stopped past their leases while others take over, as many as one likes.

``python -m tests.campaigns.zombies --count 1000``, from the repository: a process drives several orders at once with
leases of 50 ms, and is stopped with SIGSTOP at a moment drawn by chance: in a step, in an append, between. This process
waits until the leases have expired and brings the orders to their end; then the other one goes on. It must find every
run that was taken from it lost, and change no row: no journal, no header, no lease. Who is stopped with the writer's
lock in hand keeps others from taking over: that error must name it, and it is stopped once more, somewhere else.
Prints the seed, and where they were stopped. The first broken promise ends it, and says how to run that lane again.
"""

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from campaigns import parser_of, quiet
from dotmac_workflows.testing._judge import Violation
from processes.zombies import Report, run_lane

_ZOMBIES_A_LANE = 50  # then a new database


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    options = parser_of("zombies", __doc__, "how many zombies to make, at least").parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    quiet()
    began = time.monotonic()

    def lane(number: int) -> Report:
        zombies, seed = min(_ZOMBIES_A_LANE, options.count - number * _ZOMBIES_A_LANE), options.seed + number
        with tempfile.TemporaryDirectory() as directory:
            try:
                return asyncio.run(run_lane(Path(directory), seed, zombies))
            except Exception as error:
                raise Violation(f"{error}\nAgain: --count {zombies} --seed {seed}") from error

    with ThreadPoolExecutor(options.jobs) as pool:
        reports = list(pool.map(lane, range(-(-options.count // _ZOMBIES_A_LANE))))
    zombies = sum(report.zombies for report in reports)
    taken = sum((report.taken for report in reports), Counter[str]())
    for place, times in sorted(taken.items()):
        print(f"  stopped {place}: {times} runs")
    print(
        f"{zombies} zombies in {time.monotonic() - began:.0f} s, {taken.total()} runs taken over from them: each found "
        f"its lease lost, {sum(report.refused for report in reports)} of their appends were refused, 0 stale writes; "
        f"all {sum(report.workflows for report in reports)} runs ended as they should. "
        f"{sum(report.held for report in reports)} times one was stopped with the writer's lock in hand, and named"
    )
    return 0 if zombies >= options.count else 1


if __name__ == "__main__":
    sys.exit(main())
