"""Writes the golden journals: ``python tests/golden/make.py``, from the repository.

Each is a run of a workflow here, as the store got it, and what it is to amount to for ever. A file that is there is
never written again: a journal that a release wrote stays as it is, whatever later versions write. Give the files of a
new format a folder of their own.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "src"))

from dotmac_workflows import InMemoryPersistence, Runtime, Workflow, WorkflowResult  # noqa: E402 - needs the path
from dotmac_workflows._core import codec  # noqa: E402
from dotmac_workflows._core.events import RollbackStepFailed, StepFailed  # noqa: E402
from dotmac_workflows._run import lease  # noqa: E402
from dotmac_workflows._run.journal import digest_of  # noqa: E402
from dotmac_workflows.persistence import Record  # noqa: E402
from dotmac_workflows.testing import FakeClock  # noqa: E402
from dotmac_workflows.values import Codec  # noqa: E402

FORMAT = "v1"
WORKFLOW_ID = "order-42"
STEPS = ["reserve", "book", "send"]
TRACEBACK = (
    'Traceback (most recent call last):\n  File "orders.py", line 12, in execute_step\nTimeoutError: no answer\n'
)
EVERY_VALUE = {
    "nothing": None,
    "flag": True,
    "number": -7,
    "large": 2**70,
    "fraction": 0.1,
    "text": 'é "quoted" \u2028 \U0001f600 \ud800',
    "list": [1, [2, []], {}],
    "tuple": (1, ("a", None)),
    "set": {3, 1, 2},
    "frozenset": frozenset({"b", "a"}),
    "decimal": Decimal("1.50"),
    "uuid": UUID("6d1f0c5e-2b7a-4a53-9d50-0f1e2d3c4b5a"),
    "bytes": b"\x00\xff",
    "date": date(2026, 7, 1),
    "time": time(12, 30),
    "timedelta": timedelta(days=1, seconds=2, microseconds=3),
    "utc": datetime(2026, 7, 1, 12, 30, tzinfo=UTC),
    "naive": datetime(2026, 7, 1, 12, 30),
    "dollar": {"$": ["tuple", [1]]},
}
"""Apart from a time in a zone, which a machine without a zone database cannot read."""
CLOCK = FakeClock()


class Order(Workflow):
    """Does what its metadata says of each step."""

    runtime = Runtime(clock=CLOCK)

    async def execute_step(self, step: str) -> WorkflowResult:
        CLOCK.advance(0.25)
        does = self.metadata.get(step, "ok")
        if does == "raise":
            raise TimeoutError("no answer")
        if does == "cancel":
            await asyncio.gather(self.cancel("changed my mind", actor="customer"), asyncio.sleep(3600))
        if does == "pause":
            await self.pause("stocktaking", actor="clerk@example.com")
        if does == "shut down" and self.step_context.attempt == 1:
            raise KeyboardInterrupt
        if does == "fail" and self.step_context.visit == 1:
            return WorkflowResult(False, step, {"tried": 3}, error="declined", message="The card was declined.")
        if does == "zoned":
            late = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
            return WorkflowResult(True, step, {"late": late})
        data = EVERY_VALUE if does == "every value" else {"did": step}
        return WorkflowResult(True, step, data, requires_approval=does == "ask")

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        CLOCK.advance(0.125)
        does = self.metadata.get(f"undo {step}", "ok")
        if does == "none":
            return None
        if does == "raise":
            raise TimeoutError("no answer")
        if does == "fail" or (does == "fail once" and self.step_context.visit == 1):
            return WorkflowResult(False, f"rollback_{step}", error="stuck")
        return WorkflowResult(True, f"rollback_{step}")


Scenario = Callable[[InMemoryPersistence], Awaitable[None]]


def order(store: InMemoryPersistence, metadata: dict[str, Any], **settings: Any) -> Order:
    made = Order(WORKFLOW_ID, STEPS, metadata, persistence=store)
    made.configure(**settings)
    return made


async def completed(store: InMemoryPersistence) -> None:
    await order(store, {"reserve": "every value", "about": EVERY_VALUE}).execute()


async def in_a_time_zone(store: InMemoryPersistence) -> None:
    await order(store, {"reserve": "zoned"}).execute()


async def approved(store: InMemoryPersistence) -> None:
    run = order(store, {"book": "ask"}, require_approval=True)
    await run.execute()
    CLOCK.advance(3600)
    await run.approve({"limit": Decimal("100.00")}, actor="approver@example.com")
    await (await Order.load(WORKFLOW_ID, store)).resume()


async def waiting(store: InMemoryPersistence) -> None:
    await order(store, {"book": "ask"}, require_approval=True).execute()


async def rejected_and_undone(store: InMemoryPersistence) -> None:
    run = order(store, {"book": "ask", "undo reserve": "none"}, require_approval=True, rollback_on_cancel=True)
    await run.execute()
    await run.reject_and_cancel("too expensive", actor="approver@example.com")


async def failed_and_retried(store: InMemoryPersistence) -> None:
    run = order(store, {"send": "fail", "undo book": "fail once"})
    await run.execute()
    await run.retry_rollback(actor="clerk@example.com")
    await run.retry(actor="clerk@example.com")


async def failed_and_waived(store: InMemoryPersistence) -> None:
    run = order(store, {"send": "raise", "undo book": "raise"}, on_rollback_failure="halt")
    await run.execute()
    await run.skip_rollback("book", "booked back by hand", actor="clerk@example.com")
    await run.retry_rollback()


async def incomplete(store: InMemoryPersistence) -> None:
    await order(store, {"send": "fail", "undo reserve": "fail"}).execute()


async def continued(store: InMemoryPersistence) -> None:
    await order(store, {"reserve": "fail"}, rollback_on_failure=False, continue_on_step_failure=True).execute()


async def paused_and_resumed(store: InMemoryPersistence) -> None:
    run = order(store, {"reserve": "pause"})
    await run.execute()
    await run.resume(actor="clerk@example.com")


async def cancelled_in_a_step(store: InMemoryPersistence) -> None:
    await order(store, {"book": "cancel"}, rollback_on_cancel=True).execute()


async def shut_down_and_resumed(store: InMemoryPersistence) -> None:
    run = order(store, {"book": "shut down"})
    coroutine = run.execute()
    try:
        # Driven by hand: an event loop lets a KeyboardInterrupt end everything.
        while True:
            coroutine.send(None)
    except KeyboardInterrupt:
        pass
    await (await Order.load(WORKFLOW_ID, store)).resume()


async def from_a_draft(store: InMemoryPersistence) -> None:
    kept = {
        "workflow_id": WORKFLOW_ID,
        "steps": STEPS,
        "status": "waiting_approval",
        "current_step_index": 1,
        "results": [{"success": True, "step": "reserve"}, {"success": True, "step": "book", "requires_approval": True}],
        "pending_approval_step": "book",
        "require_approval": True,
    }
    await Order.from_dict(kept, persistence=store).approve_and_continue({"by": "letter"})


SCENARIOS: tuple[Scenario, ...] = (
    completed,
    in_a_time_zone,
    approved,
    waiting,
    rejected_and_undone,
    failed_and_retried,
    failed_and_waived,
    incomplete,
    continued,
    paused_and_resumed,
    cancelled_in_a_step,
    shut_down_and_resumed,
    from_a_draft,
)


def without_paths(rows: list[Record]) -> list[Record]:
    """Return the journal with another traceback: one names the files of the machine that it comes from."""
    values, digest, made = Codec(), "", []
    for row in rows:
        event = codec.decode(row.kind, row.at, row.body, values)
        if getattr(event, "traceback", None) is not None:
            assert isinstance(event, StepFailed | RollbackStepFailed)
            event = event._replace(traceback=TRACEBACK)
        kind, body = codec.encode(event, values)
        digest = digest_of(digest, WORKFLOW_ID, row.seq, kind, row.at, body)
        made.append(Record(row.seq, kind, row.at, body, digest))
    return made


async def golden(scenario: Scenario) -> dict[str, Any]:
    """Return what the file of a scenario holds."""
    store = InMemoryPersistence()
    await scenario(store)
    run = await Order.load(WORKFLOW_ID, store)
    shown = run.to_dict()
    # What has values that JSON cannot hold is compared with EVERY_VALUE itself.
    for name in ("metadata", "approval_data"):
        del shown[name]
    for result in shown["results"]:
        del result["data"]
    return {
        "records": [row._asdict() for row in without_paths(await store.read(WORKFLOW_ID))],
        "shown": shown,
    }


def main() -> None:
    numbers = count(1)
    os.urandom = lambda size: next(numbers).to_bytes(size, "big")
    lease.this_owner = lambda: "host-7:4242:98765:11111111-2222-3333-4444-555555555555:[4026531836]"
    for scenario in SCENARIOS:
        path = HERE / FORMAT / f"{scenario.__name__}.json"
        if path.exists():
            print(f"{path.name} is there, and stays as it is")
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asyncio.run(golden(scenario)), indent=1) + "\n", encoding="ascii")
        print(f"{path.name} written")


if __name__ == "__main__":
    main()
