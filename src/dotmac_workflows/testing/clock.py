"""A clock that stands still until it is told."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `dotmac_workflows.Clock` that a test moves: ``Runtime(clock=FakeClock())``."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Begin at an aware instant."""
        self._now_us = (start - _EPOCH) // timedelta(microseconds=1)
        self._monotonic = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self._now_us += round(seconds * 1_000_000)
        self._monotonic += seconds

    def now_us(self) -> int:
        """See `Clock.now_us`."""
        return self._now_us

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._monotonic
