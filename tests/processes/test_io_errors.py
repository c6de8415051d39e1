"""System calls of the store that fail, full disks and files that are taken away: told, and nothing is lost.

The campaign has every call fail: ``python -m tests.campaigns.io_errors --count 10000``.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns import io_errors as campaign
from dotmac_workflows.testing._judge import Violation
from processes.disks import FileLimit
from processes.faulted import Calls, Plan
from processes.faults import FULL_DISKS, PLANS, Lane, Report, compile_library, fill_small_disks

SEED = 20_260_707


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = compile_library(tmp_path_factory.mktemp("library"))
    if made is None:
        pytest.skip("no system call can be made to fail: there is no C compiler (cc), or this is not Linux")
    return str(made)


@pytest.fixture(params=["a new file", "a file that a killed process left"])
def lane(request: pytest.FixtureRequest, library: str, tmp_path: Path) -> Iterator[Lane]:
    print(f"seed {SEED}")
    with Lane(tmp_path, library, random.Random(SEED), left=request.param != "a new file") as lane:
        yield lane


def test_a_call_of_every_plan_fails(lane: Lane) -> None:
    chance = random.Random(SEED)
    plans = [
        plan._replace(calls=plan.calls & ~Calls.RECORD_LOCKS)  # at which SQLite may wait for long
        for plan in PLANS
        if plan.calls != Calls.UNLOCKS
    ]
    for plan in plans:
        assert not lane.play(plan, 1_000_000), "there are not so many, and then nothing fails"
        assert lane.play(plan, chance.randint(1, max(1, lane.counted * 3 // 4)))
    assert lane.report.faults == {plan.name: 1 for plan in plans}
    print(lane.report)


@pytest.mark.parametrize("plan", FULL_DISKS, ids=[plan.then for plan in FULL_DISKS])
def test_a_file_that_cannot_grow(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    with Lane(tmp_path, FileLimit.name, random.Random(SEED), left=plan.then == "mends") as lane:
        lane.every_one(plan, 8)
    assert lane.report.told == lane.report.faults.total() > 0


def test_small_file_systems() -> None:
    report = fill_small_disks(SEED, 12, left=True)
    if report is None:
        pytest.skip("no file system can be mounted here")
    assert report.told == report.faults.total() == report.calls["tmpfs"] > 2


def test_a_process_that_ends_with_another_error_than_ours_is_found(tmp_path: Path) -> None:
    with Lane(tmp_path, "no library", random.Random(SEED)) as lane, pytest.raises(Violation, match="exit code 1"):
        lane.play(PLANS[0], 1)


def test_a_campaign_of_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str
) -> None:
    with pytest.raises(SystemExit) as told:
        campaign.main(["--count", "0"])
    assert told.value.code == 2
    monkeypatch.setattr(campaign, "compile_library", lambda directory: None)
    assert campaign.main(["--count", "1"]) == 1
    monkeypatch.setattr(campaign, "compile_library", lambda directory: library)
    monkeypatch.setattr(campaign, "_pass", lambda *arguments: iter([Report]))
    assert campaign.main(["--count", "1"]) == 1
    assert "no C compiler" in capsys.readouterr().err
