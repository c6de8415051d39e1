"""Has every system call of a store fail, each in a process of its own, and judges what comes of it.

The call that fails is a real one: a library that is loaded before the C library (``failing_calls.c``) counts the calls
on the files of the store, those of SQLite and those of Python, and has the one of the plan fail, all from it on, or
a file be taken away just before it. A full disk is a real one as well: a small file system, or a limit on the size of
files.

``python -m processes.faults SEED EVERY LEFT`` does it on small file systems, of every so many pages, and prints what
came of it as JSON; it must be a process of its own, for it leaves the mounts of the system. Exit code 3 says that it
may not mount anything.
"""

import asyncio
import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count as count_up
from pathlib import Path

from crash_simulation import GATES
from dotmac_workflows import SQLitePersistence
from dotmac_workflows.testing._judge import Violation
from processes.disks import SmallDisk, leave_mounts
from processes.faulted import SOURCE, Calls, Plan, What
from processes.judging import Evidence
from processes.nursery import ENVIRONMENT, Worker
from processes.orders import Ledger, Order, bring_to_its_end, scripts_of, to_json

ORDERS = 3
ALL = Calls(sum(Calls))
BUT_UNLOCKS = ALL & ~Calls.UNLOCKS
BUT_LOCKS = BUT_UNLOCKS & ~Calls.RECORD_LOCKS
"""SQLite takes failing at a lock for somebody who holds it, and waits: where it lasts, for ten seconds each time."""
ROOM = Calls.WRITES | Calls.SYNCS | Calls.CREATES
CHANGES = Calls.WRITES | Calls.CREATES | Calls.NAMES

PLANS = (
    Plan("EIO, once", errno.EIO, BUT_UNLOCKS),
    Plan("EIO, until mended", errno.EIO, BUT_LOCKS, lasts=True, then="mends"),
    Plan("EIO, until the process dies", errno.EIO, BUT_LOCKS, lasts=True, then="dies"),
    Plan("EIO, once, and the process dies", errno.EIO, BUT_UNLOCKS, then="dies"),
    # No local file system fails to let go of a lock. If one did, SQLite would hold the lock for as long as this process
    # has the file open anywhere.
    Plan("EIO at letting go of a lock, once", errno.EIO, Calls.UNLOCKS, then="reopens"),
    Plan("ENOSPC, once", errno.ENOSPC, ROOM),
    Plan("ENOSPC, until mended", errno.ENOSPC, ROOM, lasts=True, then="mends"),
    Plan("ENOSPC, until the process dies", errno.ENOSPC, ROOM, lasts=True, then="dies"),
    Plan("EDQUOT, until mended", errno.EDQUOT, ROOM, lasts=True, then="mends"),
    Plan("a short write", errno.ENOSPC, Calls.WRITES, what=What.SHORT),
    Plan("short writes until mended", errno.ENOSPC, Calls.WRITES, lasts=True, what=What.SHORT, then="mends"),
    Plan("EROFS, until mended", errno.EROFS, CHANGES, lasts=True, then="mends"),
    Plan("EMFILE, once", errno.EMFILE, Calls.OPENS),
    Plan("EMFILE, until mended", errno.EMFILE, Calls.OPENS, lasts=True, then="mends"),
    Plan("ENOLCK, once", errno.ENOLCK, Calls.LOCKS | Calls.RECORD_LOCKS),
    Plan("ENOLCK, until mended", errno.ENOLCK, Calls.LOCKS, lasts=True, then="mends"),
    Plan("ENOMEM, once", errno.ENOMEM, Calls.MAPS),
    Plan("the file moved away", what=What.MOVE, then="dies"),
    Plan("the file replaced", what=What.REPLACE, then="dies"),
    Plan("the log moved away", what=What.MOVE_LOG, then="dies"),
)
FULL_DISKS = (Plan("no room until mended", then="mends"), Plan("no room until the process dies", then="dies"))


