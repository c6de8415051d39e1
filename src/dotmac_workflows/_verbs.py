"""What stands between a workflow object and its journal: the verbs.

Every verb works alike: read the journal, ask a command what the wish comes to, append that at the version read, and
ask again when somebody else appended first. A verb that drives hands the facts to the loop instead, whose first
commit they become, together with the claim of the lease and the first decision. The one exception is the first append
of a fresh object, which reads nothing and is refused where its id is known.

What a caller sees on the object is published after each commit; see `_view`.
"""

import inspect
import os
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakSet

from ._checks import check_name, check_plan, plain_steps
from ._core import commands
from ._core.events import Approved, Claimed, Draft, Event, Settings, WorkflowFailed, WorkflowStarted
from ._core.state import RunState, fold, replay
from ._run import callbacks, lease
from ._run.drive import drive
from ._run.live import Journal, LiveJournal
from ._run.local import LocalHost, Tenure
from ._run.logs import keys, log_facts, logger
from ._run.outcomes import said
from ._view import View
from .errors import (
    ConcurrencyError,
    LeaseLostError,
    PayloadTooLargeError,
    PersistenceError,
    ResultNotSerializableError,
    WorkflowConfigurationError,
    WorkflowDefinitionError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
)
from .persistence._protocol import has_leases, is_persistence
from .result import WorkflowResult
from .status import WorkflowStatus

if TYPE_CHECKING:
    from .base import Workflow

_W = TypeVar("_W", bound="Workflow")
Ask: TypeAlias = Callable[[RunState, int], list[Event]]
SETTINGS = Settings._fields
_without_leases: "WeakSet[type]" = WeakSet()
"""The classes of stores that were warned of."""


