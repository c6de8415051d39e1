"""Clauses on a task that is cancelled while it awaits a write: at every point where the write waits, once and twice.

A write is driven step by step, and the task that awaits it is cancelled where it waits for the first time, for the
second time, and so on, until it comes to its end before that. What is stored is looked at when the call has ended, and
again some time later: nothing tells when a write happens that nobody waits for.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NamedTuple

from ...persistence import Lease
from .bench import Bench, Handle
from .clause import Clause, clause
from .comparing import Broken, brief, describe_error, holds, same
from .rows import NOTHING, Contents, header, records, taken

_MOST_POINTS = 60
_LATER_SECONDS = 0.05  # at least; else three times what the slowest write took

_REMEDY = (
    "Give the write to a task of its own and await it shielded; on CancelledError wait for that task to end, however "
    "often it comes, then raise it. asyncio.to_thread and asyncio.shield alone let go of a write that goes on."
)


class _Driven:
    """A call that cancels the task that awaits it, where it waits for the first time, the second time ..."""

    def __init__(self, call: Coroutine[Any, Any, object], points: range) -> None:
        self._call = call
        self._points = points

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._call.__await__()
        error: BaseException | None = None
        waited = 0
        while True:
            try:
                waits_for = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            waited += 1
            task = asyncio.current_task()
            if waited in self._points and task is not None:
                task.cancel()
            try:
                yield waits_for
                error = None
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as thrown:  # handed on into the call, which is where it belongs
                error = thrown


class _Write(NamedTuple):
    """A kind of write, on a workflow that is there to be written."""

    name: str
    prepare: Callable[[Handle, str], Coroutine[Any, Any, None]]
    write: Callable[[Handle, str], Coroutine[Any, Any, object]]
    after: Callable[[Handle, str, Contents], Contents]
    """What is stored once it is done, of what was stored before."""


async def _nothing(store: Handle, workflow_id: str) -> None:
    pass


async def _old(store: Handle, workflow_id: str) -> None:
    await store.append(workflow_id, records(0), expected_version=0, lease=taken("t1"))


def _headers(store: Handle, workflow_id: str, version: int) -> list[Any]:
    return [header(workflow_id, version)] if store.has_queries else []


_WRITES = (
    _Write(
        "begun",
        _nothing,
        lambda store, name: store.append(name, records(0, 3), expected_version=0, lease=taken("t1")),
        lambda store, name, before: Contents(records(0, 3), _lease(store, "t1"), _headers(store, name, 3)),
    ),
    _Write(
        "appended",
        _old,
        lambda store, name: store.append(name, records(2, 3), expected_version=2, lease=taken("t2", replaces="t1")),
        lambda store, name, before: Contents(records(0, 5), _lease(store, "t2"), _headers(store, name, 5)),
    ),
    _Write("deleted", _old, lambda store, name: store.delete(name), lambda store, name, before: NOTHING),
    _Write(
        "renewed",
        _old,
        lambda store, name: store.renew(name, "t1", 5000),
        lambda store, name, before: before._replace(lease=Lease("owner of t1", "t1", 5000)),
    ),
)


def _lease(store: Handle, token: str) -> Lease | None:
    return Lease(f"owner of {token}", token, 1000) if store.has_leases else None


class _Cancelled(NamedTuple):
    """A write whose task was cancelled."""

    workflow_id: str
    ended: str
    """How it came back: ``CancelledError``, another error, or an answer."""
    before: Contents
    after: Contents
    """What is stored when all of it was done."""
    found: Contents
    """What was stored when it had come back."""


class _Sweep:
    """Cancels each kind of write wherever it waits."""

    def __init__(self, store: Handle) -> None:
        self.store = store
        self.cancelled: list[_Cancelled] = []
        self.slowest = 0.0
        """How long the slowest write took, in seconds."""

    async def run(self) -> None:
        """Cancel them all, each in a workflow of its own."""
        for kind in _WRITES if self.store.has_leases else _WRITES[:3]:
            await self._cancel_in_turn(kind, 2)
            points, seconds = await self._cancel_in_turn(kind, 1)
            # A thread may need a moment to take up a write, and what it has not taken up can be called back.
            for moment in (0.2, 0.4, 0.6, 0.8) if points else ():
                await self._cancel(kind, f"after-{moment:.0%}", range(0), seconds * moment)

    async def _cancel_in_turn(self, kind: _Write, times: int) -> tuple[int, float]:
        """Cancel it where it waits first, where it waits next ...; return at how many points, and how long it takes."""
        for point in range(1, _MOST_POINTS):
            seconds = await self._cancel(kind, f"{point}-{times}", range(point, point + times))
            if seconds is not None:  # it ended before it waited so often
                return point - 1, seconds
        return _MOST_POINTS, self.slowest

    async def _cancel(self, kind: _Write, name: str, points: range, later: float | None = None) -> float | None:
        """Cancel it at points where it waits, or so many seconds later; return how long it took where it was not."""
        store, loop, workflow_id = self.store, asyncio.get_running_loop(), f"{kind.name}-{name}"
        await kind.prepare(store, workflow_id)
        before = await store.contents(workflow_id)
        driven = _Driven(kind.write(store, workflow_id), points)
        began = loop.time()
        task = asyncio.create_task(self._observe(driven, workflow_id))
        timer = loop.call_later(later, task.cancel) if later is not None else None
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()  # where the clause itself was cancelled, since it took too long
            if timer is not None:
                timer.cancel()
        ended, found, seconds = task.result()
        seconds -= began
        self.slowest = max(self.slowest, seconds)
        if found is None:
            return seconds
        after = kind.after(store, workflow_id, before)
        self.cancelled.append(_Cancelled(workflow_id, ended, before, after, found))
        return None

    async def _observe(self, driven: _Driven, workflow_id: str) -> tuple[str, Contents | None, float]:
        """Return how a write ended, what was stored at that moment where it was cancelled, and when that was."""
        task = asyncio.current_task()
        assert task is not None
        try:
            ended = f"it returned {brief(await driven)}"
        except asyncio.CancelledError:
            ended = "CancelledError"
        except Exception as error:
            if not task.cancelling():
                raise
            ended = f"it raised {describe_error(error)}"
        now = asyncio.get_running_loop().time()
        if not task.cancelling():
            return ended, None, now
        while task.cancelling():
            task.uncancel()
        # In the same task and at once: what the call has left behind has had no time to come to an end.
        return ended, await self.store.contents(workflow_id), now


async def _sweep(bench: Bench) -> _Sweep:
    sweep = _Sweep(await bench.open())
    await sweep.run()
    bench.note = f"{len(sweep.cancelled)} writes cancelled" if sweep.cancelled else "it never waits inside"
    return sweep


@clause(
    "a cancelled write is done or not, and that is settled",
    rule="Where the task that awaits append, delete or renew is cancelled, all of the write is stored or nothing, once "
    "the call has come back; nothing happens afterwards.",
    why="The engine lets go of a run whose write is still under way: it comes after what the next driver has decided, "
    "or the run is left half written.",
    remedy=_REMEDY,
)
async def a_cancelled_write_is_settled(bench: Bench) -> None:
    sweep = await _sweep(bench)
    for one in sweep.cancelled:
        if one.found != one.before:
            same(one.found, one.after, f"what is stored of {one.workflow_id!r}", about=one.workflow_id)
    if sweep.cancelled:
        await asyncio.sleep(min(max(_LATER_SECONDS, 3 * sweep.slowest), bench.patience / 2))
    for one in sweep.cancelled:
        what = f"what is stored of {one.workflow_id!r}, some time after its write was cancelled,"
        same(await sweep.store.contents(one.workflow_id), one.found, what, about=one.workflow_id)


@clause(
    "a cancellation goes on",
    rule="A call that was cancelled raises CancelledError in the end, also where its write was done.",
    why="Shutting down, asyncio.timeout and TaskGroup hang or go on with work that nobody wants any more.",
    remedy="After waiting for the outcome, raise the CancelledError that came; never return from `except "
    "CancelledError`, and put no other error in its place.",
)
async def a_cancellation_goes_on(bench: Bench) -> None:
    for one in (await _sweep(bench)).cancelled:
        if one.ended != "CancelledError":
            what = f"the cancelled write of {one.workflow_id!r} to raise CancelledError"
            raise Broken(what, one.ended, about=one.workflow_id)


@clause(
    "the store goes on after a cancellation",
    rule="After a call was cancelled, the same handle reads and writes as before, the same workflow too.",
    why="A lock or a transaction that the cancelled call has left behind stops every workflow of the process.",
    remedy="Let go of locks and connections in `finally` or `async with`; roll back what was begun.",
)
async def the_store_goes_on(bench: Bench) -> None:
    sweep = await _sweep(bench)
    store = sweep.store
    for one in sweep.cancelled:
        stored = await store.read(one.workflow_id)
        version = len(stored)
        await store.append(one.workflow_id, records(version, 1), expected_version=version)
        same(await store.read(one.workflow_id), [*stored, *records(version, 1)], f"read({one.workflow_id!r})")
    await store.append("another", records(0), expected_version=0)
    holds(await store.delete("another"), "delete('another') to find it", "it found nothing")


CLAUSES: tuple[Clause, ...] = (
    the_store_goes_on,
    a_cancelled_write_is_settled,
    a_cancellation_goes_on,
)
