"""A clock that stands still until it is told, or until everything waits for it."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from ..errors import WorkflowConfigurationError
from ._jumping_loop import JumpingLoop
from ._seconds import DAY, check_seconds, shown

Result = TypeVar("Result")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST = 100_000_000_000  # seconds at once: three thousand years


class FakeClock:
    """A `dotmac_workflows.Clock` that a test moves: ``Runtime(clock=FakeClock())``.

    It moves by `advance`, or by itself inside `run`. It belongs to one thread.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Begin at an instant.

        Args:
            start: An aware datetime.

        Raises:
            WorkflowConfigurationError: It is none, or has no time zone.
        """
        self._time_ns = _nanoseconds(start)
        self._monotonic = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks. Inside `run`, timers that are due by then run as soon as the caller waits.

        Raises:
            WorkflowConfigurationError: That is no number of seconds, or a negative one: no clock goes back.
        """
        check_seconds("FakeClock.advance() was given", seconds, _MOST)
        self._time_ns += round(seconds * 1_000_000_000)
        self._monotonic += seconds

    def time_ns(self) -> int:
        """See `Clock.time_ns`."""
        return self._time_ns

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._monotonic

    def run(self, main: Coroutine[Any, Any, Result], *, patience: float = 0.01) -> Result:
        """Run a coroutine as ``asyncio.run`` does, in the time of this clock: no real time passes.

        As soon as everything waits, the clock jumps to what is due next, and no further. So ``asyncio.sleep``,
        ``asyncio.timeout`` and ``loop.call_later`` take the time that they say, by this clock, and so do the lease, its
        heartbeat and the grace after a cancel of a workflow whose `Runtime` has this clock.

        While a function runs in a thread (``asyncio.to_thread``), or a call to a `SQLitePersistence` is not answered,
        the clock stands still. A step that waits for what never comes is no standstill, as its heartbeat goes on: put
        an ``asyncio.timeout`` around what could.

        Args:
            main: What to run. When it is done, tasks that are left are cancelled. If `run` refuses, it is closed.
            patience: How long an answer from anything else outside may take, in real seconds: from a thread or a
                process of your own, or over a socket. Before each jump that long is waited, if there is any such thing.
                From 0, for no patience, to a day.

        Returns:
            What the coroutine returned.

        Raises:
            RuntimeError: Everything waits and nothing is ever due: the message says where each task waits. Or an
                event loop runs already.
            WorkflowConfigurationError: `main` is no coroutine, or the patience no such number.
        """
        try:
            _check_run(main, patience)
        except Exception:
            if isinstance(main, Coroutine):
                main.close()  # else Python warns that nobody awaited it, beside the error that says why
            raise
        with asyncio.Runner(loop_factory=lambda: self._loop(patience)) as runner:
            return runner.run(main)

    def _loop(self, patience: float) -> JumpingLoop:
        return JumpingLoop(self, patience)


def _nanoseconds(start: object) -> int:
    if not isinstance(start, datetime):
        wrong = "is no datetime"
    elif start.utcoffset() is None:
        wrong = "has no time zone"
    else:
        return (start - _EPOCH) // timedelta(microseconds=1) * 1000
    raise WorkflowConfigurationError(
        f"FakeClock(start={shown(start)}) {wrong}. Give an aware datetime, such as datetime(2026, 1, 1, tzinfo=UTC)."
    )


def _check_run(main: object, patience: object) -> None:
    if not isinstance(main, Coroutine):
        instead = "Call it: run(main())" if callable(main) else "Give what an async function returns when it is called"
        raise WorkflowConfigurationError(
            f"FakeClock.run() takes a coroutine, not an object of type {type(main).__name__}. {instead}."
        )
    check_seconds("The patience of FakeClock.run() is", patience, DAY)
    if _is_in_a_loop():
        raise RuntimeError("FakeClock.run() cannot be called from a running event loop: call it where none runs yet")


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
