"""A folder with a module of workflows, and the command line in this process with a clock of its own."""

import json
import sys
from pathlib import Path

import pytest

from command_line import SHOP, Answer, Cli
from dotmac_workflows import Runtime, Workflow
from dotmac_workflows._run import lease
from dotmac_workflows.cli import main
from dotmac_workflows.testing import FakeClock


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which holds the module `shop`."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("DOTMAC_WORKFLOWS_DB", "shop.db")
    monkeypatch.setenv("LOGNAME", "operator")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "argv", ["dotmac-workflows"])
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(Workflow, "runtime", Runtime(clock=clock))
    return clock


@pytest.fixture
def cli(shop: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return the command line, in this process; a dictionary among its arguments becomes a file of JSON."""
    monkeypatch.setattr(lease, "this_owner", lambda: "myhost:4711:1:boot:namespace")

    def call(*arguments: object) -> Answer:
        words = []
        for argument in arguments:
            if isinstance(argument, dict):
                (shop / "given.json").write_text(json.dumps(argument))
                words.append("given.json")
            else:
                words.append(str(argument))
        code = main(words)
        return Answer(code, *capsys.readouterr())

    return call
