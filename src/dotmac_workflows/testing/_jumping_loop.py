"""An event loop that never waits for a timer: when nothing else is to be done, the clock jumps to it.

An event loop does all of its waiting in one place: it asks its selector to wait for a file to become ready, at most
until the next timer is due. So two things make a loop of fake time: `time` is the clock's, and the selector, asked to
wait, moves the clock instead.

What works outside of the loop is not to be jumped past. Three kinds of it are told apart:

- What is **counted**: functions in an executor (``asyncio.to_thread``) and calls to a `SQLitePersistence`. While one is
  outstanding the loop waits for it, however long that takes, and its time stands still.
- What **may** be at work: any other thread, any file or socket that the loop watches. Nobody can know, so it is given
  some real milliseconds each time before the clock moves.
- **Nothing**: then the loop waits for no real time at all. If there is no timer either, it is stuck for good, and that
  is an error, not a hang.

Public methods are overridden. Three things are taken from what asyncio does (3.11 to 3.14) rather than from what it
documents: that it waits nowhere but in ``selector.select(timeout)``, its heap of timers, and how early one may run.
"""

import asyncio
import heapq
import itertools
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple
from weakref import WeakSet

from ..persistence.sqlite import _calls as store_calls

if TYPE_CHECKING:
    from .clock import FakeClock

_OURS = "dotmac-workflows"  # how the names of this library's threads begin; each works only for what is counted

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in the time of a clock that it moves itself."""

    def __init__(self, clock: "FakeClock", patience: float) -> None:
        """Make one.

        Args:
            clock: What it takes the time from, and moves.
            patience: How long, in real seconds, what may be at work outside is waited for before each jump.
        """
        self._clock = clock
        self._patience = patience
        self._outstanding = 0
        self._has_executor = False
        self._workers: WeakSet[threading.Thread] = WeakSet()
        self._files = _JumpingSelector(self)
        super().__init__(self._files)
        self._own_files = len(self._files.get_map())
        # Private to asyncio: how early a timer may run. By default a nanosecond, which a float of seconds loses after
        # half a year, and then a timer that is due to the instant never runs: no problem where time goes on by itself.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """See `asyncio.loop.time`."""
        return self._clock.monotonic()

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.loop.call_at`; what is due at the same instant is called in the order of these calls."""
        ours: Any = self  # asyncio's own heap, which it has no other way to put a timer of another class into
        ours._check_closed()
        timer: Any = _Timer(when, callback, args, self, context)
        heapq.heappush(ours._scheduled, timer)
        timer._scheduled = True
        added: asyncio.TimerHandle = timer
        return added

    def turned(self) -> None:
        """It goes round once more."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> "asyncio.Future[Result]":
        """See `asyncio.loop.run_in_executor`; counted."""
        if executor is None and not self._has_executor:
            self.set_default_executor(ThreadPoolExecutor(thread_name_prefix=f"{_OURS} clock"))
        if executor is None or isinstance(executor, ThreadPoolExecutor):
            future = super().run_in_executor(executor, self._work, func, *args)
        else:  # what goes to another process has to be pickled
            future = super().run_in_executor(executor, func, *args)
        self._outstanding += 1
        future.add_done_callback(self._worked)
        return future

    def _work(self, func: Callable[[*Arguments], Result], *args: *Arguments) -> Result:
        """Run a function on a thread of a pool, which works only for what is counted."""
        self._workers.add(threading.current_thread())
        return func(*args)

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:  # type: ignore[override]  # as in typeshed
        """See `asyncio.loop.set_default_executor`."""
        self._has_executor = True
        super().set_default_executor(executor)

    def _worked(self, _future: "asyncio.Future[Any]") -> None:
        self._outstanding -= 1

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """See `asyncio.loop.shutdown_default_executor`; counted, since it waits for threads in a thread of its own."""
        self._outstanding += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._outstanding -= 1

    def wait_before_jump(self) -> float | None:
        """Return how long to wait for what is at work outside, in real seconds; None: until it answers."""
        if self._outstanding or any(call.loop is self for call in tuple(store_calls.awaited)):
            return None
        return self._patience if self._may_answer() else 0

    def _may_answer(self) -> bool:
        if len(self._files.get_map()) > self._own_files:
            return True
        loops = threading.current_thread()
        return any(
            thread is not loops and thread not in self._workers and not thread.name.startswith(_OURS)
            for thread in threading.enumerate()
        )

    def jump(self, seconds: float | None) -> None:
        """Let time pass until the next timer.

        Raises:
            RuntimeError: There is none.
        """
        if seconds is None:
            waiting = "; ".join(sorted(f"{task.get_name()} at {place_of(task)}" for task in asyncio.all_tasks(self)))
            hint = f" A thread or socket did not answer within the patience of {self._patience} s." * self._may_answer()
            raise RuntimeError(f"Everything waits, and nothing is due that would end it: {waiting}.{hint}")
        self._clock.advance(seconds)


class _Timer(asyncio.TimerHandle):
    """One of several that may be due at the same instant, which a clock that jumps comes to exactly."""

    _numbers = itertools.count()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._number = next(self._numbers)

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        assert isinstance(other, _Timer)
        return (self.when(), self._number) < (other.when(), other._number)


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that lets its loop jump instead of waiting for a timer."""

    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        self._loop.turned()
        if timeout is not None and timeout <= 0:
            return super().select(0)
        real = self._loop.wait_before_jump()
        events = super().select(real)
        if not events and real is not None:
            self._loop.jump(timeout)
        return events


def place_of(task: "asyncio.Task[Any]") -> str:
    """Return where a task waits: the line in the innermost of its coroutines that is not asyncio's own."""
    place = "an unknown place"
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        if not frame.f_globals.get("__name__", "").startswith("asyncio."):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        coroutine = coroutine.cr_await
    return place
