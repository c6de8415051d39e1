"""Events to rows and back.

A row carries its event's name in snake case as ``kind``, the instant as ``at``, and the other fields as a JSON
object, in the order of the event's fields. Values of the user's (`data`, metadata) are written by their `Codec`, and
read by it with the whole row.

A kind is written in one form for ever. When an event has to change, it gets a new kind, and the old kind stays in
`_EVENTS` with a reader that makes today's event of it; the journals of every release are replayed in the tests. A
kind that is not there was written by a newer version, and is refused untouched.
"""

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as _text
from typing import Any, NamedTuple

from ..errors import (
    JournalCorruptError,
    JournalTooNewError,
    PayloadTooLargeError,
    WorkflowConfigurationError,
    WorkflowError,
)
from ..result import WorkflowResult
from ..status import WorkflowStatus
from ..values import Codec
from . import events as ev
from .events import Draft, Event, Settings

_MAX_WORDS = 1024 * 1024  # bytes of JSON, of a text that users write: as much as a codec allows a value by default


class _Field(NamedTuple):
    """How one field of an event is written as JSON, and read from what the codec made of it."""

    write: Callable[[Any, Codec], str]
    read: Callable[[Any], Any]


def _typed(*types: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) not in types:
            raise TypeError(f"{value!r} is not {' or '.join(t.__name__ for t in types)}")
        return value

    return read


def _write_optional(value: str | None, codec: Codec) -> str:
    return "null" if value is None else _text(value)


def _words(name: str) -> Callable[[str | None, Codec], str]:
    """Return what writes a text of the user's, called `name` in errors."""

    def write(value: str | None, codec: Codec) -> str:
        if value is None:
            return "null"
        if not isinstance(value, str):
            raise WorkflowConfigurationError(f"{name} is of type {type(value).__name__}, and must be a str or None.")
        size = len(value)
        if size <= _MAX_WORDS:
            text = _text(value)
            size = len(text)
            if size <= _MAX_WORDS:
                return text
        raise PayloadTooLargeError(
            f"{name} is {size:,} bytes of JSON or more, and the limit is {_MAX_WORDS:,}. Keep the content elsewhere "
            "and its address here.",
            path=name,
            size=size,
            limit=_MAX_WORDS,
        )

    return write


_write_error, _write_message = _words("error"), _words("message")


def write_result(result: WorkflowResult, codec: Codec) -> str:
    """Return a result as JSON; what is None is left out."""
    parts = ['{"success":', "true" if result.success else "false", ',"step":', _text(result.step)]
    if result.data:
        parts += (',"data":', codec.encode(result.data, "data"))
    if result.error is not None:
        parts += (',"error":', _write_error(result.error, codec))
    if result.message is not None:
        parts += (',"message":', _write_message(result.message, codec))
    if result.execution_time is not None:
        parts += (',"execution_time":', json.dumps(result.execution_time, allow_nan=False))
    if result.requires_approval:
        parts.append(',"requires_approval":true')
    parts.append("}")
    return "".join(parts)


def _read_result(value: Any) -> WorkflowResult:
    result = WorkflowResult.from_dict(value)
    _typed(bool)(result.success)
    for text in (result.error, result.message):
        _typed(str, type(None))(text)
    return result


def _read_steps(value: Any) -> tuple[str, ...]:
    return tuple(_typed(str)(step) for step in _typed(list)(value))


def _write_draft(draft: Draft | None, codec: Codec) -> str:
    if draft is None:
        return "null"
    approval = "null" if draft.approval_data is None else codec.encode(draft.approval_data, "approval_data")
    results = ",".join(write_result(result, codec) for result in draft.results)
    return (
        f'{{"status":{_text(draft.status.value)},"current_step_index":{draft.current_step_index},"results":[{results}],'
        f'"pending_approval_step":{_write_optional(draft.pending_approval_step, codec)},"approval_data":{approval},'
        f'"rollback_status":{_text(draft.rollback_status)}}}'
    )


def _read_draft(value: Any) -> Draft | None:
    if value is None:
        return None
    fields = dict(value)
    fields["status"] = WorkflowStatus(fields["status"])
    fields["results"] = tuple(_read_result(result) for result in fields["results"])
    _typed(int)(fields["current_step_index"])
    return Draft(**fields)


