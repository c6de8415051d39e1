"""Tools for testing workflows, shipped because users need them as much as we do."""

from .clock import FakeClock
from .prove import prove, prove_async
from .report import ProofError, Report, Round
from .scenario import Scenario

__all__ = ["FakeClock", "ProofError", "Report", "Round", "Scenario", "prove", "prove_async"]
