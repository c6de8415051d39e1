"""What SQLite says in codes, said in words: by the code alone, to the letter."""

import sqlite3

import pytest

from dotmac_workflows import JournalCorruptError, PersistenceError
from dotmac_workflows.persistence.sqlite._failures import describe, error_name, explain, is_cut_off


def failure(name: str | None, code: int = 0, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("it said so")
    if name is not None:
        error.sqlite_errorname = name
        error.sqlite_errorcode = code
    return error


PATH = "orders.db"
GROWS = (
    "cannot grow: no space is left on the disk, or the file-size limit of the process is reached ({said}). Nothing of "
    "this was stored. Make room, then try again: the store goes on by itself."
)
WRITES = (
    "may be read but not written. Give the process write permission on the file and on its directory, where SQLite "
    "keeps files of its own ({said})."
)
OPENS = (
    "cannot be opened. See that the directory exists, that the process may write in it, and that it has not run out of "
    "file descriptors ({said})."
)
PERMITS = "may not be opened. Give the process permission to read and write the file and its directory ({said})."
BUSY = (
    "is locked by a program that does not use this library, such as a shell or a backup. End its transaction, then try "
    "again ({said})."
)
LOCKED = "is locked by a program that does not use this library. End its transaction, then try again ({said})."
BROKEN = (
    "cannot be read or written: the system reports an input/output error. See its log, mend the disk, then try again "
    "({said})."
)
REFUSED = "refuses the row: a value has a type that its column does not take, or the row is there already ({said})."
TOO_BIG = "refuses the row: a value is larger than SQLite stores. Keep it elsewhere and its address here ({said})."
OTHER = "could not do what it was asked ({said})."
DAMAGED = "is damaged ({said}). Nothing was overwritten; restore it from a backup, or use another path."
DAMAGED_OR_UNREAD = (
    "is damaged, or the disk failed to read it: SQLite says the same of both ({said}). Nothing was overwritten. See "
    "the system's log for input/output errors, and try again; or restore it from a backup."
)
NO_DATABASE = (
    "is not a SQLite database ({said}). Nothing was overwritten; restore it from a backup, or use another path."
)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("SQLITE_FULL", PersistenceError, GROWS),
        ("SQLITE_IOERR_WRITE", PersistenceError, GROWS),
        ("SQLITE_IOERR_SHMSIZE", PersistenceError, GROWS),
        ("SQLITE_READONLY", PersistenceError, WRITES),
        ("SQLITE_READONLY_DIRECTORY", PersistenceError, WRITES),
        ("SQLITE_CANTOPEN", PersistenceError, OPENS),
        ("SQLITE_CANTOPEN_ISDIR", PersistenceError, OPENS),
        ("SQLITE_PERM", PersistenceError, PERMITS),
        ("SQLITE_BUSY", PersistenceError, BUSY),
        ("SQLITE_BUSY_SNAPSHOT", PersistenceError, BUSY),
        ("SQLITE_LOCKED", PersistenceError, LOCKED),
        ("SQLITE_LOCKED_SHAREDCACHE", PersistenceError, LOCKED),
        ("SQLITE_IOERR", PersistenceError, BROKEN),
        ("SQLITE_IOERR_FSYNC", PersistenceError, BROKEN),
        ("SQLITE_CONSTRAINT_DATATYPE", PersistenceError, REFUSED),
        ("SQLITE_TOOBIG", PersistenceError, TOO_BIG),
        ("SQLITE_INTERRUPT", PersistenceError, OTHER),
        ("SQLITE_CORRUPT", JournalCorruptError, DAMAGED_OR_UNREAD),
        ("SQLITE_CORRUPT_INDEX", JournalCorruptError, DAMAGED),
        ("SQLITE_NOTADB", JournalCorruptError, NO_DATABASE),
    ],
)
@pytest.mark.parametrize("reading", [False, True])
@pytest.mark.parametrize("workflow_id", [None, "order-1"])
def test_a_code_is_said_in_words(
    name: str, kind: type[PersistenceError], text: str, reading: bool, workflow_id: str | None
) -> None:
    explained = explain(failure(name), PATH, workflow_id=workflow_id, reading=reading)
    assert type(explained) is kind
    assert str(explained) == f"{PATH!r} " + text.format(said=f"{name}: it said so")
    assert explained.workflow_id == workflow_id


def test_a_text_that_cannot_be_decoded_is_damage_only_while_rows_are_read() -> None:
    error = failure(None)
    explained = explain(error, PATH, workflow_id="order-1", reading=True)
    assert type(explained) is JournalCorruptError
    assert str(explained) == (
        f"{PATH!r} is damaged: a text in it cannot be decoded (OperationalError: it said so). Nothing was overwritten; "
        "restore it from a backup."
    )
    assert explained.workflow_id == "order-1"
    for other in (
        explain(error, PATH),
        explain(error, PATH, reading=False),
        explain(failure(None, kind=sqlite3.ProgrammingError), PATH, reading=True),
    ):
        assert type(other) is PersistenceError
    assert type(explain(failure("SQLITE_INTERRUPT"), PATH, reading=True)) is PersistenceError


def test_what_python_raises_is_said_as_python_has_it() -> None:
    explained = explain(OverflowError("too large"), PATH)
    assert type(explained) is PersistenceError
    assert str(explained) == f"{PATH!r} could not do what it was asked (OverflowError: too large)."
    assert explained.workflow_id is None
    assert describe(KeyError("a")) == "KeyError: 'a'"
    assert error_name(KeyError("a")) == ""


@pytest.mark.parametrize("name", ["BUSY", "CANTOPEN", "CONSTRAINT", "CORRUPT", "IOERR", "LOCKED", "READONLY"])
@pytest.mark.parametrize("extended", [0, 1, 255])
def test_of_a_code_that_python_has_not_heard_of_the_last_byte_counts(name: str, extended: int) -> None:
    code = getattr(sqlite3, f"SQLITE_{name}")
    error = failure("unknown", code | extended << 8)
    assert error_name(error) == f"SQLITE_{name}"
    assert describe(error) == f"SQLITE_{name}: it said so"


def test_a_code_that_nobody_has_heard_of_stays_unknown() -> None:
    assert error_name(failure("unknown", 99)) == "unknown"
    error = failure(None)
    error.sqlite_errorname = "unknown"
    assert error_name(error) == "unknown"


def test_a_write_that_was_cut_off_is_told_by_its_codes() -> None:
    cut_off = {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}
    for name in (*cut_off, "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR", "SQLITE_IOERR_READ", "SQLITE_BUSY", ""):
        assert is_cut_off(failure(name)) == (name in cut_off)
    assert not is_cut_off(OSError("No space left on device"))
