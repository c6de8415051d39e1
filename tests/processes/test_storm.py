"""Twelve processes on one file: none fails, nothing is lost, and who waits too long is told for whom.

The campaign does the same for as long as one likes: ``python -m tests.campaigns.storms --count 100``.
"""

from pathlib import Path

import pytest

from campaigns import storms as campaign
from dotmac_workflows.testing._judge import Violation
from processes import storms
from processes.storms import PROCESSES, run_storm

SEED = 20_260_706


def test_a_storm(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    report = run_storm(tmp_path, SEED, own=8)
    print(report)
    assert report.workflows == PROCESSES * (8 + 1) + storms.SHARED
    assert report.appends > 1000
    assert report.busy == PROCESSES


def test_a_process_that_fails_fails_the_storm(tmp_path: Path) -> None:
    (tmp_path / "orders.db").write_text("This is no database.")
    with pytest.raises(Violation, match="a process failed in the storm(.|\n)*is not a SQLite database"):
        run_storm(tmp_path, SEED, own=1)


def test_a_campaign_of_nothing_is_an_error() -> None:
    with pytest.raises(SystemExit) as told:
        campaign.main(["--count", "0"])
    assert told.value.code == 2
