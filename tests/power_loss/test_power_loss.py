"""A power loss takes nothing that was acknowledged, and leaves no store that is called damaged.

The campaign does the same for as long as one likes: ``python -m tests.campaigns.power_loss --count 50000``.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from campaigns import power_loss as campaign
from dotmac_workflows.persistence.sqlite._schema import choose_settings
from dotmac_workflows.testing._judge import Violation
from power_loss.disk import Cut, Operation, build, cuts, states
from power_loss.modes import DURABLE, LOSING
from power_loss.promises import Promises
from power_loss.recording import check_complete, read, record, why_not

SEED = "20261125"
needs_recorder = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@needs_recorder
@pytest.mark.parametrize("mode", DURABLE)
def test_nothing_that_was_acknowledged_is_lost(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = campaign.main(["--count", "100", "--seed", SEED, "--jobs", "1", "--mode", mode])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert re.search(rf"{mode}: 1 recordings .* 100 different states .*; 0 broke a promise", said.out), said.out


@needs_recorder
@pytest.mark.parametrize("mode", LOSING)
def test_the_campaign_finds_what_a_mode_loses_that_is_never_chosen(
    mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert campaign.main(["--count", "60", "--seed", SEED, "--jobs", "1", "--mode", mode]) == 1
    lost = re.search(r"60 different states .*; (\d+) broke a promise", capsys.readouterr().out)
    assert lost is not None
    assert int(lost[1]) > 0


def test_the_modes_are_those_that_a_store_chooses() -> None:
    assert {
        "wal-full": choose_settings(locked=True, sqlite_version=(3, 40, 1)),
        "truncate-extra": choose_settings(locked=False, sqlite_version=(3, 40, 1)),
    } == DURABLE


@needs_recorder
def test_a_state_is_played_again_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = tmp_path / "wal-normal.recording"
    recording.write_bytes(record(tmp_path, "wal-normal", random.Random(SEED)))
    *_, end = cuts(read(recording.read_bytes()))
    losing = max(cuts(read(recording.read_bytes())), key=lambda cut: len(cut.things))
    for cut, code, said in ((end, 0, "0 broke a promise"), (losing, 1, "1 broke a promise")):
        again = ["--only", str(recording), f"{cut.at} nothing", "--mode", "wal-normal"]
        assert campaign.main(again) == code
        assert f"1 state of wal-normal played, {said}" in capsys.readouterr().out


@needs_recorder
def test_a_recording_that_is_not_complete_is_noticed(tmp_path: Path) -> None:
    operations = read(record(tmp_path, "wal-full", random.Random(SEED)))
    check_complete(operations, tmp_path / "files")
    last = max(at for at, operation in enumerate(operations) if (operation.what, operation.name) == ("write", DATABASE))
    with pytest.raises(ValueError, match="does not amount to the files"):
        check_complete([*operations[:last], *operations[last + 1 :]], tmp_path / "files")


# The model of a disk.

DATABASE = "orders.db"


def done(what: str, name: str = DATABASE, number: int = 0, data: bytes = b"") -> Operation:
    return Operation(what, 1, name, number, data)


MADE = [done("create"), done("write", data=b"a" * 1024), done("flush"), done("flushed")]
NAMED = [*MADE, done("flush", "."), done("flushed", ".")]


def possible(operations: list[Operation], at: int) -> set[bytes | None]:
    """Return what may be in the file when the power fails before operation `at`; None: it may not be there."""
    (cut,) = (cut for cut in cuts(operations) if cut.at == at)
    names = {name for seed in range(30) for name in states(cut, random.Random(seed))}
    return {build(cut, name).get(DATABASE) for name in names}


def test_a_file_is_there_for_certain_once_its_directory_is_flushed() -> None:
    assert possible([*MADE, done("flush", ".")], 5) == {None, b"a" * 1024}
    assert possible(NAMED, 6) == {b"a" * 1024}


def test_what_was_flushed_is_there_and_what_was_not_may_be() -> None:
    old, new = b"a" * 512, b"b" * 512
    written = [*NAMED, done("write", data=b"b" * 1024)]
    # A sector for itself, both, or none; and a part of a sector never.
    assert possible(written, 7) == {old + old, new + old, old + new, new + new}
    assert possible([*written, done("flush"), done("flushed")], 8) == possible(written, 7), "a flush under way"
    assert possible([*written, done("flush"), done("flushed")], 9) == {new + new}


def test_a_write_after_the_beginning_of_a_flush_is_not_covered() -> None:
    late = [*NAMED, done("flush"), done("write", data=b"b" * 512), done("flushed")]
    assert possible(late, len(late)) == {b"a" * 1024, b"b" * 512 + b"a" * 512}


def test_a_file_that_grew_may_hold_anything_where_nothing_was_written() -> None:
    found = possible([*NAMED, done("write", number=1024, data=b"b" * 1024)], 7)
    assert {b"a" * 1024, b"a" * 1024 + bytes(1024), b"a" * 1024 + b"b" * 512, b"a" * 1024 + b"b" * 1024} <= found
    assert any(content is not None and not {*content[1024:]} <= {0, ord("b")} for content in found)


def test_a_file_may_have_been_cut_off_or_not() -> None:
    assert possible([*NAMED, done("resize", number=512), done("write", number=512, data=b"b")], 8) == {
        b"a" * 1024,
        b"a" * 512,
        b"a" * 512 + b"b",
        b"a" * 512 + b"b" + b"a" * 511,
    }


def test_a_deleted_file_may_be_there_again_until_the_directory_is_flushed() -> None:
    deleted = [*NAMED, done("delete")]
    assert possible(deleted, 7) == {None, b"a" * 1024}
    made_again = [*deleted, done("create"), done("write", data=b"b"), done("flush"), done("flushed")]
    assert possible(made_again, 11) == {None, b"a" * 1024, b"b"}
    assert possible([*made_again, done("flush", "."), done("flushed", ".")], 13) == {b"b"}


def test_a_state_is_the_same_each_time() -> None:
    operations = [*NAMED, *(done("write", number=at * 512, data=bytes([at]) * 700) for at in range(9))]
    *_, cut = cuts(operations)
    names = states(cut, random.Random(1))
    assert [build(cut, name) for name in names] == [build(cut, name) for name in names]
    assert isinstance(cut, Cut)


# What is promised.

OLD, NEW = (2, "d2"), (3, "d3")


def mark(what: str, number: int = 1, *, process: int = 1, **more: Any) -> Operation:
    text = json.dumps({"what": what, "process": process, "workflow": "w", "number": number, **more})
    return Operation("mark", process, "marks", 0, text.encode())


def append(number: int, journal: tuple[int, str], process: int = 1) -> Operation:
    return mark("begin", number, process=process, kind="append", journal=journal)


FIRST = [append(1, OLD), mark("acknowledged")]


@pytest.mark.parametrize(
    ("marks", "kept"),
    [
        ([append(1, OLD)], {None, OLD}),
        ([append(1, OLD), mark("refused")], {None}),
        (FIRST, {OLD}),
        ([*FIRST, append(2, NEW)], {OLD, NEW}),
        ([*FIRST, append(2, NEW), mark("acknowledged", 2)], {NEW}),
        ([*FIRST, append(2, NEW), mark("shown", process=2, journal=NEW)], {NEW}),
        ([*FIRST, append(2, NEW), mark("shown", process=2, journal=OLD)], {OLD, NEW}),
        ([*FIRST, append(2, (3, "lost")), append(1, NEW, 2), mark("acknowledged", 1, process=2)], {NEW}),
        ([*FIRST, mark("begin", 2, kind="delete")], {None, OLD}),
        ([*FIRST, mark("begin", 2, kind="delete"), mark("acknowledged", 2)], {None}),
    ],
)
def test_what_may_be_found_is_what_was_acknowledged_or_is_under_way(
    marks: list[Operation], kept: set[tuple[int, str] | None]
) -> None:
    promises = Promises(marks)
    for journal in (None, OLD, NEW, (3, "other"), (1, "d1")):
        found: Any = {} if journal is None else {"w": (journal, None)}
        if journal in kept:
            promises.check(len(marks), found)
        else:
            with pytest.raises(Violation, match="invariant 10"):
                promises.check(len(marks), found)


def test_a_lease_is_promised_as_well() -> None:
    held = ("host:1", "token", 99)
    promises = Promises([mark("begin", kind="append", journal=OLD, lease=held), mark("acknowledged")])
    promises.check(2, {"w": (OLD, held)})
    with pytest.raises(Violation, match="should hold one of"):
        promises.check(2, {"w": (OLD, None)})


def test_what_was_never_written_must_not_be_found() -> None:
    with pytest.raises(Violation, match="never written"):
        Promises(FIRST).check(2, {"w": (OLD, None), "v": (OLD, None)})
