"""What people do with a run that is proved: the verbs that they call, and how the schedule has them depart."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from .._core.events import ApprovalRequested, Approved, CancelRequested, Event, Rejected, RollbackRetried
from ..base import Workflow
from ..errors import AlreadyDecidedError
from ..status import WorkflowStatus
from ._process import APPROVER, OTHER, Broken
from ._schedule import GATES, Departure, DepartureKind

if TYPE_CHECKING:
    from ._stage import Stage

W = TypeVar("W")
Verb: TypeAlias = tuple[str, Callable[[Workflow], Awaitable[object]]]
_RACES: tuple[DepartureKind, ...] = ("reject-first", "approve-first")


class People(Generic[W]):
    """Those who start, decide, pause, cancel and resume the run on a stage."""

    def __init__(self, stage: "Stage[W]") -> None:
        self.happened: set[Departure] = set()
        """The departures that came to pass."""
        self._stage = stage
        self._loser_told = False

    def next_verb(self, processes: int) -> Verb | None:
        """Return what somebody does next; None: nobody does anything more."""
        state = self._stage.state
        match state.status:
            case WorkflowStatus.PENDING | WorkflowStatus.RUNNING:
                # Whoever comes next may call either; each second process does the other.
                if state.plan is not None and processes % 2:
                    return "resume()", Workflow.resume
                return "execute()", Workflow.execute
            case WorkflowStatus.PAUSED:
                return "resume()", Workflow.resume
            case WorkflowStatus.WAITING_APPROVAL:
                return self._decision()
        retried = any(isinstance(event, RollbackRetried) for event in self._stage.events)
        failed = self.departure(("undo-fails",)) or any(fault.kind == "disconnect" for fault in self._stage.struck)
        if state.rollback_status == "incomplete" and failed and not retried:
            return "retry_rollback()", Workflow.retry_rollback
        return None

    def _decision(self) -> Verb:
        departure = self._gate()
        approval = self._stage.scenario.approval
        match departure.kind if departure else None:
            case "reject" | "approve-first":
                return "reject_and_cancel()", lambda workflow: workflow.reject_and_cancel(actor=APPROVER)
            case "cancel-at":
                return "cancel()", lambda workflow: workflow.cancel(actor=APPROVER)
            case "approve-only":
                return "approve()", lambda workflow: workflow.approve(approval, actor=APPROVER)
            case "approve-twice":
                return "approve_and_continue(), twice", self._approve_twice
            case _:
                return (
                    "approve_and_continue()",
                    lambda workflow: workflow.approve_and_continue(approval, actor=APPROVER),
                )

    async def _approve_twice(self, workflow: Workflow) -> None:
        approval = self._stage.scenario.approval
        await workflow.approve_and_continue(approval, actor=APPROVER)
        await workflow.approve(approval, actor=APPROVER)
        try:
            await self._stage.make(self._stage.new_process()).approve(approval, actor=OTHER)
        except AlreadyDecidedError:
            return
        raise Broken(f"{OTHER} approved a gate that {APPROVER} had approved, and was not told so")

    async def decide(self, events: list[Event]) -> None:
        """A decision is about to be recorded: where the schedule says so, somebody else is faster."""
        departure = self._gate()
        if departure is None or not any(isinstance(e, Approved | Rejected | CancelRequested) for e in events):
            return
        if departure not in self.happened:
            self.happened.add(departure)
            if departure.kind in _RACES:
                await self._be_faster(departure)

    async def _be_faster(self, race: Departure) -> None:
        stage = self._stage
        rival = stage.new_process()
        workflow = stage.make(rival)
        if race.kind == "reject-first":
            stage.say(f"process {rival.number}: reject(), at the same time")
            await workflow.reject(actor=OTHER)
        else:
            stage.say(f"process {rival.number}: approve(), at the same time")
            await workflow.approve(stage.scenario.approval, actor=OTHER)

    def was_told_that_somebody_was_faster(self) -> bool:
        """Note that whoever decided was told so; tell whether there is a reason."""
        self._loser_told = self.departure(_RACES) in self.happened
        return self._loser_told

    def see_that_the_loser_was_told(self) -> None:
        """Judge the race, where there was one.

        Raises:
            Broken: Nobody was told that they had lost it.
        """
        if self.departure(_RACES) in self.happened and not self._loser_told:
            raise Broken("two decided one gate, and nobody was told that somebody else came first")

    async def interfere(self, departure: Departure) -> None:
        """Have somebody else pause or cancel the run at this moment."""
        stage = self._stage
        outside = stage.new_process()
        stage.say(f"process {outside.number}: {departure.kind}(), while {departure.step!r} runs")
        workflow = stage.make(outside)
        await (workflow.pause if departure.kind == "pause" else workflow.cancel)(actor=OTHER)

    def departure(self, kinds: Sequence[DepartureKind], step: str | None = None, visit: int = 1) -> Departure | None:
        """Return how the schedule departs, in one of these ways, at a step or anywhere."""
        for departure in self._stage.schedule.departures:
            if departure.kind in kinds and (step is None or (departure.step, departure.visit) == (step, visit)):
                return departure
        return None

    def _gate(self) -> Departure | None:
        """Return how the schedule departs at the gate that is open."""
        step = self._stage.state.pending_step
        if step is None:
            return None
        opened = sum(isinstance(e, ApprovalRequested) and e.step == step for e in self._stage.events)
        return self.departure(GATES, step, opened)
