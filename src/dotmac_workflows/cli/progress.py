"""A line a step while a run is driven: what was recorded, told once it is durable."""

from collections.abc import Sequence

from ..persistence import Record
from .terminal import Part, Styled, Terminal, columns_of
from .timeline import body_of
from .wording import duration, outcome

_WIDEST_STEP = 30


class StepLines:
    """Tells of one run, or of several when it is given their ids to tell them apart by."""

    def __init__(
        self,
        terminal: Terminal,
        steps: Sequence[str] = (),
        *,
        workflow_id: str | None = None,
        heading: Sequence[Part] = (),
    ) -> None:
        """Make one for a run.

        Args:
            terminal: Where to write.
            steps: The run's steps, where it is known already.
            workflow_id: The only run to tell of; None: tell of all, by their ids.
            heading: The line above the first one; there is none when nothing runs.
        """
        self._heading = heading
        self._terminal = terminal
        self._only = workflow_id
        self._running: dict[str, tuple[str, int, int]] = {}
        self._plan(steps)

    def tell(self, workflow_id: str, records: Sequence[Record]) -> None:
        """Tell of what was recorded; whatever becomes of the output, the run goes on."""
        if self._only is not None and self._only != workflow_id:
            return
        try:
            if self._heading:
                self._terminal.line(*self._heading)
                self._heading = ()
            for record in records:
                self._tell(workflow_id, record)
        except OSError:
            self._only = ""  # nobody's id: nothing more can be told

    def _plan(self, steps: Sequence[str]) -> None:
        self._total = len(steps)
        self._width = min(_WIDEST_STEP, max(map(columns_of, steps), default=0))

    def _tell(self, workflow_id: str, record: Record) -> None:
        kind, body = record.kind, body_of(record)
        if kind == "workflow_started" and self._only is not None:
            self._plan(body["steps"])
        elif kind in ("step_started", "rollback_step_started"):
            running = self._running[workflow_id] = body["step"], body["position"], body["attempt"]
            again = f" again (attempt {running[2]})" if running[2] > 1 else ""
            what = "rollback started" if kind == "rollback_step_started" else "started"
            label = self._label(workflow_id, running)
            if self._terminal.is_terminal and self._only is not None:
                self._terminal.begin(f"{label}{what}{again} ...")
            else:
                self._terminal.line(label, Styled(f"{what}{again}", "dim"))
        elif "result" in body and workflow_id in self._running:
            label = self._label(workflow_id, self._running.pop(workflow_id))
            self._terminal.line(label, *_ending(kind, body["result"]))
        elif kind == "rollback_started":
            self._terminal.line("" if self._only else f"{workflow_id}  ", Styled("rolling back", "bad"))

    def _label(self, workflow_id: str, running: tuple[str, int, int]) -> str:
        step, position, _ = running
        name = step + " " * (self._width - columns_of(step))
        if self._only is None:
            return f"{workflow_id}  {name}  "
        number = f"{position + 1}/{self._total}".rjust(2 * len(str(self._total)) + 1)
        return f"  {number}  {name}  "


def _ending(kind: str, result: dict[str, object]) -> list[Part]:
    took = duration(result.get("execution_time"))
    said = outcome({**result, "data": None})
    match kind:
        case "step_succeeded":
            return [Styled("done", "good"), f" in {took}"]
        case "step_failed":
            return [Styled("failed", "bad"), f" after {took}: {said}"]
        case "step_interrupted":
            return [Styled("interrupted", "bad"), " by a cancel: its outcome is unknown"]
        case "rollback_step_succeeded":
            return [Styled("rolled back", "good"), f" in {took}"]
        case "rollback_step_skipped":
            return ["no rollback: nothing was undone"]
    return [Styled("rollback failed", "bad"), f" after {took}: {said}"]
