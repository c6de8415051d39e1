"""What a write-ahead log holds that SQLite does not tell: whether one that was left behind is whole, above all.

SQLite takes a log up to the first frame that does not match its checksum, and forgets the rest: so a commit that a
crash cut off is gone. A frame that was damaged afterwards ends the log in the same way, and every commit after it is
gone as well, in silence. The two can be told apart. With ``synchronous=FULL`` nothing is written behind a commit before
the commit is flushed; so where a frame follows a commit, that commit was on the disk, and all before it. If SQLite
would stop before it, the log is damaged.

What cannot be told apart is damage to the very last commit of a log, and one that a crash cut off.

The format is described in "WAL-mode File Format" of SQLite's documentation: a header of 32 bytes, then frames, each a
header of 24 bytes and a page. A checksum goes on from the one before it; a frame's salts are those of the header, or it
is left over from an earlier use of the file.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, TypeAlias

from ...errors import JournalCorruptError

_MAGIC = 0x377F0683  # without the last bit, checksums are made of little-endian words
_VERSION = 3007000
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MASK = 0xFFFFFFFF
_SECTOR = 512  # bytes that a disk writes as one, or not at all

_Checksum: TypeAlias = tuple[int, int]


class _Frame(NamedTuple):
    """What is asked of a frame."""

    is_sound: bool
    """Whether SQLite would take it, after the one before it."""
    follows: bool
    """Whether it was written after the one before it, of which some part may be damaged by now."""
    commits: bool
    """Whether it is the last one of a commit.

    Where its header lies in two sectors and no checksum vouches for it, nobody knows: a crash may have left one of two.
    """


def check_log(path: str, *, own: bool = False) -> None:
    """Look at a log before SQLite does; nobody may be writing to it.

    Args:
        path: The log; one that is missing, or too short to hold anything, is whole.
        own: Whether this store had it open, and found it whole, before a write of its own failed. Such a write may have
            cut the header off, as SQLite begins the log anew; all that lies behind it is in the database by then.

    Raises:
        JournalCorruptError: Commits are in it that SQLite would not find.
    """
    try:
        with open(path, "rb") as log:
            damaged = _first_damage(log, own=own)
    except (FileNotFoundError, PermissionError):  # SQLite says in its own words what it may not read
        return
    if damaged is not None:
        raise JournalCorruptError(
            f"{path!r} is damaged: {damaged}, and what was committed after that is in it. Nothing was overwritten. "
            "Restore the database from a backup; or, to go on without those commits, fold the sound part of the log "
            "into it, by PRAGMA wal_checkpoint(TRUNCATE) in a SQLite shell."
        )


def log_grows(path: str) -> bool:
    """Tell whether what is written to a log next makes it longer; nobody may be writing to it.

    Otherwise there are frames behind its last one, from an earlier use of the file.

    Raises:
        OSError: The log cannot be read.
    """
    with open(path, "rb") as log:  # there are none of SQLite's locks on it
        header = log.read(_HEADER.size)
        frame = _FRAME.size + int.from_bytes(header[8:12])
        whole = (os.fstat(log.fileno()).st_size - _HEADER.size) // frame
        if whole < 1:
            return True
        log.seek(_HEADER.size + (whole - 1) * frame + 8)
        return log.read(8) == header[16:24]


def _first_damage(log: BinaryIO, *, own: bool) -> str | None:
    header = log.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, version, page_size, _, *salts, first, second = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    checksum = _checksum(order, header[:24], (0, 0))
    if magic | 1 != _MAGIC or version != _VERSION or checksum != (first, second):
        # It is flushed before the first frame is written.
        return "its header does not match its checksum" if log.read(1) and not own else None
    damaged, after_commit = 0, False
    for number, frame in enumerate(_frames(log, order, page_size, salts, checksum), 1):
        if damaged and after_commit and frame.follows:
            return f"frame {damaged} does not match its checksum"
        if not frame.is_sound:
            damaged = damaged or number
        after_commit = frame.commits
    return None


def _frames(log: BinaryIO, order: str, page_size: int, salts: list[int], checksum: _Checksum) -> Iterator[_Frame]:
    before = due_before = checksum
    place = _HEADER.size
    while len(raw := log.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
        _, commits, *found, first, second = _FRAME.unpack_from(raw)
        stored = due = (first, second)
        follows = is_sound = False
        if found == salts:
            summed = raw[:8] + raw[_FRAME.size :]
            due = _checksum(order, summed, before)
            is_sound = stored == due
            follows = is_sound or (before != due_before and stored == _checksum(order, summed, due_before))
        is_whole = follows or place % _SECTOR <= _SECTOR - _FRAME.size
        yield _Frame(is_sound, follows, commits != 0 and is_whole)
        before, due_before = stored, due
        place += len(raw)


def _checksum(order: str, data: bytes, before: _Checksum) -> _Checksum:
    """Return the checksum that goes on from the one before it."""
    first, second = before
    for one, other in struct.iter_unpack(f"{order}II", data):
        first = first + one + second & _MASK
        second = second + other + first & _MASK
    return first, second
