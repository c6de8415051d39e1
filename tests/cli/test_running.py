"""run, resume, retry, retry-rollback, recover, and the decisions between them, as whole texts."""

import io
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from command_line import Cli


def ledger(folder: Path) -> list[str]:
    path = folder / "ledger"
    return path.read_text().splitlines() if path.exists() else []


def test_a_run_to_its_end(cli: Cli, shop: Path) -> None:
    answer = cli("run", "shop:Order", "--id", "order-1", "--metadata", {"customer": "acme"})
    assert answer.code == 0
    assert answer.err == ""
    assert (
        answer.out
        == """\
order-1
  1/4  check    started
  1/4  check    done in 250 ms
  2/4  reserve  started
  2/4  reserve  done in 250 ms
  3/4  charge   started
  3/4  charge   done in 250 ms
  4/4  ship     started
  4/4  ship     done in 250 ms

STEP     RESULT    TOOK  WHAT IT SAID
check    ok      250 ms  number=5
reserve  ok      250 ms  number=7
charge   ok      250 ms  number=6
ship     ok      250 ms  number=4

order-1 completed
"""
    )
    assert ledger(shop) == ["check 1", "reserve 1", "charge 1", "ship 1"]


def test_the_same_command_again_runs_nothing(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1")
    before = ledger(shop)
    answer = cli("run", "shop:Order", "--id", "order-1")
    assert (answer.code, answer.err) == (0, "")
    assert (
        answer.out
        == """\

STEP     RESULT    TOOK  WHAT IT SAID
check    ok      250 ms  number=5
reserve  ok      250 ms  number=7
charge   ok      250 ms  number=6
ship     ok      250 ms  number=4

order-1 completed; there was nothing left to run
"""
    )
    assert ledger(shop) == before


def test_a_failure_is_one_line_and_undone(cli: Cli) -> None:
    because = "declined\x1b[2J\x1b]0;owned\x07 by\nthe \x00bank\u202e"
    answer = cli("run", "shop:Order", "--id", "order-1", "--metadata", {"fail_in": "charge", "because": because})
    assert answer.code == 1
    assert answer.err == ""  # no traceback, and nothing that the lines do not say themselves
    assert (
        answer.out
        == """\
order-1
  1/4  check    started
  1/4  check    done in 250 ms
  2/4  reserve  started
  2/4  reserve  done in 250 ms
  3/4  charge   started
  3/4  charge   failed after 250 ms: RuntimeError: declined by the \\x00bank\\u202e
rolling back
  2/4  reserve  rollback started
  2/4  reserve  rolled back in <1 ms
  1/4  check    rollback started
  1/4  check    no rollback: nothing was undone

STEP              RESULT    TOOK  WHAT IT SAID
check             ok      250 ms  number=5
reserve           ok      250 ms  number=7
charge            failed  250 ms  RuntimeError: declined by the \\x00bank\\u202e
rollback_reserve  ok       <1 ms
rollback_check    ok       <1 ms  Step 'check' has no rollback: nothing was
                                  undone.

order-1 failed; what it had done was undone
To try again:
  dotmac-workflows retry order-1 shop:Order
"""
    )


def test_a_retry_goes_through(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"fail_in": "charge"})
    (shop / "shop.py").write_text((shop / "shop.py").read_text().replace('"fail_in"', '"no_longer"'))
    del sys.modules["shop"]
    answer = cli("retry", "order-1", "shop:Order")
    assert answer.code == 0
    assert answer.out.splitlines()[0] == "order-1 goes on; 2 of 4 steps were done"
    assert answer.out.splitlines()[-1] == "order-1 completed"
    assert ledger(shop)[-4:] == ["check 1", "reserve 1", "charge 1", "ship 1"]


def test_an_order_that_does_not_validate_is_not_started(cli: Cli, shop: Path) -> None:
    answer = cli("run", "shop:Order", "--id", "order-1", "--metadata", {"customer": ""})
    assert (answer.code, answer.err) == (1, "")
    assert (
        answer.out
        == """\
not started: no_customer: An order needs a customer.
Nothing is recorded; mend it and run the same command again.
"""
    )
    assert cli("list", "--json").out == "[]\n"
    assert cli("run", "shop:Order", "--id", "order-1", "--metadata", {"customer": "acme"}).code == 0


