"""What users get when steps, callers and callbacks hand over what they should not."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from dotmac_workflows import (
    InMemoryPersistence,
    PayloadTooLargeError,
    Persistence,
    ResultNotSerializableError,
    Runtime,
    SQLitePersistence,
    Workflow,
    WorkflowConfigurationError,
    WorkflowExecutionError,
    WorkflowResult,
    WorkflowStatus,
    verify,
)
from dotmac_workflows.testing import FakeClock
from scripted import Scripted, journal, kinds, ran, shape
from workflows import Store


async def assert_resumes_alike(live: Scripted, store: Persistence) -> Scripted:
    """Assert that a freshly loaded object shows what the live one shows, types included, and return it."""
    loaded = await Scripted.load(live.workflow_id, store)
    assert spelled(loaded.results) == spelled(live.results)
    assert spelled(loaded.approval_data) == spelled(live.approval_data)
    assert spelled(dict(loaded.metadata)) == spelled(dict(live.metadata))
    assert (loaded.status, loaded.rollback_status) == (live.status, live.rollback_status)
    assert (loaded.current_step_index, loaded.pending_approval_step) == (
        live.current_step_index,
        live.pending_approval_step,
    )
    assert (await verify(store)).problems == []
    return loaded


def spelled(value: object) -> object:
    """Return a value with the type of everything in it, so that 1, 1.0 and True differ."""
    if isinstance(value, WorkflowResult):
        return spelled(value.to_dict())
    if isinstance(value, dict):
        return "dict", [(key, spelled(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return "tuple" if isinstance(value, tuple) else "list", [spelled(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(map(repr, map(spelled, value)))
    return type(value), repr(value)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {"items": []}
    value["items"].append(value)
    return value


class Money:
    """Nothing that a journal knows."""


class Point(NamedTuple):
    x: int
    y: int


REFUSED: dict[str, tuple[dict[Any, Any], str, str]] = {
    # What the step found out; the path and the words of the message.
    "an object": (
        {"items": [1, 2, 3, {"price": Money()}]},
        "data.items[3].price",
        "data.items[3].price is of type Money, which a journal cannot hold. Store what it is made of, or register "
        "Money with a Codec.",
    ),
    "nan": (
        {"a": [float("nan")]},
        "data.a[0]",
        "data.a[0] is nan, which JSON cannot hold. Store None or a string instead.",
    ),
    "infinity": (
        {"a": {"b": float("-inf")}},
        "data.a.b",
        "data.a.b is -inf, which JSON cannot hold. Store None or a string instead.",
    ),
    "int keys": (
        {"items": {1: "a", "1": "b"}},
        "data.items",
        "data.items has a key of type int, and JSON has plain strings only. Make its keys str.",
    ),
    "a cycle": (
        cyclic(),
        "data.items[0]",
        "data.items[0] contains itself. Store a copy without the cycle, or an id to find it by.",
    ),
    "too deep": (nested(100_000), "", "nests too deep, beyond 100 levels. Store it flat, or as a string of its own."),
    "a huge int": (
        {"n": 10**5000},
        "data.n",
        "data.n is an int of more digits than can be read back (4,300 at most). Store hex() of it instead.",
    ),
    "a split pair": ({"s": "\ud83d\ude00"}, "data.s", "data.s holds a character as two surrogates side by side"),
    "a named tuple": (
        {"at": Point(1, 2)},
        "data.at",
        "data.at is of type Point, which would come back as a plain tuple.",
    ),
    "bytearray": ({"raw": bytearray(b"x")}, "data.raw", "data.raw is of type bytearray, which a journal cannot hold."),
    "a coroutine function": ({"f": nested}, "data.f", "data.f is of type function, which a journal cannot hold."),
}


class TestResultsThatCannotBeStored:
    @pytest.mark.parametrize("what", REFUSED)
    async def test_they_fail_the_step_and_roll_back_what_was_done(self, what: str, store: Store) -> None:
        data, path, words = REFUSED[what]
        workflow = Scripted(
            "order-1",
            ["reserve", "price", "ship"],
            persistence=store,
            script={"price": WorkflowResult(True, "price", data)},
        )

        results = await workflow.execute()

        assert shape(results) == [
            ("reserve", True, None),
            ("price", False, "result_not_serializable"),
            ("rollback_reserve", True, None),
        ]
        message = results[1].message or ""
        assert message.startswith(f"The result of 'price' cannot be stored: {path}")
        assert words in message
        assert len(message) < 1_000
        assert results[1].data == {}
        assert ran(workflow) == ["reserve", "price", "rollback_reserve"]
        assert (workflow.status, workflow.rollback_status) == (WorkflowStatus.FAILED, "done")
        (failed,) = [body for kind, body in await journal(store, "order-1") if kind == "step_failed"]
        assert failed["exception"] == "ResultNotSerializableError"
        await assert_resumes_alike(workflow, store)

    async def test_without_a_store_they_are_nobodys_business(self) -> None:
        data: dict[Any, Any] = {"money": Money(), "nan": float("nan"), 1: "a", "deep": nested(100_000), **cyclic()}
        workflow = Scripted("order-1", ["price"], script={"price": WorkflowResult(True, "price", data)})

        (result,) = await workflow.execute()

        assert result.success
        assert result.data is data
        assert workflow.status is WorkflowStatus.COMPLETED

    async def test_a_failure_that_cannot_be_stored_keeps_what_it_said(self, store: Store) -> None:
        answer = WorkflowResult(False, "price", {"why": Money()}, error="no_price", message="There is no price.")
        workflow = Scripted("order-1", ["price"], persistence=store, script={"price": answer})

        (result,) = await workflow.execute()

        assert result.error == "result_not_serializable"
        assert (result.message or "").endswith(" It had failed: There is no price.")

    async def test_of_a_rollback_they_leave_it_incomplete(self, store: Store) -> None:
        script: dict[str, Any] = {
            "rollback_a": WorkflowResult(True, "rollback_a", {"nan": float("nan")}),
            "c": RuntimeError("no"),
        }
        workflow = Scripted("order-1", ["a", "b", "c"], persistence=store, script=script)

        results = await workflow.execute()

        assert shape(results) == [
            ("a", True, None),
            ("b", True, None),
            ("c", False, "step_execution_error"),
            ("rollback_b", True, None),
            ("rollback_a", False, "result_not_serializable"),
        ]
        assert workflow.rollback_status == "incomplete"
        mended = await Scripted.load("order-1", store)
        await mended.retry_rollback()
        assert (mended.rollback_status, ran(mended)) == ("done", ["rollback_a"])

    async def test_the_log_names_step_and_path_but_no_value(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = {"card": "4111-1111", "price": Money()}
        workflow = Scripted("order-1", ["pay"], persistence=store, script={"pay": WorkflowResult(True, "pay", data)})
        with caplog.at_level(logging.DEBUG, "dotmac_workflows"):
            await workflow.execute()
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "data.price" in record.getMessage()
        assert vars(record)["workflow_id"] == "order-1"
        assert vars(record)["step"] == "pay"
        assert "4111" not in caplog.text

    async def test_a_key_as_long_as_a_book_does_not_make_a_book_of_the_message(self, store: Store) -> None:
        data = {"k" * 400_000: {"l" * 400_000: Money()}}
        workflow = Scripted("order-1", ["a"], persistence=store, script={"a": WorkflowResult(True, "a", data)})

        (result,) = await workflow.execute()

        assert result.error == "result_not_serializable"
        assert len(result.message or "") < 11_000
        await assert_resumes_alike(workflow, store)


def size_of(store: SQLitePersistence) -> int:
    return sum(os.stat(path).st_size for path in (store.path, f"{store.path}-wal") if os.path.exists(path))


class TestResultsThatAreTooLarge:
    LARGE = "x" * 100_000_000

    @pytest.mark.parametrize("where", ["data", "message", "error"])
    async def test_a_hundred_megabytes_never_reach_the_database(self, where: str, tmp_path: Path) -> None:
        answer = WorkflowResult(True, "export")
        setattr(answer, where, {"rows": self.LARGE} if where == "data" else self.LARGE)
        async with SQLitePersistence(tmp_path / "journals.db") as store:
            workflow = Scripted("order-1", ["reserve", "export"], persistence=store, script={"export": answer})
            before = size_of(store)

            results = await workflow.execute()

            assert size_of(store) - before < 200_000
            assert shape(results) == [
                ("reserve", True, None),
                ("export", False, "payload_too_large"),
                ("rollback_reserve", True, None),
            ]
            message = results[1].message or ""
            assert message.startswith(f"The result of 'export' cannot be stored: {where} is ")
            assert "the limit is 1,048,576." in message
            assert "Keep the content elsewhere and its address here" in message
            assert len(message) < 1_000
            (failed,) = [body for kind, body in await journal(store, "order-1") if kind == "step_failed"]
            assert failed["exception"] == "PayloadTooLargeError"
            await assert_resumes_alike(workflow, store)

    async def test_the_limit_is_exact(self, store: Store) -> None:
        def of_size(size: int) -> WorkflowResult:
            return WorkflowResult(True, "a", {"x": "y" * (size - len('{"x":""}'))})

        fits = Scripted("order-1", ["a"], persistence=store, script={"a": of_size(1024 * 1024)})
        await fits.execute()
        assert fits.status is WorkflowStatus.COMPLETED
        bursts = Scripted("order-2", ["a"], persistence=store, script={"a": of_size(1024 * 1024 + 1)})
        (result,) = await bursts.execute()
        assert "data is 1,048,577 bytes of JSON, and the limit is 1,048,576." in (result.message or "")

    async def test_metadata(self, store: Store) -> None:
        workflow = Scripted("order-1", ["a"], {"rows": self.LARGE}, persistence=store)
        with pytest.raises(PayloadTooLargeError, match=r"^metadata is at least 100,") as caught:
            await workflow.execute()
        assert (caught.value.workflow_id, caught.value.path) == ("order-1", "metadata")
        assert caught.value.limit == 1024 * 1024
        assert (caught.value.size or 0) > 100_000_000
        assert await store.read("order-1") == []
        assert ran(workflow) == []

    @pytest.mark.parametrize("verb", ["reject", "reject_and_cancel", "pause", "cancel"])
    async def test_reasons_and_actors(self, verb: str, store: Store) -> None:
        workflow = await waiting(store)
        if verb == "pause":
            workflow = Scripted("order-2", ["a"], persistence=store, script={"a": KeyboardInterrupt()})
            with pytest.raises(KeyboardInterrupt):
                await workflow.execute()
        for what, arguments in {"reason": (self.LARGE, None), "actor": ("no", self.LARGE)}.items():
            before = await store.read(workflow.workflow_id)
            with pytest.raises(PayloadTooLargeError, match=f"^{what} is 100,000,000 bytes of JSON or more") as caught:
                await getattr(workflow, verb)(arguments[0], actor=arguments[1])
            assert (caught.value.workflow_id, caught.value.path) == (workflow.workflow_id, what)
            assert await store.read(workflow.workflow_id) == before


EXOTIC: dict[str, Any] = {
    "lone surrogate": "a\ud800b",
    "low surrogate": "\udc00",
    "astral": "\U0001f600",
    "nul": "a\0b",
    "big": 10**4299,
    "small": -(10**4299),
    "minus zero": -0.0,
    "tiny": 5e-324,
    "bool": [True, 1, 1.0],
    "tuple": (1, (2, [3, (4,)])),
    "set": {1, 2, 3},
    "frozenset": frozenset({"a"}),
    "datetime": datetime(2026, 7, 1, 12, 30, tzinfo=UTC),
    "naive": datetime(2026, 7, 1, 12, 30, 1, 5),
    "date": date(2026, 7, 1),
    "time": time(12, 30),
    "timedelta": timedelta(days=-1, microseconds=7),
    "decimal": Decimal("1.50"),
    "uuid": UUID(int=5),
    "bytes": b"\0\xff",
    "dollar": {"$": ["tuple", [1]]},
    "": {"": None},
    "key\ud800": "in a key",
    "__proto__": {"constructor": "Workflow"},
}


class TestValuesThatComeBack:
    @pytest.mark.parametrize("what", EXOTIC)
    async def test_a_live_value_is_the_resumed_value(self, what: str, store: Store) -> None:
        data = {"value": EXOTIC[what], what: EXOTIC[what]}
        workflow = await waiting(store, metadata=data, data=data)

        assert spelled(workflow.results[0].data) == spelled(data)
        resumed = await assert_resumes_alike(workflow, store)
        await resumed.approve_and_continue(data)

        assert resumed.status is WorkflowStatus.COMPLETED
        assert spelled(resumed.approval_data) == spelled(data)
        await assert_resumes_alike(resumed, store)

    async def test_what_a_step_keeps_and_changes_later_does_not_reach_the_results(self, store: Store) -> None:
        data: dict[str, Any] = {"items": [1]}

        def change(workflow: Scripted) -> WorkflowResult:
            data["items"].append(2)
            return WorkflowResult(True, "b")

        script = {"a": WorkflowResult(True, "a", data), "b": change}
        workflow = Scripted("order-1", ["a", "b"], persistence=store, script=script)
        await workflow.execute()
        assert workflow.results[0].data == {"items": [1]}
        await assert_resumes_alike(workflow, store)


async def waiting(
    store: Persistence | None, workflow_id: str = "order-1", *, metadata: Any = None, data: Any = None, **script: Any
) -> Scripted:
    """Return a workflow that waits for an approval after its first step, ``a``."""
    gated = WorkflowResult(True, "a", data if data is not None else {}, requires_approval=True)
    workflow = Scripted(workflow_id, ["a", "b"], metadata, persistence=store, script={"a": gated, **script})
    workflow.configure(require_approval=True)
    await workflow.execute()
    assert workflow.status is WorkflowStatus.WAITING_APPROVAL
    return workflow


class TestMetadataAndApprovalData:
    @pytest.mark.parametrize(
        ("metadata", "path", "words"),
        [
            ({"x": Money()}, "metadata.x", "metadata.x is of type Money, which a journal cannot hold."),
            ({"x": [float("inf")]}, "metadata.x[0]", "metadata.x[0] is inf, which JSON cannot hold."),
            ({"x": cyclic()}, "metadata.x.items[0]", "metadata.x.items[0] contains itself."),
            ({3: 1}, "metadata", "metadata has a key of type int, and JSON has plain strings only."),
            ([1], "metadata", "metadata is of type list, and must be a dict."),
            ("text", "metadata", "metadata is of type str, and must be a dict."),
        ],
    )
    async def test_metadata_is_refused_before_anything_starts(
        self, store: Store, metadata: Any, path: str, words: str
    ) -> None:
        workflow = Scripted("order-1", ["a"], metadata, persistence=store)

        with pytest.raises(ResultNotSerializableError) as caught:
            await workflow.execute()

        assert str(caught.value).startswith(words)
        assert (caught.value.workflow_id, caught.value.path) == ("order-1", path)
        assert await store.read("order-1") == []
        assert await store.find() == []
        assert (workflow.status, workflow.results, ran(workflow)) == (WorkflowStatus.PENDING, [], [])

        workflow.metadata = {"x": 1}
        await workflow.execute()
        assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["a"])
        await assert_resumes_alike(workflow, store)

    @pytest.mark.parametrize("verb", ["approve", "approve_and_continue"])
    @pytest.mark.parametrize(
        ("data", "path", "words"),
        [
            ({"y": [0, Money()]}, "approval_data.y[1]", "approval_data.y[1] is of type Money, which a journal cannot"),
            ({"y": float("nan")}, "approval_data.y", "approval_data.y is nan, which JSON cannot hold."),
            (["y"], "approval_data", "approval_data is of type list, and must be a dict."),
        ],
    )
    async def test_approval_data_is_refused_and_the_gate_stays_open(
        self, store: Store, verb: str, data: Any, path: str, words: str
    ) -> None:
        workflow = await waiting(store)
        before = await store.read("order-1")

        with pytest.raises(ResultNotSerializableError) as caught:
            await getattr(workflow, verb)(data, actor="approver@example.com")

        assert str(caught.value).startswith(words)
        assert (caught.value.workflow_id, caught.value.path) == ("order-1", path)
        assert await store.read("order-1") == before
        assert (workflow.status, workflow.approval_data) == (WorkflowStatus.WAITING_APPROVAL, None)

        await getattr(workflow, verb)({"y": 1}, actor="approver@example.com")
        await workflow.execute()
        assert workflow.status is WorkflowStatus.COMPLETED
        assert workflow.approval_data == {"y": 1}
        assert ran(workflow) == ["a", "b"]
        await assert_resumes_alike(workflow, store)


class Odd(WorkflowResult):
    """A result that is made in a way of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(True, name, {"odd": True})


