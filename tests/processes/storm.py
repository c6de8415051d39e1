"""Many processes that drive and approve orders on one file at once: ``python -m processes.storm DATABASE LEDGER``.

Its input is JSON: for each process the orders of its own and one for later, and the orders that all of them are at.
Each process writes what happens to a file of its own beside the database, ``said-N``. When all are done, this one
takes the writer's lock and keeps it for longer than they are willing to wait: each must be told who holds it. Then it
lets go, and each brings its order for later to its end.
"""

import asyncio
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

from dotmac_workflows import PersistenceError
from dotmac_workflows.persistence.sqlite._lock import InterprocessLock
from processes.nursery import say
from processes.orders import Ledger, Order, bring_to_its_end, from_json
from processes.telling import TellingStore

PATIENCE = 0.2
"""How long a process waits for the lock that is held, in seconds."""


class TimingStore(TellingStore):
    """Knows how long an append took at most."""

    longest = 0.0

    def begin(self, workflow_id: str) -> Callable[[], None]:
        """See `TellingStore.begin`."""
        began = time.monotonic()

        def note() -> None:
            self.longest = max(self.longest, time.monotonic() - began)

        return note


async def _drive(database: str, own: str, later: str, shared: str, barrier: Barrier) -> None:
    store = TimingStore(database)
    barrier.wait()
    began = time.monotonic()
    await asyncio.gather(
        *(bring_to_its_end(*item, store) for item in from_json(own).items()),
        *(bring_to_its_end(*item, store, rivals=True) for item in from_json(shared).items()),
    )
    say(f"took {time.monotonic() - began} {store.longest}")
    barrier.wait()  # all are done, and the lock is about to be held
    barrier.wait()
    lock = store._database.lock
    patience, lock.time_limit = lock.time_limit, PATIENCE
    ((workflow_id, script),) = from_json(later).items()
    try:
        await bring_to_its_end(workflow_id, script, store)
    except PersistenceError as error:
        say(f"busy {workflow_id} {error}")
    lock.time_limit = patience
    barrier.wait()
    await bring_to_its_end(workflow_id, script, store)
    await store.close()


def _be_one(number: int, database: str, barrier: Barrier, own: str, later: str, shared: str) -> None:
    """Be one of the processes."""
    os.dup2(os.open(Path(database).with_name(f"said-{number}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    Order.say = staticmethod(say)
    try:
        asyncio.run(_drive(database, own, later, shared, barrier))
    except BaseException:
        traceback.print_exc()
        barrier.abort()
        raise SystemExit(1) from None


def main(database: str, ledger: str) -> int:
    told = json.load(sys.stdin)
    Order.ledger = Ledger(ledger)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(told["own"]) + 1)
    processes = [
        context.Process(target=_be_one, args=(number, database, barrier, *orders, told["shared"]))
        for number, orders in enumerate(told["own"])
    ]
    for process in processes:
        process.start()
    barrier.wait()
    barrier.wait()
    lock = InterprocessLock(f"{database}-lock", 30)
    lock.open()
    with lock:
        barrier.wait()
        barrier.wait()  # each was told
    for process in processes:
        process.join()
    return int(any(process.exitcode for process in processes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
