"""The local host: runs the user's code in this process and this task, and keeps the lease while it does.

Everything that the loop leaves open is here: calling a step and making one fact of whatever it does; committing with
the right change of lease; telling a conflict (somebody recorded an approval, a cancel) from a lost lease (somebody
else drives); publishing and telling callbacks after the commit.

Steps run inline in the driver's task. What has to reach a step that runs comes by `interrupt`: from the object's own
``cancel()``, or from the heartbeat, which renews the lease each second and looks at what was recorded since.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from .._core.actions import RunRollback, RunStep, Wait
from .._core.commands import settle, settle_rollback
from .._core.decide import interrupted
from .._core.events import (
    Event,
    Released,
    RollbackOutcome,
    RollbackStepSkipped,
    StepOutcome,
    StepStarted,

    WorkflowStarted,
)
from .._core.state import RunState, apply
from ..errors import (
    ConcurrencyError,
    LeaseLostError,
    PayloadTooLargeError,
    PersistenceError,
    ResultNotSerializableError,
    WorkflowNotFoundError,
)
from ..persistence import LeaseChange, Leases
from ..result import WorkflowResult
from . import callbacks, lease
from .drive import Conflict
from .journal import Journal, StoredJournal
from .runtime import Runtime

logger = logging.getLogger("dotmac_workflows")
_MESSAGE_LIMIT = 10_000  # characters of an exception's own text that are kept
_TRACEBACK_LIMIT = 20_000  # characters of a traceback that are kept: its end, where the error is


class Subject(Protocol):
    """The user's workflow, as far as its host calls it; the callbacks are looked up by name."""

    workflow_id: str
    runtime: Runtime

    async def execute_step(self, step: str) -> WorkflowResult:
        """Do the step."""
        ...

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        """Undo the step."""
        ...


class Tenure:
    """A driver's hold on a stored run: its token, and what it replaces."""

    def __init__(self, token: str, replaces: str | None, leases: Leases | None) -> None:
        self.token = token
        self.owner = lease.this_owner()
        self.leases = leases
        self.in_place = replaces
        """The token that the store holds."""

    def change(self, state: RunState, expires_at: int) -> LeaseChange:
        """Return what an append that leads to `state` does to the lease."""
        held = state.token == self.token
        return LeaseChange(self.token, self.owner, expires_at if held else None, self.in_place)

    def changed(self, change: LeaseChange) -> None:
        """Note that a change was stored."""
        self.in_place = None if change.expires_at is None else change.token


