"""What a process does that brings orders to their end, and is killed at it; `nursery` makes the processes.

It says on its output what happens, a line each, as soon as it is so; ``done`` is the last one.
"""

import asyncio

from dotmac_workflows import recover
from processes.nursery import say
from processes.orders import Ledger, Order, bring_to_its_end, from_json
from processes.telling import TellingStore


async def main(database: str, ledger: str, how: str, rivals: str, scripts: str) -> None:
    """Take up what was left, and bring all to its end.

    Args:
        database: The file of the store.
        ledger: The file of the effects.
        how: ``recover`` what a killed one left, or (``resume``) load and resume one by one.
        rivals: ``1`` where another process is at the same orders.
        scripts: The orders, as `to_json` wrote them.
    """
    Order.ledger = Ledger(ledger)
    Order.say = staticmethod(say)
    store = TellingStore(database)
    say("ready")
    if how == "recover":
        for carried_on in await recover(store, [Order]):
            if carried_on.error is not None:
                raise carried_on.error
    # All at once, so that one kill hits many.
    async with asyncio.TaskGroup() as tasks:
        for workflow_id, script in from_json(scripts).items():
            tasks.create_task(bring_to_its_end(workflow_id, script, store, rivals=rivals == "1"))
    await store.close()
    say("done")
