"""What the public API does, in a model that knows nothing of journals, and a machine that holds the library to it.

`Run` is the model: a plain account of what `docs/explanation/decisions.md` says of one run, without crashes, drivers or
stores. `Machine` calls verbs by chance, on fresh objects and on ones used before, by several actors, with the process
lost at an append here and there, and after each call compares all that can be seen, and all that the steps did, with
the model.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule

from dotmac_workflows import (
    AlreadyDecidedError,
    InMemoryPersistence,
    Persistence,
    Runtime,
    Workflow,
    WorkflowExecutionError,
    WorkflowResult,
    WorkflowStatus,
    recover,
    verify,
)
from dotmac_workflows.testing import FakeClock

RUNNING, COMPLETED = WorkflowStatus.RUNNING, WorkflowStatus.COMPLETED
FAILED, CANCELLED = WorkflowStatus.FAILED, WorkflowStatus.CANCELLED
WAITING, PAUSED = WorkflowStatus.WAITING_APPROVAL, WorkflowStatus.PAUSED
Shape = tuple[str, bool, str | None]
Act = tuple[str, str, int]
"""Phase, step and visit."""

SURVIVES = {"ok", "fail", "gate"}
"""The ways of steps that a crash changes nothing of: one that pauses or cancels its own run is not run again."""


class Refused(Exception):  # noqa: N818 - the model's word for an answer, not an error of its own
    """The model says that a verb is refused."""


class Decided(Refused):
    """Because somebody else came first."""


class Run:
    """The model of one run."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.steps: list[str] = [f"s{number}" for number in range(len(plan["ways"]))]
        self.ways: dict[str, str] = dict(zip(self.steps, plan["ways"], strict=True))
        self.undoings: dict[str, str] = dict(zip(self.steps, plan["undoings"], strict=True))
        self.settings: dict[str, Any] = plan["settings"]
        self.status = RUNNING
        self.index = 0
        self.results: list[Shape] = []
        self.rollback = "none"
        self.pending: str | None = None
        self.approval: dict[str, Any] | None = None
        self.gate = self.gates = 0
        self.decisions: list[tuple[int, str, str | None]] = []
        self.cancelled_by: list[str | None] = []
        self.rejected = self.pausing = False
        self.done: list[str] = []
        self.todo: list[str] = []
        self.stuck: list[str] = []
        self.visits: dict[tuple[str, str], int] = {}
        self.acts: list[Act] = []

    # What a driver does.

    def drive(self) -> None:
        while self.status is RUNNING:
            if self.rejected or self.cancelled_by:
                self._end(CANCELLED, undo=self.settings["rollback_on_cancel"])
            elif self.index == len(self.steps):
                self.status = COMPLETED
            elif self.pausing:
                self.status, self.pausing = PAUSED, False
            else:
                self._step(self.steps[self.index])

    def _act(self, phase: str, step: str) -> int:
        visit = self.visits[phase, step] = self.visits.get((phase, step), 0) + 1
        self.acts.append((phase, step, visit))
        return visit

    def _step(self, step: str) -> None:
        first, way = self._act("forward", step) == 1, self.ways[step]
        if way == "fail" and first:
            self.results.append((step, False, "declined"))
            if self.settings["continue_on_step_failure"]:
                self.index += 1
            else:
                self._end(FAILED, undo=self.settings["rollback_on_failure"])
            return
        self.results.append((step, True, None))
        self.done.append(step)
        self.pausing |= way == "pause" and first
        self.cancelled_by += ["the step"] if way == "cancel" and first else []
        if way == "gate" and self.settings["require_approval"]:
            self.gates += 1
            self.gate, self.pending, self.status = self.gates, step, WAITING
        else:
            self.index += 1

    def _end(self, status: WorkflowStatus, *, undo: bool) -> None:
        if undo and self.done:
            self.todo, self.done = self.done, []
            self._undo()
        self.status = status

    def _undo(self) -> None:
        while self.todo and not (self.stuck and self.settings["on_rollback_failure"] == "halt"):
            step = self.todo.pop()
            stuck = self._act("rollback", step) == 1 and self.undoings[step] == "fail"
            self.results.append((f"rollback_{step}", not stuck, "stuck" if stuck else None))
            self.stuck += [step] if stuck else []
        self.rollback = "incomplete" if self.todo or self.stuck else "done"

    # What people ask for. Each says whether it drives.

    def execute(self) -> None:
        self.drive()

    def resume(self) -> None:
        if self.status is PAUSED:
            self.status = RUNNING
        self.drive()

    def _decides(self, gate: int, verdict: str, actor: str | None) -> bool:
        """Tell whether the gate is to be closed; False: this actor has done so."""
        gate = gate or self.gate
        if self.gate and gate == self.gate:
            self.decisions.append((gate, verdict, actor))
            self.gate, self.pending, self.status = 0, None, RUNNING
            return True
        decided = [decision for decision in self.decisions if decision[0] == gate] or self.decisions
        if not decided:
            raise Refused
        if actor is not None and decided[-1][1:] == (verdict, actor):
            return False
        raise Decided

    def approve(self, gate: int, actor: str | None) -> None:
        if self._decides(gate, "approved", actor):
            self.approval = {"by": actor}
            self.index += 1

    def reject(self, gate: int, actor: str | None) -> None:
        step = self.pending
        if self._decides(gate, "rejected", actor):
            self.results.append((str(step), False, "approval_rejected"))
            self.rejected = True

    def cancel(self, actor: str | None) -> None:
        if self.cancelled_by:
            if actor is None or self.cancelled_by != [actor]:
                raise Decided
            return
        if self.status not in (RUNNING, WAITING, PAUSED) or self.rejected:
            raise Refused
        if self.gate:
            self._decides(self.gate, "cancelled", actor)
        self.cancelled_by, self.pausing, self.status = [actor], False, RUNNING
        self.drive()

    def pause(self) -> None:
        if self.status is not PAUSED:
            if self.status is not RUNNING or self.rejected:
                raise Refused
            self.status = PAUSED

    def retry(self) -> None:
        if self.status is not FAILED or self.rollback == "incomplete":
            raise Refused
        if self.rollback == "done":
            self.index, self.results, self.rollback = 0, [], "none"
        else:
            self.results.pop()
        self.status = RUNNING
        self.drive()

    def retry_rollback(self) -> None:
        if self.rollback != "incomplete":
            raise Refused
        self.results = [shape for shape in self.results if shape[2] != "stuck"]
        self.todo += reversed(self.stuck)
        self.stuck = []
        self._undo()

    def skip_rollback(self, step: str) -> None:
        if self.rollback != "incomplete" or step not in self.stuck:
            raise Refused
        self.stuck.remove(step)
        self.results = [
            (name, True, None) if (name, error) == (f"rollback_{step}", "stuck") else (name, success, error)
            for name, success, error in self.results
        ]
        self.rollback = "incomplete" if self.todo or self.stuck else "done"

    @property
    def survives_crashes(self) -> bool:
        return set(self.ways.values()) <= SURVIVES