class Verbs:
    """The verbs of one workflow object; made for each call, see `View`.

    As a context, it marks the object as driving, so that a second driving verb is refused instead of waiting for ever.
    """

    def __init__(self, workflow: "Workflow") -> None:
        self._workflow = workflow
        self._view: View = workflow._workflow_view

    def __enter__(self) -> None:
        if self._view.busy:
            raise self._already_running("this very object drives it at the moment")
        self._view.busy = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._view.busy = False

    # Verbs that drive.

    async def execute(self) -> list[WorkflowResult]:
        """See `Workflow.execute`."""
        ask: Ask = _nothing
        with self:
            if not self._view.known:
                draft = self._view.draft(self._workflow)
                if draft is None or not await self._is_stored():
                    if draft is not None and draft.status is WorkflowStatus.RUNNING:
                        raise self._already_running("its status says so")
                    if draft is not None and draft.status is not WorkflowStatus.PENDING:
                        return self._answer()
                    problem = await self._validate()
                    if problem is None:
                        try:
                            return await self._start(draft)
                        except ConcurrencyError:
                            if self._view.known or self._view.persistence is None:
                                raise
                            ask = self._start_after_all
                    elif not await self._is_stored():
                        return await self._show_invalid(problem)
            return await self._go_on(ask)

    def _start_after_all(self, state: RunState, now: int) -> list[Event]:
        """Return the plan, where the run that refused it was deleted since; nothing where it is there."""
        return [] if state.plan is not None else [self._plan(None)]

    async def go_on(self, ask: Ask, *, decides: bool = False) -> list[WorkflowResult]:
        """Record what `ask` answers, and drive on.

        Args:
            ask: The command; no events and a run that is not due mean that there is nothing to do.
            decides: Whether a run that somebody else drives by now is an answer rather than an error.
        """
        with self:
            return await self._go_on(ask, decides=decides)

    async def carry_on(self) -> bool:
        """Drive the run on if it is due; False: it is not, or somebody drives it."""
        with self:
            journal, state, _ = await self._read()
            self._check_class(state.plan, driving=True)
            if state.status is not WorkflowStatus.RUNNING:
                return False
            in_place, held = await self._lease_in_place(state)
            if held is not None:
                return False
            try:
                await self._drive(journal, state, [], replaces=in_place)
            except ConcurrencyError:
                return False
            return True

    async def _go_on(self, ask: Ask, *, decides: bool = False) -> list[WorkflowResult]:
        while True:
            journal, state, draft = await self._read()
            self._check_class(state.plan, driving=True)
            if state.plan is not None and not draft:
                self._publish(state)
            events = ask(state, self._now())
            if not events and state.status is not WorkflowStatus.RUNNING:
                return self._answer()
            in_place, held = await self._lease_in_place(state)
            if held is not None:
                if decides and not events:
                    return self._answer()
                raise self._already_running(held)
            before = RunState(state.workflow_id) if draft else state
            try:
                pending = [*draft, *self._sealed(journal, events)]
                return await self._drive(journal, before, pending, replaces=in_place)
            except ConcurrencyError:
                continue

    async def _start(self, draft: Draft | None) -> list[WorkflowResult]:
        journal = self._journal()
        plan = self._sealed(journal, [self._plan(draft)])
        return await self._drive(journal, RunState(self._workflow.workflow_id), plan)

    async def _drive(
        self, journal: Journal, state: RunState, pending: list[Event], *, replaces: str | None = None
    ) -> list[WorkflowResult]:
        tenure = None
        if self._view.persistence is not None:
            leases = self._view.persistence if has_leases(self._view.persistence) else None
            tenure = Tenure(os.urandom(16).hex(), replaces, leases)
            pending = [*pending, Claimed(self._now(), tenure.owner, tenure.token)]
            lease.take(tenure.token)
        self._view.host = host = LocalHost(
            self._workflow, journal, partial(self._view.publish, vars(self._workflow)), tenure
        )
        try:
            await drive(host, state, pending)
            await host.rest()
        except GeneratorExit:
            raise  # it may not await
        except (LeaseLostError, PersistenceError):
            await host.rest()
            raise
        except BaseException:
            await host.release()
            raise
        finally:
            self._view.host = None
            host.close()
            if tenure is not None:
                lease.drop(tenure.token)
        return self._answer()

    # Verbs that only record.

    async def record(self, ask: Ask) -> list[WorkflowResult]:
        """Append what `ask` answers, and run nothing."""
        while True:
            journal, state, draft = await self._read()
            if state.plan is not None and not draft and not self._view.busy:
                self._publish(state)
            events = self._sealed(journal, ask(state, self._now()))
            if events:
                fold(state, events)
                try:
                    await journal.append(state, [*draft, *events])
                except ConcurrencyError:
                    continue
                log_facts(state, [*draft, *events])
            if events and not self._view.busy:
                self._publish(state)
            return self._answer()

    def decision(self, command: Callable[[RunState, int, int], list[Event]]) -> Ask:
        """Hold a command to the gate that the caller has seen, or else to the first one found."""
        gate = self._view.gate

        def ask(state: RunState, now: int) -> list[Event]:
            nonlocal gate
            gate = gate or state.gate
            return command(state, now, gate)

        return ask

    async def pause(self, reason: str | None, actor: str | None) -> list[WorkflowResult]:
        """See `Workflow.pause`."""
        return await self.record(
            lambda state, now: commands.pause(state, now, reason, actor, driven=self._view.host is not None)
        )

    async def cancel(self, reason: str | None, actor: str | None) -> list[WorkflowResult]:
        """See `Workflow.cancel`."""
        await self.record(lambda state, now: commands.cancel(state, now, reason, actor))
        if self._view.host is not None:
            self._view.host.interrupt()
        elif (
            not self._view.busy
            and self._workflow.status is WorkflowStatus.RUNNING
            and self.is_own_type(self._view.workflow_type)
        ):
            await self.go_on(_nothing, decides=True)
        return self._answer()

    async def attach(self) -> None:
        """Make the object one of a stored run.

        Raises:
            WorkflowNotFoundError: The store does not know the id.
            WorkflowDefinitionError: The run is of another type.
        """
        state = await self._journal().load()
        if state.plan is None:
            raise self._not_found()
        self._check_class(state.plan, driving=False)
        self._publish(state)

    # What they share.

    def _publish(self, state: RunState) -> None:
        self._view.publish(vars(self._workflow), state)

    async def _read(self) -> tuple[Journal, RunState, list[Event]]:
        """Return the journal, its state, and the plan that is still to be written where a draft makes the state."""
        journal = self._journal()
        state = await journal.load()
        if state.plan is not None:
            if not self._view.known:
                self._compare(state.plan)
            return journal, state, []
        if self._view.known and self._view.persistence is not None:
            raise self._not_found()
        draft = self._view.draft(self._workflow)
        if draft is None:
            return journal, state, []
        plan = self._sealed(journal, [self._plan(draft)])
        return journal, replay(self._workflow.workflow_id, plan), plan

    def _journal(self) -> Journal:
        workflow_id = self._workflow.workflow_id
        if self._view.persistence is not None:
            check_name("A workflow id", workflow_id)
            from ._run.journal import StoredJournal  # here: its codec and digests cost 2 ms

            return StoredJournal(self._view.persistence, workflow_id, self._workflow.runtime.codec)
        if self._view.live is None:
            self._view.live = LiveJournal(workflow_id)
        return self._view.live

    async def _is_stored(self) -> bool:
        if self._view.persistence is None or not self._workflow.workflow_id:
            return False
        return (await self._journal().load()).plan is not None

    def _plan(self, draft: Draft | None) -> WorkflowStarted:
        w = self._workflow
        settings = Settings(*(getattr(w, name) for name in SETTINGS))
        steps = plain_steps(w.steps, w.workflow_id)
        plan = WorkflowStarted(
            self._now(), os.urandom(16).hex(), type_name(type(w)), steps, settings, w.metadata, draft
        )
        check_plan(plan, w.workflow_id)
        return plan

    def _sealed(self, journal: Journal, events: list[Event]) -> list[Event]:
        try:
            return [journal.seal(e) if isinstance(e, WorkflowStarted | Approved) else e for e in events]
        except (ResultNotSerializableError, PayloadTooLargeError, WorkflowConfigurationError) as error:
            error.workflow_id = self._workflow.workflow_id
            raise

    async def _validate(self) -> WorkflowResult | None:
        """Return the result of a validation that failed, or None."""
        w = self._workflow
        try:
            result: object = await w.validate()
        except Exception as error:
            logger.error(
                "validate() of workflow %r raised.",
                w.workflow_id,
                exc_info=error,
                extra=keys(w.workflow_id, type_name(type(w)), "validation_raised"),
            )
            message = f"validate() raised {said(error)}"
            return WorkflowResult(False, "validation", error="validation_error", message=message)
        if not isinstance(result, WorkflowResult):
            message = f"validate() returned {type(result).__name__}, not a WorkflowResult."
            return WorkflowResult(False, "validation", error="invalid_result", message=message)
        return plan_problem(w) if result.success else result

    async def _show_invalid(self, problem: WorkflowResult) -> list[WorkflowResult]:
        self._view.forget()
        vars(self._workflow).update(status=WorkflowStatus.FAILED, results=[problem])
        callback = self._workflow.on_workflow_failed
        if callback is not None:
            event = WorkflowFailed(self._now())
            await callbacks.call(callback, event, RunState(self._workflow.workflow_id, results=[problem]))
        return self._answer()

    def _answer(self) -> list[WorkflowResult]:
        return list(self._workflow.results)

    async def _lease_in_place(self, state: RunState) -> tuple[str | None, str | None]:
        """Return the token that a claim has to replace, and who drives, for a message; None: nobody alive.

        The token is the store's, not the journal's: one that was damaged, or removed by hand, locks nobody out.
        """
        if state.token is None or not has_leases(self._view.persistence):
            return state.token, None
        held = await self._view.persistence.lease(state.workflow_id)
        if held is None or lease.is_free(held, self._now()):
            return held and held.token, None
        until = commands.show_time(held.expires_at)
        return held.token, f"{lease.describe(held.owner)} holds its lease until {until}"

    def _not_found(self) -> WorkflowNotFoundError:
        workflow_id = self._workflow.workflow_id
        return WorkflowNotFoundError(
            f"There is no workflow {workflow_id!r} in this store. Check the id and the store.", workflow_id=workflow_id
        )

    def _already_running(self, why: str) -> WorkflowExecutionError:
        workflow_id = self._workflow.workflow_id
        return WorkflowExecutionError(
            f"Workflow {workflow_id!r} is already running: {why}. Wait for it, or call resume() after that.",
            workflow_id=workflow_id,
        )

    def is_own_type(self, workflow_type: str) -> bool:
        """Tell whether the object's class has the step code of a type."""
        return workflow_type in map(type_name, type(self._workflow).__mro__)

    def _check_class(self, plan: WorkflowStarted | None, *, driving: bool) -> None:
        """Refuse a class whose code is not that of the run; the base class may look on and decide, but not drive."""
        workflow_class = type(self._workflow)
        if plan is None or self.is_own_type(plan.workflow_type):
            return
        if not driving and workflow_class.__mro__[1] is object:
            return
        raise WorkflowDefinitionError(
            f"Workflow {self._workflow.workflow_id!r} was started as a {plan.workflow_type}; "
            f"a {type_name(workflow_class)} has other steps. Load it with the class {plan.workflow_type}.",
            workflow_id=self._workflow.workflow_id,
        )

    def _compare(self, plan: WorkflowStarted) -> None:
        """Hold a fresh object against the stored run that it turned out to be."""
        w = self._workflow
        self._check_class(plan, driving=False)
        if w.steps and plain_steps(w.steps, w.workflow_id) != plan.steps:
            raise WorkflowDefinitionError(
                f"Workflow {w.workflow_id!r} was started with the steps {list(plan.steps)}, not {list(w.steps)}. "
                "Use another id for a new run, or load() this one, which keeps its own steps.",
                workflow_id=w.workflow_id,
            )
        other = [name for name in SETTINGS if getattr(w, name) != getattr(plan.settings, name)]
        if w.metadata and w.metadata != plan.metadata:
            other.append("metadata")
        if other:
            logger.warning(
                "Workflow %r was started with other values of %s; those it was started with are used.",
                w.workflow_id,
                ", ".join(other),
                extra=keys(w.workflow_id, plan.workflow_type, "plan_differs"),
            )

    def _now(self) -> int:
        return self._workflow.runtime.clock.time_ns() // 1000