class Undecided:
    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")


class TestResultsThatAreNone:
    @pytest.mark.parametrize(
        ("answer", "named"),
        [
            (None, "NoneType"),
            ("done", "str"),
            (True, "bool"),
            ({"success": True, "step": "a"}, "dict"),
            (object, "type"),
        ],
    )
    async def test_another_type_fails_the_step(self, any_store: Store | None, answer: object, named: str) -> None:
        workflow = Scripted("order-1", ["reserve", "a"], persistence=any_store, script={"a": answer})

        results = await workflow.execute()

        assert shape(results) == [
            ("reserve", True, None),
            ("a", False, "invalid_result"),
            ("rollback_reserve", True, None),
        ]
        assert results[1].message == (
            f"Step 'a' returned {named}, not a WorkflowResult. Return one, with success and step."
        )
        assert workflow.status is WorkflowStatus.FAILED
        if any_store is not None:
            await assert_resumes_alike(workflow, any_store)

    async def test_of_a_rollback_another_type_fails_it(self, any_store: Store | None) -> None:
        script: dict[str, Any] = {"rollback_a": "undone", "b": RuntimeError("no")}
        workflow = Scripted("order-1", ["a", "b"], persistence=any_store, script=script)

        results = await workflow.execute()

        assert shape(results)[2:] == [("rollback_a", False, "invalid_result")]
        assert results[2].message == (
            "The rollback of step 'a' returned str, not a WorkflowResult or None. Return one, with success and step."
        )
        assert workflow.rollback_status == "incomplete"

    async def test_a_step_that_is_no_coroutine_fails_with_pythons_words(self, any_store: Store | None) -> None:
        class Sync(Workflow):
            def execute_step(self, step: str) -> WorkflowResult:  # type: ignore[override]  # the mistake in question
                return WorkflowResult(True, step)

        workflow = Sync("order-1", ["a"], persistence=any_store)
        (result,) = await workflow.execute()
        assert (result.success, result.error) == (False, "step_execution_error")
        assert "can't be used in 'await' expression" in (result.message or "")

    @pytest.mark.parametrize("answer", [WorkflowResult(True, "ship", {"n": 1}), Odd("ship")])
    async def test_another_steps_name_is_recorded_under_the_scheduled_step(
        self, any_store: Store | None, answer: WorkflowResult, caplog: pytest.LogCaptureFixture
    ) -> None:
        workflow = Scripted("order-1", ["a", "ship"], persistence=any_store, script={"a": answer})

        results = await workflow.execute()

        assert shape(results) == [("a", True, None), ("ship", True, None)]
        assert results[0].data == answer.data
        assert answer.step == "ship", "the step's own object is left as it was"
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert warning.getMessage() == (
            "Step 'a' of workflow 'order-1' returned a result for step 'ship'; it is recorded as its own."
        )
        assert (vars(warning)["workflow_id"], vars(warning)["step"]) == ("order-1", "a")
        if any_store is not None:
            await assert_resumes_alike(workflow, any_store)

    @pytest.mark.parametrize(
        ("name", "value", "type_name"),
        [("error", 5, "int"), ("message", ["no"], "list"), ("message", b"no", "bytes"), ("error", Money(), "Money")],
    )
    async def test_a_field_of_another_type_fails_the_step(
        self, store: Store, name: str, value: Any, type_name: str
    ) -> None:
        answer = WorkflowResult(True, "a", **{name: value})
        workflow = Scripted("order-1", ["reserve", "a"], persistence=store, script={"a": answer})

        results = await workflow.execute()

        assert shape(results) == [
            ("reserve", True, None),
            ("a", False, "invalid_result"),
            ("rollback_reserve", True, None),
        ]
        assert results[1].message == (
            f"The result of 'a' cannot be stored: {name} is of type {type_name}, and must be a str or None."
        )
        await assert_resumes_alike(workflow, store)

    async def test_without_a_store_fields_are_taken_as_they_are(self) -> None:
        answer = WorkflowResult(True, "a", error=5)  # type: ignore[arg-type]  # the mistake in question
        workflow = Scripted("order-1", ["a"], script={"a": answer})
        (result,) = await workflow.execute()
        assert workflow.status is WorkflowStatus.COMPLETED
        assert vars(result)["error"] == 5

    @pytest.mark.parametrize(
        ("success", "ends"), [("yes", "completed"), (1, "completed"), ("", "failed"), (None, "failed")]
    )
    async def test_success_counts_by_its_truth(self, any_store: Store | None, success: Any, ends: str) -> None:
        workflow = Scripted("order-1", ["a"], persistence=any_store, script={"a": WorkflowResult(success, "a")})
        (result,) = await workflow.execute()
        assert str(workflow.status) == ends
        if any_store is not None:
            assert result.success is (ends == "completed")
            await assert_resumes_alike(workflow, any_store)

    @pytest.mark.parametrize("name", ["success", "requires_approval"])
    async def test_a_truth_that_cannot_be_told_fails_the_step(self, any_store: Store | None, name: str) -> None:
        answer = WorkflowResult(True, "a")
        setattr(answer, name, Undecided())
        workflow = Scripted("order-1", ["reserve", "a"], persistence=any_store, script={"a": answer})
        workflow.configure(require_approval=True)

        results = await workflow.execute()

        assert shape(results) == [
            ("reserve", True, None),
            ("a", False, "invalid_result"),
            ("rollback_reserve", True, None),
        ]
        assert results[1].message == (
            f"Step 'a' returned a result whose {name} is of type Undecided, not a bool. Return one, with success and "
            "step."
        )
        if any_store is not None:
            await assert_resumes_alike(workflow, any_store)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")

    __repr__ = __str__


