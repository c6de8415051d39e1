"""Work done in forks, several at a time, each with a pipe to tell by and killed when it hangs."""

import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO

_MEMORY = 8 << 30  # bytes of address space, for what never stops growing

Work = Callable[[int, IO[str]], None]
"""Does what has a number, in a fork of its own, and writes lines."""


class Told:
    """What a fork has told so far."""

    def __init__(self, number: int, process: int, reader: int, patience: float) -> None:
        self.number = number
        self.process = process
        self.reader = reader
        self.text = b""
        self.deadline = time.monotonic() + patience
        self.hung = False

    @property
    def lines(self) -> list[str]:
        """The whole lines."""
        return self.text.decode(errors="replace").split("\n")[:-1]


def run(numbers: Iterator[int], jobs: int, work: Work, patience: Callable[[str], float]) -> Iterator[Told]:
    """Do each number's work, and yield what it told when it has ended.

    Args:
        numbers: What to do; asked for the next one only when there is room for it.
        jobs: How many at a time.
        work: What is done in the fork.
        patience: How many seconds there may be before the next line, after this one; empty: before the first.
    """
    running: dict[int, Told] = {}
    more = True
    while running or more:
        while more and len(running) < jobs:
            number = next(numbers, None)
            if number is None:
                more = False
                break
            started = _start(number, work, patience(""))
            running[started.reader] = started
        if not running:
            return
        soonest = min(told.deadline for told in running.values())
        ready, _, _ = select.select(list(running), [], [], max(0.0, soonest - time.monotonic()))
        for reader in ready:
            told = running[reader]
            part = os.read(reader, 65536)
            told.text += part
            if part:
                lines = told.lines
                told.deadline = time.monotonic() + patience(lines[-1] if lines else "")
            else:
                del running[reader]
                _end(told)
                yield told
        for told in [told for told in running.values() if told.deadline <= time.monotonic()]:
            told.hung = True
            del running[told.reader]
            _end(told)
            yield told


def _start(number: int, work: Work, patience: float) -> Told:
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        return Told(number, process, reader, patience)
    status = 1
    try:
        os.setsid()  # so that what it starts ends with it
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has those in its background ignore it
        os.close(reader)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        with os.fdopen(writer, "w", buffering=1) as out:
            work(number, out)
        status = 0
    finally:
        os._exit(status)


def _end(told: Told) -> None:
    with suppress(ProcessLookupError):  # all of its session
        os.killpg(told.process, signal.SIGKILL)
    os.waitpid(told.process, 0)
    os.close(told.reader)
