"""The contract of a backend names what is wrong with a broken one, and finds nothing in a right one."""

import asyncio
import gc
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dotmac_workflows import InMemoryPersistence, Persistence, WorkflowConfigurationError
from dotmac_workflows.persistence import Header, Record
from dotmac_workflows.status import WorkflowStatus
from dotmac_workflows.testing import CheckedClause, PersistenceContractError, PersistenceReport, check_persistence
from dotmac_workflows.testing._contract import check, comparing
from dotmac_workflows.testing._contract.bench import Bench
from dotmac_workflows.testing._contract.clause import clause
from dotmac_workflows.testing._contract.rows import header, records
from testing import broken_backends
from testing.broken_backends import BREAKS, KILLED, Append, Bare, LineByLine, Remote, Told, open_in, sharing

PATIENCE = {broken_backends.KeepsTheLock: 0.25}
"""For those that hang, in seconds."""
RUNNING = WorkflowStatus.RUNNING
NUMBERS: Any = (1.0, None, 2, 3, None)
"""The end of a header, with a version that is no int."""
NAMES = [one.name for one in check.CLAUSES]


async def broken_clauses(factory: Callable[[str], Persistence], patience: float = 60.0) -> PersistenceContractError:
    with pytest.raises(PersistenceContractError) as found:
        await check_persistence(factory, patience=patience)
    return found.value


def outcomes(report: PersistenceReport) -> dict[str, str]:
    return {one.name: one.outcome for one in report.clauses}


@pytest.mark.parametrize("kind", BREAKS, ids=lambda kind: kind.__name__)
async def test_a_broken_backend_is_caught_by_the_clause_that_names_its_fault(kind: type[Any]) -> None:
    error = await broken_clauses(sharing(kind), PATIENCE.get(kind, 60.0))
    assert error.broken[0] == BREAKS[kind]
    assert [one.name for one in error.report.clauses if one.outcome == "broken"] == list(error.broken)
    assert error.report.backend == kind.__name__


@pytest.mark.parametrize("kind", KILLED, ids=lambda kind: kind.__name__)
async def test_what_shows_only_when_a_process_is_killed_is_caught(kind: type[LineByLine], tmp_path: Path) -> None:
    error = await broken_clauses(partial(open_in, kind, tmp_path))
    assert KILLED[kind] in error.broken


