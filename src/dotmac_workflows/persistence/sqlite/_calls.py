"""The way from an event loop to a thread and back, made cheap: it is most of what a write costs beside the disk.

An awaiting task puts a `Call` into a thread's `Mailbox` and awaits the call's future. The thread leaves the result or
the error on the call and hands it, with all others that it finished at the same time, to `deliver`, which wakes each
event loop once. So one store serves several loops, and a loop that was closed in the meantime disturbs nobody.

A write that a thread has begun cannot be called back, so a task that is cancelled must not go before it knows how the
write ended. The future of such a call refuses to be cancelled; asyncio then remembers the cancellation, wakes the task
when the future is done, and raises `CancelledError` in it there. That is what ``asyncio.shield`` is for, without its
second future and its callbacks.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from ...errors import PersistenceError

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Item = TypeVar("Item")


awaited: "set[Call[Any]]" = set()
"""The calls that a task waits for at this moment. Nothing else tells an event loop that a thread is at work for it;
one whose clock jumps (`dotmac_workflows.testing.FakeClock.run`) has to know."""


class _Outcome(asyncio.Future[Result]):
    """A future that is done when the write is, and not before."""

    def cancel(self, msg: object | None = None) -> bool:
        """Refuse: see the module's docstring."""
        return False


class Call(Generic[Result]):
    """What a task asks of a thread, and where the answer goes."""

    __slots__ = ("error", "future", "loop", "result")

    result: Result
    """What the thread found; set unless there is an error."""
    error: PersistenceError | None
    """Why it could not be done."""

    def __init__(self, *, certain: bool) -> None:
        """Prepare a call from the running event loop.

        Args:
            certain: Whether a task that is cancelled has to wait for the outcome.
        """
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Result] = _Outcome(loop=self.loop) if certain else self.loop.create_future()
        self.error = None

    async def outcome(self) -> Result:
        """Wait for the thread.

        Raises:
            CancelledError: The task was cancelled. If the call is a certain one, it is done by now.
        """
        future = self.future
        awaited.add(self)
        try:
            return await future
        except asyncio.CancelledError:
            # Only for a coroutine that is driven by hand: a task arrives here with the future done.
            while not future.done():
                try:
                    await future
                except (asyncio.CancelledError, PersistenceError):
                    continue
            raise
        finally:
            awaited.discard(self)


class Mailbox(Generic[Item]):
    """What waits for a thread, in order; None is the last thing in it."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False

    def put(self, item: Item) -> bool:
        """Leave something for the thread; False, and nothing left, when the thread takes nothing more."""
        with self._gate:  # or an item could come to lie behind the None, and its task would wait for ever
            if self._closed:
                return False
            self._waiting.put(item)
            return True

    def close(self) -> None:
        """Take nothing more; the thread ends after what is already waiting."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)

    def abandon(self) -> None:
        """End the thread, without taking a lock: nobody is left who could put anything in (for finalizers)."""
        self._waiting.put(None)

    def take(self, timeout: float | None = None) -> Item | None:
        """Wait for the next item; None means the end.

        Raises:
            queue.Empty: Nothing came within the timeout, in seconds.
        """
        return self._waiting.get(timeout=timeout)

    def take_waiting(self) -> list[Item | None]:
        """Return whatever else is waiting by now, without waiting for more."""
        items: list[Item | None] = []
        take = self._waiting.get_nowait
        try:
            while True:
                items.append(take())
        except queue.Empty:
            return items


def deliver(calls: Iterable[Call[Any]]) -> None:
    """Hand answered calls back to their event loops; called on a thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call[Any]]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, answered in by_loop.items():
        try:
            loop.call_soon_threadsafe(_answer, answered)
        except RuntimeError:  # the loop was closed, and with it went whoever waited
            _logger.debug("An event loop was closed before %d answers of the store reached it", len(answered))


def _answer(calls: list[Call[Any]]) -> None:
    for call in calls:
        if call.future.done():  # abandoned
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.result)


def start_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a thread that does not keep the process alive: what it has acknowledged is on the disk."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread
