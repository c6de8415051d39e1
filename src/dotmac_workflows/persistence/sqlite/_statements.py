"""All the SQL that touches rows: parameters only, constant texts, which sqlite3 keeps prepared.

A workflow is one row of ``workflows``, header and lease together, and one row of ``records`` an event. So an ordinary
append is one UPDATE, which checks the version and the lease as it writes, and one INSERT a record. The UPDATE comes
first: an append that is refused has written nothing, and the rest of its batch goes on in the same transaction.

The first UPDATE that is tried sets no column that an index covers, for an append seldom changes any: rewriting three
index entries each time would cost more pages in the write-ahead log than the append itself. Where status, type or
start do change, it finds no row, and the second one sets everything.
"""

import sqlite3
from collections.abc import Sequence
from typing import TypeVar

from ...errors import JournalCorruptError
from ...status import WorkflowStatus
from .._protocol import Header, Lease, LeaseChange, Record
from .._refusals import lease_lost, version_conflict
from ._calls import Call

Result = TypeVar("Result")

_INSERT_WORKFLOW = """
INSERT INTO workflows (workflow_id, workflow_type, status, version, pending_step, created_at, updated_at, wake_at,
                       lease_token, lease_owner, lease_expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_INSERT_RECORD = "INSERT INTO records (workflow_id, seq, kind, at, body, digest) VALUES (?, ?, ?, ?, ?, ?)"

_SET_UNLISTED = "UPDATE workflows SET version = ?, pending_step = ?, updated_at = ?, wake_at = ?"
_SET_ALL = f"{_SET_UNLISTED}, status = ?, workflow_type = ?, created_at = ?"
_SET_LEASE = ", lease_token = ?, lease_owner = ?, lease_expires_at = ?"
_AT_VERSION = " WHERE workflow_id = ? AND version = ?"
_SAME_LISTING = " AND status = ? AND workflow_type = ? AND created_at = ?"
_SAME_LEASE = " AND lease_token IS ?"

_UPDATE_UNLISTED = f"{_SET_UNLISTED}{_AT_VERSION}{_SAME_LISTING}"
_UPDATE_UNLISTED_LEASE = f"{_SET_UNLISTED}{_SET_LEASE}{_AT_VERSION}{_SAME_LISTING}{_SAME_LEASE}"
_UPDATE_ALL = f"{_SET_ALL}{_AT_VERSION}"
_UPDATE_ALL_LEASE = f"{_SET_ALL}{_SET_LEASE}{_AT_VERSION}{_SAME_LEASE}"

_SELECT_FENCE = "SELECT version, lease_token, lease_owner FROM workflows WHERE workflow_id = ?"
_SELECT_LEASE = """
SELECT lease_owner, lease_token, lease_expires_at FROM workflows WHERE workflow_id = ? AND lease_token IS NOT NULL"""
_SELECT_VERSION = "SELECT version FROM workflows WHERE workflow_id = ?"
_SELECT_RECORDS = "SELECT seq, kind, at, body, digest FROM records WHERE workflow_id = ? AND seq > ? ORDER BY seq"
_HEADER_COLUMNS = "workflow_id, workflow_type, status, version, pending_step, created_at, updated_at, wake_at"
_SELECT_HEADER_AND_LEASE = f"""
SELECT {_HEADER_COLUMNS}, lease_token, lease_owner, lease_expires_at FROM workflows WHERE workflow_id = ?"""

_STATUSES = {status.value: status for status in WorkflowStatus}
_MOST = 2**62  # sqlite3 takes 64 bits


class Write(Call[Result]):
    """A write that waits for the writer thread."""

    __slots__ = ("workflow_id",)

    workflow_id: str
    """The workflow that it is about."""

    def perform(self, cursor: sqlite3.Cursor) -> Result:
        """Write, inside the transaction that the caller has begun.

        Raises:
            ConcurrencyError: Refused; nothing was written.
            LeaseLostError: Refused; nothing was written.
        """
        raise NotImplementedError

    def has_landed(self, cursor: sqlite3.Cursor) -> bool:
        """Tell, after a COMMIT whose fate is unknown, whether the store is as this write would have it."""
        raise NotImplementedError


class Append(Write[None]):
    """Records, header and lease, together or not at all."""

    __slots__ = ("expected_version", "header", "lease", "records")

    def __init__(
        self,
        workflow_id: str,
        records: Sequence[Record],
        expected_version: int,
        header: Header,
        lease: LeaseChange | None,
    ) -> None:
        super().__init__(certain=True)
        self.workflow_id = workflow_id
        self.records = records
        self.expected_version = expected_version
        self.header = header
        self.lease = lease

    def perform(self, cursor: sqlite3.Cursor) -> None:
        """See `Write.perform`."""
        fresh = self.expected_version == 0 and (self.lease is None or self.lease.replaces is None)
        if not (fresh and self._insert(cursor)) and not self._update(cursor, listed=False):
            self._check_fence(cursor)
            self._update(cursor, listed=True)
        if self.records:
            workflow_id = self.workflow_id
            cursor.executemany(_INSERT_RECORD, [(workflow_id, *record) for record in self.records])

    def has_landed(self, cursor: sqlite3.Cursor) -> bool:
        """See `Write.has_landed`: its last record, or, where it has none, its header and lease."""
        if self.records:
            last = self.records[-1]
            rows = cursor.execute(_SELECT_RECORDS, (self.workflow_id, last.seq - 1)).fetchall()
            return bool(rows) and rows[0] == tuple(last)
        row = cursor.execute(_SELECT_HEADER_AND_LEASE, (self.workflow_id,)).fetchone()
        wanted = (self.workflow_id, *self.header[1:2], self.header.status.value, *self.header[3:])
        return row is not None and row[:8] == wanted and (self.lease is None or row[8:] == _lease_columns(self.lease))

    def _insert(self, cursor: sqlite3.Cursor) -> bool:
        _, workflow_type, status, version, pending_step, created_at, updated_at, wake_at = self.header
        cursor.execute(
            _INSERT_WORKFLOW,
            (
                self.workflow_id,
                workflow_type,
                status.value,
                version,
                pending_step,
                created_at,
                updated_at,
                wake_at,
                *_lease_columns(self.lease),
            ),
        )
        return cursor.rowcount == 1

    def _update(self, cursor: sqlite3.Cursor, *, listed: bool) -> bool:
        """Write header and lease where version and lease are as expected; `listed`: what is indexed as well."""
        _, workflow_type, status, version, pending_step, created_at, updated_at, wake_at = self.header
        unlisted = (version, pending_step, updated_at, wake_at)
        listing = (status.value, workflow_type, created_at)
        place = (self.workflow_id, self.expected_version)
        lease = self.lease
        if lease is None:
            if listed:
                cursor.execute(_UPDATE_ALL, (*unlisted, *listing, *place))
            else:
                cursor.execute(_UPDATE_UNLISTED, (*unlisted, *place, *listing))
        elif listed:
            cursor.execute(_UPDATE_ALL_LEASE, (*unlisted, *listing, *_lease_columns(lease), *place, lease.replaces))
        else:
            cursor.execute(
                _UPDATE_UNLISTED_LEASE, (*unlisted, *_lease_columns(lease), *place, *listing, lease.replaces)
            )
        return cursor.rowcount == 1

    def _check_fence(self, cursor: sqlite3.Cursor) -> None:
        row = cursor.execute(_SELECT_FENCE, (self.workflow_id,)).fetchone()
        version, token, owner = row or (0, None, None)
        if version != self.expected_version:
            raise version_conflict(self.workflow_id, self.expected_version, version)
        if self.lease is not None and token != self.lease.replaces:
            raise lease_lost(self.workflow_id, owner)


class Renew(Write[int]):
    """A lease that is kept for longer."""

    __slots__ = ("expires_at", "token")

    def __init__(self, workflow_id: str, token: str, expires_at: int) -> None:
        super().__init__(certain=True)
        self.workflow_id = workflow_id
        self.token = token
        self.expires_at = expires_at

    def perform(self, cursor: sqlite3.Cursor) -> int:
        """See `Write.perform`."""
        version, token, owner = cursor.execute(_SELECT_FENCE, (self.workflow_id,)).fetchone() or (0, None, None)
        if token is None or token != self.token:
            raise lease_lost(self.workflow_id, owner)
        cursor.execute(
            "UPDATE workflows SET lease_expires_at = ? WHERE workflow_id = ?", (self.expires_at, self.workflow_id)
        )
        return int(version)

    def has_landed(self, cursor: sqlite3.Cursor) -> bool:
        """See `Write.has_landed`."""
        held = read_lease(cursor, self.workflow_id)
        return held is not None and (held.token, held.expires_at) == (self.token, self.expires_at)


class Delete(Write[bool]):
    """A workflow that is forgotten."""

    __slots__ = ()

    def __init__(self, workflow_id: str) -> None:
        super().__init__(certain=True)
        self.workflow_id = workflow_id

    def perform(self, cursor: sqlite3.Cursor) -> bool:
        """See `Write.perform`."""
        found = cursor.execute("DELETE FROM records WHERE workflow_id = ?", (self.workflow_id,)).rowcount
        found += cursor.execute("DELETE FROM workflows WHERE workflow_id = ?", (self.workflow_id,)).rowcount
        return found > 0

    def has_landed(self, cursor: sqlite3.Cursor) -> bool:
        """See `Write.has_landed`."""
        return cursor.execute(_SELECT_FENCE, (self.workflow_id,)).fetchone() is None


def read_records(cursor: sqlite3.Cursor, workflow_id: str, after: int) -> list[Record]:
    """Read a journal, or its end, in one transaction with the version that its header claims.

    Raises:
        JournalCorruptError: Records are missing, or there are more than the header knows of.
    """
    cursor.execute("BEGIN")
    header = cursor.execute(_SELECT_VERSION, (workflow_id,)).fetchone()
    rows = cursor.execute(_SELECT_RECORDS, (workflow_id, after)).fetchall()
    cursor.execute("COMMIT")
    version = header[0] if header else 0
    if rows or after == 0:
        last = rows[-1][0] if rows else 0
        if last != version or len(rows) != last - after:
            raise _damaged(workflow_id, [row[0] for row in rows], after, version)
    return list(map(Record._make, rows))


def read_lease(cursor: sqlite3.Cursor, workflow_id: str) -> Lease | None:
    """Read the lease in place."""
    row = cursor.execute(_SELECT_LEASE, (workflow_id,)).fetchone()
    return Lease(*row) if row else None


def check_integrity(cursor: sqlite3.Cursor, path: str) -> None:
    """Have SQLite look at every page, row and index entry.

    Raises:
        JournalCorruptError: It found something.
    """
    found = [str(row[0]) for row in cursor.execute("PRAGMA integrity_check(10)").fetchall()]
    if found != ["ok"]:
        said = "; ".join(" ".join(line.split()) for line in found)
        raise JournalCorruptError(f"{path!r} is damaged ({said}). Nothing was overwritten; restore it from a backup.")


def find_headers(
    cursor: sqlite3.Cursor,
    status: WorkflowStatus | None,
    workflow_type: str | None,
    due_before: int | None,
    after: Header | None,
    limit: int,
) -> list[Header]:
    """Read a page of headers; each combination of filters is a constant text of its own.

    Raises:
        JournalCorruptError: A row has a status that does not exist.
    """
    conditions: list[str] = []
    parameters: list[str | int] = []
    if status is not None:
        conditions.append("status = ?")
        parameters.append(status.value)
    if workflow_type is not None:
        conditions.append("workflow_type = ?")
        parameters.append(workflow_type)
    if due_before is not None:
        conditions.append("wake_at <= ?")
        parameters.append(due_before)
    if after is not None:
        conditions.append("(created_at, workflow_id) > (?, ?)")
        parameters += after.created_at, after.workflow_id
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    parameters.append(min(limit, _MOST))
    sql = f"SELECT {_HEADER_COLUMNS} FROM workflows {where}ORDER BY created_at, workflow_id LIMIT ?"
    return [_header(row) for row in cursor.execute(sql, parameters).fetchall()]


def _header(row: tuple[str, str, str, int, str | None, int, int, int | None]) -> Header:
    workflow_id, workflow_type, value, version, pending_step, created_at, updated_at, wake_at = row
    status = _STATUSES.get(value)
    if status is None:
        raise JournalCorruptError(
            f"The header of workflow {workflow_id!r} has the status {value!r}, which does not exist. Nothing was "
            "overwritten; restore the store from a backup.",
            workflow_id=workflow_id,
        )
    return Header(workflow_id, workflow_type, status, version, pending_step, created_at, updated_at, wake_at)


def _lease_columns(lease: LeaseChange | None) -> tuple[str | None, str | None, int | None]:
    if lease is None or lease.expires_at is None:
        return None, None, None
    return lease.token, lease.owner, lease.expires_at


def _damaged(workflow_id: str, seqs: list[int], after: int, version: int) -> JournalCorruptError:
    wrong = next((wanted for wanted, seq in enumerate(seqs, after + 1) if seq != wanted), after + len(seqs) + 1)
    wrong = min(wrong, version + 1)
    what = f"record {wrong} is missing" if wrong <= version else f"record {wrong} is more than it should have"
    return JournalCorruptError(
        f"The journal of workflow {workflow_id!r} is damaged: its header says version {version}, but {what}. Nothing "
        "was overwritten; restore the store from a backup.",
        workflow_id=workflow_id,
        seq=wrong,
    )
