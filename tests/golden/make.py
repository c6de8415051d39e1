"""Writes the golden journals and the golden store of a release, which every later version is to read for ever.

``python tests/golden/make.py v1.1``, from the repository, makes the folder ``tests/golden/v1.1``. Do so once for each
release that writes anything anew: another kind of event, another form of one that is there, another schema; the tests
say when (``tests/core/test_golden_journals.py`` fails while any form that the codec may write is in no golden journal).

A folder that is there is refused, and stays as it is: what a release wrote is a fact, whatever later versions write.
While its release is still being made, ``--add`` writes the files that it lacks, and none that it has.

Each JSON file is a run of a workflow here, as the store got it, and what it is to amount to. ``store.sqlite`` holds
some of them as SQLite keeps them, and ``store.json`` what is to be found in it.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID
from zoneinfo import ZoneInfo

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "src"))

from dotmac_workflows import (  # noqa: E402 - needs the path
    InMemoryPersistence,
    Persistence,
    PersistenceError,
    Runtime,
    SQLitePersistence,
    Workflow,
    WorkflowResult,
)
from dotmac_workflows._core import codec  # noqa: E402
from dotmac_workflows._core.events import RollbackStepFailed, StepFailed  # noqa: E402
from dotmac_workflows._run import lease  # noqa: E402
from dotmac_workflows._run.journal import digest_of  # noqa: E402
from dotmac_workflows.persistence import LeaseChange, Record  # noqa: E402
from dotmac_workflows.testing import FakeClock  # noqa: E402
from dotmac_workflows.values import Codec, CodecType  # noqa: E402

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


@dataclass(frozen=True)
class Money:
    """A type that the user registered."""

    amount: Decimal
    currency: str


OTHER_VALUES = {
    "price": Money(Decimal("9.90"), "EUR"),
    "second time": time(2, 30, fold=1),
    "second datetime": datetime(2026, 10, 25, 2, 30, fold=1),
    "west": datetime(2026, 7, 1, 12, 30, tzinfo=timezone(-timedelta(hours=3, minutes=30))),
    "back": -timedelta(days=1, microseconds=1),
    "small": Decimal("-0E-10"),
    "none": {"list": [], "tuple": (), "set": set(), "bytes": b"", "dict": {}},
    "deep": [{"$": [{"$": ({1, (2, 3)},)}]}],
}
WITH_DATA: dict[str, dict[str, Any]] = {"every value": EVERY_VALUE, "other values": OTHER_VALUES, "nothing": {}}
CODEC = Codec(
    [CodecType(Money, "acme.money", lambda value: [value.amount, value.currency], lambda parts: Money(*parts))]
)
CLOCK = FakeClock()


class Order(Workflow):
    """Does what its metadata says of each step."""

    runtime = Runtime(clock=CLOCK, codec=CODEC)

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
        data: dict[str, Any] = {"did": step}
        if does in WITH_DATA:
            data = WITH_DATA[does]
        if does == "pause, says nobody":
            await self.pause()
        return WorkflowResult(True, step, data, requires_approval=does == "ask")

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        CLOCK.advance(0.125)
        does = self.metadata.get(f"undo {step}", "ok")
        if does == "none":
            return None
        if does == "shut down" and self.step_context.attempt == 1:
            raise KeyboardInterrupt
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
    _shut_down(run)
    await (await Order.load(WORKFLOW_ID, store)).resume()


def _shut_down(run: Order) -> None:
    """Execute a run until it is shut down; by hand, since an event loop lets a KeyboardInterrupt end everything."""
    coroutine = run.execute()
    try:
        while True:
            coroutine.send(None)
    except KeyboardInterrupt:
        pass


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


async def of_other_values(store: InMemoryPersistence) -> None:
    await order(store, {"reserve": "other values", "book": "nothing", "about": OTHER_VALUES}).execute()


async def said_by_nobody(store: InMemoryPersistence) -> None:
    """By nobody who gave a name, or a reason."""
    run = order(store, {"reserve": "pause, says nobody", "book": "ask"}, require_approval=True)
    await run.execute()
    await run.resume()
    await run.reject_and_cancel()


async def undone_by_nobody(store: InMemoryPersistence) -> None:
    run = order(store, {"send": "fail", "undo book": "fail"})
    await run.execute()
    await run.skip_rollback("book", "booked back by hand")
    await run.retry()


async def cancelled_by_nobody(store: InMemoryPersistence) -> None:
    run = order(store, {"reserve": "ask", "book": "ask"}, require_approval=True)
    await run.execute()
    await run.approve_and_continue()
    await run.cancel()


async def paused(store: InMemoryPersistence) -> None:
    await order(store, {"reserve": "pause"}).execute()


async def left_in_a_step(store: InMemoryPersistence) -> None:
    """By a process that died: it holds its lease."""

    class Dying(InMemoryPersistence):
        async def append(self, workflow_id: str, records: Sequence[Record], **how: Any) -> None:
            if "step_succeeded" in [record.kind for record in records] and how["expected_version"] > 3:
                raise PersistenceError("the process is dead")
            await super().append(workflow_id, records, **how)

    dying = Dying()
    vars(dying).update(vars(store))  # the very same rows
    try:
        await order(dying, {}).execute()
    except PersistenceError:
        pass


async def shut_down_in_a_rollback(store: InMemoryPersistence) -> None:
    _shut_down(order(store, {"send": "fail", "undo book": "shut down"}))
    await (await Order.load(WORKFLOW_ID, store)).resume()


async def in_other_letters(store: InMemoryPersistence) -> None:
    """Steps, names and reasons that are not ASCII."""
    steps = ["réserver", "予約", "an Kunden \U0001f4e6"]
    run = Order(WORKFLOW_ID, steps, {"予約": "ask"}, persistence=store)
    run.configure(require_approval=True)
    await run.execute()
    await run.reject_and_cancel("zu teuer \u2013 \U0001f61e", actor="prüferin@example.com")


def draft(store: InMemoryPersistence, status: str, results: Sequence[str], **kept: Any) -> Order:
    """Return an order as somebody kept it elsewhere; a result with a mark failed."""
    shown = {
        "workflow_id": WORKFLOW_ID,
        "steps": STEPS,
        "status": status,
        "current_step_index": len(results),
        "results": [
            {"success": False, "step": step[:-1], "error": "stuck"}
            if step.endswith("!")
            else {"success": True, "step": step}
            for step in results
        ],
        **kept,
    }
    return Order.from_dict(shown, persistence=store)


async def from_a_draft_not_begun(store: InMemoryPersistence) -> None:
    await draft(store, "pending", [], current_step_index=1, approval_data={"by": "letter"}).execute()


async def from_a_paused_draft(store: InMemoryPersistence) -> None:
    await draft(store, "paused", ["reserve"]).resume()


async def from_a_running_draft(store: InMemoryPersistence) -> None:
    await draft(store, "running", ["reserve"]).resume()


async def from_a_draft_being_undone(store: InMemoryPersistence) -> None:
    results = ["reserve", "book", "send!", "rollback_book"]
    await draft(store, "running", results, current_step_index=2, rollback_status="running").resume()


async def from_a_failed_draft(store: InMemoryPersistence) -> None:
    await draft(store, "failed", ["reserve", "book!"], current_step_index=1).retry()


async def from_an_undone_draft(store: InMemoryPersistence) -> None:
    results = ["reserve", "book!", "rollback_reserve"]
    await draft(store, "failed", results, current_step_index=1, rollback_status="done").retry()


async def from_an_incomplete_draft(store: InMemoryPersistence) -> None:
    results = ["reserve", "book", "send!", "rollback_book!", "rollback_reserve"]
    run = draft(store, "cancelled", results, current_step_index=2, rollback_status="incomplete")
    await run.retry_rollback()


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
    of_other_values,
    said_by_nobody,
    undone_by_nobody,
    cancelled_by_nobody,
    paused,
    left_in_a_step,
    shut_down_in_a_rollback,
    in_other_letters,
    from_a_draft_not_begun,
    from_a_paused_draft,
    from_a_running_draft,
    from_a_draft_being_undone,
    from_a_failed_draft,
    from_an_undone_draft,
    from_an_incomplete_draft,
)
STORED: tuple[Scenario, ...] = (completed, waiting, left_in_a_step, incomplete, paused)
"""What the golden store holds."""


def without_paths(rows: list[Record], workflow_id: str = WORKFLOW_ID) -> list[Record]:
    """Return the journal with another traceback, as of a run of that id: one names the files of the machine."""
    digest, made = "", []
    for row in rows:
        event = codec.decode(row.kind, row.at, row.body, CODEC)
        if getattr(event, "traceback", None) is not None:
            assert isinstance(event, StepFailed | RollbackStepFailed)
            event = event._replace(traceback=TRACEBACK)
        kind, body = codec.encode(event, CODEC)
        digest = digest_of(digest, workflow_id, row.seq, kind, row.at, body)
        made.append(Record(row.seq, kind, row.at, body, digest))
    return made


async def shown(workflow_id: str, store: Persistence) -> dict[str, Any]:
    """Return what a run shows of itself, apart from values that JSON cannot hold, which a test compares as they are."""
    found = (await Order.load(workflow_id, store)).to_dict()
    for name in ("metadata", "approval_data"):
        del found[name]
    for result in found["results"]:
        del result["data"]
    return found


async def golden(scenario: Scenario) -> dict[str, Any]:
    """Return what the file of a scenario holds."""
    store = InMemoryPersistence()
    await scenario(store)
    return {
        "records": [row._asdict() for row in without_paths(await store.read(WORKFLOW_ID))],
        "shown": await shown(WORKFLOW_ID, store),
    }


async def golden_store(path: Path) -> dict[str, Any]:
    """Make the store, and return what is to be found in it."""
    async with SQLitePersistence(path) as store:
        for scenario in STORED:
            memory = InMemoryPersistence()
            await scenario(memory)
            workflow_id = f"order-{scenario.__name__}"
            ((header,), lease) = await memory.find(), await memory.lease(WORKFLOW_ID)
            await store.append(
                workflow_id,
                without_paths(await memory.read(WORKFLOW_ID), workflow_id),
                expected_version=0,
                header=header._replace(workflow_id=workflow_id),
                lease=None if lease is None else LeaseChange(lease.token, lease.owner, lease.expires_at, None),
            )
        return await contents(store)


async def contents(store: SQLitePersistence) -> dict[str, Any]:
    """Return all that is to be found in a store, as JSON has it."""
    headers = await store.find()
    found = {
        "headers": headers,
        "leases": {header.workflow_id: await store.lease(header.workflow_id) for header in headers},
        "records": {header.workflow_id: await store.read(header.workflow_id) for header in headers},
        "shown": {header.workflow_id: await shown(header.workflow_id, store) for header in headers},
    }
    as_json: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return as_json


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/golden/make.py", description=__doc__)
    parser.add_argument("folder", help="the release, such as v1.1")
    parser.add_argument("--add", action="store_true", help="write the files that a folder lacks")
    options = parser.parse_args(arguments)
    folder = HERE / options.folder
    if folder.exists() and not options.add:
        print(f"error: {folder.name} is there, and stays as it is: a release has its own", file=sys.stderr)
        return 1
    folder.mkdir(exist_ok=True)
    numbers = count(1)
    with (
        patch("os.urandom", lambda size: next(numbers).to_bytes(size, "big")),
        patch.object(
            lease, "this_owner", lambda: "host-7:4242:98765:11111111-2222-3333-4444-555555555555:[4026531836]"
        ),
    ):
        for scenario in SCENARIOS:
            write(folder / f"{scenario.__name__}.json", partial(golden, scenario))
        write(folder / "store.json", partial(golden_store, folder / "store.sqlite"))
    for left in folder.glob("store.sqlite-*"):
        left.unlink()
    return 0


def write(path: Path, make: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> None:
    """Write a file that is not there."""
    if path.exists():
        print(f"{path.name} is there, and stays as it is")
        return
    text = json.dumps(asyncio.run(make()), indent=1) + "\n"
    path.write_text(text, encoding="ascii")
    print(f"{path.name} written")


if __name__ == "__main__":
    sys.exit(main())
