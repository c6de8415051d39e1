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
from math import inf, nextafter
from typing import Any, NamedTuple, TypeVar

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
from .events import Draft, Event, Settings, new_event

_E = TypeVar("_E", bound=Event)

_MAX_WORDS = 1024 * 1024  # bytes of JSON, of a text that users write: as much as a codec allows a value by default

_LONGEST = nextafter(inf, 0.0)  # seconds: no infinity, and no integer that could not be read back


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
    text = f'{{"success":{"true" if result.success else "false"},"step":{_text(result.step)}'
    if result.data:
        text += f',"data":{codec.encode(result.data, "data")}'
    if result.error is not None:
        text += f',"error":{_write_error(result.error, codec)}'
    if result.message is not None:
        text += f',"message":{_write_message(result.message, codec)}'
    if result.execution_time is not None:
        text += f',"execution_time":{_write_seconds(result.execution_time)}'
    return text + (',"requires_approval":true}' if result.requires_approval else "}")


def _write_seconds(value: object) -> str:
    if isinstance(value, (float, int)) and type(value) is not bool and abs(value) <= _LONGEST:
        return float.__repr__(value) if isinstance(value, float) else int.__repr__(value)
    raise WorkflowConfigurationError(
        f"execution_time is of type {type(value).__name__}, and must be a finite number of seconds, or None."
    )


_read_text = _typed(str)
_read_optional = _typed(str, type(None))
_read_flag = _typed(bool)
_read_int = _typed(int)
_read_duration = _typed(float, int, type(None))


def _read_number(value: Any) -> Any:
    if abs(_read_int(value)) >= 2**63:  # adding to one of 4,300 digits makes one that cannot be written
        raise ValueError("a number is too large")
    return value


def _one_of(*allowed: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"{value!r} is not {' or '.join(allowed)}")
        return value

    return read


_read_policy = _one_of("continue", "halt")
_read_rollback_status = _one_of("none", "running", "done", "incomplete")


def _read_result(value: Any) -> WorkflowResult:
    result = WorkflowResult(**value)
    _read_flag(result.success)
    _read_optional(result.error)
    _read_optional(result.message)
    _read_duration(result.execution_time)
    _read_flag(result.requires_approval)
    return result


def _write_settings(settings: Settings, codec: Codec) -> str:
    # Callers set flags to whatever is true or false.
    flags = {name: bool(flag) for name, flag in zip(Settings._fields[:-1], settings[:-1], strict=True)}
    return json.dumps({**flags, "on_rollback_failure": settings.on_rollback_failure})


def _read_settings(value: Any) -> Settings:
    settings = Settings(**value)
    for flag in settings[:-1]:
        _read_flag(flag)
    _read_policy(settings.on_rollback_failure)
    return settings


def _read_steps(value: Any) -> tuple[str, ...]:
    return tuple(map(_read_text, _typed(list)(value)))


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
    _read_number(fields["current_step_index"])
    _read_optional(fields["pending_approval_step"])
    _typed(dict, type(None))(fields["approval_data"])
    _read_rollback_status(fields["rollback_status"])
    return Draft(**fields)


_TEXT = _Field(lambda value, codec: _text(value), _read_text)
_OPTIONAL = _Field(_write_optional, _read_optional)
_ACTOR = _Field(_words("actor"), _read_optional)
_REASON = _Field(_words("reason"), _read_optional)
_NUMBER = _Field(lambda value, codec: str(value), _read_number)
_FLAG = _Field(lambda value, codec: "true" if value else "false", _read_flag)
_APPROVAL = _Field(lambda value, codec: codec.encode(value, "approval_data"), _typed(dict))
_METADATA = _Field(lambda value, codec: codec.encode(value, "metadata"), _typed(dict))
_RESULT = _Field(write_result, _read_result)
_STEPS = _Field(lambda value, codec: f"[{', '.join(map(_text, value))}]", _read_steps)
_SETTINGS = _Field(_write_settings, _read_settings)
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
_READERS = {_KINDS[of]: (of, its.keys(), [(name, f.read) for name, f in its.items()]) for of, its in _EVENTS.items()}


def _write_start(event: ev.StepStarted | ev.RollbackStepStarted, codec: Codec) -> str:
    _, step, position, visit, attempt = event
    return f'{{"step":{_text(step)},"position":{position},"visit":{visit},"attempt":{attempt}}}'


def _write_success(event: ev.StepSucceeded, codec: Codec) -> str:
    return f'{{"result":{write_result(event.result, codec)},"gated":{"true" if event.gated else "false"}}}'


def _write_undone(event: ev.RollbackStepSucceeded | ev.RollbackStepSkipped, codec: Codec) -> str:
    return f'{{"result":{write_result(event.result, codec)}}}'


