"""Judges what a run did, from outside: its journal as it grew, the effects of its steps, and the crashes between.

The judge keeps a model of its own, written from the promises and not from the engine: it imports the events, which are
the format, and nothing that folds or decides. Each rule names the invariant of the design that it stands for. A
comparison with a run without crashes comes on top, and alone would let a wrong order of undoing pass.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from .._core import events as ev
from .._core.events import Event, RollbackStepStarted, Settings, StepStarted
from ..result import WorkflowResult

Phase: TypeAlias = Literal["forward", "rollback"]


class Violation(AssertionError):  # noqa: N818 - what it says is what it is
    """A promise was broken."""


class Effect(NamedTuple):
    """A line of the ledger: the user's code ran."""

    phase: Phase
    step: str
    position: int
    visit: int
    attempt: int
    key: str
    """The idempotency key that the step was given."""


class Judge:
    """Told everything in the order in which it happened; raises `Violation` at the first broken promise."""

    def __init__(self, steps: Sequence[str], settings: Settings) -> None:
        self.steps = steps
        self.settings = settings
        self.length = 0
        """How many events were committed."""
        self.ended: str | None = None
        self.rollback: Literal["none", "running", "done", "incomplete"] = "none"
        self._in_flight: StepStarted | RollbackStepStarted | None = None
        self._crashed = False  # since the step in flight was started, or started again
        self._acted = False  # likewise: whether its effect happened
        self._done: list[StepStarted] = []
        self._over: set[int] = set()
        self._next = 0
        self._gate: Literal["none", "needed", "open"] = "none"
        self._failed = self._rejected = self._cancelled = self._pausing = self._paused = False
        self._todo: list[StepStarted] = []
        self._not_undone: list[StepStarted] = []
        self._undone: set[tuple[int, int]] = set()
        self._visits: dict[tuple[Phase, str], int] = {}
        self._run_id = ""
        self._effects: set[tuple[Phase, int, int, int]] = set()

    # What happens.

    def committed(self, events: Sequence[Event], version: int) -> None:
        """Events became durable, by a writer that held them to lead to `version`."""
        for event in events:
            _RULES[type(event)](self, event)
            self.length += 1
        self._hold(self.length == version, "13 dense", self.length, "records, but the writer was at", version)

    def crashed(self) -> None:
        """The process that drove is gone."""
        self._crashed = True

    def acted(self, effect: Effect) -> None:
        """The code of a step had its effect."""
        started = self._in_flight
        seen = (effect.phase, effect.position, effect.visit)
        self._hold(started is not None, "1 never again", effect, "while no step is in flight")
        assert started is not None
        durable = (_phase(started), started.step, started.position, started.visit, started.attempt)
        self._hold(durable == effect[:5], "2 durable before", effect, "but the journal says", started)
        self._hold((*seen, effect.attempt) not in self._effects, "3 one attempt once", effect, "twice")
        self._effects.add((*seen, effect.attempt))
        key = f"{self._run_id}:{effect.phase[0]}:{effect.visit}:{effect.step}"
        self._hold(effect.key == key, "5 key", effect, "has not the key", key)
        self._acted = True

    def finished(self, status: str, rollback_status: str) -> None:
        """Nothing more will happen, and this is what the engine says of it."""
        self._hold(self.ended is not None, "20 ends", "the run did not end")
        self._hold(self.ended == status, "11 same end", status, "but the journal says", self.ended)
        self._hold(rollback_status == self.rollback, "7 visible", rollback_status, "but it is", self.rollback)

    def _hold(self, holds: bool, invariant: str, *facts: object) -> None:
        if not holds:
            said = " ".join(fact if isinstance(fact, str) else repr(fact) for fact in facts)
            raise Violation(f"invariant {invariant}, record {self.length + 1}: {said}")

    # The rules.

    def _started(self, event: ev.WorkflowStarted) -> None:
        self._hold(self.length == 0, "13 one start", "a second start")
        self._run_id = event.run_id

    def _alive(self, event: Event) -> None:
        self._hold(self.ended is None and not self._paused, "6 over", event, "after the end or in a pause")

    def _anything(self, event: Event) -> None:
        pass

    def _again(self, started: StepStarted | RollbackStepStarted) -> bool:
        """Tell whether it is the step in flight once more, and hold it to what that must be."""
        before = self._in_flight
        if before is not None:
            again = before._replace(at=started.at, attempt=before.attempt + 1)
            self._hold((type(before), again) == (type(started), started), "2 only in flight", started)
            self._hold(self._crashed, "2 one a crash", started, "again without a crash")
        else:
            name = (_phase(started), started.step)
            visit = self._visits.get(name, 0) + 1
            self._hold((started.visit, started.attempt) == (visit, 1), "5 new visit", started, "is visit", visit)
            self._visits[name] = visit
        self._in_flight, self._crashed, self._acted = started, False, False
        return before is not None

    def _step_started(self, event: StepStarted) -> None:
        self._alive(event)
        self._hold(self.rollback == "none", "6 never forward", event, "in a rollback")
        self._hold(self._gate == "none", "9 gate", event, "behind a gate that nobody opened")
        stopped = self._failed or self._rejected or self._cancelled
        self._hold(not stopped, "6 never forward", event, "after a failure, rejection or cancel")
        self._hold(event.position not in self._over, "1 never again", event, "is over")
        self._hold(event.position == self._next, "11 in order", event, "but step", self._next, "is next")
        self._hold(event.step == self.steps[event.position], "11 in order", event, "is not of the plan")
        self._again(event)

    def _ends(self, event: Event, phase: Phase, result: WorkflowResult, *, acted: bool = True) -> Any:
        started = self._in_flight
        self._hold(started is not None and _phase(started) == phase, "1 never again", event, "none was running")
        assert started is not None
        self._hold(self._acted or not acted, "10 nothing made up", event, "of a step that did not run")
        name = started.step if phase == "forward" else f"rollback_{started.step}"
        self._hold(result.step == name, "10 nothing made up", event, "is the result of", name)
        self._in_flight = None
        return started

    def _step_succeeded(self, event: ev.StepSucceeded) -> None:
        started = self._ends(event, "forward", event.result)
        self._done.append(started)
        self._over.add(started.position)
        if event.gated and self.settings.require_approval and not self._cancelled:
            self._gate = "needed"
        else:
            self._next += 1

    def _step_failed(self, event: ev.StepFailed) -> None:
        self._over.add(self._ends(event, "forward", event.result).position)
        if self.settings.continue_on_step_failure:
            self._next += 1
        else:
            self._failed = True

    def _step_interrupted(self, event: ev.StepInterrupted) -> None:
        self._hold(self._cancelled, "17 cancel", event, "and nobody cancelled")
        started = self._ends(event, "forward", event.result, acted=False)
        self._done.append(started)
        self._over.add(started.position)

    def _approval_requested(self, event: ev.ApprovalRequested) -> None:
        self._alive(event)
        self._hold(self._gate == "needed", "9 gate", event, "no step asked for it")
        self._hold(event.step == self.steps[self._next], "9 gate", event, "another step asked")
        self._gate = "open"

    def _approved(self, event: ev.Approved) -> None:
        self._hold(self._gate == "open", "8 one decision", event, "no gate waits")
        self._gate = "none"
        self._next += 1

    def _rejection(self, event: ev.Rejected) -> None:
        self._hold(self._gate == "open", "8 one decision", event, "no gate waits")
        self._gate = "none"
        self._rejected = True

    def _pause_requested(self, event: ev.PauseRequested) -> None:
        self._alive(event)
        self._hold(self.rollback == "none", "6 never forward", event, "in a rollback")
        self._pausing = True

    def _hold_on(self, event: ev.Paused) -> None:
        self._alive(event)
        self._hold(self._pausing, "pause", event, "and nobody asked")
        self._pausing, self._paused = False, True

    def _resumed(self, event: ev.Resumed) -> None:
        self._hold(self._paused, "pause", event, "of a run that was not paused")
        self._paused = False

    def _cancel_requested(self, event: ev.CancelRequested) -> None:
        self._hold(self.ended is None and not self._cancelled and not self._rejected, "8 one decision", event)
        self._hold(self.rollback == "none", "6 never forward", event, "in a rollback")
        self._cancelled, self._paused, self._pausing, self._gate = True, False, False, "none"

    def _wanted(self) -> bool:
        """Tell whether what was done is to be undone."""
        if self._cancelled or self._rejected:
            return self.settings.rollback_on_cancel
        return self._failed and self.settings.rollback_on_failure

    def _rollback_started(self, event: ev.RollbackStarted) -> None:
        self._alive(event)
        self._hold(self.rollback == "none" and self._in_flight is None, "6 once", event)
        self._hold(self._wanted() and bool(self._done), "6 wanted", event, "and nobody wants it")
        self.rollback = "running"
        self._todo, self._done = self._done, []

    def _rollback_step_started(self, event: RollbackStepStarted) -> None:
        self._alive(event)
        self._hold(self.rollback == "running", "6 exactly", event, "outside a rollback")
        halted = bool(self._not_undone) and self.settings.on_rollback_failure == "halt"
        self._hold(not halted, "7 halt", event, "after a failure that halts")
        if not self._again(event):
            target = self._todo[-1] if self._todo else None
            right = target is not None and (event.step, event.position) == (target.step, target.position)
            self._hold(right, "6 exactly, in reverse", event, "but", target, "is next")

    def _rollback_step_succeeded(self, event: ev.RollbackStepSucceeded | ev.RollbackStepSkipped) -> None:
        self._ends(event, "rollback", event.result)
        target = self._todo.pop()
        once = (target.position, target.visit)
        self._hold(once not in self._undone, "6 at most once", event, "of", target)
        self._undone.add(once)

    def _rollback_step_failed(self, event: ev.RollbackStepFailed) -> None:
        self._ends(event, "rollback", event.result)
        self._not_undone.append(self._todo.pop())

    def _rollback_finished(self, event: ev.RollbackFinished) -> None:
        waived = self.rollback == "incomplete"
        self._hold(self.rollback == "running" or waived, "6 exactly", event, "outside a rollback")
        clean = not self._todo and not self._not_undone
        self._hold(event.complete == clean, "7 visible", event, "but", self._todo, "and", self._not_undone, "are left")
        halted = bool(self._not_undone) and self.settings.on_rollback_failure == "halt"
        self._hold(halted or not self._todo, "6 exactly", event, "but", self._todo, "was not tried")
        self.rollback = "done" if event.complete else "incomplete"

    def _rollback_retried(self, event: ev.RollbackRetried) -> None:
        self._hold(self.ended is not None and self.rollback == "incomplete", "7 resumable", event)
        self._todo = sorted([*self._todo, *self._not_undone], key=lambda started: started.position)
        self._not_undone = []
        self.rollback, self.ended = "running", None

    def _rollback_waived(self, event: ev.RollbackWaived) -> None:
        self._hold(self.rollback == "incomplete", "7 resumable", event)
        waived = [started for started in self._not_undone if started.step == event.step]
        self._hold(bool(waived), "7 resumable", event, "but only", self._not_undone, "failed")
        self._not_undone.remove(waived[0])

    def _end(self, status: str, event: Event) -> None:
        self._alive(event)
        self._hold(self._in_flight is None, "20 ends", event, "while a step is in flight")
        self._hold(self._gate == "none", "9 gate", event, "at a gate that nobody opened")
        owed = self._wanted() and bool(self._done)
        self._hold(not owed and self.rollback != "running", "6 exactly", event, "and the rollback is owed")
        self.ended = status

    def _completed(self, event: ev.WorkflowCompleted) -> None:
        self._hold(self._over == set(range(len(self.steps))), "11 complete", event, "only", self._over, "are over")
        self._hold(not (self._failed or self._rejected or self._cancelled), "11 same end", event)
        self._end("completed", event)

    def _failure(self, event: ev.WorkflowFailed) -> None:
        self._hold(self._failed and not (self._rejected or self._cancelled), "11 same end", event)
        self._end("failed", event)

    def _cancellation(self, event: ev.WorkflowCancelled) -> None:
        self._hold(self._rejected or self._cancelled, "11 same end", event)
        self._end("cancelled", event)

    def _retried(self, event: ev.Retried) -> None:
        self._hold(self.ended == "failed" and self.rollback in ("none", "done"), "7 resumable", event)
        again = 0 if self.rollback == "done" else self._next
        self._hold(event.from_index == again, "1 never again", event, "but", again, "is where to go on")
        self._over = set() if self.rollback == "done" else self._over - {again}
        self._next, self._failed, self.rollback, self.ended = again, False, "none", None


