"""Tools for testing workflows and backends, shipped because users need them as much as we do."""

from typing import TYPE_CHECKING

from .clock import FakeClock
from .prove import prove, prove_async
from .report import ProofError, Report, Round
from .scenario import Scenario

if TYPE_CHECKING:
    from ._contract import CheckedClause, PersistenceContractError, PersistenceReport, check_persistence

__all__ = [
    "CheckedClause",
    "FakeClock",
    "PersistenceContractError",
    "PersistenceReport",
    "ProofError",
    "Report",
    "Round",
    "Scenario",
    "check_persistence",
    "prove",
    "prove_async",
]

_OF_BACKENDS = frozenset({"CheckedClause", "PersistenceContractError", "PersistenceReport", "check_persistence"})


def __getattr__(name: str) -> object:
    """Import the contract of a backend when it is first asked for: tests of workflows have no use for it."""
    if name in _OF_BACKENDS:
        from . import _contract

        return getattr(_contract, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Show it before it is asked for."""
    return sorted({*globals(), *__all__})
