"""Making one fact of whatever the user's code did: a result, an exception, nonsense, a value that cannot be stored."""

import copy
import traceback
from collections.abc import Callable

from .._core.commands import settle, settle_rollback
from .._core.events import Event, RollbackOutcome, RollbackStepSkipped, StepOutcome
from ..errors import PayloadTooLargeError, ResultNotSerializableError, WorkflowConfigurationError, WorkflowError
from ..result import WorkflowResult
from .live import Journal
from .logs import keys, logger

_MESSAGE_LIMIT = 10_000  # characters of an exception's own text that are kept
_TRACEBACK_LIMIT = 20_000  # characters of a traceback that are kept: its end, where the error is


class Outcomes:
    """Turns what steps answer into events that the journal can keep."""

    def __init__(
        self, workflow_id: str, workflow_type: str, attempt: int, journal: Journal, now: Callable[[], int]
    ) -> None:
        self._workflow_id = workflow_id
        self._workflow_type = workflow_type
        self._attempt = attempt
        self._journal = journal
        self._now = now

    def of_step(self, step: str, answer: object, error: Exception | None, elapsed: float) -> Event:
        """Return the fact that a step ended: it answered, or raised; after `elapsed` seconds."""
        if error is not None:
            result = self._failure(step, step, error)
        elif not isinstance(answer, WorkflowResult):
            result = _invalid(step, f"Step {step!r} returned {type(answer).__name__}, not a WorkflowResult.")
        elif (problem := _undecided(answer)) is not None:
            result = _invalid(step, f"Step {step!r} returned a result whose {problem}.")
        elif answer.step != step:
            self._warn(step, "Step %r of workflow %r returned a result for step %r; it is recorded as its own.", answer)
            result = _renamed(answer, step)
        else:
            result = answer
        result.execution_time = elapsed
        return self._seal(step, settle(result, self._now(), *_exception(error)))

    def of_rollback(self, step: str, answer: object, error: Exception | None, elapsed: float) -> Event:
        """Return the fact that the rollback of a step ended: it answered, or raised; after `elapsed` seconds."""
        name = f"rollback_{step}"
        result: WorkflowResult | None
        if isinstance(error, NotImplementedError) and _raised_by_the_hook_itself(error):
            result, error = None, None
        elif error is not None:
            result = self._failure(name, step, error)
        elif answer is None:
            result = None
        elif not isinstance(answer, WorkflowResult):
            result = _invalid(
                name, f"The rollback of step {step!r} returned {type(answer).__name__}, not a WorkflowResult or None."
            )
        elif (problem := _undecided(answer)) is not None:
            result = _invalid(name, f"The rollback of step {step!r} returned a result whose {problem}.")
        elif answer.step == name:
            result = answer
        else:
            if answer.step != step:
                self._warn(step, "The rollback of step %r of workflow %r returned a result for step %r.", answer)
            result = _renamed(answer, name)
        outcome = settle_rollback(result, step, self._now(), *_exception(error))
        if isinstance(outcome, RollbackStepSkipped):
            self._warn(step, "Step %r of workflow %r has no rollback: nothing was undone.")
        outcome.result.execution_time = elapsed
        return self._seal(step, outcome)

    def _seal(self, step: str, outcome: StepOutcome | RollbackOutcome) -> Event:
        """Return the outcome as it will be read back, or the failure to store it."""
        refusal: WorkflowError
        try:
            return self._journal.seal(outcome)
        except ResultNotSerializableError as error:
            code, refusal = "result_not_serializable", error
        except PayloadTooLargeError as error:
            code, refusal = "payload_too_large", error
        except WorkflowConfigurationError as error:
            code, refusal = "invalid_result", error
        exception, cause = type(refusal).__name__, str(refusal)[:_MESSAGE_LIMIT]  # a path is as long as its keys
        had = outcome.result
        told = "" if had.success else f" It had failed: {str(had.message or had.error)[:_MESSAGE_LIMIT]}"
        message = f"The result of {had.step!r} cannot be stored: {cause}{told}"
        result = WorkflowResult(False, had.step, error=code, message=message, execution_time=had.execution_time)
        logger.error(
            "Workflow %r: The result of %r cannot be stored: %s",
            self._workflow_id,
            had.step,
            cause,
            extra=self._keys("result_refused", step),
        )
        if isinstance(outcome, StepOutcome):
            return self._journal.seal(settle(result, outcome.at, exception))
        return self._journal.seal(settle_rollback(result, step, outcome.at, exception))

    def _failure(self, name: str, step: str, error: Exception) -> WorkflowResult:
        logger.error(
            "Step %r of workflow %r raised %s.",
            name,
            self._workflow_id,
            type(error).__name__,
            exc_info=error,
            extra=self._keys("step_raised", step),
        )
        return WorkflowResult(False, name, error="step_execution_error", message=f"Step {name!r} failed: {said(error)}")

    def _warn(self, step: str, text: str, answer: WorkflowResult | None = None) -> None:
        named = (answer.step,) if answer is not None else ()
        event = "result_misnamed" if named else "rollback_missing"
        logger.warning(text, step, self._workflow_id, *named, extra=self._keys(event, step))

    def _keys(self, event: str, step: str) -> dict[str, object]:
        return keys(self._workflow_id, self._workflow_type, event, step, self._attempt)


def said(error: Exception) -> str:
    """Return an exception's type and own text, without its notes, and no longer than a message bears."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
    except Exception:
        text = "<exception str() failed>"  # as tracebacks have it
    return f"{name}: {text[:_MESSAGE_LIMIT]}" if text else name


def _invalid(name: str, why: str) -> WorkflowResult:
    return WorkflowResult(False, name, error="invalid_result", message=f"{why} Return one, with success and step.")


def _undecided(answer: WorkflowResult) -> str | None:
    """Return which of a result's flags is neither true nor false (an array, say), or None."""
    for name in ("success", "requires_approval"):
        value = getattr(answer, name)
        try:
            bool(value)
        except Exception:
            return f"{name} is of type {type(value).__name__}, not a bool"
    return None


def _renamed(answer: WorkflowResult, step: str) -> WorkflowResult:
    """Return a copy for another step; not by the constructor, which a subclass may have of its own."""
    if type(answer) is WorkflowResult:
        result = object.__new__(WorkflowResult)  # at a tenth of the price
        vars(result).update(vars(answer))
    else:
        result = copy.copy(answer)
    result.step = step
    return result


def _exception(error: Exception | None) -> tuple[str | None, str | None]:
    """Return the type and traceback that the journal keeps of an exception."""
    if error is None:
        return None, None
    return type(error).__name__, "".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:]


def _raised_by_the_hook_itself(error: BaseException) -> bool:
    """Tell whether ``rollback_step`` or ``execute_step`` raised it, not something that they called."""
    frames = traceback.walk_tb(error.__traceback__)
    *_, (deepest, _line) = frames
    return deepest.f_code.co_name in ("rollback_step", "execute_step")
