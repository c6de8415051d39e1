"""Where the events of a run with persistence are committed: its store.

Each journal knows the version that it has read or written up to, and appends only there: whoever comes second gets a
`ConcurrencyError` and reads again. A `StoredJournal` is cheap and made for one verb; what several verbs share is the
store.

Every record's digest is a SHA-256 over the one before it and the record itself, from the workflow's id
on, so that a row that was damaged, dropped, moved or slipped in is noticed when the journal is read.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from .._core import codec
from .._core.events import Event
from .._core.state import RunState, replay
from ..errors import JournalCorruptError, JournalTooNewError, WorkflowError
from ..persistence import Header, LeaseChange, Persistence, Record
from ..status import WorkflowStatus
from ..values import Codec
from .live import Sealed

_new: Any = tuple.__new__  # makes a named tuple of its fields at half the price of calling its type
_RUNNING = WorkflowStatus.RUNNING


class StoredJournal:
    """The journal of a workflow in a store."""

    def __init__(self, persistence: Persistence, workflow_id: str, values: Codec) -> None:
        self._persistence = persistence
        self._workflow_id = workflow_id
        self._values = values
        self._digest = ""
        self._sealed: tuple[Event, tuple[str, str]] | None = None
        self.version = 0

    def fresh(self) -> "StoredJournal":
        """Return a journal of the same workflow that has read nothing yet."""
        return StoredJournal(self._persistence, self._workflow_id, self._values)

    async def load(self) -> RunState:
        """See `Journal.load`.

        Raises:
            JournalCorruptError: A record is not what was written; the message says which.
            JournalTooNewError: A record was written by a newer version.
        """
        records = await self._persistence.read(self._workflow_id)
        check_digests(self._workflow_id, records)
        state = read_state(self._workflow_id, records, self._values)
        self.version = state.version
        self._digest = records[-1].digest if records else ""
        return state

    async def append(self, state: RunState, events: list[Event], lease: LeaseChange | None = None) -> None:
        """See `Journal.append`."""
        workflow_id, values, sealed = self._workflow_id, self._values, self._sealed
        seq, digest = self.version, self._digest
        records = []
        for event in events:
            try:
                kind, body = sealed[1] if sealed and sealed[0] is event else codec.encode(event, values)
            except WorkflowError as error:
                error.workflow_id = workflow_id
                raise
            seq += 1
            at = event.at
            digest = digest_of(digest, workflow_id, seq, kind, at, body)
            records.append(_new(Record, (seq, kind, at, body, digest)))
        await self._persistence.append(
            workflow_id, records, expected_version=self.version, header=header_of(state, events[-1].at), lease=lease
        )
        self.version = seq
        self._digest = digest

    def seal(self, event: Sealed) -> Sealed:
        """See `Journal.seal`.

        Raises:
            ResultNotSerializableError: A value cannot be stored.
            PayloadTooLargeError: It is too large to be.
        """
        self._sealed = codec.seal(event, self._values)
        return self._sealed[0]


def digest_of(before: str, workflow_id: str, seq: int, kind: str, at: int, body: str) -> str:
    """Return a record's digest. Only the body may hold any character, and it comes last: no two rows read alike."""
    return sha256(f"{before}\n{workflow_id}\n{seq}\n{kind}\n{at}\n{body}".encode()).hexdigest()


def check_digests(workflow_id: str, records: Iterable[Record]) -> None:
    """Check that records are dense from 1 and each digest follows from the one before it.

    Raises:
        JournalCorruptError: One does not.
    """
    before = ""
    for expected, record in enumerate(records, 1):
        seq, kind, at, body, digest = record
        if seq != expected:
            raise _damaged(workflow_id, expected, f"record {expected} is missing (found {seq})")
        try:
            before = digest_of(before, workflow_id, seq, kind, at, body)
            intact = before == digest
        except UnicodeEncodeError:
            intact = False
        if not intact:
            raise _damaged(workflow_id, seq, f"record {seq} ({kind!a}) does not match its digest")


def read_state(workflow_id: str, records: Iterable[Record], values: Codec) -> RunState:
    """Return what records amount to.

    Raises:
        JournalCorruptError: A record is none of ours, or cannot follow the one before it.
        JournalTooNewError: A record was written by a newer version.
        ResultNotSerializableError: A record holds a type that the codec does not know.
    """
    seq = 0

    def events() -> Iterable[Event]:
        nonlocal seq
        for record in records:
            seq = record.seq
            yield codec.decode(record.kind, record.at, record.body, values)

    try:
        return replay(workflow_id, events())
    except JournalTooNewError as error:
        raise JournalTooNewError(
            f"Record {seq} of workflow {workflow_id!r} cannot be read: {error}.", workflow_id=workflow_id
        ) from error
    except JournalCorruptError as error:
        if error.workflow_id is not None:
            raise
        raise _damaged(workflow_id, seq, f"record {seq} cannot be read, {error}") from error
    except WorkflowError as error:
        error.workflow_id = workflow_id
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _damaged(workflow_id, seq, f"record {seq} cannot follow the one before it ({error})") from error


def header_of(state: RunState, updated_at: int) -> Header:
    """Return the row that lists show of a state."""
    plan = state.plan
    assert plan is not None, "only a run that was started is stored"
    status = state.status
    due = updated_at if status is _RUNNING else None
    workflow_id, step = state.workflow_id, state.pending_step
    header: Header = _new(
        Header, (workflow_id, plan.workflow_type, status, state.version, step, plan.at, updated_at, due)
    )
    return header


def _damaged(workflow_id: str, seq: int, what: str) -> JournalCorruptError:
    return JournalCorruptError(
        f"The journal of workflow {workflow_id!r} is damaged: {what}. Nothing was overwritten. Restore the store "
        "from a backup, or delete the workflow.",
        workflow_id=workflow_id,
        seq=seq,
    )
