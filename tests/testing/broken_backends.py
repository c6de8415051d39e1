"""Backends that each make one mistake that an author would make, and the clauses of the contract that say so.

Most are `InMemoryPersistence` with a fault. Where the fault lies between two awaits, an ``await pause()`` stands for
the round trip to a database.
"""

import asyncio
import contextlib
import json
import os
import threading
import time
import unicodedata
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dotmac_workflows.errors import ConcurrencyError, JournalCorruptError, LeaseLostError, PersistenceError
from dotmac_workflows.persistence import (
    Header,
    InMemoryPersistence,
    Lease,
    LeaseChange,
    Persistence,
    Record,
)
from dotmac_workflows.status import WorkflowStatus

BREAKS: dict[type, str] = {}
"""Each broken backend, and the clause that names its fault: the first one that does not hold."""
KILLED: dict[type, str] = {}
"""Those whose fault shows only where a process is killed."""

Kind = TypeVar("Kind", bound=type)
Answer = TypeVar("Answer")


def breaks(clause: str, table: dict[type, str] = BREAKS) -> Callable[[Kind], Kind]:
    def note(kind: Kind) -> Kind:
        table[kind] = clause
        return kind

    return note


def sharing(kind: type[Any]) -> Callable[[str], Persistence]:
    """Make a factory whose stores outlive their handles."""
    disk: dict[str, dict[str, Any]] = {}

    def open_store(name: str) -> Persistence:
        store: Persistence = kind()
        fields = vars(getattr(store, "inner", store))
        fields.update(disk.setdefault(name, {field: fields[field] for field in ("_records", "_headers", "_leases")}))
        return store

    return open_store


async def pause() -> None:
    """Wait as for a round trip."""
    await asyncio.sleep(0)


async def finished(call: Coroutine[Any, Any, Answer]) -> Answer:
    """Await a call to its end, and let a cancellation go on only then: as it should be."""
    task = asyncio.ensure_future(call)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


class Append(NamedTuple):
    """What an append is asked to do."""

    workflow_id: str
    records: Sequence[Record]
    version: int
    header: Header
    lease: LeaseChange | None


class Told(InMemoryPersistence):
    """Takes an append as one thing, so that the faults below are short; right as it stands."""

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        await self.appends(Append(workflow_id, records, expected_version, header, lease))

    async def appends(self, append: Append) -> None:
        await super().append(
            append.workflow_id,
            append.records,
            expected_version=append.version,
            header=append.header,
            lease=append.lease,
        )

    # The parts of it, for those that do it themselves.

    def compare(self, append: Append) -> None:
        self.check_version(append)
        if append.lease is not None:
            self._check_lease(append.workflow_id, append.lease.replaces)

    def check_version(self, append: Append) -> None:
        if self.stored(append.workflow_id) != append.version:
            raise ConcurrencyError("It is at another version.", workflow_id=append.workflow_id)

    def stored(self, workflow_id: str) -> int:
        return len(self._records.get(workflow_id, ()))

    def write(self, append: Append) -> None:
        self._records.setdefault(append.workflow_id, []).extend(append.records)
        self._headers[append.workflow_id] = append.header
        if append.lease is not None and append.lease.expires_at is None:
            self._leases.pop(append.workflow_id, None)
        elif append.lease is not None and append.lease.expires_at is not None:
            self._leases[append.workflow_id] = Lease(append.lease.owner, append.lease.token, append.lease.expires_at)


