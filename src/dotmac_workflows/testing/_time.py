"""The time in a proof: that of its event loop, and what the clock on the wall shows."""

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from .clock import FakeClock


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


def wall_clock() -> Any:
    """Return what sets the time that the whole process sees, where that can be had."""
    if importlib.util.find_spec("time_machine") is None:
        return RuntimeClockOnly()
    from ._wall_clock import WallClock

    return WallClock()


class RuntimeClockOnly(nullcontext[None]):
    """Leaves the time of the process alone: only ``Runtime.clock`` is virtual."""

    covers_everything = False
    set = None
