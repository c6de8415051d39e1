"""What SQLite says in codes, said in words: what happened, and what to do.

Classified by ``sqlite_errorname``, which names the extended code and is stable; never by the message, which is not.
"""

import sqlite3

from ...errors import JournalCorruptError, PersistenceError

# A full file system arrives as FULL, a file-size limit as IOERR_WRITE, and either as IOERR_SHMSIZE when it is the
# -shm file that cannot grow (reliability: measured with tmpfs and RLIMIT_FSIZE).
_DISK_FULL = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})

# Of these the last write failed, and nothing behind it was tried.
_CUT_OFF = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE"})

_PRIMARY_CODES = {
    sqlite3.SQLITE_BUSY: "SQLITE_BUSY",
    sqlite3.SQLITE_CANTOPEN: "SQLITE_CANTOPEN",
    sqlite3.SQLITE_CONSTRAINT: "SQLITE_CONSTRAINT",
    sqlite3.SQLITE_CORRUPT: "SQLITE_CORRUPT",
    sqlite3.SQLITE_IOERR: "SQLITE_IOERR",
    sqlite3.SQLITE_LOCKED: "SQLITE_LOCKED",
    sqlite3.SQLITE_READONLY: "SQLITE_READONLY",
}

# By the beginning of the name: what it means, and the remedy.
_MEANINGS = (
    (
        "SQLITE_READONLY",
        "may be read but not written. Give the process write permission on the file and on its directory, where SQLite "
        "keeps files of its own",
    ),
    (
        "SQLITE_CANTOPEN",
        "cannot be opened. See that the directory exists, that the process may write in it, and that it has not run "
        "out of file descriptors",
    ),
    (
        "SQLITE_PERM",
        "may not be opened. Give the process permission to read and write the file and its directory",
    ),
    (
        "SQLITE_BUSY",
        "is locked by a program that does not use this library, such as a shell or a backup. End its transaction, then "
        "try again",
    ),
    (
        "SQLITE_LOCKED",
        "is locked by a program that does not use this library. End its transaction, then try again",
    ),
    (
        "SQLITE_IOERR",
        "cannot be read or written: the system reports an input/output error. See its log, mend the disk, then try "
        "again",
    ),
    (
        "SQLITE_CONSTRAINT",
        "refuses the row: a value has a type that its column does not take, or the row is there already",
    ),
    (
        "SQLITE_TOOBIG",
        "refuses the row: a value is larger than SQLite stores. Keep it elsewhere and its address here",
    ),
)


def is_cut_off(error: BaseException) -> bool:
    """Tell whether a write failed, for want of room it may be, so that what was to be written is not all there."""
    return error_name(error) in _CUT_OFF


def error_name(error: BaseException) -> str:
    """Return the name of SQLite's extended error code; empty when the error does not come from SQLite itself.

    Python calls an extended code that it has not heard of ``unknown``; its last byte still is the primary one.
    """
    name: str = getattr(error, "sqlite_errorname", None) or ""
    if name == "unknown":
        return _PRIMARY_CODES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, name)
    return name


def describe(error: BaseException) -> str:
    """Return the error as SQLite, or Python, puts it."""
    return f"{error_name(error) or type(error).__name__}: {error}"


def explain(error: Exception, path: str, *, workflow_id: str | None = None, reading: bool = False) -> PersistenceError:
    """Build the error that a caller sees, to be raised from `error`.

    Args:
        error: What went wrong, from SQLite or on the way to it.
        path: The database file.
        workflow_id: The workflow that it happened to, where it is one.
        reading: Whether rows were being read: what cannot be decoded then is damage.
    """
    name = error_name(error)
    said = describe(error)
    if name == "SQLITE_CORRUPT":  # what SQLITE_IOERR_CORRUPTFS, a read that fails with EIO, is turned into as well
        return JournalCorruptError(
            f"{path!r} is damaged, or the disk failed to read it: SQLite says the same of both ({said}). Nothing was "
            "overwritten. See the system's log for input/output errors, and try again; or restore it from a backup.",
            workflow_id=workflow_id,
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        damage = "is not a SQLite database" if name == "SQLITE_NOTADB" else "is damaged"
        return JournalCorruptError(
            f"{path!r} {damage} ({said}). Nothing was overwritten; restore it from a backup, or use another path.",
            workflow_id=workflow_id,
        )
    if reading and not name and isinstance(error, sqlite3.OperationalError):  # text that is not UTF-8 has no code
        return JournalCorruptError(
            f"{path!r} is damaged: a text in it cannot be decoded ({said}). Nothing was overwritten; restore it from a "
            "backup.",
            workflow_id=workflow_id,
        )
    if name in _DISK_FULL:
        return PersistenceError(
            f"{path!r} cannot grow: no space is left on the disk, or the file-size limit of the process is reached "
            f"({said}). Nothing of this was stored. Make room, then try again: the store goes on by itself.",
            workflow_id=workflow_id,
        )
    for beginning, meaning in _MEANINGS:
        if name.startswith(beginning):
            return PersistenceError(f"{path!r} {meaning} ({said}).", workflow_id=workflow_id)
    return PersistenceError(f"{path!r} could not do what it was asked ({said}).", workflow_id=workflow_id)
