"""What a store has promised by a given moment, and whether what is found afterwards keeps it.

Of each workflow, the last acknowledged write must be there, whole; or the one that was under way, whole; and nothing
else. A journal that somebody was shown must be there as well, or a longer one. A write of a process that died is under
way until another write to the same workflow is acknowledged.
"""

import json
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from dotmac_workflows import SQLitePersistence, verify
from dotmac_workflows.testing._judge import Violation
from power_loss.disk import Operation

Journal: TypeAlias = tuple[int, str] | None
"""The seq and the digest of its last record, which stand for all of it: each digest follows from the one before."""
Held: TypeAlias = tuple[str, str, int] | None
"""A lease: owner, token, expiry."""


class Promise(NamedTuple):
    """What may be found of a workflow."""

    journals: frozenset[Journal] = frozenset({None})
    leases: frozenset[Held] = frozenset({None})


Found: TypeAlias = dict[str, tuple[Journal, Held]]
"""What is found, by workflow."""


class Promises:
    """What a recording's marks promise, at each of its operations."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._workflows: dict[str, _Workflow] = {}
        self.acknowledged = 0
        """How many writes were acknowledged."""
        for at, operation in enumerate(operations):
            if operation.what == "mark":
                mark = json.loads(operation.data)
                self.acknowledged += mark["what"] == "acknowledged"
                self._workflows.setdefault(mark["workflow"], _Workflow()).note(at, mark)

    def check(self, at: int, found: Found) -> None:
        """Hold what is found after a power loss before operation `at` against what was promised by then.

        Raises:
            Violation: A promise was broken.
        """
        if strange := found.keys() - self._workflows.keys():
            raise Violation(f"invariant 10: {strange} were never written")
        for workflow_id, workflow in self._workflows.items():
            promise = workflow.at(at)
            journal, lease = found.get(workflow_id, (None, None))
            if journal not in promise.journals:
                raise Violation(
                    f"invariant 10: {workflow_id} should be at one of {_shown(promise.journals)}, and is at "
                    f"{_shown([journal])}"
                )
            if lease not in promise.leases:
                raise Violation(f"invariant 10: {workflow_id} should hold one of {promise.leases}, and holds {lease}")


class _Flight(NamedTuple):
    """A write that was asked for and is not answered."""

    kind: str
    journal: Journal
    lease: Held
    leases: bool
    """Whether it changes the lease."""


class _Workflow:
    """What was promised of one workflow, from mark to mark."""

    def __init__(self) -> None:
        self._places = [-1]
        self._promises = [Promise()]
        self._journal: Journal = None
        self._lease: Held = None
        self._flights: dict[tuple[int, int], _Flight] = {}

    def at(self, at: int) -> Promise:
        return self._promises[bisect_left(self._places, at) - 1]

    def note(self, at: int, mark: dict[str, Any]) -> None:
        process, key = mark["process"], (mark["process"], mark.get("number", 0))
        journal: Journal = tuple(mark["journal"]) if "journal" in mark else None
        match mark["what"]:
            case "begin":
                lease = mark.get("lease")
                self._flights[key] = _Flight(
                    mark["kind"], journal, None if lease is None else tuple(lease), "lease" in mark
                )
            case "refused":
                del self._flights[key]
            case "shown":
                for flight in self._flights.values():
                    if flight.journal == journal:  # of a process that died: it had landed
                        self._land(flight)
                self._begin_anew(process, journal)
                self._reach(journal)
            case "acknowledged":
                landed = self._flights.pop(key)
                self._begin_anew(process, landed.journal)
                self._land(landed)
                for key, flight in list(self._flights.items()):
                    if key[0] != process:  # It died before. Whether its lease is in place may still be unknown.
                        self._flights[key] = flight._replace(kind="", journal=None)
                        if landed.leases or not flight.leases:
                            del self._flights[key]
        self._places.append(at)
        self._promises.append(self._promise())

    def _begin_anew(self, process: int, journal: Journal) -> None:
        """See that a delete of a process that died had landed: another one finds, or writes, a shorter journal."""
        deleted = any(key[0] != process and flight.kind == "delete" for key, flight in self._flights.items())
        if not deleted or journal is None or self._journal is None or journal == self._journal:
            return
        if journal[0] <= self._journal[0]:
            self._journal = self._lease = None

    def _land(self, flight: _Flight) -> None:
        if flight.kind == "delete":
            self._journal = self._lease = None
            return
        self._reach(flight.journal)
        if flight.leases:
            self._lease = flight.lease

    def _reach(self, journal: Journal) -> None:
        """Of writes that are answered at the same time, the later one may be heard of first."""
        if journal is not None and (self._journal is None or journal[0] > self._journal[0]):
            self._journal = journal

    def _promise(self) -> Promise:
        journals, leases = {self._journal}, {self._lease}
        for flight in self._flights.values():
            deletes = flight.kind == "delete"
            if deletes or flight.journal is not None:
                journals.add(flight.journal)
            if deletes or flight.leases:
                leases.add(flight.lease)
        return Promise(frozenset(journals), frozenset(leases))


def _shown(journals: Sequence[Journal] | frozenset[Journal]) -> str:
    return ", ".join(
        sorted("nothing" if journal is None else f"{journal[0]} ({journal[1][:8]})" for journal in journals)
    )


async def look(path: str) -> tuple[Found, int]:
    """Open a store, check all of it, and return what is there, and how many records.

    Raises:
        Violation: It calls itself damaged.
    """
    found: Found = {}
    async with SQLitePersistence(path) as store:
        checked = await verify(store)
        if checked.problems:
            raise Violation(f"invariant 14: an honest store is called damaged: {checked.problems}")
        for header in await store.find(limit=1000):
            rows = await store.read(header.workflow_id)
            lease = await store.lease(header.workflow_id)
            held: Held = None if lease is None else (lease.owner, lease.token, lease.expires_at)
            found[header.workflow_id] = (rows[-1].seq, rows[-1].digest), held
    return found, checked.records