def recurse(depth: int) -> int:
    return recurse(depth + 1)


class TestExceptions:
    async def failed(self, workflow: Scripted, store: Persistence) -> dict[str, Any]:
        (body,) = [body for kind, body in await journal(store, workflow.workflow_id) if kind == "step_failed"]
        return body

    @pytest.mark.parametrize(
        ("error", "said", "kept"),
        [
            (ValueError("bad"), "ValueError: bad", "ValueError"),
            (ValueError(), "ValueError", "ValueError"),
            (KeyError("k"), "KeyError: 'k'", "KeyError"),
            (UnspeakableError(), f"{__name__}.UnspeakableError: <exception str() failed>", "UnspeakableError"),
            (
                ExceptionGroup("several", [ValueError("one"), TypeError("two")]),
                "ExceptionGroup: several (2 sub-exceptions)",
                "ExceptionGroup",
            ),
            (ValueError("lone \ud800 surrogate"), "ValueError: lone \ud800 surrogate", "ValueError"),
            (ValueError("nul \0 and \x1b[31mred"), "ValueError: nul \0 and \x1b[31mred", "ValueError"),
            (
                SyntaxError("bad syntax", ("f.py", 3, 1, "x =", 3, 2)),
                "SyntaxError: bad syntax (f.py, line 3)",
                "SyntaxError",
            ),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    async def test_are_told_and_kept(self, store: Store, error: Exception, said: str, kept: str) -> None:
        workflow = Scripted("order-1", ["reserve", "a"], persistence=store, script={"a": error})

        results = await workflow.execute()

        assert shape(results) == [
            ("reserve", True, None),
            ("a", False, "step_execution_error"),
            ("rollback_reserve", True, None),
        ]
        assert results[1].message == f"Step 'a' failed: {said}"
        body = await self.failed(workflow, store)
        assert body["exception"] == kept
        assert (
            body["traceback"].startswith("Traceback (most recent call last):") or "Exception Group" in body["traceback"]
        )
        assert "execute_step" in body["traceback"]
        await assert_resumes_alike(workflow, store)

    async def test_notes_do_not_hide_the_error(self, store: Store) -> None:
        error = ValueError("bad")
        error.add_note("the third of four")
        workflow = Scripted("order-1", ["a"], persistence=store, script={"a": error})
        (result,) = await workflow.execute()
        assert result.message == "Step 'a' failed: ValueError: bad"
        assert "the third of four" in (await self.failed(workflow, store))["traceback"]

    async def test_all_of_a_group_are_in_the_traceback(self, store: Store) -> None:
        group = ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [TypeError("two")])])
        workflow = Scripted("order-1", ["a"], persistence=store, script={"a": group})
        await workflow.execute()
        traceback = (await self.failed(workflow, store))["traceback"]
        assert "ValueError: one" in traceback
        assert "TypeError: two" in traceback

    @pytest.mark.parametrize("error", [ValueError("x" * 20_000_000), ExceptionGroup("x" * 20_000_000, [ValueError()])])
    async def test_a_huge_text_is_cut(self, tmp_path: Path, error: Exception) -> None:
        async with SQLitePersistence(tmp_path / "journals.db") as store:
            workflow = Scripted("order-1", ["a"], persistence=store, script={"a": error})
            before = size_of(store)
            (result,) = await workflow.execute()
            assert size_of(store) - before < 200_000
            assert (result.message or "").startswith(f"Step 'a' failed: {type(error).__name__}: xxx")
            assert len(result.message or "") < 11_000
            body = await self.failed(workflow, store)
            assert body["exception"] == type(error).__name__
            assert len(body["traceback"]) <= 20_000

    async def test_endless_recursion_is_a_failure_like_any_other(self, store: Store) -> None:
        workflow = Scripted("order-1", ["reserve", "a"], persistence=store, script={"a": lambda _: recurse(0)})
        results = await workflow.execute()
        assert shape(results)[1:] == [("a", False, "step_execution_error"), ("rollback_reserve", True, None)]
        assert (results[1].message or "").startswith(
            "Step 'a' failed: RecursionError: maximum recursion depth exceeded"
        )
        body = await self.failed(workflow, store)
        assert body["exception"] == "RecursionError"
        assert "more times]" in body["traceback"]

    async def test_of_the_same_cause_are_kept_with_their_chain(self, store: Store) -> None:
        def fail(_: Scripted) -> None:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise RuntimeError("second") from error

        workflow = Scripted("order-1", ["a"], persistence=store, script={"a": fail})
        await workflow.execute()
        traceback = (await self.failed(workflow, store))["traceback"]
        assert "KeyError: 'first'" in traceback
        assert "RuntimeError: second" in traceback

    async def test_neither_journal_nor_log_holds_locals_or_payloads(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        secret = "".join(["4111", "-", "2222"])  # not as one text in the source, which a traceback quotes

        def fail(workflow: Scripted) -> None:
            card = workflow.metadata["card"]
            raise RuntimeError(f"a card of {len(card)} characters was declined")

        workflow = Scripted("order-1", ["a", "b"], {"card": secret}, persistence=store, script={"b": fail})
        workflow.script = {"a": WorkflowResult(True, "a", {"card": secret}), "b": fail}
        with caplog.at_level(logging.DEBUG):
            await workflow.execute()
        body = await self.failed(workflow, store)
        assert 'raise RuntimeError(f"a card of' in body["traceback"]
        assert secret not in str(body)
        assert "a card of 9 characters was declined" in caplog.text
        assert secret not in caplog.text

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (ValueError("bad"), "ValueError: bad"),
            (UnspeakableError(), f"{__name__}.UnspeakableError: <exception str() failed>"),
        ],
    )
    async def test_in_validate_fail_the_run_and_record_nothing(
        self, any_store: Store | None, error: Exception, said: str
    ) -> None:
        class Checked(Scripted):
            async def validate(self) -> WorkflowResult:
                raise error

        workflow = Checked("order-1", ["a"], persistence=any_store)
        (result,) = await workflow.execute()
        assert (result.success, result.error) == (False, "validation_error")
        assert result.message == f"validate() raised {said}"
        assert workflow.status is WorkflowStatus.FAILED
        if any_store is not None:
            assert await any_store.read("order-1") == []