def test_an_approval_and_what_comes_after_it(cli: Cli, shop: Path) -> None:
    answer = cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    assert answer.code == 3
    assert answer.out.endswith("""
order-1 waits for approval
It waits for a decision after step 'reserve':
  dotmac-workflows approve order-1
  dotmac-workflows reject order-1
""")
    answer = cli("approve", "order-1", "--data", {"limit": 5})
    assert (answer.code, answer.err) == (0, "")
    assert (
        answer.out
        == """\
'order-1' was approved by operator; it is due.
Nobody drives it. To carry it on ('recover' does so for all that is due):
  dotmac-workflows resume order-1 MODULE:CLASS
"""
    )
    assert ledger(shop) == ["check 1", "reserve 1"]
    answer = cli("resume", "order-1", "shop:Order")
    assert answer.code == 0
    assert answer.out.startswith("""\
order-1 goes on; 2 of 4 steps were done
  3/4  charge   started
  3/4  charge   done in 250 ms
  4/4  ship     started
""")
    assert ledger(shop) == ["check 1", "reserve 1", "charge 1", "ship 1"]
    approved = [r for r in json.loads(cli("show", "order-1", "--json").out)["records"] if r["kind"] == "approved"]
    assert [record["body"] for record in approved] == [{"actor": "operator", "data": {"limit": 5}}]


def test_only_the_first_decision_counts(cli: Cli) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    assert cli("approve", "order-1", "--as", "first@example.com").code == 0
    assert cli("approve", "order-1", "--as", "first@example.com").code == 0  # the same answer to the same actor
    answer = cli("reject", "order-1", "--as", "second@example.com")
    assert (answer.code, answer.out) == (5, "")
    assert answer.err == (
        "error: Workflow 'order-1' is not waiting for approval of step 'reserve': it was approved by "
        "first@example.com at 2026-01-01 00:00:00Z. There is nothing left to decide.\n"
    )


def test_a_rejection_is_carried_out_by_recover(cli: Cli, shop: Path) -> None:
    for number in (1, 2):
        cli("run", "shop:Order", "--id", f"order-{number}", "--metadata", {"approve_after": "reserve"})
    answer = cli("reject", "order-1", "--reason", "too \x1b[31mexpensive", "--as", "approver@example.com")
    assert answer.code == 0
    assert answer.out.splitlines()[0] == "'order-1' was rejected by approver@example.com; it is due."
    answer = cli("recover", "shop:Order")
    assert (answer.code, answer.err) == (0, "")
    assert (
        answer.out
        == """\
order-1  rolling back
order-1  reserve  rollback started
order-1  reserve  rolled back in <1 ms
order-1  check  rollback started
order-1  check  no rollback: nothing was undone
order-1 was cancelled
"""
    )
    assert cli("recover", "shop:Order").out == "Nothing is due.\n"
    assert json.loads(cli("recover", "shop:Order", "--json").out) == []
    assert [run["status"] for run in json.loads(cli("list", "--json").out)] == ["cancelled", "waiting_approval"]


def test_recover_tells_what_it_could_not_carry_on(cli: Cli) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    cli("approve", "order-1")
    (failing := Path("failing.py")).write_text("import shop\nclass Order(shop.Exploding): pass\n")
    answer = cli("recover", f"{failing}:Order", "--json")
    assert answer.code == 1
    assert json.loads(answer.out) == [
        {"workflow_id": "order-1", "workflow_type": "Order", "status": "running", "error": "OSError: no gateway"}
    ]
    assert answer.err == "error: order-1 could not be carried on: OSError: no gateway\n"


def test_pause_and_resume(cli: Cli) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    cli("approve", "order-1")
    answer = cli("pause", "order-1", "--reason", "stocktaking")
    assert answer.code == 0
    assert (
        answer.out
        == """\
'order-1' was asked to pause by operator; it is paused.
It is paused. To let it go on:
  dotmac-workflows resume order-1 MODULE:CLASS
"""
    )
    assert cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"}).code == 3
    assert cli("resume", "order-1", "shop:Order").code == 0


