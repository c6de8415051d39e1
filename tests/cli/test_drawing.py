"""diagram, and show with --svg."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from command_line import Cli
from dotmac_workflows import SQLitePersistence, Workflow
from dotmac_workflows.pictures import timeline_svg

PLAN = """\
flowchart LR
  subgraph plan["Order"]
    direction TB
    s0["check"]:::pending
"""


def stored(shop: Path, workflow_id: str) -> tuple[str, str]:
    """Return the flowchart and the timeline of a run, as the library draws them."""

    async def draw() -> tuple[str, str]:
        async with SQLitePersistence(shop / "shop.db") as store:
            run = await Workflow.load(workflow_id, store)
            return run.to_mermaid(), timeline_svg(workflow_id, await store.read(workflow_id))

    return asyncio.run(draw())


@pytest.mark.parametrize("spec", ["shop:Order", "shop.py:Order", "shop:make_order"])
@pytest.mark.parametrize("database", [None, "absent.db", "shop.db"])
def test_the_plan_of_a_class(cli: Cli, shop: Path, spec: str, database: str | None) -> None:
    cli("run", "shop:Bare", "--id", "bare-1")
    if database is None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("DOTMAC_WORKFLOWS_DB")
            answer = cli("diagram", spec)
    else:
        answer = cli("diagram", spec, "--db", database)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(PLAN)
    assert 'u0["undo check"]:::pending' in answer.out
    assert not (shop / "absent.db").exists()


def test_where_a_run_stands(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"approve_after": "reserve"})
    answer = cli("diagram", "order-1")
    assert (answer.code, answer.err, answer.out) == (0, "", stored(shop, "order-1")[0])
    assert 'g1{{"… approval<br/>waits for a decision"}}:::waiting' in answer.out


def test_an_id_that_looks_like_a_class_is_a_run(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "shop:Order")
    answer = cli("diagram", "shop:Order")
    assert (answer.code, answer.out) == (0, stored(shop, "shop:Order")[0])


def test_a_class_that_needs_more_is_told_so(cli: Cli) -> None:
    answer = cli("diagram", "shop:Needy")
    assert (answer.code, answer.out) == (2, "")
    assert "cannot be made with workflow_id, persistence: missing a required argument: 'gateway'" in answer.err
    assert answer.err.count("\n") == 1


def test_nothing_to_draw(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = cli("diagram", "order-9")
    assert (answer.code, answer.out) == (4, "")
    cli("run", "shop:Bare", "--id", "bare-1")
    answer = cli("diagram", "order-9")
    assert (answer.code, answer.out) == (5, "")
    assert "There is no workflow 'order-9'" in answer.err
    answer = cli("diagram", "shop:Nothing")
    assert (answer.code, answer.out) == (2, "")
    monkeypatch.delenv("DOTMAC_WORKFLOWS_DB")
    answer = cli("diagram", "order-9")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: 'order-9' names no class, and no database is named. Give --db FILE, or MODULE:CLASS.\n"


def test_a_timeline_goes_to_a_file(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1", "--metadata", {"fail_in": "ship"})
    answer = cli("show", "order-1", "--svg", "order.svg")
    assert (answer.code, answer.out, answer.err) == (0, "Written to order.svg.\n", "")
    picture = stored(shop, "order-1")[1]
    assert (shop / "order.svg").read_text(encoding="utf-8") == picture
    answer = cli("show", "order-1", "--svg", "-")
    assert (answer.code, answer.out, answer.err) == (0, picture, "")


def test_a_file_that_cannot_be_written(cli: Cli) -> None:
    cli("run", "shop:Order", "--id", "order-1")
    answer = cli("show", "order-1", "--svg", "nowhere/order.svg")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: The picture cannot be written to 'nowhere/order.svg': No such file or directory.\n"


def test_a_damaged_journal_is_drawn_and_said_to_be_damaged(cli: Cli, shop: Path) -> None:
    cli("run", "shop:Order", "--id", "order-1")
    with closing(sqlite3.connect(shop / "shop.db")) as connection, connection:
        connection.execute("UPDATE records SET body = '{}' WHERE kind = 'step_started'")
    answer = cli("show", "order-1", "--svg", "order.svg")
    assert answer.code == 4
    assert "is damaged" in answer.err
    assert "(no name)" in (shop / "order.svg").read_text(encoding="utf-8")