PATHS = ((1, "src"), (0, "."))
INTERRUPTED = """
    import asyncio, sys
    from dotmac_workflows import SQLitePersistence
    from scripted import Scripted

    async def wait(_):
        print("in the step", flush=True)
        await asyncio.Event().wait()

    async def main():
        async with SQLitePersistence(sys.argv[1]) as store:
            await Scripted("order-1", ["a", "b"], persistence=store, script={"b": wait}).execute()

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
"""


class TestInterruption:
    async def test_a_step_that_swallows_its_cancel_has_its_result_recorded_first(self, any_store: Store | None) -> None:
        started = asyncio.Event()

        async def stubborn() -> WorkflowResult:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
            return WorkflowResult(True, "a", {"done": True})

        workflow = Scripted("order-1", ["a", "b"], persistence=any_store, script={"a": lambda _: stubborn()})
        workflow.configure(rollback_on_cancel=True)
        run = asyncio.create_task(workflow.execute())
        await started.wait()
        await workflow.cancel("enough", actor="approver@example.com")
        results = await run

        assert run.cancelling() == 0
        assert shape(results) == [("a", True, None), ("rollback_a", True, None)]
        assert results[0].data == {"done": True}
        assert ran(workflow) == ["a", "rollback_a"]
        assert (workflow.status, workflow.rollback_status) == (WorkflowStatus.CANCELLED, "done")
        if any_store is not None:
            recorded = await kinds(any_store, "order-1")
            assert recorded.index("cancel_requested") < recorded.index("step_succeeded")
            await assert_resumes_alike(workflow, any_store)

    @pytest.mark.parametrize("way", ["wait_for", "timeout", "task_group", "shield"])
    async def test_timeouts_and_groups_inside_a_step_let_a_cancel_through(
        self, any_store: Store | None, way: str
    ) -> None:
        started = asyncio.Event()

        async def forever() -> None:
            started.set()
            await asyncio.Event().wait()

        async def step() -> WorkflowResult:
            if way == "wait_for":
                await asyncio.wait_for(forever(), 3600)
            elif way == "timeout":
                async with asyncio.timeout(3600):
                    await forever()
            elif way == "task_group":
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(forever())
            else:
                inner = asyncio.ensure_future(forever())
                try:
                    await asyncio.shield(inner)
                finally:
                    inner.cancel()
            return WorkflowResult(True, "a")

        workflow = Scripted("order-1", ["a", "b"], persistence=any_store, script={"a": lambda _: step()})
        run = asyncio.create_task(workflow.execute())
        await started.wait()
        await workflow.cancel()
        results = await run

        assert shape(results) == [("a", False, "step_interrupted")]
        assert results[0].message == "Step 'a' was interrupted by a cancel; its outcome is unknown."
        assert workflow.status is WorkflowStatus.CANCELLED
        assert run.cancelling() == 0
        if any_store is not None:
            await assert_resumes_alike(workflow, any_store)

    async def test_a_timeout_inside_a_step_is_the_steps_own_failure(self, any_store: Store | None) -> None:
        async def step() -> WorkflowResult:
            await asyncio.wait_for(asyncio.Event().wait(), 0)
            return WorkflowResult(True, "a")

        workflow = Scripted("order-1", ["a"], persistence=any_store, script={"a": lambda _: step()})
        (result,) = await workflow.execute()
        assert (result.error, result.message) == ("step_execution_error", "Step 'a' failed: TimeoutError")
        assert workflow.status is WorkflowStatus.FAILED

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
    @pytest.mark.parametrize("where", ["b", "rollback_a"])
    async def test_what_ends_the_process_leaves_the_run_to_be_resumed(
        self, store: Store, error: BaseException, where: str
    ) -> None:
        script: dict[str, Any] = {where: error, "c": RuntimeError("no")}
        workflow = Scripted("order-1", ["a", "b", "c"], persistence=store, script=script)

        with pytest.raises(type(error)) as caught:
            await workflow.execute()

        assert caught.value is error
        recorded = await kinds(store, "order-1")
        assert recorded[-2:] == ["step_started" if where == "b" else "rollback_step_started", "released"]
        assert await store.lease("order-1") is None
        assert workflow.status is WorkflowStatus.RUNNING
        resumed = await Scripted.load("order-1", store, script={"c": RuntimeError("no")})
        results = await resumed.resume()
        assert shape(results) == [
            ("a", True, None),
            ("b", True, None),
            ("c", False, "step_execution_error"),
            ("rollback_b", True, None),
            ("rollback_a", True, None),
        ]
        assert ran(resumed)[0] == where
        assert resumed.effects[0].attempt == 2
        await assert_resumes_alike(resumed, store)

    def test_a_process_that_is_interrupted_leaves_its_run_to_be_resumed(self, tmp_path: Path) -> None:
        program = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path / "journals.db")]
        environment = {"PYTHONPATH": os.pathsep.join(str(Path(__file__).parents[n] / name) for n, name in PATHS)}
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "in the step\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read() == "interrupted\n"
            assert process.wait() == 0

        async def resume() -> None:
            async with SQLitePersistence(tmp_path / "journals.db") as store:
                assert (await kinds(store, "order-1"))[-2:] == ["step_started", "released"]
                assert await store.lease("order-1") is None
                workflow = await Scripted.load("order-1", store)
                await workflow.resume()
                assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["b"])
                await assert_resumes_alike(workflow, store)

        asyncio.run(resume())

    async def test_a_cancelled_task_is_no_cancelled_workflow(self, any_store: Store | None) -> None:
        started = asyncio.Event()

        async def forever() -> None:
            started.set()
            await asyncio.Event().wait()

        script: dict[str, Any] = {"a": lambda _: forever()}
        workflow = Scripted("order-1", ["a"], persistence=any_store, script=script)
        run = asyncio.create_task(workflow.execute())
        await started.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert str(workflow.status) == "running"
        script.clear()
        await workflow.resume()
        assert str(workflow.status) == "completed"
        assert [effect.attempt for effect in workflow.effects] == [1, 2]


