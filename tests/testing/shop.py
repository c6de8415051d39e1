"""A shop and an order in it, right as they stand; each fault of `Order` is one that people make."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dotmac_workflows import Persistence, Workflow, WorkflowResult
from dotmac_workflows.testing import Scenario


class Shop:
    """Fakes of what an order touches. It remembers the keys that it has answered, as the real ones do."""

    def __init__(self) -> None:
        self.stock = 5
        self.charges: list[float] = []
        self.parcels: list[str] = []
        self._held: set[str] = set()
        self._paid: dict[str, float] = {}
        self._answered: set[str] = set()

    def _once(self, key: str | None) -> bool:
        if key is None:
            return True
        new = key not in self._answered
        self._answered.add(key)
        return new

    def reserve(self, order: str, key: str | None) -> None:
        if self._once(key):
            self.stock -= 1
            self._held.add(order)

    def holds(self, order: str) -> bool:
        return order in self._held

    def release(self, order: str, key: str | None) -> None:
        if self._once(key) and order in self._held:
            self._held.remove(order)
            self.stock += 1

    def charge(self, order: str, amount: float, key: str | None) -> None:
        if self._once(key):
            self.charges.append(amount)
            self._paid[order] = amount

    def refund(self, order: str, key: str | None) -> None:
        if self._once(key) and order in self._paid:
            self.charges.remove(self._paid.pop(order))

    def refund_the_last(self, key: str) -> None:
        if self._once(key) and self._paid:
            self.charges.remove(self._paid.pop(max(self._paid)))

    def release_the_last(self, kind: str, key: str) -> None:
        held = [thing for thing in self._held if thing.startswith(f"{kind} ")]
        if self._once(key) and held:
            self._held.remove(max(held))
            self.stock += 1

    def refund_blindly(self, amount: int, key: str | None = None) -> None:
        if self._once(key):
            self.charges.append(-amount)
            if sum(self.charges) == 0:
                self.charges.clear()

    def ship(self, order: str, key: str | None) -> None:
        if self._once(key):
            self.parcels.append(order)

    def call_back(self, order: str, key: str | None) -> None:
        if self._once(key) and order in self.parcels:
            self.parcels.remove(order)


class Order(Workflow):
    fault = ""

    def __init__(self, shop: Shop, workflow_id: str, persistence: Persistence) -> None:
        super().__init__(workflow_id, ["reserve", "charge", "check", "ship"], persistence=persistence)
        self.configure(require_approval=True, rollback_on_cancel=True)
        self.shop = shop

    async def execute_step(self, step: str) -> WorkflowResult:
        data: dict[str, Any] = getattr(self, f"do_{step}")(self.step_context.idempotency_key) or {}
        return WorkflowResult(True, step, data, requires_approval=step == "check")

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        if not hasattr(self, f"undo_{step}") or (step == "charge" and self.fault == "no rollback"):
            return None
        getattr(self, f"undo_{step}")(self.step_context.idempotency_key)
        return WorkflowResult(True, step)

    def do_reserve(self, key: str | None) -> None:
        if self.fault != "looks instead":
            self.shop.reserve(self.workflow_id, key)
        elif not self.shop.holds(self.workflow_id):
            self.shop.reserve(self.workflow_id, None)

    def undo_reserve(self, key: str | None) -> None:
        self.shop.release(self.workflow_id, key)

    def do_charge(self, key: str | None) -> dict[str, Any]:
        amount = 60 if self.fault == "clock" and datetime.now(UTC).hour > 12 else 50
        if self.fault == "ends otherwise" and self.shop.charges:
            raise RuntimeError("charged already")
        if self.fault == "random amount":
            self.shop.charge(self.workflow_id, random.random(), key)
            return {"paid": 50}
        self.shop.charge(self.workflow_id, amount, None if self.fault == "not idempotent" else key)
        self.paid = amount
        return {"paid": amount}

    def undo_charge(self, key: str | None) -> None:
        if self.fault == "rollback not idempotent":
            self.shop.refund_blindly(50)
        elif self.fault == "outcome unknown":
            self.shop.refund_blindly(50, key)
        else:
            self.shop.refund(self.workflow_id, key)

    def do_check(self, key: str | None) -> None:
        if self.fault == "incomplete rollback":
            self.shop.parcels.append("label")  # which nobody takes away

    def do_ship(self, key: str | None) -> None:
        paid = self.paid if self.fault == "state" else self.results[1].data["paid"]
        assert paid == 50 or self.fault == "clock"
        self.shop.ship(self.workflow_id, key)

    def undo_ship(self, key: str | None) -> None:
        self.shop.call_back(self.workflow_id, key)


def scenario(fault: str = "", **options: Any) -> Scenario[Shop]:
    kind: Callable[..., Order] = type("Order", (Order,), {"fault": fault})
    if fault == "random amount":  # else no two clean runs are alike
        options["observe"] = lambda shop: (shop.stock, len(shop.charges))
    return Scenario(world=Shop, workflow=kind, **options)