@breaks("of many writers on many handles one wins")
class LocksTheHandle(Told):
    """Keeps the tasks of one handle apart, by a lock in it, and those of another one from nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = asyncio.Lock()

    async def appends(self, append: Append) -> None:
        await finished(self._append(append))

    async def _append(self, append: Append) -> None:
        async with self._lock:
            self.compare(append)
            await self.write_slowly(append)

    async def write_slowly(self, append: Append) -> None:
        await pause()
        self.write(append)

    async def delete(self, workflow_id: str) -> bool:
        return await finished(self._delete(workflow_id))

    async def _delete(self, workflow_id: str) -> bool:
        async with self._lock:
            return await super().delete(workflow_id)


# What is stored, and how it comes back.


class Bare:
    """The three methods and no more; right as it stands."""

    def __init__(self) -> None:
        self.inner = InMemoryPersistence()

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        await self.inner.append(workflow_id, records, expected_version=expected_version, header=header)

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return await self.inner.read(workflow_id, after=after)

    async def delete(self, workflow_id: str) -> bool:
        return await self.inner.delete(workflow_id)


@breaks("the capabilities that it claims are whole")
class HalfOfLeases(Bare):
    """Tells whose a run is, and cannot renew it."""

    async def lease(self, workflow_id: str) -> Lease | None:
        return None


@breaks("a new store is empty, and a store of its own")
class FailsOnUnknownIds(Told):
    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return self._records[workflow_id][after:]


@breaks("rows come back as they were given")
class PlainTuples(Told):
    """Hands out the rows of its database driver."""

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return [tuple(record) for record in await super().read(workflow_id, after=after)]  # type: ignore[misc]


@breaks("rows come back as they were given")
class Milliseconds(Told):
    """Keeps instants as its database does."""

    async def appends(self, append: Append) -> None:
        records = [record._replace(at=record.at // 1000 * 1000) for record in append.records]
        await super().appends(append._replace(records=records))


@breaks("rows come back as they were given")
class ParsesBodies(Told):
    """Keeps bodies as JSON, which comes back with other blanks."""

    async def appends(self, append: Append) -> None:
        records = [record._replace(body=json.dumps(json.loads(record.body))) for record in append.records]
        await super().appends(append._replace(records=records))


@breaks("read gives what comes after")
class ReadsFromAfter(Told):
    """Selects by ``seq >= after``."""

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return await super().read(workflow_id, after=max(0, after - 1))


@breaks("a long journal is read whole")
class ReadsOnePage(Told):
    """Hands out the first page of what its database gives."""

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return (await super().read(workflow_id, after=after))[:1000]


@breaks("an append with a lease stores its records")
class RefusesLeases(Bare):
    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        if lease is not None:
            raise NotImplementedError("no leases here")
        await super().append(workflow_id, records, expected_version=expected_version, header=header)


@breaks("an append without records is one too")
class ReturnsEarly(Told):
    async def appends(self, append: Append) -> None:
        if append.records:
            await super().appends(append)


@breaks("an append replaces the header")
class KeepsTheFirstHeader(Told):
    """INSERT OR IGNORE."""

    async def appends(self, append: Append) -> None:
        first = self._headers.get(append.workflow_id, append.header)
        await super().appends(append)
        self._headers[append.workflow_id] = first


@breaks("ids and texts of any script stay apart")
class NormalisesIds(Told):
    async def appends(self, append: Append) -> None:
        workflow_id = unicodedata.normalize("NFC", append.workflow_id)
        header = append.header._replace(workflow_id=workflow_id)
        await super().appends(append._replace(workflow_id=workflow_id, header=header))

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return await super().read(unicodedata.normalize("NFC", workflow_id), after=after)


@breaks("a large body comes back whole")
class CutsBodies(Told):
    """A TEXT column of MySQL takes 65,535 bytes, and cuts the rest where it is not strict."""

    async def appends(self, append: Append) -> None:
        records = [record._replace(body=record.body[:65_535]) for record in append.records]
        await super().appends(append._replace(records=records))


@breaks("a large body comes back whole")
class TakesSmallItems(Told):
    """As some key-value stores do."""

    async def appends(self, append: Append) -> None:
        if any(len(record.body) > 400 * 1024 for record in append.records):
            raise PersistenceError("The item is too large.", workflow_id=append.workflow_id)
        await super().appends(append)


@breaks("what a reader was given is the reader's")
class HandsOutItsList(Told):
    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        stored = self._records.get(workflow_id, [])
        return stored[after:] if after else stored


@breaks("a deleted workflow is forgotten")
class DeleteLeavesTheLease(Told):
    async def delete(self, workflow_id: str) -> bool:
        held = self._leases.get(workflow_id)
        found = await super().delete(workflow_id)
        if held is not None:
            self._leases[workflow_id] = held
        return found


@breaks("a deleted workflow is forgotten")
class DeleteLeavesTheHeader(Told):
    async def delete(self, workflow_id: str) -> bool:
        kept = self._headers.get(workflow_id)
        found = await super().delete(workflow_id)
        if kept is not None:
            self._headers[workflow_id] = kept
        return found


@breaks("a deleted workflow is forgotten")
class DeletesByPrefix(Told):
    """Keys are ``journal:<id>*``, and so is the pattern that is deleted."""

    async def delete(self, workflow_id: str) -> bool:
        return any([await super(DeletesByPrefix, self).delete(key) for key in self.keys(workflow_id)])

    def keys(self, workflow_id: str) -> list[str]:
        return [key for key in self._records if key.startswith(workflow_id)]


@breaks("check finds nothing in a store that is well")
class ChecksSomethingElse(Told):
    async def check(self) -> None:
        if self._records:
            raise JournalCorruptError("Not empty.")


# What is refused.


@breaks("a duplicate append is refused")
class IgnoresDuplicates(Told):
    """INSERT OR IGNORE: what is there already needs no second time."""

    async def appends(self, append: Append) -> None:
        if append.records and append.version < self.stored(append.workflow_id):
            return
        await super().appends(append)


@breaks("an append out of order is refused")
class AcceptsGaps(Told):
    """Refuses only what lies behind."""

    async def appends(self, append: Append) -> None:
        if append.version > self.stored(append.workflow_id):
            self.write(append)
        else:
            await super().appends(append)


@breaks("a duplicate append is refused")
class RaisesItsOwnError(Told):
    async def appends(self, append: Append) -> None:
        try:
            await super().appends(append)
        except ConcurrencyError as error:
            raise KeyError(f"{append.workflow_id} has no row of version {append.version}") from error


@breaks("a refused append leaves nothing")
class HeaderFirst(Told):
    """Writes the header in a transaction of its own."""

    async def appends(self, append: Append) -> None:
        if append.workflow_id in self._headers:
            self._headers[append.workflow_id] = append.header
        await super().appends(append)


@breaks("a refused append leaves nothing")
class MakesAnEmptyJournal(Told):
    """`setdefault`, and then the look at the version."""

    async def appends(self, append: Append) -> None:
        self._records.setdefault(append.workflow_id, [])
        await super().appends(append)


@breaks("an append that fails midway leaves nothing")
class RowByRow(Told):
    """Each row is a statement of its own, without a transaction around them."""

    async def appends(self, append: Append) -> None:
        self.compare(append)
        for n, record in enumerate(append.records, 1):
            record.body.encode()
            row = append._replace(records=[record], header=append.header._replace(version=append.version + n))
            self.write(row)
            append = append._replace(lease=None)
        self.write(append._replace(records=[]))


# Many at once.


@breaks("of many writers one wins")
class LooksThenWrites(Told):
    """SELECT, then INSERT."""

    async def appends(self, append: Append) -> None:
        self.compare(append)
        await pause()
        self.write(append)


@breaks("one refused append does not touch its neighbours")
class FailsTheBatch(Told):
    """Commits what comes together together, and one that is refused fails all."""

    def __init__(self) -> None:
        super().__init__()
        self._batch: list[Append] = []
        self._committed: asyncio.Future[None] | None = None

    async def appends(self, append: Append) -> None:
        self._batch.append(append)
        if self._committed is None:
            self._committed = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self._commit)
        await asyncio.shield(self._committed)

    def _commit(self) -> None:
        (batch, self._batch), (committed, self._committed) = (self._batch, []), (self._committed, None)
        assert committed is not None
        try:
            for append in batch:
                self.compare(append)
        except PersistenceError as error:
            committed.set_exception(error)
            return
        for append in batch:
            self.write(append)
        committed.set_result(None)


@breaks("a reader never sees half an append")
class ReadsBesideTheLock(LocksTheHandle):
    """Writers keep each other out, and nobody keeps out readers."""

    async def write_slowly(self, append: Append) -> None:
        for record in append.records:
            self._records.setdefault(append.workflow_id, []).append(record)
            await pause()
        self.write(append._replace(records=[]))


@breaks("a workflow that is deleted while it is written stays deleted")
class RemembersVersions(Told):
    """Keeps the version of what it has seen, to spare a query, and forgets to forget it."""

    def __init__(self) -> None:
        super().__init__()
        self._versions: dict[str, int] = {}

    def stored(self, workflow_id: str) -> int:
        return self._versions.get(workflow_id, super().stored(workflow_id))

    async def appends(self, append: Append) -> None:
        if append.version:
            self.compare(append)
            self.write(append)
        else:
            await super().appends(append)
        self._versions[append.workflow_id] = append.header.version


# Cancelled tasks.


class Remote(Told):
    """Writes over a connection, where the answer takes its time; right as it stands."""

    def __init__(self) -> None:
        super().__init__()
        self._connection = asyncio.Lock()

    async def wait_for(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for a write."""
        return await finished(call)

    async def _send(self, write: Coroutine[Any, Any, Answer]) -> Answer:
        async with self._connection:
            for _ in range(5):
                await pause()
            answer = await write
            await pause()
            return answer

    async def appends(self, append: Append) -> None:
        await self.wait_for(self._send(super().appends(append)))

    async def delete(self, workflow_id: str) -> bool:
        return await self.wait_for(self._send(super().delete(workflow_id)))

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        return await self.wait_for(self._send(super().renew(workflow_id, token, expires_at)))


