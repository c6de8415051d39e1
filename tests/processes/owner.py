"""What a process does that drives orders with short leases and is stopped at it, until these have expired.

It says on its output what happens, a line each; at last, of each order, ``ended WORKFLOW STATUS``, or, where an error
kept it from the end, ``left WORKFLOW ERROR``.
"""

import asyncio
import random
from typing import Any

from dotmac_workflows import Runtime, WorkflowError, WorkflowResult
from dotmac_workflows.persistence import Persistence
from processes.nursery import say
from processes.orders import Ledger, Order, bring_to_its_end, from_json
from processes.telling import TellingStore


class PacedOrder(Order):
    """Takes its time before and after what it does."""

    workflow_type = "Order"
    chance = random.Random()
    most = 0.0
    """How long, in seconds."""

    async def execute_step(self, step: str) -> WorkflowResult:
        await self._wait()
        result = await super().execute_step(step)
        await self._wait()
        return result

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        await self._wait()
        result = await super().rollback_step(step)
        await self._wait()
        return result

    async def _wait(self) -> None:
        await asyncio.sleep(self.chance.random() * self.most)


async def main(database: str, ledger: str, lease_seconds: str, seed: str, pace: str, scripts: str) -> None:
    """Bring all to its end.

    Args:
        database: The file of the store.
        ledger: The file of the effects.
        lease_seconds: How long the leases are.
        seed: Of the time that steps take.
        pace: How long each of two pauses in a step is at most, in seconds.
        scripts: The orders, as `to_json` wrote them.
    """
    PacedOrder.ledger = Ledger(ledger)
    PacedOrder.say = staticmethod(say)
    PacedOrder.runtime = Runtime(lease_seconds=float(lease_seconds))
    PacedOrder.chance, PacedOrder.most = random.Random(seed), float(pace)
    store = TellingStore(database)

    async def bring(workflow_id: str, script: Any, store: Persistence) -> None:
        try:
            run = await bring_to_its_end(workflow_id, script, store, PacedOrder)
        except WorkflowError as error:
            say(f"left {workflow_id} {type(error).__name__}")
        else:
            say(f"ended {workflow_id} {run.status}")

    await asyncio.gather(*(bring(*item, store) for item in from_json(scripts).items()))
    await store.close()
