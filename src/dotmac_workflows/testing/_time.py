"""The event loop of a proof, its time, and what the clock on the wall shows."""

import asyncio
import importlib.util
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from ._effects import listener
from ._jumping_loop import JumpingLoop
from .clock import FakeClock

if TYPE_CHECKING:
    from ._wall_clock import WallClock

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class ProofTime(FakeClock):
    """The virtual time of a proof; tells who wants to know when it moves."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: Callable[[], None] | None = None

    def advance(self, seconds: float) -> None:
        """See `FakeClock.advance`."""
        super().advance(seconds)
        if self.moved is not None:
            self.moved()

    def _loop(self, patience: float) -> JumpingLoop:
        return ProofLoop(self, patience)


class ProofLoop(JumpingLoop):
    """Goes round so often and no more, and hears of the calls of the world in threads of an executor."""

    _left = 0
    _exhausted: Callable[[], None] | None = None

    def limit(self, turns: int, exhausted: Callable[[], None] | None) -> None:
        """Call a function when it has gone round so many times."""
        self._left, self._exhausted = turns, exhausted

    def turned(self) -> None:
        """See `JumpingLoop.turned`."""
        self._left -= 1
        if not self._left and self._exhausted is not None:
            self._exhausted()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], Result], *args: *Arguments
    ) -> "asyncio.Future[Result]":
        """See `asyncio.loop.run_in_executor`."""
        told_to = listener.get()
        if told_to is None or not (executor is None or isinstance(executor, ThreadPoolExecutor)):
            return super().run_in_executor(executor, func, *args)

        def heard(*args: *Arguments) -> Result:
            token = listener.set(told_to)
            try:
                return func(*args)
            finally:
                listener.reset(token)

        return super().run_in_executor(executor, heard, *args)


def wall_clock() -> "WallClock | RuntimeClockOnly":
    """Return what sets the time that the whole process sees, where that can be had."""
    if importlib.util.find_spec("time_machine") is None:
        return RuntimeClockOnly()
    from ._wall_clock import WallClock

    return WallClock()


class RuntimeClockOnly(nullcontext[None]):
    """Leaves the time of the process alone: only ``Runtime.clock`` is virtual."""

    covers_everything = False

    def set(self, at_ns: int) -> None:
        """See `WallClock.set`."""
