"""The examples do what they say: run as a user would, and judged by what they print and what they leave behind."""

import importlib.util
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dotmac_workflows import ConcurrencyError, JournalCorruptError, Workflow
from dotmac_workflows.persistence import Record

TOP = Path(__file__).parents[1]
EXAMPLES = TOP / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TOP / "src"), "PYTHONUNBUFFERED": "1"}

BUSINESS_TABLES = ("stock", "reservations", "ledger", "addresses", "lines", "activations", "notifications")


def run(name: str, *arguments: str | Path, warning: str = "") -> list[str]:
    """Run an example to its end, without a standard input, and return the lines it printed."""
    ran = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, warning)
    return ran.stdout.splitlines()


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def company(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that the steps changed; the idempotency keys, which are new for every run, aside."""
    with closing(sqlite3.connect(folder / "company.db")) as db:
        return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in BUSINESS_TABLES}


PROVISIONED: dict[str, list[tuple[Any, ...]]] = {
    "stock": [("antenna", 4), ("router", 6)],
    "reservations": [("order-1001", "router", 1), ("order-1002", "router", 3)],
    "ledger": [
        (1, "order-1001", "customer-1", 5000),
        (2, "order-1002", "customer-2", 15000),
        (3, "order-1003", "customer-3", 10000),
        (4, "order-1004", "customer-4", 5000),
        (5, "order-1004", "customer-4", -5000),
        (6, "order-1003", "customer-3", -10000),
    ],
    "addresses": [
        ("192.0.2.1", "order-1001"),
        ("192.0.2.2", "order-1002"),
        ("192.0.2.3", None),
        ("192.0.2.4", None),
    ],
    "lines": [("line-1", "good"), ("line-2", "good"), ("line-3", "good"), ("line-4", "faulty")],
    "activations": [("order-1001", "line-1"), ("order-1002", "line-2")],
    "notifications": [(1, "order-1001", "your service is ready"), (2, "order-1002", "your service is ready")],
}
UNDONE = ["rollback_approval", "rollback_assign_address", "rollback_book_deposit", "rollback_reserve_stock"]
SUMMARY = [
    ["order-1001", "completed", "6", "0", "none"],
    ["order-1002", "completed", "6", "0", "none"],
    ["order-1003", "cancelled", "4", "4", "done"],
    ["order-1004", "failed", "4", "4", "done"],
    ["order-1005", "failed", "0", "0", "none"],
    ["order-1006", "failed", "0", "0", "none"],
]


def summary(lines: Sequence[str]) -> list[list[str]]:
    at = next(i for i, line in enumerate(lines) if line.startswith("order  "))
    return [line.split()[:5] for line in lines[at + 1 : at + 7]]


def steps_told(lines: Sequence[str], beginning: str) -> list[tuple[str, str]]:
    """Return the steps, and how they went, under the heading that begins so."""
    at = next(i for i, line in enumerate(lines) if line.startswith(beginning))
    told = []
    for line in lines[at + 1 :]:
        if not line.startswith("  "):
            break
        step, how = line.split()[:2]
        told.append((step, how))
    return told


def test_provisioning_does_what_its_orders_expect(tmp_path: Path) -> None:
    lines = run("provisioning.py", "--folder", tmp_path)
    assert lines[-1] == "All went as expected."
    assert summary(lines) == SUMMARY
    assert company(tmp_path) == PROVISIONED
    first = [(step, "done") for step in ("reserve_stock", "book_deposit", "assign_address", "approval")]
    undone = [(step, "undone") for step in UNDONE]
    assert steps_told(lines, "order-1001: ") == [*first, ("activate", "done"), ("notify", "done")]
    assert steps_told(lines, "order-1002: above") == [*first, ("approval", "waits")]
    assert steps_told(lines, "order-1002: approver") == [("activate", "done"), ("notify", "done")]
    assert steps_told(lines, "order-1003: approver") == undone
    assert steps_told(lines, "order-1004: ") == [*first, ("activate", "FAILED"), *undone]
    assert steps_told(lines, "order-1005: ") == [("reserve_stock", "FAILED")]
    assert steps_told(lines, "order-1006: ") == [("validation", "FAILED")]
    assert max(map(len, lines)) <= 80


def test_provisioning_keeps_to_a_temporary_folder_unless_it_is_given_one(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "provisioning.py"],
        env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.endswith("All went as expected.\n")
    assert list(tmp_path.iterdir()) == []


def test_provisioning_does_each_order_once(tmp_path: Path) -> None:
    run("provisioning.py", "--folder", tmp_path)
    lines = run("provisioning.py", "--folder", tmp_path)
    assert summary(lines) == SUMMARY
    assert company(tmp_path) == PROVISIONED
    for number in (1001, 1002, 1003, 1004, 1005):
        assert [step for step, _ in steps_told(lines, f"order-{number}: ")] == ["-"]
    assert steps_told(lines, "order-1006: ") == [("validation", "FAILED")], "it was not recorded, and can be mended"


def test_provisioning_says_when_it_did_not_go_as_expected(tmp_path: Path) -> None:
    """The faulty line is good this time: so the order that was to fail does not."""
    run("provisioning.py", "--folder", tmp_path)
    (tmp_path / "workflows.db").unlink()
    with closing(sqlite3.connect(tmp_path / "company.db")) as db, db:
        db.execute("UPDATE lines SET condition = 'good'")
        for table in ("reservations", "ledger", "activations", "notifications"):
            db.execute(f"DELETE FROM {table}")
        db.execute("UPDATE addresses SET order_id = NULL")
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "provisioning.py", "--folder", tmp_path],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-1] == (
        "Not as expected: order-1004 is {'status': 'completed', 'rollback': 'none'}, "
        "not {'status': 'failed', 'rollback': 'done'}"
    )


# Runs the example as a program, in a process that kills itself at the n-th effect: just before or after its commit.
KILLER = """
import os, runpy, signal, sys
sys.argv = ["provisioning.py", "--folder", sys.argv[2]]
path, moment, left = {path!r}, {moment!r}, {nth}

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

import sqlite3
class Connection(sqlite3.Connection):
    def execute(self, statement, *parameters):
        global left
        if statement.startswith("INSERT INTO effects"):
            left -= 1
        if not left and statement == "COMMIT":
            if moment == "after":
                super().execute(statement, *parameters)
            kill()
        return super().execute(statement, *parameters)

connect = sqlite3.connect
def patched(database, **options):
    if str(database).endswith("company.db"):
        options["factory"] = Connection
    return connect(database, **options)
sqlite3.connect = patched
runpy.run_path(path, run_name="__main__")
"""
EFFECTS = 28  # 6 + 6 forward of the two that complete; 4 + 4 of each of the two that are undone


def run_until_killed(folder: Path, moment: str, nth: int) -> int:
    """Run the example until it kills itself; return the exit code, negative for a signal."""
    program = KILLER.format(path=str(EXAMPLES / "provisioning.py"), moment=moment, nth=nth)
    return subprocess.run(
        [sys.executable, "-c", program, "-", folder],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=120,
    ).returncode


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("nth", [2, 9, 18, 22, 23, 25, 28])
def test_provisioning_killed_and_run_again_ends_as_if_it_had_not_been(tmp_path: Path, moment: str, nth: int) -> None:
    """Killed in forward steps, in both rollbacks, and between an effect and its record in the journal."""
    assert run_until_killed(tmp_path, moment, nth) == -signal.SIGKILL
    assert company(tmp_path) != PROVISIONED or nth == EFFECTS
    assert summary(run("provisioning.py", "--folder", tmp_path)) == SUMMARY
    assert company(tmp_path) == PROVISIONED
    with closing(sqlite3.connect(tmp_path / "company.db")) as db:
        assert db.execute("SELECT count(*) FROM effects").fetchone() == (EFFECTS,), "each effect once, under its key"


def test_provisioning_killed_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    killed = 0
    while run_until_killed(tmp_path, "after", 3) == -signal.SIGKILL:
        killed += 1
        assert killed <= EFFECTS
    assert killed == EFFECTS // 3
    assert company(tmp_path) == PROVISIONED


def test_quickstart(tmp_path: Path) -> None:
    steps = ["create_account", "create_mailbox", "send_welcome"]
    done = f"  completed: {', '.join(steps)}"
    first = ["execute(), for the first time:", *(f"  running {step}, attempt 1" for step in steps), done]
    second = ["execute(), for the second time:", done]
    checked = "The journal has 9 records and 0 problems."
    assert run("quickstart.py", tmp_path) == [*first, *second, checked]
    assert run("quickstart.py", tmp_path) == [first[0], done, *second, checked], "in another process, still once"
    assert run("quickstart.py") == [*first, *second, checked]


def test_approval_two_processes() -> None:
    lines = run("approval_two_processes.py")
    told = [re.fullmatch(r"process (\d+): (.*)", line) for line in lines]
    processes = [match[1] for match in told if match]
    assert [match[2] for match in told if match and " by " not in match[2]] == [
        "waiting_approval at step 'quote'",
        "first@example.com has decided: approve",
        "second@example.com comes too late",
        "completed after quote, order, pay",
        "approved with {'budget': 'travel'}",
    ]
    assert re.search(r"  approved by first@example\.com at \d{4}-\d\d-\d\d .*\+00:00$", lines[3])
    main, first, second = processes[0], processes[1], processes[2]
    assert processes == [main, first, second, second, main, main]
    assert len({main, first, second}) == 3


WITHOUT_LEASES = (
    "FolderPersistence does not have lease and renew (Leases): nobody can tell who drives a run, so execute() and "
    "resume() take over whoever is running. That is safe, but the step in flight runs twice. See "
    "dotmac_workflows.persistence.Leases.\n"
)


def test_custom_persistence(tmp_path: Path) -> None:
    lines = run("custom_persistence.py", tmp_path, warning=WITHOUT_LEASES)
    assert lines[:2] == ["waiting_approval at 'write'", "completed: collect, write, publish"]
    assert [line.split()[1] for line in lines[2:]] == [
        "workflow_started",
        "claimed",
        "step_started",
        "step_succeeded",
        "step_started",
        "step_succeeded",
        "approval_requested",
        "approved",
        "claimed",
        "step_started",
        "step_succeeded",
        "workflow_completed",
    ]


async def run_report(folder: Path, **options: Any) -> tuple[Any, list[Record]]:
    """Run a report to its end, and return a store over the folder and the records in it."""
    example = load("custom_persistence")
    store = example.FolderPersistence(folder)
    await Workflow.execute(example.Report("report-1", ["collect", "write"], persistence=store, **options))
    records: list[Record] = await store.read("report-1")
    return store, records


def journal_file(folder: Path) -> Path:
    (file,) = folder.glob("*.jsonl")
    return file


async def test_the_custom_persistence_refuses_a_writer_that_comes_late(tmp_path: Path) -> None:
    store, records = await run_report(tmp_path)
    workflow = await Workflow.load("report-1", store)
    with pytest.raises(ConcurrencyError) as refused:
        await store.append("report-1", records[-1:], expected_version=len(records) - 1, header=None)
    assert (refused.value.expected_version, refused.value.stored_version) == (len(records) - 1, len(records))
    assert await store.read("report-1") == records
    assert workflow.is_completed


async def test_the_custom_persistence_forgets_an_append_that_was_cut_short(tmp_path: Path) -> None:
    example = load("custom_persistence")
    store, records = await run_report(tmp_path)
    file = journal_file(tmp_path)
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    file.write_bytes(whole[:-1])
    workflow = await example.Report.load("report-1", store)
    assert str(workflow.status) == "running"
    results = await workflow.resume()
    assert [(result.step, result.success) for result in results] == [("collect", True), ("write", True)]
    assert file.read_bytes().startswith(b"".join(lines[:-1]))
    kinds = [record.kind for record in await store.read("report-1")]
    before = [record.kind for record in records[:-2]]
    assert kinds == [*before, "claimed", "step_started", "step_succeeded", "workflow_completed"]


async def test_the_custom_persistence_says_when_it_is_damaged(tmp_path: Path) -> None:
    store, _ = await run_report(tmp_path)
    file = journal_file(tmp_path)
    file.write_bytes(b"{" + file.read_bytes())
    with pytest.raises(JournalCorruptError, match="is damaged") as damaged:
        await Workflow.load("report-1", store)
    assert damaged.value.workflow_id == "report-1"


async def test_the_custom_persistence_deletes(tmp_path: Path) -> None:
    store, _ = await run_report(tmp_path)
    assert [await store.delete("report-1"), await store.delete("report-1")] == [True, False]
    assert await store.read("report-1") == []


def test_nobody_is_told_that_a_service_was_taken_back_who_was_told_nothing_of_it(tmp_path: Path) -> None:
    """Which a proof of the example found: a cancel and a crash leave it unknown whether a step had its effect."""
    example = load("provisioning")
    company = example.Company(tmp_path / "company.db")
    order = example.ServiceOrder("order-1", metadata={"customer": "customer@example.com"}, company=company)
    assert company.once("key-1", order.undo_notify) == {"said": "nothing was sent"}
    assert company.rows("SELECT text FROM notifications") == []
    company.once("key-2", order.notify)
    company.once("key-3", order.undo_notify)
    assert company.rows("SELECT text FROM notifications ORDER BY number") == [
        ("your service is ready",),
        ("your service was taken back",),
    ]
