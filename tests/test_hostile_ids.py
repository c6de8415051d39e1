"""Ids, step names, filters and drafts that somebody chose to do harm, or in ignorance."""

import contextlib
import enum
import os
import signal
import sqlite3
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from dotmac_workflows import (
    InMemoryPersistence,
    PersistenceError,
    SQLitePersistence,
    Workflow,
    WorkflowConfigurationError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowResult,
    WorkflowStatus,
    recover,
    verify,
)
from scripted import Scripted, ran, shape
from workflows import Store

BAD_NAMES: dict[str, Any] = {
    "nul": "a\0b",
    "newline": "a\nb",
    "escape": "\x1b[2Jgone",
    "c1 control": "a\x9bb",
    "bidi override": "order-\u202e24-tcejer",
    "bidi isolate": "a\u2066b",
    "zero width": "a\u200bb",
    "byte order mark": "\ufefforder",
    "lone surrogate": "a\ud800",
    "no-break space": "a\xa0b",
    "line separator": "a\u2028b",
    "private use": "\ue000",
    "unassigned": "\u0378",
    "tag character": "a\U000e0041",
    "201 characters": "x" * 201,
    "a million characters": "\0" * 1_000_000,
    "bytes": b"order-1",
    "an int": 42,
    "a list": ["order-1"],
    "true": True,
    "an object": object(),
}


class Step(enum.StrEnum):
    RESERVE = "reserve"
    SHIP = "ship"


class OldStep(str, enum.Enum):  # noqa: UP042 - what `format` makes of these is the point
    RESERVE = "reserve"
    SHIP = "ship"


class Label(str):
    """A text of somebody's own, as templating libraries and database drivers have."""

    def __format__(self, spec: str) -> str:
        return f"<{str.__str__(self)}>"

    __str__ = __repr__ = lambda self: f"<{str.__str__(self)}>"


