"""`diagram` and `show --svg`: of a class, of a run, and of what cannot be drawn."""

import asyncio
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from dotmac_workflows import SQLitePersistence, Workflow, WorkflowResult
from dotmac_workflows.cli import main

SHOP = """
from dotmac_workflows import Workflow, WorkflowResult

class Purchase(Workflow):
    def __init__(self, **init):
        super().__init__(**{"steps": ["reserve", "pay"], **init})

    async def execute_step(self, step):
        return WorkflowResult(True, step)

class Wants(Workflow):
    def __init__(self, service, **init):
        super().__init__(**init)
"""


class Purchase(Workflow):
    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step, requires_approval=step == "reserve")


@pytest.fixture
def db(tmp_path: Path) -> str:
    path = str(tmp_path / "shop.db")

    async def run() -> None:
        async with SQLitePersistence(path) as store:
            purchase = Purchase("purchase-1", ["reserve", "pay"], persistence=store)
            purchase.configure(require_approval=True)
            await purchase.execute()

    asyncio.run(run())
    return path


def test_the_plan_of_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    assert main(["diagram", f"{tmp_path / 'shop.py'}:Purchase"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(("---\n", "flowchart"))
    assert text.index("reserve") < text.index("pay")


def test_a_run_and_where_it_stands_without_its_class(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagram", "purchase-1", "--db", db]) == 0
    text = capsys.readouterr().out
    assert "purchase-1" in text
    assert "waiting" in text


def test_a_class_that_needs_more_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop2.py").write_text(SHOP)
    assert main(["diagram", f"{tmp_path / 'shop2.py'}:Wants"]) == 2
    said = capsys.readouterr().err
    assert "cannot be made without arguments: missing a required argument: 'service'" in said
    assert said.count("\n") == 1


def test_an_unknown_run(db: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagram", "purchase-2", "--db", db]) == 5
    assert capsys.readouterr().err.count("\n") == 1


def test_the_timeline_of_a_run_as_a_picture(db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "purchase-1.svg"
    assert main(["show", "purchase-1", "--db", db, "--svg", str(picture)]) == 0
    assert capsys.readouterr().err == f"Its timeline is in {picture}.\n"
    texts = [node.text or "" for node in ET.parse(picture).iter() if node.tag.endswith("text")]
    assert any("purchase-1" in text for text in texts)
    assert any("reserve" in text for text in texts)


def test_a_picture_that_cannot_be_written(db: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "purchase-1", "--db", db, "--svg", str(tmp_path / "nowhere" / "x.svg")]) == 2
    assert "cannot be written: No such file or directory. Give another file." in capsys.readouterr().err
