"""The demo: what it prints, what it leaves behind, and that it fails when it does not go as it says."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from command_line import Screen, call, environment
from demo_page import normalised, run_demo, shown, tidy
from dotmac_workflows.cli.demo import outcome
from dotmac_workflows.cli.demo.orders import Company, sample_orders

COMPLETED = {
    "stock": [("antenna", 3), ("router", 6)],
    "reserved": [("order-1001", "router", 1), ("order-1002", "router", 3), ("order-1005", "antenna", 1)],
    "deposits": [
        ("order-1001", 5000),
        ("order-1002", 15000),
        ("order-1003", 20000),
        ("order-1004", 5000),
        ("order-1004", -5000),
        ("order-1005", 5000),
        ("order-1003", -20000),
    ],
    "addresses": [("192.0.2.1", "order-1001"), ("192.0.2.2", "order-1005"), ("192.0.2.3", "order-1002")],
    "lines": [("line-1", "order-1001"), ("line-2", "order-1002"), ("line-5", "order-1005")],
}
QUERIES = {
    "stock": "SELECT * FROM stock ORDER BY 1",
    "reserved": "SELECT * FROM reserved ORDER BY 1",
    "deposits": "SELECT order_id, cents FROM deposits ORDER BY entry",
    "addresses": "SELECT address, order_id FROM addresses WHERE order_id IS NOT NULL ORDER BY 1",
    "lines": "SELECT line, order_id FROM lines WHERE order_id IS NOT NULL ORDER BY 1",
}
QUESTION = "[Enter: approve] "


def query(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "company.db")) as db, db:
        return db.execute(statement).fetchall()


def company(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the orders hold, and what was booked for them."""
    return {name: query(folder, statement) for name, statement in QUERIES.items()}


def journal(folder: Path, order_id: str) -> dict[str, Any]:
    code, out, err = call(folder, "show", order_id, "--json", "--db", "workflows.db")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def steps(folder: Path, order_id: str, kind: str = "step_started") -> list[tuple[str, int]]:
    bodies = [record["body"] for record in journal(folder, order_id)["records"] if record["kind"] == kind]
    return [(body["step"], body["attempt"]) for body in bodies]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a demo that was run without a terminal, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    code, out, err = run_demo(folder)
    assert (code, err) == (0, "")
    return folder / "demo", out


def test_the_page_shows_what_the_demo_prints(ran: tuple[Path, str]) -> None:
    assert normalised(tidy(ran[1])) == normalised(shown())


def test_the_output_is_plain_and_fits_80_columns(ran: tuple[Path, str]) -> None:
    assert "\x1b" not in ran[1]
    assert [line for line in tidy(ran[1]).splitlines() if len(line) > 80] == []


