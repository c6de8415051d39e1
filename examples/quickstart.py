"""The smallest durable workflow: three steps, one SQLite file.

    PYTHONPATH=src python3 examples/quickstart.py [FOLDER]

Run it twice with a folder of your own: the second time nothing runs, because it all ran before.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from dotmac_workflows import SQLitePersistence, Workflow, WorkflowResult, verify


class Onboarding(Workflow):
    async def execute_step(self, step: str) -> WorkflowResult:
        # The work of a real step goes here: call a service, write to a database.
        print(f"  running {step}, attempt {self.step_context.attempt}")
        return WorkflowResult(success=True, step=step, data={"for": self.metadata["user"]})


async def main(folder: Path) -> None:
    async with SQLitePersistence(folder / "workflows.db") as persistence:
        for time in ("first", "second"):
            print(f"execute(), for the {time} time:")
            workflow = Onboarding(
                "onboarding-1",
                steps=["create_account", "create_mailbox", "send_welcome"],
                metadata={"user": "a new user"},
                persistence=persistence,
            )
            results = await workflow.execute()
            print(f"  {workflow.status}: {', '.join(result.step for result in results)}")
        checked = await verify(persistence)
        print(f"The journal has {checked.records} records and {len(checked.problems)} problems.")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory(prefix="quickstart-") as temporary:
            asyncio.run(main(Path(temporary)))
