"""``kill -9`` at any moment loses nothing, and only what was in flight runs twice.

The campaign does the same for as long as one likes: ``python -m tests.campaigns.kills --count 10000``.
"""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from campaigns import kills as campaign
from dotmac_workflows.testing._judge import Violation
from processes.kills import Lane, Report, run_lane

SEED = 20_260_703
KILLS = (40, 20, 20)
"""How many in each lane; in the second one, two processes at a time want to drive the same orders."""
APPENDS = (0, 0, 1000)
"""How many are acknowledged in each lane at least; where there are to be some, many orders are driven at once."""


def test_eighty_kills(tmp_path: Path) -> None:
    def lane(number: int) -> Report:
        directory = tmp_path / str(number)
        directory.mkdir()
        return run_lane(directory, SEED + number, KILLS[number], appends=APPENDS[number], rivals=number == 1)

    print(f"seed {SEED}")
    with ThreadPoolExecutor(len(KILLS)) as lanes:
        reports = list(lanes.map(lane, range(len(KILLS))))
    for report in reports:
        print(report)
    assert sum(report.kills for report in reports) >= sum(KILLS) == 80
    assert reports[2].appends >= APPENDS[2]
    # They hit what they were to hit: steps and rollback steps under way, and runs at a gate.
    assert sum(report.again["forward"] for report in reports) > 20
    assert sum(report.again["rollback"] for report in reports) > 5
    assert sum(report.last["ack !ApprovalRequested"] for report in reports) > 0


# The judge has power: what a broken engine would leave is found.


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Lane:
    with Lane(tmp_path_factory.mktemp("lane"), random.Random(SEED)) as lane:
        lane.play_batch(kills=3)
    lane.judge()
    return lane


def changed(line: str, **fields: object) -> str:
    return json.dumps({**json.loads(line), **fields}) + "\n"


# The last line is of an effect whose outcome was recorded: nobody was killed any more.
DOCTORED: dict[str, Callable[[list[str]], list[str]]] = {
    "there once more": lambda lines: [*lines, lines[-1]],
    "of another attempt": lambda lines: [*lines, changed(lines[-1], attempt=9)],
    "of another visit": lambda lines: [*lines[:-1], changed(lines[-1], visit=9)],
    "with another key": lambda lines: [*lines[:-1], changed(lines[-1], key="another")],
    "of a workflow that is not there": lambda lines: [*lines, changed(lines[-1], workflow="stranger")],
    "not there": lambda lines: lines[:-1],
    "in another order": lambda lines: lines[::-1],
}


@pytest.mark.parametrize("effect", DOCTORED)
def test_an_effect_that_was_not_to_be_is_found(effect: str, played: Lane) -> None:
    ledger = played.evidence.ledger.read_text()
    played.evidence.ledger.write_text("".join(DOCTORED[effect](ledger.splitlines(keepends=True))))
    try:
        with pytest.raises(Violation, match="invariant"):
            played.judge()
    finally:
        played.evidence.ledger.write_text(ledger)
    played.judge()


def test_an_acknowledged_fact_that_is_not_recorded_is_found(played: Lane) -> None:
    facts = played.evidence.facts["order-0"]
    facts["!Paused"] += 1000
    try:
        with pytest.raises(Violation, match="invariant 10 lost: !Paused was acknowledged 1000 times"):
            played.judge()
    finally:
        del facts["!Paused"]


@pytest.mark.parametrize("version", [2, 1000], ids=["another one", "one more"])
def test_an_acknowledged_append_that_is_not_stored_is_found(version: int, played: Lane) -> None:
    appends = played.evidence.appends["order-0"]
    before = dict(appends)
    appends[version] = "another digest"
    try:
        with pytest.raises(Violation, match=f"invariant 10 lost: version {version} of order-0 was acknowledged"):
            played.judge()
    finally:
        played.evidence.appends["order-0"] = before


def test_an_append_that_is_stored_and_was_said_not_to_be_is_found(played: Lane) -> None:
    version, digest = next(iter(played.evidence.appends["order-0"].items()))
    assert version > 0
    played.evidence.note([f"refused order-0 {digest}"])
    try:
        with pytest.raises(Violation, match="invariant 16 fate"):
            played.judge()
    finally:
        del played.evidence.refused["order-0"]


def test_a_version_that_two_were_told_they_made_is_found(played: Lane) -> None:
    version = next(iter(played.evidence.appends["order-0"]))
    with pytest.raises(Violation, match=f"invariant 13 dense: two appends made version {version} of order-0"):
        played.evidence.note([f"appended order-0 {version} another"])


def test_a_kill_that_never_was_is_missed(played: Lane) -> None:
    killed = set(played.evidence.lost)
    played.evidence.lost.clear()
    try:
        with pytest.raises(Violation, match="invariant 2 one a crash"):
            played.judge()
    finally:
        played.evidence.lost |= killed


def test_a_campaign_of_nothing_is_an_error() -> None:
    with pytest.raises(SystemExit) as told:
        campaign.main(["--count", "0"])
    assert told.value.code == 2