class Lost(BaseException):
    """The process is gone."""


class LosingStore:
    """Hands all on to a store, and is lost with its process before or after one of its appends."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.appends = 0
        self.lost_at: tuple[int, str] | None = None
        self.lease, self.find = store.lease, store.find
        self.read, self.delete = store.read, store.delete

    async def append(self, *arguments: Any, **keywords: Any) -> None:
        self._here("before")
        await self.store.append(*arguments, **keywords)
        self._here("after")
        self.appends += 1

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        version: int = await self.store.renew(workflow_id, token, expires_at)
        return version

    def _here(self, when: str) -> None:
        if self.lost_at is not None and (self.lost_at == (self.appends, when) or self.lost_at[1] == "gone"):
            self.lost_at = (0, "gone")
            raise Lost


class Planned(Workflow):
    """Does what its metadata say of each step, and notes that it did."""

    def __init__(self, workflow_id: str, persistence: Persistence, machine: "Machine", plan: Any = None) -> None:
        plan = plan or {"ways": [], "undoings": [], "settings": {}}
        steps = [f"s{number}" for number in range(len(plan["ways"]))]
        super().__init__(workflow_id, steps, {k: plan[k] for k in ("ways", "undoings")}, persistence=persistence)
        self.configure(**plan["settings"])
        self.machine = machine
        self.runtime = Runtime(clock=machine.clock)

    def _act(self) -> bool:
        context = self.step_context
        self.machine.acted((context.phase, context.step, context.visit), context.attempt, context.idempotency_key)
        return context.visit == 1

    async def execute_step(self, step: str) -> WorkflowResult:
        first, way = self._act(), self.metadata["ways"][int(step[1:])]
        await asyncio.sleep(0)
        if way == "fail" and first:
            return WorkflowResult(False, step, error="declined")
        if way == "pause" and first:
            await self.pause()
        if way == "cancel" and first:
            await self.cancel(actor="the step")
        return WorkflowResult(True, step, requires_approval=way == "gate")

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        first, undoing = self._act(), self.metadata["undoings"][int(step[1:])]
        if undoing == "none":
            return None
        stuck = undoing == "fail" and first
        return WorkflowResult(not stuck, step, error="stuck" if stuck else None)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    length = draw(st.integers(1, 4))
    ways = draw(
        st.lists(st.sampled_from(["ok", "fail", "gate", "gate", "pause", "cancel"]), min_size=length, max_size=length)
    )
    undoings = draw(st.lists(st.sampled_from(["ok", "none", "fail"]), min_size=length, max_size=length))
    undo = draw(st.sampled_from(["rollback_on_failure", "continue_on_step_failure", "neither"]))
    settings = {
        "rollback_on_failure": undo == "rollback_on_failure",
        "continue_on_step_failure": undo == "continue_on_step_failure",
        "require_approval": draw(st.integers(0, 3)) > 0,
        "rollback_on_cancel": draw(st.booleans()),
        "on_rollback_failure": draw(st.sampled_from(["continue", "halt"])),
    }
    return {"ways": ways, "undoings": undoings, "settings": settings}


actors = st.sampled_from([None, "one@example.com", "other@example.com"])
whens = st.sampled_from(["before", "after"])


class Machine(RuleBasedStateMachine):
    """Calls verbs of up to a few runs, and compares."""

    ids = Bundle("ids")
    calls_made: ClassVar[int] = 0
    """How many verbs were called, in all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.store = LosingStore(self.open_store())
        self.runs: dict[str, Run] = {}
        self.objects: dict[str, Planned] = {}
        self.gates: dict[str, int] = {}
        """The gate that each object shows."""
        self.effects: dict[str, list[Act]] = {}
        self.keys: dict[tuple[str, Act], str] = {}
        self.at: list[str] = []
        self.made = 0

    def open_store(self) -> Any:
        """Return the store that everything is kept in."""
        return InMemoryPersistence()

    def teardown(self) -> None:
        self.runner.close()

    # What the steps do.

    def acted(self, act: Act, attempt: int, key: str) -> None:
        name = self.at[-1]
        done = self.effects.setdefault(name, [])
        if attempt == 1:
            assert act not in done, f"{act} twice"
            done.append(act)
        elif act not in done:  # the attempts before did not get so far
            done.append(act)
        assert self.keys.setdefault((name, act), key) == key

    # Calling.

    def object_for(self, name: str, *, fresh: bool) -> Planned:
        known = self.objects.get(name)
        if fresh or known is None:
            run = self.runs.get(name)
            self.objects[name] = Planned(name, self.store, self, run.plan if run else None)
            self.gates[name] = 0
        return self.objects[name]

    def call(
        self,
        name: str,
        verb: Callable[[Planned], Awaitable[object]],
        wish: Callable[[Run, int], None],
        *,
        fresh: bool,
        lost: tuple[int, str] | None = None,
    ) -> None:
        """Call a verb, have the model do the same, and compare; where the process is lost, another one goes on."""
        Machine.calls_made += 1
        workflow, run = self.object_for(name, fresh=fresh), self.runs[name]
        expected: type[Exception] | None = None
        gate = self.gates[name]
        if not run.survives_crashes:
            lost = None
        self.store.appends, self.store.lost_at = 0, lost
        was_lost = recorded = False
        raised: Exception | None = None
        self.at.append(name)
        try:
            self.runner.run(self._awaited(verb(workflow)))
        except Lost:
            was_lost, recorded = True, lost != (0, "before")
        except WorkflowExecutionError as error:
            raised = error
        self.store.lost_at = None
        if not was_lost or recorded:
            try:
                wish(run, gate)
            except Decided:
                expected = AlreadyDecidedError
            except Refused:
                expected = WorkflowExecutionError
        if was_lost:
            del self.objects[name]
            if not recorded and not run.acts:
                taken_over: Awaitable[object] = self.object_for(name, fresh=True).execute()  # it may not be there yet
            elif any(other.status is RUNNING for at, other in self.runs.items() if at != name):
                taken_over = self.object_for(name, fresh=True).resume()
            else:
                taken_over = recover(self.store, [self._maker])
            self.runner.run(self._awaited(taken_over))
            run.drive()
        else:
            assert (type(raised) if raised else None) is expected, (raised, expected)
        self.at.pop()
        self.gates[name] = run.gate
        self.compare(name)

    async def _awaited(self, something: Awaitable[Any]) -> Any:
        return await something

    def _maker(self, workflow_id: str, persistence: Persistence) -> Planned:
        return Planned(workflow_id, persistence, self, self.runs[workflow_id].plan)

    def compare(self, name: str) -> None:
        run = self.runs[name]
        loaded = self.runner.run(Planned.load(name, self.store, machine=self))
        shown = self.objects.get(name, loaded)
        for workflow in (loaded, shown):
            seen = (
                workflow.status,
                workflow.current_step_index,
                [(result.step, result.success, result.error) for result in workflow.results],
                workflow.rollback_status,
                workflow.pending_approval_step,
                workflow.approval_data,
                workflow.steps,
            )
            right = (run.status, run.index, run.results, run.rollback, run.pending, run.approval, run.steps)
            assert seen == right, (name, seen, right)
        [header] = [h for h in self.runner.run(self._awaited(self.store.find(limit=1_000))) if h.workflow_id == name]
        assert (header.status, header.pending_step) == (run.status, run.pending)
        assert (header.wake_at is not None) == (run.status is RUNNING)
        assert self.effects.get(name, []) == run.acts

    # The rules.

    @initialize(target=ids, plan=plans())
    def first(self, plan: dict[str, Any]) -> str:
        return self._start(plan, None)

    @rule(target=ids, plan=plans(), at=st.none() | st.integers(0, 4), when=whens)
    def start(self, plan: dict[str, Any], at: int | None, when: str) -> str:
        return self._start(plan, None if at is None else (at, when))

    def _start(self, plan: dict[str, Any], lost: tuple[int, str] | None) -> str:
        self.made += 1
        name = f"run-{self.made}"
        self.runs[name] = Run(plan)
        self.call(name, Workflow.execute, lambda run, gate: run.execute(), fresh=True, lost=lost)
        return name

    @rule(name=ids, fresh=st.booleans(), at=st.integers(0, 3), when=whens)
    def execute(self, name: str, fresh: bool, at: int, when: str) -> None:
        self.call(name, Workflow.execute, lambda run, gate: run.execute(), fresh=fresh, lost=(at, when))

    @rule(name=ids, fresh=st.booleans(), at=st.integers(0, 3), when=whens)
    def resume(self, name: str, fresh: bool, at: int, when: str) -> None:
        self.call(name, Workflow.resume, lambda run, gate: run.resume(), fresh=fresh, lost=(at, when))

    @rule(name=ids, actor=actors, fresh=st.booleans(), at=st.none() | st.integers(0, 3), when=whens)
    def approve_and_continue(self, name: str, actor: str | None, fresh: bool, at: int | None, when: str) -> None:
        def wish(run: Run, gate: int) -> None:
            run.approve(gate, actor)
            run.drive()

        self.call(
            name,
            lambda workflow: workflow.approve_and_continue({"by": actor}, actor=actor),
            wish,
            fresh=fresh,
            lost=None if at is None else (at, when),
        )

    @rule(name=ids, actor=actors, fresh=st.booleans())
    def approve(self, name: str, actor: str | None, fresh: bool) -> None:
        verb: Callable[[Planned], Awaitable[object]] = lambda workflow: workflow.approve({"by": actor}, actor=actor)  # noqa: E731 - with its type
        self.call(name, verb, lambda run, gate: run.approve(gate, actor), fresh=fresh)

    @rule(name=ids, actor=actors, fresh=st.booleans(), at=st.none() | st.integers(0, 3), when=whens)
    def reject_and_cancel(self, name: str, actor: str | None, fresh: bool, at: int | None, when: str) -> None:
        def wish(run: Run, gate: int) -> None:
            run.reject(gate, actor)
            run.drive()

        self.call(
            name,
            lambda workflow: workflow.reject_and_cancel(actor=actor),
            wish,
            fresh=fresh,
            lost=None if at is None else (at, when),
        )

    @rule(name=ids, actor=actors, fresh=st.booleans())
    def reject(self, name: str, actor: str | None, fresh: bool) -> None:
        self.call(
            name, lambda workflow: workflow.reject(actor=actor), lambda run, gate: run.reject(gate, actor), fresh=fresh
        )

    @rule(name=ids, actor=actors, fresh=st.booleans())
    def cancel(self, name: str, actor: str | None, fresh: bool) -> None:
        self.call(name, lambda workflow: workflow.cancel(actor=actor), lambda run, gate: run.cancel(actor), fresh=fresh)

    @rule(name=ids, fresh=st.booleans())
    def pause(self, name: str, fresh: bool) -> None:
        self.call(name, Workflow.pause, lambda run, gate: run.pause(), fresh=fresh)

    @rule(name=ids, fresh=st.booleans(), at=st.none() | st.integers(0, 3), when=whens)
    def retry(self, name: str, fresh: bool, at: int | None, when: str) -> None:
        lost = None if at is None else (at, when)
        self.call(name, Workflow.retry, lambda run, gate: run.retry(), fresh=fresh, lost=lost)

    @rule(name=ids, fresh=st.booleans(), at=st.none() | st.integers(0, 3), when=whens)
    def retry_rollback(self, name: str, fresh: bool, at: int | None, when: str) -> None:
        lost = None if at is None else (at, when)
        self.call(name, Workflow.retry_rollback, lambda run, gate: run.retry_rollback(), fresh=fresh, lost=lost)

    @rule(name=ids, number=st.integers(0, 3), fresh=st.booleans())
    def skip_rollback(self, name: str, number: int, fresh: bool) -> None:
        step = f"s{number}"
        self.call(
            name,
            lambda workflow: workflow.skip_rollback(step, "by hand"),
            lambda run, gate: run.skip_rollback(step),
            fresh=fresh,
        )

    @rule()
    def recover_all(self) -> None:
        due = [name for name, run in self.runs.items() if run.status is RUNNING]
        self.at.append(due[0] if len(due) == 1 else "")
        if len(due) <= 1:  # what several do at once is not told apart here
            recovered = self.runner.run(recover(self.store, [self._maker]))
            assert [(one.workflow_id, one.error) for one in recovered] == [(name, None) for name in due]
            for name in due:
                self.runs[name].drive()
                self.objects.pop(name, None)
                self.compare(name)
        self.at.pop()

    @rule(target=ids, name=consumes(ids), plan=plans())
    def delete(self, name: str, plan: dict[str, Any]) -> str:
        """Delete a run, and start another one under its id."""
        assert self.runner.run(self._awaited(self.store.delete(name))) is True
        self.effects.pop(name, None)
        self.keys = {of: key for of, key in self.keys.items() if of[0] != name}
        self.objects.pop(name, None)
        self.runs[name] = Run(plan)
        self.call(name, Workflow.execute, lambda run, gate: run.execute(), fresh=True)
        return name

    @rule(seconds=st.sampled_from([1, 60, 86_400]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def check_the_store(self) -> None:
        verification = self.runner.run(verify(self.store))
        assert (verification.workflows, verification.problems) == (len(self.runs), [])
