"""Every backend that we have keeps the contract that is shipped, and ours some things that it does not ask for."""

from functools import partial
from pathlib import Path

import pytest

from dotmac_workflows.errors import ConcurrencyError, LeaseLostError, PersistenceError, WorkflowConfigurationError
from dotmac_workflows.persistence import InMemoryPersistence, LeaseChange
from dotmac_workflows.testing import PersistenceReport, check_persistence
from journal_rows import header, records
from persistence.contract_stores import example_in, sqlite_in
from workflows import Store

KILLS = "a killed process loses nothing that it acknowledged"


def outcomes(report: PersistenceReport) -> set[str]:
    return {one.outcome for one in report.clauses}


async def test_memory_keeps_the_contract() -> None:
    report = await check_persistence(lambda name: InMemoryPersistence(), reopens=False)
    assert report.capabilities == ("Persistence", "Leases", "Queries")
    assert outcomes(report) == {"held", "not applicable"}


async def test_sqlite_keeps_the_contract(tmp_path: Path) -> None:
    report = await check_persistence(partial(sqlite_in, tmp_path))
    assert report.capabilities == ("Persistence", "Leases", "Queries", "Checks")
    assert outcomes(report) == {"held"}
    assert report.clauses[-1].name == KILLS


async def test_the_example_of_a_backend_keeps_the_contract(tmp_path: Path) -> None:
    report = await check_persistence(partial(example_in, tmp_path))
    assert report.capabilities == ("Persistence",)
    assert report.clauses[-1].name == KILLS
    assert report.clauses[-1].outcome == "held"


# What ours do beyond it.


def taken(token: str, *, replaces: str | None = None) -> LeaseChange:
    return LeaseChange(token, f"owner of {token}", 1000, replaces)


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_refused_writer_is_told_which_version_is_stored(store: Store, expected: int) -> None:
    await store.append("order-1", records(0), expected_version=0, header=header("order-1", 2))
    with pytest.raises(ConcurrencyError) as refusal:
        await store.append(
            "order-1", records(expected), expected_version=expected, header=header("order-1", expected + 2)
        )
    assert (refusal.value.workflow_id, refusal.value.expected_version, refusal.value.stored_version) == (
        "order-1",
        expected,
        2,
    )


async def test_an_unknown_workflow_is_at_version_zero(store: Store) -> None:
    with pytest.raises(ConcurrencyError) as refusal:
        await store.append("order-1", records(2), expected_version=2, header=header("order-1", 4))
    assert refusal.value.stored_version == 0


async def test_an_append_that_contradicts_itself_is_refused(store: Store) -> None:
    wrong_version = header("order-1", 3)
    wrong_workflow = header("order-2", 2)
    for given in (wrong_version, wrong_workflow):
        with pytest.raises(WorkflowConfigurationError, match="header"):
            await store.append("order-1", records(0), expected_version=0, header=given)
    with pytest.raises(WorkflowConfigurationError, match="densely"):
        await store.append("order-1", records(1), expected_version=0, header=header("order-1", 2))
    assert await store.read("order-1") == []
    assert await store.find() == []


@pytest.mark.parametrize("change", [taken("t3"), taken("t3", replaces="t2")])
async def test_who_lost_a_lease_is_told_who_holds_it(store: Store, change: LeaseChange) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1"))
    with pytest.raises(LeaseLostError) as refusal:
        await store.append("w", records(2), expected_version=2, header=header("w", 4), lease=change)
    assert (refusal.value.workflow_id, refusal.value.owner) == ("w", "owner of t1")
    with pytest.raises(LeaseLostError) as refusal:
        await store.renew("w", "t2", 9000)
    assert (refusal.value.workflow_id, refusal.value.owner) == ("w", "owner of t1")


async def test_who_lost_a_lease_that_nobody_holds_is_told_so(store: Store) -> None:
    with pytest.raises(LeaseLostError) as refusal:
        await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t2", replaces="t1"))
    assert refusal.value.owner is None
    with pytest.raises(LeaseLostError) as refusal:
        await store.renew("w", "t1", 5000)
    assert refusal.value.owner is None


async def test_a_first_append_without_records_keeps_header_and_lease(store: Store) -> None:
    await store.append("w", [], expected_version=0, header=header("w", 0), lease=taken("t1"))
    assert await store.read("w") == []
    assert await store.lease("w") == ("owner of t1", "t1", 1000)
    assert await store.find() == [header("w", 0)]
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1", replaces="t1"))
    assert await store.read("w") == records(0)


@pytest.mark.parametrize("limit", [0, -1])
async def test_an_empty_page_is_a_mistake(store: Store, limit: int) -> None:
    with pytest.raises(WorkflowConfigurationError, match="at least 1"):
        await store.find(limit=limit)


async def test_a_very_large_limit_is_none(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2))
    assert await store.find(limit=10**30) == [header("w", 2)]


async def test_refusals_say_what_to_do(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2))
    with pytest.raises(PersistenceError, match=r"'w' is at version 2, not 0: somebody else appended first"):
        await store.append("w", records(0), expected_version=0, header=header("w", 2))
    with pytest.raises(PersistenceError, match=r"lease of workflow 'w' is held by nobody by now; nothing was written"):
        await store.renew("w", "t1", 1)
