"""What belongs to the process that runs a workflow rather than to the run: clock, codec, lease and grace times."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from ..values import Codec


class Clock(Protocol):
    """Where a workflow gets the time from; the `time` module is one."""

    def time_ns(self) -> int:
        """Return the wall clock's time, in nanoseconds since 1970 UTC: for instants."""
        ...

    def monotonic(self) -> float:
        """Return a clock that never goes back, in seconds from any origin: for durations."""
        ...


@dataclass(frozen=True)
class Runtime:
    """Set as the class attribute `Workflow.runtime`; not stored, and free to differ between processes.

    Raises:
        ValueError: A duration is not positive.
    """

    clock: Clock = time
    """Where the time comes from."""
    codec: Codec = field(default_factory=Codec)
    """How values become JSON; must know the types that stored runs used."""
    lease_seconds: float = 30.0
    """How long a driver that is not heard of keeps its run; renewed each second while a step runs."""
    cancel_grace_seconds: float = 10.0
    """How long a step that was interrupted by a cancel may take to end before it is interrupted once more."""

    def __post_init__(self) -> None:
        for name in ("lease_seconds", "cancel_grace_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be a positive number of seconds, not {getattr(self, name)!r}")
