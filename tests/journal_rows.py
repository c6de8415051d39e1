"""Rows for the tests of backends: what a journal holds, without an engine that writes it."""

import hashlib

from dotmac_workflows.persistence import Header, Record
from dotmac_workflows.status import WorkflowStatus


def records(after: int, count: int = 2, *, mark: str = "") -> list[Record]:
    """Make `count` records that follow on `after`; `mark` makes them differ from others of the same place."""
    return [
        Record(
            seq,
            "step_succeeded",
            1_700_000_000_000_000 + seq,
            f'{{"step":"s{seq}"}}',
            hashlib.sha256(f"{mark}{seq}".encode()).hexdigest(),
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
    created_at: int = 1_700_000_000_000_000,
    wake_at: int | None = None,
) -> Header:
    """Make the header that goes with an append that ends at `version`."""
    updated_at = created_at + version
    return Header(workflow_id, workflow_type, status, version, pending_step, created_at, updated_at, wake_at)
