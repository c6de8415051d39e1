"""How the backends refuse, to the letter, with the ids as attributes."""

from types import SimpleNamespace
from typing import Any

import pytest

from dotmac_workflows import ConcurrencyError, LeaseLostError, WorkflowConfigurationError
from dotmac_workflows.persistence import Header, InMemoryPersistence, InMemoryStateStore, LeaseChange, Record
from dotmac_workflows.persistence._protocol import has_leases, is_persistence
from dotmac_workflows.persistence._refusals import check_append, check_limit
from journal_rows import header, records
from workflows import Store


async def appended(store: Store, workflow_id: str, version: int = 0, **how: Any) -> None:
    await store.append(
        workflow_id,
        records(version),
        expected_version=version,
        header=header(workflow_id, version + 2),
        **how,
    )


@pytest.mark.parametrize(("expected", "stored"), [(0, 2), (1, 2), (3, 2), (5, 0)])
async def test_who_has_not_seen_the_last_record_is_told_both_versions(store: Store, expected: int, stored: int) -> None:
    if stored:
        await appended(store, "order-1")
    with pytest.raises(ConcurrencyError) as caught:
        await appended(store, "order-1", expected)
    error = caught.value
    assert str(error) == (
        f"Workflow 'order-1' is at version {stored}, not {expected}: somebody else appended first. Read it again and "
        "decide again."
    )
    assert (error.workflow_id, error.expected_version, error.stored_version) == ("order-1", expected, stored)


@pytest.mark.parametrize("held", [True, False])
async def test_who_has_lost_the_lease_is_told_who_holds_it(store: Store, held: bool) -> None:
    taken = LeaseChange("theirs", "host:7", 99, None) if held else None
    await appended(store, "order-1", lease=taken)
    change = LeaseChange("mine", "host:8", 99, "gone")

    async def append() -> None:
        await appended(store, "order-1", 2, lease=change)

    async def renew() -> None:
        await store.renew("order-1", "gone", 100)

    for refused in (append, renew):
        with pytest.raises(LeaseLostError) as caught:
            await refused()
        who = "host:7" if held else None
        assert str(caught.value) == (
            f"The lease of workflow 'order-1' is held by {who or 'nobody'} by now; nothing was written."
        )
        assert (caught.value.workflow_id, caught.value.owner) == ("order-1", who)
    lease = await store.lease("order-1")
    assert (lease is not None and lease == ("host:7", "theirs", 99)) == held
    assert await store.read("order-1") == records(0)


HEADER = (
    "An append of 2 records to workflow 'order-1' at version 3 came with the header of {!r} at version {}. Hand over "
    "the header as it is after the append."
)
RECORDS = "An append to workflow 'order-1' at version 3 came with the records {} to {}. Number them densely from 4."


@pytest.mark.parametrize(
    ("given", "shown", "text"),
    [
        (records(3), header("order-1", 4), HEADER.format("order-1", 4)),
        (records(3), header("order-1", 6), HEADER.format("order-1", 6)),
        (records(3), header("order-2", 5), HEADER.format("order-2", 5)),
        (records(2, 3)[:1] + records(4, 1), header("order-1", 5), RECORDS.format(3, 5)),
        (records(3, 1) + records(5, 1), header("order-1", 5), RECORDS.format(4, 6)),
        (records(4), header("order-1", 5), RECORDS.format(5, 6)),
        (records(4, 3), header("order-1", 6), RECORDS.format(5, 7)),
    ],
)
def test_an_append_that_contradicts_itself_is_told_how(given: list[Record], shown: Header, text: str) -> None:
    with pytest.raises(WorkflowConfigurationError) as caught:
        check_append("order-1", given, 3, shown)
    assert str(caught.value) == text
    assert caught.value.workflow_id == "order-1"


def test_an_append_that_is_right_is_let_through() -> None:
    check_append("order-1", records(3), 3, header("order-1", 5))
    check_append("order-1", records(0), 0, header("order-1", 2))
    check_append("order-1", [], 3, header("order-1", 3))
    with pytest.raises(WorkflowConfigurationError, match="An append of 0 records"):
        check_append("order-1", [], 3, header("order-1", 4))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_of_nothing_is_told_so(limit: int) -> None:
    check_limit(1)
    with pytest.raises(WorkflowConfigurationError) as caught:
        check_limit(limit)
    assert str(caught.value) == f"find() was asked for {limit} headers at most. Ask for at least 1."


async def test_a_list_has_a_hundred_where_nobody_says_how_many(store: Store) -> None:
    for number in range(101):
        name = f"order-{number:03}"
        await store.append(name, [], expected_version=0, header=header(name, 0))
    assert [each.workflow_id for each in await store.find()] == [f"order-{number:03}" for number in range(100)]
    assert len(await store.find(limit=101)) == 101
    assert len(await store.find(limit=1)) == 1


@pytest.mark.parametrize(
    ("due_before", "found"), [(None, ["a", "b", "c"]), (6, []), (7, ["b"]), (8, ["b"]), (9, ["b", "c"])]
)
async def test_what_is_due_is_found_from_its_instant_on(store: Store, due_before: int | None, found: list[str]) -> None:
    for name, wake_at in (("a", None), ("b", 7), ("c", 9)):
        await store.append(name, [], expected_version=0, header=header(name, 0, wake_at=wake_at))
    assert [each.workflow_id for each in await store.find(due_before=due_before)] == found


async def test_a_deleted_workflow_leaves_no_header_no_lease_and_no_records(store: Store) -> None:
    await appended(store, "order-1", lease=LeaseChange("mine", "host:8", 99, None))
    assert await store.delete("order-1") is True
    assert (await store.find(), await store.lease("order-1"), await store.read("order-1")) == ([], None, [])
    assert await store.delete("order-1") is False
    await appended(store, "order-1", lease=LeaseChange("theirs", "host:9", 99, None))


async def test_an_append_takes_nothing_of_the_list_that_it_was_given() -> None:
    store = InMemoryPersistence()
    given = records(0)
    await store.append("order-1", given, expected_version=0, header=header("order-1", 2))
    given.clear()
    assert await store.read("order-1") == records(0)
    assert await store.read("order-1", after=1) == records(0)[1:]


async def test_a_store_of_whole_workflows_wants_an_id() -> None:
    class Nameless:
        workflow_id = ""

    with pytest.raises(ValueError, match="^Workflow must have an ID to be saved$"):
        await InMemoryStateStore().save(Nameless())  # type: ignore[arg-type]  # has what is looked at


@pytest.mark.parametrize("missing", ["append", "read", "delete"])
def test_a_backend_without_one_of_its_methods_is_none(missing: str) -> None:
    methods = {name: None for name in ("append", "read", "delete") if name != missing}
    assert not is_persistence(SimpleNamespace(**methods))
    assert is_persistence(SimpleNamespace(**methods, **{missing: None}))


@pytest.mark.parametrize("missing", ["lease", "renew"])
def test_a_backend_without_one_of_the_methods_has_no_leases(missing: str) -> None:
    methods = {name: None for name in ("lease", "renew") if name != missing}
    assert not has_leases(SimpleNamespace(**methods))
    assert has_leases(SimpleNamespace(**methods, **{missing: None}))
