"""How the backends refuse: one wording, so that what a caller sees does not depend on where the journal is kept."""

from collections.abc import Sequence

from ..errors import ConcurrencyError, LeaseLostError, WorkflowConfigurationError
from ._protocol import Header, Record


def version_conflict(workflow_id: str, expected: int, stored: int) -> ConcurrencyError:
    """Build the refusal of an append whose writer has not seen the last record."""
    return ConcurrencyError(
        f"Workflow {workflow_id!r} is at version {stored}, not {expected}: somebody else "
        "appended first. Read it again and decide again.",
        workflow_id=workflow_id,
        expected_version=expected,
        stored_version=stored,
    )


def lease_lost(workflow_id: str, owner: str | None) -> LeaseLostError:
    """Build the refusal of a driver whose lease is another's (`owner`) or nobody's (None) by now."""
    return LeaseLostError(
        f"The lease of workflow {workflow_id!r} is held by {owner or 'nobody'} by now; nothing was written.",
        workflow_id=workflow_id,
        owner=owner,
    )


def check_append(workflow_id: str, records: Sequence[Record], expected_version: int, header: Header) -> None:
    """Refuse an append that contradicts itself: it would make a journal that reads as damaged for ever after.

    Raises:
        WorkflowConfigurationError: The records do not follow on the expected version, or the header is of another
            version or workflow.
    """
    version = expected_version + len(records)
    if header.version != version or header.workflow_id != workflow_id:
        raise WorkflowConfigurationError(
            f"An append of {len(records)} records to workflow {workflow_id!r} at version {expected_version} came with "
            f"the header of {header.workflow_id!r} at version {header.version}. Hand over the header as it is after "
            "the append.",
            workflow_id=workflow_id,
        )
    if records and (records[0].seq != expected_version + 1 or records[-1].seq != version):
        raise WorkflowConfigurationError(
            f"An append to workflow {workflow_id!r} at version {expected_version} came with the records "
            f"{records[0].seq} to {records[-1].seq}. Number them densely from {expected_version + 1}.",
            workflow_id=workflow_id,
        )


def check_limit(limit: int) -> None:
    """Refuse a page that could hold nothing.

    Raises:
        WorkflowConfigurationError: The limit is below 1.
    """
    if limit < 1:
        raise WorkflowConfigurationError(f"find() was asked for {limit} headers at most. Ask for at least 1.")
