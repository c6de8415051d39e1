"""A limit: this library's own rows, made beforehand, handed to its own `SQLitePersistence` by as many tasks.

The same rows as in `bare.py`, through the same writer thread and group commit as in `dotmac.py`. What lies between it
and the bare rows is the way to the thread and back; what lies between it and a run is the engine: the loop, the fold,
the JSON and the digests.
"""

import time

from benchmarks.peers._adapter import DATA, NotPossibleError, in_groups
from benchmarks.peers._recorded import recorded, rekeyed
from benchmarks.peers._serve import serve
from benchmarks.peers.dotmac import Dotmac


class Writer(Dotmac):
    """The store without the engine."""

    memory = None
    durable = "the rows of this library, its SQLitePersistence"
    cannot = dict.fromkeys(("in_memory", "start", "hang", "undo", "memory", "grow"), "a limit for steps alone")

    async def run_all(self, ids: list[str], names: list[str], at_once: int) -> None:
        """See `Adapter`."""
        if self.work.sleeps is not None:
            raise NotPossibleError("it waits for nobody")
        made = await recorded(names, DATA)
        runs = [rekeyed(made, workflow_id) for workflow_id in ids]

        async def play_back(number: int) -> None:
            for records, version, header, lease in runs[number]:
                began = time.perf_counter()
                await self.store.append(
                    header.workflow_id, records, expected_version=version, header=header, lease=lease
                )
                self.work.waits.append(time.perf_counter() - began)

        await in_groups(map(play_back, range(len(ids))), at_once)
        self.work.done = len(ids) * len(names)


if __name__ == "__main__":
    serve(Writer())
