"""Proof that an order of `provisioning.py` survives a crash at every point, and leaves nothing behind when it fails.

    dotmac-workflows prove examples/provisioning_proof.py:order

`faulty` is the same order with a fault that people make, on purpose: its deposit is booked without its idempotency key.
Each schedule has a company of its own, in memory.
"""

import asyncio
import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from dotmac_workflows import Persistence, StepContext, Workflow, WorkflowResult
from dotmac_workflows.testing import Scenario
from provisioning import APPROVAL_LIMIT, Company, Effect, ServiceOrder, money

ORDER = {
    "customer": "customer@example.com",
    "item": "router",
    "quantity": 3,
    "line": "line-2",
    "total": APPROVAL_LIMIT + 1,  # so that there is a gate
    "deposit": 12_000,
}
_numbers = itertools.count()


@contextmanager
def company() -> Iterator[Company]:
    address = f"file:/company-{next(_numbers)}?vfs=memdb"
    with closing(sqlite3.connect(address, uri=True)):  # it is there as long as somebody holds it open
        yield Company(address)


def held(company: Company) -> dict[str, Any]:
    """What counts of a company: a deposit that came and went back is none, and what was told was told."""
    return {
        "stock": company.rows("SELECT item, free FROM stock ORDER BY item"),
        "reservations": company.rows("SELECT * FROM reservations"),
        "deposits": company.rows("SELECT customer, sum(amount) FROM ledger GROUP BY customer HAVING sum(amount) <> 0"),
        "addresses": company.rows("SELECT * FROM addresses WHERE order_id IS NOT NULL"),
        "activations": company.rows("SELECT * FROM activations"),
    }


def told(company: Company, order: Workflow) -> None:
    """Whoever has the service was told once that it is ready; whoever has not, also that it was taken back."""
    texts = [text for (text,) in company.rows("SELECT text FROM notifications ORDER BY number")]
    ready, back = "your service is ready", "your service was taken back"
    assert texts == [ready] if order.is_completed else texts in ([], [ready, back])


def make(kind: type[ServiceOrder], company: Company, workflow_id: str, persistence: Persistence) -> ServiceOrder:
    return kind(workflow_id, metadata=dict(ORDER), persistence=persistence, company=company)


def proof_of(kind: type[ServiceOrder]) -> Scenario[Company]:
    return Scenario(
        world=company,
        workflow=lambda company, workflow_id, persistence: make(kind, company, workflow_id, persistence),
        observe=held,
        check=told,
    )


class FaultyOrder(ServiceOrder):
    """FAULTY ON PURPOSE: the deposit is booked without its idempotency key."""

    async def change(self, name: str, effect: Effect, context: StepContext) -> WorkflowResult:
        if name != "book_deposit":
            return await super().change(name, effect, context)
        booking = "INSERT INTO ledger (order_id, customer, amount) VALUES (?, ?, ?)"
        customer, deposit = self.metadata["customer"], self.metadata["deposit"]
        await asyncio.to_thread(self.company.rows, booking, self.workflow_id, customer, str(deposit))
        return WorkflowResult(True, name, message=f"{money(deposit)} from {customer}")


order = proof_of(ServiceOrder)
faulty = proof_of(FaultyOrder)
