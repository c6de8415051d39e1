"""The time that a whole process sees, set by time-machine (extra ``prove``).

``time.time()``, ``datetime.now()`` and their like, however they were imported, show what they are told.
"""

import time_machine


class WallClock:
    """As a context, stops the wall clock of the process; `time.monotonic` goes on."""

    covers_everything = True

    def __init__(self) -> None:
        self._travel = time_machine.travel(0, tick=False)
        self._traveller: time_machine.Traveller | None = None

    def __enter__(self) -> "WallClock":
        self._traveller = self._travel.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._travel.stop()

    def set(self, at_ns: int) -> None:
        """Show this instant, in nanoseconds since 1970 UTC."""
        assert self._traveller is not None
        self._traveller.move_to(at_ns / 1_000_000_000)
