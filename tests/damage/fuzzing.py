"""What reads a journal that no engine wrote, and does with it what can be done: in errors of ours alone."""

import asyncio
import contextlib
import io
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from damage.rows import WORKFLOW_ID, Fuzzed, fuzz, has_digest, journals
from dotmac_workflows import (
    InMemoryPersistence,
    JournalCorruptError,
    JournalTooNewError,
    Persistence,
    ResultNotSerializableError,
    SQLitePersistence,
    WorkflowError,
    recover,
    verify,
)
from dotmac_workflows._run.journal import check_digests, header_of, read_state
from dotmac_workflows.cli import main as command_line
from dotmac_workflows.cli.exits import DONE, STORE, USAGE
from dotmac_workflows.persistence import Header, Record
from dotmac_workflows.status import WorkflowStatus
from dotmac_workflows.testing._judge import Violation
from dotmac_workflows.values import Codec
from scripted import Scripted

Result = TypeVar("Result")

STEPS = ["reserve", "book", "send"]
_PATIENCE = 60.0
"""In seconds; what takes longer hangs."""
_USED = 40
"""One of so many journals is used as well, in memory; of those that can be read more."""
_USED_IF_READ = 5
_STORED = 1000
"""And one of so many in a SQLite file, by the command line as well."""

_HEADER = Header(WORKFLOW_ID, "Order", WorkflowStatus.RUNNING, 0, None, 0, 0, 0)


class Order(Scripted):
    """What the golden journals are of: its steps all go well."""


