"""In which forms a journal may hold what it holds, and in which ones the golden journals do.

A form is a field of an event with one kind of what may stand there: ``approved.actor null``. They are taken from the
codec's own tables, so that an event or a field that is new is found missing here until a golden journal has it.
"""

import json
from collections.abc import Iterator
from typing import Any

from dotmac_workflows._built_in_types import BUILT_IN_TAGS
from dotmac_workflows._core import codec
from dotmac_workflows._core.events import Draft, Settings
from dotmac_workflows.persistence import Record
from dotmac_workflows.result import WorkflowResult
from dotmac_workflows.status import WorkflowStatus

_FLAGS = ("false", "true")
_NULLABLE = ("null", "text")
_FILLABLE = ("empty", "filled")
_PLAIN = ("null", "bool", "int", "float", "str", "list", "dict")
_WITH_FOLD = ("datetime", "time")
"""Tags of what is written in another form where it has a fold, or a zone with a key."""

_OF_FIELDS: dict[int, tuple[str, ...]] = {
    id(codec._TEXT): ("text",),
    id(codec._NUMBER): ("number",),
    id(codec._STEPS): ("list",),
    id(codec._OPTIONAL): _NULLABLE,
    id(codec._ACTOR): _NULLABLE,
    id(codec._REASON): _NULLABLE,
    id(codec._FLAG): _FLAGS,
    id(codec._APPROVAL): _FILLABLE,
    id(codec._METADATA): _FILLABLE,
    id(codec._RESULT): ("result",),
    id(codec._SETTINGS): ("settings",),
    id(codec._DRAFT): ("null", "draft"),
}

NEVER: dict[str, str] = {
    "rollback_waived.reason null": "skip_rollback() asks for a reason",
    "result.success left out": "it is always written",
    "result.step left out": "it is always written",
    "draft.status completed": "there is nothing to do with a completed run, so that no journal begins with one",
}
"""Forms that are never written, each with its reason."""


def every_form() -> set[str]:
    """Return every form that this version may write."""
    forms: set[str] = set()
    for event_type, fields in codec._EVENTS.items():
        kind = codec._KINDS[event_type]
        forms.add(kind)
        forms |= {f"{kind}.{name} {form}" for name, field in fields.items() for form in _OF_FIELDS[id(field)]}
    forms |= {f"result.{key} {how}" for key in WorkflowResult(True, "a").to_dict() for how in ("there", "left out")}
    forms |= {f"result.success {flag}" for flag in _FLAGS}
    forms |= {f"settings.{name} {flag}" for name in Settings._fields[:-1] for flag in _FLAGS}
    forms |= {f"settings.on_rollback_failure {policy}" for policy in ("continue", "halt")}
    forms |= {f"draft.status {status}" for status in WorkflowStatus}
    forms |= {f"draft.rollback_status {status}" for status in ("none", "running", "done", "incomplete")}
    forms |= {f"draft.results {form}" for form in _FILLABLE} | {"draft.current_step_index number"}
    forms |= {
        f"draft.{name} {form}" for name in ("pending_approval_step", "approval_data") for form in ("null", "there")
    }
    forms |= {f"value {name}" for name in (*_PLAIN, *BUILT_IN_TAGS, "registered")}
    forms |= {f"value {tag} with a fold" for tag in _WITH_FOLD}
    assert {field.partition(".")[2].split()[0] for field in forms if field.startswith("draft.")} == set(Draft._fields)
    return forms - NEVER.keys()


def forms_of(record: Record) -> Iterator[str]:
    """Yield the forms that a record has."""
    body = json.loads(record.body)
    yield record.kind
    for name, field in codec._EVENTS[codec._READERS[record.kind][0]].items():
        value = body[name]
        yield f"{record.kind}.{name} {_form(field, value)}"
        if field is codec._RESULT:
            yield from _of_result(value)
        elif field is codec._SETTINGS:
            yield from (f"settings.{flag} {_text(given)}" for flag, given in value.items())
        elif field is codec._DRAFT and value is not None:
            yield from _of_draft(value)
        elif field in (codec._APPROVAL, codec._METADATA):
            yield from _of_value(value)


def _form(field: Any, value: Any) -> str:
    forms = _OF_FIELDS[id(field)]
    if len(forms) == 1:
        return forms[0]
    if forms is _FILLABLE:
        return "filled" if value else "empty"
    if forms is _FLAGS:
        return _text(value)
    return "null" if value is None else forms[1]


def _of_result(result: dict[str, Any]) -> Iterator[str]:
    for key in WorkflowResult(True, "a").to_dict():
        yield f"result.{key} {'there' if key in result else 'left out'}"
    yield f"result.success {_text(result['success'])}"
    yield from _of_value(result.get("data", {}))


def _of_draft(draft: dict[str, Any]) -> Iterator[str]:
    yield f"draft.status {draft['status']}"
    yield f"draft.rollback_status {draft['rollback_status']}"
    yield "draft.current_step_index number"
    yield f"draft.results {'filled' if draft['results'] else 'empty'}"
    for name in ("pending_approval_step", "approval_data"):
        yield f"draft.{name} {'null' if draft[name] is None else 'there'}"
    for result in draft["results"]:
        yield from _of_result(result)
    yield from _of_value(draft["approval_data"] or {})


def _of_value(value: Any) -> Iterator[str]:
    """Yield what kinds of values a value of the user's has in it."""
    if isinstance(value, dict) and "$" in value:
        tag, payload = value["$"]
        yield f"value {tag if tag in BUILT_IN_TAGS else 'registered'}"
        if tag in _WITH_FOLD and isinstance(payload, list):
            yield f"value {tag} with a fold"
        yield from _of_value([*payload.values()] if tag == "dict" else payload)
    elif isinstance(value, dict):
        yield "value dict"
        for item in value.values():
            yield from _of_value(item)
    elif isinstance(value, list):
        yield "value list"
        for item in value:
            yield from _of_value(item)
    else:
        yield f"value {'null' if value is None else type(value).__name__}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower()
