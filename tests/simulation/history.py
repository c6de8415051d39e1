"""One history: several drivers and persons on one store, all of it drawn by a seed.

Workers want to drive one run, each in its process, by `execute`, `resume` and `recover` of the engine itself. Persons
approve, reject, cancel, pause, resume and retry it, each in a process too, and none waits for another. The store fails
and hangs, processes are stopped, killed and shut down, clocks are wrong; and then all that ceases, and the run has to
come to its end. `store.Watch` and the judge look on; what each call answered is held against the journal at the end.
"""

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, NamedTuple, TypeAlias

from dotmac_workflows import (
    AlreadyDecidedError,
    InMemoryPersistence,
    LeaseLostError,
    Persistence,
    PersistenceError,
    Workflow,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowResult,
    WorkflowStatus,
    recover,
)
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Settings
from dotmac_workflows._core.state import replay
from dotmac_workflows.testing._judge import Effect, Judge, Violation
from simulation.processes import LEASE_SECONDS, Machines, Process, give_way
from simulation.store import BareStore, FaultError, Faults, Store, Watch, shown_by

NAMES = ("reserve", "book", "pay", "send")
ID = "order-1"

Behaviour: TypeAlias = Literal["ok", "fail", "ask", "slow", "slow ask", "stubborn"]
Undoing: TypeAlias = Literal["ok", "none", "fail"]


class Script(NamedTuple):
    """What a run is, and how its steps behave."""

    behaviours: tuple[Behaviour, ...]
    """Of each step: ends well; fails, the first time; asks for an approval; takes longer than a lease; does not let
    itself be interrupted."""
    undoings: tuple[Undoing, ...]
    """Of each step: how its rollback ends, the first time."""
    settings: Settings


def draw_script(chance: random.Random) -> Script:
    """Draw a script."""
    length = chance.choice((1, 2, 2, 3, 3, 4))
    kinds: tuple[Behaviour, ...] = ("ok", "ok", "ok", "ask", "ask", "fail", "slow", "slow ask", "stubborn")
    behaviours = tuple(chance.choice(kinds) for _ in range(length))
    undoings: tuple[Undoing, ...] = tuple(chance.choice(("ok", "ok", "ok", "none", "fail")) for _ in range(length))
    goes_on = chance.random() < 0.2
    settings = Settings(
        rollback_on_failure=not goes_on and chance.random() < 0.8,
        continue_on_step_failure=goes_on,
        require_approval=chance.random() < 0.85,
        rollback_on_cancel=chance.random() < 0.6,
        on_rollback_failure="halt" if chance.random() < 0.3 else "continue",
    )
    return Script(behaviours, undoings, settings)


class Run(Workflow):
    """The workflow: does what the script says, in the process that it is made in."""

    def __init__(
        self,
        workflow_id: str | None = None,
        steps: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        persistence: Persistence | None = None,
        history: "History",
        process: Process,
    ) -> None:
        super().__init__(workflow_id, steps, metadata, persistence=persistence)
        self.history = history
        self.process = process
        self.runtime = process.runtime

    async def execute_step(self, step: str) -> WorkflowResult:
        behaviour = self.history.script.behaviours[NAMES.index(step)]
        history = self.history
        visit = self.step_context.visit
        await history.some_time(4 * LEASE_SECONDS if behaviour.startswith("slow") else 0)
        self._act()
        try:
            await history.some_time(1.5)
        except asyncio.CancelledError:
            if behaviour != "stubborn":
                raise
            await history.some_time(0.5)
        if behaviour == "fail" and visit == 1:
            return WorkflowResult(False, step, error="declined")
        return WorkflowResult(True, step, {"visit": visit}, requires_approval=behaviour.endswith("ask"))

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        await self.history.some_time(0)
        self._act()
        visit = self.step_context.visit
        await self.history.some_time(0)
        how = self.history.script.undoings[NAMES.index(step)]
        if how == "none":
            return None
        if how == "fail" and visit == 1:
            return WorkflowResult(False, f"rollback_{step}", error="stuck")
        return WorkflowResult(True, f"rollback_{step}")

    def _act(self) -> None:
        context = self.step_context
        position = NAMES.index(context.step)
        key = context.idempotency_key
        self.history.acted(
            self.process, Effect(context.phase, context.step, position, context.visit, context.attempt, key)
        )