def test_every_clause_is_named_by_a_broken_backend() -> None:
    assert {*BREAKS.values(), *KILLED.values()} == set(NAMES)
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize(
    ("kind", "claims"),
    [
        (Bare, ("Persistence",)),
        (Told, ("Persistence", "Leases", "Queries")),
        (Remote, ("Persistence", "Leases", "Queries")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_right_backend_passes(kind: type[Any], claims: tuple[str, ...]) -> None:
    report = await check_persistence(sharing(kind))
    assert (report.backend, report.capabilities) == (kind.__name__, claims)
    assert [one.name for one in report.clauses] == NAMES
    without = {"Leases", "Queries", "Checks"} - set(claims)
    not_applicable = [one.name for one in check.CLAUSES if one.needs & {*without, "other processes"}]
    assert [name for name, outcome in outcomes(report).items() if outcome == "not applicable"] == not_applicable
    assert all((one.calls > 0) == (one.outcome == "held") for one in report.clauses)
    assert report.calls == sum(one.calls for one in report.clauses)


async def test_a_right_backend_bears_that_its_process_is_killed(tmp_path: Path) -> None:
    report = await check_persistence(partial(open_in, LineByLine, tmp_path))
    last = report.clauses[-1]
    assert (last.name, last.outcome, last.note) == (NAMES[-1], "held", "3 processes killed")


async def test_what_is_broken_is_told_with_the_calls_that_show_it() -> None:
    error = await broken_clauses(sharing(broken_backends.LetsAnybodyGo))
    assert error.broken == ("nobody lets go of another's lease", "a stale lease changes nothing")
    first, second, last = str(error).split("\n\n")[1:]
    assert (
        first
        == """\
1. nobody lets go of another's lease
   rule:     Letting go too is stored only where the lease in place is the one that it replaces.
   why:      A driver that was overtaken, on its way out, throws out the one that took over, and a
             third one comes in.
   expected: store.append('w', [], expected_version=2, lease 't1' of 'owner of t1' let go, replaces
             't1') to raise LeaseLostError
   happened: it was done
   calls:    store.append('w', records 1 to 2, expected_version=0, lease 't2' of 'owner of t2' taken
                 until 1000, replaces none) -> done
             store holds of 'w' -> records 1 to 2, the lease 't2' until 1000, the header of 'w' at
                 version 2
             store.append('w', [], expected_version=2, lease 't1' of 'owner of t1' let go, replaces
                 't1') -> done
   remedy:   Compare the token for a change without expiry as for every other."""
    )
    assert second.startswith("2. a stale lease changes nothing\n")
    assert last == "Begin with the first: others may follow from it."


async def test_a_call_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "CLAUSES", [one for one in check.CLAUSES if one.name == "a cancellation goes on"])
    error = await broken_clauses(sharing(broken_backends.KeepsTheLock), 0.25)
    text = " ".join(str(error).split())
    assert "expected: every call to come back within 0.25 s happened: store.append('begun-2-2'," in text
    assert "replaces none) -> has not come back remedy:" in text


async def test_a_backend_that_hangs_is_not_waited_for_in_every_clause() -> None:
    class Hangs(Told):
        async def appends(self, append: Append) -> None:
            await asyncio.Event().wait()

    error = await broken_clauses(sharing(Hangs), 0.05)
    assert len(error.broken) == 3
    outcome = {one.name: one.note for one in error.report.clauses if one.outcome == "not applicable"}
    assert outcome.pop(NAMES[-1]).startswith("the factory cannot be sent")
    assert outcome.pop("check finds nothing in a store that is well") == "the backend has no check"
    assert set(outcome.values()) == {"calls hang, and were waited for long enough"}
    assert [name for name in NAMES if name in outcome][-1] == NAMES[-2]


async def test_an_error_that_no_protocol_names_is_told_with_its_place() -> None:
    error = await broken_clauses(sharing(broken_backends.FailsOnUnknownIds))
    text = " ".join(str(error).split())
    assert "happened: it raised KeyError: 'w' (line " in text
    assert " of broken_backends.py) calls:" in text


def test_a_report_is_a_table() -> None:
    report = PersistenceReport(
        "Shelf",
        ("Persistence", "Leases"),
        (
            CheckedClause("one", "held", 1200, "took 7 bytes"),
            CheckedClause("another", "held", 3),
            CheckedClause("a third", "not applicable", 0, "the backend has no find"),
            CheckedClause("a fourth", "not applicable", 0, "the backend has no check"),
            CheckedClause("a fifth", "not applicable", 0, "the backend has no find"),
            CheckedClause("a sixth", "broken", 1),
        ),
    )
    assert (
        str(report)
        == """\
Shelf (Persistence, Leases): 2 clauses held, 1 broken, 3 not applicable, 1,204 calls

  held    one       1,200 calls  took 7 bytes
  held    another       3 calls
  broken  a sixth       1 call

  not applicable, since the backend has no find:
          a third
          a fifth

  not applicable, since the backend has no check:
          a fourth"""
    )


# The factory.


class Closed(InMemoryPersistence):
    """Notes how it was closed."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log


class ClosedAtOnce(Closed):
    def close(self) -> None:
        self.log.append("close")


class ClosedLater(Closed):
    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.log.append("aclose")

    def close(self) -> None:
        raise AssertionError("aclose() is there")


class Entered(Closed):
    async def __aenter__(self) -> "Entered":
        return self

    async def __aexit__(self, *error: object) -> None:
        self.log.append("exit")

    def close(self) -> None:
        raise AssertionError("it was entered")


@asynccontextmanager
async def managed(log: list[str], name: str) -> AsyncIterator[Persistence]:
    yield InMemoryPersistence()
    log.append("managed")


async def awaited(log: list[str], name: str) -> ClosedLater:
    return ClosedLater(log)


@pytest.mark.parametrize(
    ("made", "how"),
    [
        (lambda log, name: ClosedAtOnce(log), "close"),
        (lambda log, name: ClosedLater(log), "aclose"),
        (lambda log, name: Entered(log), "exit"),
        (managed, "managed"),
        (awaited, "aclose"),
    ],
)
async def test_whatever_a_factory_gives_is_opened_and_closed(made: Callable[..., Any], how: str) -> None:
    names: list[str] = []
    log: list[str] = []

    def factory(name: str) -> Any:
        names.append(name)
        return made(log, name)

    report = await check_persistence(factory, reopens=False)
    assert outcomes(report)["a duplicate append is refused"] == "held"
    assert log == [how] * len(names)
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


async def test_each_check_has_names_of_its_own() -> None:
    names: list[str] = []

    def factory(name: str) -> Persistence:
        names.append(name)
        return InMemoryPersistence()

    for _ in range(2):
        await check_persistence(factory, reopens=False)
    assert len(set(names)) == len(names)


async def test_a_factory_that_gives_no_backend_is_refused() -> None:
    with pytest.raises(WorkflowConfigurationError, match="gave dict .* has no append, read, delete. Give the backend"):
        await check_persistence(lambda name: {})  # type: ignore[arg-type,return-value]  # the mistake


@pytest.mark.parametrize("patience", [0, -1, "a", None, True, float("nan"), float("inf"), 86_401])
async def test_patience_is_a_number_of_seconds(patience: Any) -> None:
    """A call of another process can be waited for by no more than some days."""
    made: list[str] = []
    with pytest.raises(WorkflowConfigurationError) as caught:
        await check_persistence(made.append, patience=patience)  # type: ignore[arg-type]  # nothing is opened
    assert str(caught.value) == (
        f"The patience of check_persistence() is {patience!r}. Give a number of seconds, above 0, to 86,400."
    )
    assert made == []


def no_name() -> Persistence:
    raise AssertionError


def two_names(name: str, folder: Path) -> Persistence:
    raise AssertionError


FUNCTION = "Give a function of the store's name, such as lambda name: MyStore(folder / name)."


@pytest.mark.parametrize(
    ("factory", "what"),
    [
        (None, "an object of type NoneType"),
        ("stores", "an object of type str"),
        (InMemoryPersistence(), "an object of type InMemoryPersistence"),
        (no_name, "no_name, which cannot be called with a name: too many positional arguments"),
        (two_names, "two_names, which cannot be called with a name: missing a required argument: 'folder'"),
        (
            partial(no_name),
            "an object of type partial, which cannot be called with a name: too many positional arguments",
        ),
        (InMemoryPersistence, "InMemoryPersistence, which cannot be called with a name: too many positional arguments"),
    ],
)
async def test_a_factory_takes_a_name(factory: Any, what: str) -> None:
    with pytest.raises(WorkflowConfigurationError) as caught:
        await check_persistence(factory)
    assert str(caught.value) == f"check_persistence() takes a function that opens a store, not {what}. {FUNCTION}"


async def test_a_coroutine_for_a_factory_is_refused() -> None:
    with pytest.raises(WorkflowConfigurationError, match="not an object of type coroutine. Give a function"):
        await check_persistence(awaited([], "w"))  # type: ignore[arg-type]  # the mistake
    gc.collect()


class Unwritable(InMemoryPersistence):
    append: Any = 5


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "gave NoneType for the store '.*', which has no append, read, delete. Give the backend, or an asyn"),
        (Unwritable(), "gave Unwritable for the store '.*', which has no append. Give the backend, or an asynchrono"),
        (Bare, "gave the class Bare for the store '.*'. Give an object of it."),
    ],
)
async def test_what_has_not_the_methods_of_a_backend_is_refused(made: Any, message: str) -> None:
    opened_stores: list[str] = []

    def factory(name: str) -> Any:
        opened_stores.append(name)
        return made

    with pytest.raises(WorkflowConfigurationError, match=f"^The factory {message}"):
        await check_persistence(factory)
    assert len(opened_stores) == 1


async def test_a_factory_whose_parameters_nobody_knows_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of some functions that are written in C."""

    class Stores:
        def __getattr__(self, name: str) -> Persistence:
            return InMemoryPersistence()

    factory = partial(getattr, Stores())
    with pytest.raises(ValueError, match="no signature found"):
        inspect.signature(factory)
    monkeypatch.setattr(check, "CLAUSES", check.CLAUSES[:2])
    report = await check_persistence(factory, reopens=False)
    assert [one.outcome for one in report.clauses] == ["held", "held"]


async def test_what_a_factory_raises_is_raised() -> None:
    def factory(name: str) -> Persistence:
        raise ConnectionError("no server")

    with pytest.raises(ConnectionError, match="no server"):
        await check_persistence(factory)


async def test_a_factory_that_gives_one_store_for_all_names_is_told() -> None:
    store = InMemoryPersistence()
    error = await broken_clauses(lambda name: store)
    assert "a new store is empty, and a store of its own" in error.broken
    assert "make a new store for every new name" in " ".join(str(error).split())


async def test_a_factory_that_opens_no_store_again_is_told() -> None:
    error = await broken_clauses(lambda name: InMemoryPersistence())
    assert error.broken == (
        "a store that is opened again holds what it acknowledged",
        "two handles see one store",
        "of many writers on many handles one wins",
    )
    assert "let the factory open the same store for the same name" in " ".join(str(error).split())


async def test_what_needs_a_second_handle_is_left_out_where_there_is_none() -> None:
    report = await check_persistence(lambda name: InMemoryPersistence(), reopens=False)
    left_out = {one.name: one.note for one in report.clauses if one.outcome == "not applicable"}
    reason = "the factory opens no store a second time (reopens=False)"
    assert left_out == {
        "check finds nothing in a store that is well": "the backend has no check",
        "a store that is opened again holds what it acknowledged": reason,
        "two handles see one store": reason,
        "of many writers on many handles one wins": reason,
        "a killed process loses nothing that it acknowledged": reason,
    }


async def test_a_factory_that_cannot_be_sent_is_no_fault_of_the_backend() -> None:
    report = await check_persistence(sharing(Told))
    assert report.clauses[-1].note.startswith("the factory cannot be sent to another process")


async def test_a_factory_that_another_process_cannot_load_is_no_fault_of_the_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that was typed into an interpreter, or in a program that begins again when it is imported."""
    module = ModuleType("only_here")
    open_store = sharing(Told)

    def factory(name: str) -> Persistence:
        return open_store(name)

    factory.__module__, factory.__qualname__ = "only_here", "factory"
    module.factory = factory  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, "only_here", module)
    report = await check_persistence(factory)
    last = report.clauses[-1]
    assert (last.name, last.outcome) == (NAMES[-1], "not applicable")
    assert last.note == "no process could be started with the factory (see what it printed)"


# The check itself.


async def test_a_check_that_is_cancelled_leaves_nothing_behind() -> None:
    log: list[str] = []

    class Slow(ClosedLater):
        async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
            reading.set()
            await asyncio.Event().wait()
            raise AssertionError

    reading = asyncio.Event()
    task = asyncio.create_task(check_persistence(lambda name: Slow(log), reopens=False))
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["aclose"] * 2, "the one that was looked at, and that of the first clause"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_clause_that_looks_at_nothing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    @clause("nothing", rule="", why="", remedy="")
    async def nothing(bench: Bench) -> None:
        await bench.open()

    monkeypatch.setattr(check, "CLAUSES", (nothing,))
    error = await broken_clauses(lambda name: InMemoryPersistence())
    assert "a mistake of the check" in str(error)


async def test_a_backend_that_raises_cancelled_error_by_itself_is_told() -> None:
    class CancelsItself(Told):
        async def appends(self, append: Append) -> None:
            if append.version:
                raise asyncio.CancelledError
            await super().appends(append)

    error = await broken_clauses(sharing(CancelsItself))
    assert "no CancelledError where nobody cancels" in " ".join(str(error).split())


def test_it_is_a_failed_assertion() -> None:
    assert issubclass(PersistenceContractError, AssertionError)


@pytest.mark.parametrize(
    ("actual", "wanted", "told"),
    [
        (records(0), records(0), None),
        (records(0, 3), records(0), "records 1 to 3: 3 and not 2"),
        (records(0, 1, mark="x"), records(0, 1), """record 1, whose body is '{"step":"s1","by":"x"}' and not """),
        (tuple(records(0, 1)[0]), records(0, 1)[0], "of type tuple and not Record"),
        (1.0, 1, "1.0, of type float and not int"),
        (True, 1, "True, of type bool and not int"),
        (
            [Header("w", "T", RUNNING, *NUMBERS)],
            [Header("w", "T", RUNNING, 1, None, 2, 3, None)],
            "whose version is 1.0, of type float and not int",
        ),
        (header("w", 1), None, "the header of 'w' at version 1, of type Header and not NoneType"),
        ("a" * 200, "b", "a text of 200 characters"),
    ],
)
def test_a_difference_is_told_in_a_line(actual: object, wanted: object, told: str | None) -> None:
    difference = comparing.differs(actual, wanted)
    if told is None:
        assert difference is None
    else:
        assert difference is not None
        assert told in difference
        assert "\n" not in difference


def test_who_tests_a_workflow_does_not_pay_for_the_contract_of_a_backend() -> None:
    program = """
import sys
from dotmac_workflows import testing
assert "check_persistence" in dir(testing)
assert "multiprocessing" not in sys.modules
from dotmac_workflows.testing import check_persistence
assert check_persistence is testing.check_persistence
try:
    testing.nothing_of_the_kind
except AttributeError as error:
    assert str(error) == "module 'dotmac_workflows.testing' has no attribute 'nothing_of_the_kind'", error
else:
    raise AssertionError
"""
    source = str(Path(__file__).resolve().parents[2] / "src")
    done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
