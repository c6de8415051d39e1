"""The names that annotations use, the original's among them."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from .base import Workflow

WorkflowId: TypeAlias = str
"""Names one workflow in a store: 1 to 200 printable characters."""
StepName: TypeAlias = str
"""Names one step of a workflow: 1 to 200 printable characters."""
WorkflowCallback: TypeAlias = Callable[..., None]
"""A callback that is called and done."""
AsyncWorkflowCallback: TypeAlias = Callable[..., Awaitable[None]]
"""A callback that is awaited."""
JsonObject: TypeAlias = dict[str, Any]
"""What `WorkflowResult.data`, metadata and approval data hold: see `dotmac_workflows.Codec` for the types."""
RollbackStatus: TypeAlias = Literal["none", "running", "done", "incomplete"]
"""How far the undoing of a workflow is."""
RollbackFailurePolicy: TypeAlias = Literal["continue", "halt"]
"""Whether a rollback goes on after one of its steps failed."""


class WorkflowStateStore(Protocol):
    """Where the original kept whole workflows. Durable runs use `dotmac_workflows.persistence.Persistence`."""

    async def save(self, workflow: "Workflow") -> None:
        """Keep what `Workflow.to_dict` shows of the workflow, replacing what was kept under its id."""
        ...

    async def load(self, workflow_id: WorkflowId) -> "Workflow | None":
        """Return a workflow as it was saved, or None when the id is unknown."""
        ...

    async def delete(self, workflow_id: WorkflowId) -> bool:
        """Forget a workflow; tell whether there was one."""
        ...
