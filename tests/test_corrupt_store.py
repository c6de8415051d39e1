"""What a damaged store does: it is noticed, named, left as it is, and keeps nothing else from running."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from campaigns import bit_flips, fuzzed_rows
from damage import fuzzing
from damage.flips import Flip, Flipper, parse
from damage.fuzzing import Fuzzer
from damage.stores import STEPS, images
from dotmac_workflows import (
    InMemoryPersistence,
    JournalCorruptError,
    JournalTooNewError,
    PersistenceError,
    SQLitePersistence,
    Workflow,
    WorkflowResult,
    WorkflowStatus,
    recover,
    verification,
    verify,
)
from dotmac_workflows._core import codec
from dotmac_workflows._core.events import Draft, Settings, WorkflowStarted
from dotmac_workflows._run import journal
from dotmac_workflows._run.journal import check_digests, digest_of, read_state
from dotmac_workflows.persistence import Header, Record
from dotmac_workflows.persistence.sqlite import _schema
from dotmac_workflows.testing._judge import Violation
from dotmac_workflows.values import Codec
from scripted import Scripted, ran
from sqlite_stores import append

Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images()["closed"].put(tmp_path_factory.mktemp("filled"))


@pytest.fixture
def path(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "journals.db"))


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        for statement in statements:
            assert database.execute(statement).rowcount, "a statement that changes nothing shows nothing"
        database.commit()


def rows(path: Path, workflow_id: str) -> list[Row]:
    """All that is stored of a workflow."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [
            row
            for table in ("workflows", "records")
            for row in database.execute(f"SELECT * FROM {table} WHERE workflow_id = ?", (workflow_id,))
        ]


async def attempt(verb: str, store: SQLitePersistence) -> None:
    """Do with a fresh object of order-1 what a process might."""
    if verb == "load":
        await Scripted.load("order-1", store)
    else:
        await getattr(Scripted("order-1", STEPS, {"amount": 5}, persistence=store), verb)()