def judge_run(
    steps: Sequence[str],
    settings: Settings,
    journal: Sequence[Event],
    effects: Sequence[Effect],
    crashed_before: Callable[[int, Event], bool],
) -> None:
    """Judge a run that has ended, by its journal and its ledger, each effect taken for that of its attempt.

    Args:
        steps: The steps of its plan.
        settings: The settings of its plan.
        journal: Its events.
        effects: What the ledger says of it, in order.
        crashed_before: Told the seq of an event and the event: whether a driver was lost between it and the one before.

    Raises:
        Violation: A promise was broken.
    """
    judge = Judge(steps, settings)
    todo = iter(effects)
    effect = next(todo, None)
    for seq, event in enumerate(journal, 1):
        if crashed_before(seq, event):
            judge.crashed()
        judge.committed([event], seq)
        if isinstance(event, StepStarted | RollbackStepStarted):
            started = (_phase(event), event.step, event.position, event.visit, event.attempt)
            if effect is not None and effect[:5] == started:
                judge.acted(effect)
                effect = next(todo, None)
    if effect is not None:
        raise Violation(f"invariant 2 durable before: the journal has no start, or not in this order, of {effect}")
    judge.finished(judge.ended or "", judge.rollback)


def _phase(started: StepStarted | RollbackStepStarted) -> Phase:
    return "forward" if type(started) is StepStarted else "rollback"


