"""Storms of twelve processes on one file, as many as one likes.

``python -m tests.campaigns.storms --count 100``, from the repository: twelve processes open one SQLite file at the same
instant, and each drives forty orders of its own and, with all the others, four whose gates all of them decide. None may
fail, least of all because the file is busy, and every append that the store acknowledged must be there afterwards. Then
the writer's lock is held for longer than they are willing to wait: each must be told the host and the process that
holds it, and goes on when it is let go. Prints the seed, and how many appends a second they made. The first broken
promise ends it, and says how to run that storm again.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from campaigns import parser_of, quiet
from dotmac_workflows.testing._judge import Violation
from processes.storms import PROCESSES, Report, run_storm

_OWN = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    options = parser_of("storms", __doc__, "how many storms").parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    quiet()
    began = time.monotonic()

    def storm(number: int) -> Report:
        seed = options.seed + number
        with tempfile.TemporaryDirectory() as directory:
            try:
                return run_storm(Path(directory), seed, _OWN)
            except Exception as error:
                raise Violation(f"{error}\nAgain: --count 1 --seed {seed}") from error

    with ThreadPoolExecutor(options.jobs) as pool:
        reports = list(pool.map(storm, range(options.count)))
    appends = sum(report.appends for report in reports)
    print(
        f"{len(reports)} storms of {PROCESSES} processes in {time.monotonic() - began:.0f} s, {appends} appends of "
        f"{sum(report.workflows for report in reports)} orders acknowledged, none lost, no process failed; "
        f"{appends / sum(report.seconds for report in reports):.0f} appends a second, the longest took "
        f"{max(report.longest for report in reports):.2f} s; {sum(report.busy for report in reports)} times a process "
        "that found the file busy for too long was told by whom"
    )
    return 0 if len(reports) >= options.count else 1


if __name__ == "__main__":
    sys.exit(main())