class Story(NamedTuple):
    """What came of a history."""

    seed: int
    drivers: int
    seconds: float
    """How much time passed in it."""
    counts: Counter[str]
    """How often what happened; see `KINDS`."""
    timeline: list[str]


Role: TypeAlias = "Callable[[History, Process, BareStore], Coroutine[Any, Any, None]]"
"""What a process is for."""
KINDS = (
    "failures before",
    "failures after",
    "hangs before",
    "hangs after",
    "stopped",
    "killed",
    "shut down",
    "clocks set",
    "without leases",
    "takeovers",
    "leases lost",
    "stale effects",
    "gates",
    "decided",
    "told who decided",
    "refused",
    "ended completed",
    "ended failed",
    "ended cancelled",
)
"""What is counted, and happens now and then.

A takeover is one from a driver who had not let go; a stale effect is that of one who did not know yet. Histories
"without leases" are on a store that has only what any backend must have, where whoever comes takes over.
"""
_LONG = 20_000
"""More turns than any run takes to its end, once nothing fails any more."""
_DECIDABLE = (
    (WorkflowStatus.WAITING_APPROVAL,),
    (WorkflowStatus.WAITING_APPROVAL, WorkflowStatus.RUNNING, WorkflowStatus.PAUSED),
)
"""When it makes sense to decide, and (1) to cancel."""
_VERDICTS = {
    "approve": "approved",
    "approve_and_continue": "approved",
    "reject": "rejected",
    "reject_and_cancel": "rejected",
    "cancel": "cancelled",
}
_VERDICT_OF: dict[type[Any], str] = {
    ev.Approved: "approved",
    ev.Rejected: "rejected",
    ev.CancelRequested: "cancelled",
}


