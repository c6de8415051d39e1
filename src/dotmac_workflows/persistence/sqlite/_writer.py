"""The two threads of a store: one writes, one reads, each with a connection that no other thread touches.

**Group commit.** A commit costs a flush of the disk, a hundred times the rest. So the writer takes everything that
waits and commits it in one transaction: one write alone pays for its own flush, a hundred at once share one. Each is
told its own outcome: a refused append has written nothing and the others stand. Should one fail in a way that is not a
refusal, all are rolled back and done again, each in a transaction of its own, so that only the culprit fails.

**A COMMIT that fails** has an unknown fate, not a bad one: after a failed flush the transaction may be in the log, and
a crash may bring it back. The connection is closed, another one opened, and the store asked what it holds. What is
found there is *sealed* before it is answered: another transaction and a complete checkpoint, so that what is there is
on the disk for good, and what is not there has been written over. (Where nothing was found since a write failed, and
there is no room to seal either, it is enough that the log ended in the middle of the transaction. It did not where
frames of an earlier use of the log stand: they may be what was to be written, to the letter.) While none of this works
it is tried again; at last the callers are told that nobody knows, and that the journal will tell.

**The log.** After a commit, still under the lock, a passive checkpoint is made whenever the write-ahead log has grown
past a mark; when nothing was written for a second, the log is emptied, once. Then the thread sleeps until there is
work: an idle store costs nothing.
"""

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ...errors import ConcurrencyError, LeaseLostError, PersistenceError
from ._calls import Call, Mailbox, deliver, start_thread
from ._failures import describe, explain, is_cut_off
from ._log import log_grows
from ._schema import SCHEMA_VERSION, Database
from ._statements import Write

_logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_MIB = 1024 * 1024
_LOG_MARK = 4 * _MIB
_LOG_STEP = _MIB
# A log that is reused from its start keeps its size, so the mark moves up behind it, and beyond this it is emptied.
_LOG_LIMIT = 16 * _MIB
_IDLE_SECONDS = 1.0
_CHECKPOINT_PATIENCE_MS = 200  # how long emptying the log waits for readers, with the lock in hand
_SETTLE_SECONDS = 30.0


class Open(Call[None]):
    """A wish to have the store open; opening it twice does nothing."""

    __slots__ = ()


class Close(Call[None]):
    """A wish to be told when everything is closed."""

    __slots__ = ()


class Read(Call[Result]):
    """Something to be read."""

    __slots__ = ("perform", "workflow_id")

    def __init__(self, perform: Callable[[sqlite3.Cursor], Result], workflow_id: str | None = None) -> None:
        super().__init__(certain=False)
        self.perform = perform
        self.workflow_id = workflow_id


