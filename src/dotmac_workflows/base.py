"""`Workflow`: what users subclass. Its verbs are carried out in `_verbs`."""

import logging
from collections.abc import MutableMapping
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple, Self

from ._checks import check_name, check_settings, plain
from ._core import commands
from ._core.actions import RunStep
from ._core.events import Settings
from ._run.callbacks import NAMES as CALLBACKS
from ._run.callbacks import Callback
from ._run.runtime import Runtime
from ._verbs import Verbs, call_constructor, check_persistence, plan_problem
from ._view import RUN_STATE, View
from .errors import WorkflowConfigurationError, WorkflowError, WorkflowExecutionError
from .persistence import Persistence
from .result import WorkflowResult
from .status import WorkflowStatus
from .types import (
    JsonObject,
    RollbackFailurePolicy,
    RollbackStatus,
    StepName,
    WorkflowId,
)

__all__ = [
    "StepContext",
    "Workflow",
    "WorkflowConfigurationError",
    "WorkflowError",
    "WorkflowExecutionError",
]


def _new_id() -> str:
    from uuid import uuid4  # here: a program that names its runs gets by without its 2 ms

    return str(uuid4())


@cache
def _unset(workflow_class: type) -> dict[str, object]:
    """Return the settings and callbacks of a new object; one that the class defines as a method is left to it."""
    callbacks = {name: None for name in CALLBACKS.values() if getattr(workflow_class, name) is None}
    return {**Settings()._asdict(), **callbacks}


class StepContext(NamedTuple):
    """What a step can know of itself while it runs; see `Workflow.step_context`."""

    workflow_id: str
    step: str
    """The step, or the step that is undone."""
    phase: Literal["forward", "rollback"]
    attempt: int
    """Which time this visit is tried, from 1: more than 1 after a crash."""
    visit: int
    """Which time the run comes by a step of this name in this phase, from 1: more than 1 after a retry."""
    idempotency_key: str
    """The same in every attempt, and another one for every run, phase, step and visit. Hand it to whoever takes one."""
    outcome_unknown: bool
    """In a rollback: the step was interrupted, so there may be nothing to undo."""
    logger: logging.LoggerAdapter[logging.Logger]
    """Adds ``workflow_id``, ``workflow_type``, ``step`` and ``attempt`` to each record."""


