"""Every system call of the SQLite store failing, and every size of a disk that is too small, once and again.

``python -m tests.campaigns.io_errors --count 10000``, from the repository: a process opens a store (a new file, or one
that a killed process left), brings orders to their end and closes it, and one of its system calls on the files of the
store fails, really: the first, the second, and so on, until a run does not make so many. Each with several errors (EIO,
ENOSPC, EDQUOT, EROFS, EMFILE, ENOLCK, ENOMEM, a short write), for once or from there on, after which the fault is
mended or the process dies. Likewise the file is moved away or replaced, or its log moved away, just before each call.
Then all of this on full disks: small file systems and a limit on the size of files, of one page, two pages, and so on.

Whatever fails, the process must go on, or be told so by an error of ours; once the fault is over, nothing that was
acknowledged is missing, nothing that was said not to be stored is there, the file is sound, and each run can be brought
to its right end. One pass over all is made at least, and others with other orders until so many faults have come.
Prints the seed, and how many faults there were of which kind and at which call. The first broken promise ends it, and
says how to run that one again.

Making calls fail needs Linux and a C compiler (``cc``), which is an error where it is missing; mounting small file
systems needs root, without which the limit alone is used, and that is said.
"""

import random
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from campaigns import parser_of, quiet, whole_number
from dotmac_workflows.testing._judge import Violation
from processes.disks import FileLimit
from processes.faulted import Plan
from processes.faults import FULL_DISKS, PLANS, Lane, Report, compile_library, fill_small_disks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = parser_of("io_errors", __doc__, "how many faults, at least")
    parser.add_argument("--every", type=whole_number, default=1, help="only every so many calls, from one on")
    parser.add_argument("--plan", choices=[plan.name for plan in (*PLANS, *FULL_DISKS)], help="this one alone")
    parser.add_argument("--left", type=int, choices=(0, 1), default=0, help="of --plan: on a file that was left")
    parser.add_argument("--at", type=whole_number, help="of --plan: at this call alone")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    quiet()
    began, total, seed = time.monotonic(), Report(), options.seed
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(options.jobs) as pool:
        library = compile_library(Path(directory))
        if library is None:
            print(
                "error: there is no C compiler (cc), or this is not Linux: no call can be made to fail", file=sys.stderr
            )
            return 1
        while total.faults.total() < options.count:
            before = total.faults.total()
            for report in pool.map(lambda play: play(), _pass(str(library), seed, options)):
                for plan, times in report.faults.items():
                    print(f"  {plan}: {times}", flush=True)
                total += report
            if total.faults.total() == before:
                break  # nothing failed: that is an error below
            seed += 1
    for call, times in sorted(total.calls.items()):
        print(f"  {call}: {times}")
    print(
        f"{total.faults.total()} faults in {time.monotonic() - began:.0f} s, {total.told} of them told by an error of "
        f"ours, the others not noticed; {total.appends} appends acknowledged around them, none lost, and "
        f"{total.workflows} runs ended as they should"
    )
    return 0 if total.faults.total() >= options.count else 1


def _pass(library: str, seed: int, options: Namespace) -> Iterator[Callable[[], Report]]:
    """Yield what makes up one pass."""
    for left in (False, True):
        for plan in (*PLANS, *FULL_DISKS):
            how = library if plan in PLANS else FileLimit.name
            if options.plan is None or (options.plan, bool(options.left)) == (plan.name, left):
                yield partial(_have_fail, how, plan, seed, options, left=left)
        if options.plan is None:
            yield partial(_fill, seed, options.every, left=left)


def _have_fail(how: str, plan: Plan, seed: int, options: Namespace, *, left: bool) -> Report:
    chance = random.Random(f"{seed} {plan.name} {left}")
    with tempfile.TemporaryDirectory() as directory, Lane(Path(directory), how, chance, left=left) as lane:
        try:
            if options.at is None:
                lane.every_one(plan, options.every)
            else:
                lane.play(plan, options.at)
        except Violation as error:
            again = f"--count 1 --seed {seed} --plan {plan.name!r} --left {left:d} --at {lane.at}"
            raise Violation(f"{error}\nAgain: {again}") from error
        return lane.report


def _fill(seed: int, every: int, *, left: bool) -> Report:
    report = fill_small_disks(seed, every, left=left)
    if report is None:
        print("no small file system can be mounted here: only the size of files is limited", flush=True)
        return Report()
    return report


if __name__ == "__main__":
    sys.exit(main())