class History:
    """One history, drawn by its seed.

    Args:
        seed: Of everything that is left to chance.
        timeline: Whether to keep what happens, line by line.
    """

    def __init__(self, seed: int, *, timeline: bool = False) -> None:
        self.seed = seed
        self.chance = chance = random.Random(seed)
        self.script = draw_script(chance)
        steps = NAMES[: len(self.script.behaviours)]
        self.steps = list(steps)
        self.machines = Machines(chance)
        self.counts: Counter[str] = Counter()
        self.watch = Watch(ID, Judge(steps, self.script.settings), self.counts)
        self.watch.keeps_leases = chance.random() < 0.9
        self.shared = InMemoryPersistence()
        self.timeline: list[str] | None = [] if timeline else None
        troubled = chance.random() < 0.85
        self.faults = Faults(chance, chance.choice((0, 0.02, 0.05, 0.15, 0.3)) if troubled else 0, self.counts)
        self._skew = chance.choice((0, 0, 0, 2, 20)) if troubled else 0
        self._boots = chance.choice((1, 2, 5))
        self._drivers = chance.randint(2, 5)
        self._quiet_from = chance.randint(40, 300)
        strikes = chance.choice((0, 0, 1, 2, 4, 8)) if troubled else 0
        self._strikes = sorted(chance.randrange(100) for _ in range(strikes))
        self._roles: dict[Process, Role] = {}
        self._untroubled = self.watch.keeps_leases and not (self.faults.rate or strikes or self._skew)
        self._leaving: list[Process] = []
        self._calling: set[Process] = set()

    def play(self) -> Story:
        """Play it to its end, where `no_operating_system` holds.

        Raises:
            Violation: A promise was broken.
        """
        machines, chance = self.machines, self.chance
        persons = (History._decide, History._hold, History._try_again)
        for role in (
            *(History._work for _ in range(self._drivers)),
            *chance.choices(persons, (7, 2, 2), k=chance.randint(0, 4)),
            History._take_care,
        ):
            self._start(role)
        try:
            while not self._is_over():
                if machines.turns > self._quiet_from + _LONG or not machines.turn():
                    raise Violation("invariant 20 ends: faults ceased, and the run does not end")
                if machines.broken is not None:
                    raise machines.broken
                self._strike()
            self._judge()
        finally:
            for process in list(machines.processes):
                process.kill()
            machines.enter(None)
        return Story(self.seed, self._drivers, machines.seconds, self.counts, self.timeline or [])

    # The processes.

    def _start(self, role: Role) -> None:
        skew = self.chance.uniform(-self._skew, self._skew)
        process = self.machines.start(self.chance.randrange(self._boots), skew)

        def note(what: str) -> None:
            self._note(process, what)

        self._roles[process] = role
        kind = Store if self.watch.keeps_leases else BareStore
        store = kind(process, self.shared, self.watch, self.faults, note if self.timeline is not None else None)
        self._note(process, f"is born, on {process.owner}")
        if role in (History._work, History._take_care):
            self._rest(process, store, role)
        else:
            process.run(role(self, process, store)).add_done_callback(lambda task: self._leave(process, task))

    def _rest(self, process: Process, store: BareStore, role: Role) -> None:
        """Look some time later whether there is something to do."""
        process.call_later(self._soon(3), self._look, process, store, role)

    def _look(self, process: Process, store: BareStore, role: Role) -> None:
        status = self.watch.state.status
        zeal = _ZEAL[role].get(status, 0.05)
        if status is WorkflowStatus.RUNNING and not self.watch.keeps_leases:
            zeal = 0.05  # or they would take it from each other for ever
        if self.chance.random() < zeal:
            task = process.run(role(self, process, store))
            task.add_done_callback(lambda task: self._done(process, store, role, task))
        else:
            self._rest(process, store, role)

    def _done(self, process: Process, store: BareStore, role: Role, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is not None:
            self._leave(process, task)
        else:
            self._rest(process, store, role)

    def _leave(self, process: Process, task: "asyncio.Task[None]") -> None:
        """A process has come to its end by itself, or was shut down."""
        self._note(process, "ends")
        if not task.cancelled() and (error := task.exception()) is not None:
            self.machines.broke(error)
        self._leaving.append(process)

    def _end(self, process: Process) -> None:
        """Have a process gone, and another worker come for one that was."""
        process.kill()
        self._calling.discard(process)
        role = self._roles.pop(process)
        if role is History._work:
            self._start(role)

    def _strike(self) -> None:
        """Do to the processes what is to be done to them by now."""
        while self._leaving:
            self._end(self._leaving.pop())
        if self.machines.turns >= self._quiet_from:
            self.faults.rate = 0
        elif self._strikes and self._strikes[0] <= self.machines.turns:
            self._strikes.pop(0)
            victims = [process for process, role in self._roles.items() if role is not History._take_care]
            busy = [process for process in victims if process in self._calling]
            if busy and self.chance.random() < 0.8:
                victims = busy
            process = self.chance.choice(victims)
            how = self.chance.choice(("stopped", "stopped", "killed", "killed", "shut down", "shut down", "clocks set"))
            self.counts[how] += 1
            self._note(process, f"!! {how}")
            if how == "stopped":
                process.stop_for(self.chance.uniform(0.3, 3) * LEASE_SECONDS)
                if self.chance.random() < 0.3:
                    process.shut_down()  # which it hears once it goes on
            elif how == "clocks set":
                process.set_clock(self.chance.uniform(-20, 20))
            elif how == "killed" or not process.shut_down():
                self._end(process)

    def _is_over(self) -> bool:
        if self.watch.judge.ended is None or self._calling:
            return False
        return all(role in (History._work, History._take_care) for role in self._roles.values())

    # What they do.

    async def _work(self, process: Process, store: BareStore) -> None:
        """Drive the run, if it can be."""
        if self.chance.random() < 0.6 or not self.watch.keeps_leases:
            run = self._make(ID, store, process)
            await self._call(process, store, "execute", run, run.execute())
        else:
            await self._call(process, store, "recover", None, self._recover(process, store))

    def _make(self, workflow_id: str, store: Persistence, process: Process) -> Run:
        run = Run(workflow_id, self.steps, persistence=store, history=self, process=process)
        run.configure(**self.script.settings._asdict())
        return run

    async def _recover(self, process: Process, store: BareStore) -> None:
        for recovered in await recover(store, [lambda workflow_id, store: self._make(workflow_id, store, process)]):
            if recovered.error is not None:
                raise recovered.error

    async def _load(self, process: Process, store: BareStore) -> Run | None:
        try:
            return await Run.load(ID, store, history=self, process=process)
        except (FaultError, WorkflowNotFoundError):
            return None

    async def _call(
        self, process: Process, store: BareStore, what: str, run: Run | None, verb: Awaitable[object]
    ) -> Exception | None:
        """Give a verb, and hold what it answers against the journal; return what it raised."""
        self._note(process, f"{what} ...")
        self._calling.add(process)
        before = len(self.watch.shown) - 1
        answer: Exception | None = None
        try:
            await verb
        except (FaultError, LeaseLostError, WorkflowExecutionError) as error:
            answer = error
        finally:
            self._calling.discard(process)
        self._note(process, f"{what}: {type(answer).__name__ + ': ' + str(answer) if answer else 'done'}")
        if store.under_way:
            raise Violation(f"invariant 16 known fate: {what} returned {answer!r} while an append was under way")
        true = self.watch.shown[before if answer is None else 0 :]
        if run is not None and shown_by(run) not in true:
            raise Violation(f"invariant 10 seen: {what} left {shown_by(run)} to be seen, which is none of {true}")
        self._hold_refusal(process, answer)
        return answer

    def _hold_refusal(self, process: Process, answer: Exception | None) -> None:
        """Hold what a driver was refused for against what is so."""
        state = self.watch.state
        if isinstance(answer, LeaseLostError):
            self.counts["leases lost"] += 1
            if state.token is not None and state.owner == process.owner:
                raise Violation(f"invariant 3 told: {answer!r}, but {process.owner} still has it")
        elif type(answer) is WorkflowExecutionError:
            self.counts["refused"] += 1
            if "already running" in str(answer) and self.watch.may_take(process):
                raise Violation(f"invariant 3 told: {answer!r}, but nobody had it")
        elif isinstance(answer, WorkflowExecutionError) and not isinstance(answer, AlreadyDecidedError):
            raise answer

    async def _decide(self, process: Process, store: BareStore) -> None:
        """Decide gates, always alike, or cancel; by what was seen some time before."""
        chance = self.chance
        name, verb = f"approver-{chance.randint(1, 3)}@example.com", chance.choice(tuple(_VERDICTS))
        await asyncio.sleep(self._soon(8))
        for _ in range(chance.randint(1, 6)):
            await asyncio.sleep(self._soon(3))
            if self.watch.state.status not in _DECIDABLE[verb == "cancel"] and chance.random() < 0.6:
                continue
            run = await self._load(process, store)
            if run is None:
                continue
            await asyncio.sleep(self._soon(3, together=0.8))
            answer: Exception | None = LeaseLostError()
            while isinstance(answer, PersistenceError) and chance.random() < 0.8:
                gate = run._workflow_view.gate
                actor = f"{name}:{gate or f'late-{self.machines.once()}'}"
                answer = await self._call(process, store, f"{verb} by {actor}", run, getattr(run, verb)(actor=actor))
                self._hold_answer(verb, actor, answer)

    def _hold_answer(self, verb: str, actor: str, answer: Exception | None) -> None:
        """Hold what somebody was told of their decision against the journal."""
        verdict = _VERDICTS[verb]
        decisions = [
            (_VERDICT_OF[type(event)], event.actor, event.at)
            for event in self.watch.journal
            if isinstance(event, ev.Approved | ev.Rejected | ev.CancelRequested)
        ]
        own = sum(decision[:2] == (verdict, actor) for decision in decisions)
        allowed = {0, 1} if isinstance(answer, PersistenceError) else {1} if answer is None else {0}
        if own not in allowed:
            raise Violation(f"invariant 8 told: {verb} by {actor} answered {answer!r}, and is recorded {own} times")
        if isinstance(answer, AlreadyDecidedError):
            self.counts["told who decided"] += 1
            at = answer.decided_at
            assert at is not None
            if (answer.verdict, answer.actor, round(at.timestamp() * 1_000_000)) not in decisions:
                raise Violation(f"invariant 8 told: {verb} by {actor} answered {answer!r}, but it was {decisions}")
        elif answer is None:
            self.counts["decided"] += 1

    async def _hold(self, process: Process, store: BareStore) -> None:
        """Pause, and some time later resume."""
        await asyncio.sleep(self._soon(8))
        for _ in range(self.chance.randint(1, 3)):
            for verb in ("pause", "resume"):
                run = await self._load(process, store)
                if run is not None:
                    await asyncio.sleep(self._soon(1))
                    await self._call(process, store, verb, run, getattr(run, verb)())
                await asyncio.sleep(self._soon(3))

    async def _try_again(self, process: Process, store: BareStore) -> None:
        """Retry what failed."""
        for _ in range(self.chance.randint(1, 4)):
            await asyncio.sleep(self._soon(10))
            run = await self._load(process, store)
            if run is None:
                continue
            stuck = [result.step for result in run.results if result.error == "stuck"]
            await asyncio.sleep(self._soon(1))
            if run.rollback_status == "incomplete" and stuck and self.chance.random() < 0.5:
                step = stuck[0].removeprefix("rollback_")
                await self._call(process, store, f"skip_rollback {step}", run, run.skip_rollback(step, "by hand"))
            elif run.rollback_status == "incomplete":
                await self._call(process, store, "retry_rollback", run, run.retry_rollback())
            elif run.is_failed:
                await self._call(process, store, "retry", run, run.retry())

    async def _take_care(self, process: Process, store: BareStore) -> None:
        """Decide and resume what nobody else does."""
        run = await self._load(process, store)
        if run is not None and run.is_waiting_approval:
            actor = f"caretaker@example.com:{run._workflow_view.gate}"
            answer = await self._call(process, store, f"approve by {actor}", run, run.approve(actor=actor))
            self._hold_answer("approve", actor, answer)
        elif run is not None and run.status is WorkflowStatus.PAUSED:
            await self._call(process, store, "resume", run, run.resume())

    def _soon(self, most: float, *, together: float = 0.4) -> float:
        """Return how long to wait; with the chance of `together` until a moment that others wait for as well."""
        drawn = self.chance.random()
        return 2 - self.machines.seconds % 2 if drawn < together else drawn * most

    # What the steps do.

    async def some_time(self, most: float) -> None:
        """Let others come first, or time pass, or neither."""
        drawn = self.chance.random()
        if most and drawn < 0.5:
            await asyncio.sleep(drawn * 2 * most)
        elif drawn < 0.75:
            await give_way()

    def acted(self, process: Process, effect: Effect) -> None:
        """The code of a step had its effect."""
        self._note(process, f"acts: {effect}")
        try:
            self.watch.acted(effect)
        except Violation as broken:  # which the engine would make a failed step of
            self.machines.broke(broken)

    # The judgement.

    def _judge(self) -> None:
        """Judge what is left, once all is over."""
        watch = self.watch
        state = replay(ID, watch.journal)
        if state != watch.state:
            raise Violation(f"invariant 12 fold: {watch.state} is not folded {state}")
        watch.judge.finished(state.status.value, state.rollback_status)
        if len(self.shared._records[ID]) != len(watch.journal):
            raise Violation("invariant 10 lost: the store holds another number of records than were acknowledged")
        if ID in self.shared._leases:
            raise Violation(f"invariant 19 nothing held: {self.shared._leases[ID]} after the end")
        for gate, step, verdict, actor, _ in state.decisions:
            seen = str(actor).rpartition(":")[2]
            if verdict != "cancelled" and seen != str(gate) and not seen.startswith("late"):
                raise Violation(f"invariant 8 one decision: gate {gate}, of {step}, was {verdict} by {actor}")
        if self._untroubled and (self.counts["takeovers"] or self.counts["leases lost"]):
            raise Violation("invariant 3 one driver: a run was taken over from a driver whom nothing had kept from it")
        self.counts["gates"] += len(state.decisions)
        self.counts["without leases"] += not watch.keeps_leases
        self.counts[f"ended {state.status}"] += 1

    def _note(self, process: Process, what: str) -> None:
        if self.timeline is not None:
            self.timeline.append(f"{self.machines.seconds:8.3f}  process {process.pid}: {what}")


Run.__signature__ = inspect.signature(Run)  # type: ignore[attr-defined]  # looked up for each load, at 60 µs

_ZEAL: dict[Role, dict[WorkflowStatus, float]] = {
    History._work: {WorkflowStatus.PENDING: 0.9, WorkflowStatus.RUNNING: 0.6},
    History._take_care: {WorkflowStatus.WAITING_APPROVAL: 0.2, WorkflowStatus.PAUSED: 0.2},
}
"""How likely a process that looks does something, by the status of the run: most of what comes to nothing is left."""
