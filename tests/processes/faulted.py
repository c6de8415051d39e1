"""What a process does that brings orders to their end while its store cannot do what it should.

It says on its output what happens, a line each: what its store told it (see `telling`), ``error WORKFLOW WORDS`` for
what an order was told, ``stale WORKFLOW`` for an append that was begun when the file was gone and acknowledged all the
same, ``counted NUMBER`` for the system calls there were, and ``fired WHERE`` once the fault has come.
"""

import asyncio
import ctypes
import errno
import json
import os
from collections.abc import Awaitable, Callable
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import NamedTuple

from crash_simulation import Script
from dotmac_workflows import JournalCorruptError, PersistenceError, verify
from dotmac_workflows.persistence.sqlite import _writer
from processes.disks import Disk, disk_of
from processes.nursery import say
from processes.orders import Ledger, Order, bring_to_its_end, from_json
from processes.telling import TellingStore

SOURCE = Path(__file__).with_name("failing_calls.c")
AT_ONCE = 2
"""How many orders are driven at once; the others come after them."""
TRIES = 4
"""How many times something is tried, for an outage may fail the several things that go on at once."""


class Calls(IntFlag):
    """Which system calls a plan counts; as in ``failing_calls.c``."""

    READS = 1
    WRITES = 2
    SYNCS = 4
    LOCKS = 8
    OPENS = 16
    NAMES = 32
    LOOKS = 64
    MAPS = 128
    CREATES = 256
    UNLOCKS = 512
    RECORD_LOCKS = 1024


class What(IntEnum):
    """What happens at the call; as in ``failing_calls.c``."""

    FAIL = 0
    SHORT = 1
    """Half of it is written."""
    MOVE = 2
    """The database is moved away."""
    REPLACE = 3
    """Another database takes its place."""
    MOVE_LOG = 4
    """The write-ahead log is moved away."""


class Plan(NamedTuple):
    """What fails, and what becomes of the process."""

    name: str
    error: int = 0
    """The error number."""
    calls: int = sum(Calls)
    """Which calls are counted, of `Calls`."""
    lasts: bool = False
    """Whether those after it fail as well."""
    what: int = What.FAIL
    then: str = "goes on"
    """What the process does when it is told of an error: it ``goes on``, ``mends`` the fault and goes on, ``reopens``
    the store and goes on, or ``dies``."""

    @property
    def meddles(self) -> bool:
        """Whether nothing fails, but a file is taken away."""
        return self.what >= What.MOVE


class Fault:
    """System calls that fail, by a library that is loaded before the C library."""

    def __init__(self, library: str, database: str, at: int, plan: Plan) -> None:
        self._library = ctypes.CDLL(library)
        self._library.calls_fired_at.restype = ctypes.c_char_p
        self._library.calls_watch(database.encode())
        self._library.calls_fail(at, plan.error, plan.calls, int(plan.lasts), plan.what)

    @property
    def has_come(self) -> bool:
        """Whether the call was made."""
        return bool(self._library.calls_has_fired())

    def note_error(self) -> None:
        """Note that something was told an error."""

    def mend(self) -> None:
        """Let no more calls fail."""
        self._library.calls_mend()

    def say_where(self) -> None:
        """Say how many calls there were so far, and at which one it happened, if it did."""
        say(f"counted {self._library.calls_counted()}")
        if self.has_come:
            say(f"fired {self._library.calls_fired_at().decode()}")


class FullDisk:
    """No room beyond some pages, from the beginning on."""

    def __init__(self, disk: Disk, pages: int) -> None:
        self._disk = disk
        self._pages = pages
        self.has_come = False
        disk.limit(pages)

    def note_error(self) -> None:
        """Note that there was no room."""
        self.has_come = True

    def mend(self) -> None:
        """Make room."""
        self._disk.make_room()

    def say_where(self) -> None:
        """Say whether the disk was full."""
        say(f"counted {self._pages}")
        if self.has_come:
            say(f"fired {self._disk.name}")


