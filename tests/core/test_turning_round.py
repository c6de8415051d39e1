"""What a run ends as when more than one thing ends it."""

from dotmac_workflows._core.decide import decide
from dotmac_workflows._core.events import CancelRequested, Claimed, Settings, StepFailed, StepStarted, WorkflowStarted
from dotmac_workflows._core.state import replay
from dotmac_workflows.result import WorkflowResult


def test_a_cancel_wins_over_a_failure_of_the_step_that_it_hit() -> None:
    state = replay(
        "order-42",
        [
            WorkflowStarted(1, "run", "Order", ("reserve",), Settings(), {}, None),
            Claimed(1, "owner", "token"),
            StepStarted(1, "reserve", 0, 1, 1),
            CancelRequested(2, None, None),
            StepFailed(3, WorkflowResult(False, "reserve", error="declined"), None, None),
        ],
    )
    events, _ = decide(state, 3)
    # Failed, it could be retried, with its cancel still in force.
    assert [type(event).__name__ for event in events] == ["WorkflowCancelled"]
