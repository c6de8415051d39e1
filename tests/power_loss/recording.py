"""Recordings: what processes with a store did to their files, in order.

They run with `recorder.c` loaded before the C library, so that what is recorded is what the system was really asked to
do, whatever SQLite and Python make of their settings; and in a recording that is complete: from it the very files come
about that the processes left.
"""

import json
import os
import platform
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from power_loss.disk import Operation, build, cuts
from power_loss.worker import Task

TESTS = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("recorder.c")
DATABASE = "orders.db"
_FILES = {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-journal", "."}
_LEFT_OUT = {f"{DATABASE}-shm", f"{DATABASE}-lock", "marks"}


class Kill(NamedTuple):
    """When a process is killed."""

    kinds: str
    """After one of these operations, by their codes."""
    at_most: int


_KILLS = (
    None,
    None,
    Kill("cwtuS", 250),
    Kill("cwtuS", 250),
    Kill("s", 60),  # before a flush: a commit may be complete, and only in memory
    Kill("t", 12),  # when something was cut off: with a rollback journal that is the commit itself
)
_ENTRY = struct.Struct("=c3xIIIq")
_WHATS = {b"c": "create", b"u": "delete", b"w": "write", b"t": "resize", b"s": "flush", b"S": "flushed", b"m": "mark"}


def why_not() -> str | None:
    """Return why nothing can be recorded on this machine; None: it can."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or not Path("/proc/self/fd").exists():
        return "file operations are recorded on Linux with the GNU C library only"
    if shutil.which("cc") is None:
        return "file operations are recorded by a library made with the C compiler cc, and there is none"
    return None


@cache
def _recorder() -> str:
    """Make the recorder, once a process."""
    directory = tempfile.mkdtemp(prefix="recorder-")
    path = f"{directory}/recorder.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", path, str(SOURCE), "-ldl"], check=True)
    return path


def record(directory: Path, mode: str, chance: random.Random) -> bytes:
    """Have some processes work on a store, and return what they did.

    The first ones come at once, and one of them may be killed; those that come after find what they left.

    Args:
        directory: An empty one, for the files and the log.
        mode: How the stores commit; see `modes`.
        chance: Draws what they do.
    """
    seed = chance.randrange(10**9)
    left: list[str] = []
    for stage, rivals in enumerate((chance.choice((1, 2)), 1, 1), 1):
        kill = chance.choice(_KILLS) if stage < 3 else None
        after = chance.randrange(1, kill.at_most) if kill is not None else 0
        tasks = []
        alone = rivals == 1  # so that no two that live write to one order, whose marks would then tell of no order
        for rival in range(rivals):
            mine = [f"order-{stage}-{rival}-{number}" for number in range(chance.choice((1, 2, 3)))]
            again, left = left, []
            tasks.append(
                Task(
                    seed,
                    mode,
                    again + mine,
                    look_first=chance.random() < 0.7,
                    recover=chance.random() < 0.5 and alone,
                    forget=chance.random() < 0.3 and alone,
                    small_cache=chance.random() < 0.3,
                    slow_reader=chance.random() < 0.3 and mode.startswith("wal"),
                )
            )
        left = _run(directory, tasks, kill, after)
    return (directory / "log").read_bytes()


def _run(directory: Path, tasks: Sequence[Task], kill: Kill | None, after: int) -> list[str]:
    """Run processes at once, the first of which may be killed after so many operations; return what it leaves."""
    files, log = directory / "files", directory / "log"
    files.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)]),
        "LD_PRELOAD": _recorder(),
        "RECORDER_DIRECTORY": str(files),
        "RECORDER_LOG": str(log),
    }
    processes = []
    for number, task in enumerate(tasks):
        own = {"RECORDER_KILL": str(after), "RECORDER_KILL_KINDS": kill.kinds} if kill and not number else {}
        arguments = [str(files / DATABASE), str(files / "marks"), json.dumps(task._asdict())]
        command = [sys.executable, "-m", "power_loss.worker", *arguments]
        processes.append(subprocess.Popen(command, env={**environment, **own}))
    ended = [process.wait() for process in processes]
    for number, status in enumerate(ended):
        if status and (status != -signal.SIGKILL or not kill or number):
            raise RuntimeError(f"a worker ended with exit code {status}: {tasks[number]}")
    return tasks[0].orders if ended[0] else []


def read(log: bytes) -> list[Operation]:
    """Return the operations of a recording.

    Raises:
        ValueError: It has one that the model of a disk does not know.
    """
    operations, at = [], 0
    while at < len(log):
        code, process, name_length, length, number = _ENTRY.unpack_from(log, at)
        at += _ENTRY.size
        name = log[at : at + name_length].decode()
        at += name_length + length
        what = _WHATS.get(code)
        if what == "mark" or (name in _FILES and what):
            operations.append(Operation(what, process, name, number, log[at - length : at]))
        elif name not in _LEFT_OUT:
            raise ValueError(f"operation {code!r} on {name!r} is not foreseen")
    return operations


def check_complete(operations: Sequence[Operation], files: Path) -> None:
    """Make sure that the operations amount to the files that are there.

    Raises:
        ValueError: They do not: something was done that is not in the recording.
    """
    *_, end = cuts(operations)
    made = build(end, "everything")
    there = {name: (files / name).read_bytes() for name in _FILES - {"."} if (files / name).exists()}
    if made != there:
        raise ValueError(f"the recording does not amount to the files: {_sizes(made)}, not {_sizes(there)}")


def _sizes(files: dict[str, bytes]) -> dict[str, int]:
    return {name: len(content) for name, content in files.items()}
