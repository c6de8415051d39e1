"""The command line in real processes: killed, interrupted, beside one another, and on a real terminal."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import SHOP, Screen, call, environment, finish, read_until, start

DB = ("--db", "shop.db")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def order(folder: Path, **metadata: str) -> list[str]:
    """Return the command that runs an order."""
    (folder / "order.json").write_text(json.dumps(metadata))
    return ["run", "shop:Order", "--id", "order-1", "--metadata", "order.json", *DB]


def ledger(folder: Path) -> list[str]:
    return (folder / "ledger").read_text().splitlines()


def without_times(text: str) -> str:
    return re.sub(r"in (<?\d+ ms|[\d.]+ s)", "in TIME", text)


def kinds(folder: Path) -> list[str]:
    code, out, _ = call(folder, "show", "order-1", "--json", *DB)
    assert code == 0
    return [record["kind"] for record in json.loads(out)["records"]]


def test_a_killed_run_goes_on_and_runs_no_step_again_that_was_done(folder: Path) -> None:
    command = order(folder, wait_in="reserve")
    process = start(folder, *command)
    read_until(process.stdout, "inside reserve")
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    code, out, err = call(folder, "list", *DB)
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"ID       TYPE   STATUS   LAST CHANGE \(UTC\)    NOTE\norder-1  Order  running  \S+ \S+  due\n", out
    )
    (folder / "go").touch()
    code, out, err = call(folder, *command)
    assert (code, err) == (0, "")
    assert without_times(out).startswith("""\
order-1 goes on; 1 of 4 steps were done
  2/4  reserve  started again (attempt 2)
  2/4  reserve  done in TIME
  3/4  charge   started
""")
    assert out.endswith("\norder-1 completed\n")
    assert ledger(folder) == ["check 1", "reserve 1", "reserve 2", "charge 1", "ship 1"]
    assert call(folder, "verify", *DB) == (0, "1 runs with 13 records checked: all sound.\n", "")


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_lets_go_of_its_lease_and_says_how_to_go_on(folder: Path, which: signal.Signals) -> None:
    command = order(folder, wait_in="reserve")
    process = start(folder, *command)
    read_until(process.stdout, "inside reserve")
    process.send_signal(which)
    code, _, err = finish(process)
    assert code == 130
    assert err == (
        "Interrupted; 'order-1' is let go. To go on where it stopped: "
        "python -m dotmac_workflows resume order-1 shop:Order --db shop.db\n"
    )
    assert kinds(folder)[-2:] == ["step_started", "released"]
    (folder / "go").touch()
    code, _, err = call(folder, "resume", "order-1", "shop:Order", *DB)
    assert (code, err) == (0, "")
    assert ledger(folder) == ["check 1", "reserve 1", "reserve 2", "charge 1", "ship 1"]


BLOCKING = """
import time
import shop

class Order(shop.Order):
    async def execute_step(self, step):
        if step == "reserve":
            print("inside", step, flush=True)
            while True:
                time.sleep(0.01)
        return await super().execute_step(step)
