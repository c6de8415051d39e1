"""Invariant 19: a workflow that waits costs no task, thread, connection or memory in any process."""

import asyncio
import gc
import threading
import weakref
from pathlib import Path

import pytest

from dotmac_workflows import SQLitePersistence, WorkflowResult
from dotmac_workflows._run.local import LocalHost
from workflows import Backend, Behaviour, Order, Store, asks, raises, seen


async def pauses(workflow: Order, name: str) -> WorkflowResult:
    await workflow.pause()
    return WorkflowResult(True, name)


def things() -> "weakref.WeakSet[LocalHost | Order]":
    """All workflows and hosts that are alive: other tests may have left some, in a traceback that pytest keeps."""
    gc.collect()
    return weakref.WeakSet(thing for thing in gc.get_objects() if isinstance(thing, LocalHost | Order))


async def waiting(backend: Backend, does: Behaviour, workflow_id: str = "order-1") -> Order:
    order = backend.order(workflow_id=workflow_id, does={"a": does})
    order.configure(require_approval=True)
    await order.execute()
    return order


@pytest.mark.parametrize(("does", "status"), [(asks, "waiting_approval"), (pauses, "paused")])
async def test_a_waiting_workflow_leaves_no_task_no_thread_and_no_lease(
    backend: Backend, does: Behaviour, status: str
) -> None:
    await backend.order(["a"], workflow_id="order-0").execute()  # the store has its own threads from here on
    threads, others = set(threading.enumerate()), things()
    order = await waiting(backend, does)
    assert seen(order) == (status, ["a"])
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(threading.enumerate()) <= threads
    assert set(things() - others) == {order}
    if backend.persistence is not None:
        assert await backend.persistence.lease("order-1") is None  # type: ignore[attr-defined] # both backends have it


async def test_an_object_that_waits_is_freed_without_the_garbage_collector(backend: Backend) -> None:
    gc.disable()
    try:
        order = await waiting(backend, asks)
        gone = weakref.ref(order)
        del order
        assert gone() is None
    finally:
        gc.enable()


async def test_many_waiting_workflows_keep_nothing_in_the_process(store: Store) -> None:
    backend = Backend(store)
    threads, others = set(), things()
    for n in range(30):
        await waiting(backend, asks, f"order-{n}")
        if n == 0:
            threads = set(threading.enumerate())
    assert set(threading.enumerate()) <= threads
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(things() - others) == set()


async def test_a_workflow_that_ended_or_was_left_leaves_none_either(store: Store) -> None:
    await Backend(store).order(["a"], workflow_id="order-0").execute()
    threads = set(threading.enumerate())
    left = Backend(store).order(does={"b": raises(KeyboardInterrupt())})
    with pytest.raises(KeyboardInterrupt):
        await left.execute()
    await Backend(store).order(workflow_id="order-2").execute()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(threading.enumerate()) <= threads
    assert [await store.lease(f"order-{n}") for n in range(3)] == [None] * 3


async def test_it_waits_on_when_nothing_of_it_is_left_but_the_file(tmp_path: Path) -> None:
    async with SQLitePersistence(tmp_path / "journals.db") as store:
        await waiting(Backend(store), asks)
    async with SQLitePersistence(tmp_path / "journals.db") as store:
        order = await Order.load("order-1", store)
        assert seen(order) == ("waiting_approval", ["a"])
        await order.approve_and_continue()
        assert seen(order) == ("completed", ["a", "b", "c"])
