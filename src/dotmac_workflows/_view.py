"""What a workflow object shows of its run, and what callers may set of it.

The folded state belongs to the driver. An object's attributes are a view of it: plain attributes, written after each
commit, so that nothing is ever seen that was not recorded. Before a run they are the caller's to set, and what was
set becomes the run's draft; once a run is driven or stored, setting them is refused.
"""

from typing import TYPE_CHECKING, Any, get_args

from ._checks import check_draft
from ._core.events import Draft, Settings
from ._core.state import RunState
from ._read_only import ReadOnlyList, read_only
from ._run.live import LiveJournal
from ._run.local import LocalHost
from .errors import WorkflowExecutionError
from .persistence import Persistence
from .result import WorkflowResult
from .status import WorkflowStatus
from .types import RollbackStatus

if TYPE_CHECKING:
    from .base import Workflow

_RUNNING = WorkflowStatus.RUNNING  # looked up once: an enum's members are slow to get at
RUN_STATE = frozenset(
    {
        "status",
        "current_step_index",
        "results",
        "pending_approval_step",
        "approval_data",
        "steps",
        "metadata",
        "workflow_id",
    }
).union(Settings._fields)
"""The attributes that are a view of the run; `metadata` only with a persistence."""


class View:
    """What one workflow object knows of its run, beside the attributes that callers see.

    It holds no reference to the workflow: a workflow that nobody needs any more is freed at once, not by the garbage
    collector, whose visits cost a long run in memory a fifth of its time.
    """

    def __init__(self, persistence: Persistence | None) -> None:
        self.persistence = persistence
        self.live: LiveJournal | None = None
        """The journal of a run without persistence."""
        self.host: LocalHost | None = None
        """What drives, while this object does."""
        self.busy = False
        """Whether a verb of this object drives, or is about to."""
        self.known = False
        """Whether the run was started, as far as this object knows: its journal wins over what was set by hand."""
        self.invalid = False
        """Whether what is shown is a failed validation."""
        self.gate = 0
        """The gate that is shown; see `RunState.gate`."""
        self.workflow_type = ""
        """The type that the run was started with."""
        self._shown: list[WorkflowResult] | None = None
        """The results of the state that is shown; `_results` is what callers see of them."""
        self._results: list[WorkflowResult] = []
        self.rollback_status: RollbackStatus = "none"
        self.started_at: int | None = None
        self.ended_at: int | None = None

    def publish(self, attributes: dict[str, Any], state: RunState) -> None:
        """Show a committed state in the attributes of the object."""
        results = state.results
        if self._results is not results:
            if self._shown is results:
                self._results += results[len(self._results) :]
            else:
                self._publish_anew(attributes, state)
        attributes["current_step_index"] = state.index
        if state.attention or state.status is not attributes["status"]:
            self._publish_all(attributes, state)

    def _publish_all(self, attributes: dict[str, Any], state: RunState) -> None:
        """Show what cannot have changed between two steps."""
        attributes["status"] = state.status
        attributes["pending_approval_step"] = state.pending_step
        attributes["approval_data"] = state.approval_data
        self.gate = state.gate
        self.rollback_status = state.rollback_status
        self.ended_at = state.ended_at

    def _publish_anew(self, attributes: dict[str, Any], state: RunState) -> None:
        """Show everything of a state that this object has not shown a part of."""
        plan = state.plan
        self._shown = state.results
        # In memory nobody sees a state between its fold and its commit, and what is seen may be the state's own list.
        attributes["results"] = self._results = state.results if self.persistence is None else list(state.results)
        attributes["status"] = WorkflowStatus.PENDING
        if plan is not None:
            self.known, self.invalid = True, False
            attributes["steps"] = ReadOnlyList(plan.steps)
            if self.persistence is not None:
                attributes["metadata"] = read_only(plan.metadata)
            attributes.update(plan.settings._asdict())
            self.started_at = plan.at
            self.workflow_type = plan.workflow_type

    def before_assignment(self, attributes: dict[str, Any], name: str) -> None:
        """Refuse to have the state of a run set by hand, once there is one.

        Raises:
            WorkflowExecutionError: The run is driven by this object, or stored.
        """
        if not self.known and not self.busy:
            self.invalid = self.invalid and name != "status"
            return
        if name == "metadata" and self.persistence is None:
            return
        if not self.busy and self.persistence is None:
            # A run in memory is the object's own: what is shown, and now changed, is what it goes on from.
            self.live, self.known, self._shown, self.gate = None, False, None, 0
            attributes["steps"] = list(attributes["steps"])
            return
        workflow_id = attributes["workflow_id"]
        why = "it runs" if self.busy else "its run is stored, and the journal says what is so"
        raise WorkflowExecutionError(
            f"{name} of workflow {workflow_id!r} cannot be set: {why}. Set it before execute().",
            workflow_id=workflow_id,
        )

    def forget(self) -> None:
        """Show something that is no run's state."""
        self.invalid, self._shown = True, None

    def draft(self, w: "Workflow") -> Draft | None:
        """Return what was set by hand before the run, if anything was.

        Raises:
            WorkflowConfigurationError: It is of types that a run's state is not of.
        """
        if self.invalid:
            return None
        if w.status is WorkflowStatus.PENDING and not (
            w.current_step_index or w.results or w.pending_approval_step or w.approval_data
        ):
            return None
        draft = Draft(
            w.status,
            w.current_step_index,
            tuple(w.results),
            w.pending_approval_step,
            w.approval_data,
            self.rollback_status,
        )
        check_draft(draft, w.workflow_id)
        return draft

    def show_draft(self, data: dict[str, Any]) -> None:
        """Show of a draft what has no attribute of its own."""
        rollback_status = data.get("rollback_status", "none")
        if rollback_status not in get_args(RollbackStatus):
            raise ValueError(f"{rollback_status!r} is not a valid rollback_status")
        self.rollback_status = rollback_status
        start, end = data.get("start_time"), data.get("end_time")
        self.started_at = None if start is None else round(start * 1_000_000)
        self.ended_at = None if end is None else round(end * 1_000_000)
