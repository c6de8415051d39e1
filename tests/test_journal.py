"""Where events are committed: rows, digests and headers to the letter, and damage named by workflow and record."""

from collections.abc import Callable
from typing import Any

import pytest

from dotmac_workflows import Codec, CodecType, InMemoryPersistence, WorkflowResult, WorkflowStatus
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event, Settings
from dotmac_workflows._core.state import RunState, fold, replay
from dotmac_workflows._run.journal import StoredJournal, check_digests, digest_of, header_of, read_state
from dotmac_workflows._run.live import LiveJournal
from dotmac_workflows.errors import (
    ConcurrencyError,
    JournalCorruptError,
    JournalTooNewError,
    ResultNotSerializableError,
)
from dotmac_workflows.persistence import Header, LeaseChange, Record
from journal_events import JOURNALS, RUNNING, STEPS, WORKFLOW, plan, ran, state

MEND = "Nothing was overwritten. Restore the store from a backup, or delete the workflow."


class Money:
    """A type of the user's."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


def with_money() -> Codec:
    return Codec([CodecType(Money, "money", lambda money: money.cents, Money)])


async def stored(events: list[Event], store: InMemoryPersistence, values: Codec | None = None) -> list[Record]:
    """Append events to a store, all at once, and return the rows."""
    await StoredJournal(store, WORKFLOW, values or Codec()).append(replay(WORKFLOW, events), events)
    return await store.read(WORKFLOW)


async def damage(records: list[Record]) -> JournalCorruptError:
    with pytest.raises(JournalCorruptError) as caught:
        check_digests(WORKFLOW, records)
    return caught.value


def chained(*bodies: tuple[str, str]) -> list[Record]:
    """Return rows whose digests are right, whatever is in them."""
    records, before = [], ""
    for seq, (kind, body) in enumerate(bodies, 1):
        before = digest_of(before, WORKFLOW, seq, kind, 1, body)
        records.append(Record(seq, kind, 1, body, before))
    return records


async def test_what_was_appended_is_read_and_appended_to() -> None:
    store = InMemoryPersistence()
    journal = StoredJournal(store, WORKFLOW, Codec())
    first, second = RUNNING[:3], RUNNING[3:]
    await journal.append(replay(WORKFLOW, first), first)
    assert journal.version == 3
    await journal.append(replay(WORKFLOW, RUNNING), second)
    other = journal.fresh()
    assert other.version == 0
    assert await other.load() == replay(WORKFLOW, RUNNING)
    assert other.version == 5
    third: list[Event] = [ev.StepFailed(6, WorkflowResult(False, "pack"), None, None)]
    await other.append(replay(WORKFLOW, [*RUNNING, *third]), third)
    records = await store.read(WORKFLOW)
    assert [record.digest for record in records] == [
        digest_of(before, WORKFLOW, record.seq, record.kind, record.at, record.body)
        for before, record in zip(["", *(record.digest for record in records)], records, strict=False)
    ]
    assert [(record.seq, record.at) for record in records] == list(enumerate((1, 2, 3, 4, 5, 6), 1))
    with pytest.raises(ConcurrencyError):
        await journal.append(replay(WORKFLOW, [*RUNNING, *third]), third)


async def test_an_empty_journal_is_a_run_that_was_not_started() -> None:
    journal = StoredJournal(InMemoryPersistence(), WORKFLOW, Codec())
    assert await journal.load() == RunState(WORKFLOW)
    await journal.append(replay(WORKFLOW, RUNNING), RUNNING)
    assert journal.version == 5


async def test_what_was_sealed_is_not_written_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    store = InMemoryPersistence()
    journal = StoredJournal(store, WORKFLOW, with_money())
    sealed = journal.seal(ev.StepSucceeded(4, WorkflowResult(True, "pay", {"fee": Money(5)}), False))
    events: list[Event] = [*RUNNING[:3], sealed]
    body = codec.encode(sealed, with_money())[1]
    encode, written = codec.encode, []

    def count(event: Event, values: Codec) -> tuple[str, str]:
        written.append(event)
        return encode(event, values)

    monkeypatch.setattr(codec, "encode", count)
    await journal.append(replay(WORKFLOW, events), events)
    assert written == events[:3]
    assert (await store.read(WORKFLOW))[3].body == body


async def test_what_was_not_sealed_is_written_by_the_codec_of_the_journal() -> None:
    store = InMemoryPersistence()
    events: list[Event] = [
        *RUNNING[:3],
        ev.StepSucceeded(4, WorkflowResult(True, "pay", {"fee": Money(5)}), False),
    ]
    journal = StoredJournal(store, WORKFLOW, with_money())
    journal.seal(ev.StepSucceeded(4, WorkflowResult(True, "pay"), False))  # another one
    await journal.append(replay(WORKFLOW, events), events)
    fee = (await journal.fresh().load()).results[0].data["fee"]
    assert (type(fee), fee.cents) == (Money, 5)


async def test_what_cannot_be_written_names_the_workflow_and_writes_nothing() -> None:
    store = InMemoryPersistence()
    events: list[Event] = [*RUNNING[:3], ev.StepSucceeded(4, WorkflowResult(True, "pay", {"fee": Money(5)}), False)]
    with pytest.raises(ResultNotSerializableError) as caught:
        await stored(events, store)
    assert (caught.value.workflow_id, caught.value.path) == (WORKFLOW, "data.fee")
    assert await store.read(WORKFLOW) == []


@pytest.mark.parametrize(
    ("name", "due", "step"),
    [
        ("running", True, None),
        ("left by its driver", True, None),
        ("pausing", True, None),
        ("paused", False, None),
        ("waiting", False, "pay"),
        ("approved", True, None),
        ("rejected", True, None),
        ("cancelling", True, None),
        ("rolling back", True, None),
        ("completed", False, None),
        ("failed", False, None),
        ("failed and not undone", False, None),
        ("cancelled", False, None),
    ],
)
def test_a_header_shows_what_lists_ask_for(name: str, due: bool, step: str | None) -> None:
    shown = state(name)
    header = header_of(shown, 77)
    assert type(header) is Header
    assert header == Header(WORKFLOW, "Order", shown.status, len(JOURNALS[name]), step, 1, 77, 77 if due else None)


@pytest.mark.parametrize("missing", [0, 1, 4])
async def test_a_row_that_is_missing_is_named(missing: int) -> None:
    records = await stored(RUNNING, InMemoryPersistence())
    del records[missing]
    if missing == 4:
        check_digests(WORKFLOW, records)  # the end is looked after by the store, which knows the version
        return
    error = await damage(records)
    seq = missing + 1
    assert str(error) == (
        f"The journal of workflow {WORKFLOW!r} is damaged: record {seq} is missing (found {seq + 1}). {MEND}"
    )
    assert (error.workflow_id, error.seq) == (WORKFLOW, seq)


@pytest.mark.parametrize(
    "changed",
    [
        lambda record: record._replace(kind="claimed"),
        lambda record: record._replace(at=2),
        lambda record: record._replace(body=record.body + " "),
        lambda record: record._replace(digest=""),
        lambda record: record._replace(body="\ud83d"),
        lambda record: record._replace(body="\ud83d", digest=""),
    ],
)
async def test_a_row_that_was_changed_is_named(changed: Callable[[Record], Record]) -> None:
    records = await stored(RUNNING, InMemoryPersistence())
    records[2] = changed(records[2])
    error = await damage(records)
    assert str(error) == (
        f"The journal of workflow {WORKFLOW!r} is damaged: record 3 ({records[2].kind!r}) does not match its digest. "
        f"{MEND}"
    )
    assert (error.workflow_id, error.seq) == (WORKFLOW, 3)


async def test_a_row_of_another_workflow_is_noticed() -> None:
    records = await stored(RUNNING, InMemoryPersistence())
    with pytest.raises(JournalCorruptError) as caught:
        check_digests("order-2", records)
    assert (caught.value.workflow_id, caught.value.seq) == ("order-2", 1)


START = ("workflow_started", codec.encode(plan()[0], Codec())[1])


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (("resumed", "{}"), "record 2 cannot be read, its body is not that of a 'resumed' (its fields are [], not"),
        (("resumed", '{"actor":7}'), "record 2 cannot be read, its body is not that of a 'resumed' (7 is not str or"),
    ],
)
def test_a_row_that_is_none_of_ours_is_named(row: tuple[str, str], what: str) -> None:
    with pytest.raises(JournalCorruptError) as caught:
        read_state(WORKFLOW, chained(START, row), Codec())
    assert str(caught.value).startswith(f"The journal of workflow {WORKFLOW!r} is damaged: {what}")
    assert str(caught.value).endswith(f". {MEND}")
    assert (caught.value.workflow_id, caught.value.seq) == (WORKFLOW, 2)


def test_a_row_that_cannot_follow_is_named_by_the_fold() -> None:
    with pytest.raises(JournalCorruptError) as caught:
        read_state(WORKFLOW, chained(START, START), Codec())
    assert "record 2 (WorkflowStarted) cannot follow, for the run was started already" in str(caught.value)
    assert (caught.value.workflow_id, caught.value.seq) == (WORKFLOW, 2)


def test_a_row_that_breaks_the_fold_is_named() -> None:
    draft = ev.Draft(WorkflowStatus.WAITING_APPROVAL, 9, (), None, None, "none")  # there is no ninth step to wait at
    started = ev.WorkflowStarted(1, "run", "Order", STEPS, Settings(), {}, draft)
    with pytest.raises(JournalCorruptError) as caught:
        read_state(WORKFLOW, chained((START[0], codec.encode(started, Codec())[1])), Codec())
    assert str(caught.value) == (
        f"The journal of workflow {WORKFLOW!r} is damaged: record 1 cannot follow the one before it "
        f"(a draft of 3 steps stands at 9). {MEND}"
    )
    assert (caught.value.workflow_id, caught.value.seq) == (WORKFLOW, 1)


def test_a_row_of_a_newer_version_is_named() -> None:
    with pytest.raises(JournalTooNewError) as caught:
        read_state(WORKFLOW, chained(START, ("teleported", "{}")), Codec())
    assert str(caught.value) == (
        f"Record 2 of workflow {WORKFLOW!r} cannot be read: there is no event 'teleported' in this version; upgrade "
        "dotmac-workflows to read it."
    )
    assert caught.value.workflow_id == WORKFLOW


async def test_a_type_that_is_not_registered_names_the_workflow() -> None:
    events: list[Event] = [*RUNNING[:3], ev.StepSucceeded(4, WorkflowResult(True, "pay", {"fee": Money(5)}), False)]
    records = await stored(events, InMemoryPersistence(), with_money())
    with pytest.raises(ResultNotSerializableError) as caught:
        read_state(WORKFLOW, records, Codec())
    assert caught.value.workflow_id == WORKFLOW


async def test_a_run_in_its_object_refuses_whoever_has_not_seen_the_last_event() -> None:
    journal = LiveJournal(WORKFLOW)
    await journal.append(replay(WORKFLOW, RUNNING), RUNNING)
    assert await journal.load() == replay(WORKFLOW, RUNNING)
    behind = replay(WORKFLOW, RUNNING[:3])
    late: list[Event] = ran("pay", 0)[1:]
    fold(behind, late)
    with pytest.raises(ConcurrencyError) as caught:
        await journal.append(behind, late)
    assert str(caught.value) == f"Workflow {WORKFLOW!r} moved on; read it again and decide again."
    assert (caught.value.workflow_id, caught.value.expected_version, caught.value.stored_version) == (WORKFLOW, 3, 5)
    assert await journal.load() == replay(WORKFLOW, RUNNING)
    outcome: Any = ev.StepSucceeded(4, WorkflowResult(True, "pay"), False)
    assert journal.seal(outcome) is outcome


async def test_a_lease_goes_with_the_append() -> None:
    store = InMemoryPersistence()
    journal = StoredJournal(store, WORKFLOW, Codec())
    await journal.append(replay(WORKFLOW, RUNNING), RUNNING, LeaseChange("token", "owner", 99, None))
    lease = await store.lease(WORKFLOW)
    assert lease is not None
    assert (lease.token, lease.owner, lease.expires_at) == ("token", "owner", 99)