class FaultedStore(TellingStore):
    """Says so when something is acknowledged that was begun in a file that was gone."""

    def __init__(self, path: str, fault: Fault | FullDisk) -> None:
        super().__init__(path)
        self._fault = fault
        self.must_notice = False
        """Whether an append that is begun once the fault has come must fail."""

    def begin(self, workflow_id: str) -> Callable[[], None]:
        """See `TellingStore.begin`."""
        gone = self.must_notice and self._fault.has_come
        return lambda: say(f"stale {workflow_id}") if gone else None


async def main(how: str, database: str, ledger: str, at: str, plan: str, scripts: str) -> None:
    """Bring all to its end, as far as that goes.

    Args:
        how: What ``failing_calls.c`` became, or a kind of disk that is full (see `disks`).
        database: The file of the store.
        ledger: The file of the effects.
        at: The number of the call, from 1, or how many pages there is room for.
        plan: What happens at it, a `Plan` as JSON.
        scripts: The orders, as `to_json` wrote them.
    """
    planned, disk = Plan(*json.loads(plan)), disk_of(how, Path(database).parent)
    fault = FullDisk(disk, int(at)) if disk is not None else Fault(how, database, int(at), planned)
    Order.ledger = Ledger(ledger)
    Order.say = staticmethod(say)
    # Checkpoints after a few commits, and no patience, or a lasting fault would take minutes.
    _writer._LOG_MARK, _writer._LOG_STEP, _writer._LOG_LIMIT = 16_384, 16_384, 131_072
    process = Process(fault, planned)
    for _ in range(TRIES):
        if await process.work(database, from_json(scripts)):
            break
    else:
        process.give_up("it")
    fault.say_where()


class Process:
    """How this process takes its fault."""

    def __init__(self, fault: Fault | FullDisk, plan: Plan) -> None:
        self._fault = fault
        self._plan = plan
        self._reopen = False

    async def work(self, database: str, scripts: dict[str, Script]) -> bool:
        """Bring all to its end and look at it; False: the store has to be opened anew for that."""
        store = FaultedStore(database, self._fault)
        store._writer.settle_seconds = 0.05
        store._database.lock.time_limit = 0.1
        self._reopen = False
        await self._bear(store.__aenter__)
        say(f"opened {'late' if self._fault.has_come else 'early'}")
        store.must_notice = self._plan.meddles and not self._fault.has_come
        orders = list(scripts.items())
        for batch in (orders[:AT_ONCE], orders[AT_ONCE:]):
            await asyncio.gather(*(self._bring(workflow_id, script, store) for workflow_id, script in batch))
        await self._bear(store.find)
        await self._bear(lambda: verify(store))
        await store.close()
        return not self._reopen

    def give_up(self, what: str) -> None:
        """Say that something cannot be done, and raise."""
        self._fault.say_where()
        raise AssertionError(f"{what} could not be done in {TRIES} tries")

    def _may_seem_damaged(self, error: JournalCorruptError) -> bool:
        """Tell whether a file that is not damaged may be said to be: SQLite takes a read that fails for damage."""
        return self._plan.meddles or (self._plan.error == errno.EIO and "or the disk failed to read it" in str(error))

    async def _bring(self, workflow_id: str, script: Script, store: FaultedStore) -> None:
        """Bring an order to its end, and take it up again where an error kept it from that."""
        await self._bear(lambda: bring_to_its_end(workflow_id, script, store), workflow_id)

    async def _bear(self, act: Callable[[], Awaitable[object]], about: str = "-") -> None:
        """Do something until it can be done; only an error that the store has a name for may keep it from that."""
        for _ in range(TRIES):
            if self._reopen:
                return
            try:
                await act()
                return
            except PersistenceError as error:
                if isinstance(error, JournalCorruptError) and not self._may_seem_damaged(error):
                    self._fault.say_where()
                    raise
                say(f"error {about} {type(error).__name__} {error}")
            self._fault.note_error()
            if self._plan.then == "dies":
                self._fault.say_where()
                os._exit(0)
            if self._plan.then == "mends":
                self._fault.mend()
            self._reopen = self._plan.then == "reopens"
        if not self._reopen:
            self.give_up(about)
