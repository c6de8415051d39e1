"""Instants, durations, values and kinds of records in words, the same in every command."""

import json
from typing import Any

from .._core.commands import instant
from ..pictures.text import duration as duration
from ..status import WorkflowStatus
from .terminal import Styled

_LONGEST = 300  # characters of a text that a table shows; --json shows all
_STYLES = {
    WorkflowStatus.COMPLETED: "good",
    WorkflowStatus.FAILED: "bad",
    WorkflowStatus.CANCELLED: "bad",
    WorkflowStatus.WAITING_APPROVAL: "waits",
    WorkflowStatus.PAUSED: "waits",
}


_PHRASES = {
    WorkflowStatus.PENDING: "was not started",
    WorkflowStatus.RUNNING: "is running",
    WorkflowStatus.COMPLETED: "completed",
    WorkflowStatus.FAILED: "failed",
    WorkflowStatus.CANCELLED: "was cancelled",
    WorkflowStatus.WAITING_APPROVAL: "waits for approval",
    WorkflowStatus.PAUSED: "is paused",
}


def status_part(status: WorkflowStatus) -> Styled:
    """Return a status in its colour."""
    return Styled(str(status), _STYLES.get(status, ""))


def status_phrase(status: WorkflowStatus, *, driven: bool = True) -> Styled:
    """Return a status as the end of a sentence about a run, in its colour."""
    if status is WorkflowStatus.RUNNING and not driven:
        return Styled("is due", "waits")
    return Styled(_PHRASES[status], _STYLES.get(status, ""))


def day(at: int) -> str:
    """Return the day of an instant, in UTC."""
    return f"{instant(at):%Y-%m-%d}"


def time_of_day(at: int) -> str:
    """Return the time of an instant, in UTC, to the second."""
    return f"{instant(at):%H:%M:%S}"


def iso(at: int | None) -> str | None:
    """Return an instant for programs: ISO 8601, in UTC, to the microsecond."""
    return None if at is None else f"{instant(at):%Y-%m-%dT%H:%M:%S.%fZ}"


def values(data: object) -> str:
    """Return what a result holds for people, ``key=value``; what stands for a richer type is shown as its content."""
    try:
        shown = _plain(data)
        if not isinstance(shown, dict):
            return shorten(_text(shown))
        return shorten(" ".join(f"{key}={_text(value)}" for key, value in shown.items()))
    except RecursionError:
        return "(nested too deep to show)"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    tagged = value.get("$")
    if len(value) == 1 and isinstance(tagged, list) and len(tagged) == 2 and isinstance(tagged[0], str):
        if tagged[0] == "dict" and isinstance(tagged[1], dict):
            return {key: _plain(item) for key, item in tagged[1].items()}
        return _plain(tagged[1])
    return {key: _plain(item) for key, item in value.items()}


def shorten(text: str) -> str:
    """Return a text that a table can bear."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def outcome(result: dict[str, Any]) -> str:
    """Return what a result says, for people: its error and message, then its data."""
    message = str(result.get("message") or "")
    # Of a step that raised, the engine's own words say nothing that is not said beside it.
    raised = result.get("error") == "step_execution_error"
    code = "" if raised and message else str(result.get("error") or "")
    said = ": ".join(text for text in (code, message.removeprefix(f"Step {result.get('step')!r} failed: ")) if text)
    data = values(result["data"]) if result.get("data") else ""
    return shorten("; ".join(text for text in (said, data) if text))