class Workflow:
    """A business process: named steps in order, approvals between them, undone in reverse when one fails.

    Subclass it, write `execute_step`, and await `execute`. With a `persistence`, every transition is durable before
    the next one begins, and any process can carry on, approve or cancel. Without one, the run lives in the object.

    One object is used from one event loop. A step whose completion was recorded never runs again; the one in flight
    at a crash does, with the same `StepContext.idempotency_key`.
    """

    runtime: Runtime = Runtime()
    """Clock, codec and lease times, for the class or one object."""
    workflow_type: ClassVar[str | None] = None
    """What stores call this class; its name when left out. Give one before you rename a class with runs in flight."""

    on_step_started: Callback = None
    """Told the name of a step that is about to run."""
    on_step_completed: Callback = None
    """Told the result of a step that ended, well or not."""
    on_approval_required: Callback = None
    """Told the name of the step after which the run waits."""
    on_rollback_started: Callback = None
    """Told the name of the step at which the run turned round."""
    on_rollback_completed: Callback = None
    """Told all results, those of the rollback steps at the end; see `rollback_status`."""
    on_workflow_completed: Callback = None
    """Told all results."""
    on_workflow_failed: Callback = None
    """Told all results, after the rollback."""
    on_workflow_cancelled: Callback = None
    """Told all results, after the rollback."""

    workflow_id: WorkflowId
    """Names the run in its store."""
    steps: list[StepName]
    """The names of the steps, in order; pinned when the run starts."""
    metadata: JsonObject
    """What the run is about; pinned when the run starts, and with a persistence read-only from then on."""
    status: WorkflowStatus
    """Where the run stands."""
    current_step_index: int
    """Which step is next, runs, or is waited at; counted from 0."""
    results: list[WorkflowResult]
    """The current pass: one result a step, then those of its rollback."""
    pending_approval_step: StepName | None
    """The step after which the run waits for a decision."""
    approval_data: JsonObject | None
    """What the last approval brought."""
    rollback_on_failure: bool
    """Undo what was done when a step fails; set by `configure`, like the four that follow."""
    continue_on_step_failure: bool
    """Record failures and go on."""
    require_approval: bool
    """Wait where a result asks for an approval."""
    rollback_on_cancel: bool
    """Undo what was done when the run is rejected or cancelled."""
    on_rollback_failure: RollbackFailurePolicy
    """What follows when a rollback step fails."""

    def __init__(
        self,
        workflow_id: WorkflowId | None = None,
        steps: list[StepName] | None = None,
        metadata: JsonObject | None = None,
        *,
        persistence: Persistence | None = None,
    ) -> None:
        """Make a workflow that has not been started.

        Args:
            workflow_id: 1 to 200 printable characters; made when left out or empty. Names the run in its store, so
                take one from the business (``order-42``) to have `execute` do the same order once.
            steps: The names of the steps, in order.
            metadata: What the run is about; pinned when it starts. See `dotmac_workflows.Codec` for the types.
            persistence: Where the run is recorded; None: in this object alone.

        Raises:
            WorkflowConfigurationError: `persistence` lacks a method of one.
        """
        # Not by assignment, which __setattr__ looks at: a short run costs hardly more than its construction.
        workflow_class: type = type(self)
        vars(self).update(
            _unset(workflow_class),
            workflow_id=plain(workflow_id) or _new_id(),
            steps=steps if steps is not None else [],
            metadata=metadata if metadata is not None else {},
            status=WorkflowStatus.PENDING,
            current_step_index=0,
            results=[],
            pending_approval_step=None,
            approval_data=None,
        )
        check_persistence(persistence, self.workflow_id)
        self._workflow_view = View(persistence)

    def __setattr__(self, name: str, value: object) -> None:
        if name in RUN_STATE and "_workflow_view" in self.__dict__:
            self._workflow_view.before_assignment(vars(self), name)
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_id!r} {self.status}>"

    def configure(
        self,
        rollback_on_failure: bool = True,
        continue_on_step_failure: bool = False,
        require_approval: bool = False,
        *,
        rollback_on_cancel: bool = False,
        on_rollback_failure: RollbackFailurePolicy = "continue",
    ) -> None:
        """Set all settings, before the run; what is left out gets its default.

        Args:
            rollback_on_failure: Undo what was done when a step fails.
            continue_on_step_failure: Record failures and go on; excludes `rollback_on_failure`.
            require_approval: Wait for an approval after a step whose result has ``requires_approval``.
            rollback_on_cancel: Undo what was done when the run is rejected or cancelled.
            on_rollback_failure: ``continue`` tries the rest after a rollback step failed, ``halt`` leaves it.

        Raises:
            WorkflowConfigurationError: The settings contradict each other.
            WorkflowExecutionError: The run has started.
        """
        settings = Settings(
            rollback_on_failure, continue_on_step_failure, require_approval, rollback_on_cancel, on_rollback_failure
        )
        check_settings(settings, self.workflow_id)
        for name, value in settings._asdict().items():
            setattr(self, name, value)

    # What users override.

    async def validate(self) -> WorkflowResult:
        """Check whether the run can start; override it for checks of your own.

        Called once, before anything is recorded. A result without success ends `execute` with it alone, ``FAILED``, and
        is not recorded, so that a mended order can run under the same id.
        """
        return plan_problem(self) or WorkflowResult(True, "validation", {"validated": True})

    async def execute_step(self, step: StepName) -> WorkflowResult:
        """Do a step; override it.

        May be called again for the same step after a crash: make it harmless with
        ``self.step_context.idempotency_key``. An exception is a failed result; what blocks (a driver without
        async, heavy computing) belongs in `asyncio.to_thread`, or the lease of the run is not renewed.
        """
        raise NotImplementedError("Subclasses must implement execute_step method")

    async def rollback_step(self, step: StepName) -> WorkflowResult | None:
        """Undo a step; override it, or let `execute_step` handle ``rollback_<step>``.

        May be called again for the same step after a crash. None, or a `NotImplementedError` raised right here,
        means that there is nothing to undo.
        """
        result = await self.execute_step(f"rollback_{step}")
        unknown = isinstance(result, WorkflowResult) and not result.success and result.error == "unknown_step"
        return None if unknown else result

    # The verbs.

    async def execute(self) -> list[WorkflowResult]:
        """Run the workflow, as far as it goes without anybody's decision.

        Idempotent by id: a run that ended, waits or is paused is not run again, one that a crash left goes on.

        Returns:
            The results so far: one a step, then those of its rollback.

        Raises:
            WorkflowExecutionError: Somebody drives it ("already running").
            WorkflowDefinitionError: The id is known, with other steps or another class.
            WorkflowConfigurationError: The plan cannot be run.
            ResultNotSerializableError: The metadata cannot be stored; nothing was started.
            PersistenceError: The store failed; the run is as last recorded.
            LeaseLostError: Another process took over; this one changed nothing since.
        """
        return await Verbs(self).execute()

    async def approve_and_continue(
        self, approval_data: JsonObject | None = None, *, actor: str | None = None
    ) -> list[WorkflowResult]:
        """Open the gate that the run waits at, and run on.

        Args:
            approval_data: Kept as `approval_data`, for the steps behind the gate.
            actor: Who approves. The same actor may say so twice; anybody else is told who came first.

        Raises:
            AlreadyDecidedError: Somebody decided this gate otherwise, or first.
            WorkflowExecutionError: The run is not waiting for approval.
        """
        data = approval_data or {}
        ask = Verbs(self).decision(lambda state, now, gate: commands.approve(state, now, data, actor, gate))
        return await Verbs(self).go_on(ask, decides=True)

    async def reject_and_cancel(self, reason: str | None = None, *, actor: str | None = None) -> list[WorkflowResult]:
        """Close the gate that the run waits at, and end it: undone where ``rollback_on_cancel`` is set.

        Adds one result, of the step waited at, with ``error="approval_rejected"``. Raises as `approve_and_continue`.
        """
        ask = Verbs(self).decision(lambda state, now, gate: commands.reject(state, now, reason, actor, gate))
        return await Verbs(self).go_on(ask, decides=True)

    async def approve(self, data: JsonObject | None = None, *, actor: str | None = None) -> list[WorkflowResult]:
        """Record an approval and run nothing; the run is then due, for `resume` or `recover` to carry on.

        Needs no step code: ``Workflow.load(...)`` will do. Raises as `approve_and_continue`.
        """
        approval = data or {}
        ask = Verbs(self).decision(lambda state, now, gate: commands.approve(state, now, approval, actor, gate))
        return await Verbs(self).record(ask)

    async def reject(self, reason: str | None = None, *, actor: str | None = None) -> list[WorkflowResult]:
        """Record a rejection and run nothing; the run is then due, to be ended by `resume` or `recover`."""
        ask = Verbs(self).decision(lambda state, now, gate: commands.reject(state, now, reason, actor, gate))
        return await Verbs(self).record(ask)

    async def resume(self, *, actor: str | None = None) -> list[WorkflowResult]:
        """Carry on what is due: a paused run, a decision that was only recorded, a run that a crash left.

        Runs nothing when the run ended or waits. Raises as `execute`.
        """
        return await Verbs(self).go_on(lambda state, now: commands.resume(state, now, actor))

    async def pause(self, reason: str | None = None, *, actor: str | None = None) -> list[WorkflowResult]:
        """Hold the run before its next step, whichever process drives it, until `resume`.

        Raises:
            WorkflowExecutionError: It waits, ended, or is being undone.
        """
        return await Verbs(self).pause(reason, actor)

    async def cancel(self, reason: str | None = None, *, actor: str | None = None) -> list[WorkflowResult]:
        """End the run: undone where ``rollback_on_cancel`` is set.

        The request is recorded first. A step that runs is interrupted, in this process at once, in another within
        about a second, and waited for; where nobody drives, the run is ended here.

        Raises:
            AlreadyDecidedError: Somebody cancelled it first.
            WorkflowExecutionError: It ended, or is being undone.
        """
        return await Verbs(self).cancel(reason, actor)

    async def retry(self, *, actor: str | None = None) -> list[WorkflowResult]:
        """Run a failed workflow forward again: from the failed step, or from the first when all was undone.

        What runs again is a new visit, with an idempotency key of its own. Raises as `execute`, and
        `WorkflowExecutionError` when it did not fail, or its rollback is incomplete.
        """
        return await Verbs(self).go_on(lambda state, now: commands.retry(state, now, actor))

    async def retry_rollback(self, *, actor: str | None = None) -> list[WorkflowResult]:
        """Try again only what a rollback left undone. Raises as `execute`."""
        return await Verbs(self).go_on(lambda state, now: commands.retry_rollback(state, now, actor))

    async def skip_rollback(self, step: StepName, reason: str, *, actor: str | None = None) -> list[WorkflowResult]:
        """Record that a step whose rollback failed was put right by other means; run nothing.

        Raises:
            WorkflowExecutionError: The rollback of that step did not fail.
        """
        return await Verbs(self).record(lambda state, now: commands.skip_rollback(state, now, step, reason, actor))

    @classmethod
    async def load(cls, workflow_id: WorkflowId, persistence: Persistence, **init: Any) -> Self:
        """Return a workflow as its journal says it stands, with the steps, settings and metadata it was started with.

        Args:
            workflow_id: Which one.
            persistence: Where it is recorded.
            **init: Handed to the constructor: ``cls(workflow_id=..., persistence=..., **init)``.

        Raises:
            WorkflowNotFoundError: The store does not know the id.
            WorkflowConfigurationError: The constructor cannot be called so.
            WorkflowDefinitionError: The run is of another type. `Workflow` itself loads any, to look and decide.
            JournalCorruptError: Its journal is damaged.
        """
        workflow_id = plain(workflow_id)
        check_name("A workflow id", workflow_id)
        workflow = call_constructor(cls, workflow_id=workflow_id, persistence=persistence, **init)
        await Verbs(workflow).attach()
        return workflow

    # What can be seen.

    @property
    def persistence(self) -> Persistence | None:
        """Where the run is recorded; None: in this object alone."""
        return self._workflow_view.persistence

    @property
    def step_context(self) -> StepContext:
        """What the step that runs at this moment can know of itself.

        Raises:
            WorkflowExecutionError: No step of this object runs.
        """
        host = self._workflow_view.host
        action = host.action if host is not None else None
        if host is None or action is None or host.run is None:
            raise WorkflowExecutionError(
                f"No step of workflow {self.workflow_id!r} runs at this moment. step_context is there inside "
                "execute_step() and rollback_step().",
                workflow_id=self.workflow_id,
            )
        started, forward = action.started, isinstance(action, RunStep)
        run_id = host.run.run_id
        extra = {
            "workflow_id": self.workflow_id,
            "workflow_type": host.run.workflow_type,
            "step": started.step,
            "attempt": started.attempt,
        }
        return StepContext(
            self.workflow_id,
            started.step,
            "forward" if forward else "rollback",
            started.attempt,
            started.visit,
            f"{run_id}:{'f' if forward else 'r'}:{started.visit}:{started.step}",
            not isinstance(action, RunStep) and action.outcome_unknown,
            _BoundLogger(logging.getLogger(type(self).__module__), extra),
        )

    @property
    def execution_time(self) -> float | None:
        """How long the run took from its start to its end, waits included, or until now; seconds, None: not started."""
        view = self._workflow_view
        if view.started_at is None:
            return None
        ended_at = view.ended_at if view.ended_at is not None else self.runtime.clock.time_ns() // 1000
        return max(0, ended_at - view.started_at) / 1_000_000

    @property
    def rollback_status(self) -> RollbackStatus:
        """How far the undoing is; ``incomplete`` when a rollback step failed: `retry_rollback` or `skip_rollback`."""
        return self._workflow_view.rollback_status

    @property
    def is_completed(self) -> bool:
        """Whether every step ran."""
        return self.status is WorkflowStatus.COMPLETED

    @property
    def is_failed(self) -> bool:
        """Whether the run ended with a failure."""
        return self.status is WorkflowStatus.FAILED

    @property
    def is_waiting_approval(self) -> bool:
        """Whether the run waits for a decision."""
        return self.status is WorkflowStatus.WAITING_APPROVAL

    def to_dict(self) -> dict[str, Any]:
        """Return what the object shows, for a caller to look at or keep; not the durable form of a run.

        ``start_time`` and ``end_time`` are seconds since 1970 UTC; ``results`` are dictionaries.
        """
        view = self._workflow_view
        return {
            "workflow_id": self.workflow_id,
            "steps": list(self.steps),
            "metadata": self.metadata,
            "status": self.status.value,
            "current_step_index": self.current_step_index,
            "results": [result.to_dict() for result in self.results],
            "pending_approval_step": self.pending_approval_step,
            "approval_data": self.approval_data,
            "rollback_on_failure": self.rollback_on_failure,
            "continue_on_step_failure": self.continue_on_step_failure,
            "require_approval": self.require_approval,
            "rollback_on_cancel": self.rollback_on_cancel,
            "on_rollback_failure": self.on_rollback_failure,
            "rollback_status": view.rollback_status,
            "start_time": None if view.started_at is None else view.started_at / 1_000_000,
            "end_time": None if view.ended_at is None else view.ended_at / 1_000_000,
        }

    def to_mermaid(self) -> str:
        """Return a Mermaid flowchart of the plan: its steps, the gates that are known, the undo path.

        Of a run it also shows where it stands, as far as this object knows.
        """
        from .pictures import to_mermaid  # here: few programs draw

        return to_mermaid(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **init: Any) -> Self:
        """Make a workflow in the state that `to_dict` showed: a draft, which a verb can go on from.

        Args:
            data: What `to_dict` returned, of this version or the original; ``workflow_id`` and ``steps`` have to be
                there.
            **init: Handed to the constructor, beside ``workflow_id``, ``steps`` and ``metadata``.

        Raises:
            WorkflowConfigurationError: The constructor cannot be called so.
            ValueError: A value is none that `to_dict` returns.
        """
        workflow = call_constructor(
            cls,
            workflow_id=data["workflow_id"],
            steps=list(data["steps"]),
            metadata=dict(data.get("metadata") or {}),
            **init,
        )
        workflow.status = WorkflowStatus(data.get("status", "pending"))
        workflow.results = [WorkflowResult.from_dict(result) for result in data.get("results", ())]
        defaults: dict[str, Any] = {"current_step_index": 0, "pending_approval_step": None, "approval_data": None}
        for name, default in (defaults | Settings()._asdict()).items():
            setattr(workflow, name, data.get(name, default))
        workflow._workflow_view.show_draft(data)
        return workflow


class _BoundLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the ids of a step to what is logged, beside the caller's own ``extra``."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