def spoil_index(path: Path) -> None:
    """Have the entry for order-1 in the index of lists lead to no row."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        ((page,),) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'workflows_by_start'").fetchall()
        ((page_size,),) = database.execute("PRAGMA page_size").fetchall()
    data = bytearray(path.read_bytes())
    at = data.index(b"order-1", (page - 1) * page_size)
    assert at < page * page_size
    data[at : at + 7] = b"order-0"
    path.write_bytes(data)


OF_1 = "WHERE workflow_id = 'order-1'"

DAMAGES: dict[str, tuple[list[str], int, str]] = {
    # What is done to the journal of order-1 (six records); the record that is named, and how.
    "a body": (
        [f"UPDATE records SET body = replace(body, '5', '6') {OF_1} AND seq = 1"],
        1,
        "record 1 ('workflow_started') does not match its digest",
    ),
    "a space in a body": (
        [f"UPDATE records SET body = body || ' ' {OF_1} AND seq = 4"],
        4,
        "record 4 ('step_succeeded') does not match its digest",
    ),
    "a kind": (
        [f"UPDATE records SET kind = 'step_failed' {OF_1} AND seq = 4"],
        4,
        "record 4 ('step_failed') does not match its digest",
    ),
    "a kind that is no text for a terminal": (
        [f"UPDATE records SET kind = char(27) || '[2J' {OF_1} AND seq = 4"],
        4,
        r"record 4 ('\x1b[2J') does not match its digest",
    ),
    "an instant": (
        [f"UPDATE records SET at = at + 1 {OF_1} AND seq = 5"],
        5,
        "record 5 ('step_started') does not match its digest",
    ),
    "a digest": (
        [f"UPDATE records SET digest = upper(digest) {OF_1} AND seq = 3"],
        3,
        "record 3 ('step_started') does not match its digest",
    ),
    "an empty digest": (
        [f"UPDATE records SET digest = '' {OF_1} AND seq = 1"],
        1,
        "record 1 ('workflow_started') does not match its digest",
    ),
    "the first row gone": ([f"DELETE FROM records {OF_1} AND seq = 1"], 1, "record 1 is missing"),
    "a middle row gone": ([f"DELETE FROM records {OF_1} AND seq = 3"], 3, "record 3 is missing"),
    "the last row gone": ([f"DELETE FROM records {OF_1} AND seq = 6"], 6, "record 6 is missing"),
    "all rows gone": ([f"DELETE FROM records {OF_1}"], 1, "record 1 is missing"),
    "the header gone": ([f"DELETE FROM workflows {OF_1}"], 1, "record 1 is more than it should have"),
    "a middle row gone and the rest moved up": (
        [
            f"DELETE FROM records {OF_1} AND seq = 3",
            f"UPDATE records SET seq = -seq {OF_1} AND seq > 3",
            f"UPDATE records SET seq = -seq - 1 {OF_1} AND seq < 0",
            f"UPDATE workflows SET version = 5 {OF_1}",
        ],
        3,
        "record 3 ('step_succeeded') does not match its digest",
    ),
    "two rows swapped": (
        [
            f"UPDATE records SET seq = -4 {OF_1} AND seq = 3",
            f"UPDATE records SET seq = 3 {OF_1} AND seq = 4",
            f"UPDATE records SET seq = 4 {OF_1} AND seq = -4",
        ],
        3,
        "record 3 ('step_succeeded') does not match its digest",
    ),
    "a row said twice": (
        [
            f"INSERT INTO records SELECT workflow_id, 7, kind, at, body, digest FROM records {OF_1} AND seq = 6",
            f"UPDATE workflows SET version = 7 {OF_1}",
        ],
        7,
        "record 7 ('released') does not match its digest",
    ),
    "a row too many": (
        [f"INSERT INTO records SELECT workflow_id, 7, kind, at, body, digest FROM records {OF_1} AND seq = 6"],
        7,
        "record 7 is more than it should have",
    ),
    "the rows of another workflow": (
        [
            f"DELETE FROM records {OF_1}",
            "INSERT INTO records SELECT 'order-1', seq, kind, at, body, digest FROM records "
            "WHERE workflow_id = 'order-4' AND seq <= 6",
        ],
        1,
        "record 1 ('workflow_started') does not match its digest",
    ),
    "a version too low": ([f"UPDATE workflows SET version = 5 {OF_1}"], 6, "record 6 is more than it should have"),
    "a version too high": ([f"UPDATE workflows SET version = 7 {OF_1}"], 7, "record 7 is missing"),
    "a version below zero": ([f"UPDATE workflows SET version = -1 {OF_1}"], 0, "record 0 is more than it should have"),
}


class TestDamagedJournals:
    @pytest.mark.parametrize("what", DAMAGES)
    async def test_every_verb_names_the_record_and_changes_nothing(self, what: str, path: Path) -> None:
        statements, seq, words = DAMAGES[what]
        change(path, *statements)
        before = rows(path, "order-1")

        async with SQLitePersistence(path) as store:
            for verb in ("load", "execute", "resume", "approve", "reject_and_cancel", "pause", "cancel", "retry"):
                with pytest.raises(PersistenceError) as caught:
                    await attempt(verb, store)
                assert caught.value.workflow_id == "order-1"
                if verb == "execute" and what == "the header gone":
                    assert "the row is there already" in str(caught.value)  # of a fresh object that reads nothing
                    continue
                assert isinstance(caught.value, JournalCorruptError)
                assert caught.value.seq == seq
                assert str(caught.value).startswith("The journal of workflow 'order-1' is damaged: ")
                assert words in str(caught.value)
                assert "Nothing was overwritten" in str(caught.value)
                assert str(caught.value).isprintable()
        assert rows(path, "order-1") == before

    @pytest.mark.parametrize("what", DAMAGES)
    async def test_verify_reports_that_one_and_the_others_run(self, what: str, path: Path) -> None:
        statements, seq, words = DAMAGES[what]
        change(path, *statements)
        before = rows(path, "order-1")

        async with SQLitePersistence(path) as store:
            if what != "the header gone":  # it is not listed any more
                found = await verify(store)
                (problem,) = found.problems
                assert isinstance(problem, JournalCorruptError)
                assert (problem.workflow_id, problem.seq) == ("order-1", seq)
                assert words in str(problem)
                assert found.workflows == 4
                (recovered,) = await recover(store, [Scripted])
                assert isinstance(recovered.error, JournalCorruptError)
                assert recovered.workflow_id == "order-1"
            other = await Scripted.load("order-2", store)
            await other.approve_and_continue()
            assert other.status is WorkflowStatus.COMPLETED
            new = Scripted("order-9", STEPS, persistence=store)
            await new.execute()
            assert ran(new) == STEPS
        assert rows(path, "order-1") == before

    @pytest.mark.parametrize(
        ("assignment", "noticed_by_reading"),
        [
            ("status = 'completed'", False),
            ("pending_step = 'a'", False),
            ("workflow_type = 'Other'", False),
            ("created_at = created_at + 1", False),
            ("updated_at = updated_at - 1", False),
            ("wake_at = NULL", False),
            ("version = 5", True),
        ],
    )
    async def test_a_header_is_held_against_its_records(
        self, assignment: str, noticed_by_reading: bool, path: Path
    ) -> None:
        change(path, f"UPDATE workflows SET {assignment} {OF_1}")
        async with SQLitePersistence(path) as store:
            (problem,) = (await verify(store)).problems
            assert isinstance(problem, JournalCorruptError)
            assert problem.workflow_id == "order-1"
            if noticed_by_reading:
                return
            assert str(problem).startswith("The header of workflow 'order-1' (")
            assert "is not what its 6 records amount to (running, version 6)" in str(problem)
            # The journal is the truth, and the next append writes the header anew.
            workflow = await Scripted.load("order-1", store)
            await workflow.resume()
            assert workflow.status is WorkflowStatus.COMPLETED
            assert (await verify(store)).problems == []

    async def test_a_status_that_does_not_exist_is_named(self, path: Path) -> None:
        change(path, f"UPDATE workflows SET status = 'exploded' {OF_1}")
        async with SQLitePersistence(path) as store:
            with pytest.raises(JournalCorruptError) as caught:
                await verify(store)
            assert str(caught.value) == (
                "The header of workflow 'order-1' has the status 'exploded', which does not exist. Nothing was "
                "overwritten; restore the store from a backup."
            )
            assert caught.value.workflow_id == "order-1"
            assert (await Scripted.load("order-4", store)).status is WorkflowStatus.COMPLETED

    async def test_an_index_that_leads_to_no_row_is_reported(self, path: Path) -> None:
        spoil_index(path)
        async with SQLitePersistence(path) as store:
            found = await verify(store)
            assert found.workflows == 3, "so that one more would be missed in silence"
            (problem,) = found.problems
            assert isinstance(problem, JournalCorruptError)
            assert str(problem).startswith(f"'{path}' is damaged (")
            assert "missing from index workflows_by_start" in str(problem)
            assert (await Scripted.load("order-1", store)).status is WorkflowStatus.RUNNING

    async def test_a_damaged_lease_locks_nobody_out_for_ever(self, path: Path) -> None:
        async with SQLitePersistence(path) as store:
            await leave(store, "order-7")
        change(path, "UPDATE workflows SET lease_token = 'x' || lease_token WHERE workflow_id = 'order-7'")
        async with SQLitePersistence(path) as store:
            workflow = await Scripted.load("order-7", store)
            await workflow.resume()
            assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["b"])
            assert (await verify(store)).problems == []

    async def test_a_lease_that_somebody_removed_by_hand_does_not_either(self, path: Path) -> None:
        async with SQLitePersistence(path) as store:
            await leave(store, "order-7")
        change(
            path,
            "UPDATE workflows SET lease_token = NULL, lease_owner = NULL, lease_expires_at = NULL "
            "WHERE workflow_id = 'order-7'",
        )
        async with SQLitePersistence(path) as store:
            workflow = await Scripted.load("order-7", store)
            await workflow.resume()
            assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["b"])
            assert await store.lease("order-7") is None


class LeftError(PersistenceError):
    """The store failed once."""


async def leave(store: SQLitePersistence, workflow_id: str) -> None:
    """Leave a run in its second step, with its lease in place."""

    class Failing(SQLitePersistence):
        async def append(self, workflow_id: str, records: Any, **how: Any) -> None:
            if "step_succeeded" in [record.kind for record in records] and how["expected_version"] > 3:
                raise LeftError
            await super().append(workflow_id, records, **how)

    async with Failing(store.path) as failing:
        workflow = Scripted(workflow_id, STEPS, persistence=failing)
        with pytest.raises(LeftError):
            await workflow.execute()
    assert await store.lease(workflow_id) is not None


def add_record(path: Path, workflow_id: str, kind: str, body: str) -> None:
    """Append a record whose digest is right."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (seq, at, digest) = database.execute(
            "SELECT seq, at, digest FROM records WHERE workflow_id = ? ORDER BY seq DESC", (workflow_id,)
        ).fetchone()
        new = digest_of(digest, workflow_id, seq + 1, kind, at, body)
        database.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", (workflow_id, seq + 1, kind, at, body, new))
        database.execute("UPDATE workflows SET version = ? WHERE workflow_id = ?", (seq + 1, workflow_id))
        database.commit()