def _nothing(state: RunState, now: int) -> list[Event]:
    """Ask for nothing but to go on."""
    return []


def type_name(workflow_class: type) -> str:
    """Return what a store calls a class: its own ``workflow_type``, else its name."""
    own = vars(workflow_class).get("workflow_type")
    return own if isinstance(own, str) and own else workflow_class.__name__


def check_persistence(persistence: object, workflow_id: str) -> None:
    """Refuse what cannot be a store, and warn, once a class, of one that cannot tell who drives.

    Raises:
        WorkflowConfigurationError: It lacks a method.
    """
    if persistence is None:
        return
    kind = type(persistence)
    if not is_persistence(persistence):
        raise WorkflowConfigurationError(
            f"persistence must have the methods append, read and delete; {kind.__name__} does not have all three. "
            "See dotmac_workflows.persistence.Persistence.",
            workflow_id=workflow_id,
        )
    if not has_leases(persistence) and kind not in _without_leases:
        _without_leases.add(kind)
        logger.warning(
            "%s does not have lease and renew (Leases): nobody can tell who drives a run, so execute() and resume() "
            "take over whoever is running. That is safe, but the step in flight runs twice. See "
            "dotmac_workflows.persistence.Leases.",
            kind.__name__,
            extra=keys(workflow_id, None, "no_leases"),
        )


def call_constructor(cls: type[_W], **init: Any) -> _W:
    """Call a workflow's constructor with what the library has to hand it.

    Raises:
        WorkflowConfigurationError: It cannot be called so.
    """
    try:
        inspect.signature(cls).bind(**init)
    except TypeError as error:
        raise WorkflowConfigurationError(
            f"{cls.__name__} cannot be made with {', '.join(init)}: {error}. Let its __init__ take these "
            "(**kwargs will do) and hand them to super().__init__(), and give what else it needs to load() as "
            "keywords; recover() takes a function of (workflow_id, persistence) instead of the class.",
            workflow_id=init.get("workflow_id"),
        ) from error
    return cls(**init)


def plan_problem(workflow: "Workflow") -> WorkflowResult | None:
    """Return what every workflow must have and this one lacks, or None."""
    if not workflow.steps:
        return WorkflowResult(False, "validation", error="empty_steps", message="Workflow has no steps to execute")
    if not workflow.workflow_id:
        return WorkflowResult(False, "validation", error="missing_id", message="Workflow must have an ID")
    return None
