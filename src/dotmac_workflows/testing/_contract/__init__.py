"""The contract of a backend, clause by clause, and the check that goes through it.

From the outside in: `check` runs every clause and reports; `appends`, `refusals`, `concurrency`, `cancellation`,
`leases`, `queries` and `stores` hold the clauses, each a function on a `bench`, where new stores are opened by the
author's factory and every call is written down; `comparing` tells what came from what was wanted; `killed` is the
process that is killed; `rows` is what is stored.

A clause sees a backend only from outside. So failures inside it are brought about by what any backend can be made to
meet: appends that are refused, rows that cannot be stored, tasks that are cancelled, writers that overlap, a process
that is killed.
"""

from .check import check_persistence
from .report import CheckedClause, PersistenceContractError, PersistenceReport

__all__ = ["CheckedClause", "PersistenceContractError", "PersistenceReport", "check_persistence"]