class TestRecordsOfOthers:
    async def test_of_a_newer_version_are_refused_untouched(self, path: Path) -> None:
        add_record(path, "order-1", "step_teleported", '{"step":"b"}')
        before = rows(path, "order-1")
        async with SQLitePersistence(path) as store:
            for verb in ("load", "execute", "resume", "approve", "cancel"):
                with pytest.raises(JournalTooNewError) as caught:
                    await attempt(verb, store)
                assert str(caught.value) == (
                    "Record 7 of workflow 'order-1' cannot be read: there is no event 'step_teleported' in this "
                    "version; upgrade dotmac-workflows to read it."
                )
                assert caught.value.workflow_id == "order-1"
            (problem,) = (await verify(store)).problems
            assert isinstance(problem, JournalTooNewError)
            (recovered,) = await recover(store, [Scripted])
            assert isinstance(recovered.error, JournalTooNewError)
            other = await Scripted.load("order-2", store)
            await other.approve_and_continue()
            assert other.status is WorkflowStatus.COMPLETED
        assert rows(path, "order-1") == before

    def test_a_file_of_a_newer_schema_is_refused_untouched(self, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
        before = path.read_bytes()

        async def open_it() -> None:
            async with SQLitePersistence(path) as store:
                await Scripted.load("order-1", store)

        with pytest.raises(JournalTooNewError) as caught:
            asyncio.run(open_it())
        assert "was made by a newer version of dotmac-workflows (schema 99, this one knows 1)" in str(caught.value)
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        ("kind", "body", "words"),
        [
            ("step_succeeded", "", "is not the JSON of a stored value"),
            ("step_succeeded", "[]", "is a list, and must be an object"),
            ("step_succeeded", "{}", "its fields are [], not ['gated', 'result']"),
            ("step_succeeded", '{"result":null,"gated":false}', "its body is not that of a 'step_succeeded'"),
            (
                "step_succeeded",
                '{"result":{"success":true,"step":""},"gated":false}',
                "step must be a non-empty string",
            ),
            ("step_succeeded", '{"result":{"success":1,"step":"b"},"gated":false}', "1 is not bool"),
            (
                "step_succeeded",
                '{"result":{"success":true,"step":"b","x":1},"gated":false}',
                "unexpected keyword argument 'x'",
            ),
            ("step_started", '{"step":"b","position":"1","visit":1,"attempt":1}', "'1' is not int"),
            ("step_started", '{"step":"b","position":1,"visit":1,"attempt":NaN}', "NaN is not JSON"),
            ("step_started", "[" * 100_000, "nests too deep"),
            ("step_started", '{"step":"","position":1,"visit":1,"attempt":1}', "no step '' at place 1 of the plan"),
            ("step_started", '{"step":"a","position":1,"visit":1,"attempt":1}', "no step 'a' at place 1 of the plan"),
            ("step_started", '{"step":"b","position":-1,"visit":1,"attempt":1}', "no step 'b' at place -1 of the plan"),
            ("step_started", '{"step":"c","position":2,"visit":1,"attempt":1}', "no step 'c' at place 2 of the plan"),
            (
                "rollback_step_started",
                '{"step":"b","position":0,"visit":1,"attempt":1}',
                "no step 'b' at place 0 of the plan",
            ),
            ("step_started", '{"step":"a","position":0,"visit":2,"attempt":1}', "it was not the turn of step 'a'"),
            ("approved", '{"actor":null,"data":{}}', "no gate was open"),
            ("approval_requested", '{"step":"b"}', "step 'b' is not the one that ran"),
            ("retried", '{"actor":null,"from_index":0}', "the run had not failed"),
            ("rollback_step_succeeded", '{"result":{"success":true,"step":"b"}}', "no rollback step was running"),
            ("workflow_started", '{"$":["tuple",[]]}', "must be an object"),
            ("step_started", f'{{"step":"b","position":1,"visit":1,"attempt":{2**63}}}', "a number is too large"),
            ("retried", f'{{"actor":null,"from_index":-{"9" * 4300}}}', "a number is too large"),
        ],
    )
    async def test_that_cannot_be_are_named(self, kind: str, body: str, words: str, path: Path) -> None:
        add_record(path, "order-1", kind, body)
        before = rows(path, "order-1")
        async with SQLitePersistence(path) as store:
            with pytest.raises(JournalCorruptError) as caught:
                await Scripted.load("order-1", store)
            assert (caught.value.workflow_id, caught.value.seq) == ("order-1", 7)
            assert words in str(caught.value)
            assert "record 7" in str(caught.value)
        assert rows(path, "order-1") == before


