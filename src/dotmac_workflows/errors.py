"""Every error that the library raises on purpose.

Each says what happened, to which workflow and step, and what to do next; the ids are attributes too. There is a
class of its own only where a caller would act differently.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class WorkflowError(Exception):
    """The base of all errors of this library."""

    workflow_id: str | None
    """The workflow that it happened to, where it is one."""
    step: str | None
    """The step that it happened to, where it is one."""

    def __init__(self, message: str = "", *, workflow_id: str | None = None, step: str | None = None) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id
        self.step = step


class WorkflowConfigurationError(WorkflowError):
    """A workflow, a store or a call is set up in a way that cannot work. Mend the code."""


class WorkflowExecutionError(WorkflowError):
    """What was asked cannot be done in the state that the workflow is in. The message says what can."""


class AlreadyDecidedError(WorkflowExecutionError):
    """Somebody else decided first. Show it to the person who asked; there is nothing left to decide."""

    verdict: str | None
    """What was decided: ``approved``, ``rejected`` or ``cancelled``."""
    actor: str | None
    """Who decided, where they said."""
    decided_at: "datetime | None"
    """When, aware, in UTC."""

    def __init__(
        self,
        message: str = "",
        *,
        workflow_id: str | None = None,
        step: str | None = None,
        verdict: str | None = None,
        actor: str | None = None,
        decided_at: "datetime | None" = None,
    ) -> None:
        super().__init__(message, workflow_id=workflow_id, step=step)
        self.verdict = verdict
        self.actor = actor
        self.decided_at = decided_at


class WorkflowDefinitionError(WorkflowExecutionError):
    """The class in hand is not what the stored run was started with. Use its class and steps, or another id."""


class WorkflowNotFoundError(WorkflowExecutionError):
    """The store knows no workflow of that id."""


class PersistenceError(WorkflowError):
    """The store could not do what it was asked. The run is as it was last recorded, and can be resumed."""


class ConcurrencyError(PersistenceError):
    """Somebody appended first: the stored version is not the expected one. Read again, decide again."""

    expected_version: int | None
    """The version that the refused append built on."""
    stored_version: int | None
    """The version found in the store; 0 when it knows no such workflow."""

    def __init__(
        self,
        message: str = "",
        *,
        workflow_id: str | None = None,
        expected_version: int | None = None,
        stored_version: int | None = None,
    ) -> None:
        super().__init__(message, workflow_id=workflow_id)
        self.expected_version = expected_version
        self.stored_version = stored_version


class LeaseLostError(PersistenceError):
    """This process no longer drives the workflow, and has changed nothing since. Whoever took over carries on."""

    owner: str | None
    """Who holds the lease now, where that is known."""

    def __init__(self, message: str = "", *, workflow_id: str | None = None, owner: str | None = None) -> None:
        super().__init__(message, workflow_id=workflow_id)
        self.owner = owner


class JournalCorruptError(PersistenceError):
    """What the store holds of a workflow is damaged. Nothing was overwritten; restore the store from a backup."""

    seq: int | None
    """The first record that cannot be right, where it is one."""

    def __init__(self, message: str = "", *, workflow_id: str | None = None, seq: int | None = None) -> None:
        super().__init__(message, workflow_id=workflow_id)
        self.seq = seq


class JournalTooNewError(PersistenceError):
    """A newer version of the library wrote this. Nothing was touched; upgrade this process."""


class ResultNotSerializableError(PersistenceError):
    """A value cannot be stored so that it comes back as it is. `path` says which one."""

    path: str | None
    """Where the value is, such as ``data.items[3].price``."""

    def __init__(
        self,
        message: str = "",
        *,
        workflow_id: str | None = None,
        step: str | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(message, workflow_id=workflow_id, step=step)
        self.path = path


class PayloadTooLargeError(PersistenceError):
    """A value is larger than a journal should carry. Store it elsewhere and keep its address here."""

    path: str | None
    """Which value it is, such as ``data``."""
    size: int | None
    """Its size as JSON, in bytes."""
    limit: int | None
    """The largest size allowed, in bytes."""

    def __init__(
        self,
        message: str = "",
        *,
        workflow_id: str | None = None,
        step: str | None = None,
        path: str | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(message, workflow_id=workflow_id, step=step)
        self.path = path
        self.size = size
        self.limit = limit