_RULES: dict[type[Any], Callable[[Judge, Any], None]] = {
    ev.WorkflowStarted: Judge._started,
    ev.Claimed: Judge._anything,
    ev.Released: Judge._anything,
    ev.StepStarted: Judge._step_started,
    ev.StepSucceeded: Judge._step_succeeded,
    ev.StepFailed: Judge._step_failed,
    ev.StepInterrupted: Judge._step_interrupted,
    ev.ApprovalRequested: Judge._approval_requested,
    ev.Approved: Judge._approved,
    ev.Rejected: Judge._rejection,
    ev.PauseRequested: Judge._pause_requested,
    ev.Paused: Judge._hold_on,
    ev.Resumed: Judge._resumed,
    ev.CancelRequested: Judge._cancel_requested,
    ev.RollbackStarted: Judge._rollback_started,
    ev.RollbackStepStarted: Judge._rollback_step_started,
    ev.RollbackStepSucceeded: Judge._rollback_step_succeeded,
    ev.RollbackStepSkipped: Judge._rollback_step_succeeded,
    ev.RollbackStepFailed: Judge._rollback_step_failed,
    ev.RollbackFinished: Judge._rollback_finished,
    ev.RollbackRetried: Judge._rollback_retried,
    ev.RollbackWaived: Judge._rollback_waived,
    ev.WorkflowCompleted: Judge._completed,
    ev.WorkflowFailed: Judge._failure,
    ev.WorkflowCancelled: Judge._cancellation,
    ev.Retried: Judge._retried,
}
