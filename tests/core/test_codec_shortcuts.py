"""What is written and copied in a shorter way for the events of every step comes to the same as the long way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac_workflows import Codec, WorkflowResult, WorkflowStatus
from dotmac_workflows._core import codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event


class Name(str):
    """A string of a class of its own, which a journal does not keep."""


class Seconds(float):
    """A number of a class of its own."""


SPLIT_PAIR = "\ud83d\ude00"  # two characters in Python, one when read back
texts = st.one_of(st.text(), st.sampled_from(["", "é", '"\\\n\x7f', "\ud83d", SPLIT_PAIR, "$", Name("own")]))
plain_texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**641),
    st.floats(allow_nan=False, allow_infinity=False),
    plain_texts,
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(plain_texts, inner))
data = st.dictionaries(plain_texts | st.just("$"), scalars, max_size=5) | st.dictionaries(
    plain_texts, values, max_size=5
)
results = st.builds(
    WorkflowResult,
    st.sampled_from([True, False, 1, 0]),
    texts.filter(bool),
    data,
    st.none() | texts,
    st.none() | texts,
    st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9),
    st.sampled_from([True, False, 1, ""]),
)
counts = st.integers(0, 10**6)
outcomes = st.one_of(
    st.builds(ev.StepSucceeded, counts, results, st.sampled_from([True, False, 1, ""])),
    st.builds(ev.StepFailed, counts, results, st.none() | texts, st.none() | texts),
    st.builds(ev.RollbackStepSucceeded, counts, results),
    st.builds(ev.RollbackStepSkipped, counts, results),
)
plans = st.builds(
    ev.WorkflowStarted,
    counts,
    st.just("0123abcd"),
    st.sampled_from(["Order", Name("Order"), "Bestellung für dich", SPLIT_PAIR]),
    st.lists(texts, max_size=3).map(tuple),
    st.sampled_from([ev.Settings(), ev.Settings(True), ev.Settings(False, 1)]),  # type: ignore[arg-type]  # what a user may do
    data,
    st.none()
    | st.builds(
        ev.Draft,
        st.sampled_from(WorkflowStatus),
        counts,
        st.lists(results, max_size=2).map(tuple),
        st.none() | texts,
        st.none() | data,
        st.just("none"),
    ),
)
starts = st.sampled_from([ev.StepStarted, ev.RollbackStepStarted]).flatmap(
    lambda kind: st.builds(kind, counts, texts, counts, counts, counts)
)


def typed(value: Any) -> Any:
    """Return a value with the type of each part beside it, so that 1 and True, or 1 and 1.0, are told apart."""
    if isinstance(value, WorkflowResult):
        return type(value), typed(value.to_dict())
    if isinstance(value, dict):
        return dict, [(typed(key), typed(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    return type(value), repr(value)


@given(starts | outcomes)
def test_a_body_is_what_the_table_of_fields_says(event: Event) -> None:
    assert codec.encode(event, Codec())[1] == codec._write_fields(event, Codec())


@given(results)
def test_a_result_is_written_in_the_one_form(result: WorkflowResult) -> None:
    values = Codec()
    shown = {
        "success": bool(result.success),
        "step": result.step,
        "data": "DATA" if result.data else None,
        "error": result.error,
        "message": result.message,
        "execution_time": result.execution_time,
        "requires_approval": bool(result.requires_approval) or None,
    }
    wanted = json.dumps({key: item for key, item in shown.items() if item is not None}, separators=(",", ":"))
    wanted = wanted.replace('"DATA"', values.encode(result.data, "data"), 1) if result.data else wanted
    assert codec.write_result(result, values) == wanted


@given(outcomes | plans)
def test_what_is_sealed_is_what_will_be_read(event: ev.StepOutcome | ev.RollbackOutcome | ev.WorkflowStarted) -> None:
    sealed, (kind, body) = codec.seal(event, Codec())
    assert typed(sealed) == typed(codec.decode(kind, event.at, body, Codec()))
    assert (kind, body) == codec.encode(event, Codec())


@pytest.mark.parametrize(
    ("field", "odd"),
    [
        ("workflow_type", Name("Order")),
        ("workflow_type", SPLIT_PAIR),
        ("steps", (Name("pay"),)),
        ("steps", ("pay", SPLIT_PAIR)),
        ("settings", ev.Settings(1)),  # type: ignore[arg-type]  # what a user may do
        ("settings", ev.Settings(on_rollback_failure=Name("halt"))),  # type: ignore[arg-type]  # likewise
        ("metadata", {"a": (1, 2)}),
        ("metadata", {"$": 1}),
        ("draft", ev.Draft(WorkflowStatus.PENDING, 1, (), None, {"a": (1,)}, "none")),
    ],
)
def test_one_odd_field_of_a_plan_is_sealed_as_it_will_be_read(field: str, odd: Any) -> None:
    plan = ev.WorkflowStarted(1, "0123abcd", "Order", ("pay", "ship"), ev.Settings(), {"a": 1}, None)
    sealed, (kind, body) = codec.seal(plan._replace(**{field: odd}), Codec())
    assert typed(sealed) == typed(codec.decode(kind, 1, body, Codec()))


def test_a_plan_that_is_sealed_is_nobody_elses() -> None:
    inner: list[int] = []
    plan = ev.WorkflowStarted(1, "0123abcd", "Order", ("pay",), ev.Settings(), {"a": inner}, None)
    flat = plan._replace(metadata={"a": 1})
    drafted = plan._replace(metadata={}, draft=ev.Draft(WorkflowStatus.PENDING, 1, (), None, {"a": inner}, "none"))
    sealed = [codec.seal(event, Codec())[0] for event in (plan, flat, drafted)]
    inner.append(1)
    flat.metadata["a"] = 2
    assert sealed[0].metadata == {"a": []}
    assert sealed[1].metadata == {"a": 1}
    assert sealed[2].draft is not None
    assert sealed[2].draft.approval_data == {"a": []}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(field, odd) for field in ("step", "error", "message") for odd in (Name("own"), SPLIT_PAIR, "é")],
        ("success", 1),
        ("requires_approval", 1),
        ("execution_time", 1),
        ("execution_time", Seconds(0.5)),
        ("data", {"a": (1, 2)}),
        ("data", {"$": 1}),
        ("data", {"a": [{}]}),
    ],
)
def test_one_odd_field_is_sealed_as_it_will_be_read(field: str, value: object) -> None:
    result = WorkflowResult(True, "pay", {"a": 1}, "code", "said", 0.5)
    setattr(result, field, value)
    event = ev.StepSucceeded(1, result, result.requires_approval)
    sealed, (kind, body) = codec.seal(event, Codec())
    assert typed(sealed) == typed(codec.decode(kind, 1, body, Codec()))


@pytest.mark.parametrize("kind", [ev.RollbackStepSucceeded, ev.RollbackStepSkipped])
@pytest.mark.parametrize("text", ["{}", '{"a": 1}', '{"a": [1]}'])
def test_what_is_sealed_is_nobody_elses(kind: type[ev.RollbackStepSucceeded], text: str) -> None:
    result = WorkflowResult(True, "pay", json.loads(text), execution_time=0.5)
    sealed, _ = codec.seal(kind(1, result), Codec())
    result.success = False
    for value in result.data.values():
        if isinstance(value, list):
            value.append(2)
    result.data["b"] = 2
    assert sealed.result == WorkflowResult(True, "pay", json.loads(text), execution_time=0.5)


def refuse(*_: object) -> Any:
    raise AssertionError("the long way was taken")


def shortcut_results() -> list[WorkflowResult]:
    """Return results that are ordinary, each with another field that most have not."""
    full = WorkflowResult(True, "pay", {"a": 1, "b": 0.5, "c": None, "d": True, "e": "é"}, None, None, 0.5)
    error, message = WorkflowResult(False, "pay", error="code"), WorkflowResult(False, "pay", message="said")
    both = WorkflowResult(False, "pay", error="code", message="said", requires_approval=True)
    for result in (error, message, both):
        result.execution_time = 0.5
    return [full, error, message, both]


@pytest.mark.parametrize("result", shortcut_results())
@pytest.mark.parametrize("kind", [ev.StepSucceeded, ev.RollbackStepSucceeded, ev.RollbackStepSkipped])
def test_an_ordinary_outcome_is_sealed_without_being_read(
    kind: Any, result: WorkflowResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = kind(1, result, True) if kind is ev.StepSucceeded else kind(1, result)
    name, body = codec.encode(event, Codec())
    read: Any = codec.decode(name, 1, body, Codec())
    monkeypatch.setattr(codec, "decode", refuse)
    sealed, _ = codec.seal(event, Codec())
    assert (type(sealed), typed(sealed.result), sealed[2:]) == (kind, typed(read.result), read[2:])
    assert sealed.result is not result


@pytest.mark.parametrize("metadata", [{}, {"a": 1, "b": 0.5, "c": None, "d": True, "e": "é"}])
@pytest.mark.parametrize("settings", [ev.Settings(), ev.Settings(True, False, True, True, "halt")])
def test_an_ordinary_plan_is_sealed_without_being_read(
    metadata: dict[str, Any], settings: ev.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ev.WorkflowStarted(1, "0123abcd", "Order", ("pay", "ship"), settings, metadata, None)
    monkeypatch.setattr(codec, "decode", refuse)
    sealed, _ = codec.seal(plan, Codec())
    assert sealed == plan
    assert sealed.metadata is not metadata


@pytest.mark.parametrize(
    "event",
    [
        ev.StepStarted(1, "pay", 0, 1, 2),
        ev.RollbackStepStarted(1, "pay", 0, 1, 2),
        ev.StepSucceeded(1, WorkflowResult(True, "pay"), False),
        ev.RollbackStepSucceeded(1, WorkflowResult(True, "pay")),
        ev.RollbackStepSkipped(1, WorkflowResult(True, "pay")),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_of_every_step_is_written_without_the_table(event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    body = codec._write_fields(event, Codec())
    monkeypatch.setattr(codec, "_write_fields", refuse)
    assert codec.encode(event, Codec())[1] == body
