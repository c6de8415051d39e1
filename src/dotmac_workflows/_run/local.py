"""The local host: runs the user's code in this process and this task, and keeps the lease while it does.

Everything that the loop leaves open is here: calling a step and making one fact of whatever it does; committing with
the right change of lease; telling a conflict (somebody recorded an approval, a cancel) from a lost lease (somebody
else drives); publishing and telling callbacks after the commit.

Steps run inline in the driver's task. What has to reach a step that runs comes by `interrupt`: from the object's own
``cancel()``, or from the heartbeat, which renews the lease each second and looks at what was recorded since.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from .._core.actions import RunRollback, RunStep, Wait
from .._core.decide import interrupted
from .._core.events import (
    Event,
    Released,
    RollbackStepStarted,
    StepStarted,
    StepSucceeded,
    WorkflowStarted,
    new_event,
)
from .._core.state import RunState, apply
from ..errors import (
    ConcurrencyError,
    LeaseLostError,
    WorkflowError,
    WorkflowNotFoundError,
)
from ..persistence import LeaseChange, Leases
from ..result import WorkflowResult
from . import callbacks, lease
from .callbacks import Callback
from .drive import Conflict
from .live import Journal, LiveJournal
from .logs import keys, log_facts, logger
from .outcomes import Outcomes
from .runtime import Runtime


class Subject(Protocol):
    """The user's workflow, as far as its host calls it; the callbacks are looked up by name."""

    workflow_id: str
    runtime: Runtime
    on_step_started: Callback
    on_step_completed: Callback

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
        self._live = journal if isinstance(journal, LiveJournal) else None
        self._publish = publish
        self._execute_step = subject.execute_step
        self._rollback_step = subject.rollback_step
        self._tenure = tenure
        self._runtime = subject.runtime
        self._log = logger.isEnabledFor(logging.INFO)
        self._time_ns = self._runtime.clock.time_ns
        self._monotonic = self._runtime.clock.monotonic
        self.run: WorkflowStarted | None = None
        """How the run was started; None until this host drives it."""
        self.action: RunStep | RunRollback | None = None
        """What runs at this moment."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancels = 0
        self._others_cancels = 0
        self._cancelled_before = False
        """Whether the cancel came before the step that is about to run was called."""
        self._lost: LeaseLostError | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        if tenure is not None and tenure.leases is not None:
            self._arm_heartbeat()

    def now(self) -> int:
        """See `drive.Host.now`."""
        return self._time_ns() // 1000

    async def commit(self, state: RunState, events: list[Event]) -> None:
        """See `drive.Host.commit`.

        Raises:
            ConcurrencyError: Somebody appended first, and this host does not drive yet: ask again.
            LeaseLostError: Somebody else drives by now.
        """
        try:
            if self._live is not None:
                self._live.add(state, events)
            elif self._tenure is not None:
                change = self._tenure.change(state, self._expiry())
                await self._journal.append(state, events, change)
                self._tenure.changed(change)
        except ConcurrencyError as error:
            if self.run is None:
                raise
            raise Conflict(await self._read_again()) from error
        self.run = state.plan
        self._publish(state)
        if self._log:
            log_facts(state, events)
        subject = self._subject
        if state.attention or subject.on_step_completed is not None or subject.on_step_started is not None:
            await callbacks.tell(subject, state, events)

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
        error: Exception | None = None
        if self._cancelled_before and type(action) is RunStep:
            return [interrupted(action.started, self.now(), f"A cancel came before step {started.step!r} was called.")]
        self.action = action
        began = self._monotonic()
        try:
            if type(action) is RunStep:
                answer: object = await self._execute_step(started.step)
            else:
                answer = await self._rollback_step(started.step)
        except Exception as raised:
            answer, error = None, raised
        except asyncio.CancelledError:
            return [self._interrupted(started)]
        finally:
            self.action = None
        elapsed = self._monotonic() - began
        if elapsed < 0:
            elapsed = 0.0  # not by a clock that keeps its promise
        if self._cancels:
            self._calm_down()
            if self._lost is not None:
                raise self._lost
        if type(action) is RunStep:
            if (
                type(answer) is WorkflowResult
                and answer.success is True
                and answer.step == started.step
                and answer.requires_approval is False
            ):
                # What `Outcomes.of_step` comes to when all is well.
                answer.execution_time = elapsed
                succeeded = new_event(StepSucceeded, (self._time_ns() // 1000, answer, False))
                if self._live is not None:
                    return [succeeded]
                try:
                    return [self._journal.seal(succeeded)]
                except WorkflowError:
                    pass  # it cannot be stored: then that is what happened
            return [self._outcomes(started.attempt).of_step(started.step, answer, error, elapsed)]
        return [self._outcomes(started.attempt).of_rollback(started.step, answer, error, elapsed)]

    def _outcomes(self, attempt: int) -> Outcomes:
        assert self.run is not None, "nothing runs before its start was committed"
        return Outcomes(self._subject.workflow_id, self.run.workflow_type, attempt, self._journal, self.now)

    def _interrupted(self, started: StepStarted | RollbackStepStarted) -> Event:
        """Return the fact that a cancel of ours ended a step; called where the `CancelledError` is handled."""
        if not self._cancels or self._calm_down():
            raise
        if self._lost is not None:
            raise self._lost from None
        assert isinstance(started, StepStarted), "a rollback is interrupted by nothing but a lost lease"
        why = f"Step {started.step!r} was interrupted by a cancel; its outcome is unknown."
        return interrupted(started, self.now(), why)

    # Interrupting the step that runs.

    def interrupt(self) -> None:
        """Interrupt the step that runs, if one does, for a cancel that was recorded.

        Does nothing to a step that calls it itself. One that was recorded to run and is not called yet (callbacks are
        told first) is not called any more. Nor anything to a rollback: this driver has heard of the cancel by itself.
        """
        if self.action is None:
            self._cancelled_before = True
        elif type(self.action) is RunStep:
            self._interrupt()

    def _interrupt(self) -> None:
        """Interrupt what runs; it is given time to end, and waited for."""
        if self._task is None or self._cancels or self._task is asyncio.current_task():
            return
        self._others_cancels = self._task.cancelling()
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
        held = self._tenure is not None and self._tenure.in_place == self._tenure.token
        if held and (self._renewal is None or self._renewal.done()):
            self._renewal = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        """Renew the lease of a step or callback that takes its time, and look at what was recorded meanwhile."""
        from .journal import StoredJournal  # loaded by now: a run in memory has no lease

        tenure, journal = self._tenure, self._journal
        assert tenure is not None and tenure.leases is not None and isinstance(journal, StoredJournal)
        action, workflow_id = self.action, self._subject.workflow_id
        try:
            try:
                version = await tenure.leases.renew(workflow_id, tenure.token, self._expiry())
            except LeaseLostError as error:
                if self._has_ended():
                    return  # it let go of the lease itself, while this renewal waited for its turn
                # Where the lease is gone, whoever had it has ended the run, or holds it at a gate.
                owner = error.owner or (await journal.fresh().load()).owner
                self._lose(action, _lease_lost(workflow_id, owner))
                return
            state = await journal.fresh().load() if version != journal.version else None
        except Exception:  # whatever a backend of one's own raises: the step goes on, and its append will tell
            if self._has_ended():
                return
            logger.warning(
                "The lease of workflow %r could not be renewed; trying again.",
                workflow_id,
                exc_info=True,
                extra=self._keys("lease_not_renewed"),
            )
        else:
            if state is not None and state.token != tenure.token:
                self._lose(action, _lease_lost(workflow_id, state.owner))
            elif state is not None and state.cancelling is not None and self.action is action:
                self.interrupt()

    def _lose(self, action: RunStep | RunRollback | None, error: LeaseLostError) -> None:
        if action is not None and self.action is action:
            self._lost = error
            self._interrupt()

    async def rest(self) -> None:
        """Stop the heartbeat, and have the fate of a renewal that is under way known.

        Raises:
            CancelledError: The task was cancelled meanwhile; the fate is known all the same.
        """
        self.close()
        renewal = self._renewal
        if renewal is None or renewal.done():
            return
        renewal.cancel()  # a store that has begun to write ends that first
        cancelled = None
        while not renewal.done():
            try:
                await asyncio.wait((renewal,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def release(self) -> None:
        """Let go of a run that is left before its end, so that it can be taken up at once."""
        try:
            await self._let_go()
        except asyncio.CancelledError:
            # Another cancel, or one that was pending when something else left the run: that is on its way already.
            await self._let_go()

    async def _let_go(self) -> None:
        await self.rest()
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
        except Exception:  # what the run was left for is on its way, and matters more
            logger.warning(
                "The lease of workflow %r could not be let go; it expires by itself.",
                self._subject.workflow_id,
                exc_info=True,
                extra=self._keys("lease_not_released"),
            )

    def _keys(self, event: str) -> dict[str, object]:
        return keys(self._subject.workflow_id, self.run.workflow_type if self.run is not None else None, event)

    def _has_ended(self) -> bool:
        return self._beat is not None and self._beat.cancelled()

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
