"""A journal as rows for people: one a step and attempt, one for whatever else happened.

Rows are read as plain JSON, without the user's class and its types, and leniently: what a newer version or a hand
with an editor put there is shown as it is.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._run.lease import describe
from ..persistence import Record
from .wording import outcome, shorten, values

_STARTS = {"step_started": "step", "rollback_step_started": "rollback"}
_WORDS: dict[str, tuple[str, str]] = {
    "workflow_started": ("run started", "bold"),
    "claimed": ("taken up", "dim"),
    "released": ("let go", "dim"),
    "step_started": ("step started", ""),
    "step_succeeded": ("step done", "good"),
    "step_failed": ("step failed", "bad"),
    "step_interrupted": ("step interrupted", "bad"),
    "approval_requested": ("waits for approval", "waits"),
    "approved": ("approved", "good"),
    "rejected": ("rejected", "bad"),
    "pause_requested": ("pause requested", ""),
    "paused": ("paused", "waits"),
    "resumed": ("resumed", ""),
    "cancel_requested": ("cancel requested", "bad"),
    "rollback_started": ("rolling back", "bad"),
    "rollback_step_started": ("rollback started", ""),
    "rollback_step_succeeded": ("rolled back", "good"),
    "rollback_step_skipped": ("no rollback", ""),
    "rollback_step_failed": ("rollback failed", "bad"),
    "rollback_finished": ("rollback ended", ""),
    "rollback_retried": ("rollback retried", ""),
    "rollback_waived": ("rollback skipped", ""),
    "workflow_completed": ("completed", "good"),
    "workflow_failed": ("failed", "bad"),
    "workflow_cancelled": ("cancelled", "bad"),
    "retried": ("retried", ""),
}
"""What each kind of record is called, and how it stands out."""


@dataclass
class Row:
    """A line of a timeline."""

    at: int
    """When it happened, or began, in microseconds since 1970 UTC."""
    what: str
    style: str
    step: str = ""
    attempt: int | None = None
    took: float | None = None
    """In seconds."""
    detail: str = ""


def body_of(record: Record) -> dict[str, Any]:
    """Return a record's fields; of one that cannot be read, its text."""
    try:
        body = json.loads(record.body)
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else {"body": record.body}


def timeline(records: Iterable[Record]) -> list[Row]:
    """Return the rows of a journal."""
    rows: list[Row] = []
    open_row: Row | None = None
    for record in records:
        body = body_of(record)
        row = _row(record, body)
        if record.kind in _STARTS:
            rows.append(row)
            open_row = row
            continue
        if "result" in body and open_row is not None:
            row.step, row.attempt = open_row.step, open_row.attempt
            if open_row is rows[-1]:
                row.at = open_row.at
                rows.pop()
            open_row = None
        rows.append(row)
    return rows


def _row(record: Record, body: dict[str, Any]) -> Row:
    what, style = _WORDS.get(record.kind, (record.kind.replace("_", " "), ""))
    row = Row(record.at, what, style)
    step, attempt, result = body.get("step"), body.get("attempt"), body.get("result")
    row.step = step if isinstance(step, str) else ""
    row.attempt = attempt if isinstance(attempt, int) else None
    if isinstance(result, dict):
        row.step = row.step or str(result.get("step", ""))
        took = result.get("execution_time")
        row.took = took if isinstance(took, int | float) else None
        row.detail = "" if record.kind == "rollback_step_skipped" else outcome(result)
    else:
        row.detail = _detail(record.kind, body)
    return row


def _detail(kind: str, body: dict[str, Any]) -> str:
    match kind:
        case "workflow_started":
            metadata = body.get("metadata")
            return f"{body.get('workflow_type')}{': ' + values(metadata) if metadata else ''}"
        case "claimed":
            return f"by {describe(str(body.get('owner')))}"
        case "rollback_finished":
            return "everything was undone" if body.get("complete") is True else "incomplete"
        case "retried":
            index = body.get("from_index")
            return f"from step {index + 1 if isinstance(index, int) else '?'}{_by(body)}"
    if kind in _STARTS:
        visit = body.get("visit")
        return f"visit {visit}" if isinstance(visit, int) and visit > 1 else ""
    if kind not in _WORDS:
        return values(body)
    told = [_by(body).strip(), str(body.get("reason") or ""), values(body["data"]) if body.get("data") else ""]
    return shorten(": ".join(text for text in told if text))


def _by(body: dict[str, Any]) -> str:
    return f" by {body['actor']}" if body.get("actor") else ""
