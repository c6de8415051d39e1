"""The loop, with a host that plays a script: what it decides from, commits, and does after a conflict."""

from dataclasses import dataclass, field
from typing import Any

from dotmac_workflows import WorkflowResult, WorkflowStatus
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.actions import RunRollback, RunStep, Wait
from dotmac_workflows._core.events import Event
from dotmac_workflows._core.state import RunState, replay
from dotmac_workflows._run.drive import Conflict, drive
from journal_events import JOURNALS, WAITING, WORKFLOW, done, plan, ran


@dataclass
class Scripted:
    """A host whose commits may meet a conflict, and whose steps succeed."""

    journal: list[Event]
    clock: int = 100
    meanwhile: dict[int, list[Event]] = field(default_factory=dict)
    """What somebody else appends just before a commit, by the number of the commit."""
    answers: list[list[Event]] = field(default_factory=list)
    """What ends each wait."""
    commits: list[list[Event]] = field(default_factory=list)
    waits: list[Any] = field(default_factory=list)

    def now(self) -> int:
        return self.clock

    async def commit(self, state: RunState, events: list[Event]) -> None:
        between = self.meanwhile.pop(len(self.commits), None)
        self.commits.append(list(events))
        if between is not None:
            self.journal += between
            raise Conflict(replay(WORKFLOW, self.journal))
        self.journal += events
        assert state == replay(WORKFLOW, self.journal)

    async def wait(self, wait: Wait) -> list[Event]:
        self.waits.append(wait)
        return self.answers.pop(0) if self.answers else []

    async def perform(self, action: RunStep | RunRollback) -> list[Event]:
        self.clock += 100
        started = action.started
        if isinstance(started, ev.StepStarted):
            return [ev.StepSucceeded(self.clock - 50, done(started.step), False)]
        return [ev.RollbackStepSucceeded(self.clock - 50, WorkflowResult(True, f"rollback_{started.step}"))]

    async def run(self, pending: list[Event]) -> RunState:
        return await drive(self, replay(WORKFLOW, self.journal), pending)


async def test_what_follows_from_a_fact_happens_at_its_instant() -> None:
    host = Scripted([])
    state = await host.run(plan(steps=("pay",)))
    assert host.commits == [
        [*plan(steps=("pay",)), ev.StepStarted(2, "pay", 0, 1, 1)],
        [ev.StepSucceeded(150, done("pay"), False), ev.WorkflowCompleted(150)],
    ]
    assert state == replay(WORKFLOW, host.journal)


async def test_without_a_fact_it_happens_now() -> None:
    host = Scripted(plan(steps=("pay",)))
    await host.run([])
    assert host.commits[0] == [ev.StepStarted(100, "pay", 0, 1, 1)]


async def test_what_a_step_did_is_appended_after_what_came_between() -> None:
    paused = ev.PauseRequested(7, None, None)
    host = Scripted([], meanwhile={1: [paused]})
    state = await host.run(plan())
    paid = ev.StepSucceeded(150, done("pay"), False)
    assert host.commits[1:] == [
        [paid, ev.StepStarted(150, "pack", 1, 1, 1)],
        [paid, ev.Paused(150)],
    ]
    assert state.status is WorkflowStatus.PAUSED


async def test_a_fact_from_which_nothing_follows_is_not_lost_in_a_conflict() -> None:
    ended = ev.WorkflowCompleted(9)
    host = Scripted([*plan(steps=("pay",)), *ran("pay", 0)], meanwhile={0: [ev.PauseRequested(8, None, None)]})
    state = await host.run([ended])
    assert host.commits == [[ended], [ended]]
    assert (state.status, state.version) == (WorkflowStatus.COMPLETED, len(host.journal))


async def test_a_host_that_waits_in_the_process_goes_on_with_what_ended_the_wait() -> None:
    approved = ev.Approved(60, "ann", {})
    host = Scripted(WAITING[:-1], answers=[[approved]])
    state = await host.run([])
    assert host.waits == [Wait()]
    assert host.commits[:2] == [
        [ev.ApprovalRequested(100, "pay")],
        [approved, ev.StepStarted(60, "pack", 1, 1, 1)],
    ]
    assert state.status is WorkflowStatus.COMPLETED


async def test_a_host_that_does_not_wait_is_given_back() -> None:
    host = Scripted(WAITING[:-1])
    state = await host.run([])
    assert (host.waits, state.status) == ([Wait()], WorkflowStatus.WAITING_APPROVAL)
    assert state == replay(WORKFLOW, host.journal)


async def test_a_run_that_ended_commits_nothing_new() -> None:
    host = Scripted(list(JOURNALS["completed"]))
    assert await host.run([]) == replay(WORKFLOW, JOURNALS["completed"])
    assert host.commits == [[]]