class LocalHost:
    """Drives one workflow object in this process; see `drive.Host`."""

    def __init__(
        self,
        subject: Subject,
        journal: Journal,
        publish: Callable[[RunState], None],
        tenure: Tenure | None,
    ) -> None:
        self._subject = subject
        self._journal = journal
        self._publish = publish
        self._tenure = tenure
        self._runtime = subject.runtime
        self._log = logger.isEnabledFor(logging.INFO)
        self._driving = False
        self.now = self._runtime.clock.now_us
        self.run: WorkflowStarted | None = None
        """How the run was started."""
        self.action: RunStep | RunRollback | None = None
        """What runs at this moment."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancels = 0
        self._others_cancels = 0
        self._lost: LeaseLostError | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        if tenure is not None and tenure.leases is not None:
            self._arm_heartbeat()

    async def commit(self, state: RunState, events: list[Event]) -> None:
        """See `drive.Host.commit`.

        Raises:
            ConcurrencyError: Somebody appended first, and this host does not drive yet: ask again.
            LeaseLostError: Somebody else drives by now.
        """
        change = None
        if self._tenure is not None:
            change = self._tenure.change(state, self._expiry())
        try:
            await self._journal.append(state, events, change)
        except ConcurrencyError as error:
            if not self._driving:
                raise
            raise Conflict(await self._read_again()) from error
        if self._tenure is not None and change is not None:
            self._tenure.changed(change)
        self._driving = True
        self.run = state.plan
        self._publish(state)
        if self._log:
            _log_transitions(state, events)
        for event in events:
            name = callbacks.NAMES.get(type(event))
            if name is not None:
                callback = getattr(self._subject, name)
                if callback is not None:
                    await callbacks.call(callback, event, state.results, state.workflow_id, name)

    async def _read_again(self) -> RunState:
        """Return the state after a conflict, where this host still drives it."""
        state = await self._journal.load()
        workflow_id = self._subject.workflow_id
        if state.plan is None:
            raise WorkflowNotFoundError(
                f"Workflow {workflow_id!r} was deleted while it ran here; what ran since is recorded nowhere.",
                workflow_id=workflow_id,
            )
        if self._tenure is not None and state.token != self._tenure.token:
            raise _lease_lost(workflow_id, state.owner)
        return state

    async def wait(self, wait: Wait) -> list[Event]:
        """Give the caller its thread back: nothing waits in a process."""
        return []

    async def perform(self, action: RunStep | RunRollback) -> list[Event]:
        """Run a step or a rollback step, and return what happened.

        Raises:
            LeaseLostError: Somebody took the run over while the step ran; what it did is not recorded here.
            BaseException: Whatever else is no `Exception` passes through, and nothing is recorded.
        """
        started = action.started
        forward = type(action) is RunStep
        call: Callable[[str], Awaitable[object]]
        call = self._subject.execute_step if forward else self._subject.rollback_step
        answer: object = None
        error: Exception | None = None
        if self._task is not None:
            self._others_cancels = self._task.cancelling()
        self.action = action
        began = self._runtime.clock.monotonic()
        try:
            answer = await call(started.step)
        except Exception as raised:
            error = raised
        except asyncio.CancelledError:
            if not self._cancels or self._calm_down():
                raise
            if self._lost is not None:
                raise self._lost from None
            if not isinstance(started, StepStarted):
                raise
            why = f"Step {started.step!r} was interrupted by a cancel; its outcome is unknown."
            return [interrupted(started, self.now(), why)]
        finally:
            self.action = None
        elapsed = self._runtime.clock.monotonic() - began
        if self._cancels:
            self._calm_down()
        if self._lost is not None:
            raise self._lost
        return [self._step_outcome(started.step, answer, error, elapsed) if forward
                else self._rollback_outcome(started.step, answer, error, elapsed)]

    def _step_outcome(self, step: str, answer: object, error: Exception | None, elapsed: float) -> Event:
        if error is not None:
            result = self._failure(step, step, error)
        elif not isinstance(answer, WorkflowResult):
            result = _invalid(step, f"Step {step!r} returned {type(answer).__name__}, not a WorkflowResult.")
        elif answer.step != step:
            self._warn(step, "Step %r of workflow %r returned a result for step %r; it is recorded as its own.", answer)
            result = replace(answer, step=step)
        else:
            result = answer
        result.execution_time = elapsed
        return self._seal(step, settle(result, self.now(), *_exception(error)))

    def _rollback_outcome(self, step: str, answer: object, error: Exception | None, elapsed: float) -> Event:
        name = f"rollback_{step}"
        result: WorkflowResult | None
        if isinstance(error, NotImplementedError) and _raised_by_the_hook_itself(error):
            result, error = None, None
        elif error is not None:
            result = self._failure(name, step, error)
        elif answer is None or (isinstance(answer, WorkflowResult) and answer.step == name):
            result = answer
        elif isinstance(answer, WorkflowResult):
            if answer.step != step:
                self._warn(step, "The rollback of step %r of workflow %r returned a result for step %r.", answer)
            result = replace(answer, step=name)
        else:
            result = _invalid(
                name, f"The rollback of step {step!r} returned {type(answer).__name__}, not a WorkflowResult or None."
            )
        outcome = settle_rollback(result, step, self.now(), *_exception(error))
        if isinstance(outcome, RollbackStepSkipped):
            self._warn(step, "Step %r of workflow %r has no rollback: nothing was undone.")
        outcome.result.execution_time = elapsed
        return self._seal(step, outcome)

    def _seal(self, step: str, outcome: StepOutcome | RollbackOutcome) -> Event:
        """Return the outcome as it will be read back, or the failure to store it."""
        try:
            return self._journal.seal(outcome)
        except ResultNotSerializableError as error:
            code, cause = "result_not_serializable", error
        except PayloadTooLargeError as error:
            code, cause = "payload_too_large", error
        except TypeError as error:
            code, cause = "invalid_result", error
        had = outcome.result
        told = "" if had.success else f" It had failed: {str(had.message or had.error)[:_MESSAGE_LIMIT]}"
        message = f"The result of {had.step!r} cannot be stored: {cause}{told}"
        result = WorkflowResult(False, had.step, error=code, message=message, execution_time=had.execution_time)
        logger.error("Workflow %r: %s", self._subject.workflow_id, message, extra=self._extra(step))
        if isinstance(outcome, StepOutcome):
            return self._journal.seal(settle(result, outcome.at, type(cause).__name__))
        return self._journal.seal(settle_rollback(result, step, outcome.at, type(cause).__name__))

    def _failure(self, name: str, step: str, error: Exception) -> WorkflowResult:
        said = traceback.format_exception_only(error)[-1].strip()[:_MESSAGE_LIMIT]
        logger.error(
            "Step %r of workflow %r raised %s.",
            name,
            self._subject.workflow_id,
            type(error).__name__,
            exc_info=error,
            extra=self._extra(step),
        )
        return WorkflowResult(False, name, error="step_execution_error", message=f"Step {name!r} failed: {said}")

    def _warn(self, step: str, text: str, answer: WorkflowResult | None = None) -> None:
        named = (answer.step,) if answer is not None else ()
        logger.warning(text, step, self._subject.workflow_id, *named, extra=self._extra(step))

    def _extra(self, step: str) -> dict[str, object]:
        run = self.run
        return {
            "workflow_id": self._subject.workflow_id,
            "workflow_type": run.workflow_type if run else None,
            "step": step,
        }

    # Interrupting the step that runs.

    def interrupt(self) -> None:
        """Interrupt the step that runs, if one does; it is given time to end, and waited for.

        Does nothing between steps, where the next append hears of it, and nothing to a step that calls it itself.
        """
        if self.action is None or self._task is None or self._cancels or self._task is asyncio.current_task():
            return
        self._cancel_task()
        self._grace = self._loop.call_later(self._runtime.cancel_grace_seconds, self._cancel_task)

    def _cancel_task(self) -> None:
        if self.action is not None and self._task is not None:
            self._cancels += 1
            self._task.cancel()

    def _calm_down(self) -> bool:
        """Take back this host's own cancels of its task; tell whether there is another's."""
        if self._grace is not None:
            self._grace.cancel()
        assert self._task is not None
        while self._cancels:
            self._cancels -= 1
            self._task.uncancel()
        return self._task.cancelling() > self._others_cancels

    # The lease.

    def _expiry(self) -> int:
        return self.now() + int(self._runtime.lease_seconds * 1_000_000)

    def _arm_heartbeat(self) -> None:
        self._beat = self._loop.call_later(min(1.0, self._runtime.lease_seconds / 3), self._heartbeat)

    def _heartbeat(self) -> None:
        self._arm_heartbeat()
        if self.action is not None and (self._renewal is None or self._renewal.done()):
            self._renewal = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        """Renew the lease of a step that takes its time, and look at what was recorded meanwhile."""
        tenure, journal = self._tenure, self._journal
        assert tenure is not None and tenure.leases is not None and isinstance(journal, StoredJournal)
        action, workflow_id = self.action, self._subject.workflow_id
        try:
            version = await tenure.leases.renew(workflow_id, tenure.token, self._expiry())
            state = await journal.fresh().load() if version != journal.version else None
        except LeaseLostError as error:
            self._lose(action, _lease_lost(workflow_id, error.owner))
        except PersistenceError:
            logger.warning("The lease of workflow %r could not be renewed; trying again.", workflow_id, exc_info=True)
        else:
            if state is not None and state.token != tenure.token:
                self._lose(action, _lease_lost(workflow_id, state.owner))
            elif state is not None and state.cancelling is not None and self.action is action:
                self.interrupt()

    def _lose(self, action: RunStep | RunRollback | None, error: LeaseLostError) -> None:
        if action is not None and self.action is action:
            self._lost = error
            self.interrupt()

    async def release(self) -> None:
        """Let go of a run that is left before its end, so that it can be taken up at once."""
        tenure = self._tenure
        if tenure is None:
            return
        try:
            while True:
                state = await self._journal.load()
                if state.token != tenure.token:
                    return
                tenure.in_place = tenure.token
                released = Released(self.now())
                apply(state, released)
                try:
                    await self._journal.append(state, [released], tenure.change(state, 0))
                except ConcurrencyError:
                    continue
                return
        except PersistenceError:
            logger.warning(
                "The lease of workflow %r could not be let go; it expires by itself.",
                self._subject.workflow_id,
                exc_info=True,
            )

    def close(self) -> None:
        """Stop the heartbeat."""
        if self._beat is not None:
            self._beat.cancel()


def _lease_lost(workflow_id: str, owner: str | None) -> LeaseLostError:
    by = lease.describe(owner) if owner else "somebody else"
    return LeaseLostError(
        f"Workflow {workflow_id!r} is no longer driven by this process: its lease expired and {by} took over. "
        "Nothing was recorded since; load the workflow to see where it stands.",
        workflow_id=workflow_id,
        owner=owner,
    )


def _invalid(name: str, why: str) -> WorkflowResult:
    return WorkflowResult(False, name, error="invalid_result", message=f"{why} Return one, with success and step.")


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


def _log_transitions(state: RunState, events: list[Event]) -> None:
    for event in events:
        started = isinstance(event, StepStarted)
        step = getattr(event, "step", None) or getattr(getattr(event, "result", None), "step", None)
        logger.log(
            logging.INFO if not started or event.attempt == 1 else logging.WARNING,
            "Workflow %r: %s%s",
            state.workflow_id,
            type(event).__name__,
            f" {step!r}" if step else "",
            extra={
                "workflow_id": state.workflow_id,
                "workflow_type": state.plan.workflow_type if state.plan else None,
                "step": step,
                "attempt": getattr(event, "attempt", None),
                "event": type(event).__name__,
            },
        )
