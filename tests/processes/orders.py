"""A workflow for tests that kill and stop processes: what it does comes from a `Script`, and what it did is in a file.

The ledger is the world outside: a file that every step appends a line to, flushed to the disk, before it returns.
"""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

from crash_simulation import CANCELS, GATES, Script, scripts
from dotmac_workflows import Workflow, WorkflowExecutionError, WorkflowNotFoundError, WorkflowResult, WorkflowStatus
from dotmac_workflows._core.events import Settings
from dotmac_workflows.persistence import Persistence
from dotmac_workflows.testing._judge import Effect

NAMES = ("reserve", "book", "pay", "send")


def nothing(line: str) -> None:
    """Tell nobody."""


class Ledger:
    """Appends lines to a file, each durable before it returns."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, line: dict[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(line) + "\n").encode())
        os.fsync(self._descriptor)


class ListedEffects(Ledger):
    """A ledger in memory: only the process is lost here, and only seemingly."""

    def __init__(self) -> None:
        self.effects: list[Effect] = []

    def append(self, line: dict[str, Any]) -> None:
        step = line["step"]
        effect = Effect(line["phase"], step, NAMES.index(step), line["visit"], line["attempt"], line["key"])
        self.effects.append(effect)


class Order(Workflow):
    """Does what the script in its metadata says of each step."""

    ledger: Ledger | None = None
    say: Callable[[str], None] = staticmethod(nothing)
    """Told what happens, one line each: ``act`` when a step had its effect, ``ack`` when something is recorded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_step_completed = lambda result: self.acknowledge(result.step)
        self.on_approval_required = lambda step: self.acknowledge("!ApprovalRequested")
        self.on_rollback_started = lambda step: self.acknowledge("!RollbackStarted")
        self.on_rollback_completed = lambda results: self.acknowledge("!RollbackFinished")
        self.on_workflow_completed = lambda results: self.acknowledge("!WorkflowCompleted")
        self.on_workflow_failed = lambda results: self.acknowledge("!WorkflowFailed")
        self.on_workflow_cancelled = lambda results: self.acknowledge("!WorkflowCancelled")

    def acknowledge(self, what: str) -> None:
        self.say(f"ack {self.workflow_id} {what}")

    def behaviour(self, step: str) -> str:
        behaviours: list[str] = self.metadata["behaviours"]
        return behaviours[NAMES.index(step)]

    def _act(self) -> None:
        context = self.step_context
        if self.ledger is not None:
            self.ledger.append(
                {
                    "workflow": self.workflow_id,
                    "phase": context.phase,
                    "step": context.step,
                    "visit": context.visit,
                    "attempt": context.attempt,
                    "key": context.idempotency_key,
                    "process": os.getpid(),
                }
            )
        self.say(f"act {self.workflow_id} {context.phase} {context.step}")

    async def execute_step(self, step: str) -> WorkflowResult:
        self._act()
        await asyncio.sleep(0)
        behaviour = self.behaviour(step)
        if behaviour == "interrupt":
            await asyncio.gather(self.cancel(), asyncio.sleep(60))
        if behaviour in CANCELS:
            await self.cancel()
        if behaviour.startswith("pause"):
            await self.pause()
        if behaviour in ("fail", "cancel_fail") and self.step_context.visit == 1:
            return WorkflowResult(False, step, error="declined")
        return WorkflowResult(True, step, {"by": step}, requires_approval=behaviour in GATES)

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        self._act()
        await asyncio.sleep(0)
        how = self.metadata["undoings"][NAMES.index(step)]
        if how == "none":
            return None
        if how == "fail" and self.step_context.visit == 1:
            return WorkflowResult(False, f"rollback_{step}", error="stuck")
        return WorkflowResult(True, f"rollback_{step}")


def scripts_of(*lengths: int) -> list[Script]:
    """Return every script of these lengths that an order can play."""
    every = [script for length in lengths for script in scripts(length)]
    # Whoever takes up a paused run here cannot tell which step it was paused in.
    return [script for script in every if "pause_cancel" not in script.behaviours]


def order(workflow_id: str, script: Script, persistence: Persistence, kind: type[Order] = Order) -> Order:
    """Make an order that was not started."""
    metadata = {"behaviours": script.behaviours, "undoings": script.undoings}
    made = kind(
        workflow_id,
        list(NAMES[: len(script.behaviours)]),
        {name: list(values) for name, values in metadata.items()},
        persistence=persistence,
    )
    made.configure(**script.settings._asdict())
    return made


async def bring_to_its_end(
    workflow_id: str, script: Script, persistence: Persistence, kind: type[Order] = Order, *, rivals: bool = False
) -> Order:
    """Start an order or take it up wherever it is, and do what the script says outside of its steps, to the end.

    Where there are `rivals`, one that somebody else drives or has decided is looked at again until it has ended.
    """
    while True:
        try:
            return await _bring_to_its_end(workflow_id, script, persistence, kind)
        except WorkflowExecutionError:
            if not rivals:
                raise
        await asyncio.sleep(0.005)


async def _bring_to_its_end(workflow_id: str, script: Script, persistence: Persistence, kind: type[Order]) -> Order:
    try:
        run = await kind.load(workflow_id, persistence)
    except WorkflowNotFoundError:
        run = order(workflow_id, script, persistence, kind)
        await run.execute()
    while await _one_more(run, script):
        pass
    return run


async def _one_more(run: Order, script: Script) -> bool:
    """Do the next thing that somebody has to do; False: there is nothing more."""
    if run.status in (WorkflowStatus.RUNNING, WorkflowStatus.PAUSED):
        await run.resume()
    elif run.status is WorkflowStatus.WAITING_APPROVAL:
        await _decide(run)
    elif script.then == "nothing":
        return False
    elif run.rollback_status == "incomplete":
        stuck = [result.step for result in run.results if result.error == "stuck"]
        if script.then == "waive" and stuck:
            await run.skip_rollback(stuck[0].removeprefix("rollback_"), "by hand")
            run.acknowledge("!RollbackWaived")
        else:
            await run.retry_rollback()
    elif run.status is WorkflowStatus.FAILED:
        await run.retry()
    else:
        return False
    return True


async def _decide(run: Order) -> None:
    """Decide a gate: at every other step in one go with driving on, else by only recording it."""
    assert run.pending_approval_step is not None
    behaviour = run.behaviour(run.pending_approval_step)
    actor = f"approver-{os.getpid()}@example.com"  # one in each process: the same one may say so twice
    if behaviour == "cancel_at_gate":
        await run.cancel()
        run.acknowledge("!CancelRequested")
    elif run.current_step_index % 2:
        verb = run.reject if behaviour == "reject" else run.approve
        await verb(actor=actor)
        run.acknowledge("!Rejected" if behaviour == "reject" else "!Approved")
    elif behaviour == "reject":
        await run.reject_and_cancel(actor=actor)
    else:
        await run.approve_and_continue(actor=actor)


def to_json(scripts: dict[str, Script]) -> str:
    """Return scripts by workflow id as text, for a command line."""
    return json.dumps({workflow_id: list(script) for workflow_id, script in scripts.items()})


def from_json(text: str) -> dict[str, Script]:
    """Return what `to_json` was given."""
    return {
        workflow_id: Script(tuple(behaviours), tuple(undoings), Settings(*settings), then)
        for workflow_id, (behaviours, undoings, settings, then) in json.loads(text).items()
    }
