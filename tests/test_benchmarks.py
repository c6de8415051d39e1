"""The benchmarks run, tell what they found, and name whom they left out; what the figures are does not matter here."""

import ast
import json
import os
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from benchmarks import __main__ as command
from benchmarks import catalogue, costs
from benchmarks.catalogue import CATALOGUE, OURS, Peer
from benchmarks.environments import UnavailableError, python_of
from benchmarks.figures import Cell, Figures, Spread
from benchmarks.pairs import Bench
from benchmarks.peers._adapter import copy_runs
from benchmarks.plot import plot
from benchmarks.report import into, lost, number, report
from benchmarks.scenarios import SCENARIOS
from benchmarks.session import NotMeasuredError, Session
from benchmarks.sizes import QUICK, Sizes

ROOT = Path(__file__).parents[1]
ASKED = ["bare", "handwritten"]
"""Those that need nothing to be installed, but one: enough of everything, and the fewest processes."""
ABSENT = Peer("absent", "Absent", requirements=("./there-is-no-such-folder",))
"""Cannot be installed, which the installer sees without a network."""
KEPT = Figures.read(ROOT / "benchmarks" / "results.json")
TINY = Sizes(
    steps=(10,),
    alone=1,
    at_once=(3,),
    sleeping=(3,),
    waiting=(3,),
    approved=1,
    crashed=2,
    undone=1,
    in_memory=2,
    on_disk=1,
    stored=(3,),
)
BROKEN = Peer("broken", "Broken", module="benchmarks.peers._no_such_adapter")