@breaks("a cancelled write is done or not, and that is settled")
class ShieldsAndLeaves(Remote):
    """`asyncio.shield` alone: the write goes on, and nobody waits for it."""

    async def wait_for(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return await asyncio.shield(call)


@breaks("a cancelled write is done or not, and that is settled")
class WaitsOnce(Remote):
    """Waits for the outcome, until it is cancelled a second time."""

    async def wait_for(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        task = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.shield(task)
            raise


@breaks("a cancelled write is done or not, and that is settled")
class InAThread(Told):
    """`asyncio.to_thread` alone."""

    _lock = threading.Lock()

    async def appends(self, append: Append) -> None:
        def write() -> None:
            with self._lock:
                self.compare(append)
                time.sleep(0.002)  # the disk
                self.write(append)

        await asyncio.to_thread(write)

    async def delete(self, workflow_id: str) -> bool:
        with self._lock:
            return await super().delete(workflow_id)


@breaks("a cancelled write is done or not, and that is settled")
class HalfWrittenWhenCancelled(LocksTheHandle):
    """Records first, then the header: a cancelled task goes between the two."""

    async def appends(self, append: Append) -> None:
        async with self._lock:
            self.compare(append)
            self._records.setdefault(append.workflow_id, []).extend(append.records)
            await pause()
            self.write(append._replace(records=[]))


@breaks("a cancellation goes on")
class SwallowsCancellation(Remote):
    async def wait_for(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        task = asyncio.ensure_future(call)
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        return task.result()


@breaks("the store goes on after a cancellation")
class KeepsTheLock(LocksTheHandle):
    """Lets go of its lock only where all goes well."""

    async def appends(self, append: Append) -> None:
        await self._lock.acquire()
        try:
            await pause()
            self.compare(append)
            self.write(append)
        except Exception:
            self._lock.release()
            raise
        self._lock.release()


# Leases.


@breaks("a lease is stored with its append")
class ForgetsTheLease(Told):
    """Takes None for no lease."""

    async def appends(self, append: Append) -> None:
        await super().appends(append)
        if append.lease is None:
            self._leases.pop(append.workflow_id, None)


@breaks("a lease is changed only where it replaces the one in place")
class IgnoresReplaces(Told):
    """Stores whatever lease comes."""

    async def appends(self, append: Append) -> None:
        await super().appends(append._replace(lease=None))
        if append.lease is not None:
            self.write(append._replace(records=[]))


@breaks("nobody lets go of another's lease")
class LetsAnybodyGo(Told):
    """Compares where a lease is taken, and not where it is let go."""

    async def appends(self, append: Append) -> None:
        if append.lease is not None and append.lease.expires_at is None:
            await super().appends(append._replace(lease=None))
            self._leases.pop(append.workflow_id, None)
        else:
            await super().appends(append)


@breaks("leases are compared by their token alone")
class ComparesOwners(Told):
    """Lets whoever is of the owner's process replace its lease."""

    async def appends(self, append: Append) -> None:
        held = self._leases.get(append.workflow_id)
        if held is not None and append.lease is not None and held.owner == append.lease.owner:
            append = append._replace(lease=append.lease._replace(replaces=held.token))
        await super().appends(append)


@breaks("an expired lease stays in place")
class LetsLeasesExpire(Told):
    """A TTL on the key."""

    async def appends(self, append: Append) -> None:
        await super().appends(append)
        held = self._leases.get(append.workflow_id)
        if held is not None and held.expires_at < 1000:  # what the tests take for now
            del self._leases[append.workflow_id]


@breaks("a wrong version is told before a lost lease")
class ComparesTheLeaseFirst(Told):
    async def appends(self, append: Append) -> None:
        if append.lease is not None:
            self._check_lease(append.workflow_id, append.lease.replaces)
        await super().appends(append)


@breaks("a lease is renewed by its holder alone")
class RenewsForAnybody(Told):
    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        held = self._leases.get(workflow_id)
        if held is None:
            raise LeaseLostError("There is no lease.", workflow_id=workflow_id)
        return await super().renew(workflow_id, held.token, expires_at)


@breaks("a lease is renewed by its holder alone")
class RenewMakesALease(Told):
    """INSERT OR REPLACE."""

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        held = self._leases.setdefault(workflow_id, Lease(f"owner of {token}", token, expires_at))
        return await super().renew(workflow_id, token, expires_at) if held.token == token else self._refuse()

    def _refuse(self) -> int:
        raise LeaseLostError("It is another's.")


@breaks("renew gives the stored version")
class RenewGivesAnOldVersion(Told):
    """Keeps the version beside the lease, where only appends with a lease change it."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, int] = {}

    async def appends(self, append: Append) -> None:
        await super().appends(append)
        if append.lease is not None:
            self._seen[append.workflow_id] = append.header.version

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        stored = await super().renew(workflow_id, token, expires_at)
        return self._seen.get(workflow_id, stored)


@breaks("a stale lease changes nothing")
class KnowsTokensForEver(Told):
    """Takes whoever ever held the lease for its holder."""

    def __init__(self) -> None:
        super().__init__()
        self._holders: dict[str, set[str]] = {}

    async def appends(self, append: Append) -> None:
        held, holders = self._leases.get(append.workflow_id), self._holders.setdefault(append.workflow_id, set())
        if held is not None and append.lease is not None and append.lease.replaces in holders:
            append = append._replace(lease=append.lease._replace(replaces=held.token))
        await super().appends(append)
        if append.lease is not None:
            holders.add(append.lease.token)


@breaks("of many who take a lease one gets it")
class TakesTheLeaseAfterwards(Told):
    """Compares the version in one statement with the write, and the lease by a query before."""

    async def appends(self, append: Append) -> None:
        self.compare(append)
        await finished(pause())
        self.check_version(append)
        self.write(append)


@breaks("a renewal never undoes what comes meanwhile")
class RenewWritesTheRowBack(Told):
    """Reads the lease, and writes back what it has read."""

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        self._check_lease(workflow_id, token)
        held, stored = self._leases[workflow_id], self.stored(workflow_id)
        await finished(pause())
        self._leases[workflow_id] = held._replace(expires_at=expires_at)
        return stored


# Queries.


class Finds(Told):
    """Passes find on, with arguments that can be changed."""

    async def find(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str | None = None,
        due_before: int | None = None,
        after: Header | None = None,
        limit: int = 100,
    ) -> list[Header]:
        return await self.finds(
            {"status": status, "workflow_type": workflow_type, "due_before": due_before}, after, limit
        )

    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        return await super().find(**filters, after=after, limit=limit)


@breaks("find lists the oldest first")
class SortsById(Finds):
    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        found = sorted(await super().finds(filters, None, 10**6), key=lambda header: header.workflow_id)
        return [one for one in found if after is None or one.workflow_id > after.workflow_id][:limit]


@breaks("find keeps to its filters")
class IgnoresTheType(Finds):
    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        return await super().finds({**filters, "workflow_type": None}, after, limit)


@breaks("find keeps to its filters")
class TakesZeroForNone(Finds):
    """``if due_before:``."""

    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        return await super().finds({**filters, "due_before": filters["due_before"] or None}, after, limit)


@breaks("find keeps to its limit")
class IgnoresTheLimit(Finds):
    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        return await super().finds(filters, after, 10**6)


@breaks("find keeps to its limit")
class AtMostAHundred(Finds):
    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        return await super().finds(filters, after, min(limit, 100))


@breaks("pages follow on each other")
class LooksForTheRow(Finds):
    """Begins behind the row of `after`, where that is still there as it was."""

    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        found = await super().finds(filters, None, 10**6)
        begin = found.index(after) + 1 if after in found else 0
        return found[begin : begin + limit]


@breaks("paging goes on while others write")
class PagesByOffset(Finds):
    """Remembers how many it has listed up to a header."""

    def __init__(self) -> None:
        super().__init__()
        self._offsets: dict[tuple[Any, ...], int] = {}

    async def finds(self, filters: dict[str, Any], after: Header | None, limit: int) -> list[Header]:
        found = await super().finds(filters, None, 10**6)
        chosen = tuple(filters.values())
        offset = 0 if after is None else self._offsets.get((chosen, after.workflow_id))
        if offset is None or (after is not None and after not in found):  # it has changed, so that one must look
            return await super().finds(filters, after, limit)
        page = found[offset : offset + limit]
        for n, header in enumerate(page, offset + 1):
            self._offsets[chosen, header.workflow_id] = n
        return page


# Stores that are opened again.


@breaks("a store that is opened again holds what it acknowledged")
class LosesTheLastAppend(Told):
    """Writes an append out when the next one comes."""

    def __init__(self) -> None:
        super().__init__()
        self._begun_with: dict[str, list[Record]] = {}

    async def appends(self, append: Append) -> None:
        await super().appends(append)
        if append.records:
            self._begun_with[append.workflow_id] = self._records[append.workflow_id][: append.version]

    async def close(self) -> None:
        for workflow_id, journal in self._begun_with.items():
            if workflow_id in self._records:
                self._records[workflow_id] = journal


@breaks("two handles see one store")
class ReadsFromItsCache(Told):
    """Keeps what it has read; its own appends it knows of."""

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[str, list[Record]] = {}

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        if workflow_id not in self._cache:
            self._cache[workflow_id] = await super().read(workflow_id)
        return self._cache[workflow_id][after:]

    async def appends(self, append: Append) -> None:
        self._cache.pop(append.workflow_id, None)
        await super().appends(append)

    async def delete(self, workflow_id: str) -> bool:
        self._cache.pop(workflow_id, None)
        return await super().delete(workflow_id)


# Processes that are killed.


class LineByLine:
    """Keeps what is appended as lines of a file, for one handle at a time; right as it stands."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.jsonl"
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        if len(await self.read(workflow_id)) != expected_version:
            raise ConcurrencyError("It is at another version.", workflow_id=workflow_id)
        line = json.dumps([workflow_id, records])
        self._write(f"{line}\n")

    def _write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        journal: list[Record] = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            of, rows = json.loads(line)
            if of == workflow_id:
                journal = [*journal, *(Record(*row) for row in rows)] if rows is not None else []
        return journal[after:]

    async def delete(self, workflow_id: str) -> bool:
        found = bool(await self.read(workflow_id))
        self._write(f"{json.dumps([workflow_id, None])}\n")
        return found

    def close(self) -> None:
        self._file.close()


_KILLED = "a killed process loses nothing that it acknowledged"


@breaks(_KILLED, KILLED)
class BuffersItsLines(LineByLine):
    """Leaves it to the file when to write."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self._unwritten = ""

    def _write(self, line: str) -> None:
        self._unwritten += line
        if len(self._unwritten) > 3000:
            self.flush()

    def flush(self) -> None:
        super()._write(self._unwritten)
        self._unwritten = ""

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        journal = await super().read(workflow_id)
        for line in self._unwritten.splitlines():
            of, rows = json.loads(line)
            if of == workflow_id:
                journal = [*journal, *(Record(*row) for row in rows)] if rows is not None else []
        return journal[after:]

    def close(self) -> None:
        self.flush()
        super().close()


@breaks(_KILLED, KILLED)
class LeavesItsLock(LineByLine):
    """Locks by a file that is there while it is open, and that nobody removes for who is dead."""

    def __init__(self, folder: Path, name: str) -> None:
        self._lock = folder / f"{name}.lock"
        try:
            os.close(os.open(self._lock, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise PersistenceError(f"{self._lock} is there: another process has it open.") from None
        super().__init__(folder, name)

    def close(self) -> None:
        super().close()
        self._lock.unlink()


def open_in(kind: type[LineByLine], folder: Path, name: str) -> LineByLine:
    """Open a store of a kind: a factory that another process can be handed, with `functools.partial`."""
    return kind(folder, name)
