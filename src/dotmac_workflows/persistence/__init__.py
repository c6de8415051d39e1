"""Where journals are kept: the protocols of a backend, the backends that are shipped, and the original's store."""

from typing import TYPE_CHECKING

from ..types import WorkflowStateStore
from ._protocol import Checks, Header, Lease, LeaseChange, Leases, Persistence, Queries, Record
from .memory import InMemoryPersistence, InMemoryStateStore

if TYPE_CHECKING:
    from .sqlite import SQLitePersistence

__all__ = [
    "Checks",
    "Header",
    "InMemoryPersistence",
    "InMemoryStateStore",
    "Lease",
    "LeaseChange",
    "Leases",
    "Persistence",
    "Queries",
    "Record",
    "SQLitePersistence",
    "WorkflowStateStore",
]


def __getattr__(name: str) -> object:
    """Import the SQLite backend when it is first asked for: sqlite3 costs a program that does not use it nothing."""
    if name == "SQLitePersistence":
        from .sqlite import SQLitePersistence

        return SQLitePersistence
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Show it before it is asked for."""
    return sorted({*globals(), *__all__})
