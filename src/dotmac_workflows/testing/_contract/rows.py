"""Rows that a backend is given, without an engine that writes them, and all that it holds of a workflow."""

from hashlib import sha256
from typing import NamedTuple

from ...persistence import Header, Lease, LeaseChange, Record
from ...status import WorkflowStatus

START = 1_700_000_000_123_457
"""An instant that a column of milliseconds, or a float of seconds, would not keep."""


def records(after: int, count: int = 2, *, mark: str = "") -> list[Record]:
    """Make `count` records that follow on `after`; `mark` makes them differ from others of the same place."""
    return [
        Record(
            seq,
            "step_succeeded",
            START + seq,
            f'{{"step":"s{seq}","by":"{mark}"}}',
            sha256(f"{mark}{seq}".encode()).hexdigest(),
        )
        for seq in range(after + 1, after + count + 1)
    ]


def header(
    workflow_id: str,
    version: int,
    *,
    workflow_type: str = "Onboarding",
    status: WorkflowStatus = WorkflowStatus.RUNNING,
    pending_step: str | None = None,
    created_at: int = START,
    wake_at: int | None = None,
) -> Header:
    """Make the header that goes with an append that ends at `version`."""
    updated_at = created_at + version
    return Header(workflow_id, workflow_type, status, version, pending_step, created_at, updated_at, wake_at)


def taken(token: str, *, replaces: str | None = None, owner: str | None = None, expires_at: int = 1000) -> LeaseChange:
    """Make the change by which a driver takes or keeps a lease; 1000 is long past."""
    return LeaseChange(token, owner or f"owner of {token}", expires_at, replaces)


def let_go(token: str, *, replaces: str | None = None) -> LeaseChange:
    """Make the change by which a driver lets go of its lease."""
    return LeaseChange(token, f"owner of {token}", None, replaces or token)


class Contents(NamedTuple):
    """All that a store holds of a workflow, as far as the backend tells."""

    records: list[Record]
    lease: Lease | None
    """None too where the backend has no `Leases`."""
    headers: list[Header]
    """One or none; always none where it has no `Queries`."""


NOTHING = Contents([], None, [])
