"""A clock that stands still until it is told."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `dotmac_workflows.Clock` that a test moves: ``Runtime(clock=FakeClock())``."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Begin at an aware instant."""
        self._time_ns = (start - _EPOCH) // timedelta(microseconds=1) * 1000
        self._monotonic = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._time_ns += round(seconds * 1_000_000_000)
        self._monotonic += seconds

    def time_ns(self) -> int:
        """See `Clock.time_ns`."""
        return self._time_ns

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._monotonic
