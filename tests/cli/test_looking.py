"""list, show and verify, as whole texts; and runs whose class, types or records are unknown or damaged."""

import asyncio
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import Cli
from dotmac_workflows import Codec, CodecType, Runtime, SQLitePersistence, Workflow, WorkflowResult
from dotmac_workflows.cli.timeline import timeline
from dotmac_workflows.cli.wording import duration, values
from dotmac_workflows.persistence import Record
from dotmac_workflows.testing import FakeClock


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "shop.db")) as connection, connection:
        connection.execute(statement)


@pytest.fixture
def runs(cli: Cli, clock: FakeClock) -> None:
    """Make four runs: one that ended, one that waits, one that is due, one that failed two days later."""
    cli("run", "shop:Order", "--id", "order-1")
    cli("run", "shop:Order", "--id", "order-2", "--metadata", {"approve_after": "reserve"})
    cli("run", "shop:Order", "--id", "order-3", "--metadata", {"approve_after": "reserve"})
    cli("approve", "order-3")
    cli("run", "shop:Bare", "--id", "bare-1")
    clock.advance(2 * 24 * 3600)
    cli("run", "shop:Order", "--id", "order-4", "--metadata", {"fail_in": "check"})


LIST = """\
ID       TYPE   STATUS            LAST CHANGE (UTC)    NOTE
order-1  Order  completed         2026-01-01 00:00:01
order-2  Order  waiting_approval  2026-01-01 00:00:01  after reserve
order-3  Order  running           2026-01-01 00:00:02  due
bare-1   Bare   completed         2026-01-01 00:00:02
order-4  Order  failed            2026-01-03 00:00:02
"""


