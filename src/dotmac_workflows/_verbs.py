"""What stands between a workflow object and its journal: the verbs.

Every verb works alike: read the journal, ask a command what the wish comes to, append that at the version read, and
ask again when somebody else appended first. A verb that drives hands the facts to the loop instead, whose first
commit they become, together with the claim of the lease and the first decision. The one exception is the first append
of a fresh object, which reads nothing and is refused where its id is known.

What a caller sees on the object is published from here, after each commit; see `publish`.
"""

import inspect
import logging
import uuid
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

from ._core import commands
from ._core.events import Approved, Claimed, Draft, Event, Settings, WorkflowFailed, WorkflowStarted
from ._core.state import RunState, fold, replay
from ._run import callbacks, lease
from ._run.drive import drive
from ._run.journal import Journal, LiveJournal, StoredJournal
from ._run.local import LocalHost, Tenure
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
from .persistence import Leases, Persistence
from .result import WorkflowResult
from .status import WorkflowStatus
from .types import RollbackStatus

if TYPE_CHECKING:
    from .base import Workflow

logger = logging.getLogger("dotmac_workflows")

_W = TypeVar("_W", bound="Workflow")
Ask: TypeAlias = Callable[[RunState, int], list[Event]]
SETTINGS = Settings._fields
RUN_STATE = frozenset(
    {"status", "current_step_index", "results", "pending_approval_step", "approval_data", "steps", "workflow_id"}
).union(SETTINGS)