def test_a_cancel_without_the_class_is_recorded_and_due(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    answer = cli("cancel", "order-1", "--reason", "bankrupt")
    assert answer.code == 0
    assert (
        answer.out
        == """\
'order-1' was asked to end by operator; it is due.
Nobody drives it. To carry it on ('recover' does so for all that is due):
  dotmac-workflows resume order-1 MODULE:CLASS
"""
    )
    assert ledger(shop) == ["check 1", "reserve 1"]
    answer = cli("resume", "order-1", "shop:Order")
    assert answer.code == 1
    assert answer.out.endswith("\norder-1 was cancelled; what it had done was undone\n")
    assert ledger(shop) == ["check 1", "reserve 1", "undo reserve", "undo check"]


def test_a_rollback_that_failed_is_retried_or_skipped(cli: Cli, shop: Path) -> None:
    (shop / "broken").touch()
    answer = cli("run", "shop:Order", "--id", "order-1", "--metadata", {"fail_in": "charge"})
    assert answer.code == 1
    assert "  2/4  reserve  rollback failed after <1 ms: warehouse_closed\n" in answer.out
    assert answer.out.endswith("""
order-1 failed
Its rollback is incomplete; what failed: reserve. Mend the cause and try again, or say that
a step was put right by hand:
  dotmac-workflows retry-rollback order-1 shop:Order
  dotmac-workflows skip-rollback order-1 reserve --reason WHY
""")
    answer = cli("retry", "order-1", "shop:Order")
    assert (answer.code, answer.out) == (5, "")
    assert cli("retry-rollback", "order-1", "shop:Order").code == 1
    answer = cli("skip-rollback", "order-1", "reserve", "--reason", "sent back by hand", "--as", "clerk@example.com")
    assert answer.code == 0
    assert (
        answer.out
        == """\
'order-1' was told that 'reserve' was put right by clerk@example.com; it failed.
To try again:
  dotmac-workflows retry order-1 MODULE:CLASS
"""
    )
    assert ledger(shop) == ["check 1", "reserve 1", "charge 1", "undo reserve", "undo check", "undo reserve"]


def test_delete(cli: Cli) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    answer = cli("delete", "order-1")
    assert (answer.code, answer.out) == (5, "")
    assert answer.err == (
        "error: Workflow 'order-1' is waiting_approval: to delete it forgets what is still to be done or undone. "
        "End it first, or give --force.\n"
    )
    answer = cli("delete", "order-1", "--force")
    assert (answer.code, answer.out) == (0, "'order-1' and its journal were deleted.\n")
    cli("run", "shop:Order", "--id", "order-2")
    assert cli("delete", "order-2").code == 0
    assert cli("list", "--json").out == "[]\n"


def test_a_damaged_run_can_be_deleted(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    with closing(sqlite3.connect(shop / "shop.db")) as connection, connection:
        connection.execute("UPDATE records SET digest = 'none' WHERE seq = 2")
    assert cli("approve", "order-1").code == 4
    assert cli("delete", "order-1").code == 0


def test_another_run_in_a_step_is_not_told_of_as_this_one(cli: Cli, shop: Path) -> None:
    (shop / "parent.py").write_text(
        "import shop\n"
        "class Parent(shop.Order):\n"
        "    async def execute_step(self, step):\n"
        "        if step == 'reserve':\n"
        "            await shop.Order('child', persistence=self.persistence).execute()\n"
        "        return await super().execute_step(step)\n"
    )
    answer = cli("run", "parent:Parent", "--id", "order-1")
    assert answer.code == 0
    assert answer.out.startswith("""\
order-1
  1/4  check    started
  1/4  check    done in 250 ms
  2/4  reserve  started
  2/4  reserve  done in 1.2 s
  3/4  charge   started
""")


def test_json_of_a_run(cli: Cli) -> None:
    answer = cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "check"}, "--json")
    assert answer.code == 3
    assert json.loads(answer.out) == {
        "workflow_id": "order-1",
        "workflow_type": "Order",
        "status": "waiting_approval",
        "pending_step": "check",
        "rollback_status": "none",
        "results": [
            {
                "success": True,
                "step": "check",
                "data": {"number": 5},
                "error": None,
                "message": None,
                "execution_time": 0.25,
                "requires_approval": True,
            }
        ],
    }
    assert answer.err == "order-1\n  1/4  check    started\n  1/4  check    done in 250 ms\n"
    answer = cli("run", "shop:Order", "--id", "order-2", "--metadata", {"customer": ""}, "--json")
    assert answer.code == 1
    invalid = json.loads(answer.out)
    assert (invalid["status"], invalid["results"][0]["error"]) == ("failed", "no_customer")