def bench(folder: Path, **more: Any) -> Bench:
    asked: dict[str, Any] = {"rounds": 1, "seconds": 0.01, "limit": 60.0, "sizes": QUICK, "quiet": True}
    return Bench(folder, folder / "venvs", **(asked | more))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that one quick run of everything wrote, with a peer that cannot be installed among the rest."""
    folder = tmp_path_factory.mktemp("benchmarks")
    program = (
        "import sys; from benchmarks import catalogue, sizes; from benchmarks.catalogue import Peer; "
        f"from benchmarks.sizes import Sizes; catalogue.CATALOGUE += ({ABSENT!r},); sizes.QUICK = {TINY!r}; "
        "from benchmarks.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    given = ["--quick", "--rounds", "1", "--seconds", "0.01", "--limit", "60", "--output", str(folder / "out")]
    given += [
        "--peers",
        ",".join([*ASKED, ABSENT.name]),
        "--venvs",
        str(folder / "venvs"),
        "--directory",
        str(folder),
    ]
    path = os.pathsep.join((str(ROOT), str(ROOT / "src")))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program, *given], env=environment, capture_output=True, check=False, encoding="utf-8"
    )
    assert ran.returncode == 0, ran.stderr
    (folder / "printed").write_text(ran.stdout, encoding="utf-8")
    (folder / "progress").write_text(ran.stderr, encoding="utf-8")
    return folder


class TestARun:
    def test_it_prints_the_tables_that_it_writes(self, run: Path) -> None:
        printed = (run / "printed").read_text(encoding="utf-8")
        assert printed.rstrip("\n") == (run / "out" / "tables.md").read_text(encoding="utf-8").rstrip("\n")
        for scenario in SCENARIOS.values():
            assert f"### {scenario.title}\n" in printed

    def test_it_leaves_nothing_behind(self, run: Path) -> None:
        assert sorted(path.name for path in run.iterdir()) == ["out", "printed", "progress", "venvs"]
        assert sorted(path.name for path in (run / "out").iterdir()) == ["plot.svg", "results.json", "tables.md"]

    def test_a_peer_that_cannot_be_installed_is_named_with_its_reason_and_left_out(self, run: Path) -> None:
        told = json.loads((run / "out" / "results.json").read_text(encoding="utf-8"))
        (absent,) = (peer for peer in told["peers"] if peer["name"] == ABSENT.name)
        assert absent["missing"].startswith("cannot be installed: ")
        assert absent["missing"] in (run / "out" / "tables.md").read_text(encoding="utf-8")
        assert f"left out: {absent['missing']}" in (run / "progress").read_text(encoding="utf-8")
        assert [cell for cell in told["cells"] if cell["peer"] == ABSENT.name] == []

    def test_every_scenario_has_figures_of_this_library_and_pairs_with_others(self, run: Path) -> None:
        figures = Figures.read(run / "out" / "results.json")
        for name in SCENARIOS:
            cells = [cell for cell in figures.cells if cell.scenario == name]
            assert any(cell.peer == OURS.name and cell.values for cell in cells), name
            assert all(cell.values or cell.reason for cell in cells)
            assert all(len(cell.ours) in (0, len(cell.values)) for cell in cells)
            if name != "growth":
                assert any(cell.ours for cell in cells), name

    def test_the_durability_is_read_back_from_the_connection_that_writes(self, run: Path) -> None:
        told = json.loads((run / "out" / "results.json").read_text(encoding="utf-8"))
        settings = {peer["name"]: (peer.get("journal_mode"), peer.get("synchronous")) for peer in told["peers"]}
        kept = ("wal", 2)
        assert settings == {"dotmac": kept, "bare": kept, "handwritten": kept, "absent": (None, None)}

    def test_the_machine_and_the_versions_are_told(self, run: Path) -> None:
        machine = json.loads((run / "out" / "results.json").read_text(encoding="utf-8"))["machine"]
        assert machine.keys() >= {"date", "commit", "processor", "cores", "load", "file_system", "fsync_ms"}
        assert (machine["python"], machine["sqlite"]) == (sys.version.split()[0], sqlite3.sqlite_version)

    def test_the_figures_can_be_drawn_again(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        again = run / "venvs" / "again"
        assert command.main(["--read", str(run / "out" / "results.json"), "--output", str(again)]) == 0
        for name in ("plot.svg", "results.json", "tables.md"):
            assert (again / name).read_bytes() == (run / "out" / name).read_bytes()

    def test_the_picture_is_an_svg_with_a_bar_for_every_ratio(self, run: Path) -> None:
        text = (run / "out" / "plot.svg").read_text(encoding="utf-8")
        root = ET.fromstring(text)
        space = "{http://www.w3.org/2000/svg}"
        assert (root.tag, root.get("width")) == (space + "svg", "900")
        titles = [one.text or "" for one in root.iter(space + "title")]
        assert any(title.startswith("own state column: \N{MULTIPLICATION SIGN}") for title in titles)
        assert any(title.startswith("dotmac-workflows: ") for title in titles)
        assert "prefers-color-scheme:dark" in text
        assert "nan" not in text


class TestWhatIsKept:
    """The figures that the documentation shows are one run's, which is kept beside the benchmarks."""

    def test_the_page_shows_their_tables(self) -> None:
        page = (ROOT / "docs" / "explanation" / "performance.md").read_text(encoding="utf-8")
        assert into(page, report(KEPT)) == page

    def test_the_picture_is_theirs(self) -> None:
        assert (ROOT / "docs" / "images" / "benchmarks.svg").read_text(encoding="utf-8") == plot(KEPT)

    def test_they_are_of_all_scenarios_and_peers(self) -> None:
        assert {cell.scenario for cell in KEPT.cells} == set(SCENARIOS)
        assert [peer["name"] for peer in KEPT.peers] == [OURS.name, *(peer.name for peer in CATALOGUE)]
        assert [peer["name"] for peer in KEPT.peers if "missing" in peer] == []

    def test_tables_are_put_only_where_a_page_has_a_place_for_them(self) -> None:
        assert into("a\n<!-- tables -->\nold\n<!-- end of the tables -->\nb", "new\n") == (
            "a\n<!-- tables -->\n\nnew\n\n<!-- end of the tables -->\nb"
        )
        with pytest.raises(ValueError, match="no place for tables"):
            into("a page", "new\n")


class TestWhoIsLeftOut:
    def test_one_that_cannot_be_installed(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match="cannot be installed: "):
            python_of(ABSENT, tmp_path)

    def test_one_that_does_not_start(self, tmp_path: Path) -> None:
        one = bench(tmp_path)
        assert one.prepare([OURS, BROKEN]) == [OURS]
        assert "No module named" in one.figures.peers[1]["missing"]

    def test_one_that_takes_too_long_is_ended_and_named(self, tmp_path: Path) -> None:
        with Session(catalogue.CATALOGUE[0], Path(sys.executable)) as session:
            with pytest.raises(NotMeasuredError, match="takes more than 0 s"):
                session.ask("in_memory", 0.0, steps=10, runs=10_000_000)
            with pytest.raises(NotMeasuredError, match="has ended"):
                session.ask("close", 1.0)

    def test_one_that_dies_is_named_with_its_last_words(self) -> None:
        with Session(catalogue.CATALOGUE[0], Path(sys.executable)) as session:
            session._process.kill()
            with pytest.raises(NotMeasuredError):
                session.ask("in_memory", 60.0, steps=1, runs=1)

    def test_a_case_that_would_take_longer_than_the_limit_is_not_begun(self, tmp_path: Path) -> None:
        one = bench(tmp_path, limit=2.0)
        one.afford("durable", "100 at once", ABSENT, 2.0)
        with pytest.raises(NotMeasuredError, match="would take about 60 s, more than the limit of 2 s"):
            one.afford("durable", "1,000 at once", ABSENT, 60.0)
        assert [(cell.case, cell.reason) for cell in one.figures.cells] == [
            ("1,000 at once", "would take about 60 s, more than the limit of 2 s")
        ]

    @pytest.mark.parametrize("option", ["--scenarios", "--peers"])
    def test_a_name_that_is_unknown_is_refused(self, option: str) -> None:
        with pytest.raises(SystemExit, match="no such .*: nobody. There are: "):
            command.main([option, "nobody"])


