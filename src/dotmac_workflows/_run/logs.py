"""What is said in the log: ids and names, never what the user's values say.

Every record of the library carries the same keys beside its text, so that one format and one filter fit all.
"""

import logging

from .._core.events import Event, RollbackStepFailed, RollbackStepSkipped, RollbackStepSucceeded
from .._core.state import RunState

logger = logging.getLogger("dotmac_workflows")

_ROLLBACK_OUTCOMES = (RollbackStepSucceeded, RollbackStepSkipped, RollbackStepFailed)


def keys(
    workflow_id: str, workflow_type: str | None, event: str, step: str | None = None, attempt: int | None = None
) -> dict[str, object]:
    """Return the ``extra`` of a log record; `event` says what it is about, in a word."""
    return {
        "workflow_id": workflow_id,
        "workflow_type": workflow_type,
        "step": step,
        "attempt": attempt,
        "event": event,
    }


def step_of(event: Event) -> str | None:
    """Return the step that an event is about; of a rollback step the one that is undone."""
    result = getattr(event, "result", None)
    if result is None:
        return getattr(event, "step", None)
    step: str = result.step
    return step.removeprefix("rollback_") if isinstance(event, _ROLLBACK_OUTCOMES) else step


def log_facts(state: RunState, events: list[Event]) -> None:
    """Log each transition."""
    if not logger.isEnabledFor(logging.INFO):
        return
    workflow_type = state.plan.workflow_type if state.plan else None
    for event in events:
        fact, step = type(event).__name__, step_of(event)
        logger.info(
            "Workflow %r: %s%s",
            state.workflow_id,
            fact,
            f" {step!r}" if step else "",
            extra=keys(state.workflow_id, workflow_type, fact, step, getattr(event, "attempt", None)),
        )
