"""A store that says on the output of the process what it told its caller of every append, before anybody acts on it."""

from collections.abc import Callable, Sequence

from dotmac_workflows import ConcurrencyError, LeaseLostError, PersistenceError, SQLitePersistence
from dotmac_workflows.persistence import Header, LeaseChange, Record
from processes.nursery import say

UNKNOWN = ("may be stored or not", "deleted or replaced")
"""What an error says that leaves open what became of the append."""


class TellingStore(SQLitePersistence):
    """Says ``appended WORKFLOW VERSION DIGEST``, or ``refused WORKFLOW DIGEST`` where nothing is stored."""

    def begin(self, workflow_id: str) -> Callable[[], None]:
        """Return what is to be done once the append that now begins is acknowledged; to be overridden."""
        return lambda: None

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
        digest, once_acknowledged = records[-1].digest, self.begin(workflow_id)
        try:
            await super().append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)
        except (ConcurrencyError, LeaseLostError):
            say(f"refused {workflow_id} {digest}")
            raise
        except PersistenceError as error:
            said = str(error)
            if not any(unknown in said for unknown in UNKNOWN):
                say(f"refused {workflow_id} {digest}")
            raise
        say(f"appended {workflow_id} {header.version} {digest}")
        once_acknowledged()