_TEXT = _Field(lambda value, codec: _text(value), _typed(str))
_OPTIONAL = _Field(_write_optional, _typed(str, type(None)))
_ACTOR = _Field(_words("actor"), _typed(str, type(None)))
_REASON = _Field(_words("reason"), _typed(str, type(None)))
_NUMBER = _Field(lambda value, codec: str(value), _typed(int))
_FLAG = _Field(lambda value, codec: "true" if value else "false", _typed(bool))
_APPROVAL = _Field(lambda value, codec: codec.encode(value, "approval_data"), _typed(dict))
_METADATA = _Field(lambda value, codec: codec.encode(value, "metadata"), _typed(dict))
_RESULT = _Field(write_result, _read_result)
_STEPS = _Field(lambda value, codec: json.dumps(value), _read_steps)
_SETTINGS = _Field(lambda value, codec: json.dumps(value._asdict()), lambda value: Settings(**value))
_DRAFT = _Field(_write_draft, _read_draft)

_EVENTS: dict[type[Any], dict[str, _Field]] = {
    ev.WorkflowStarted: {
        "run_id": _TEXT,
        "workflow_type": _TEXT,
        "steps": _STEPS,
        "settings": _SETTINGS,
        "metadata": _METADATA,
        "draft": _DRAFT,
    },
    ev.Claimed: {"owner": _TEXT, "token": _TEXT},
    ev.Released: {},
    ev.StepStarted: {"step": _TEXT, "position": _NUMBER, "visit": _NUMBER, "attempt": _NUMBER},
    ev.StepSucceeded: {"result": _RESULT, "gated": _FLAG},
    ev.StepFailed: {"result": _RESULT, "exception": _OPTIONAL, "traceback": _OPTIONAL},
    ev.StepInterrupted: {"result": _RESULT},
    ev.ApprovalRequested: {"step": _TEXT},
    ev.Approved: {"actor": _ACTOR, "data": _APPROVAL},
    ev.Rejected: {"actor": _ACTOR, "reason": _REASON},
    ev.PauseRequested: {"actor": _ACTOR, "reason": _REASON},
    ev.Paused: {},
    ev.Resumed: {"actor": _ACTOR},
    ev.CancelRequested: {"actor": _ACTOR, "reason": _REASON},
    ev.RollbackStarted: {"step": _TEXT},
    ev.RollbackStepStarted: {"step": _TEXT, "position": _NUMBER, "visit": _NUMBER, "attempt": _NUMBER},
    ev.RollbackStepSucceeded: {"result": _RESULT},
    ev.RollbackStepSkipped: {"result": _RESULT},
    ev.RollbackStepFailed: {"result": _RESULT, "exception": _OPTIONAL, "traceback": _OPTIONAL},
    ev.RollbackFinished: {"complete": _FLAG},
    ev.RollbackRetried: {"actor": _ACTOR},
    ev.RollbackWaived: {"step": _TEXT, "actor": _ACTOR, "reason": _REASON},
    ev.WorkflowCompleted: {},
    ev.WorkflowFailed: {},
    ev.WorkflowCancelled: {},
    ev.Retried: {"actor": _ACTOR, "from_index": _NUMBER},
}


def _kind(event_type: type[Any]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event_type.__name__).lower()


_KINDS = {event_type: _kind(event_type) for event_type in _EVENTS}
_TYPES = {kind: event_type for event_type, kind in _KINDS.items()}


def encode(event: Event, codec: Codec) -> tuple[str, str]:
    """Return an event's kind and body.

    Raises:
        ResultNotSerializableError: A value of the user's cannot be stored.
        PayloadTooLargeError: A value or a text of the user's is too large.
        WorkflowConfigurationError: A text of the user's is none.
    """
    event_type = type(event)
    parts = [
        f'"{name}":{field.write(value, codec)}'
        for (name, field), value in zip(_EVENTS[event_type].items(), event[1:], strict=True)
    ]
    return _KINDS[event_type], "{" + ",".join(parts) + "}"


def decode(kind: str, at: int, body: str, codec: Codec) -> Event:
    """Return the event that a row holds.

    Raises:
        JournalTooNewError: The kind is none that this version knows.
        JournalCorruptError: The body is not what the kind says.
        ResultNotSerializableError: A value needs a type that this codec does not know.
    """
    event_type = _TYPES.get(kind)
    if event_type is None:
        raise JournalTooNewError(f"there is no event {kind!r} in this version; upgrade dotmac-workflows to read it")
    try:
        fields = codec.decode(body, "its body")
        table = _EVENTS[event_type]
        if fields.keys() != table.keys():
            raise ValueError(f"its fields are {sorted(fields)}, not {sorted(table)}")
        event: Event = event_type(at, *(field.read(fields[name]) for name, field in table.items()))
    except WorkflowError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise JournalCorruptError(f"its body is not that of a {kind!r} ({error})") from error
    return event