def test_metadata_from_the_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'\xef\xbb\xbf{"approve_after": "check"}')))
    assert cli("run", "shop:Order", "--id", "order-1", "--metadata", "-").code == 3


def test_whatever_can_be_loaded_can_be_run(cli: Cli) -> None:
    answer = cli("run", "shop:Bare", "--id", "bare-1", "--metadata", {"amount": 5}, "--json")
    assert json.loads(answer.out)["results"][0]["data"] == {"metadata": {"amount": 5}}
    answer = cli("run", "shop:make_order", "--id", "made-1", "--metadata", {"approve_after": "check"})
    assert answer.code == 3
    cli("approve", "made-1")
    assert cli("resume", "made-1", "shop:make_order").code == 0


def test_a_file_is_loaded_with_its_neighbours(cli: Cli, shop: Path) -> None:
    folder = shop / "deep" / "er"
    folder.mkdir(parents=True)
    (folder / "neighbour.py").write_text("STEP = 'only'\n")
    (folder / "json.py").write_text(
        "from dotmac_workflows import Workflow, WorkflowResult\nfrom neighbour import STEP\n"
        "class Lone(Workflow):\n"
        "    def __init__(self, **kwargs):\n        super().__init__(steps=[STEP], **kwargs)\n"
        "    async def execute_step(self, step):\n        return WorkflowResult(True, step)\n"
    )
    assert cli("run", "deep/er/json.py:Lone", "--id", "lone-1").code == 0
    assert json.loads("[]") == []  # the module of that name is still Python's


def test_callbacks_of_the_class_are_left_alone(cli: Cli, shop: Path) -> None:
    (shop / "told.py").write_text(
        "import shop\n"
        "class Order(shop.Order):\n"
        "    def __init__(self, *args, **kwargs):\n"
        "        super().__init__(*args, **kwargs)\n"
        "        self.on_step_started = lambda step: shop.note(f'told of {step}')\n"
        "    async def on_step_completed(self, result):\n"
        "        if result.step == 'charge':\n            raise KeyError('\\x1b[1mnobody\\nlistens')\n"
        "        shop.note(f'told that {result.step} ended')\n"
    )
    answer = cli("run", "told:Order", "--id", "order-1")
    assert answer.code == 0
    assert answer.err == (
        "warning: Callback on_step_completed of workflow 'order-1' raised KeyError; the workflow goes on. "
        "(KeyError: '\\x1b[1mnobody\\nlistens')\n"
    )
    told = [line for line in ledger(shop) if line.startswith("told")]
    assert told[:4] == ["told of check", "told that check ended", "told of reserve", "told that reserve ended"]
    assert told[-2:] == ["told of ship", "told that ship ended"]


def test_warnings_that_no_line_says_are_shown(cli: Cli, shop: Path) -> None:
    (shop / "wrong.py").write_text(
        "import shop\nfrom dotmac_workflows import WorkflowResult\n"
        "class Order(shop.Order):\n"
        "    async def execute_step(self, step):\n        return WorkflowResult(True, 'other')\n"
    )
    answer = cli("run", "wrong:Order", "--id", "order-1")
    assert answer.err.splitlines()[0] == (
        "warning: Step 'check' of workflow 'order-1' returned a result for step 'other'; it is recorded as its own."
    )
    cli("run", "shop:Order", "--id", "order-2")
    answer = cli("run", "shop:Order", "--id", "order-2", "--metadata", {"other": "values"})
    assert answer.code == 0
    assert answer.err == (
        "warning: Workflow 'order-2' was started with other values of metadata; those it was started with are used.\n"
    )


def test_the_code_of_a_workflow_ends_the_process(cli: Cli, shop: Path) -> None:
    answer = cli("run", "shop:Order", "--id", "order-1", "--metadata", {"exit_in": "reserve"})
    assert answer.code == 130
    assert answer.err == (
        "The workflow's code ended the process (SystemExit: 7); 'order-1' is let go. To go on where it stopped: "
        "dotmac-workflows resume order-1 shop:Order\n"
    )
    answer = cli("recover", "shop:Order")
    assert answer.code == 130
    assert answer.err == (
        "The workflow's code ended the process (SystemExit: 7); what was under way is let go and stays due. "
        "The same command carries it on.\n"
    )
    assert ledger(shop) == ["check 1", "reserve 1", "reserve 2"]
