"""What a backend has to do, and the rows that it is given.

A backend stores rows. It never sees a domain event and never serialises: bodies come as JSON text, ready made. Three
methods make one (`Persistence`); `Leases`, `Queries` and `Checks` are capabilities of their own, found by looking for
their methods, and what needs a missing one says so by name when it starts. `testing.check_persistence` checks that a
backend does all that is said here.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

from ..status import WorkflowStatus


class Record(NamedTuple):
    """One row of a journal: one event, never changed once written."""

    seq: int
    """Its place in the workflow's journal: dense, from 1."""
    kind: str
    """What happened, such as ``step_succeeded``."""
    at: int
    """When, in microseconds since 1970 UTC."""
    body: str
    """The event's fields: a JSON object, ASCII only. Each value in it takes 1 MiB at most, unless `Codec` says more."""
    digest: str
    """SHA-256 in hex over the digest before it and this row, so that a damaged row is noticed."""


class Header(NamedTuple):
    """The row that lists show of a workflow, replaced by every append."""

    workflow_id: str
    """The workflow's id."""
    workflow_type: str
    """The name of its class, or what the class calls its type."""
    status: WorkflowStatus
    """Its status."""
    version: int
    """The seq of its last record."""
    pending_step: str | None
    """The step whose approval it waits for."""
    created_at: int
    """When it was started, in microseconds since 1970 UTC."""
    updated_at: int
    """When it was last appended to, in microseconds since 1970 UTC."""
    wake_at: int | None
    """From when on somebody should drive it, in microseconds since 1970 UTC; None: not before a person acts."""


class Lease(NamedTuple):
    """Who drives a workflow, and until when at most."""

    owner: str
    """Which process, in words that `dotmac_workflows` can read back."""
    token: str
    """Which driver of it: unique for each time that a workflow is taken. Leases are compared by this alone."""
    expires_at: int
    """Until when, in microseconds since 1970 UTC."""


class LeaseChange(NamedTuple):
    """What an append does to the lease, in the same transaction."""

    token: str
    """The driver that takes, keeps or lets go of the lease."""
    owner: str
    """The process that it runs in."""
    expires_at: int | None
    """Until when it holds, in microseconds since 1970 UTC; None lets go."""
    replaces: str | None
    """The token that must be in place (None: no lease), else the append is refused with `LeaseLostError`."""


@runtime_checkable
class Persistence(Protocol):
    """All that a backend of one's own must have.

    A task that is cancelled while it awaits one of these must find the fate of the write known: wait for the
    outcome, then let the cancellation go on.
    """

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        """Store all records, the header and the lease change, or nothing; durable on return.

        Args:
            workflow_id: The workflow; unknown ones begin with ``expected_version=0``.
            records: The rows to add, dense from ``expected_version + 1``; may be empty for a change of lease alone.
            expected_version: The seq of the last record that the writer has seen.
            header: Replaces the stored one.
            lease: None leaves the lease as it is.

        Raises:
            ConcurrencyError: The stored version is another one, whatever the lease is; nothing was written.
            LeaseLostError: The lease in place is not the one that the change replaces; nothing was written.
            PersistenceError: The store failed, and nothing of this append is stored.
        """
        ...

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        """Return the records with a seq above `after`, in order; empty when there are none or the id is unknown."""
        ...

    async def delete(self, workflow_id: str) -> bool:
        """Forget a workflow, its journal, header and lease; tell whether there was one."""
        ...


@runtime_checkable
class Leases(Protocol):
    """Lets a run that is driven be told from one that a crash left."""

    async def lease(self, workflow_id: str) -> Lease | None:
        """Return the lease in place, expired or not; None when there is none."""
        ...

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        """Move the expiry of the lease held by `token`, and return the stored version.

        Raises:
            LeaseLostError: The lease is not held by `token`; nothing was changed.
        """
        ...


@runtime_checkable
class Queries(Protocol):
    """Lets runs be found: for the command line, for `recover`, for whoever lists what waits."""

    async def find(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str | None = None,
        due_before: int | None = None,
        after: Header | None = None,
        limit: int = 100,
    ) -> list[Header]:
        """Return up to `limit` headers, the oldest first (by ``created_at``, then ``workflow_id`` by code points).

        Args:
            status: Only those of this status.
            workflow_type: Only those of this type.
            due_before: Only those with a ``wake_at`` at or before this, in microseconds since 1970 UTC.
            after: The last header of the page before; None for the first page.
            limit: How many at most, from 1.
        """
        ...


@runtime_checkable
class Checks(Protocol):
    """Lets a store be searched for damage that its rows do not show, such as an index that leads to none of them."""

    async def check(self) -> None:
        """Look at everything that is stored, however long that takes.

        Raises:
            JournalCorruptError: Something is damaged.
        """
        ...


def is_persistence(value: object) -> TypeGuard[Persistence]:
    """Tell what ``isinstance`` does of `Persistence`, for each run, without the 5 µs that it takes in Python 3.11."""
    return hasattr(value, "append") and hasattr(value, "read") and hasattr(value, "delete")


def has_leases(value: object) -> TypeGuard[Leases]:
    """Tell what ``isinstance`` does of `Leases`; see `is_persistence`."""
    return hasattr(value, "lease") and hasattr(value, "renew")
