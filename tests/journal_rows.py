"""Rows for the tests of backends: those that the contract of a backend is checked with."""

from dotmac_workflows.testing._contract.rows import header, records

__all__ = ["header", "records"]