_SHORTCUTS: dict[type[Any], Callable[[Any, Codec], str]] = {
    ev.StepStarted: _write_start,
    ev.StepSucceeded: _write_success,
    ev.RollbackStepStarted: _write_start,
    ev.RollbackStepSucceeded: _write_undone,
    ev.RollbackStepSkipped: _write_undone,
}
"""What `_write_fields` comes to for the events of every step, at a third of the price."""


def _write_fields(event: Event, codec: Codec) -> str:
    """Return an event's body as its table of fields has it."""
    parts = [
        f'"{name}":{field.write(value, codec)}'
        for (name, field), value in zip(_EVENTS[type(event)].items(), event[1:], strict=True)
    ]
    return "{" + ",".join(parts) + "}"


def encode(event: Event, codec: Codec) -> tuple[str, str]:
    """Return an event's kind and body.

    Raises:
        ResultNotSerializableError: A value of the user's cannot be stored.
        PayloadTooLargeError: A value or a text of the user's is too large.
        WorkflowConfigurationError: A text of the user's is none.
    """
    event_type = type(event)
    write = _SHORTCUTS.get(event_type) or _write_fields
    return _KINDS[event_type], write(event, codec)


def seal(event: _E, codec: Codec) -> tuple[_E, tuple[str, str]]:
    """Return an event as it will be read back, and its kind and body.

    Raises:
        ResultNotSerializableError: A value of the user's cannot be stored.
        PayloadTooLargeError: A value or a text of the user's is too large.
        WorkflowConfigurationError: A text of the user's is none.
    """
    row = encode(event, codec)
    copy = _COPIES.get(type(event))
    stored = copy(event) if copy is not None else None
    if stored is None:
        stored = decode(row[0], event.at, row[1], codec)
    assert isinstance(stored, type(event))
    return stored, row


# What an event that could be written is read back as, without reading it; None: that takes reading it. It can be told
# of exact types that JSON has, without anything nested. Of a text that is not ASCII it cannot: two surrogates side by
# side come back as one character. (In values the codec refuses such.)

_SAME_WHEN_READ = frozenset({str, int, float, bool, type(None)})


def _copy_plan(plan: ev.WorkflowStarted) -> ev.WorkflowStarted | None:
    names = plan.workflow_type, *plan.steps
    if (
        plan.draft is None
        and set(map(type, names)) == {str}
        and "".join(names).isascii()
        and {bool, str}.issuperset(map(type, plan.settings))
        and _SAME_WHEN_READ.issuperset(map(type, plan.metadata.values()))
    ):
        return plan._replace(metadata=plan.metadata.copy())
    return None


def _copy_success(event: ev.StepSucceeded) -> ev.StepSucceeded | None:
    result = _copy_result(event.result)
    return None if result is None else new_event(ev.StepSucceeded, (event.at, result, bool(event.gated)))


def _copy_undone(event: ev.RollbackStepSucceeded | ev.RollbackStepSkipped) -> Event | None:
    result = _copy_result(event.result)
    return None if result is None else new_event(type(event), (event.at, result))


def _copy_result(result: WorkflowResult) -> WorkflowResult | None:
    success, step, data, error, message = result.success, result.step, result.data, result.error, result.message
    if (
        type(success) is bool
        and (type(step) is str and step.isascii())
        and (error is None or (type(error) is str and error.isascii()))
        and (message is None or (type(message) is str and message.isascii()))
        and type(result.execution_time) is float
        and (type(data) is dict and _SAME_WHEN_READ.issuperset(map(type, data.values())))
    ):
        return WorkflowResult(
            success, step, data.copy(), error, message, result.execution_time, bool(result.requires_approval)
        )
    return None


_COPIES: dict[type[Any], Callable[[Any], Event | None]] = {
    ev.WorkflowStarted: _copy_plan,
    ev.StepSucceeded: _copy_success,
    ev.RollbackStepSucceeded: _copy_undone,
    ev.RollbackStepSkipped: _copy_undone,
}


def decode(kind: str, at: int, body: str, codec: Codec) -> Event:
    """Return the event that a row holds.

    Raises:
        JournalTooNewError: The kind is none that this version knows.
        JournalCorruptError: The body is not what the kind says.
        ResultNotSerializableError: A value needs a type that this codec does not know.
    """
    reader = _READERS.get(kind)
    if reader is None:
        raise JournalTooNewError(f"there is no event {kind!r} in this version; upgrade dotmac-workflows to read it")
    event_type, names, reads = reader
    try:
        fields = codec.decode(body, "its body")
        if fields.keys() != names:
            raise ValueError(f"its fields are {sorted(fields)}, not {sorted(names)}")
        event: Event = new_event(event_type, (at, *[read(fields[name]) for name, read in reads]))
        return event
    except WorkflowError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise JournalCorruptError(f"its body is not that of a {kind!r} ({error})") from error