class Control:
    """The private side of one workflow object."""

    def __init__(self, workflow: "Workflow", persistence: Persistence | None) -> None:
        if persistence is not None and not isinstance(persistence, Persistence):
            raise WorkflowConfigurationError(
                f"persistence must have the methods append, read and delete; {type(persistence).__name__} does not. "
                "See dotmac_workflows.persistence.Persistence.",
                workflow_id=workflow.workflow_id,
            )
        self._workflow = workflow
        self._view = vars(workflow)
        self.persistence = persistence
        self._live: LiveJournal | None = None
        self._known = False
        """Whether the run was started, as far as this object knows: its journal wins over what was set by hand."""
        self._invalid = False
        """Whether what is shown is a failed validation."""
        self._busy = False
        self._shown: list[WorkflowResult] | None = None
        self._gate = 0
        self._type = ""
        self.host: LocalHost | None = None
        self.rollback_status: RollbackStatus = "none"
        self.started_at: int | None = None
        self.ended_at: int | None = None

    # What the object shows.

    def publish(self, state: RunState) -> None:
        """Show a committed state on the object."""
        view = self._view
        if self._shown is not state.results:
            self._publish_anew(state)
        shown: list[WorkflowResult] = view["results"]
        if len(shown) < len(state.results):
            shown += state.results[len(shown) :]
        view["status"] = state.status
        view["current_step_index"] = state.index
        if state.gate != self._gate:
            view["pending_approval_step"] = state.pending_step
            view["approval_data"] = state.approval_data
            self._gate = state.gate
        self.rollback_status = state.rollback_status
        self.ended_at = state.ended_at

    def _publish_anew(self, state: RunState) -> None:
        """Show everything of a state that this object has not shown a part of."""
        view, plan = self._view, state.plan
        self._shown = state.results
        view["results"] = []
        view["pending_approval_step"] = state.pending_step
        view["approval_data"] = state.approval_data
        self._gate = state.gate
        if plan is not None:
            self._known, self._invalid = True, False
            view["steps"] = _ReadOnlyList(plan.steps)
            if self.persistence is not None:
                view["metadata"] = _read_only(plan.metadata)
            view.update(plan.settings._asdict())
            self.started_at = plan.at
            self._type = plan.workflow_type

    def before_assignment(self, name: str) -> None:
        """Refuse to have the state of a run set by hand, once there is one.

        Raises:
            WorkflowExecutionError: The run is driven by this object, or stored.
        """
        if not self._known and not self._busy:
            self._invalid = self._invalid and name != "status"
            return
        if not self._busy and self.persistence is None:
            # A run in memory is the object's own: what is shown, and now changed, is what it goes on from.
            self._live, self._known, self._shown, self._gate = None, False, None, 0
            self._view["steps"] = list(self._view["steps"])
            return
        why = "it runs" if self._busy else "its run is stored, and the journal says what is so"
        raise WorkflowExecutionError(
            f"{name} of workflow {self._workflow.workflow_id!r} cannot be set: {why}. Set it before execute().",
            workflow_id=self._workflow.workflow_id,
        )

    def _draft(self) -> Draft | None:
        """Return what was set by hand before the run, if anything was."""
        w = self._workflow
        if self._invalid:
            return None
        if w.status is WorkflowStatus.PENDING and not (
            w.current_step_index or w.results or w.pending_approval_step or w.approval_data
        ):
            return None
        return Draft(
            w.status,
            w.current_step_index,
            tuple(w.results),
            w.pending_approval_step,
            w.approval_data,
            self.rollback_status,
        )

    def show_draft(self, data: dict[str, Any]) -> None:
        """Show of a draft what has no attribute of its own."""
        self.rollback_status = data.get("rollback_status", "none")
        start, end = data.get("start_time"), data.get("end_time")
        self.started_at = None if start is None else round(start * 1_000_000)
        self.ended_at = None if end is None else round(end * 1_000_000)

    # Verbs that drive.

    async def execute(self) -> list[WorkflowResult]:
        """See `Workflow.execute`."""
        with _Busy(self):
            if not self._known:
                draft = self._draft()
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
                            if self._known or self.persistence is None:
                                raise
                    elif not await self._is_stored():
                        return await self._show_invalid(problem)
            return await self._go_on(lambda state, now: [])

    async def go_on(self, ask: Ask, *, decides: bool = False) -> list[WorkflowResult]:
        """Record what `ask` answers, and drive on.

        Args:
            ask: The command; no events and a run that is not due mean that there is nothing to do.
            decides: Whether a run that somebody else drives by now is an answer rather than an error.
        """
        with _Busy(self):
            return await self._go_on(ask, decides=decides)

    async def carry_on(self) -> bool:
        """Drive the run on if it is due; False: it is not, or somebody drives it."""
        with _Busy(self):
            journal, state, _ = await self._read()
            self._check_class(state.plan, driving=True)
            if state.status is not WorkflowStatus.RUNNING or await self._held_by_another(state) is not None:
                return False
            try:
                await self._drive(journal, state, [])
            except ConcurrencyError:
                return False
            return True

    async def _go_on(self, ask: Ask, *, decides: bool = False) -> list[WorkflowResult]:
        while True:
            journal, state, draft = await self._read()
            self._check_class(state.plan, driving=True)
            events = ask(state, self._now())
            if not events and state.status is not WorkflowStatus.RUNNING:
                if not draft:
                    self.publish(state)
                return self._answer()
            held = await self._held_by_another(state)
            if held is not None:
                if decides and not events:
                    self.publish(state)
                    return self._answer()
                raise self._already_running(held)
            before = RunState(state.workflow_id) if draft else state
            try:
                return await self._drive(journal, before, [*draft, *self._sealed(journal, events)])
            except ConcurrencyError:
                continue

    async def _start(self, draft: Draft | None) -> list[WorkflowResult]:
        journal = self._journal()
        plan = self._sealed(journal, [self._plan(draft)])
        return await self._drive(journal, RunState(self._workflow.workflow_id), plan)

    async def _drive(self, journal: Journal, state: RunState, pending: list[Event]) -> list[WorkflowResult]:
        tenure = None
        if self.persistence is not None:
            leases = self.persistence if isinstance(self.persistence, Leases) else None
            tenure = Tenure(uuid.uuid4().hex, state.token, leases)
            pending = [*pending, Claimed(self._now(), tenure.owner, tenure.token)]
            lease.take(tenure.token)
        self.host = host = LocalHost(self._workflow, journal, self.publish, tenure)
        try:
            await drive(host, state, pending)
        except (GeneratorExit, LeaseLostError, PersistenceError):
            raise
        except BaseException:
            await host.release()
            raise
        finally:
            self.host = None
            host.close()
            if tenure is not None:
                lease.drop(tenure.token)
        return self._answer()

    # Verbs that only record.

    async def record(self, ask: Ask) -> list[WorkflowResult]:
        """Append what `ask` answers, and run nothing."""
        while True:
            journal, state, draft = await self._read()
            events = self._sealed(journal, ask(state, self._now()))
            if events:
                fold(state, events)
                try:
                    await journal.append(state, [*draft, *events])
                except ConcurrencyError:
                    continue
            if not self._busy and (events or not draft):
                self.publish(state)
            return self._answer()

    def decision(self, command: Callable[[RunState, int, int], list[Event]]) -> Ask:
        """Hold a command to the gate that the caller has seen, or else to the first one found."""
        gate = self._gate

        def ask(state: RunState, now: int) -> list[Event]:
            nonlocal gate
            gate = gate or state.gate
            return command(state, now, gate)

        return ask

    async def cancel(self, reason: str | None, actor: str | None) -> list[WorkflowResult]:
        """See `Workflow.cancel`."""
        await self.record(lambda state, now: commands.cancel(state, now, reason, actor))
        if self.host is not None:
            self.host.interrupt()
        elif not self._busy and self._workflow.status is WorkflowStatus.RUNNING and self.is_own_type(self._type):
            await self.go_on(lambda state, now: [], decides=True)
        return self._answer()

    async def attach(self) -> None:
        """Make the object one of a stored run.

        Raises:
            WorkflowNotFoundError: The store does not know the id.
            WorkflowDefinitionError: The run is of another type.
        """
        state = await self._journal().load()
        if state.plan is None:
            raise WorkflowNotFoundError(
                f"There is no workflow {self._workflow.workflow_id!r} in this store. Check the id and the store.",
                workflow_id=self._workflow.workflow_id,
            )
        self._check_class(state.plan, driving=False)
        self.publish(state)

    # What they share.

    async def _read(self) -> tuple[Journal, RunState, list[Event]]:
        """Return the journal, its state, and the plan that is still to be written where a draft makes the state."""
        journal = self._journal()
        state = await journal.load()
        if state.plan is not None:
            if not self._known:
                self._compare(state.plan)
            return journal, state, []
        draft = self._draft()
        if draft is None:
            return journal, state, []
        plan = self._sealed(journal, [self._plan(draft)])
        return journal, replay(self._workflow.workflow_id, plan), plan

    def _journal(self) -> Journal:
        workflow_id = self._workflow.workflow_id
        if self.persistence is not None:
            commands.check_name("A workflow id", workflow_id)
            return StoredJournal(self.persistence, workflow_id, self._workflow.runtime.codec)
        if self._live is None:
            self._live = LiveJournal(workflow_id)
        return self._live

    async def _is_stored(self) -> bool:
        if self.persistence is None or not self._workflow.workflow_id:
            return False
        return (await self._journal().load()).plan is not None

    def _plan(self, draft: Draft | None) -> WorkflowStarted:
        w = self._workflow
        settings = Settings(*(getattr(w, name) for name in SETTINGS))
        plan = WorkflowStarted(
            self._now(), uuid.uuid4().hex, type_name(type(w)), tuple(w.steps), settings, w.metadata, draft
        )
        commands.check_plan(plan, w.workflow_id)
        return plan

    def _sealed(self, journal: Journal, events: list[Event]) -> list[Event]:
        try:
            return [journal.seal(e) if isinstance(e, WorkflowStarted | Approved) else e for e in events]
        except (ResultNotSerializableError, PayloadTooLargeError) as error:
            error.workflow_id = self._workflow.workflow_id
            raise

    async def _validate(self) -> WorkflowResult | None:
        """Return the result of a validation that failed, or None."""
        w = self._workflow
        try:
            result: object = await w.validate()
        except Exception as error:
            logger.error("validate() of workflow %r raised.", w.workflow_id, exc_info=error)
            message = f"validate() raised {type(error).__name__}: {error}"
            return WorkflowResult(False, "validation", error="validation_error", message=message)
        if not isinstance(result, WorkflowResult):
            message = f"validate() returned {type(result).__name__}, not a WorkflowResult."
            return WorkflowResult(False, "validation", error="invalid_result", message=message)
        return plan_problem(w) if result.success else result

    async def _show_invalid(self, problem: WorkflowResult) -> list[WorkflowResult]:
        self._invalid, self._shown = True, None
        self._view.update(status=WorkflowStatus.FAILED, results=[problem])
        callback = self._workflow.on_workflow_failed
        if callback is not None:
            event = WorkflowFailed(self._now())
            await callbacks.call(callback, event, [problem], self._workflow.workflow_id, "on_workflow_failed")
        return self._answer()

    def _answer(self) -> list[WorkflowResult]:
        return list(self._workflow.results)

    async def _held_by_another(self, state: RunState) -> str | None:
        """Tell who drives a run, for a message; None: nobody, or nobody alive."""
        if state.token is None or not isinstance(self.persistence, Leases):
            return None
        held = await self.persistence.lease(state.workflow_id)
        if held is None or lease.is_free(held, self._now()):
            return None
        return f"{lease.describe(held.owner)} holds its lease until {commands.show_time(held.expires_at)}"

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
            f"Workflow {self._workflow.workflow_id!r} was started as a {plan.workflow_type}; a {type_name(workflow_class)} "
            f"has other steps. Load it with the class {plan.workflow_type}.",
            workflow_id=self._workflow.workflow_id,
        )

    def _compare(self, plan: WorkflowStarted) -> None:
        """Hold a fresh object against the stored run that it turned out to be."""
        w = self._workflow
        self._check_class(plan, driving=False)
        if w.steps and tuple(w.steps) != plan.steps:
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
                extra={"workflow_id": w.workflow_id, "workflow_type": plan.workflow_type},
            )

    def _now(self) -> int:
        return self._workflow.runtime.clock.now_us()