class Untouchable(InMemoryPersistence):
    """Holds a journal that is damaged, and refuses every write: nobody may try one."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__()
        self._records[WORKFLOW_ID] = list(records)
        self._headers[WORKFLOW_ID] = _HEADER._replace(version=len(records))

    async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
        if how["expected_version"] == 0:  # of a fresh object, which has read nothing yet
            await super().append(workflow_id, records, **how)
        raise Violation("invariant 14: something was written to a journal that cannot be read")


class Fuzzer:
    """Makes changed journals one by one, each of its number alone, and sees what becomes of them."""

    def __init__(self, seed: str, directory: Path, runner: asyncio.Runner) -> None:
        self._seed = seed
        self._directory = directory
        self._runner = runner
        self._journals = journals()
        self._codec = Codec()
        self.rows = 0
        self.journals = 0
        self.outcomes: Counter[str] = Counter()
        """What became of the journals, by error."""
        self.verbs: Counter[str] = Counter()
        """What became of the verbs, by error."""

    def play(self, number: int) -> None:
        """Make a journal, and read it; use it as well, where its number says so.

        Raises:
            Violation: An error was none of ours, or something hung, or was written.
        """
        chance = random.Random(f"{self._seed}/{number}")
        fuzzed = fuzz(chance, self._journals)
        self.journals += 1
        self.rows += fuzzed.rows
        try:
            with no_hang():
                outcome = self._read(fuzzed)
                self.outcomes[outcome] += 1
                if number % (_USED_IF_READ if outcome == "read" else _USED) == 0:
                    self._run(self._use(fuzzed, chance))
                if number % _STORED == 0:
                    self._store(fuzzed, chance)
        except Violation as violation:
            raise Violation(f"{violation}\njournal {number}: {shown(fuzzed)}") from violation
        except BaseException as error:
            raise Violation(
                f"invariant 14: an error that is none of ours: {type(error).__name__}: {str(error)[:500]}\n"
                f"journal {number}: {shown(fuzzed)}"
            ) from error

    def _read(self, fuzzed: Fuzzed) -> str:
        """Read it, and return what it amounts to: the name of an error, or of a status."""
        try:
            check_digests(WORKFLOW_ID, fuzzed.records)
        except JournalCorruptError as error:
            if fuzzed.is_sealed:
                raise Violation("invariant 14: digests that are right are called wrong") from error
            return "damaged"
        if not fuzzed.is_sealed:
            raise Violation("invariant 14: a change was not noticed")
        try:
            state = read_state(WORKFLOW_ID, fuzzed.records, self._codec)
        except (JournalCorruptError, JournalTooNewError, ResultNotSerializableError) as error:
            if error.workflow_id != WORKFLOW_ID:
                raise Violation(f"invariant 14: the error does not say whose journal it is: {error!r}") from error
            return type(error).__name__
        header_of(state, 0)
        return "read"

    async def _use(self, fuzzed: Fuzzed, chance: random.Random) -> None:
        if not fuzzed.is_sealed:
            for verb in VERBS:
                await self._try(verb, Untouchable(fuzzed.records), JournalCorruptError)
            return
        store = InMemoryPersistence()
        header = _HEADER._replace(version=len(fuzzed.records))
        await store.append(WORKFLOW_ID, fuzzed.records, expected_version=0, header=header)
        for verb in chance.sample(VERBS, len(VERBS)):
            await self._try(verb, store)

    async def _try(self, verb: "Verb", store: InMemoryPersistence, due: type[WorkflowError] = WorkflowError) -> None:
        before = await store.read(WORKFLOW_ID)
        try:
            await verb(store)
        except due as error:
            self.verbs[type(error).__name__] += 1
            is_unreadable = isinstance(error, JournalCorruptError | JournalTooNewError)
            if is_unreadable and await store.read(WORKFLOW_ID) != before:
                raise Violation("invariant 14: something was written to a journal that cannot be read") from error
        else:
            self.verbs["done"] += 1
            if due is not WorkflowError:
                raise Violation("invariant 14: a verb made something of a journal that cannot be read")

    def _store(self, fuzzed: Fuzzed, chance: random.Random) -> None:
        """Put it into a file, as somebody would who has only SQLite, and use it there."""
        path = self._directory / "journals.db"
        for file in self._directory.iterdir():
            file.unlink()
        self._run(_make(path))
        rows = [record for record in fuzzed.records if has_digest(record)]
        with contextlib.closing(sqlite3.connect(path)) as database:
            header = (WORKFLOW_ID, "Order", "running", len(rows))
            database.execute("INSERT INTO workflows VALUES (?, ?, ?, ?, NULL, 0, 0, 0, NULL, NULL, NULL)", header)
            database.executemany(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?)", [(WORKFLOW_ID, *row) for row in rows]
            )
            database.commit()
        self._look(path)
        self._run(self._drive(path, chance))
        self._look(path)

    async def _drive(self, path: Path, chance: random.Random) -> None:
        for verb in chance.sample(VERBS, len(VERBS)):
            async with SQLitePersistence(path) as store:
                before = await _rows(store)
                try:
                    await verb(store)
                    self.verbs["done"] += 1
                except WorkflowError as error:
                    self.verbs[type(error).__name__] += 1
                    if isinstance(error, JournalCorruptError | JournalTooNewError) and await _rows(store) != before:
                        raise Violation(
                            "invariant 14: something was written to a journal that cannot be read"
                        ) from error

    def _look(self, path: Path) -> None:
        """Look at it by the command line, which writes nothing and ends in exit codes that were foreseen."""
        before = path.read_bytes()
        picture = str(path.parent / "picture.svg")
        for arguments in (["list"], ["show", WORKFLOW_ID], ["show", WORKFLOW_ID, "--svg", picture], ["verify"]):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = command_line([*arguments, "--db", str(path), "--debug"])
            self.verbs[f"{arguments[0]}: {code}"] += 1
            if code not in (DONE, USAGE, STORE):
                raise Violation(f"invariant 14: {arguments} ended with {code}: {err.getvalue()}")
        if path.read_bytes() != before:
            raise Violation("invariant 14: looking at it changed the file")

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)


async def _make(path: Path) -> None:
    async with SQLitePersistence(path):
        pass


async def _rows(store: SQLitePersistence) -> list[Record]:
    try:
        return await store.read(WORKFLOW_ID)
    except JournalCorruptError:
        return []


# What is tried

Verb = Callable[[Any], Coroutine[Any, Any, object]]


def _verb(name: str, *arguments: Any) -> Verb:
    async def act(store: Persistence) -> None:
        run = await Order.load(WORKFLOW_ID, store)
        repr(run)
        run.to_dict()
        assert run.execution_time is None or run.execution_time >= 0
        await getattr(run, name)(*arguments)

    return act


async def _load(store: Persistence) -> None:
    run = await Order.load(WORKFLOW_ID, store)
    run.to_mermaid()


async def _execute(store: Persistence) -> None:
    await Order(WORKFLOW_ID, STEPS, persistence=store).execute()


async def _recover(store: Persistence) -> None:
    for outcome in await recover(store, [Order]):
        if outcome.error is not None:
            raise outcome.error


async def _verify(store: Persistence) -> None:
    for problem in (await verify(store)).problems:
        raise problem


VERBS: tuple[Verb, ...] = (
    _load,
    _execute,
    _recover,
    _verify,
    _verb("approve"),
    _verb("reject"),
    _verb("approve_and_continue"),
    _verb("reject_and_cancel"),
    _verb("resume"),
    _verb("pause"),
    _verb("cancel"),
    _verb("retry"),
    _verb("retry_rollback"),
    _verb("skip_rollback", "book", "by hand"),
)


class Hang(BaseException):
    """Something takes for ever."""


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """End what takes too long, where there are signals for that."""
    if sys.platform == "win32":
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def shown(fuzzed: Fuzzed) -> str:
    """Return a journal as lines, each cut off where it is very long."""
    rows = (f"{row.seq} {row.kind!a:.80} {row.at} {row.body!a:.300} {row.digest!a:.10}" for row in fuzzed.records)
    return "\n".join(["digests made anew" if fuzzed.is_sealed else "digests left as they were", *rows])
