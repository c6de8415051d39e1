"""A write-ahead log that was damaged: SQLite would forget the end of it in silence, and the store does not."""

import asyncio
import os
import random
import sqlite3
import struct
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dotmac_workflows.errors import JournalCorruptError
from dotmac_workflows.persistence import SQLitePersistence
from dotmac_workflows.persistence.sqlite._log import check_log
from dotmac_workflows.persistence.sqlite._schema import Database
from journal_rows import header, records
from sqlite_stores import append, failure

PAGE = 4096
FRAME = 24 + PAGE


class Log:
    """What a killed process left: a database, its log, and where each commit ends in it."""

    def __init__(self, database: bytes, log: bytes) -> None:
        self.database = database
        self.log = log
        self.frames = (len(log) - 32) // FRAME
        self.commits = [number for number in range(self.frames) if any(log[32 + number * FRAME + 4 :][:4])]
        self.last_commit = 32 + (self.commits[-2] + 1) * FRAME
        """Where the last commit begins."""

    def put(self, path: Path, log: bytes | None = None) -> Path:
        path.write_bytes(self.database)
        Path(f"{path}-wal").write_bytes(self.log if log is None else log)
        return path


async def write(path: Path, earlier_use: bool) -> Log:
    async with SQLitePersistence(path) as store:
        store._writer.idle_seconds = 3600
        for version in range(0, 8, 2):
            await append(store, "before", version)
        if earlier_use:
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
            await append(store, "after")
            await append(store, "after", 2)
        return Log(path.read_bytes(), Path(f"{path}-wal").read_bytes())


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return asyncio.run(write(tmp_path_factory.mktemp("left") / "journals.db", earlier_use=False))


