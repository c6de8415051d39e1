"""Stopped at any moment, past its lease: whoever goes on after that changes nothing and is told.

The campaign does the same for as long as one likes: ``python -m tests.campaigns.zombies --count 1000``.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from campaigns import zombies as campaign
from dotmac_workflows.testing._judge import Violation
from processes.nursery import Worker
from processes.zombies import run_lane

SEED = 20_260_705


async def test_ten_zombies(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    report = await run_lane(tmp_path, SEED, 10)
    print(report)
    assert report.zombies == 10
    assert report.workflows >= 30
    assert report.taken.total() >= report.zombies
    # They were stopped where they were to be: with their step before them and behind them, and in an append.
    assert any("before the effect" in place for place in report.taken)
    assert any("after the effect" in place for place in report.taken)
    assert any("locked out" in place for place in report.taken)
    assert report.refused > 0


STALE_WRITES = {
    "a record": "INSERT INTO records SELECT workflow_id, max(seq) + 1, kind, at, body, digest FROM records",
    "a header": "UPDATE workflows SET updated_at = updated_at + 1 WHERE workflow_id = 'order-0'",
    "a lease": "UPDATE workflows SET lease_token = hex(randomblob(8)) WHERE workflow_id = 'order-0'",
}


@pytest.mark.parametrize("row", STALE_WRITES)
async def test_a_stale_write_is_found(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = Worker.go_on

    def write_and_go_on(worker: Worker) -> None:
        go_on(worker)
        with closing(sqlite3.connect(tmp_path / "orders.db", isolation_level=None)) as connection:
            connection.execute(STALE_WRITES[row])

    monkeypatch.setattr(Worker, "go_on", write_and_go_on)
    with pytest.raises(Violation, match="invariant 4 stale: a zombie changed the store"):
        await run_lane(tmp_path, SEED, 1)


async def test_a_zombie_that_is_told_nothing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Worker.wait

    def wait_and_hear_nothing(worker: Worker) -> None:
        wait(worker)
        worker.said = [line for line in worker.said if not line.startswith("left ")]

    monkeypatch.setattr(Worker, "wait", wait_and_hear_nothing)
    with pytest.raises(Violation, match="invariant 4 stale: nobody told the zombie of order-"):
        await run_lane(tmp_path, SEED, 1)


def test_a_campaign_of_nothing_is_an_error() -> None:
    with pytest.raises(SystemExit) as told:
        campaign.main(["--count", "0"])
    assert told.value.code == 2
