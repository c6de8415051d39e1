"""Events to rows and back, to the letter: what is refused and why, and where the limits are."""

import json
import math
import sys
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest

from dotmac_workflows import Codec, WorkflowResult, WorkflowStatus
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows.errors import (
    JournalCorruptError,
    JournalTooNewError,
    PayloadTooLargeError,
    ResultNotSerializableError,
    WorkflowConfigurationError,
)

MIB = 1024 * 1024

RESULT = {
    "success": True,
    "step": "pay",
    "data": {},
    "error": "code",
    "message": "said",
    "execution_time": 1,
    "requires_approval": False,
}
SETTINGS = {**ev.Settings()._asdict()}
DRAFT = {
    "status": "paused",
    "current_step_index": 1,
    "results": [RESULT],
    "pending_approval_step": None,
    "approval_data": None,
    "rollback_status": "none",
}
PLAN = {
    "run_id": "0123abcd",
    "workflow_type": "Order",
    "steps": ["pay"],
    "settings": SETTINGS,
    "metadata": {},
    "draft": None,
}
BODIES: dict[str, dict[str, Any]] = {
    "workflow_started": PLAN,
    "step_started": {"step": "pay", "position": 0, "visit": 1, "attempt": 1},
    "step_succeeded": {"result": RESULT, "gated": False},
    "step_failed": {"result": RESULT, "exception": None, "traceback": None},
    "approved": {"actor": None, "data": {}},
}


def draft(**changes: object) -> dict[str, object]:
    return {"draft": {**DRAFT, **changes}}


def settings(**changes: object) -> dict[str, object]:
    return {"settings": {**SETTINGS, **changes}}


def result(**changes: object) -> dict[str, object]:
    return {"result": {**RESULT, **changes}}


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("step_started", {"step": 3}, "3 is not str"),
    ("step_started", {"visit": True}, "True is not int"),
    ("step_succeeded", {"gated": 1}, "1 is not bool"),
    ("step_failed", {"exception": 3}, "3 is not str or NoneType"),
    ("step_succeeded", result(success=1), "1 is not bool"),
    ("step_succeeded", result(error=3), "3 is not str or NoneType"),
    ("step_succeeded", result(message=3), "3 is not str or NoneType"),
    ("step_succeeded", result(execution_time="1"), "'1' is not float or int or NoneType"),
    ("step_succeeded", result(requires_approval=1), "1 is not bool"),
    ("workflow_started", {"steps": {}}, "{} is not list"),
    ("workflow_started", {"steps": [3]}, "3 is not str"),
    ("workflow_started", {"metadata": []}, "[] is not dict"),
    *[
        ("workflow_started", settings(**{name: 1}), "1 is not bool")
        for name in ev.Settings._fields
        if name != "on_rollback_failure"
    ],
    (
        "workflow_started",
        settings(on_rollback_failure="never"),
        "'never' is not continue or halt",
    ),
    ("workflow_started", draft(status="odd"), "'odd' is not a valid WorkflowStatus"),
    ("workflow_started", draft(results=[{**RESULT, "success": 1}]), "1 is not bool"),
    ("workflow_started", draft(current_step_index=None), "None is not int"),
    ("workflow_started", draft(pending_approval_step=3), "3 is not str or NoneType"),
    ("workflow_started", draft(approval_data=[]), "[] is not dict or NoneType"),
    ("workflow_started", draft(rollback_status=None), "None is not none or running or done or incomplete"),
    ("approved", {"data": None}, "None is not dict"),
]


@pytest.mark.parametrize(("kind", "changes", "why"), WRONG)
def test_a_field_that_is_not_what_its_kind_says_is_refused(kind: str, changes: dict[str, object], why: str) -> None:
    codec.decode(kind, 1, json.dumps(BODIES[kind]), Codec())
    with pytest.raises(JournalCorruptError) as caught:
        codec.decode(kind, 1, json.dumps({**BODIES[kind], **changes}), Codec())
    assert str(caught.value) == f"its body is not that of a {kind!r} ({why})"


def test_fields_that_are_not_those_of_the_kind_are_named() -> None:
    with pytest.raises(JournalCorruptError) as caught:
        codec.decode("resumed", 1, '{"b":1,"a":2}', Codec())
    assert str(caught.value) == "its body is not that of a 'resumed' (its fields are ['a', 'b'], not ['actor'])"


def test_a_body_that_is_no_json_is_refused() -> None:
    with pytest.raises(JournalCorruptError, match="^its body is not"):
        codec.decode("resumed", 1, "{", Codec())