@pytest.mark.usefixtures("runs")
def test_list(cli: Cli) -> None:
    answer = cli("list")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == LIST


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--status", "completed"], ["order-1", "bare-1"]),
        (["--status", "completed", "--type", "Order"], ["order-1"]),
        (["--type", "Bare"], ["bare-1"]),
        (["--since", "2026-01-02"], ["order-4"]),
        (["--since", "2026-01-01T00:00:01.9"], ["order-3", "bare-1", "order-4"]),
        (["--since", "2026-01-01T02:00:02+02:00"], ["order-3", "bare-1", "order-4"]),
        (["--since", "2026-01-04"], []),
        (["--after", "order-3"], ["bare-1", "order-4"]),
        (["--after", "order-4"], []),
        (["--status", "cancelled"], []),
    ],
)
def test_filters(cli: Cli, filters: list[str], ids: list[str]) -> None:
    answer = cli("list", *filters)
    assert [line.split()[0] for line in answer.out.splitlines()[1:]] == ids
    assert answer.err == ("" if ids else "No such runs.\n")
    assert [run["workflow_id"] for run in json.loads(cli("list", *filters, "--json").out)] == ids


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_pages(cli: Cli, form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def page(*arguments: str) -> tuple[list[str], str]:
        answer = cli("list", "--limit", "2", *arguments, *form)
        if form:
            return [run["workflow_id"] for run in json.loads(answer.out)], answer.err
        return [line.split()[0] for line in answer.out.splitlines()[1:]], answer.err

    assert page() == (["order-1", "order-2"], "More: dotmac-workflows list --limit 2 --after order-2\n")
    assert page("--after", "order-2") == (
        ["order-3", "bare-1"],
        "More: dotmac-workflows list --limit 2 --after bare-1\n",
    )
    assert page("--after", "bare-1") == (["order-4"], "")
    monkeypatch.setattr("dotmac_workflows.cli.queries._PAGE", 2)  # the end of a page of the store is no end
    assert page() == (["order-1", "order-2"], "More: dotmac-workflows list --limit 2 --after order-2\n")
    assert page("--type", "Order", "--db", "shop.db") == (
        ["order-1", "order-2"],
        "More: dotmac-workflows list --type Order --limit 2 --after order-2 --db shop.db\n",
    )
    assert cli("list").out == LIST


def test_an_empty_list(cli: Cli) -> None:
    cli("run", "shop:Order", "--id", "order-1")
    cli("delete", "order-1")
    answer = cli("list")
    assert (answer.code, answer.out, answer.err) == (0, "", "No runs.\n")
    answer = cli("list", "--after", "order-1")
    assert (answer.code, answer.out) == (5, "")


@pytest.mark.usefixtures("runs")
def test_list_for_programs(cli: Cli) -> None:
    assert json.loads(cli("list", "--json", "--status", "waiting_approval").out) == [
        {
            "workflow_id": "order-2",
            "workflow_type": "Order",
            "status": "waiting_approval",
            "version": 7,
            "pending_step": "reserve",
            "created_at": "2026-01-01T00:00:01.000000Z",
            "updated_at": "2026-01-01T00:00:01.500000Z",
            "wake_at": None,
        }
    ]


def test_a_list_that_does_not_fit_is_wrapped_and_loses_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    cli("run", "shop:Order", "--id", "2f6f0c1e-5b7e-4a58-9d52-0c1e5b7e4a58", "--metadata", {"approve_after": "reserve"})
    answer = cli("list")
    assert "2f6f0c1e-5b7e-4a58-9d52-0c1e5b7e4a58" in answer.out
    monkeypatch.delenv("COLUMNS")
    assert cli("list").out == (
        "ID                                    TYPE   STATUS            LAST CHANGE (UTC)    NOTE\n"
        "2f6f0c1e-5b7e-4a58-9d52-0c1e5b7e4a58  Order  waiting_approval  2026-01-01 00:00:00  after reserve\n"
    )


def test_show(cli: Cli, clock: FakeClock) -> None:
    metadata = {"approve_after": "reserve", "fail_in": "ship", "because": "no\x1b[31m way"}
    cli("run", "shop:Order", "--id", "order-1", "--metadata", metadata)
    clock.advance(24 * 3600)
    cli("approve", "order-1", "--as", "approver@example.com", "--data", {"limit": 5})
    cli("resume", "order-1", "shop:Order")
    answer = cli("show", "order-1")
    assert (answer.code, answer.err) == (0, "")
    assert (
        answer.out
        == """\
order-1 failed

UTC       WHAT                STEP     TRY    TOOK  DETAIL
2026-01-01
00:00:00  run started                               Order: approve_after=reserve
                                                    fail_in=ship because=no way
00:00:00  taken up                                  by myhost (process 4711)
00:00:00  step done           check      1  250 ms  number=5
00:00:00  step done           reserve    1  250 ms  number=7
00:00:00  waits for approval  reserve
2026-01-02
00:00:00  approved                                  by approver@example.com:
                                                    limit=5
00:00:00  taken up                                  by myhost (process 4711)
00:00:00  step done           charge     1  250 ms  number=6
00:00:00  step failed         ship       1  250 ms  RuntimeError: no way
00:00:01  rolling back        ship
00:00:01  rolled back         charge     1   <1 ms
00:00:01  rolled back         reserve    1   <1 ms
00:00:01  no rollback         check      1   <1 ms
00:00:01  rollback ended                            everything was undone
00:00:01  failed

To try again:
  dotmac-workflows retry order-1 MODULE:CLASS
"""
    )


def test_show_for_programs(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "check"})
    shown = json.loads(cli("show", "order-1", "--json").out)
    with closing(sqlite3.connect(shop / "shop.db")) as connection:
        rows = connection.execute("SELECT seq, kind, body, digest FROM records ORDER BY seq").fetchall()
    assert [(r["seq"], r["kind"], r["body"], r["digest"]) for r in shown.pop("records")] == [
        (seq, kind, json.loads(body), digest) for seq, kind, body, digest in rows
    ]
    assert shown == {
        "workflow_id": "order-1",
        "status": "waiting_approval",
        "pending_step": "check",
        "rollback_status": "none",
        "driven_by": None,
    }


class Money:
    def __init__(self, amount: str) -> None:
        self.amount = amount


class Invoice(Workflow):
    """Stores types that nobody who only looks knows."""

    async def execute_step(self, step: str) -> WorkflowResult:
        data = {"due": Money("9.99"), "rate": Decimal("0.19"), "lines": (1, 2), "$": {"a": b"\x00"}}
        return WorkflowResult(True, step, data, requires_approval=step == "send")


def test_neither_the_class_nor_its_types_are_needed_to_look_and_decide(cli: Cli, clock: FakeClock) -> None:
    money = CodecType(Money, "acme.money", lambda m: [m.amount], lambda parts: Money(*parts))

    async def run() -> None:
        async with SQLitePersistence("shop.db") as store:
            invoice = Invoice("invoice-1", ["send", "close"], {"total": Money("10.00")}, persistence=store)
            invoice.runtime = Runtime(clock=clock, codec=Codec([money]))
            invoice.configure(require_approval=True)
            await invoice.execute()

    asyncio.run(run())
    assert cli("verify").code == 0
    shown = cli("show", "invoice-1").out
    assert 'due=["9.99"] rate=0.19 lines=[1, 2] $={"a": "AA=="}' in " ".join(shown.split())
    data = json.loads(cli("show", "invoice-1", "--json").out)["records"][3]["body"]["result"]["data"]
    assert data["$"][1]["due"] == {"$": ["acme.money", ["9.99"]]}
    assert cli("approve", "invoice-1").code == 0
    assert cli("cancel", "invoice-1").code == 0
    assert json.loads(cli("list", "--json").out)[0]["status"] == "running"


