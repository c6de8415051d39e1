"""A process that drives one order and gets stuck in it.

``python -m processes.stuck DATABASE LEDGER WORKFLOW HOW SCRIPT``: it sticks in the step ``book``, or in its rollback
where the script has it rolled back, and says ``stuck``. HOW says what it sticks at: it ``waits`` for ever, or its step
``ends`` once there is a line on its input, or it ``blocks`` the event loop until then. Then it drives on, says what
became of it, and ends with exit code 3 where it lost its lease.
"""

import asyncio
import os
import sys

from dotmac_workflows import LeaseLostError, Runtime, SQLitePersistence, WorkflowResult
from dotmac_workflows._run import lease
from processes.orders import Ledger, Order, from_json, order


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class Stuck(Order):
    """Sticks, on the way back where there is one, else on the way forward."""

    workflow_type = "Order"
    how = "waits"

    async def execute_step(self, step: str) -> WorkflowResult:
        result = await super().execute_step(step)
        if step == "book" and "fail" not in self.metadata["behaviours"]:
            await self._stick()
        return result

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        result = await super().rollback_step(step)
        if step == "book":
            await self._stick()
        return result

    async def _stick(self) -> None:
        say("stuck")
        if self.how == "waits":
            await asyncio.Event().wait()
        elif self.how == "ends":
            await asyncio.to_thread(sys.stdin.readline)
        else:
            sys.stdin.readline()


async def main(database: str, ledger: str, workflow_id: str, how: str, script: str) -> None:
    Order.ledger = Ledger(ledger)
    Stuck.how = how
    Stuck.runtime = Runtime(lease_seconds=float(os.environ.get("LEASE_SECONDS", "30")))
    owner = os.environ.get("OWNER")
    if owner is not None:  # as if it ran elsewhere
        lease.this_owner = lambda: owner
    async with SQLitePersistence(database) as store:
        run = order(workflow_id, from_json(script)[workflow_id], store, Stuck)
        try:
            await run.execute()
        except LeaseLostError as error:
            say(f"lost to {error.owner}: {error}")
            sys.exit(3)
        say(f"ended {run.status}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
