"""A plan as a Mermaid flowchart: its steps from top to bottom, its undoing beside them from bottom to top.

It is drawn from what a workflow object shows. A gate is known by a step that asked for an approval: before a plan
has run, which steps will ask is not known, and no gate is drawn. The undo path is drawn while it can still be taken,
and once it was taken with those steps alone that it visits.

Every state has a sign and words beside its colour. The colours are those of Okabe and Ito, which the colour-blind can
tell apart, as borders round a light fill with dark text, so that a box reads on a light and on a dark page; what did
not happen has no fill.
"""

import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..result import WorkflowResult
from ..status import WorkflowStatus
from .text import one_line

if TYPE_CHECKING:
    from ..base import Workflow

_LONGEST_NAME = 60
_ENDED = frozenset({WorkflowStatus.COMPLETED, WorkflowStatus.FAILED, WorkflowStatus.CANCELLED})
_PHRASES = {
    WorkflowStatus.RUNNING: "is running",
    WorkflowStatus.COMPLETED: "completed",
    WorkflowStatus.FAILED: "failed",
    WorkflowStatus.CANCELLED: "was cancelled",
    WorkflowStatus.WAITING_APPROVAL: "waits for approval",
    WorkflowStatus.PAUSED: "is paused",
}
_SIGNS = {"done": "✓", "failed": "✗", "unknown": "?", "running": "►", "waiting": "…", "paused": "‖", "undone": "↶"}
_CLASSES = {
    "pending": "fill:none,stroke:#8a8a8a,stroke-dasharray:4 3",
    "running": "fill:#d6e9f5,stroke:#0072B2,color:#111,stroke-width:3px",
    "done": "fill:#d5f0e7,stroke:#009E73,color:#111,stroke-width:2px",
    "waiting": "fill:#fdf0d3,stroke:#E69F00,color:#111,stroke-width:3px",
    "paused": "fill:#fcfad2,stroke:#B5A900,color:#111,stroke-width:3px",
    "failed": "fill:#fae0d2,stroke:#D55E00,color:#111,stroke-width:3px",
    "unknown": "fill:#fae0d2,stroke:#D55E00,color:#111,stroke-dasharray:2 2",
    "undone": "fill:#f6e4ee,stroke:#CC79A7,color:#111,stroke-width:2px",
    "skipped": "fill:none,stroke:#8a8a8a",
}
"""How each state is drawn, in the order in which the definitions are written."""

# Of a plain name nothing changes; what could mean anything to Mermaid, Markdown or HTML becomes a character code.
_UNSAFE = re.compile(r"(?<![^\W_])[_-]|[_-](?![^\W_])|[^\w -]")


class _Box(NamedTuple):
    """What is drawn of a step, a gate, or the undoing of a step."""

    node: str
    state: str
    name: str
    said: str = ""
    gate: bool = False

    def line(self) -> str:
        sign = _SIGNS.get(self.state)
        label = f"{sign} {_safe(self.name)}" if sign else _safe(self.name)
        if self.said:
            label += f"<br/>{_safe(self.said)}"
        return f'{self.node}{{{{"{label}"}}}}:::{self.state}' if self.gate else f'{self.node}["{label}"]:::{self.state}'


class _Standing(NamedTuple):
    """A workflow's results, each at its place in the plan."""

    steps: list[str]
    forward: dict[int, WorkflowResult]
    rejected: bool
    rollback: dict[int, WorkflowResult]


def to_mermaid(workflow: "Workflow") -> str:
    """Return the flowchart of a workflow's plan, and of where its run stands; see `Workflow.to_mermaid`."""
    standing = _standing(workflow)
    boxes = _plan(workflow, standing)
    lines = ["flowchart LR", f'  subgraph plan["{_safe(_title(workflow), 300)}"]', "    direction TB"]
    lines += [f"    {box.line()}" for box in boxes]
    if not boxes:
        lines.append('    s0["no steps"]:::skipped')
    lines += [
        f"    {before.node} {'-- if approved -->' if before.gate and before.state != 'done' else '-->'} {after.node}"
        for before, after in pairwise(boxes)
    ]
    lines.append("  end")
    undo = _undo(workflow, standing)
    if undo:
        lines += ['  subgraph undo["undo, the last one first"]', "    direction BT"]
        lines += [f"    {box.line()}" for box in undo]
        lines += [f"    {before.node} --> {after.node}" for before, after in pairwise(undo)]
        lines += ["  end", f'  plan -. "{_safe(_why_undo(workflow, standing), 300)}" .-> undo']
    drawn = {box.state for box in [*boxes, *undo]} or {"skipped"}
    lines += [f"  classDef {name} {style}" for name, style in _CLASSES.items() if name in drawn]
    frames = "plan,undo" if undo else "plan"
    lines += ["  classDef frame fill:none,stroke:#8a8a8a", f"  class {frames} frame"]
    return "\n".join(lines) + "\n"


