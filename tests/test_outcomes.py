"""The one fact that is made of whatever the user's code did, to the letter, and what the log says of it."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dotmac_workflows import Codec, InMemoryPersistence, WorkflowResult
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.events import Event
from dotmac_workflows._run.journal import StoredJournal
from dotmac_workflows._run.live import LiveJournal
from dotmac_workflows._run.outcomes import Outcomes, said

NOW = 1_700_000_000_000_000
STORE = InMemoryPersistence()


class Undecided:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise TypeError("which of us?")


def outcomes(*, stored: bool = False, max_bytes: int = 1000) -> Outcomes:
    journal = StoredJournal(STORE, "order-1", Codec(max_bytes=max_bytes)) if stored else LiveJournal("order-1")
    return Outcomes("order-1", "Order", 3, journal, lambda: NOW)


def caught(error: Exception) -> Exception:
    """Return an error that was raised."""
    try:
        raise error
    except Exception as raised:
        return raised


def raised_in(hook: str, error: Exception) -> Exception:
    """Return an error that was raised by a function of some name, directly."""
    scope: dict[str, Any] = {"error": error}
    exec(f"def {hook}():\n    raise error\n", scope)

    def calls() -> None:
        scope[hook]()

    try:
        calls()
    except Exception as raised:
        return raised
    raise AssertionError


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[str, str, dict[str, object], object]]]:
    """Return level, text, ids and error of what was logged; filled when the test asks."""

    class Logged(list[Any]):
        def __eq__(self, other: object) -> bool:
            names = ("workflow_id", "workflow_type", "event", "step", "attempt")
            shown = [
                (
                    record.levelname,
                    record.getMessage(),
                    {name: vars(record)[name] for name in names},
                    record.exc_info[1] if record.exc_info else None,
                )
                for record in caplog.records
            ]
            return shown == other

        __hash__ = None

        def __repr__(self) -> str:
            return repr(caplog.records)

    with caplog.at_level(logging.DEBUG, "dotmac_workflows"):
        yield Logged()


def ids(event: str, step: str = "pay") -> dict[str, object]:
    return {"workflow_id": "order-1", "workflow_type": "Order", "event": event, "step": step, "attempt": 3}


def as_it_is(event: Event, wanted: Event) -> None:
    assert (type(event), event) == (type(wanted), wanted)


INVALID = "Return one, with success and step."


def test_a_result_is_taken_as_it_is_with_the_time_it_took(logged: object) -> None:
    answer = WorkflowResult(True, "pay", {"a": 1}, requires_approval=True)
    as_it_is(
        outcomes().of_step("pay", answer, None, 0.5),
        ev.StepSucceeded(NOW, WorkflowResult(True, "pay", {"a": 1}, None, None, 0.5, True), True),
    )
    failure = WorkflowResult(False, "pay", error="declined", message="no funds")
    as_it_is(
        outcomes().of_step("pay", failure, None, 0.25),
        ev.StepFailed(NOW, WorkflowResult(False, "pay", {}, "declined", "no funds", 0.25), None, None),
    )
    assert logged == []


def test_a_step_that_raises_is_a_failure_with_type_and_traceback(logged: object) -> None:
    error = caught(KeyError("stock"))
    event = outcomes().of_step("pay", None, error, 0.5)
    assert isinstance(event, ev.StepFailed)
    assert event.traceback is not None
    as_it_is(
        event._replace(traceback=None),
        ev.StepFailed(
            NOW,
            WorkflowResult(False, "pay", {}, "step_execution_error", "Step 'pay' failed: KeyError: 'stock'", 0.5),
            "KeyError",
            None,
        ),
    )
    assert event.traceback.startswith("Traceback (most recent call last):\n")
    assert event.traceback.endswith("\nKeyError: 'stock'\n")
    assert logged == [("ERROR", "Step 'pay' of workflow 'order-1' raised KeyError.", ids("step_raised"), error)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "Step 'pay' returned NoneType, not a WorkflowResult."),
        ({"success": True}, "Step 'pay' returned dict, not a WorkflowResult."),
        (
            WorkflowResult(Undecided(), "pay"),  # type: ignore[arg-type]  # what a user may do
            "Step 'pay' returned a result whose success is of type Undecided, not a bool.",
        ),
        (
            WorkflowResult(True, "pay", requires_approval=Undecided()),  # type: ignore[arg-type]  # likewise
            "Step 'pay' returned a result whose requires_approval is of type Undecided, not a bool.",
        ),
    ],
)
def test_what_is_no_result_is_a_failure(answer: object, why: str, logged: object) -> None:
    as_it_is(
        outcomes().of_step("pay", answer, None, 0.5),
        ev.StepFailed(NOW, WorkflowResult(False, "pay", {}, "invalid_result", f"{why} {INVALID}", 0.5), None, None),
    )
    assert logged == []


def test_a_result_for_another_step_is_a_copy_under_its_own_name(logged: object) -> None:
    answer = WorkflowResult(True, "ship", {"a": 1})
    as_it_is(
        outcomes().of_step("pay", answer, None, 0.5),
        ev.StepSucceeded(NOW, WorkflowResult(True, "pay", {"a": 1}, execution_time=0.5), False),
    )
    assert answer == WorkflowResult(True, "ship", {"a": 1})
    text = "Step 'pay' of workflow 'order-1' returned a result for step 'ship'; it is recorded as its own."
    assert logged == [("WARNING", text, ids("result_misnamed"), None)]


def test_a_result_for_another_step_stays_of_its_class_while_it_lives() -> None:
    class Receipt(WorkflowResult):
        def __init__(self, number: int) -> None:
            super().__init__(True, "ship", {"number": number})

    answer = Receipt(7)
    event = outcomes().of_step("pay", answer, None, 1.0)
    assert isinstance(event, ev.StepSucceeded)
    assert (type(event.result), event.result.step, event.result.data) == (Receipt, "pay", {"number": 7})
    assert answer.step == "ship"


# The rollback of a step.


@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("step", ["rollback_pay", "pay"])
def test_the_result_of_a_rollback_may_be_named_by_its_step(step: str, success: bool, logged: object) -> None:
    event = outcomes().of_rollback("pay", WorkflowResult(success, step, {"a": 1}), None, 0.5)
    result = WorkflowResult(success, "rollback_pay", {"a": 1}, execution_time=0.5)
    if success:
        as_it_is(event, ev.RollbackStepSucceeded(NOW, result))
    else:
        as_it_is(event, ev.RollbackStepFailed(NOW, result, None, None))
    assert logged == []


def test_the_result_of_another_rollback_is_a_copy_under_its_own_name(logged: object) -> None:
    answer = WorkflowResult(True, "ship")
    as_it_is(
        outcomes().of_rollback("pay", answer, None, 0.5),
        ev.RollbackStepSucceeded(NOW, WorkflowResult(True, "rollback_pay", execution_time=0.5)),
    )
    assert answer == WorkflowResult(True, "ship")
    text = "The rollback of step 'pay' of workflow 'order-1' returned a result for step 'ship'."
    assert logged == [("WARNING", text, ids("result_misnamed"), None)]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, None),
        (None, raised_in("rollback_step", NotImplementedError())),
        (None, raised_in("execute_step", NotImplementedError())),
    ],
)
def test_a_step_without_a_rollback_is_skipped(answer: object, error: Exception | None, logged: object) -> None:
    message = "Step 'pay' has no rollback: nothing was undone."
    as_it_is(
        outcomes().of_rollback("pay", answer, error, 0.5),
        ev.RollbackStepSkipped(NOW, WorkflowResult(True, "rollback_pay", message=message, execution_time=0.5)),
    )
    text = "Step 'pay' of workflow 'order-1' has no rollback: nothing was undone."
    assert logged == [("WARNING", text, ids("rollback_missing"), None)]


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (raised_in("refund", NotImplementedError("later")), "NotImplementedError", "NotImplementedError: later"),
        (raised_in("rollback_step", LookupError()), "LookupError", "LookupError"),
    ],
)
def test_a_rollback_that_raises_is_a_failure(error: Exception, name: str, text: str, logged: object) -> None:
    event = outcomes().of_rollback("pay", None, error, 0.5)
    assert isinstance(event, ev.RollbackStepFailed)
    assert event.traceback is not None
    as_it_is(
        event._replace(traceback=None),
        ev.RollbackStepFailed(
            NOW,
            WorkflowResult(
                False, "rollback_pay", {}, "step_execution_error", f"Step 'rollback_pay' failed: {text}", 0.5
            ),
            name,
            None,
        ),
    )
    assert event.traceback.endswith(f"\n{text}\n")
    said_so = f"Step 'rollback_pay' of workflow 'order-1' raised {name}."
    assert logged == [("ERROR", said_so, ids("step_raised"), error)]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (7, "The rollback of step 'pay' returned int, not a WorkflowResult or None."),
        (
            WorkflowResult(Undecided(), "pay"),  # type: ignore[arg-type]  # what a user may do
            "The rollback of step 'pay' returned a result whose success is of type Undecided, not a bool.",
        ),
    ],
)
def test_what_is_no_result_of_a_rollback_is_a_failure(answer: object, why: str, logged: object) -> None:
    result = WorkflowResult(False, "rollback_pay", {}, "invalid_result", f"{why} {INVALID}", 0.5)
    as_it_is(outcomes().of_rollback("pay", answer, None, 0.5), ev.RollbackStepFailed(NOW, result, None, None))
    assert logged == []


# What cannot be stored.

UNSTORABLE: list[tuple[dict[str, Any], str, str, str]] = [
    ({"data": {"a": object()}}, "result_not_serializable", "ResultNotSerializableError", "data.a is of type object"),
    ({"data": {"a": "b" * 2000}}, "payload_too_large", "PayloadTooLargeError", "data is at least 2,004 bytes of JSON"),
    ({"message": 7}, "invalid_result", "WorkflowConfigurationError", "message is of type int, and must be a str or"),
]


@pytest.mark.parametrize(("fields", "code", "exception", "cause"), UNSTORABLE)
@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("of_rollback", [False, True])
def test_what_cannot_be_stored_is_a_failure_that_says_why(
    success: bool, of_rollback: bool, fields: dict[str, Any], code: str, exception: str, cause: str, logged: object
) -> None:
    name = "rollback_pay" if of_rollback else "pay"
    answer = WorkflowResult(success, name, **{"error": None if success else "declined", **fields})
    if of_rollback:
        event = outcomes(stored=True).of_rollback("pay", answer, None, 0.5)
    else:
        event = outcomes(stored=True).of_step("pay", answer, None, 0.5)
    assert isinstance(event, ev.StepFailed | ev.RollbackStepFailed)
    message = event.result.message
    assert message is not None
    assert message.startswith(f"The result of {name!r} cannot be stored: {cause}")
    had = "" if success else f" It had failed: {answer.message or 'declined'}"
    assert message.endswith(had)
    assert ("It had failed" in message) == (not success)
    kind = ev.RollbackStepFailed if of_rollback else ev.StepFailed
    as_it_is(event, kind(NOW, WorkflowResult(False, name, {}, code, message, 0.5), exception, None))
    text = message.removesuffix(had) if had else message
    assert logged == [("ERROR", f"Workflow 'order-1': {text[0].upper()}{text[1:]}", ids("result_refused"), None)]


def test_a_path_as_long_as_its_keys_is_cut() -> None:
    answer = WorkflowResult(False, "pay", {"k" * 20_000: object()}, error="declined", message="m" * 20_000)
    event = outcomes(stored=True, max_bytes=100_000).of_step("pay", answer, None, 0.5)
    assert isinstance(event, ev.StepFailed)
    message = event.result.message
    assert message is not None
    beginning, told = "The result of 'pay' cannot be stored: ", " It had failed: "
    cause, _, had = message.removeprefix(beginning).partition(told)
    assert (len(cause), had) == (10_000, "m" * 10_000)


class OwnError(Exception):
    """An error of the user's."""


class MuteError(Exception):
    """An error that cannot be told."""

    def __str__(self) -> str:
        raise ValueError


MAIN = type("MainError", (Exception,), {"__module__": "__main__"})


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (OwnError("no"), f"{__name__}.OwnError: no"),
        (MAIN("no"), "MainError: no"),
        (MuteError(), f"{__name__}.MuteError: <exception str() failed>"),
        (ValueError("a" * 10_001), "ValueError: " + "a" * 10_000),
    ],
)
def test_an_error_is_said_by_type_and_text(error: Exception, text: str) -> None:
    error.add_note("a note is not said")
    assert said(error) == text


def test_of_a_long_traceback_the_end_is_kept() -> None:
    event = outcomes().of_step("pay", None, caught(ValueError("a" * 30_000)), 0.5)
    assert isinstance(event, ev.StepFailed)
    assert event.traceback == "a" * 19_999 + "\n"