@pytest.fixture(scope="module")
def reused(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """One whose beginning was written over, after a checkpoint."""
    return asyncio.run(write(tmp_path_factory.mktemp("reused") / "journals.db", earlier_use=True))


def flipped(log: bytes, place: int, bit: int) -> bytes:
    damaged = bytearray(log)
    damaged[place] ^= 1 << bit
    return bytes(damaged)


def summed(order: str, data: bytes, before: tuple[int, int]) -> tuple[int, int]:
    first, second = before
    for one, other in struct.iter_unpack(f"{order}II", data):
        first = (first + one + second) % 2**32
        second = (second + other + first) % 2**32
    return first, second


def sealed(log: bytes, order: str = "<") -> bytes:
    """Return a log with checksums that are right, made of words of some byte order."""
    header = log[:24]
    checksum = summed(order, header, (0, 0))
    whole = header + struct.pack(">II", *checksum)
    for place in range(32, len(log), FRAME):
        head, page = log[place : place + 16], log[place + 24 : place + FRAME]
        checksum = summed(order, head[:8] + page, checksum)
        whole += head + struct.pack(">II", *checksum) + page
    return whole


def is_noticed(path: Path, log: bytes) -> bool:
    path.write_bytes(log)
    try:
        check_log(str(path))
    except JournalCorruptError:
        return True
    return False


async def test_is_refused_untouched(left: Log, tmp_path: Path) -> None:
    damaged = flipped(left.log, 32 + 3 * FRAME + 1000, 3)
    path = left.put(tmp_path / "journals.db", damaged)
    store = SQLitePersistence(path)
    for _ in range(2):
        with pytest.raises(JournalCorruptError) as caught:
            await append(store, "before", 8)
        assert str(caught.value) == (
            f"'{path}-wal' is damaged: frame 4 does not match its checksum, and what was committed after that is in "
            "it. Nothing was overwritten. Restore the database from a backup; or, to go on without those commits, fold "
            "the sound part of the log into it, by PRAGMA wal_checkpoint(TRUNCATE) in a SQLite shell."
        )
    await store.close()
    assert path.read_bytes() == left.database
    assert Path(f"{path}-wal").read_bytes() == damaged

    # The remedy that it names.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    async with SQLitePersistence(path) as store:
        await append(store, "new")


def test_every_flip_is_noticed_but_in_the_last_commit(left: Log, tmp_path: Path) -> None:
    dice = random.Random(20_261_125)
    heading = [(place, bit) for place in range(32) for bit in (0, 7)]
    heads = [(32 + frame * FRAME + place, dice.randrange(8)) for frame in range(left.frames) for place in range(24)]
    pages = [(dice.randrange(32, left.last_commit), dice.randrange(8)) for _ in range(100)]
    ends = left.last_commit - FRAME + 4  # where it says how large the database is: it may become no end of a commit
    assert (ends - 4) % 512 <= 488, "a header that lies in two sectors is not trusted"
    for place, bit in (*heading, *dice.sample(heads, 150), *pages):
        if place < left.last_commit and not ends <= place < ends + 4:
            assert is_noticed(tmp_path / "log", flipped(left.log, place, bit)), (place, bit)


async def test_the_last_commit_is_as_if_it_had_not_been(left: Log, tmp_path: Path) -> None:
    """Nobody can tell it from one that a crash cut off."""
    path = left.put(tmp_path / "journals.db", flipped(left.log, left.last_commit + 500, 1))
    async with SQLitePersistence(path) as store:
        assert await store.read("before") == records(0, 6)


@pytest.mark.parametrize("which", ["left", "reused"])
def test_whatever_a_crash_leaves_is_no_damage(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    log: Log = request.getfixturevalue(which)
    assert not is_noticed(tmp_path / "log", log.log)
    for size in (0, 10, 32, 40, *range(32 + FRAME, len(log.log), FRAME), *range(5000, len(log.log), 7777)):
        assert not is_noticed(tmp_path / "log", log.log[:size]), size


async def test_a_commit_whose_mark_is_what_lay_there_before_is_none(tmp_path: Path) -> None:
    """A torn one: of a header in two sectors the second one was written, and the first one not."""
    path = tmp_path / "journals.db"
    split = 41
    assert (32 + split * FRAME) % 512 == 504
    async with SQLitePersistence(path) as store:
        store._writer.idle_seconds = 3600
        version = 0
        while os.path.getsize(f"{path}-wal") < 32 + 35 * FRAME:
            await append(store, "w", version)
            version += 2
        size = os.path.getsize(f"{path}-wal")
        assert size <= 32 + split * FRAME
        many = 400
        await store.append("w", records(version, many), expected_version=version, header=header("w", version + many))
        log = bytearray(Path(f"{path}-wal").read_bytes())
    assert len(log) > 32 + (split + 3) * FRAME
    assert not any(log[32 + split * FRAME + 4 :][:4]), "in the middle of a commit"
    log[size : size + 512] = bytes(512)
    assert not is_noticed(tmp_path / "log", bytes(log))
    log[32 + split * FRAME : 32 + split * FRAME + 8] = b"\1" * 8
    assert not is_noticed(tmp_path / "log", bytes(log))
    log[32 + split * FRAME - 512 : 32 + split * FRAME] = bytes(512)
    assert not is_noticed(tmp_path / "log", bytes(log)), "nor is it where the page before it was not written whole"


def test_what_is_left_over_from_an_earlier_use_is_no_part_of_it(reused: Log, tmp_path: Path) -> None:
    salts = reused.log[16:24]
    current = [number for number in range(reused.frames) if reused.log[32 + number * FRAME + 8 :][:8] == salts]
    assert 1 < len(current) < reused.frames
    over = 32 + len(current) * FRAME
    assert not is_noticed(tmp_path / "log", flipped(reused.log, over + 500, 1))
    assert is_noticed(tmp_path / "log", flipped(reused.log, 32 + 500, 1))


def test_a_log_of_the_other_byte_order_is_looked_at_alike(left: Log, tmp_path: Path) -> None:
    assert sealed(left.log, "<" if sys.byteorder == "little" else ">") == left.log
    for last_bit, order in enumerate("<>"):
        log = sealed(left.log[:3] + bytes([left.log[3] & 0xFE | last_bit]) + left.log[4:], order)
        assert not is_noticed(tmp_path / "log", log)
        assert is_noticed(tmp_path / "log", flipped(log, 32 + 500, 1))
        path = left.put(tmp_path / f"{last_bit}.db", log)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM records").fetchone() == (8,), "SQLite takes it whole"


@pytest.mark.parametrize("place", [3, 7])
def test_a_header_of_another_format_is_no_header_whatever_its_checksum(left: Log, place: int, tmp_path: Path) -> None:
    assert is_noticed(tmp_path / "log", sealed(flipped(left.log, place, 1)))


@pytest.mark.parametrize(("number", "begins", "is_trusted"), [(18, 464, True), (19, 488, True), (41, 504, False)])
def test_a_mark_is_trusted_whose_header_lies_in_one_sector(
    left: Log, number: int, begins: int, is_trusted: bool, tmp_path: Path
) -> None:
    """Of a header in two sectors a crash may leave one."""
    frame = left.log[32:36] + b"\0\0\0\1" + left.log[40 : 32 + FRAME]
    place = 32 + number * FRAME
    assert place % 512 == begins
    log = sealed(left.log[:32] + (number + 2) * frame)
    assert is_noticed(tmp_path / "log", flipped(log, place + 99, 0)) is is_trusted


def test_a_log_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    check_log(str(tmp_path / "none"))


@pytest.mark.parametrize("what", [Database.open, Database.open_reader])
def test_an_opening_in_vain_leaves_the_log_alone(
    what: Callable[[Database], object], left: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left.put(tmp_path / "journals.db")
    database = Database(str(path))
    database.prepare()

    def down(connection: sqlite3.Connection) -> None:
        raise failure("SQLITE_IOERR_SHMOPEN")

    monkeypatch.setattr(database, "_apply_settings", down)
    with database.lock, pytest.raises(sqlite3.OperationalError):
        what(database)
    database.lock.close()
    assert Path(f"{path}-wal").read_bytes() == left.log


async def test_a_header_that_a_write_of_its_own_cut_off_keeps_no_store_from_going_on(left: Log, tmp_path: Path) -> None:
    path = left.put(tmp_path / "journals.db")
    database = Database(str(path))
    database.prepare()
    with database.lock:
        connection = database.open()
        assert connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
    log = bytearray(Path(f"{path}-wal").read_bytes())
    log[12:16] = (int.from_bytes(log[12:16], "big") + 1).to_bytes(4, "big")  # half of what the next use begins with
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(JournalCorruptError, match="its header does not match its checksum"):
        check_log(f"{path}-wal")  # to another process it might be damage
    with database.lock:
        again = database.open()
    assert again.execute("SELECT count(*) FROM records").fetchone()[0] == 8
    again.close()
    connection.close()
    database.lock.close()
