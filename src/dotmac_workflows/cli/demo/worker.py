"""The demo's worker, a process of its own: takes the orders one by one, and says in a line how far each comes.

    python -m dotmac_workflows.cli.demo.worker FOLDER HEADING

It does the same whenever it is started. What is recorded decides what there is left to run.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...persistence import Record
from ...status import WorkflowStatus
from ..exits import DONE, INTERRUPTED
from ..loading import WatchedStore
from ..notices import show_notices
from ..run import interruptible
from ..standing import Standing, read_standing
from ..terminal import Part, Styled, Terminal
from ..timeline import body_of
from ..wording import status_phrase
from .orders import Order, sample_orders

LEASE_SECONDS = 2.0
"""Where a system does not tell that a process is dead, its runs are free only after this long."""

_PAUSE = 0.12
_OUTCOMES = {
    "step_succeeded": Styled(" ok", "good"),
    "step_failed": Styled(" failed", "bad"),
    "rollback_step_succeeded": Styled(" ok", "good"),
}


class _Line:
    """What is said of an order, a word at a time."""

    def __init__(self, out: Terminal, order_id: str) -> None:
        self._out = out
        self._next: Sequence[Part] = ("  ", Styled(order_id, "bold"), "  ")
        self._indent = " " * len(f"  {order_id}  ")

    def say(self, *parts: Part) -> None:
        self._out.prompt(*self._next, *parts)
        self._next = (", ",)

    def end(self, *parts: Part) -> None:
        self._out.line(*parts)
        self._next = (self._indent,)

    def begin(self, before: Standing | None) -> None:
        """Say what is known of an order."""
        if before is None:
            return
        if before.state.status is not WorkflowStatus.RUNNING:
            self.say(_ending(before.state.status), " before: nothing is left to run")
        else:
            done = " and ".join(result.step for result in before.state.results if result.success)
            rejected = before.records[-1].kind == "rejected"
            self.say(f"rejected: {done} are undone" if rejected else f"{done} were done before, and are not run again")
        self.end()

    def tell(self, _: str, records: Sequence[Record]) -> None:
        """Tell of what was recorded, now that it is durable."""
        for record in records:
            body = body_of(record)
            if record.kind in ("step_started", "rollback_step_started"):
                self.say("undo " if record.kind.startswith("roll") else "", body["step"])
                if body["attempt"] > 1:
                    self._out.prompt(Styled(" again", "waits"))
                if self._out.is_terminal:
                    time.sleep(_PAUSE)  # so that an eye can follow
            elif record.kind in _OUTCOMES:
                self._out.prompt(_OUTCOMES[record.kind])
                if record.kind == "step_failed":
                    self.end(f": {body['result']['message']}")


def _ending(status: WorkflowStatus) -> Styled:
    said = status_phrase(status)
    return said._replace(text=said.text.removeprefix("was "))


async def _take(orders: Sequence[dict[str, Any]], folder: Path, out: Terminal) -> int:
    store = WatchedStore(folder / "workflows.db")
    async with store:
        for given in orders:
            order = Order(given["id"], metadata=given["order"], persistence=store)
            line = _Line(out, order.workflow_id)
            before = await read_standing(store, order.workflow_id)
            line.begin(before)
            store.watch = line.tell
            await order.execute()
            if before is None or before.state.status is WorkflowStatus.RUNNING:
                line.end(": ", _ending(order.status))
    return DONE


def main() -> int:
    """Take the orders."""
    Order.runtime = replace(Order.runtime, lease_seconds=LEASE_SECONDS)
    out = Terminal(sys.stdout)
    folder, heading = sys.argv[1:]
    out.line(Styled(heading, "bold"), f" (process {os.getpid()})")
    try:
        with show_notices(Terminal(sys.stderr), out, debug=False):
            return interruptible(_take(sample_orders(), Path(folder), out))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
