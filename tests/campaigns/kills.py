"""Real processes killed with ``kill -9``, as many as one likes.

``python -m tests.campaigns.kills --count 10000``, from the repository: every process drives several orders at once on a
SQLite file, is killed at a moment drawn by chance, and another one takes up what it left; in every other lane of a
hundred kills, two at a time want to drive the same orders. At least a hundred appends a kill are acknowledged by the
store: each process says so as soon as it is told, and every one of them must be there afterwards, with the digest that
it had. Prints the seed, and how many were killed. The first broken promise ends it, and says how to run that lane
again.

The databases are made in the system's temporary folder (``TMPDIR`` names another). A process that is killed leaves
what it wrote to the system, so that one in memory shows as much as one on a disk.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from campaigns import parser_of, quiet
from dotmac_workflows.testing._judge import Violation
from processes.kills import Report, run_lane

_KILLS_A_LANE = 100  # then a new database
_APPENDS_A_KILL = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = parser_of("kills", __doc__, "how many processes to kill, at least", jobs=2 * (os.cpu_count() or 1))
    parser.add_argument("--rivals", type=int, choices=(0, 1), help="the same in every lane, not in every other one")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    quiet()
    began = time.monotonic()

    def lane(number: int) -> Report:
        kills = min(_KILLS_A_LANE, options.count - number * _KILLS_A_LANE)
        seed, rivals = options.seed + number, number % 2 if options.rivals is None else options.rivals
        with tempfile.TemporaryDirectory() as directory:
            try:
                return run_lane(Path(directory), seed, kills, appends=kills * _APPENDS_A_KILL, rivals=bool(rivals))
            except Exception as error:
                raise Violation(f"{error}\nAgain: --count {kills} --seed {seed} --rivals {rivals}") from error

    with ThreadPoolExecutor(options.jobs) as pool:
        reports = list(pool.map(lane, range(-(-options.count // _KILLS_A_LANE))))
    killed = sum(report.kills for report in reports)
    appends = sum(report.appends for report in reports)
    print(
        f"{killed} processes killed in {time.monotonic() - began:.0f} s, {appends} appends of "
        f"{sum(report.workflows for report in reports)} orders acknowledged, none lost, nor any of "
        f"{sum(report.told for report in reports)} transitions that callbacks and verbs told of; "
        f"{sum(report.again['forward'] for report in reports)} steps and "
        f"{sum(report.again['rollback'] for report in reports)} rollback steps in flight were started again"
    )
    return 0 if killed >= options.count and appends >= options.count * _APPENDS_A_KILL else 1


if __name__ == "__main__":
    sys.exit(main())
