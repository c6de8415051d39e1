"""dotmac-workflows: business processes that survive a crash.

Subclass `Workflow`, write `execute_step`, await `execute`. With a `SQLitePersistence` nothing that was acknowledged
is lost; approvals come from any process; what was done is undone in reverse when a step fails.
"""

from typing import TYPE_CHECKING

from ._run.runtime import Clock, Runtime
from .base import StepContext, Workflow
from .errors import (
    AlreadyDecidedError,
    ConcurrencyError,
    JournalCorruptError,
    JournalTooNewError,
    LeaseLostError,
    PayloadTooLargeError,
    PersistenceError,
    ResultNotSerializableError,
    WorkflowConfigurationError,
    WorkflowDefinitionError,
    WorkflowError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
)
from .persistence import InMemoryPersistence, InMemoryStateStore, Persistence, WorkflowStateStore
from .result import WorkflowResult
from .status import WorkflowStatus
from .types import AsyncWorkflowCallback, StepName, WorkflowCallback, WorkflowId
from .values import Codec, CodecType

if TYPE_CHECKING:
    from .persistence.sqlite import SQLitePersistence
    from .recovery import Recovered, recover
    from .verification import Verification, verify

__version__ = "1.0.0"

__all__ = [
    "AlreadyDecidedError",
    "AsyncWorkflowCallback",
    "Clock",
    "Codec",
    "CodecType",
    "ConcurrencyError",
    "InMemoryPersistence",
    "InMemoryStateStore",
    "JournalCorruptError",
    "JournalTooNewError",
    "LeaseLostError",
    "PayloadTooLargeError",
    "Persistence",
    "PersistenceError",
    "Recovered",
    "ResultNotSerializableError",
    "Runtime",
    "SQLitePersistence",
    "StepContext",
    "StepName",
    "Verification",
    "Workflow",
    "WorkflowCallback",
    "WorkflowConfigurationError",
    "WorkflowDefinitionError",
    "WorkflowError",
    "WorkflowExecutionError",
    "WorkflowId",
    "WorkflowNotFoundError",
    "WorkflowResult",
    "WorkflowStateStore",
    "WorkflowStatus",
    "recover",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import what not every program uses when it is first asked for: sqlite3 above all."""
    if name == "SQLitePersistence":
        from .persistence.sqlite import SQLitePersistence

        return SQLitePersistence
    if name in ("Recovered", "recover"):
        from . import recovery

        return vars(recovery)[name]
    if name in ("Verification", "verify"):
        from . import verification

        return vars(verification)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Show it before it is asked for."""
    return sorted({*globals(), *__all__})
