"""Tools for testing workflows, shipped because users need them as much as we do."""

from .clock import FakeClock

__all__ = ["FakeClock"]
