"""`verify()`: a store still holds what was written to it, or the problem is named."""

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from dotmac_workflows import (
    InMemoryPersistence,
    JournalCorruptError,
    JournalTooNewError,
    Verification,
    WorkflowConfigurationError,
    WorkflowStatus,
    verify,
)
from workflows import ABC, Backend, Order, Store, asks, fails


async def stored(store: Store) -> int:
    """Store three runs; return how many records they have."""
    backend = Backend(store)
    await backend.order(workflow_id="order-0").execute()
    order = backend.order(workflow_id="order-1", does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await backend.order(workflow_id="order-2", does={"c": fails()}).execute()
    return sum([len(await store.read(f"order-{n}")) for n in range(3)])


async def tamper(store: Store, record: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> None:
    """Change the third record of order-1, or its header, behind the back of the store."""
    if isinstance(store, InMemoryPersistence):
        if record is not None:
            store._records["order-1"][2] = store._records["order-1"][2]._replace(**record)
        if header is not None:
            store._headers["order-1"] = store._headers["order-1"]._replace(**header)
        return
    await store.close()
    changes = {**(record or {}), **(header or {})}
    values = [value.value if isinstance(value, WorkflowStatus) else value for value in changes.values()]
    table, where = ("records", "AND seq = 3") if record is not None else ("workflows", "")
    sets = ", ".join(f"{name} = ?" for name in changes)
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {sets} WHERE workflow_id = 'order-1' {where}", values)


async def drop(store: Store, seq: int) -> None:
    if isinstance(store, InMemoryPersistence):
        del store._records["order-1"][seq - 1]
        return
    await store.close()
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("DELETE FROM records WHERE workflow_id = 'order-1' AND seq = ?", (seq,))


async def reopened(store: Store) -> Store:
    return store if isinstance(store, InMemoryPersistence) else type(store)(store.path)


async def check(store: Store) -> Verification:
    store = await reopened(store)
    try:
        return await verify(store)
    finally:
        if not isinstance(store, InMemoryPersistence):
            await store.close()


async def test_a_sound_store_has_no_problems(store: Store) -> None:
    records = await stored(store)
    assert await verify(store) == Verification(3, records, [])


async def test_an_empty_store_has_none_either(store: Store) -> None:
    assert await verify(store) == Verification(0, 0, [])


@pytest.mark.parametrize(
    "change", [{"body": '{"step": "a"}'}, {"kind": "step_failed"}, {"at": 5}, {"digest": "0" * 64}]
)
async def test_a_changed_row_is_found_and_the_message_says_which(store: Store, change: dict[str, Any]) -> None:
    await stored(store)
    await tamper(store, record=change)
    found = await check(store)
    (problem,) = found.problems
    assert isinstance(problem, JournalCorruptError)
    assert (problem.workflow_id, problem.seq) == ("order-1", 3)
    assert "The journal of workflow 'order-1' is damaged: record 3" in str(problem)
    assert "Nothing was overwritten" in str(problem)
    assert found.workflows == 3


@pytest.mark.parametrize("seq", [1, 3, 5])
async def test_a_missing_row_is_found(store: Store, seq: int) -> None:
    await stored(store)
    assert len(await store.read("order-1")) == 5
    await drop(store, seq)
    (problem,) = (await check(store)).problems
    assert isinstance(problem, JournalCorruptError)
    assert problem.workflow_id == "order-1"
    # Only the header tells that a last record is missing; a backend may look at it by itself.
    assert problem.seq in ((None, 5) if seq == 5 else (seq,))


@pytest.mark.parametrize(
    "change",
    [
        {"status": WorkflowStatus.COMPLETED},
        {"pending_step": None},
        {"pending_step": "b"},
        {"version": 4},
        {"workflow_type": "Other"},
        {"created_at": 1},
        {"updated_at": 1},
        {"wake_at": 1},
    ],
)
async def test_a_changed_header_is_found(store: Store, change: dict[str, Any]) -> None:
    await stored(store)
    await tamper(store, header=change)
    (problem,) = (await check(store)).problems
    assert isinstance(problem, JournalCorruptError)
    assert problem.workflow_id == "order-1"
    if "version" in change:
        assert "version 4" in str(problem)
    else:
        assert "The header of workflow 'order-1'" in str(problem)
        assert "5 records amount to (waiting_approval, version 5)" in str(problem)


async def test_a_damaged_run_cannot_be_loaded_or_driven_and_others_still_run(store: Store) -> None:
    """Invariant 14."""
    await stored(store)
    await tamper(store, record={"body": "{}"})
    store = await reopened(store)
    before = await store.read("order-1")
    with pytest.raises(JournalCorruptError, match="record 3"):
        await Order.load("order-1", store)
    fresh = Order("order-1", ABC, persistence=store)
    for verb in (fresh.execute, fresh.approve_and_continue, fresh.approve, fresh.cancel, fresh.resume):
        with pytest.raises(JournalCorruptError, match="record 3"):
            await verb()
    assert (fresh.ledger, await store.read("order-1")) == ([], before)
    other = Order("order-9", ABC, persistence=store)
    await other.execute()
    assert other.is_completed
    if not isinstance(store, InMemoryPersistence):
        await store.close()


async def test_a_record_of_a_newer_version_is_refused_by_name(store: Store) -> None:
    """Invariant 14: unknown kinds are too new, not damaged."""
    from dotmac_workflows._run.journal import digest_of

    await stored(store)
    records = await store.read("order-1")
    header = next(header for header in await store.find() if header.workflow_id == "order-1")
    digest = digest_of(records[-1].digest, "order-1", 6, "teleported", 7, "{}")
    newer = records[-1]._replace(seq=6, kind="teleported", at=7, body="{}", digest=digest)
    await store.append("order-1", [newer], expected_version=5, header=header._replace(version=6))
    (problem,) = (await verify(store)).problems
    assert isinstance(problem, JournalTooNewError)
    assert "there is no event 'teleported' in this version; upgrade" in str(problem)
    with pytest.raises(JournalTooNewError, match="Record 6 of workflow 'order-1'"):
        await Order.load("order-1", store)
    assert (await store.read("order-1"))[-1] == newer


async def test_verify_writes_nothing(store: Store) -> None:
    await stored(store)
    before = [await store.read(f"order-{n}") for n in range(3)], await store.find()
    await verify(store)
    assert ([await store.read(f"order-{n}") for n in range(3)], await store.find()) == before


async def test_verify_goes_through_all_pages(store: Store) -> None:
    await asyncio.gather(*(Order(f"order-{n}", ["a"], persistence=store).execute() for n in range(120)))
    found = await verify(store)
    assert (found.workflows, found.problems) == (120, [])


async def test_a_store_that_cannot_list_is_refused() -> None:
    class Bare:
        async def append(self, *args: Any, **how: Any) -> None: ...

        async def read(self, workflow_id: str, *, after: int = 0) -> list[Any]:
            return []

        async def delete(self, workflow_id: str) -> bool:
            return False

    with pytest.raises(WorkflowConfigurationError, match=r"verify\(\) needs a persistence that has find \(Queries\)"):
        await verify(Bare())