def test_a_kind_that_there_is_not_is_a_newer_versions() -> None:
    with pytest.raises(JournalTooNewError) as caught:
        codec.decode("teleported", 1, "{}", Codec())
    assert str(caught.value) == ("there is no event 'teleported' in this version; upgrade dotmac-workflows to read it")


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("error", ev.StepSucceeded(1, WorkflowResult(True, "pay", error=""), False)),
        ("message", ev.StepSucceeded(1, WorkflowResult(True, "pay", message=""), False)),
        ("actor", ev.Resumed(1, "")),
        ("reason", ev.PauseRequested(1, None, "")),
    ],
)
def test_a_text_of_the_users_has_a_limit_and_a_type(name: str, event: Any) -> None:
    def written(text: object) -> str:
        if isinstance(event, ev.StepSucceeded):
            setattr(event.result, name, text)
            return codec.encode(event, Codec())[1]
        return codec.encode(event._replace(**{name: text}), Codec())[1]

    longest = "a" * (MIB - 2)  # and two quotes
    assert f'"{name}":"{longest}"' in written(longest)
    # What is longer in JSON than it is in Python, and what is too long before it is JSON.
    for text, size in (
        ("a" * (MIB - 1), MIB + 1),
        ("é" * (MIB // 2), MIB * 3 + 2),
        ("a" * MIB, MIB + 2),
        ("a" * (MIB + 1), MIB + 1),
    ):
        with pytest.raises(PayloadTooLargeError) as caught:
            written(text)
        assert (caught.value.path, caught.value.size, caught.value.limit) == (name, size, MIB)
        assert str(caught.value) == (
            f"{name} is {size:,} bytes of JSON or more, and the limit is 1,048,576. Keep the content elsewhere and its "
            "address here."
        )
    with pytest.raises(WorkflowConfigurationError) as refused:
        written(3)
    assert str(refused.value) == f"{name} is of type int, and must be a str or None."


class Seconds(float):
    """A number of a class of its own, with a text of its own."""

    def __repr__(self) -> str:
        return "a while"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (2, "2"),
        (-2, "-2"),
        (sys.float_info.max, repr(sys.float_info.max)),
        (Seconds(0.5), "0.5"),
        (HTTPStatus.OK, "200"),
    ],
)
def test_seconds_are_written_as_json_has_them(value: float, written: str) -> None:
    text = codec.write_result(WorkflowResult(True, "pay", execution_time=value), Codec())
    assert text == f'{{"success":true,"step":"pay","execution_time":{written}}}'
    assert codec._read_result(json.loads(text)).execution_time == value


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, True, "1", Decimal("1.5"), 10**309, []])
def test_seconds_that_could_not_be_read_back_are_refused(value: Any) -> None:
    with pytest.raises(WorkflowConfigurationError) as caught:
        codec.write_result(WorkflowResult(True, "pay", execution_time=value), Codec())
    assert str(caught.value) == (
        f"execution_time is of type {type(value).__name__}, and must be a finite number of seconds, or None."
    )


@pytest.mark.parametrize(("event", "path"), [
    (ev.StepFailed(1, WorkflowResult(False, "pay", {"a": [object()]}), None, None), "data.a[0]"),
    (ev.Approved(1, None, {"a": object()}), "approval_data.a"),
    (ev.WorkflowStarted(1, "r", "Order", ("pay",), ev.Settings(), {"a": object()}, None), "metadata.a"),
    (
        ev.WorkflowStarted(
            1, "r", "Order", ("pay",), ev.Settings(), {},
            ev.Draft(WorkflowStatus.PAUSED, 0, (), None, {"a": object()}, "none"),
        ),
        "approval_data.a",
    ),
])  # fmt: skip
def test_a_value_that_cannot_be_written_is_named_by_its_path(event: ev.Event, path: str) -> None:
    with pytest.raises(ResultNotSerializableError) as caught:
        codec.encode(event, Codec())
    assert caught.value.path == path


def test_a_draft_comes_back_with_every_type() -> None:
    inner = WorkflowResult(True, "pay", {"amounts": (1, 2)}, execution_time=3)
    seed = ev.Draft(WorkflowStatus.WAITING_APPROVAL, 0, (inner,), "pay", {"by": (1,)}, "none")
    plan = ev.WorkflowStarted(1, "0123abcd", "Order", ("pay", "ship"), ev.Settings(), {"a": (1,)}, seed)
    kind, body = codec.encode(plan, Codec())
    assert codec.decode(kind, 1, body, Codec()) == plan
    assert json.loads(body)["draft"] == {
        "status": "waiting_approval",
        "current_step_index": 0,
        "results": [json.loads(codec.write_result(inner, Codec()))],
        "pending_approval_step": "pay",
        "approval_data": json.loads(Codec().encode({"by": (1,)}, "approval_data")),
        "rollback_status": "none",
    }


def test_the_fields_of_a_row_are_those_of_its_event() -> None:
    for event_type, fields in codec._EVENTS.items():
        assert ("at", *fields) == event_type._fields
        for name, field in fields.items():
            assert callable(field.read), (event_type, name)