@dataclass
class Report:
    """What the faults of a lane came to."""

    faults: Counter[str] = field(default_factory=Counter)
    """How many there were, by plan."""
    calls: Counter[str] = field(default_factory=Counter)
    """Likewise, by system call and file, or kind of disk."""
    told: int = 0
    """In how many of them an order was told an error; in the others it went on."""
    appends: int = 0
    """How many appends were acknowledged around them."""
    workflows: int = 0
    """How many orders were brought to their end after them."""

    def __add__(self, other: "Report") -> "Report":
        """Return both together."""
        return Report(
            self.faults + other.faults,
            self.calls + other.calls,
            self.told + other.told,
            self.appends + other.appends,
            self.workflows + other.workflows,
        )


def compile_library(directory: Path) -> Path | None:
    """Return the library that makes calls fail; None where it cannot be had: no C compiler, or not this system."""
    made = directory / "failing_calls.so"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sysconfig.get_platform().partition("-")[0] != "linux":
        return None
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(SOURCE), "-ldl"]
    return made if subprocess.run(command, capture_output=True).returncode == 0 else None


class Lane:
    """One process after the other, each with its fault.

    Args:
        directory: Where the databases go.
        how: What `compile_library` made, or the name of a kind of disk.
        chance: Draws the orders.
        left: Whether the file was left by a process that was killed, with a write-ahead log; else it is yet to be made.
    """

    def __init__(self, directory: Path, how: str, chance: random.Random, *, left: bool = False) -> None:
        self.report = Report()
        self.counted = 0
        """How many calls of the plan the last process made."""
        self.at = 0
        """At which call the last process had its fault, or was to have it."""
        self._how = how
        self._before = Evidence(directory / "before")
        self._files = directory / "files"
        self._other = directory / "other"
        # A step that asks something of the store itself would take its fault for its own.
        every_script = [
            script
            for script in scripts_of(2, 3)
            if set(script.behaviours) <= {"ok", "fail", *GATES} - {"pause_approve"}
        ]
        self._before.scripts |= {f"order-{index}": chance.choice(every_script) for index in range(ORDERS)}
        self._before.database.parent.mkdir()
        if left:
            self._leave(chance.randint(8, 40))
        asyncio.run(_make_empty(self._other))
        self._worker = Worker("faulted", **({"LD_PRELOAD": how} if how.endswith(".so") else {}))

    def __enter__(self) -> "Lane":
        return self

    def __exit__(self, *exception: object) -> None:
        self._worker.close()

    def every_one(self, plan: Plan, every: int = 1) -> None:
        """Have a plan at every call, or at every so many, until a process does not make so many.

        Raises:
            Violation: A promise was broken.
        """
        for at in count_up(1, every):
            if not self.play(plan, at):
                break

    def play(self, plan: Plan, at: int) -> bool:
        """Have a plan at one call, and judge what comes of it; False: there are not so many calls.

        Raises:
            Violation: A promise was broken.
        """
        self.at = at
        evidence = self._begin(at)
        orders = to_json(evidence.scripts)
        arguments = (self._how, evidence.database, evidence.ledger, at, json.dumps(plan), orders)
        self._worker.start(*map(str, arguments))
        try:
            self._worker.wait()
            return asyncio.run(self._judge(plan, evidence))
        except Exception as error:
            raise Violation(f"{error}\n{plan} at {at} of {orders}\n{self._worker.last_words}") from error

    def _leave(self, lines: int) -> None:
        """Have a process killed at it."""
        worker, evidence = Worker("worker"), self._before
        worker.start(str(evidence.database), str(evidence.ledger), "resume", "0", to_json(evidence.scripts))
        while len(worker.said) < lines and worker.status is None:
            worker.listen()
        worker.kill()
        worker.close()
        evidence.lost.add(worker.process)
        evidence.note(worker.said)

    def _begin(self, at: int) -> Evidence:
        """Lay the files out as they are before."""
        evidence = deepcopy(self._before)
        shutil.rmtree(self._files, ignore_errors=True)
        shutil.copytree(evidence.database.parent, self._files, ignore=shutil.ignore_patterns("*-shm"))
        shutil.copy(self._other, self._files / "other")
        evidence.database, evidence.ledger = self._files / "orders.db", self._files / "ledger"
        return evidence

    def _mend(self) -> None:
        """Let there be no fault any more."""

    async def _judge(self, plan: Plan, evidence: Evidence) -> bool:
        worker, said = self._worker, self._worker.said
        if worker.status != 0:
            raise Violation(f"the process ended with exit code {worker.status}")
        self.counted = next(int(line.split()[1]) for line in said if line.startswith("counted "))
        where = [line.partition(" ")[2] for line in said if line.startswith("fired ")]
        if not where:
            return False
        stale = [line for line in said if line.startswith("stale ")]
        if stale:
            raise Violation(f"invariant 10 lost: acknowledged into a file that is gone: {stale}")
        evidence.lost.add(worker.process)
        self.report.faults[plan.name] += 1
        self.report.calls[where[0]] += 1
        self.report.told += any(line.startswith("error ") for line in said)
        if "opened late" in said and plan.meddles:
            # It was another file that was opened, so that what it holds is no promise of the one that is gone.
            return True
        evidence.note(said)
        self._put_back(plan)
        self._mend()
        await self._bring_to_their_ends(evidence)
        await evidence.judge()
        self.report.appends += evidence.acknowledged
        self.report.workflows += evidence.judged
        return True

    def _put_back(self, plan: Plan) -> None:
        """Put back what was taken away."""
        if plan.what is What.REPLACE and (self._files / "orders.db").read_bytes() != self._other.read_bytes():
            raise Violation("a file that was put in the place of another one was written to")
        for suffix in ("", "-wal"):
            away = self._files / f"away{suffix}"
            if away.exists():
                away.replace(self._files / f"orders.db{suffix}")

    async def _bring_to_their_ends(self, evidence: Evidence) -> None:
        class Successor(Order):
            workflow_type = "Order"
            ledger = Ledger(str(evidence.ledger))

        async with SQLitePersistence(evidence.database) as store:
            for item in evidence.scripts.items():
                await bring_to_its_end(*item, store, Successor)


