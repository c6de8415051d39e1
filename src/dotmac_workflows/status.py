"""The states that a caller can see a workflow in."""

from enum import Enum


class WorkflowStatus(Enum):
    """Where a workflow stands; ``str(status)`` is the value that is stored and shown."""

    PENDING = "pending"
    """Not started."""
    RUNNING = "running"
    """Started and not ended: being driven, or due to be (left by a crash, or approved and not yet resumed)."""
    COMPLETED = "completed"
    """Every step ran."""
    FAILED = "failed"
    """A step failed; `Workflow.rollback_status` says whether what was done is undone."""
    CANCELLED = "cancelled"
    """Rejected or cancelled."""
    WAITING_APPROVAL = "waiting_approval"
    """At a gate, until somebody approves or rejects."""
    PAUSED = "paused"
    """Held between two steps, until somebody resumes."""

    def __str__(self) -> str:
        return self.value