def test_a_text_that_was_never_written_has_no_digest_not_even_an_empty_one() -> None:
    with pytest.raises(JournalCorruptError, match=r"record 1 \('paused'\) does not match its digest"):
        check_digests("order-1", [Record(1, "paused", 0, '{"\ud800":0}', "")])


@pytest.mark.parametrize("place", [-1, 3])
async def test_a_run_cannot_begin_or_go_on_beyond_its_plan(place: int, path: Path) -> None:
    add_record(path, "order-3", "retried", f'{{"actor":null,"from_index":{place}}}')
    async with SQLitePersistence(path) as store:
        with pytest.raises(JournalCorruptError, match=f"there is no place {place} in the plan"):
            await Scripted.load("order-3", store)
    draft = Draft(WorkflowStatus.PAUSED, place, (), None, None, "none")
    plan = WorkflowStarted(0, "run", "Scripted", ("a", "b"), Settings(), {}, draft)
    kind, body = codec.encode(plan, Codec())
    with pytest.raises(JournalCorruptError, match=f"a draft of 2 steps stands at {place}"):
        read_state("order-1", [Record(1, kind, 0, body, "")], Codec())


class TestFlippedBits:
    """The campaign does the same for as long as one likes: ``python -m tests.campaigns.bit_flips --count 10000``."""

    def test_none_goes_unnoticed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert bit_flips.main(["--count", "120", "--seed", "20261125", "--jobs", "1"]) == 0
        assert "120 bits flipped" in capsys.readouterr().out

    @pytest.fixture
    def flipper(self, tmp_path: Path) -> Iterator[Flipper]:
        with asyncio.Runner() as runner:
            yield Flipper(tmp_path / "flipped", runner)

    def test_each_is_one_of_three(self, flipper: Flipper) -> None:
        database, log = flipper.content("closed", ""), flipper.content("left", "-wal")
        assert flipper.play(Flip("closed", "", database.index(b'"amount":5') + 9, 1)) == "noticed"
        assert flipper.play(Flip("closed", "", database.index(bytes(300)) + 150, 1)) == "without effect"
        assert flipper.play(Flip("left", "-wal", len(log) // 2, 1)) == "noticed"
        assert flipper.play(Flip("left", "-wal", len(log) - 1, 1)) == "of the last commit of a log, which is gone"
        assert parse(str(Flip("left", "-wal", 7, 1))) == Flip("left", "-wal", 7, 1)

    def test_one_that_nobody_noticed_would_be_found(self, flipper: Flipper, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_schema, "check_log", lambda path, own: None)
        with pytest.raises(Violation, match="it changed what is read, in silence"):
            flipper.play(Flip("left", "-wal", len(flipper.content("left", "-wal")) // 2, 1))
        monkeypatch.setattr(journal, "check_digests", lambda workflow_id, records: None)
        monkeypatch.setattr(verification, "check_digests", lambda workflow_id, records: None)
        place = flipper.content("closed", "").index(b'"amount":5') + 9
        with pytest.raises(Violation, match="it changed what is read, in silence"):
            flipper.play(Flip("closed", "", place, 1))


class TestRowsThatNoEngineWrote:
    """The campaign does the same for longer: ``python -m tests.campaigns.fuzzed_rows --count 1000000``."""

    def test_raise_no_error_but_ours_and_are_never_written_to(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert fuzzed_rows.main(["--count", "1000", "--seed", "20261125", "--jobs", "1"]) == 0
        assert "no error but ours" in capsys.readouterr().out
        assert fuzzed_rows.main(["--seed", "20261125", "--only", "7"]) == 0
        assert "rows changed in 1 journals" in capsys.readouterr().out

    @pytest.fixture
    def fuzzer(self, tmp_path: Path) -> Iterator[Fuzzer]:
        with asyncio.Runner() as runner:
            yield Fuzzer("20261125", tmp_path, runner)

    def test_another_error_would_be_found(self, fuzzer: Fuzzer, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object) -> None:
            raise KeyError("of nobody")

        monkeypatch.setattr(fuzzing, "read_state", fail)
        with pytest.raises(Violation, match=r"none of ours: KeyError: 'of nobody'\njournal \d+: digests made anew\n1 "):
            deque(map(fuzzer.play, range(20)), 0)

    def test_a_change_that_nobody_noticed_would_be_found(self, fuzzer: Fuzzer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fuzzing, "check_digests", lambda workflow_id, records: None)
        with pytest.raises(Violation, match=r"a change was not noticed\njournal \d+: digests left as they were"):
            deque(map(fuzzer.play, range(20)), 0)

    async def test_a_write_to_one_that_cannot_be_read_would_be_found(self) -> None:
        store = fuzzing.Untouchable([])
        with pytest.raises(Violation, match="something was written"):
            await append(store, "order-1", 6)

    def test_what_hangs_would_be_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def go_round() -> None:
            while True:
                pass

        monkeypatch.setattr(fuzzing, "_PATIENCE", 0.02)
        with pytest.raises(fuzzing.Hang), fuzzing.no_hang():
            go_round()


class TestVerifyBesideRuns:
    async def test_a_run_that_goes_on_meanwhile_is_no_damage(self) -> None:
        class Listing(InMemoryPersistence):
            async def find(self, **filters: Any) -> list[Header]:
                found = await super().find(**filters)
                if found and filters.get("after") is None:
                    await waiting.approve_and_continue()
                return found

        store = Listing()
        gated = WorkflowResult(True, "a", requires_approval=True)
        waiting = Scripted("order-1", STEPS, persistence=store, script={"a": gated})
        waiting.configure(require_approval=True)
        await waiting.execute()

        found = await verify(store)

        assert waiting.status is WorkflowStatus.COMPLETED
        assert (found.workflows, found.problems) == (1, [])

    @pytest.mark.parametrize("after", ["the same", "all others"])
    async def test_a_listing_that_goes_in_circles_comes_to_an_end(self, after: str) -> None:
        class Circling(InMemoryPersistence):
            asked = 0

            async def find(self, **filters: Any) -> list[Header]:
                self.asked += 1
                assert self.asked < 10
                if after == "the same":
                    filters.pop("after", None)
                return await super().find(**filters)

        store = Circling()
        for workflow_id in ("order-1", "order-2"):
            with pytest.raises(KeyboardInterrupt):
                await Scripted(workflow_id, STEPS, persistence=store, script={"a": KeyboardInterrupt()}).execute()
        assert (await verify(store)).workflows == 2
        assert [outcome.workflow_id for outcome in await recover(store, [Scripted])] == ["order-1", "order-2"]


async def test_the_base_class_shows_what_is_sound_of_any_type(path: Path) -> None:
    change(path, f"UPDATE records SET body = '{{}}' {OF_1} AND seq = 2")
    async with SQLitePersistence(path) as store:
        with pytest.raises(JournalCorruptError):
            await Workflow.load("order-1", store)
        assert (await Workflow.load("order-3", store)).status is WorkflowStatus.FAILED