class TestRatios:
    def test_each_value_is_compared_with_the_one_beside_it(self) -> None:
        cell = Cell("s", "c", "ms", "x", values=[2.0, 30.0, 8.0], ours=[1.0, 10.0, 2.0])
        assert cell.ratio() == Spread(2.0, 3.0, 4.0)

    def test_of_what_more_is_better_the_slower_one_has_the_greater_ratio_too(self) -> None:
        cell = Cell("s", "c", "steps a second", "x", more_is_better=True, values=[50.0], ours=[100.0])
        assert cell.ratio() == Spread(2.0, 2.0, 2.0)

    def test_what_was_not_measured_in_pairs_has_none(self) -> None:
        assert Cell("s", "c", "ms", "x", values=[1.0]).ratio() is None
        assert Cell("s", "c", "KiB", "x", values=[1.0], ours=[0.0]).ratio() is None

    def test_pairs_are_taken_in_turns(self, tmp_path: Path) -> None:
        one = bench(tmp_path, rounds=3, seconds=60.0)
        able = one.prepare([OURS, *(peer for peer in CATALOGUE if peer.name == "bare")])
        order: list[str] = []
        with one.sides(able[1]) as sides:

            def measure(side: Any) -> dict[str, float]:
                order.append(side.session.peer.name)
                return {"ms": float(len(order))}

            one.compare("s", "c", sides, measure)
        assert order == ["dotmac", "bare"] * 4
        (cell,) = one.figures.cells
        assert (cell.ours, cell.values) == ([3.0, 5.0, 7.0], [4.0, 6.0, 8.0])  # the first pair warmed up


def test_what_power_loss_takes_follows_from_the_settings() -> None:
    assert lost("wal", 2) == lost("truncate", 3) == "nothing acknowledged"
    assert lost("delete", 2) == "a commit just before it"
    assert lost("wal", 1) == "all since the last checkpoint"
    assert lost("delete", 1) == "the last commits, seldom the file"
    assert lost("memory", 2) == lost("wal", 0) == "anything, the file too"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (2.0, "2"),
        (1234.5, "1,230"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.01234, "0.0123"),
        (999.6, "1,000"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_run_without_any_peer_has_a_table_and_a_picture() -> None:
    machine = {"fsync_ms": {"p50": 0.2, "p99": 0.3}} | dict.fromkeys(
        ("date", "commit", "cores", "processor", "load", "system", "python", "sqlite", "file_system"), "x"
    )
    figures = Figures(machine)
    assert "an fsync of 4 KiB appended takes 0.20 ms" in report(figures)
    ET.fromstring(plot(figures))


def test_copied_runs_are_whole_and_their_ids_random(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE runs (id TEXT PRIMARY KEY, status TEXT);"
            "CREATE TABLE outputs (number INTEGER PRIMARY KEY, run TEXT, step INTEGER);"
            "INSERT INTO runs VALUES ('first', 'done');"
            "INSERT INTO outputs (run, step) VALUES ('first', 1), ('first', 2);"
        )
    copy_runs(path, {"runs": "id", "outputs": "run"}, 5)
    with closing(sqlite3.connect(path)) as connection:
        ids = {row[0] for row in connection.execute("SELECT id FROM runs WHERE status = 'done'")}
        outputs = connection.execute("SELECT run, step FROM outputs").fetchall()
    assert len(ids) == 5
    assert "first" in ids
    assert sorted(outputs) == sorted((run, step) for run in ids for step in (1, 2))


@pytest.mark.parametrize("peer", CATALOGUE, ids=lambda peer: peer.name)
def test_an_adapter_says_in_which_setting_it_is_and_pins_what_it_needs(peer: Peer) -> None:
    path = ROOT / "benchmarks" / "peers" / f"{peer.name}.py"
    module = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(module)
    compile(module, path, "exec")
    assert all("==" in requirement for requirement in peer.requirements)


def test_what_a_step_costs_is_told_by_its_parts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert costs.main(["--steps", "1000"]) == 0
    printed = capsys.readouterr().out
    for part in ("| in memory, 100 steps", "| on SQLite", "| the loop ", "| the fold ", "| JSON ", "| all "):
        assert part in printed
    assert list(tmp_path.iterdir()) == []