def type_name(workflow_class: type) -> str:
    """Return what a store calls a class: its own ``workflow_type``, else its name."""
    own = vars(workflow_class).get("workflow_type")
    return own if isinstance(own, str) and own else workflow_class.__name__


def call_constructor(cls: type[_W], **init: Any) -> _W:
    """Call a workflow's constructor with what the library has to hand it.

    Raises:
        WorkflowConfigurationError: It cannot be called so.
    """
    try:
        inspect.signature(cls).bind(**init)
    except TypeError as error:
        raise WorkflowConfigurationError(
            f"{cls.__name__} cannot be made with {', '.join(init)}: {error}. Let its __init__ take these (**kwargs will "
            "do) and hand them to super().__init__(), and give what else it needs to load() as keywords; recover() "
            "takes a function of (workflow_id, persistence) instead of the class.",
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


class _Busy:
    """Marks an object as driving, so that a second driving verb is refused instead of waiting for ever."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def __enter__(self) -> None:
        if self._control._busy:
            raise self._control._already_running("this very object drives it at the moment")
        self._control._busy = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._control._busy = False


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise WorkflowExecutionError(
        "The steps and metadata of a workflow that was started cannot be changed: they are pinned for the run. "
        "Return what a step finds out in the data of its result."
    )


class _ReadOnlyList(list[Any]):
    """A list that refuses to be changed."""

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse  # type: ignore[assignment]  # refused
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse  # type: ignore[assignment]  # refused

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class _ReadOnlyDict(dict[str, Any]):
    """A dictionary that refuses to be changed."""

    update = pop = popitem = clear = setdefault = _refuse  # type: ignore[assignment]  # refused
    __setitem__ = __delitem__ = __ior__ = _refuse  # type: ignore[assignment]  # refused

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _read_only(value: Any) -> Any:
    """Return JSON-like data that refuses to be changed, at any depth."""
    if type(value) is dict:
        return _ReadOnlyDict({key: _read_only(item) for key, item in value.items()})
    if type(value) is list:
        return _ReadOnlyList(map(_read_only, value))
    return value
