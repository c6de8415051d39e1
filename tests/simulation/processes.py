"""Several processes in this one, on one clock that moves only when nobody has anything to do.

A `Process` is an event loop of its own: the engine's real tasks, timers and cancels run in it, in the order that
asyncio promises within a process. Which process has the next turn, `Machines` draws by chance, so that a seed gives
one history and always the same one. A process can be stopped for a while, as by SIGSTOP; killed, and then no code of it
runs any more; or told to shut down, which cancels its task. Each has a wall clock of its own, which may be wrong, and
set.
"""

import asyncio
import contextlib
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import Context
from types import coroutine
from typing import Any, TypeVar
from unittest.mock import patch

from dotmac_workflows import Runtime, _verbs
from dotmac_workflows._core import codec
from dotmac_workflows._core.events import Event
from dotmac_workflows._run import lease
from dotmac_workflows.values import Codec

_T = TypeVar("_T")
EPOCH = 1_800_000_000_000_000
"""When every history begins, in microseconds since 1970 UTC."""
LEASE_SECONDS = 3.0
VALUES = Codec()


class _Turn:
    """Whose turn it is."""

    process: "Process | None" = None


_turn = _Turn()


class Machines:
    """All processes, and the time.

    Args:
        chance: What everything is drawn by.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.seconds = 0.0
        """The time since the beginning."""
        self.turns = 0
        """How often a process had its turn."""
        self.broken: BaseException | None = None
        """The first thing that went wrong; it ends the history."""
        self.processes: list[Process] = []
        """Those that live."""
        self.read: dict[tuple[str, int, str], Event] = {}
        """The events of rows that were read, by what the row says."""
        self._born = 0
        self._timers: list[tuple[float, int, Process, _Timer]] = []
        self._numbered = 0

    def start(self, boot: int, skew: float) -> "Process":
        """Have a process born, on a machine, with a wall clock that is wrong by so many seconds."""
        self._born += 1
        process = Process(self, self._born, boot, skew)
        self.processes.append(process)
        return process

    def turn(self) -> bool:
        """Let one process do the next thing that it has to do; False: nobody ever has anything to do again."""
        while True:
            now = self.seconds
            able = [process for process in self.processes if process.ready and process.stopped_until <= now]
            if able:
                break
            if not self._timers:
                return False
            self._wait()
        self.turns += 1
        able[int(self.chance.random() * len(able))].turn()
        return True

    def at(self, process: "Process", moment: float, timer: "_Timer") -> None:
        """Wake a process at a moment, or when it goes on after that."""
        heapq.heappush(self._timers, (moment, self.once(), process, timer))

    def _wait(self) -> None:
        """Let time pass until somebody has something to do, and all who have at that moment."""
        self.seconds = max(self.seconds, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self.seconds:
            moment, _, process, timer = heapq.heappop(self._timers)
            if process.stopped_until > moment:
                self.at(process, process.stopped_until, timer)
            elif timer.callback is not None and process.alive:
                process.ready.append((timer.run, ()))

    def enter(self, process: "Process | None") -> None:
        """Have this process be the one that runs; None: none of them."""
        if _turn.process is not process:  # it is a system call to say so
            _turn.process = process
            asyncio._set_running_loop(process.loop if process else None)

    def broke(self, why: BaseException) -> None:
        """Something went wrong: the history ends with the first that does, whoever catches it."""
        self.broken = self.broken or why

    def once(self) -> int:
        """Return a number that comes once."""
        self._numbered += 1
        return self._numbered

    def is_gone(self, pid: str, start: str) -> bool:
        """Tell whether a process has ended; any other process of its machine can see that."""
        return int(pid) not in {process.pid for process in self.processes}


class _Timer:
    """What `asyncio.TimerHandle` is, without a context of its own."""

    __slots__ = ("arguments", "callback")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None

    def run(self) -> None:
        if self.callback is not None:
            self.callback(*self.arguments)


class Process:
    """A process: one event loop, and what the engine asks an operating system about it."""

    def __init__(self, machines: Machines, pid: int, boot: int, skew: float) -> None:
        self.machines = machines
        self.pid = pid
        self.loop: Any = self
        """The same, as asyncio takes it: it calls no more of a loop than there is here."""
        self.owner = f"machine-{boot}:{pid}:{pid}:boot-{boot}:1"
        self.tokens: set[str] = set()
        """The leases that drivers of it hold, as `dotmac_workflows._run.lease` notes them."""
        self.runtime = Runtime(clock=self, codec=VALUES, lease_seconds=LEASE_SECONDS, cancel_grace_seconds=1.0)
        self.ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.stopped_until = 0.0
        self.alive = True
        self._main: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._skew_us = EPOCH + round(skew * 1_000_000)

    # What happens to it.

    def run(self, main: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Have it do what it is for."""
        self._main = self.create_task(main)
        return self._main

    def turn(self) -> None:
        """Do the next thing."""
        callback, arguments = self.ready.popleft()
        self.machines.enter(self)
        callback(*arguments)

    def stop_for(self, seconds: float) -> None:
        """Let it do nothing for a while, and not know."""
        self.stopped_until = self.machines.seconds + seconds
        self.machines.at(self, self.stopped_until, _Timer(_nothing, ()))

    def shut_down(self) -> bool:
        """Cancel what it does; False: it does nothing."""
        self.machines.enter(self)
        return self._main is not None and self._main.cancel()

    def kill(self) -> None:
        """Have it gone: none of its code hears of it in time to do anything."""
        self.machines.processes.remove(self)
        self.ready.clear()
        self.alive = False
        self.machines.enter(self)
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # there since 3.4, and undocumented
            with contextlib.suppress(BaseException):  # such as what a task group makes of it
                task.get_coro().close()
        self.ready.clear()

    def set_clock(self, seconds: float) -> None:
        """Set its wall clock forward, or back."""
        self._skew_us += round(seconds * 1_000_000)

    # The clock; see `dotmac_workflows.Clock`.

    def time_ns(self) -> int:
        return (self._skew_us + round(self.machines.seconds * 1_000_000)) * 1000

    def monotonic(self) -> float:
        return self.machines.seconds

    # The event loop: what tasks, futures and the engine ask of one.

    def time(self) -> float:
        return self.machines.seconds

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        self.ready.append((callback, args))  # nobody cancels what is to happen at once

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Timer:
        timer = _Timer(callback, args)
        self.machines.at(self, self.machines.seconds + delay, timer)
        return timer

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self.loop)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self.loop, name=name)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.machines.broke(context.get("exception") or RuntimeError(context["message"]))


