"""A process that brings orders to their end, and is killed at it.

``python -m processes.worker DATABASE LEDGER HOW SCRIPTS``: HOW says how it takes up what a killed one left, by
``recover``, or by ``load`` and ``resume`` one by one. It says on its output what happens, a line each, as soon as it is
so; ``done`` is the last one.
"""

import asyncio
import os
import sys

from dotmac_workflows import SQLitePersistence, recover
from processes.orders import Ledger, Order, bring_to_its_end, from_json


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def main(database: str, ledger: str, how: str, scripts: str) -> None:
    Order.ledger = Ledger(ledger)
    Order.say = staticmethod(say)
    store = SQLitePersistence(database)
    say("ready")
    if how == "recover":
        for carried_on in await recover(store, [Order]):
            if carried_on.error is not None:
                raise carried_on.error
    # All at once, so that one kill hits many.
    async with asyncio.TaskGroup() as tasks:
        for workflow_id, script in from_json(scripts).items():
            tasks.create_task(bring_to_its_end(workflow_id, script, store))
    await store.close()
    say("done")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
