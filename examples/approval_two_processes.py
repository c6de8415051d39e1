"""A run waits for an approval; other processes decide; the first decision wins.

    PYTHONPATH=src python3 examples/approval_two_processes.py [FOLDER]

This process runs a purchase up to its gate and lets go of it: while it waits, it costs nothing anywhere. Two more
processes decide, one after the other. They need the file and the id, not the code of the steps. Then this process
carries on.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dotmac_workflows import AlreadyDecidedError, SQLitePersistence, Workflow, WorkflowResult

PURCHASE = "purchase-7"


class Purchase(Workflow):
    def __init__(self, workflow_id: str, persistence: SQLitePersistence) -> None:
        super().__init__(workflow_id, ["quote", "order", "pay"], persistence=persistence)
        self.configure(require_approval=True)

    async def execute_step(self, step: str) -> WorkflowResult:
        # The quote is what somebody has to approve: the step has run, and the next one waits for the decision.
        return WorkflowResult(True, step, message=f"{step} done", requires_approval=step == "quote")


def say(text: str) -> None:
    print(f"process {os.getpid()}: {text}", flush=True)


async def start_and_carry_on(file: Path) -> None:
    async with SQLitePersistence(file) as persistence:
        purchase = Purchase(PURCHASE, persistence)
        await purchase.execute()
        say(f"{purchase.status} at step {purchase.pending_approval_step!r}")

        for verdict, actor in (("approve", "first@example.com"), ("reject", "second@example.com")):
            decider = [sys.executable, __file__, str(file), verdict, actor]
            await (await asyncio.create_subprocess_exec(*decider, stdin=subprocess.DEVNULL)).wait()

        # Any process with the class could do this: at its start by recover(), or in a loop.
        purchase = await Purchase.load(PURCHASE, persistence)
        results = await purchase.resume()
        say(f"{purchase.status} after {', '.join(result.step for result in results)}")
        say(f"approved with {purchase.approval_data}")


async def decide(file: Path, verdict: str, actor: str) -> None:
    async with SQLitePersistence(file) as persistence:
        purchase = await Workflow.load(PURCHASE, persistence)
        try:
            if verdict == "approve":
                await purchase.approve({"budget": "travel"}, actor=actor)
            else:
                await purchase.reject("too expensive", actor=actor)
            say(f"{actor} has decided: {verdict}")
        except AlreadyDecidedError as error:
            say(f"{actor} comes too late")
            say(f"  {error.verdict} by {error.actor} at {error.decided_at}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [file, verdict, actor]:
            asyncio.run(decide(Path(file), verdict, actor))
        case [folder]:
            asyncio.run(start_and_carry_on(Path(folder) / "workflows.db"))
        case _:
            with tempfile.TemporaryDirectory(prefix="approval-") as temporary:
                asyncio.run(start_and_carry_on(Path(temporary) / "workflows.db"))