class SmallDiskLane(Lane):
    """On a small file system; this process must have left the mounts of the system."""

    def __init__(self, directory: Path, chance: random.Random, *, left: bool = False) -> None:
        super().__init__(directory, SmallDisk.name, chance, left=left)
        self._files.mkdir()
        self._disk = SmallDisk(self._files)
        self._disk.mount(1)

    def __exit__(self, *exception: object) -> None:
        super().__exit__()
        self._disk.unmount()

    def _begin(self, at: int) -> Evidence:
        """Lay the files out on a disk that has so many pages more. What the orders do is not kept there."""
        evidence = deepcopy(self._before)
        self._disk.unmount()
        self._disk.mount(1000)
        for path in evidence.database.parent.glob("orders.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, self._files)
        room = os.statvfs(self._files)
        self._disk.resize(room.f_blocks - room.f_bfree + at)
        ledger = self._files.with_name("ledger")
        ledger.unlink(missing_ok=True)
        if evidence.ledger.exists():
            shutil.copy(evidence.ledger, ledger)
        evidence.database, evidence.ledger = self._files / "orders.db", ledger
        return evidence

    def _mend(self) -> None:
        self._disk.make_room()


async def _make_empty(path: Path) -> None:
    async with SQLitePersistence(path):
        pass


def main(seed: str, every: str, left: str) -> int:
    if not leave_mounts():
        return 3
    with tempfile.TemporaryDirectory() as directory:
        with SmallDiskLane(Path(directory), random.Random(seed), left=left == "left") as lane:
            for plan in FULL_DISKS:
                lane.every_one(plan, int(every))
        print(json.dumps(vars(lane.report)))
    return 0


def fill_small_disks(seed: int, every: int, *, left: bool) -> Report | None:
    """Fill small file systems, of every so many pages; None: that is not allowed here.

    Raises:
        Violation: A promise was broken.
    """
    arguments = (str(seed), str(every), "left" if left else "new")
    command = [sys.executable, "-m", "processes.faults", *arguments]
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if ran.returncode == 3:
        return None
    if ran.returncode:
        raise Violation(f"{ran.stderr}\nAgain, with src and tests in PYTHONPATH: {' '.join(command[1:])}")
    found = json.loads(ran.stdout)
    return Report(**{**found, "faults": Counter(found["faults"]), "calls": Counter(found["calls"])})


if __name__ == "__main__":
    logging.getLogger("dotmac_workflows").setLevel(logging.CRITICAL)
    sys.exit(main(*sys.argv[1:]))