def _nothing() -> None:
    pass


@coroutine
def give_way() -> Generator[None, None, None]:
    """Let other processes come first."""
    yield


def this_process() -> Process:
    """Return the process whose turn it is; asking asyncio for it is a system call."""
    assert _turn.process is not None
    return _turn.process


class _Tokens:
    """The tokens that drivers of the process at hand hold."""

    def add(self, token: str) -> None:
        this_process().tokens.add(token)

    def discard(self, token: str) -> None:
        this_process().tokens.discard(token)

    def __contains__(self, token: str) -> bool:
        return token in this_process().tokens


class _System:
    """What a verb asks of the `os` module: bytes that come once."""

    @staticmethod
    def urandom(size: int) -> bytes:
        return this_process().machines.once().to_bytes(size, "big")


def _decoded(kind: str, at: int, body: str, values: Codec) -> Event:
    """Return the event that a row holds; the same one to all processes, for decoding it took a fourth of the time."""
    read = this_process().machines.read
    event = read.get((kind, at, body))
    if event is None:
        event = read[kind, at, body] = _decode(kind, at, body, values)
    return event


_decode = codec.decode


@contextlib.contextmanager
def no_operating_system() -> Iterator[None]:
    """Have the engine ask the simulated processes where it asks the operating system: who lives, what comes once."""
    with (
        patch.object(lease, "this_owner", lambda: this_process().owner),
        patch.object(lease, "_live", _Tokens()),
        patch.object(lease, "_is_gone", lambda pid, start: this_process().machines.is_gone(pid, start)),
        patch.object(_verbs, "os", _System),
        patch.object(codec, "decode", _decoded),
    ):
        yield