class Untouchable(InMemoryPersistence):
    """Must not be asked for anything."""

    async def append(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError

    async def read(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError


def assert_names(error: WorkflowConfigurationError, beginning: str, name: object) -> None:
    """Assert that a message names what is wrong in printable ASCII, and is no book."""
    message = str(error)
    assert message.startswith(f"{beginning} must be a string of 1 to 200 printable characters, not ")
    shown = ascii(name)
    assert message.endswith(f", not {shown}." if len(shown) <= 80 else f", not {shown[:77]}....")
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 250


class TestIds:
    @pytest.mark.parametrize("what", BAD_NAMES)
    async def test_that_are_none_are_refused_and_nothing_is_stored(self, any_store: Store | None, what: str) -> None:
        workflow = Scripted(BAD_NAMES[what], ["a"], persistence=any_store)
        with pytest.raises(WorkflowConfigurationError) as caught:
            await workflow.execute()
        assert_names(caught.value, "A workflow id", BAD_NAMES[what])
        assert ran(workflow) == []
        if any_store is not None:
            assert await any_store.find() == []

    @pytest.mark.parametrize("what", BAD_NAMES)
    async def test_no_verb_asks_the_store_for_them(self, what: str) -> None:
        workflow = Scripted(BAD_NAMES[what], ["a"], persistence=Untouchable())
        for verb in ("execute", "approve", "reject_and_cancel", "resume", "pause", "cancel", "retry"):
            with pytest.raises(WorkflowConfigurationError) as caught:
                await getattr(workflow, verb)()
            assert_names(caught.value, "A workflow id", BAD_NAMES[what])

    @pytest.mark.parametrize("what", [*BAD_NAMES, "empty", "none"])
    async def test_that_are_none_cannot_be_loaded(self, store: Store, what: str) -> None:
        name: Any = BAD_NAMES.get(what, "" if what == "empty" else None)
        with pytest.raises(WorkflowConfigurationError) as caught:
            await Scripted.load(name, store)
        assert_names(caught.value, "A workflow id", name)

    @pytest.mark.parametrize(
        "workflow_id",
        [
            "x",
            "x" * 200,
            " ",
            "..",
            "../../etc/passwd",
            "order 42",
            "日本語-è",
            "\U0001f600" * 200,
            "'; DROP TABLE records; --",
            '"; DELETE FROM workflows WHERE "1"="1',
            "a' OR '1'='1",
            "%",
            "_",
            "*",
            "NULL",
            "None",
            "0",
            "{0.__class__}",
            "%s%n",
            "${jndi:ldap://x}",
            "<script>alert(1)</script>",
        ],
    )
    async def test_what_looks_like_code_is_an_id_like_any_other(self, store: Store, workflow_id: str) -> None:
        other = Scripted("order-1", ["a"], persistence=store)
        await other.execute()
        gated = WorkflowResult(True, "a", requires_approval=True)
        workflow = Scripted(workflow_id, ["a", "b"], persistence=store, script={"a": gated})
        workflow.configure(require_approval=True)
        await workflow.execute()
        loaded = await Scripted.load(workflow_id, store)
        await loaded.approve_and_continue(actor=workflow_id)

        assert (loaded.workflow_id, loaded.status) == (workflow_id, WorkflowStatus.COMPLETED)
        assert ran(loaded) == ["b"]
        assert {header.workflow_id for header in await store.find()} == {workflow_id, "order-1"}
        checked = await verify(store)
        assert (checked.workflows, checked.problems) == (2, [])
        assert await store.delete(workflow_id) is True
        assert [header.workflow_id for header in await store.find()] == ["order-1"]

    async def test_nothing_but_the_very_same_id_is_found(self, store: Store) -> None:
        await Scripted("Order-é", ["a"], persistence=store).execute()
        for near in ("order-é", "Order-e\u0301", "Order-é ", " Order-é", "Order-_", "Order-%", "ORDER-É"):
            with pytest.raises(WorkflowNotFoundError) as caught:
                await Scripted.load(near, store)
            assert str(caught.value) == f"There is no workflow {near!r} in this store. Check the id and the store."
            assert caught.value.workflow_id == near

    @pytest.mark.parametrize("workflow_id", [OldStep.SHIP, Step.SHIP, Label("ship")])
    async def test_of_a_class_of_their_own_are_taken_as_plain_text(self, store: Store, workflow_id: str) -> None:
        workflow = Scripted(workflow_id, ["a"], persistence=store)
        await workflow.execute()
        assert type(workflow.workflow_id) is str
        loaded = await Scripted.load("ship", store)
        assert loaded.status is WorkflowStatus.COMPLETED
        again = await Scripted.load(workflow_id, store)
        assert (type(again.workflow_id), again.workflow_id) == (str, "ship")
        assert (await verify(store)).problems == []

    async def test_of_a_class_of_their_own_may_not_be_assigned(self, any_store: Store | None) -> None:
        workflow = Scripted("order-1", ["a"], persistence=any_store)
        workflow.workflow_id = OldStep.SHIP
        with pytest.raises(WorkflowConfigurationError) as caught:
            await workflow.execute()
        assert_names(caught.value, "A workflow id", OldStep.SHIP)

    async def test_the_database_itself_takes_no_null(self, tmp_path: Path) -> None:
        async with SQLitePersistence(tmp_path / "journals.db") as store:
            await Scripted("order-1", ["a"], persistence=store).execute()
        with contextlib.closing(sqlite3.connect(tmp_path / "journals.db")) as database:
            for sql in (
                "INSERT INTO records SELECT NULL, seq + 100, kind, at, body, digest FROM records",
                "INSERT INTO records SELECT workflow_id, NULL, kind, at, body, digest FROM records",
                "INSERT INTO records SELECT workflow_id, seq + 100, kind, at, NULL, digest FROM records",
                "UPDATE workflows SET workflow_id = NULL",
                "UPDATE workflows SET status = NULL",
            ):
                with pytest.raises(sqlite3.IntegrityError, match="NOT NULL constraint failed"):
                    database.execute(sql)


class TestStepNames:
    @pytest.mark.parametrize("what", [*BAD_NAMES, "empty", "none"])
    async def test_that_are_none_are_refused_and_nothing_is_stored(self, any_store: Store | None, what: str) -> None:
        name: Any = BAD_NAMES.get(what, "" if what == "empty" else None)
        workflow = Scripted("order-1", ["a", name, "b"], persistence=any_store)
        with pytest.raises(WorkflowConfigurationError) as caught:
            await workflow.execute()
        assert_names(caught.value, "A step name of workflow 'order-1'", name)
        assert caught.value.workflow_id == "order-1"
        assert ran(workflow) == []
        if any_store is not None:
            assert await any_store.find() == []

        workflow.steps = ["a", "b"]
        await workflow.execute()
        assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["a", "b"])

    @pytest.mark.parametrize("steps", ["reserve", b"ship", 5, {"a": 1}, {"a", "b"}, iter(["a"])])
    async def test_what_is_no_list_of_them_is_refused(self, any_store: Store | None, steps: Any) -> None:
        workflow = Scripted("order-1", steps, persistence=any_store)
        with pytest.raises(WorkflowConfigurationError) as caught:
            await workflow.execute()
        assert str(caught.value) == (
            f"The steps of workflow 'order-1' are of type {type(steps).__name__}, and must be a list of names."
        )
        assert caught.value.workflow_id == "order-1"
        assert ran(workflow) == []
        if any_store is not None:
            assert await any_store.find() == []

    @pytest.mark.parametrize("names", [Step, OldStep, [Label("reserve"), Label("ship")]])
    async def test_of_a_class_of_their_own_are_taken_as_plain_text(self, any_store: Store | None, names: Any) -> None:
        workflow = Scripted("order-1", list(names), persistence=any_store, script={"ship": RuntimeError("no")})
        results = await workflow.execute()
        assert shape(results) == [
            ("reserve", True, None),
            ("ship", False, "step_execution_error"),
            ("rollback_reserve", True, None),
        ]
        assert list(map(type, workflow.steps)) == [str, str]
        assert [type(effect.step) for effect in workflow.effects] == [str, str, str]
        if any_store is not None:
            loaded = await Scripted.load("order-1", any_store)
            assert loaded.results == results

    @pytest.mark.parametrize("step", ["'; DROP TABLE records; --", "%s", "rollback_a", "a b", "x" * 200, "{}"])
    async def test_what_looks_like_code_is_a_name_like_any_other(self, any_store: Store | None, step: str) -> None:
        workflow = Scripted("order-1", [step, "z"], persistence=any_store, script={"z": RuntimeError("no")})
        results = await workflow.execute()
        assert [result.step for result in results] == [step, "z", f"rollback_{step}"]
        if any_store is not None:
            assert (await verify(any_store)).problems == []


class TestFilters:
    HOSTILE = ("' OR '1'='1", "x'; DROP TABLE workflows; --", "%", "\0", "Scripted' --", "a\ud800")

    async def test_are_data(self, store: Store) -> None:
        await Scripted("order-1", ["a"], persistence=store).execute()
        for hostile in self.HOSTILE[:-1]:
            assert await store.find(workflow_type=hostile) == []
            assert await store.lease(hostile) is None
            assert await store.read(hostile) == []
            assert await store.delete(hostile) is False
        (header,) = await store.find(workflow_type="Scripted")
        assert await store.find(after=header._replace(workflow_id="' OR '1'='1")) == [header]
        assert await store.find(after=header) == []
        assert await store.find(limit=10**30) == [header]

    async def test_what_a_database_cannot_take_is_an_error_of_ours(self, tmp_path: Path) -> None:
        async with SQLitePersistence(tmp_path / "journals.db") as store:
            await Scripted("order-1", ["a"], persistence=store).execute()
            with pytest.raises(PersistenceError, match="could not do what it was asked"):
                await store.find(workflow_type="a\ud800")
            with pytest.raises(PersistenceError, match="could not do what it was asked"):
                await store.find(due_before=2**70)
            (header,) = await store.find()  # and the store goes on
            assert header.workflow_id == "order-1"

    @pytest.mark.parametrize("limit", [0, -1])
    async def test_a_page_of_nothing_is_refused(self, store: Store, limit: int) -> None:
        with pytest.raises(WorkflowConfigurationError) as caught:
            await store.find(limit=limit)
        assert str(caught.value) == f"find() was asked for {limit} headers at most. Ask for at least 1."

    async def test_a_type_that_looks_like_code_is_recovered_like_any_other(self, store: Store) -> None:
        class Hostile(Scripted):
            workflow_type = "x'; DROP TABLE workflows; --"

        with pytest.raises(KeyboardInterrupt):
            await Hostile("order-1", ["a"], persistence=store, script={"a": KeyboardInterrupt()}).execute()
        (recovered,) = await recover(store, [Hostile])
        assert recovered.error is None
        assert (recovered.workflow_type, recovered.status) == (Hostile.workflow_type, WorkflowStatus.COMPLETED)


class TestDrafts:
    """State that was set by hand before the run."""

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("status", "waiting_approval", "status of workflow 'order-1' must be of type WorkflowStatus, and not str."),
            ("status", None, "status of workflow 'order-1' must be of type WorkflowStatus, and not NoneType."),
            ("current_step_index", "1", "current_step_index of workflow 'order-1' must be of type int, and not str."),
            ("current_step_index", True, "current_step_index of workflow 'order-1' must be of type int, and not bool."),
            ("current_step_index", 1.0, "current_step_index of workflow 'order-1' must be of type int, and not float."),
            (
                "current_step_index",
                3,
                "current_step_index of workflow 'order-1' is 3, but it has 2 steps and is pending. Set it to 0 up "
                "to 2.",
            ),
            (
                "current_step_index",
                -1,
                "current_step_index of workflow 'order-1' is -1, but it has 2 steps and is pending. Set it to 0 up "
                "to 2.",
            ),
            (
                "results",
                [{"success": True, "step": "a"}],
                "each of the results of workflow 'order-1' must be of type WorkflowResult, and not dict.",
            ),
            (
                "pending_approval_step",
                5,
                "pending_approval_step of workflow 'order-1' is 5, which is none of its steps. Set it to the step that "
                "is waited at.",
            ),
            (
                "pending_approval_step",
                "\x1b[2J",
                "pending_approval_step of workflow 'order-1' is '\\x1b[2J', which is none of its steps. Set it to the "
                "step that is waited at.",
            ),
        ],
    )
    async def test_that_cannot_be_are_refused_and_nothing_is_stored(
        self, any_store: Store | None, name: str, value: Any, said: str
    ) -> None:
        workflow = Scripted("order-1", ["a", "b"], persistence=any_store)
        setattr(workflow, name, value)
        with pytest.raises(WorkflowConfigurationError) as caught:
            await workflow.execute()
        assert str(caught.value) == said
        assert caught.value.workflow_id == "order-1"
        assert ran(workflow) == []
        if any_store is not None:
            assert await any_store.find() == []

    async def test_that_wait_beyond_the_last_step_are_refused(self, any_store: Store | None) -> None:
        workflow = Scripted("order-1", ["a"], persistence=any_store)
        workflow.status = WorkflowStatus.WAITING_APPROVAL
        workflow.current_step_index = 1
        with pytest.raises(WorkflowConfigurationError) as caught:
            await workflow.approve_and_continue()
        assert str(caught.value) == (
            "current_step_index of workflow 'order-1' is 1, but it has 1 steps and is waiting_approval. Set it to 0 up "
            "to 0."
        )

    @pytest.mark.parametrize(
        "data",
        [
            {"workflow_id": "order-1", "steps": ["a"], "status": "exploded"},
            {"workflow_id": "order-1", "steps": ["a"], "results": [{"success": True}]},
            {"workflow_id": "order-1", "steps": ["a"], "rollback_status": "exploded"},
            {"workflow_id": "order-1", "steps": ["a"], "results": [{"success": True, "step": "a", "__class__": "x"}]},
        ],
    )
    def test_of_a_dictionary_that_to_dict_never_returned_are_refused(self, data: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"exploded|lacks|has unknown keys"):
            Scripted.from_dict(data)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_store_that_was_open_at_a_fork_is_refused_in_the_child(tmp_path: Path) -> None:
    async with SQLitePersistence(tmp_path / "journals.db") as store:
        await Scripted("order-1", ["a"], persistence=store).execute()
        (read_end, write_end) = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that it has threads is the point
            child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(60)  # a child that hangs is no answer either
                os.close(read_end)
                os.write(write_end, _in_child(store).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        with os.fdopen(read_end) as answer:
            said = answer.read()
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - the end of the pipe was the end of the child
        assert os.waitstatus_to_exitcode(status) == 0

        for verb in ("execute", "load", "verify"):
            assert (
                f"{verb}: PersistenceError: SQLitePersistence('{tmp_path}/journals.db') was opened by process "
                f"{os.getpid()}, before a fork; SQLite's connections and locks do not outlive one. Make a new "
                f"SQLitePersistence in this process ({child})."
            ) in said
        assert "anew: completed" in said
        assert {header.workflow_id for header in await store.find()} == {"order-1", "order-3"}
        assert (await verify(store)).problems == []


def _in_child(store: SQLitePersistence) -> str:
    """Try what a child might, with the parent's store and with one of its own, and tell what came of it."""
    lines: list[str] = []

    def drive(coroutine: Any) -> Any:
        import asyncio.events

        asyncio.events._set_running_loop(None)  # the parent's, which does not run here
        return asyncio.run(coroutine)

    async def anew() -> str:
        async with SQLitePersistence(store.path) as own:
            workflow = Scripted("order-3", ["a"], persistence=own)
            await workflow.execute()
            return str(workflow.status)

    for verb, coroutine in (
        ("execute", Scripted("order-2", ["a"], persistence=store).execute()),
        ("load", Scripted.load("order-1", store)),
        ("verify", verify(store)),
    ):
        try:
            drive(coroutine)
            lines.append(f"{verb}: nothing")
        except Exception as error:
            lines.append(f"{verb}: {type(error).__name__}: {error}")
    try:
        lines.append(f"anew: {drive(anew())}")
    except Exception as error:
        lines.append(f"anew: {error!r}")
    sys.stdout.flush()
    return "\n".join(lines)


async def test_the_base_class_loads_any_but_drives_none_of_them() -> None:
    store = InMemoryPersistence()
    with pytest.raises(KeyboardInterrupt):
        await Scripted("order-1", ["a"], persistence=store, script={"a": KeyboardInterrupt()}).execute()
    loaded = await Workflow.load("order-1", store)
    with pytest.raises(WorkflowExecutionError) as caught:
        await loaded.resume()
    assert str(caught.value) == (
        "Workflow 'order-1' was started as a Scripted; a Workflow has other steps. Load it with the class Scripted."
    )
