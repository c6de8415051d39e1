"""Short journals that lead to each state that a run can be in, for the tests of the pure core."""

from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event, Settings
from dotmac_workflows._core.state import RunState, replay
from dotmac_workflows.result import WorkflowResult

WORKFLOW = "order-1"
STEPS = ("pay", "pack", "ship")
AS_USUAL = Settings()


def done(step: str, *, gated: bool = False) -> WorkflowResult:
    return WorkflowResult(True, step, requires_approval=gated)


def failed(step: str) -> WorkflowResult:
    return WorkflowResult(False, step, error="declined")


def plan(settings: Settings = AS_USUAL, steps: tuple[str, ...] = STEPS) -> list[Event]:
    return [ev.WorkflowStarted(1, "run", "Order", steps, settings, {}, None), ev.Claimed(2, "host:7:8:b:n", "token")]


def ran(step: str, position: int, *, gated: bool = False) -> list[Event]:
    return [ev.StepStarted(3, step, position, 1, 1), ev.StepSucceeded(4, done(step, gated=gated), gated)]


def undone(step: str, position: int, *, fails: bool = False) -> list[Event]:
    started = ev.RollbackStepStarted(7, step, position, 1, 1)
    if fails:
        return [started, ev.RollbackStepFailed(8, failed(f"rollback_{step}"), None, None)]
    return [started, ev.RollbackStepSucceeded(8, done(f"rollback_{step}"))]


ASKS = Settings(require_approval=True)
RUNNING = [*plan(), *ran("pay", 0), ev.StepStarted(5, "pack", 1, 1, 1)]
WAITING = [*plan(ASKS), *ran("pay", 0, gated=True), ev.ApprovalRequested(5, "pay")]
TURNED = [*RUNNING, ev.StepFailed(6, failed("pack"), None, None), ev.RollbackStarted(6, "pack")]
INCOMPLETE = [*TURNED, *undone("pay", 0, fails=True), ev.RollbackFinished(9, False), ev.WorkflowFailed(9)]

JOURNALS: dict[str, list[Event]] = {
    "not started": [],
    "running": RUNNING,
    "left by its driver": [*RUNNING[:4], ev.Released(5)],
    "pausing": [*RUNNING, ev.PauseRequested(6, "ann", None)],
    "paused": [*RUNNING[:4], ev.PauseRequested(5, "ann", None), ev.Paused(5)],
    "waiting": WAITING,
    "approved": [*WAITING, ev.Approved(6, "ann", {"limit": 5})],
    "rejected": [*WAITING, ev.Rejected(6, "ann", "too much")],
    "cancelling": [*RUNNING, ev.CancelRequested(6, "ann", "no more")],
    "rolling back": TURNED,
    "completed": [*plan(steps=("pay",)), *ran("pay", 0), ev.WorkflowCompleted(5)],
    "failed": [*RUNNING, ev.StepFailed(6, failed("pack"), None, None), ev.WorkflowFailed(6)],
    "failed and rolled back": [*TURNED, *undone("pay", 0), ev.RollbackFinished(9, True), ev.WorkflowFailed(9)],
    "failed and not undone": INCOMPLETE,
    "cancelled": [*WAITING, ev.Rejected(6, None, None), ev.WorkflowCancelled(7)],
}


def state(name: str) -> RunState:
    """Return one of the states."""
    return replay(WORKFLOW, JOURNALS[name])