CALLBACKS = [
    "on_step_started",
    "on_step_completed",
    "on_approval_required",
    "on_rollback_started",
    "on_rollback_completed",
    "on_workflow_completed",
    "on_workflow_failed",
    "on_workflow_cancelled",
]


class TestCallbacks:
    async def outcome(self, store: Persistence | None, workflow_id: str, **callbacks: Any) -> list[Any]:
        """Return what becomes of three runs that between them call every callback."""
        outcomes: list[Any] = []
        for number, verdict in enumerate(("approve", "reject", "fail")):
            gated = WorkflowResult(True, "a", requires_approval=True)
            script = {"a": gated, "b": RuntimeError("no") if verdict == "fail" else WorkflowResult(True, "b")}
            workflow = Scripted(f"{workflow_id}-{number}", ["a", "b"], persistence=store, script=script)
            workflow.configure(require_approval=True, rollback_on_cancel=True)
            for name, callback in callbacks.items():
                setattr(workflow, name, callback)
            await workflow.execute()
            await (workflow.reject_and_cancel() if verdict == "reject" else workflow.approve_and_continue())
            outcomes.append((ran(workflow), shape(workflow.results), workflow.status, workflow.rollback_status))
            if store is not None:
                outcomes.append(await kinds(store, workflow.workflow_id))
                await assert_resumes_alike(workflow, store)
        return outcomes

    @pytest.mark.parametrize("way", ["raises", "raises async", "cancelled", "unspeakable", "no arguments"])
    async def test_that_fail_change_nothing_and_are_logged(
        self, any_store: Store | None, way: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        called: list[str] = []

        def make(name: str) -> Any:
            def raises(_: object) -> None:
                called.append(name)
                raise UnspeakableError if way == "unspeakable" else RuntimeError("a callback's own")

            async def raises_async(_: object) -> None:
                called.append(name)
                await asyncio.sleep(0)
                raise asyncio.CancelledError if way == "cancelled" else RuntimeError("a callback's own")

            def no_arguments() -> None: ...

            if way == "no arguments":
                return no_arguments
            return raises_async if way in ("raises async", "cancelled") else raises

        clean = await self.outcome(any_store, "clean")
        caplog.clear()
        assert await self.outcome(any_store, "order", **{name: make(name) for name in CALLBACKS}) == clean
        logged = [record for record in caplog.records if record.levelno == logging.ERROR and "Callback" in record.msg]
        assert {vars(record)["event"] for record in logged} == set(CALLBACKS)
        if way != "no arguments":
            assert [vars(record)["event"] for record in logged] == called
        assert all(record.exc_info for record in logged)
        assert logged[0].getMessage().startswith("Callback on_step_started of workflow 'order-0' raised ")
        assert logged[0].getMessage().endswith("; the workflow goes on.")

    async def test_that_are_slow_are_waited_for(self, any_store: Store | None) -> None:
        async def slow(_: object) -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        clean = await self.outcome(any_store, "clean")
        assert await self.outcome(any_store, "order", **dict.fromkeys(CALLBACKS, slow)) == clean

    async def test_that_hand_back_something_else_change_nothing(self, any_store: Store | None) -> None:
        clean = await self.outcome(any_store, "clean")
        callback = lambda told: told  # noqa: E731 - as users write them
        assert await self.outcome(any_store, "order", **dict.fromkeys(CALLBACKS, callback)) == clean

    async def test_a_slow_one_keeps_the_lease(self) -> None:
        renewed = asyncio.Event()

        class Watched(InMemoryPersistence):
            async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
                renewed.set()
                return await super().renew(workflow_id, token, expires_at)

        async def slow(_: object) -> None:
            await asyncio.wait_for(renewed.wait(), 10)

        workflow = Scripted("order-1", ["a"], persistence=Watched())
        workflow.runtime = Runtime(lease_seconds=0.06)
        workflow.on_step_started = slow
        await workflow.execute()
        assert workflow.status is WorkflowStatus.COMPLETED
        assert renewed.is_set()

    @pytest.mark.parametrize("name", ["on_step_started", "on_step_completed"])
    async def test_one_that_cancels_the_workflow_has_it_cancelled(self, any_store: Store | None, name: str) -> None:
        workflow = Scripted("order-1", ["a", "b"], persistence=any_store)

        async def cancel(_: object) -> None:
            if workflow.status is WorkflowStatus.RUNNING and not done:
                done.append(True)
                await workflow.cancel("seen enough", actor="approver@example.com")

        done: list[bool] = []
        setattr(workflow, name, cancel)
        await workflow.execute()
        assert workflow.status is WorkflowStatus.CANCELLED
        # A step that was recorded to run, and is not called yet when the cancel comes, is not called.
        assert ran(workflow) == ([] if name == "on_step_started" else ["a"])
        if any_store is not None:
            await assert_resumes_alike(workflow, any_store)

    async def test_one_that_cancels_the_task_leaves_the_run_to_be_resumed(self, store: Store) -> None:
        workflow = Scripted("order-1", ["a", "b"], persistence=store)

        async def cancel(_: object) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        workflow.on_step_completed = cancel
        task = asyncio.create_task(workflow.execute())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.lease("order-1") is None
        resumed = await Scripted.load("order-1", store)
        await resumed.resume()
        assert (resumed.status, ran(resumed)) == (WorkflowStatus.COMPLETED, ["b"])

    @pytest.mark.parametrize("verb", ["execute", "resume", "approve_and_continue", "retry"])
    async def test_one_that_drives_the_workflow_is_told_that_it_runs(
        self, any_store: Store | None, verb: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        workflow = Scripted("order-1", ["a"], persistence=any_store)
        refusals: list[str] = []

        async def drive(_: object) -> None:
            with pytest.raises(WorkflowExecutionError) as caught:
                await getattr(workflow, verb)()
            refusals.append(str(caught.value))

        workflow.on_step_started = drive
        await workflow.execute()
        assert refusals == [
            "Workflow 'order-1' is already running: this very object drives it at the moment. Wait for it, or call "
            "resume() after that."
        ]
        assert workflow.status is WorkflowStatus.COMPLETED


class WallClock(FakeClock):
    """A clock whose wall time can be set, as a time server does; durations are not concerned."""

    def __init__(self) -> None:
        super().__init__()
        self._offset = 0

    def jump(self, seconds: float) -> None:
        self._offset += round(seconds * 1_000_000_000)

    def time_ns(self) -> int:
        return super().time_ns() + self._offset


class BackwardClock(FakeClock):
    """A clock that goes back, durations included."""

    def __init__(self) -> None:
        super().__init__()
        self._back = 0

    def go_back(self, seconds: int) -> None:
        self._back += seconds

    def time_ns(self) -> int:
        return super().time_ns() - self._back * 1_000_000_000

    def monotonic(self) -> float:
        return super().monotonic() - self._back


class TestClocks:
    @pytest.mark.parametrize("jump", [-86_400.0 * 365 * 80, -3600.0, -1e-6, 3600.0, 86_400.0 * 365 * 500])
    async def test_the_wall_clock_jumps_inside_a_step(self, any_store: Store | None, jump: float) -> None:
        clock = WallClock()

        def step(_: Scripted) -> WorkflowResult:
            clock.jump(jump)
            clock.advance(2.5)
            return WorkflowResult(True, "a")

        workflow = Scripted("order-1", ["a", "b"], persistence=any_store, script={"a": step})
        workflow.runtime = Runtime(clock=clock)
        await workflow.execute()

        assert workflow.status is WorkflowStatus.COMPLETED
        assert [result.execution_time for result in workflow.results] == [2.5, 0.0]
        assert workflow.execution_time == max(0.0, 2.5 + jump)
        if any_store is not None:
            loaded = await assert_resumes_alike(workflow, any_store)
            assert loaded.execution_time == workflow.execution_time

    async def test_durations_are_never_negative_even_by_a_clock_that_breaks_its_promise(
        self, any_store: Store | None
    ) -> None:
        clock = BackwardClock()

        def step(workflow: Scripted) -> WorkflowResult:
            clock.go_back(3600)
            return WorkflowResult(True, workflow.step_context.step)

        def fail(_: Scripted) -> None:
            clock.go_back(3600)
            raise RuntimeError("no")

        def undo(_: Scripted) -> None:
            clock.go_back(1)

        script = {"a": step, "b": fail, "rollback_a": undo}
        workflow = Scripted("order-1", ["a", "b"], persistence=any_store, script=script)
        workflow.runtime = Runtime(clock=clock)
        await workflow.execute()
        assert [result.execution_time for result in workflow.results] == [0.0, 0.0, 0.0]
        assert workflow.execution_time == 0.0
        if any_store is not None:
            await assert_resumes_alike(workflow, any_store)

    async def test_a_gate_that_was_decided_before_it_opened_by_the_clock_is_decided(
        self, any_store: Store | None
    ) -> None:
        clock = WallClock()
        gated = WorkflowResult(True, "a", requires_approval=True)
        workflow = Scripted("order-1", ["a", "b"], persistence=any_store, script={"a": gated})
        workflow.configure(require_approval=True)
        workflow.runtime = Runtime(clock=clock)
        await workflow.execute()
        clock.jump(-86_400)
        await workflow.approve_and_continue(actor="approver@example.com")
        assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["a", "b"])

    async def test_a_lease_taken_in_the_future_does_not_lock_out_its_own_process(self, store: Store) -> None:
        clock = WallClock()
        workflow = Scripted("order-1", ["a"], persistence=store, script={"a": KeyboardInterrupt()})
        workflow.runtime = Runtime(clock=clock)
        with pytest.raises(KeyboardInterrupt):
            await workflow.execute()
        clock.jump(-86_400)
        resumed = await Scripted.load("order-1", store)
        resumed.runtime = Runtime(clock=clock)
        await resumed.resume()
        assert resumed.status is WorkflowStatus.COMPLETED


class TestConfiguration:
    @pytest.mark.parametrize("persistence", [object(), "journals.db", {}])
    def test_a_persistence_that_is_none(self, persistence: Any) -> None:
        with pytest.raises(WorkflowConfigurationError) as caught:
            Scripted("order-1", ["a"], persistence=persistence)
        assert str(caught.value) == (
            f"persistence must have the methods append, read and delete; {type(persistence).__name__} does not have "
            "all three. See dotmac_workflows.persistence.Persistence."
        )
        assert caught.value.workflow_id == "order-1"

    def test_settings_that_contradict_each_other(self) -> None:
        workflow = Scripted("order-1", ["a"])
        with pytest.raises(WorkflowConfigurationError, match="cannot both continue after a failed step and roll back"):
            workflow.configure(continue_on_step_failure=True)
        with pytest.raises(WorkflowConfigurationError, match="'sometimes'; it must be 'continue' or 'halt'"):
            workflow.configure(on_rollback_failure="sometimes")  # type: ignore[arg-type]  # the mistake in question