def test_each_order_ends_as_it_should(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    stand = {given["id"]: journal(folder, given["id"]) for given in sample_orders()}
    assert {order_id: (found["status"], found["rollback_status"]) for order_id, found in stand.items()} == {
        "order-1001": ("completed", "none"),
        "order-1002": ("completed", "none"),
        "order-1003": ("cancelled", "done"),
        "order-1004": ("failed", "done"),
        "order-1005": ("completed", "none"),
    }
    assert company(folder) == COMPLETED
    undone = steps(folder, "order-1004", "rollback_step_started")
    assert undone == [("address", 1), ("deposit", 1), ("reserve", 1)]


def test_the_killed_step_ran_again_with_its_key_and_the_others_did_not(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    assert steps(folder, "order-1005") == [
        ("reserve", 1),
        ("deposit", 1),
        ("address", 1),
        ("address", 2),
        ("activate", 1),
    ]
    calls = query(folder, "SELECT step, key FROM calls WHERE order_id = 'order-1005' ORDER BY number")
    assert [step for step, _ in calls] == ["reserve", "deposit", "address", "address", "activate"]
    assert calls[2] == calls[3]
    assert len({key for _, key in calls}) == 4
    effects = query(folder, "SELECT count(*) FROM effects JOIN calls USING (key) WHERE order_id = 'order-1005'")
    assert effects == [(5,)], "one for each call; the second call of 'address' found the effect of the first"
    owners = [
        record["body"]["owner"] for record in journal(folder, "order-1005")["records"] if record["kind"] == "claimed"
    ]
    assert len(set(owners)) == 2


def test_the_processes_are_what_the_output_says(ran: tuple[Path, str]) -> None:
    folder, out = ran
    killed = re.search(r"(?m)^\$ kill -9 (\d+)$", out)
    workers = re.findall(r"(?m)^(?:A|The) worker .*\(process (\d+)\)$", out)
    deciders = re.findall(r"(?m)^process (\d+): ", out)
    assert killed is not None
    assert [killed[1], len(workers), len(deciders)] == [workers[0], 2, 2]
    assert len({*workers, *deciders}) == 4
    claimed = [record for record in journal(folder, "order-1002")["records"] if record["kind"] == "claimed"]
    assert [record["body"]["owner"].split(":")[1] for record in claimed] == workers


def test_the_commands_to_look_further_work(ran: tuple[Path, str]) -> None:
    folder, out = ran
    commands = out[out.index("To look further:\n") :].splitlines()[1:]
    assert [command.split()[-1] for command in commands[1:]] == ["list", "order-1005", "verify", "--help"]
    for command in commands[1:]:
        looked = subprocess.run(
            ["/bin/sh", "-c", f"{commands[0]}\n{command}"],
            cwd=folder.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (looked.returncode, looked.stderr) == (0, ""), command
        assert looked.stdout


def test_a_demo_is_not_run_where_one_was_run(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".db"}
    code, out, err = run_demo(folder.parent)
    assert (code, out) == (5, "")
    assert err == "error: 'demo' has a workflows.db and a company.db already; nothing was run. Name a new folder.\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".db"} == files


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    code, out, err = run_demo(tmp_path)
    assert (code, out) == (2, "")
    assert err == "error: The folder 'demo' cannot be made: File exists.\n"


def test_it_leaves_its_files_in_a_temporary_folder_and_needs_no_standard_input(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    demo = subprocess.run(
        ["/bin/sh", "-c", '"$0" -m dotmac_workflows demo <&-', sys.executable],
        cwd=tmp_path,
        env=environment(TMPDIR=str(tmp_path / "temporary")),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (demo.returncode, demo.stderr) == (0, "")
    (folder,) = (tmp_path / "temporary").iterdir()
    assert f"\nThey are in {folder}\n" in demo.stdout
    assert f"\n  export DOTMAC_WORKFLOWS_DB={folder}/workflows.db\n" in demo.stdout
    assert company(folder) == COMPLETED
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


@pytest.mark.parametrize(("typed", "asked"), [("\n", 1), ("what?\n\x04", 2)])
def test_an_approval_on_a_terminal(tmp_path: Path, typed: str, asked: int) -> None:
    screen = Screen(tmp_path, "demo", "--folder", ".", LOGNAME="operator")
    screen.until(QUESTION)
    screen.type(typed)
    assert screen.end() == 0
    assert screen.shown.count(QUESTION) == asked
    assert "approve order-1002 --as operator\x1b" in screen.shown
    assert "\x1b[31mrejected" in screen.shown
    assert company(tmp_path) == COMPLETED
    (approved,) = (record for record in journal(tmp_path, "order-1002")["records"] if record["kind"] == "approved")
    assert approved["body"]["actor"] == "operator"


def test_a_rejection_on_a_terminal(tmp_path: Path) -> None:
    screen = Screen(tmp_path, "demo", "--folder", ".", LOGNAME="operator", NO_COLOR="1")
    screen.until(QUESTION)
    screen.type("r\n")
    assert screen.end() == 0
    assert "\x1b" not in screen.shown
    assert "reject order-1002 --as operator\r\n" in screen.shown
    found = journal(tmp_path, "order-1002")
    assert (found["status"], found["rollback_status"]) == ("cancelled", "done")
    assert company(tmp_path)["reserved"] == [("order-1001", "router", 1), ("order-1005", "antenna", 1)]


def test_an_interrupt_at_the_question(tmp_path: Path) -> None:
    screen = Screen(tmp_path, "demo", "--folder", ".", NO_COLOR="1")
    screen.until(QUESTION)
    screen.type("\x03")
    assert screen.end() == 130
    assert screen.shown.endswith("\r\nInterrupted.\r\n")
    assert "Traceback" not in screen.shown


def test_an_interrupt_leaves_no_worker_behind(tmp_path: Path) -> None:
    screen = Screen(tmp_path, "demo", "--folder", ".", NO_COLOR="1")
    screen.until("order-1004  reserve")
    screen.type("\x03")
    assert screen.end() == 130
    worker = re.search(r"process (\d+)", screen.shown)
    assert worker is not None
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker[1]), 0)
    assert "Traceback" not in screen.shown


# A demo that lies must fail.

SABOTAGE = """
import sqlite3, sys
from dotmac_workflows.cli import main
from dotmac_workflows.cli.demo import script

decide = script._Demo._decide
def sabotaged(demo):
    decide(demo)
    with sqlite3.connect("demo/company.db") as db:
        db.execute("DELETE FROM reserved WHERE order_id = 'order-1001'")
script._Demo._decide = sabotaged
sys.exit(main(["demo", "--folder", "demo"]))
"""


def test_a_demo_that_does_not_go_as_it_says_fails(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, "-c", SABOTAGE],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert demo.returncode == 1
    assert demo.stderr == (
        "error: It did not go as the demo says: order-1001: holdings [False, True, True, True], not "
        "[True, True, True, True]; routers in stock: 10 before, 6 after, 3 reserved.\n"
    )
    assert "by the same key" not in demo.stdout
    assert "was checked" not in demo.stdout


def problems(folder: Path) -> list[str]:
    """Return what the demo finds wrong in a folder where it approved order-1002."""
    orders = sample_orders()
    for given in orders:
        if "decision" in given:
            given["verdict"] = given["decision"]["verdict"]
            given["ends"] = {"approve": "completed", "reject": "cancelled"}[given["verdict"]]
    before = {"antennas in stock": 4, "routers in stock": 10}
    return asyncio.run(outcome.check(folder / "workflows.db", Company(folder / "company.db"), orders, before))


def test_what_is_as_it_should_be_is_let_through(ran: tuple[Path, str]) -> None:
    assert problems(ran[0]) == []


KILLED = "SELECT min(number) FROM calls WHERE order_id = 'order-1005' AND step = 'address'"


@pytest.mark.parametrize(
    ("file", "statements", "found"),
    [
        ("company", "DELETE FROM reserved WHERE order_id = 'order-1005'", "order-1005: holdings"),
        ("company", "UPDATE addresses SET order_id = 'order-1004' WHERE address = '192.0.2.4'", "order-1004: holdings"),
        ("company", "UPDATE deposits SET cents = -4999 WHERE cents = -5000", "order-1004: holdings"),
        ("company", "UPDATE stock SET free = free - 1 WHERE item = 'antenna'", "antennas in stock: 4 before, 2 after"),
        ("company", f"DELETE FROM calls WHERE number = ({KILLED})", "order-1005: calls"),
        ("company", f"UPDATE calls SET key = 'other' WHERE number = ({KILLED})", "order-1005: keys"),
        ("company", "INSERT INTO calls SELECT NULL, order_id, step, key FROM calls LIMIT 1", "order-1001: calls"),
        ("company", "DELETE FROM effects WHERE key LIKE '%:r:1:deposit'", "order-1003: changes"),
        (
            "workflows",
            "DELETE FROM records WHERE workflow_id = 'order-1003'; "
            "DELETE FROM workflows WHERE workflow_id = 'order-1003'",
            "order-1003 has no journal",
        ),
    ],
)
def test_a_lie_is_found(ran: tuple[Path, str], tmp_path: Path, file: str, statements: str, found: str) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(ran[0], folder)
    with closing(sqlite3.connect(folder / f"{file}.db")) as db:
        db.executescript(statements)
    assert any(found in problem for problem in problems(folder))


def test_other_decisions_than_the_journal_s_are_found(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    orders = sample_orders()
    orders[1]["decision"]["verdict"], orders[2]["decision"]["verdict"] = "reject", "approve"
    monkeypatch.setattr(sys.modules[__name__], "sample_orders", lambda: orders)
    found = problems(ran[0])
    for text in ("status completed, not cancelled", "decisions ['approved'], not ['rejected']", "rollback none, not"):
        assert any(problem.startswith(f"order-1002: {text}") for problem in found)
    assert any(problem.startswith("order-1003: status cancelled, not completed") for problem in found)


def test_a_worker_that_was_not_killed_in_its_step_is_found(ran: tuple[Path, str]) -> None:
    folder, _ = ran
    standing = asyncio.run(outcome.read_all(folder / "workflows.db", sample_orders()))["order-1005"]
    company = Company(folder / "company.db")
    said = "the journal of order-1005 ends with workflow_completed, not in the step 'address'"
    assert outcome.check_killed(company, standing) == [said]
    at = next(i for i, record in enumerate(standing.records) if '"attempt":2' in record.body.replace(" ", ""))
    assert outcome.check_killed(company, standing._replace(records=standing.records[: at + 1])) == []
    assert len(outcome.check_killed(company, standing._replace(driver="somebody"))) == 2
    assert outcome.check_killed(company, None) == ["the order of the killed worker has no journal"]
