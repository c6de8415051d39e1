"""A journal as stretches of time: what ran, waited, was paused, was left by a crash, and how each ended.

Read as plain JSON, without the user's class and its types, and leniently: a record that is damaged or of a newer
version is a mark of its own. Clocks can be set back; an instant before that of the record before it counts as that.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from .._core.commands import instant
from ..persistence import Record
from .text import duration, one_line

Look = Literal["done", "failed", "unknown", "running", "waits", "paused", "undone", "skipped", "mark"]

_NOTABLE = 1_000_000  # microseconds: a decided run that nobody drives for longer is told of
_STATUS: dict[str, tuple[str, Look]] = {
    "workflow_started": ("running", "running"),
    "approval_requested": ("waits for approval", "waits"),
    "approved": ("running", "running"),
    "rejected": ("running", "running"),
    "cancel_requested": ("running", "running"),
    "paused": ("paused", "paused"),
    "resumed": ("running", "running"),
    "rollback_started": ("rolling back", "running"),
    "rollback_retried": ("rolling back", "running"),
    "retried": ("running", "running"),
    "workflow_completed": ("completed", "done"),
    "workflow_failed": ("failed", "failed"),
    "workflow_cancelled": ("cancelled", "failed"),
}
_FROM_OUTSIDE = frozenset({"approved", "rejected", "pause_requested", "cancel_requested", "resumed"})
"""What is written by whoever asks, while another process may drive."""
_ENDS = frozenset({"workflow_completed", "workflow_failed", "workflow_cancelled"})
_OUTCOMES: dict[str, tuple[Look, str]] = {
    "step_succeeded": ("done", "done in"),
    "step_failed": ("failed", "failed after"),
    "step_interrupted": ("unknown", "interrupted after"),
    "rollback_step_succeeded": ("undone", "undone in"),
    "rollback_step_skipped": ("skipped", ""),
    "rollback_step_failed": ("failed", "failed after"),
}
_DECISIONS: dict[str, tuple[Look, str]] = {
    "approved": ("done", "approved"),
    "rejected": ("failed", "rejected"),
    "cancel_requested": ("failed", "cancelled"),
}


@dataclass
class Span:
    """One row of the picture."""

    label: str
    """What it is: a step, a wait, a mark."""
    look: Look
    """How it ended, or stands: its sign."""
    start: int
    """In microseconds since 1970 UTC, as all instants here."""
    end: int | None
    """None: it goes on."""
    note: str = ""
    """How it went, in a few words."""
    detail: str = ""
    """Who said so and why; what a step said."""
    suffix: str = ""
    """Which attempt and visit it is; goes with the label."""
    bar: Look | None = None
    """What its bar looks like, where that is not how it ended: a wait is one, however it was decided."""


@dataclass
class Timeline:
    """What a journal tells."""

    workflow_type: str = ""
    status: str = "not started"
    look: Look = "mark"
    started: int = 0
    last: int = 0
    """When the last record was written."""
    spans: list[Span] = field(default_factory=list)
    idle: list[tuple[int, int | None, str]] = field(default_factory=list)
    """The stretches in which nobody drove, in order: from, to, why."""


def read_timeline(records: Iterable[Record]) -> Timeline:
    """Return what records tell, in their order."""
    reader = _Reader()
    for record in records:
        reader.read(record)
    return reader.finish()


class _Reader:
    """Goes through the records with what is open at each point: a step, a wait, a driver."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.now = 0
        self.step: Span | None = None
        """The step or rollback step in flight."""
        self.lost: Span | None = None
        """The step whose driver was gone, until it is taken up."""
        self.wait: Span | None = None
        """The gate, the pause, or the end that the run stands at."""
        self.driven = False
        self.free_since: int | None = None
        """Since when the run is due and nobody drives it."""
        self.alive = 0
        """When a driver last wrote a record."""
        self.let_go = False
        self.pause: dict[str, Any] = {}

    def read(self, record: Record) -> None:
        timeline = self.timeline
        self.now = max(self.now, record.at) if timeline.started else record.at
        body = _body(record)
        timeline.started = timeline.started or self.now
        timeline.status, timeline.look = _STATUS.get(record.kind, (timeline.status, timeline.look))
        match record.kind:
            case "workflow_started":
                timeline.workflow_type = _text(body, "workflow_type")
                self._begin_draft(body.get("draft"))
            case "claimed":
                self._claimed()
            case "released":
                self._released()
            case "step_started":
                self._start(body, "")
            case "rollback_step_started":
                self._start(body, "undo ")
            case kind if kind in _OUTCOMES:
                self._outcome(kind, body)
            case "approval_requested":
                self._begin_wait("waits", f"decision on {_step(body)}", "waits for a decision")
            case kind if kind in _DECISIONS:
                self._decide(kind, body)
            case "pause_requested":
                self.pause = body
            case "paused":
                who = _who(self.pause)
                self._begin_wait("paused", "paused", "not resumed yet", f"paused {who}" if who else "")
            case "resumed":
                self._end_wait("paused", f"resumed{_by(body)} after {self._took()}")
            case "rollback_started":
                self._mark("rolling back", "undone", f"turned round at {_step(body)}")
            case "rollback_finished":
                if body.get("complete") is not True:
                    self._mark("rollback incomplete", "failed", "something is left to undo")
            case "rollback_waived":
                self._mark(f"undo {_step(body)}", "skipped", "skipped: put right by hand", _who(body))
            case "retried" | "rollback_retried":
                word = "retried" if record.kind == "retried" else "rollback retried"
                self._end_wait(None, f"{word}{_by(body)} after {self._took()}")
            case kind if kind in _ENDS:
                self._end(kind)
            case kind:
                self._mark(one_line(kind.replace("_", " ")), "mark", "")
        timeline.last = self.now
        if record.kind not in _FROM_OUTSIDE:
            self.alive = self.now

    def finish(self) -> Timeline:
        """Say of what is still open that it goes on."""
        timeline = self.timeline
        if self.step is not None:
            self.step.note = "no outcome recorded yet"
            if not self.driven:
                self.step.look = "unknown"
        if timeline.status in ("running", "rolling back") and not self.driven:
            timeline.status, timeline.look = f"{timeline.status}, due: nobody drives it", "waits"
        return timeline

    def _add(self, span: Span) -> Span:
        self.timeline.spans.append(span)
        return span

    def _mark(self, label: str, look: Look, note: str, detail: str = "") -> None:
        self._add(Span(label, look, self.now, self.now, note, detail))

    def _idle(self, start: int, end: int | None, why: str) -> None:
        self.timeline.idle.append((start, end, why))

    def _took(self) -> str:
        return duration((self.now - self.wait.start) / 1_000_000) if self.wait is not None else ""

    # A driver comes and goes.

    def _claimed(self) -> None:
        if self.driven:  # the one before it never let go
            gap = f"taken up after {duration((self.now - self.alive) / 1_000_000)}"
            if self.step is not None:
                self._leave("driver gone: no outcome", gap)
            else:
                self._add(Span("driver gone", "unknown", self.alive, self.now, gap))
            self._idle(self.alive, self.now, "driver gone")
        elif self.free_since is not None and (self.let_go or self.now - self.free_since >= _NOTABLE):
            note = f"for {duration((self.now - self.free_since) / 1_000_000)}, then taken up"
            self._add(Span("nobody drives", "mark", self.free_since, self.now, note))
            self._idle(self.free_since, self.now, "nobody drives")
        self.driven, self.free_since, self.let_go = True, None, False

    def _released(self) -> None:
        if self.step is not None:
            self._leave("let go: no outcome", "its driver was shut down")
        self.driven, self.free_since, self.let_go = False, self.now, True

    def _leave(self, note: str, detail: str) -> None:
        """End the row of a step whose outcome nobody recorded."""
        assert self.step is not None, "only a step in flight can be left"
        self.step.look, self.step.end, self.step.note, self.step.detail = "unknown", self.now, note, detail
        self.lost, self.step = self.step, None

    # Steps.

    def _start(self, body: dict[str, Any], what: str) -> None:
        attempt, visit = body.get("attempt"), body.get("visit")
        words = [
            f"visit {visit}" if isinstance(visit, int) and visit > 1 else "",
            f"try {attempt}" if isinstance(attempt, int) and attempt > 1 else "",
        ]
        self.lost = None
        suffix = ", ".join(word for word in words if word)
        self.step = self._add(Span(f"{what}{_step(body)}", "running", self.now, None, suffix=suffix))

    def _outcome(self, kind: str, body: dict[str, Any]) -> None:
        look, words = _OUTCOMES[kind]
        given = body.get("result")
        result: dict[str, Any] = given if isinstance(given, dict) else {}
        step, self.step = self.step, None
        if step is None and self.lost is not None:
            self.lost.detail += " and cancelled"  # said of a step that a crash left
            return
        if step is None:
            step = self._add(Span(_text(result, "step") or "step", look, self.now, self.now))
        took = result.get("execution_time")
        told = isinstance(took, int | float) and 0 <= took < float("inf")
        seconds = took if told else (self.now - step.start) / 1_000_000
        step.look, step.end = look, self.now
        if kind == "rollback_step_skipped":
            step.note = "has no rollback"
            return
        step.note = f"{words} {duration(seconds)}"
        step.detail = _said(result)

    # Waits.

    def _begin_draft(self, draft: object) -> None:
        if isinstance(draft, dict) and draft.get("status") == "waiting_approval":
            step = _text(draft, "pending_approval_step") or "the step before"
            self.timeline.status, self.timeline.look = "waits for approval", "waits"
            self._begin_wait("waits", f"decision on {step}", "waits for a decision")

    def _begin_wait(self, look: Look, label: str, note: str, detail: str = "") -> None:
        self.driven, self.free_since = False, None
        self.wait = self._add(Span(label, look, self.now, None, note, detail, bar=look))

    def _end_wait(self, look: Look | None, note: str, detail: str | None = None) -> None:
        """Close what the run stood at; it is due from here on."""
        wait, self.wait = self.wait, None
        self.free_since = self.now
        if wait is None:
            return
        wait.end, wait.note = self.now, note
        wait.look = look or wait.look
        wait.detail = wait.detail if detail is None else detail
        self._idle(wait.start, wait.end, wait.label)

    def _decide(self, kind: str, body: dict[str, Any]) -> None:
        look, word = _DECISIONS[kind]
        if self.wait is not None and self.wait.look == "waits":
            same_day = instant(self.wait.start).date() == instant(self.now).date()
            when = f"{instant(self.now):{'%H:%M:%S' if same_day else '%Y-%m-%d %H:%M'}}"
            self._end_wait(look, f"{word} after {self._took()}", _who(body, f", {when}"))
            return
        if self.wait is not None:
            self._end_wait(None, f"for {self._took()}")
        elif not self.driven:
            self.free_since = self.now
        self._mark(word if kind != "cancel_requested" else "cancel requested", look, "", _who(body))

    def _end(self, kind: str) -> None:
        self.driven, self.free_since = False, None
        status, look = _STATUS[kind]
        took = duration((self.now - self.timeline.started) / 1_000_000)
        self.wait = self._add(Span(status, look, self.now, self.now, f"{took} after the start", bar="mark"))


def _body(record: Record) -> dict[str, Any]:
    try:
        body = json.loads(record.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return one_line(value) if isinstance(value, str) else ""


def _step(body: dict[str, Any]) -> str:
    return _text(body, "step") or "(no name)"


def _by(body: dict[str, Any]) -> str:
    return f" by {actor}" if (actor := _text(body, "actor")) else ""


def _who(body: dict[str, Any], when: str = "") -> str:
    """Return who said something, and why."""
    texts = (f"{_by(body)}{when}".strip(" ,"), _text(body, "reason"))
    return ": ".join(text for text in texts if text)


def _said(result: dict[str, Any]) -> str:
    """Return what a result says for people: its code and message; never its data, which may not be for every eye."""
    message = _text(result, "message")
    raised = result.get("error") == "step_execution_error"
    code = "" if raised and message else _text(result, "error")
    message = message.removeprefix(f"Step '{_text(result, 'step')}' failed: ")
    return ": ".join(text for text in (code, message) if text)
