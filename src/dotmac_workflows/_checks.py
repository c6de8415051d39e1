"""What a caller hands in, looked at before anything is made of it: ids, names, steps, settings, hand-made state."""

from typing import TypeVar

from ._core.events import Draft, Settings, WorkflowStarted
from .errors import WorkflowConfigurationError
from .result import WorkflowResult
from .status import WorkflowStatus

_T = TypeVar("_T")


def check_name(what: str, name: object, workflow_id: str | None = None) -> None:
    """Refuse an id or a step name that a store, a log or a terminal could garble.

    Raises:
        WorkflowConfigurationError: It is not 1 to 200 printable characters.
    """
    # Exactly a str: what stands in a row and in a digest must be what any other process makes of the same text.
    if type(name) is not str or not 1 <= len(name) <= 200 or not name.isprintable():
        shown = ascii(name) if len(ascii(name)) <= 80 else ascii(name)[:77] + "..."
        raise WorkflowConfigurationError(
            f"{what} must be a string of 1 to 200 printable characters, not {shown}.", workflow_id=workflow_id
        )


def plain(name: _T) -> _T | str:
    """Return a text of a class of its own (a member of an enum, say) as a plain one; all else as it is."""
    return str.__str__(name) if isinstance(name, str) and type(name) is not str else name


def plain_steps(steps: object, workflow_id: str) -> tuple[str, ...]:
    """Return step names as a plan holds them; `check_plan` looks at each.

    Raises:
        WorkflowConfigurationError: They are no list: a text, say, which would be taken letter by letter.
    """
    if not isinstance(steps, list | tuple):
        raise WorkflowConfigurationError(
            f"The steps of workflow {workflow_id!r} are of type {type(steps).__name__}, and must be a list of names.",
            workflow_id=workflow_id,
        )
    return tuple(steps) if set(map(type, steps)) <= {str} else tuple(map(plain, steps))


def check_plan(plan: WorkflowStarted, workflow_id: str) -> None:
    """Refuse a plan that no run can keep to.

    Raises:
        WorkflowConfigurationError: An id or a step name is none, or the settings contradict each other.
    """
    check_name("A workflow id", workflow_id)
    for step in plan.steps if _has_odd_name(plan.steps) else ():
        check_name(f"A step name of workflow {workflow_id!r}", step, workflow_id)
    check_settings(plan.settings, workflow_id)
    draft = plan.draft
    if draft is not None:
        _check_seed(draft, plan.steps, workflow_id)


def check_draft(draft: Draft, workflow_id: str) -> None:
    """Refuse a state set by hand that holds something else than what its attributes are for.

    Raises:
        WorkflowConfigurationError: It does.
    """
    for name, value, kind in (
        ("status", draft.status, WorkflowStatus),
        ("current_step_index", draft.current_step_index, int),
        *(("each of the results", result, WorkflowResult) for result in draft.results),
    ):
        if not isinstance(value, kind) or isinstance(value, bool):
            raise WorkflowConfigurationError(
                f"{name} of workflow {workflow_id!r} must be of type {kind.__name__}, and not {type(value).__name__}.",
                workflow_id=workflow_id,
            )


def _check_seed(draft: Draft, steps: tuple[str, ...], workflow_id: str) -> None:
    index, pending = draft.current_step_index, draft.pending_approval_step
    last = len(steps) - (draft.status is WorkflowStatus.WAITING_APPROVAL)  # a run waits at one of its steps
    if not 0 <= index <= last:
        instead = f"Set it to 0 up to {last}." if last >= 0 else "Give it the step that it waits at."
        raise WorkflowConfigurationError(
            f"current_step_index of workflow {workflow_id!r} is {index}, but it has {len(steps)} steps and is "
            f"{draft.status}. {instead}",
            workflow_id=workflow_id,
        )
    if pending is not None and pending not in steps:
        shown = ascii(pending) if len(ascii(pending)) <= 80 else ascii(pending)[:77] + "..."
        raise WorkflowConfigurationError(
            f"pending_approval_step of workflow {workflow_id!r} is {shown}, which is none of its steps. Set it to the "
            "step that is waited at.",
            workflow_id=workflow_id,
        )


def _has_odd_name(steps: tuple[str, ...]) -> bool:
    """Tell whether a name may be none, looking at all at once: a plan may have ten thousand."""
    return not (
        all(steps)
        and set(map(type, steps)) <= {str}
        and "".join(steps).isprintable()
        and max(map(len, steps), default=0) <= 200
    )


def check_settings(settings: Settings, workflow_id: str) -> None:
    """Refuse settings that contradict each other.

    Raises:
        WorkflowConfigurationError: They do.
    """
    if settings.continue_on_step_failure and settings.rollback_on_failure:
        raise WorkflowConfigurationError(
            f"Workflow {workflow_id!r} cannot both continue after a failed step and roll back. "
            "Call configure(continue_on_step_failure=True, rollback_on_failure=False), or leave the first one out.",
            workflow_id=workflow_id,
        )
    if settings.on_rollback_failure not in ("continue", "halt"):
        raise WorkflowConfigurationError(
            f"on_rollback_failure of workflow {workflow_id!r} is {settings.on_rollback_failure!r}; "
            "it must be 'continue' or 'halt'.",
            workflow_id=workflow_id,
        )
