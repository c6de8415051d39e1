"""What users hold: the protocols of a backend over the two threads."""

import asyncio
import os
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from ...errors import PersistenceError, WorkflowConfigurationError
from ...status import WorkflowStatus
from .._protocol import Header, Lease, LeaseChange, Record
from .._refusals import check_append, check_limit
from ._calls import deliver
from ._schema import Database
from ._statements import Append, Delete, Renew, Write, check_integrity, find_headers, read_lease, read_records
from ._writer import Close, Open, Read, Reader, Writer

Result = TypeVar("Result")


class SQLitePersistence:
    """A backend in one SQLite file, durable at power loss, for any number of processes of one machine.

    It opens itself at its first use, so that one made before a fork, or before the event loop, is fine; ``async with``
    opens at once and closes at the end. One object serves several event loops. A program that ends without `close`
    loses nothing that was acknowledged.

    The file must be on a local disk. Beside it lie ``-wal`` and ``-shm`` while it is open, which belong to it (copy it
    with ``sqlite3.Connection.backup``, not as a file), and ``-lock``, which stays.

    All methods raise `PersistenceError` when the file cannot be used, which says why and what to do, and
    `JournalCorruptError` when it is damaged. After a disk is mended the same object goes on.

    Args:
        path: The file; created, readable for this user alone, when it is missing. Its directory must exist.

    Raises:
        WorkflowConfigurationError: The path is none that a file can have.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fspath(path)
        if given in ("", ":memory:"):
            raise WorkflowConfigurationError(
                f"SQLitePersistence({given!r}) names no file, and would keep nothing. For a store that ends with the "
                "process use InMemoryPersistence()."
            )
        if "\0" in given:
            raise WorkflowConfigurationError(f"SQLitePersistence({given!r}): no file name has a NUL in it.")
        self._database = Database(os.path.realpath(given))
        self._reader = Reader(self._database)
        self._writer = Writer(self._database, self._reader)
        self._starting = threading.Lock()
        self._process: int | None = None  # the one that the threads run in
        self._is_open = False
        self._unsent: dict[asyncio.AbstractEventLoop, list[Write[Any]]] = {}

    @property
    def path(self) -> str:
        """The file, absolute and without symbolic links."""
        return self._database.path

    def __repr__(self) -> str:
        return f"SQLitePersistence({self.path!r})"

    async def __aenter__(self) -> "SQLitePersistence":
        """Open the file now, so that what is wrong with it shows at the start."""
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See `close`."""
        await self.close()

    async def close(self) -> None:
        """Finish the writes that wait, fold the log into the file, and close it; a second time does nothing."""
        self._check_process()
        close = Close(certain=True)
        self._send(close.loop)
        with self._starting:
            if self._process is None:  # never used; nothing to close, only to refuse from now on
                self._start()
            self._writer.close(close)
        await close.outcome()

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        """See `Persistence.append`. A task that is cancelled meanwhile raises only once the outcome is known."""
        check_append(workflow_id, records, expected_version, header)
        if not self._is_open or self._process != os.getpid():
            await self._open()
        await self._write(Append(workflow_id, records, expected_version, header, lease))

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        """See `Persistence.read`.

        Raises:
            JournalCorruptError: Records are missing.
        """
        return await self._read(Read(partial(read_records, workflow_id=workflow_id, after=after), workflow_id))

    async def delete(self, workflow_id: str) -> bool:
        """See `Persistence.delete`."""
        await self._open()
        return await self._write(Delete(workflow_id))

    async def lease(self, workflow_id: str) -> Lease | None:
        """See `Leases.lease`."""
        return await self._read(Read(partial(read_lease, workflow_id=workflow_id), workflow_id))

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        """See `Leases.renew`."""
        await self._open()
        return await self._write(Renew(workflow_id, token, expires_at))

    async def find(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str | None = None,
        due_before: int | None = None,
        after: Header | None = None,
        limit: int = 100,
    ) -> list[Header]:
        """See `Queries.find`."""
        check_limit(limit)
        page = partial(
            find_headers,
            status=status,
            workflow_type=workflow_type,
            due_before=due_before,
            after=after,
            limit=limit,
        )
        return await self._read(Read(page))

    async def check(self) -> None:
        """See `Checks.check`: SQLite's own check, of indexes and all. A journal's digests are checked by `verify`."""
        await self._read(Read(partial(check_integrity, path=self.path)))

    async def _open(self) -> None:
        self._check_process()
        if self._is_open:
            return
        call = Open(certain=False)
        with self._starting:
            if self._process is None:
                self._start()
            if not self._writer.submit(call):
                raise self._closed()
        await call.outcome()
        self._is_open = True

    def _start(self) -> None:
        self._process = os.getpid()
        self._writer.start()
        # The threads hold the writer, not this object: when nobody holds this object, they end.
        weakref.finalize(self, self._writer.abandon).atexit = False

    async def _write(self, write: Write[Result]) -> Result:
        """Have something written, in one commit with all that tasks ask for in the same turn of the event loop.

        The writer would begin with the first of them, and the others would have to wait for the next flush.
        """
        unsent = self._unsent.get(write.loop)
        if unsent is None:
            self._unsent[write.loop] = [write]
            write.loop.call_soon(self._send, write.loop)
        else:
            unsent.append(write)
        return await write.outcome()

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        for write in self._unsent.pop(loop, ()):
            if not self._writer.submit(write):
                write.error = self._closed()
                deliver((write,))

    async def _read(self, read: Read[Result]) -> Result:
        await self._open()
        if not self._reader.submit(read):
            raise self._closed()
        return await read.outcome()

    def _check_process(self) -> None:
        if self._process is not None and self._process != os.getpid():
            raise PersistenceError(
                f"{self!r} was opened by process {self._process}, before a fork; SQLite's connections and locks do not "
                f"outlive one. Make a new SQLitePersistence in this process ({os.getpid()})."
            )

    def _closed(self) -> PersistenceError:
        return PersistenceError(f"{self!r} is closed. Make a new one.")