"""


def test_a_step_that_blocks_is_left_at_the_second_interrupt(folder: Path) -> None:
    (folder / "blocking.py").write_text(BLOCKING)
    process = start(folder, "run", "blocking:Order", "--id", "order-1", *DB)
    read_until(process.stdout, "inside reserve")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # it blocks on; were both sent at once, they could arrive as one
    process.send_signal(signal.SIGINT)
    process.wait(30)
    code, _, err = finish(process)
    assert code == 130
    assert err.startswith("Interrupted; 'order-1' is let go.")
    assert err.count("\n") == 1
    assert kinds(folder)[-2:] == ["step_started", "released"]


def test_code_that_ends_the_process_is_said_in_one_line(folder: Path) -> None:
    code, _, err = call(folder, *order(folder, exit_in="reserve"))
    assert (code, err.count("\n")) == (130, 1)
    assert err.startswith("The workflow's code ended the process (SystemExit: 7); 'order-1' is let go. ")
    assert kinds(folder)[-2:] == ["step_started", "released"]
    code, _, err = call(folder, "recover", "shop:Order", *DB)
    assert (code, err.count("\n")) == (130, 1)
    assert err.startswith("The workflow's code ended the process (SystemExit: 7); what was under way is let go ")
    assert kinds(folder)[-2:] == ["step_started", "released"]


def test_an_interrupt_before_the_start_is_said_to_be_one(folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import asyncio\nimport shop\nclass Order(shop.Order):\n"
        "    async def validate(self):\n        print('inside', flush=True)\n        await asyncio.Event().wait()\n"
    )
    process = start(folder, "run", "slow:Order", "--id", "order-1", *DB)
    read_until(process.stdout, "inside")
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert err == "Interrupted before 'order-1' was started; nothing is recorded.\n"


def test_a_run_that_another_process_drives(folder: Path) -> None:
    command = order(folder, wait_in="reserve")
    process = start(folder, *command)
    read_until(process.stdout, "inside reserve")
    code, out, err = call(folder, *command)
    assert (code, out) == (5, "")
    assert re.fullmatch(
        r"error: Workflow 'order-1' is already running: .+ \(process \d+\) holds its lease until .+Z\. "
        r"Wait for it, or call resume\(\) after that\.\n",
        err,
    )
    code, out, err = call(folder, "recover", "shop:Order", *DB)
    assert (code, out, err) == (0, "Nothing is due.\n", "")
    code, out, _ = call(folder, "show", "order-1", *DB)
    assert out.startswith("order-1 is running\n")
    assert re.search(r"\n\nIt is driven by .+ \(process \d+\) until .+Z\.\n$", out)
    code, _, err = call(folder, "delete", "order-1", *DB)
    assert (code, "is running" in err) == (5, True)
    code, out, err = call(folder, "cancel", "order-1", "--as", "clerk@example.com", *DB)
    assert (code, err) == (0, "")
    assert out.startswith("'order-1' was asked to end by clerk@example.com; it is running.\nIt is driven by ")
    code, out, err = finish(process)  # which hears of it
    assert (code, err) == (1, "")
    assert "  2/4  reserve  interrupted by a cancel: its outcome is unknown\n" in out
    assert out.endswith("\norder-1 was cancelled; what it had done was undone\n")
    assert ledger(folder) == ["check 1", "reserve 1", "undo reserve", "undo check"]


def test_an_approval_from_a_second_process_and_a_third_that_carries_on(folder: Path) -> None:
    assert call(folder, *order(folder, approve_after="charge"))[0] == 3
    code, out, err = call(folder, "approve", "order-1", "--as", "approver@example.com", *DB)
    assert (code, err) == (0, "")
    assert out == (
        "'order-1' was approved by approver@example.com; it is due.\n"
        "Nobody drives it. To carry it on ('recover' does so for all that is due):\n"
        "  python -m dotmac_workflows resume order-1 MODULE:CLASS --db shop.db\n"
    )
    assert call(folder, "resume", "order-1", "shop:Order", *DB)[0] == 0
    assert ledger(folder) == ["check 1", "reserve 1", "charge 1", "ship 1"]


def test_a_run_goes_on_when_nobody_reads_its_output_any_more(folder: Path) -> None:
    process = start(folder, *order(folder, wait_in="reserve"))
    read_until(process.stdout, "inside reserve")
    assert process.stdout is not None
    process.stdout.close()
    (folder / "go").touch()
    process.send_signal(signal.SIGINT)  # which is how it gets out of waiting
    assert process.wait(60) == 130
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as nobody:
        resumed = subprocess.run(
            [sys.executable, "-m", "dotmac_workflows", "resume", "order-1", "shop:Order", *DB],
            cwd=folder,
            env=environment(),
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert ledger(folder)[-1] == "ship 1"
    assert process.stderr is not None
    process.stderr.close()


def test_a_disk_that_is_full_for_the_output_does_not_stop_a_run(folder: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "dotmac_workflows", *order(folder)],
            cwd=folder,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 1  # for what it had to say was lost
    assert "No space left on device" in process.stderr
    assert "Traceback" not in process.stderr
    assert ledger(folder) == ["check 1", "reserve 1", "charge 1", "ship 1"]
    assert kinds(folder)[-1] == "workflow_completed"


def test_the_library_does_not_import_the_command_line(folder: Path) -> None:
    code = "import sys, dotmac_workflows; print([m for m in sys.modules if '.cli' in m or m == 'argparse'])"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment(), cwd=folder, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


def test_a_run_on_a_terminal(folder: Path) -> None:
    screen = Screen(folder, *order(folder, fail_in="reserve"))
    assert screen.end() == 1
    begun = re.escape("\r") + " +" + re.escape("\r")
    assert re.search(
        r"\x1b\[1morder-1\x1b\[0m\r\n"
        rf"  1/4  check    started \.\.\.{begun}  1/4  check    \x1b\[32mdone\x1b\[0m in [^\r]+\r\n"
        rf"  2/4  reserve  started \.\.\.{begun}  2/4  reserve  \x1b\[31mfailed\x1b\[0m after [^\r]+: RuntimeError: ",
        screen.shown,
    )
    assert "\x1b[1morder-1\x1b[0m \x1b[31mfailed\x1b[0m; what it had done was undone\r\n" in screen.shown


def test_no_colour_where_none_is_wanted(folder: Path) -> None:
    screen = Screen(folder, *order(folder), NO_COLOR="1")
    assert screen.end() == 0
    assert "\x1b" not in screen.shown
    screen = Screen(folder, "show", "order-1", *DB, NO_COLOR="1")
    assert screen.end() == 0
    assert "\x1b" not in screen.shown
    assert "step done" in screen.shown


def test_ctrl_c_on_a_terminal(folder: Path) -> None:
    screen = Screen(folder, *order(folder, wait_in="reserve"))
    screen.until("inside reserve\r\n")
    screen.type("\x03")
    assert screen.end() == 130
    # The terminal's own echo of the key may come before, between or after.
    assert "Interrupted; 'order-1' is let go. To go on where it stopped: " in screen.shown.replace("^C", "")
    assert "Traceback" not in screen.shown


def test_a_warning_leaves_the_line_that_was_begun(folder: Path) -> None:
    (folder / "told.py").write_text(
        "import shop\nclass Order(shop.Order):\n"
        "    def on_step_completed(self, result):\n        if result.step == 'check':\n            raise KeyError\n"
    )
    screen = Screen(folder, "run", "told:Order", "--id", "order-1", *DB, NO_COLOR="1")
    assert screen.end() == 0
    assert "  2/4  reserve  started ...\r\nwarning: Callback on_step_completed of workflow 'order-1'" in screen.shown


@pytest.mark.parametrize(
    ("command", "question"),
    [
        (["cancel", "order-1"], "Cancel 'order-1'?"),
        (["reject", "order-1"], "Reject 'order-1', which ends it?"),
        (["delete", "order-1", "--force"], "Delete 'order-1' and its journal for good?"),
    ],
    ids=["cancel", "reject", "delete"],
)
def test_what_destroys_asks_on_a_terminal(folder: Path, command: list[str], question: str) -> None:
    call(folder, *order(folder, approve_after="check"))
    before = kinds(folder)
    for answer, code, says in (
        ("\n", 5, "error: Not done, for the answer was not yes."),
        ("no\n", 5, "error: Not done, for the answer was not yes."),
        ("\x04", 5, "error: Not done, for the answer was not yes."),
        ("\x03", 130, "Interrupted."),
    ):
        screen = Screen(folder, *command, *DB, NO_COLOR="1")
        screen.until(f"{question} [y/N] ")
        screen.type(answer)
        assert screen.end() == code
        assert screen.shown.endswith(f"\r\n{says}\r\n")
    assert kinds(folder) == before
    screen = Screen(folder, *command, *DB, NO_COLOR="1")
    screen.until(f"{question} [y/N] ")
    screen.type("y\n")
    assert screen.end() == 0
    code, out, _ = call(folder, "list", "--status", "waiting_approval", "--json", *DB)
    assert (code, out) == (0, "[]\n")


def test_what_destroys_does_not_ask_when_told_not_to(folder: Path) -> None:
    call(folder, *order(folder, approve_after="check"))
    screen = Screen(folder, "cancel", "order-1", "--yes", *DB)
    assert screen.end() == 0
    assert "[y/N]" not in screen.shown


def test_the_installed_command_is_this_one() -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '[project.scripts]\ndotmac-workflows = "dotmac_workflows.cli:main"\n' in pyproject
