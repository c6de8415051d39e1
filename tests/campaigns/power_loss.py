"""Power losses, as many as one likes: what is done to the files of a store is recorded, what is not flushed is lost.

``python -m tests.campaigns.power_loss --count 50000``, from the repository: processes drive orders on a store, and
every operation on its files is recorded, with what was acknowledged when; then states of the disk that a power loss may
leave at any moment are made (`power_loss.disk` says which), each is opened and verified, and held against what had been
acknowledged. So many different states are opened in each mode that a store may choose. Prints the seed, and what was
played. The first broken promise ends it; the recording is kept, and one command plays that state again.

``--mode wal-normal`` and ``--mode delete-full`` play what is never chosen, count what that loses, and fail.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from campaigns import quiet, whole_number
from dotmac_workflows.testing._judge import Violation
from power_loss.modes import DURABLE, LOSING, MODES
from power_loss.playing import Player, Report, record_and_play, scratch
from power_loss.recording import read, why_not

_STATES = 500  # then another recording


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.power_loss", description=__doc__)
    parser.add_argument("--count", type=whole_number, help="how many states to open in each mode, at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=whole_number, default=os.cpu_count() or 1, help="how many processes")
    parser.add_argument("--mode", choices=MODES, help="this one alone; without it, those that a store chooses")
    parser.add_argument("--only", nargs=2, metavar=("RECORDING", "STATE"), help="play one state, as an error names it")
    options = parser.parse_args(arguments)
    if options.only:
        if options.mode is None:
            parser.error("--only needs --mode")
        recording, state = options.only
        return _play_one(recording, state, options.mode)
    if options.count is None:
        parser.error("--count is required")
    if reason := why_not():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    modes = [options.mode] if options.mode else list(DURABLE)
    return max([_campaign(mode, options.count, options.seed, options.jobs) for mode in modes])


def _campaign(mode: str, count: int, seed: int, jobs: int) -> int:
    began = time.monotonic()
    total = Report()
    play = partial(_play, mode, seed, min(count, _STATES))
    with multiprocessing.Pool(jobs) if jobs > 1 else contextlib.nullcontext() as pool:
        while total.states < count and not (total.lost and mode in DURABLE):
            wanted = -(-(count - total.states) // _STATES)
            numbers = range(total.recordings, total.recordings + wanted)
            for report in pool.imap_unordered(play, numbers) if pool else map(play, numbers):
                total.add(report)
                if total.lost and mode in DURABLE:
                    break
    print(
        f"{mode}: {total.recordings} recordings of {total.operations} operations, {total.acknowledged} acknowledged "
        f"writes; {total.states} different states opened in {time.monotonic() - began:.0f} s, {total.records} records "
        f"verified, {total.checks} times held against what was promised; {total.lost} broke a promise",
        flush=True,
    )
    return 0 if total.states >= count and not total.lost else 1


def _play(mode: str, seed: int, count: int, number: int) -> Report:
    """Make a recording, and play states of it."""

    def tell(log: bytes, state: str, violation: Violation) -> None:
        if mode in LOSING:
            return
        kept = Path(tempfile.gettempdir()) / f"power-loss-{mode}-{seed}-{number}.recording"
        kept.write_bytes(log)
        command = f"python -m tests.campaigns.power_loss --mode {mode} --only {kept} '{state}'"
        print(f"error: {violation}\nplay it again: {command}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=scratch()) as directory:
        return record_and_play(Path(directory), mode, f"{seed}/{mode}/{number}", count, tell)


def _play_one(recording: str, state: str, mode: str) -> int:
    def tell(state: str, violation: Violation) -> None:
        print(f"{state}: {violation}")

    with tempfile.TemporaryDirectory(dir=scratch()) as directory:
        player = Player(read(Path(recording).read_bytes()), mode, Path(directory) / "state")
        player.play_one(state, tell)
    print(f"{player.report.checks} state of {mode} played, {player.report.lost} broke a promise")
    return 1 if player.report.lost else 0


if __name__ == "__main__":
    quiet()
    sys.exit(main())
