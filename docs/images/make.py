"""Make the pictures of this folder anew: ``PYTHONPATH=src:examples python3 docs/images/make.py [FOLDER]``.

They are real runs of ``examples/provisioning.py`` with a clock of their own, so that the same comes out each time.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import provisioning
from dotmac_workflows import InMemoryPersistence, Runtime, WorkflowResult
from dotmac_workflows.pictures import timeline_svg
from dotmac_workflows.testing import FakeClock

SECONDS = {"reserve_stock": 0.14, "book_deposit": 1.3, "assign_address": 0.35, "activate": 48.0, "notify": 0.6}
DECIDED_AFTER = 2 * 3600 + 17 * 60


class Order(provisioning.ServiceOrder):
    """An order whose steps take the time that they would take outside a test."""

    workflow_type = "ServiceOrder"
    clock: FakeClock

    async def execute_step(self, step: str) -> WorkflowResult:
        """Let time go by, and do the step."""
        self.clock.advance(SECONDS.get(step, 0.02))
        return await super().execute_step(step)

    async def rollback_step(self, step: str) -> WorkflowResult:
        """Let time go by, and undo the step."""
        self.clock.advance(SECONDS.get(step, 0.02))
        return await super().rollback_step(step)


async def pictures() -> AsyncIterator[tuple[str, str]]:
    """Yield the name and the text of each picture."""
    given = json.loads(Path(provisioning.__file__).with_name("orders.json").read_text(encoding="utf-8"))["orders"]
    for name, workflow_id in (("timeline.svg", "order-1002"), ("timeline-rollback.svg", "order-1004")):
        order = next(order for order in given if order["id"] == workflow_id)
        clock, persistence = FakeClock(datetime(2026, 7, 1, 9, 12, 30, tzinfo=UTC)), InMemoryPersistence()
        with tempfile.TemporaryDirectory() as folder:
            workflow = Order(workflow_id, metadata=order["order"], persistence=persistence)
            workflow.company = provisioning.Company(Path(folder) / "company.db")
            workflow.clock, workflow.runtime = clock, Runtime(clock=clock)
            await workflow.execute()
            if workflow.is_waiting_approval:
                clock.advance(DECIDED_AFTER)
                await workflow.approve_and_continue(actor=order["decision"]["actor"])
        yield name, timeline_svg(workflow_id, await persistence.read(workflow_id))


async def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    async for name, picture in pictures():
        (folder / name).write_text(picture, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent))