DAMAGE = [
    "UPDATE records SET body = replace(body, 'order', 'other') WHERE seq = 1",
    "UPDATE records SET body = '[' WHERE seq = 4",
    "UPDATE records SET kind = 'step_danced' WHERE seq = 4",
    "UPDATE records SET at = at + 1 WHERE seq = 5",
    "UPDATE records SET digest = 'none' WHERE seq = 2",
]


@pytest.mark.parametrize("statement", DAMAGE)
def test_a_damaged_journal_is_shown_as_far_as_it_can_be(cli: Cli, shop: Path, statement: str) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"note": "order"})
    whole = cli("show", "order-1").out
    change(shop, statement)
    answer = cli("show", "order-1")
    assert answer.code == 4
    assert answer.out.splitlines()[0] == "order-1 is damaged"
    assert len(answer.out.splitlines()) >= len(whole.splitlines())
    assert answer.err.startswith("error: The journal of workflow 'order-1' is damaged: record ")
    assert answer.err.count("\n") == 1
    assert json.loads(cli("show", "order-1", "--json").out)["status"] is None
    for arguments in (["run", "shop:Order", "--id", "order-1"], ["pause", "order-1"]):
        assert cli(*arguments).code == 4


@pytest.mark.usefixtures("runs")
def test_verify(cli: Cli, shop: Path) -> None:
    answer = cli("verify")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "5 runs with 36 records checked: all sound.\n"
    change(shop, "UPDATE records SET body = replace(body, 'check', 'chuck') WHERE workflow_id = 'order-2' AND seq = 4")
    change(shop, "UPDATE workflows SET status = 'failed' WHERE workflow_id = 'order-3'")
    change(shop, "DELETE FROM records WHERE workflow_id = 'bare-1' AND seq = 3")
    answer = cli("verify")
    assert (answer.code, answer.err) == (4, "")
    lines = answer.out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("damaged: The journal of workflow 'order-2' is damaged: record 4 ('step_succeeded') ")
    assert lines[1].startswith("damaged: The header of workflow 'order-3' (failed, version 8) is not what ")
    assert lines[2].startswith("damaged: The journal of workflow 'bare-1' is damaged: ")
    assert lines[3] == "5 runs checked: 2 sound, 3 not."
    answer = cli("verify", "--json")
    assert answer.code == 4
    problems = json.loads(answer.out)
    assert (problems["workflows"], problems["records"]) == (5, 16)
    assert [(p["workflow_id"], p["error"]) for p in problems["problems"]] == [
        ("order-2", "JournalCorruptError"),
        ("order-3", "JournalCorruptError"),
        ("bare-1", "JournalCorruptError"),
    ]


KINDS = ["step_started", "step_succeeded", "retried", "claimed", "approved", "rollback_finished", "unheard_of"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["$", "a", "reason"]) | st.text(), inner),
    max_leaves=4,
)
BODIES = (
    st.dictionaries(
        st.sampled_from(["step", "attempt", "visit", "result", "actor", "reason", "data", "owner", "from_index"]), JSON
    ).map(json.dumps)
    | st.text()
)


@given(rows=st.lists(st.tuples(st.sampled_from(KINDS), BODIES), max_size=6))
def test_any_row_can_be_shown(rows: list[tuple[str, str]]) -> None:
    records = [Record(seq, kind, seq, body, "") for seq, (kind, body) in enumerate(rows, 1)]
    shown = timeline(records)
    assert len(shown) <= len(records)
    for row in shown:
        assert len(row.detail) < 700


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        ("long", ""),
        (0, "<1 ms"),
        (0.00099, "<1 ms"),
        (0.0123, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (47.5 * 3600, "47 h 30 min"),
        (50 * 3600, "2 d 2 h"),
        (float("nan"), ""),
        (float("inf"), ""),
        (10**400, ""),
    ],
)
def test_durations(seconds: object, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_too_deep_to_show() -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    assert values(deep) == "(nested too deep to show)"
