"""Power losses played on a recording: states of the disk are made, opened, and held against what was promised."""

import asyncio
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dotmac_workflows import PersistenceError, SQLitePersistence, recover, verify
from dotmac_workflows.testing._judge import Violation
from power_loss.disk import Cut, Operation, build, cuts, states
from power_loss.modes import in_mode
from power_loss.promises import Found, Promises, look
from power_loss.recording import DATABASE, check_complete, read, record
from power_loss.worker import EVERY_SCRIPT, Bulky
from processes.orders import bring_to_its_end

_GOES_ON = 16
"""In one of so many states, the store is used again after it was looked at."""
_EARLY = 40
"""So many operations and marks after a process began or ended are played more often than others."""


@dataclass
class Report:
    """What was played."""

    recordings: int = 0
    operations: int = 0
    acknowledged: int = 0
    """How many writes were acknowledged in the recordings."""
    states: int = 0
    """How many different ones were opened."""
    checks: int = 0
    """How many times a state was held against what was promised at a cut."""
    records: int = 0
    """How many records were read and verified."""
    lost: int = 0
    """How many of the states broke a promise."""

    def add(self, other: "Report") -> None:
        """Count what another one has as well."""
        for name, number in vars(other).items():
            setattr(self, name, getattr(self, name) + number)


OnViolation = Callable[[str, Violation], None]
"""Told of a state, by its cut and its name, and of what it broke."""


class Player:
    """Plays states of one recording in a directory of its own."""

    def __init__(self, operations: Sequence[Operation], mode: str, directory: Path) -> None:
        self.report = Report(recordings=1, operations=len(operations))
        self._promises = Promises(operations)
        self.report.acknowledged = self._promises.acknowledged
        self._cuts = {cut.at: cut for cut in cuts(operations)}
        ends = {operation.process: at for at, operation in enumerate(operations)}
        births = {operation.process: at for at, operation in reversed([*enumerate(operations)])}
        turns = {*births.values(), *ends.values()}
        self._early = [cut for cut in self._cuts.values() if any(at <= cut.at < at + _EARLY for at in turns)]
        self._mode = mode
        self._directory = directory
        self._found: dict[bytes, Found | Violation] = {}

    def play(self, count: int, chance: random.Random, on_violation: OnViolation) -> None:
        """Play so many different states, or as many as are found in ten times as many attempts."""
        all_alike = list(self._cuts.values())
        with in_mode(self._mode), asyncio.Runner() as runner:
            for _ in range(10 * count):
                if self.report.states >= count:
                    break
                cut = chance.choice(self._early if chance.random() < 0.25 else all_alike)
                self._play(runner, cut, chance.choice(states(cut, chance)), on_violation)

    def play_one(self, state: str, on_violation: OnViolation) -> None:
        """Play the state that an error names."""
        at, _, name = state.partition(" ")
        with in_mode(self._mode), asyncio.Runner() as runner:
            self._play(runner, self._cuts[int(at)], name, on_violation)

    def _play(self, runner: asyncio.Runner, cut: Cut, name: str, on_violation: OnViolation) -> None:
        files = build(cut, name)
        key = _digest(files)
        if key not in self._found:
            self.report.states += 1
            self._found[key] = self._look(runner, files, key)
        found = self._found[key]
        self.report.checks += 1
        try:
            if isinstance(found, Violation):
                raise found
            self._promises.check(cut.at, found)
        except Violation as violation:
            self.report.lost += 1
            on_violation(f"{cut.at} {name}", violation)

    def _look(self, runner: asyncio.Runner, files: dict[str, bytes], key: bytes) -> Found | Violation:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        for name, content in files.items():
            (self._directory / name).write_bytes(content)
        if key[0] % 2:  # whatever became of this one, which is not flushed
            (self._directory / f"{DATABASE}-shm").write_bytes(random.Random(key).randbytes(32768))
        path = str(self._directory / DATABASE)
        try:
            found, records = runner.run(look(path))
            self.report.records += records
            if key[1] % _GOES_ON == 0:
                runner.run(_go_on(path, key))
        except PersistenceError as error:
            return Violation(f"invariant 14: an honest store is refused: {error!r}")
        except Violation as violation:
            return violation
        return found


def _digest(files: dict[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    return digest.digest()


async def _go_on(path: str, key: bytes) -> None:
    """Use the store again: carry on what the power loss ended, and bring a new order to its end."""
    async with SQLitePersistence(path) as store:
        for outcome in await recover(store, [Bulky]):
            if outcome.error is not None:
                raise Violation(f"invariant 20: {outcome.workflow_id} does not go on: {outcome.error!r}")
        await bring_to_its_end("after", random.Random(key).choice(EVERY_SCRIPT), store, kind=Bulky)
        checked = await verify(store)
        if checked.problems:
            raise Violation(f"invariant 14: a store that went on is called damaged: {checked.problems}")


def record_and_play(
    directory: Path, mode: str, seed: str, count: int, on_violation: Callable[[bytes, str, Violation], None]
) -> Report:
    """Make a recording, and play states of it.

    Args:
        directory: An empty one.
        mode: How the store commits.
        seed: Of what the processes do, and of which states are played. (When their threads do it is not drawn.)
        count: How many states, at most.
        on_violation: Told of the recording, of a state of it, and of what it broke.
    """
    log = record(directory, mode, random.Random(seed))
    operations = read(log)
    check_complete(operations, directory / "files")
    player = Player(operations, mode, directory / "state")
    player.play(count, random.Random(f"{seed}/states"), lambda state, violation: on_violation(log, state, violation))
    return player.report


def scratch() -> str | None:
    """Return where temporary files cost least: in memory, where the system has a place for that."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