class _SpoiltError(Exception):
    """A write failed in a way that is not a refusal; its transaction was rolled back."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class _CommitError(Exception):
    """The fate of the transaction is unknown."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class Reader:
    """The thread that reads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mailbox: Mailbox[Read[Any]] = Mailbox()
        self._connection: sqlite3.Connection | None = None
        self._known: int | str | None = None  # see Database.flush_what_others_left
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_thread("dotmac-workflows sqlite reader", self._run)

    def submit(self, read: Read[Any]) -> bool:
        """Have something read; False when the thread has been told to end."""
        return self._mailbox.put(read)

    def stop(self) -> None:
        """Finish what waits, close the connection, end the thread and wait for it."""
        self._mailbox.close()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._turn():
            pass
        self._drop_connection()

    def _turn(self) -> bool:
        read = self._mailbox.take()
        if read is None:
            return False
        try:
            self._answer(read)
        except PersistenceError as error:
            read.error = error
        except Exception as error:
            read.error = explain(error, self._database.path, workflow_id=read.workflow_id, reading=True)
            read.error.__cause__ = error
            self._drop_connection()
        deliver((read,))
        return True

    def _answer(self, read: Read[Any]) -> None:
        if self._connection is None:
            self._connection = self._database.open_reader()
        self._database.check_not_replaced()
        cursor = self._connection.cursor()
        try:
            read.result = read.perform(cursor)
        finally:
            cursor.close()  # see _close_connection
        self._known = self._database.flush_what_others_left(self._connection, self._known)

    def _drop_connection(self) -> None:
        connection, self._connection, self._known = self._connection, None, None
        if connection is not None:
            _close_connection(self._database, connection)


class Writer:
    """The thread that writes, opens and closes."""

    settle_seconds = _SETTLE_SECONDS
    """How long to find out what became of a commit that failed."""
    idle_seconds = _IDLE_SECONDS
    """For how long nothing is written before the log is emptied."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._reader = reader
        self._mailbox: Mailbox[Call[Any]] = Mailbox()
        self._connection: sqlite3.Connection | None = None
        self._known: int | str | None = None  # see Database.flush_what_others_left
        self._log_mark = _LOG_MARK
        self._log_is_used = False
        self._closing: list[Close] = []
        self._ended = False
        self._end_gate = threading.Lock()

    def start(self) -> None:
        """Start the thread, and the reader's."""
        self._reader.start()
        start_thread("dotmac-workflows sqlite writer", self._run)

    def submit(self, call: Write[Any] | Open) -> bool:
        """Have something written, or the store opened; False when the thread has been told to end."""
        return self._mailbox.put(call)

    def close(self, close: Close) -> None:
        """Write what waits, close everything, end the threads."""
        self._mailbox.close()
        with self._end_gate:
            if not self._ended:
                self._closing.append(close)
                return
        close.result = None
        deliver((close,))

    def abandon(self) -> None:
        """Like `close`, when nobody is left to wait for it."""
        self._mailbox.abandon()

    def _run(self) -> None:
        while self._turn():
            pass
        self._reader.stop()
        if self._connection is not None:
            self._empty_log()
            self._drop_connection()
        self._database.lock.close()
        with self._end_gate:
            self._ended = True
            for close in self._closing:
                close.result = None
        deliver(self._closing)
        self._closing.clear()

    def _turn(self) -> bool:
        """Do what waits; False at the end. Nothing is left in a variable, for the thread now sleeps for long."""
        try:
            first = self._mailbox.take(self.idle_seconds if self._log_is_used else None)
        except queue.Empty:
            self._empty_log()
            return True
        writes: list[Write[Any]] = []
        for call in (first, *self._mailbox.take_waiting()):
            if isinstance(call, Write):
                writes.append(call)
            elif call is not None:
                self._answer_open(call)
            else:
                self._commit_and_deliver(writes)
                return False
        self._commit_and_deliver(writes)
        return True

    def _commit_and_deliver(self, writes: list[Write[Any]]) -> None:
        if not writes:
            return
        try:
            self._commit(writes)
        except Exception as error:  # a thread that dies would leave everybody waiting
            _logger.exception("The store %s failed in a way that was not foreseen", self._database.path)
            self._fail(writes, error)
        deliver(writes)

    def _answer_open(self, call: Call[Any]) -> None:
        try:
            if self._connection is None:
                self._database.prepare()
                with self._database.lock:
                    self._connection = self._database.open()
            call.result = None
        except PersistenceError as error:
            call.error = error
        except Exception as error:
            call.error = explain(error, self._database.path)
            call.error.__cause__ = error
        deliver((call,))

    # Committing

    def _commit(self, writes: Sequence[Write[Any]]) -> None:
        try:
            self._transact(writes)
        except _SpoiltError as spoilt:
            if len(writes) == 1:
                self._fail(writes, spoilt.cause)
                return
            for write in writes:
                self._commit((write,))
        except _CommitError as failed:
            self._settle(writes, failed.cause)
        except PersistenceError as error:  # the lock is busy, or the file was replaced
            self._fail(writes, error)
        except Exception as error:
            self._fail(writes, error)
            self._drop_connection()

    def _transact(self, writes: Sequence[Write[Any]]) -> None:
        """Perform all in one transaction. On return it is durable, and each has its result or its refusal."""
        database = self._database
        with database.lock:
            connection = self._connection
            if connection is None:
                connection = self._connection = database.open()
            connection.execute("BEGIN IMMEDIATE")
            cursor = connection.cursor()
            try:
                database.check_not_replaced()
                self._known = database.flush_what_others_left(connection, self._known)
                for write in writes:
                    write.error = None
                    try:
                        write.result = write.perform(cursor)
                    except (ConcurrencyError, LeaseLostError) as refusal:
                        write.error = refusal
                    except Exception as error:
                        raise _SpoiltError(error) from error
            except BaseException:
                cursor.close()
                self._roll_back(connection)
                raise
            cursor.close()  # see _close_connection
            try:
                connection.execute("COMMIT")
                self._log_is_used = database.is_wal
                database.check_not_replaced()
                log_size = database.wal_size()
            except PersistenceError:  # the file was replaced: there is nothing to read back
                raise
            except Exception as error:
                raise _CommitError(error) from error
            self._keep_log_short(connection, log_size)

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:  # some errors roll back by themselves
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # Closing rolls back as well, and the next write opens another connection.
            _logger.warning("The store %s could not roll back; it is opened anew", self._database.path, exc_info=True)
            self._connection = self._known = None
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _fail(self, writes: Sequence[Write[Any]], error: Exception) -> None:
        """Tell each write why it is not stored; an error of its own for each, since each is raised somewhere else."""
        for write in writes:
            if isinstance(error, PersistenceError):
                write.error = type(error)(str(error), workflow_id=write.workflow_id)
            else:
                write.error = explain(error, self._database.path, workflow_id=write.workflow_id)
            write.error.__cause__ = error

    # A COMMIT that failed

    def _settle(self, writes: Sequence[Write[Any]], error: Exception) -> None:
        """Find out what became of a commit that failed, and answer by that; who was refused stays refused."""
        accepted = [write for write in writes if write.error is None]
        deadline = time.monotonic() + self.settle_seconds
        pause = 0.01
        while True:
            try:
                self._fail(self._missing_after_reopening(accepted, error), error)
                return
            except Exception as again:
                if self._database.is_replaced:
                    self._fail(accepted, again)
                    return
                if time.monotonic() + pause > deadline:
                    self._fail(accepted, self._unknown(error))
                    self._drop_connection()
                    return
                _logger.warning("What became of a commit could not be found out yet: %s", again)
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _missing_after_reopening(self, writes: Sequence[Write[Any]], error: Exception) -> list[Write[Any]]:
        """Return those of the writes that the store does not hold, for good."""
        with contextlib.ExitStack() as stack:
            if self._connection is not None and self._database.is_wal:
                # Closing the last connection deletes the -shm file, and a full disk has no room for another one.
                with contextlib.suppress(sqlite3.Error):
                    stack.enter_context(contextlib.closing(self._database.open_reader()))
            self._drop_connection()
            stack.enter_context(self._database.lock)
            connection = self._connection = self._database.open()
            cursor = stack.enter_context(contextlib.closing(connection.cursor()))  # see _close_connection
            missing = [write for write in writes if not write.has_landed(cursor)]
            cursor.close()
            self._seal(connection, lost_to=error if len(missing) == len(writes) else None)
            return missing

    def _seal(self, connection: sqlite3.Connection, *, lost_to: Exception | None) -> None:
        """Make what the store holds now what it holds after a crash too: see the module's docstring.

        Args:
            connection: Of the writer.
            lost_to: What the commit failed with, where nothing of it was found.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # writes the page, although nothing changes
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            is_left_over = self._database.is_wal and not log_grows(f"{self._database.path}-wal")
            if not _were_cut_off(lost_to, error) or is_left_over:
                raise
            self._roll_back(connection)
            return
        if not self._database.is_wal:
            return
        try:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            if not _were_cut_off(lost_to, error):
                raise
            return  # what was lost is written over
        if busy:
            raise PersistenceError(f"{self._database.path!r} is being read, and its log cannot be emptied.")

    def _unknown(self, error: Exception) -> PersistenceError:
        return PersistenceError(
            f"What became of a write to {self._database.path!r} could not be found out within {self.settle_seconds:g} "
            f"s ({describe(error)}): it may be stored or not. Mend the disk; the next verb reads the journal and goes "
            "on from what is there."
        )

    # The log

    def _keep_log_short(self, connection: sqlite3.Connection, size: int) -> None:
        """Checkpoint once the log is long; hold the lock. Its failing concerns nobody who waits for a commit."""
        if self._database.settings.wal_autocheckpoint:
            return
        if size < _LOG_MARK:
            self._log_mark = _LOG_MARK
        elif size >= self._log_mark:
            self._log_mark = size + _LOG_STEP
            self._checkpoint(connection, "TRUNCATE" if size >= _LOG_LIMIT else "PASSIVE")

    def _empty_log(self) -> None:
        self._log_is_used = False
        if self._connection is None or not self._database.is_wal:
            return
        try:
            with self._database.lock:
                self._database.check_not_replaced()
                self._checkpoint(self._connection, "TRUNCATE")
        except (PersistenceError, OSError) as error:  # if the lock is busy, whoever holds it will do the same
            _logger.debug("The log of %s was not emptied: %s", self._database.path, error)

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> None:
        patience = int(self._database.lock.time_limit * 1000)
        try:
            connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_PATIENCE_MS}")
            try:
                connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {patience}")
        except sqlite3.Error:
            _logger.warning("A checkpoint of %s failed; it will be tried again", self._database.path, exc_info=True)

    def _drop_connection(self) -> None:
        connection, self._connection, self._known = self._connection, None, None
        if connection is not None:
            _close_connection(self._database, connection)


def _were_cut_off(*errors: Exception | None) -> bool:
    return all(error is not None and is_cut_off(error) for error in errors)


def _close_connection(database: Database, connection: sqlite3.Connection) -> None:
    """Close under the lock, since closing the last connection of all processes makes a checkpoint.

    A cursor keeps its last statement, and SQLite keeps a connection, with its transaction and its locks, as long as
    there is one. So every cursor is closed before: the traceback of an error would keep it alive for long.
    """
    try:
        with contextlib.ExitStack() as stack:
            # Without the lock too: who has it has the file open, so that this is not the last connection.
            with contextlib.suppress(PersistenceError, OSError):
                stack.enter_context(database.lock)
            connection.close()
    except sqlite3.Error:
        _logger.warning("A connection to %s could not be closed", database.path, exc_info=True)
