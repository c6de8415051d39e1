"""What every backend does, whatever it keeps its rows in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dotmac_workflows.errors import ConcurrencyError, LeaseLostError, PersistenceError, WorkflowConfigurationError
from dotmac_workflows.persistence import (
    Header,
    InMemoryPersistence,
    Lease,
    LeaseChange,
    Leases,
    Persistence,
    Queries,
    SQLitePersistence,
)
from dotmac_workflows.status import WorkflowStatus
from journal_rows import header, records

Store = InMemoryPersistence | SQLitePersistence


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield InMemoryPersistence()
    else:
        async with SQLitePersistence(tmp_path / "journals.db") as opened:
            yield opened


def taken(token: str, *, replaces: str | None = None, expires_at: int = 1000) -> LeaseChange:
    return LeaseChange(token, f"owner of {token}", expires_at, replaces)


def let_go(token: str) -> LeaseChange:
    return LeaseChange(token, f"owner of {token}", None, token)


async def contents(store: Store, workflow_id: str) -> tuple[object, ...]:
    """All that is stored of a workflow, to compare before and after."""
    return await store.read(workflow_id), await store.lease(workflow_id), await store.find()


async def test_it_offers_all_capabilities(store: Store) -> None:
    assert isinstance(store, Persistence)
    assert isinstance(store, Leases)
    assert isinstance(store, Queries)


async def test_an_unknown_workflow_is_empty(store: Store) -> None:
    assert await store.read("order-1") == []
    assert await store.lease("order-1") is None
    assert await store.find() == []
    assert await store.delete("order-1") is False


async def test_records_and_header_come_back_as_they_were_given(store: Store) -> None:
    given = header("order-1", 2, pending_step="check", wake_at=77, status=WorkflowStatus.WAITING_APPROVAL)
    await store.append("order-1", records(0), expected_version=0, header=given)
    assert await store.read("order-1") == records(0)
    assert await store.find() == [given]
    assert await store.lease("order-1") is None


async def test_an_append_follows_on_the_one_before(store: Store) -> None:
    await store.append("order-1", records(0), expected_version=0, header=header("order-1", 2))
    await store.append("order-1", records(2, 3), expected_version=2, header=header("order-1", 5))
    assert await store.read("order-1") == records(0, 5)
    assert await store.read("order-1", after=3) == records(3, 2)
    assert await store.read("order-1", after=5) == []


async def test_the_header_is_replaced_whole(store: Store) -> None:
    await store.append("order-1", records(0), expected_version=0, header=header("order-1", 2, pending_step="check"))
    then = header("order-1", 4, workflow_type="Billing", status=WorkflowStatus.FAILED, created_at=5, wake_at=9)
    await store.append("order-1", records(2), expected_version=2, header=then)
    assert await store.find() == [then]
    assert await store.find(status=WorkflowStatus.RUNNING) == []
    assert await store.find(workflow_type="Onboarding") == []
    assert await store.find(status=WorkflowStatus.FAILED, workflow_type="Billing", due_before=9) == [then]


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_writer_that_has_not_seen_the_last_record_is_refused(store: Store, expected: int) -> None:
    await store.append("order-1", records(0), expected_version=0, header=header("order-1", 2))
    before = await contents(store, "order-1")
    with pytest.raises(ConcurrencyError) as refusal:
        await store.append(
            "order-1",
            records(expected, mark="other"),
            expected_version=expected,
            header=header("order-1", expected + 2, status=WorkflowStatus.FAILED),
            lease=taken("t1"),
        )
    assert (refusal.value.workflow_id, refusal.value.expected_version, refusal.value.stored_version) == (
        "order-1",
        expected,
        2,
    )
    assert await contents(store, "order-1") == before


async def test_an_append_to_an_unknown_workflow_begins_at_zero(store: Store) -> None:
    with pytest.raises(ConcurrencyError) as refusal:
        await store.append("order-1", records(2), expected_version=2, header=header("order-1", 4))
    assert refusal.value.stored_version == 0
    assert await store.read("order-1") == []
    assert await store.find() == []


async def test_an_append_that_contradicts_itself_is_refused(store: Store) -> None:
    wrong_version = header("order-1", 3)
    wrong_workflow = header("order-2", 2)
    for given in (wrong_version, wrong_workflow):
        with pytest.raises(WorkflowConfigurationError, match="header"):
            await store.append("order-1", records(0), expected_version=0, header=given)
    with pytest.raises(WorkflowConfigurationError, match="densely"):
        await store.append("order-1", records(1), expected_version=0, header=header("order-1", 2))
    assert await contents(store, "order-1") == ([], None, [])


async def test_a_lease_is_taken_kept_and_let_go(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1"))
    assert await store.lease("w") == Lease("owner of t1", "t1", 1000)
    await store.append("w", records(2), expected_version=2, header=header("w", 4))
    assert await store.lease("w") == Lease("owner of t1", "t1", 1000), "an append without a change leaves it"
    kept = taken("t1", replaces="t1", expires_at=2000)
    await store.append("w", records(4), expected_version=4, header=header("w", 6), lease=kept)
    assert await store.lease("w") == Lease("owner of t1", "t1", 2000)
    await store.append("w", records(6), expected_version=6, header=header("w", 8), lease=let_go("t1"))
    assert await store.lease("w") is None
    await store.append("w", records(8), expected_version=8, header=header("w", 10), lease=taken("t2"))
    assert await store.lease("w") == Lease("owner of t2", "t2", 1000)
    assert await store.read("w") == records(0, 10)


async def test_a_lease_is_taken_over_by_naming_the_one_it_replaces(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1"))
    await store.append("w", records(2), expected_version=2, header=header("w", 4), lease=taken("t2", replaces="t1"))
    assert await store.lease("w") == Lease("owner of t2", "t2", 1000)


@pytest.mark.parametrize("change", [taken("t3"), taken("t3", replaces="t2"), let_go("t2"), let_go("t3")])
@pytest.mark.parametrize("status", [WorkflowStatus.RUNNING, WorkflowStatus.COMPLETED])
async def test_a_change_of_a_lease_that_is_not_in_place_changes_nothing(
    store: Store, change: LeaseChange, status: WorkflowStatus
) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1"))
    before = await contents(store, "w")
    with pytest.raises(LeaseLostError) as refusal:
        await store.append("w", records(2), expected_version=2, header=header("w", 4, status=status), lease=change)
    assert (refusal.value.workflow_id, refusal.value.owner) == ("w", "owner of t1")
    assert await contents(store, "w") == before


async def test_a_fresh_workflow_has_no_lease_to_replace(store: Store) -> None:
    with pytest.raises(LeaseLostError) as refusal:
        await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t2", replaces="t1"))
    assert refusal.value.owner is None
    assert await contents(store, "w") == ([], None, [])


async def test_a_wrong_version_is_told_before_a_lost_lease(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1"))
    with pytest.raises(ConcurrencyError):
        await store.append("w", records(1), expected_version=1, header=header("w", 3), lease=taken("t3", replaces="t2"))


async def test_an_append_without_records_changes_header_and_lease(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1"))
    then = header("w", 2, wake_at=3, status=WorkflowStatus.PAUSED)
    await store.append("w", [], expected_version=2, header=then, lease=let_go("t1"))
    assert await contents(store, "w") == (records(0), None, [then])
    with pytest.raises(ConcurrencyError):
        await store.append("w", [], expected_version=1, header=header("w", 1), lease=taken("t2"))
    assert await contents(store, "w") == (records(0), None, [then])


async def test_a_first_append_without_records_keeps_header_and_lease(store: Store) -> None:
    await store.append("w", [], expected_version=0, header=header("w", 0), lease=taken("t1"))
    assert await contents(store, "w") == ([], Lease("owner of t1", "t1", 1000), [header("w", 0)])
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1", replaces="t1"))
    assert await store.read("w") == records(0)


async def test_a_lease_is_renewed_by_its_holder_alone(store: Store) -> None:
    await store.append("w", records(0, 3), expected_version=0, header=header("w", 3), lease=taken("t1"))
    assert await store.renew("w", "t1", 5000) == 3
    assert await store.lease("w") == Lease("owner of t1", "t1", 5000)
    before = await contents(store, "w")
    with pytest.raises(LeaseLostError) as refusal:
        await store.renew("w", "t2", 9000)
    assert (refusal.value.workflow_id, refusal.value.owner) == ("w", "owner of t1")
    assert await contents(store, "w") == before


async def test_no_lease_is_renewed_where_there_is_none(store: Store) -> None:
    with pytest.raises(LeaseLostError) as refusal:
        await store.renew("w", "t1", 5000)
    assert refusal.value.owner is None
    await store.append("w", records(0), expected_version=0, header=header("w", 2))
    with pytest.raises(LeaseLostError):
        await store.renew("w", "t1", 5000)
    assert await store.lease("w") is None


async def test_a_deleted_workflow_is_forgotten_and_its_id_can_be_used_again(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2), lease=taken("t1"))
    await store.append("other", records(0), expected_version=0, header=header("other", 2))
    assert await store.delete("w") is True
    assert await store.delete("w") is False
    assert await contents(store, "w") == ([], None, [header("other", 2)])
    await store.append("w", records(0, 1, mark="again"), expected_version=0, header=header("w", 1))
    assert await store.read("w") == records(0, 1, mark="again")
    assert await store.lease("w") is None
    assert await store.read("other") == records(0)


async def test_what_a_reader_was_given_does_not_change(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2))
    seen = await store.read("w")
    await store.append("w", records(2), expected_version=2, header=header("w", 4))
    assert seen == records(0)


@pytest.mark.parametrize("workflow_id", ["日本-42", "émile", "a b", "'; DROP TABLE records", "\U0001f600", "x" * 200])
async def test_ids_and_texts_of_any_script_come_back(store: Store, workflow_id: str) -> None:
    given = header(workflow_id, 2, workflow_type="Größe", pending_step="vérifier")
    await store.append(workflow_id, records(0), expected_version=0, header=given, lease=taken("t1"))
    assert await store.read(workflow_id) == records(0)
    assert await store.find(workflow_type="Größe") == [given]
    assert await store.renew(workflow_id, "t1", 7) == 2
    assert await store.delete(workflow_id) is True


async def make_some(store: Store) -> list[Header]:
    """Seven workflows, in the order that lists show; written in another one."""
    made = [
        header("b", 1, created_at=10),
        header("a", 1, created_at=20, status=WorkflowStatus.PAUSED),
        header("c", 1, created_at=20, workflow_type="Billing", wake_at=100),
        header("z", 1, created_at=20, wake_at=200),
        header("é", 1, created_at=20, workflow_type="Billing", status=WorkflowStatus.PAUSED, wake_at=300),
        header("\U0001f600", 1, created_at=20),
        header("0", 1, created_at=30, workflow_type="Billing"),
    ]
    for one in (made[4], made[1], made[6], made[0], made[5], made[3], made[2]):
        await store.append(one.workflow_id, records(0, 1), expected_version=0, header=one)
    return made


async def test_lists_show_the_oldest_first(store: Store) -> None:
    made = await make_some(store)
    assert await store.find() == made


async def test_lists_are_filtered(store: Store) -> None:
    made = await make_some(store)
    paused, billing = WorkflowStatus.PAUSED, "Billing"
    assert await store.find(status=paused) == [made[1], made[4]]
    assert await store.find(status=WorkflowStatus.COMPLETED) == []
    assert await store.find(workflow_type=billing) == [made[2], made[4], made[6]]
    assert await store.find(due_before=200) == [made[2], made[3]]
    assert await store.find(due_before=99) == []
    assert await store.find(status=paused, workflow_type=billing, due_before=300) == [made[4]]
    assert await store.find(workflow_type="' OR 1=1 --") == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_follow_on_each_other(store: Store, limit: int) -> None:
    made = await make_some(store)
    seen: list[Header] = []
    while page := await store.find(after=seen[-1] if seen else None, limit=limit):
        assert len(page) <= limit
        seen += page
    assert seen == made
    assert await store.find(status=WorkflowStatus.PAUSED, after=made[1], limit=limit) == [made[4]]
    assert await store.find(workflow_type="Billing", due_before=300, after=made[2], limit=limit) == [made[4]]


async def test_a_page_goes_on_behind_a_workflow_that_was_deleted(store: Store) -> None:
    made = await make_some(store)
    await store.delete(made[2].workflow_id)
    assert await store.find(after=made[2]) == made[3:]


@pytest.mark.parametrize("limit", [0, -1])
async def test_an_empty_page_is_a_mistake(store: Store, limit: int) -> None:
    with pytest.raises(WorkflowConfigurationError, match="at least 1"):
        await store.find(limit=limit)


async def test_a_very_large_limit_is_none(store: Store) -> None:
    made = await make_some(store)
    assert await store.find(limit=10**30) == made


async def test_refusals_are_persistence_errors(store: Store) -> None:
    await store.append("w", records(0), expected_version=0, header=header("w", 2))
    with pytest.raises(PersistenceError, match=r"'w' is at version 2, not 0: somebody else appended first"):
        await store.append("w", records(0), expected_version=0, header=header("w", 2))
    with pytest.raises(PersistenceError, match=r"lease of workflow 'w' is held by nobody by now; nothing was written"):
        await store.renew("w", "t1", 1)
