"""A process that decides gates when it is told to: ``python -m processes.decider DATABASE``.

For each line ``WORKFLOW VERB ACTOR`` on its input it loads the workflow, says ``loaded``, waits for another line, and
decides; then it says what came of it, as JSON.
"""

import asyncio
import json
import os
import sys

from dotmac_workflows import AlreadyDecidedError, SQLitePersistence
from processes.orders import Order


async def decide(run: Order, verb: str, actor: str) -> dict[str, object]:
    try:
        await getattr(run, verb)(actor=actor)
    except AlreadyDecidedError as error:
        return {
            "won": False,
            "said": str(error),
            "workflow": error.workflow_id,
            "step": error.step,
            "verdict": error.verdict,
            "actor": error.actor,
            "at": str(error.decided_at),
        }
    return {"won": True}


async def main(database: str) -> None:
    store = SQLitePersistence(database)
    for line in sys.stdin:
        workflow_id, verb, actor = line.split()
        run = await Order.load(workflow_id, store)
        os.write(1, b"loaded\n")
        sys.stdin.readline()
        os.write(1, (json.dumps(await decide(run, verb, actor)) + "\n").encode())
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
