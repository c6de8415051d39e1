"""Backends that live and die with the process: for tests, and the original's store of whole workflows."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..status import WorkflowStatus
from ._protocol import Header, Lease, LeaseChange, Record
from ._refusals import check_append, check_limit, lease_lost, version_conflict

if TYPE_CHECKING:
    from ..base import Workflow


class InMemoryPersistence:
    """A backend without durability, and otherwise as strict as SQLite: what runs on it runs there.

    Values are encoded to JSON and back, leases are kept and compared, and stale writers are refused. Nothing
    awaits inside, so every call is atomic within one event loop; it is not made for several threads.
    """

    def __init__(self) -> None:
        self._records: dict[str, list[Record]] = {}
        self._headers: dict[str, Header] = {}
        self._leases: dict[str, Lease] = {}

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        """See `Persistence.append`."""
        check_append(workflow_id, records, expected_version, header)
        stored = len(self._records.get(workflow_id, ()))
        if stored != expected_version:
            raise version_conflict(workflow_id, expected_version, stored)
        if lease is not None:
            self._check_lease(workflow_id, lease.replaces)
            if lease.expires_at is None:
                self._leases.pop(workflow_id, None)
            else:
                self._leases[workflow_id] = Lease(lease.owner, lease.token, lease.expires_at)
        self._records.setdefault(workflow_id, []).extend(records)
        self._headers[workflow_id] = header

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        """See `Persistence.read`."""
        return self._records.get(workflow_id, [])[after:]

    async def delete(self, workflow_id: str) -> bool:
        """See `Persistence.delete`."""
        self._headers.pop(workflow_id, None)
        self._leases.pop(workflow_id, None)
        return self._records.pop(workflow_id, None) is not None

    async def lease(self, workflow_id: str) -> Lease | None:
        """See `Leases.lease`."""
        return self._leases.get(workflow_id)

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        """See `Leases.renew`."""
        self._check_lease(workflow_id, token)
        self._leases[workflow_id] = self._leases[workflow_id]._replace(expires_at=expires_at)
        return len(self._records[workflow_id])

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
        found = [
            header
            for header in self._headers.values()
            if (status is None or header.status is status)
            and (workflow_type is None or header.workflow_type == workflow_type)
            and (due_before is None or (header.wake_at is not None and header.wake_at <= due_before))
            and (after is None or _list_order(header) > _list_order(after))
        ]
        return sorted(found, key=_list_order)[:limit]

    def _check_lease(self, workflow_id: str, token: str | None) -> None:
        held = self._leases.get(workflow_id)
        if (held.token if held else None) != token:
            raise lease_lost(workflow_id, held.owner if held else None)


def _list_order(header: Header) -> tuple[int, str]:
    return header.created_at, header.workflow_id


class InMemoryStateStore:
    """The original's store: whole workflows, as `Workflow.to_dict` shows them, for tests and examples.

    What it loads is of the class that was saved, so that it can run on. It keeps no journal: for runs that
    survive a crash, hand a workflow a `Persistence`.
    """

    def __init__(self) -> None:
        self._saved: dict[str, tuple[type[Workflow], dict[str, Any]]] = {}

    async def save(self, workflow: "Workflow") -> None:
        """Keep a deep copy of what `Workflow.to_dict` shows.

        Raises:
            ValueError: when the workflow has no id.
        """
        if not workflow.workflow_id:
            raise ValueError("Workflow must have an ID to be saved")
        self._saved[workflow.workflow_id] = type(workflow), copy.deepcopy(workflow.to_dict())

    async def load(self, workflow_id: str) -> "Workflow | None":
        """Return a new object of the saved class in the saved state, or None when the id is unknown."""
        if workflow_id not in self._saved:
            return None
        workflow_class, state = self._saved[workflow_id]
        return workflow_class.from_dict(copy.deepcopy(state))

    async def delete(self, workflow_id: str) -> bool:
        """Forget a workflow; tell whether there was one."""
        return self._saved.pop(workflow_id, None) is not None

    def clear(self) -> None:
        """Forget all workflows."""
        self._saved.clear()