def _safe(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return text for a label in double quotes."""
    # Mermaid marks character codes by a ligature of its own, and would take a text that has it for one.
    shown = one_line(text).replace("\ufb02", "fl") or "(no name)"
    if len(shown) > longest:
        shown = shown[: longest - 1].rstrip() + "…"
    return _UNSAFE.sub(lambda found: f"#{ord(found[0])};", shown)


def _title(workflow: "Workflow") -> str:
    view = workflow._workflow_view
    name = view.workflow_type or type(workflow).workflow_type or type(workflow).__name__
    if workflow.status is WorkflowStatus.PENDING:
        return name
    phrase = _PHRASES[workflow.status]
    if view.invalid and workflow.results:
        phrase = f"was not started: {workflow.results[0].error or 'its validation failed'}"
    return f"{name} {workflow.workflow_id} {phrase}"


def _standing(workflow: "Workflow") -> _Standing:
    """Find the place of each result: results are in the order of the plan, those of the rollback at the end."""
    steps = list(workflow.steps)
    forward: dict[int, WorkflowResult] = {}
    rollback: dict[int, WorkflowResult] = {}
    rejected = False
    place = 0
    for result in [] if workflow._workflow_view.invalid else workflow.results:
        decided = place - 1 in forward and result.error == "approval_rejected" and result.step == steps[place - 1]
        if decided and forward[place - 1].success:
            rejected = True
            continue
        upto = steps[place : workflow.current_step_index + 1]
        if result.step in upto:
            place += upto.index(result.step)
            forward[place] = result
            place += 1
            continue
        undone = result.step.removeprefix("rollback_")
        at = max((p for p in forward if p not in rollback and steps[p] == undone), default=None)
        if at is not None:
            rollback[at] = result
    return _Standing(steps, forward, rejected, rollback)


def _plan(workflow: "Workflow", standing: _Standing) -> list[_Box]:
    boxes = []
    for place, step in enumerate(standing.steps):
        boxes.append(_Box(f"s{place}", *_step(workflow, standing, place, step)))
        result = standing.forward.get(place)
        waits = workflow.status is WorkflowStatus.WAITING_APPROVAL and place == workflow.current_step_index
        asked = workflow.require_approval and result is not None and result.success and result.requires_approval
        if waits or asked:
            boxes.append(_Box(f"g{place}", *_gate(workflow, standing, place, waits), gate=True))
    return boxes


def _step(workflow: "Workflow", standing: _Standing, place: int, step: str) -> tuple[str, str, str]:
    """Return the state of a step, its name, and what is said of it."""
    result, here = standing.forward.get(place), place == workflow.current_step_index
    if result is not None:
        if result.success:
            return "done", step, ""
        if result.error == "step_interrupted":
            return "unknown", step, "interrupted: its outcome is unknown"
        return "failed", step, _failure(result)
    if place < workflow.current_step_index:
        return "skipped", step, "passed"  # by a state that was set by hand
    if here and workflow.rollback_status == "none" and not standing.rejected:
        if workflow.status is WorkflowStatus.RUNNING:
            return "running", step, "runs, or is next"
        if workflow.status is WorkflowStatus.PAUSED:
            return "paused", step, "paused before it"
        if workflow.status is WorkflowStatus.WAITING_APPROVAL:
            return "done", step, ""  # by a state that was set by hand
    return "pending", step, "not run" if workflow.status in _ENDED else ""


def _failure(result: WorkflowResult) -> str:
    if result.error == "step_execution_error":
        return "raised an error"
    return f"failed: {result.error}" if result.error else "failed"


def _gate(workflow: "Workflow", standing: _Standing, place: int, waits: bool) -> tuple[str, str, str]:
    if waits:
        return "waiting", "approval", "waits for a decision"
    if place < workflow.current_step_index:
        return "done", "approved", ""
    if standing.rejected:
        return "failed", "rejected", ""
    return "skipped", "approval", "not decided"


def _undo(workflow: "Workflow", standing: _Standing) -> list[_Box]:
    """Return the undoing of steps, the last one first; none where there will not be any."""
    last_first = reversed(list(enumerate(standing.steps)))
    if workflow.rollback_status == "none":
        if workflow.status in _ENDED or not (workflow.rollback_on_failure or workflow.rollback_on_cancel):
            return []
        return [_Box(f"u{place}", "pending", f"undo {step}") for place, step in last_first]
    running, boxes = workflow.rollback_status == "running", []
    for place, step in last_first:
        result, undone = standing.forward.get(place), standing.rollback.get(place)
        if undone is not None:
            boxes.append(_Box(f"u{place}", *_undone(step, undone)))
        elif result is not None and (result.success or result.error == "step_interrupted"):
            first = all(box.state != "running" for box in boxes)
            state = "running" if running and first else "pending"
            said = "not tried" if not running else "runs, or is next" if first else ""
            boxes.append(_Box(f"u{place}", state, f"undo {step}", said))
    return boxes


def _undone(step: str, result: WorkflowResult) -> tuple[str, str, str]:
    """Return the state of a step's undoing; what the engine itself writes in a message tells a skipped one."""
    if not result.success:
        return "failed", f"undo {step}", _failure(result)
    message = result.message or ""
    if message == f"Step {step!r} has no rollback: nothing was undone.":
        return "skipped", f"undo {step}", "has no rollback"
    if message.startswith("Rollback skipped"):
        return "skipped", f"undo {step}", "skipped: put right by hand"
    return "undone", f"{step} undone", ""


def _why_undo(workflow: "Workflow", standing: _Standing) -> str:
    """Return what leads, or led, from the plan to its undoing."""
    if workflow.rollback_status == "none":
        reasons = {"a step fails": workflow.rollback_on_failure, "rejected or cancelled": workflow.rollback_on_cancel}
        return ", or ".join(reason for reason, counts in reasons.items() if counts)
    if standing.rejected:
        return "rejected"
    last = standing.forward.get(workflow.current_step_index)
    cancelled = workflow.status is WorkflowStatus.CANCELLED
    if cancelled or last is None or last.success or last.error == "step_interrupted":
        return "cancelled"
    return f"{last.step} failed"
