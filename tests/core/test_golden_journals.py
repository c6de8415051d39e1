"""Journals that were written once are read for ever: see ``tests/golden/make.py``."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest

from dotmac_workflows import SQLitePersistence, WorkflowStatus, verify
from dotmac_workflows._core import codec
from dotmac_workflows._run.journal import check_digests, header_of, read_state
from dotmac_workflows.persistence import InMemoryPersistence, Record
from golden import make
from golden.forms import NEVER, every_form, forms_of
from golden.make import CODEC, EVERY_VALUE, OTHER_VALUES, Order, contents, shown


def release(folder: Path) -> tuple[int, ...]:
    return tuple(map(int, folder.name.removeprefix("v").split(".")))


FOLDERS = sorted((Path(__file__).parents[1] / "golden").glob("v*"), key=release)
FILES = [path for folder in FOLDERS for path in sorted(folder.glob("*.json")) if path.stem != "store"]
NEWEST = [path for path in FILES if path.parent == FOLDERS[-1]]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return found


def rows_of(path: Path) -> list[Record]:
    return [Record(**row) for row in read(path)["records"]]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.fixture(params=FILES, ids=name_of)
def golden(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    if path.stem == "in_a_time_zone" and "Europe/Berlin" not in available_timezones():
        pytest.skip("this machine has no database of time zones")
    return path


async def test_a_golden_journal_is_what_it_was(golden: Path) -> None:
    rows = rows_of(golden)
    check_digests("order-42", rows)
    state = read_state("order-42", rows, CODEC)
    store = InMemoryPersistence()
    await store.append("order-42", rows, expected_version=0, header=header_of(state, rows[-1].at))
    assert await shown("order-42", store) == read(golden)["shown"]
    checked = await verify(store, codec=CODEC)
    assert (checked.workflows, checked.records, checked.problems) == (1, len(rows), [])


def test_this_version_writes_what_its_golden_journals_hold(golden: Path) -> None:
    """Let the writer change a kind only together with the kind's name, and with a reader for the old one."""
    if golden not in NEWEST:
        pytest.skip("an older version wrote it")
    for row in rows_of(golden):
        event = codec.decode(row.kind, row.at, row.body, CODEC)
        assert codec.encode(event, CODEC) == (row.kind, row.body)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    ("name", "asked", "values"),
    [("completed", "every value", EVERY_VALUE), ("of_other_values", "other values", OTHER_VALUES)],
)
def test_a_golden_journal_has_every_value_as_it_was(
    folder: Path, name: str, asked: str, values: dict[str, Any]
) -> None:
    state = read_state("order-42", rows_of(folder / f"{name}.json"), CODEC)
    data = state.results[0].data
    older = {key: values[key] for key in data}  # a value that was added since is in later ones only
    assert data == older
    assert {key: type(value) for key, value in data.items()} == {key: type(value) for key, value in older.items()}
    assert CODEC.encode(data, "data") == CODEC.encode(older, "data"), "with each fold and exponent"
    assert state.plan is not None
    assert {"reserve": asked, "about": older}.items() <= state.plan.metadata.items()


def test_every_form_that_is_written_has_a_golden_record() -> None:
    """Where this fails for something new, give it a scenario in ``tests/golden/make.py``; see there."""
    found = {form for path in NEWEST for row in rows_of(path) for form in forms_of(row)}
    assert every_form() - found == set(), "no golden journal has these"
    assert found - every_form() == set(), "and these are said to be never written"
    assert all(NEVER.values())


def test_every_status_has_a_golden_journal() -> None:
    found = {read(path)["shown"]["status"] for path in NEWEST}
    assert found == {status.value for status in WorkflowStatus} - {"pending"}, "what is pending is not stored"
    assert {read(path)["shown"]["rollback_status"] for path in NEWEST} >= {"none", "done", "incomplete"}


# The store.


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def store_file(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a golden store, and what is to be found in it."""
    folder: Path = request.param
    return Path(shutil.copy(folder / "store.sqlite", tmp_path / "orders.db")), read(folder / "store.json")


async def test_a_golden_store_is_what_it_was(store_file: tuple[Path, dict[str, Any]]) -> None:
    path, expected = store_file
    async with SQLitePersistence(path) as store:
        assert await contents(store) == expected
        checked = await verify(store, codec=CODEC)
    assert checked.problems == []
    assert checked.workflows == len(expected["headers"]) > 0
    assert checked.records == sum(map(len, expected["records"].values()))


async def test_what_a_golden_store_holds_goes_on(store_file: tuple[Path, dict[str, Any]]) -> None:
    path, _ = store_file
    make.CLOCK.advance(3_000_000)  # past the lease of a process that nobody knows
    async with SQLitePersistence(path) as store:
        waiting = await Order.load("order-waiting", store)
        await waiting.approve_and_continue({"by": "today"}, actor="approver@example.com")
        assert waiting.status is WorkflowStatus.COMPLETED
        for name in ("left_in_a_step", "paused"):
            run = await Order.load(f"order-{name}", store)
            await run.resume()
            assert run.status is WorkflowStatus.COMPLETED
        undone = await Order.load("order-incomplete", store)
        await undone.skip_rollback("reserve", "by hand")
        assert (undone.status, undone.rollback_status) == (WorkflowStatus.FAILED, "done")
        new = Order("order-new", make.STEPS, persistence=store)
        await new.execute()
        checked = await verify(store, codec=CODEC)
    assert checked.problems == []


async def test_this_version_makes_the_tables_of_its_golden_store(tmp_path: Path) -> None:
    """Let the schema change only together with its version, and with a way from the old one."""

    def schema(path: Path) -> object:
        with closing(sqlite3.connect(path)) as database:
            tables = database.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
            return [
                tables,
                *(database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")),
            ]

    path = tmp_path / "new.db"
    async with SQLitePersistence(path):
        pass
    golden_store = shutil.copy(FOLDERS[-1] / "store.sqlite", tmp_path / "golden.db")
    assert schema(path) == schema(Path(golden_store))


# The script.


def test_a_folder_that_is_there_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make, "HERE", tmp_path)
    monkeypatch.setattr(make, "SCENARIOS", make.SCENARIOS[:2])
    monkeypatch.setattr(make, "STORED", make.STORED[:1])
    assert make.main(["v7.1"]) == 0
    folder = tmp_path / "v7.1"
    made = {path: path.read_bytes() for path in folder.iterdir()}
    assert {path.name for path in made} == {"completed.json", "in_a_time_zone.json", "store.json", "store.sqlite"}

    assert make.main(["v7.1"]) == 1
    assert capsys.readouterr().err == "error: v7.1 is there, and stays as it is: a release has its own\n"

    (folder / "in_a_time_zone.json").unlink()
    (folder / "completed.json").write_text("{}")
    assert make.main(["v7.1", "--add"]) == 0
    assert (folder / "completed.json").read_text() == "{}"
    assert read(folder / "in_a_time_zone.json")["shown"]["status"] == "completed"
    assert (folder / "store.sqlite").read_bytes() == made[folder / "store.sqlite"]
