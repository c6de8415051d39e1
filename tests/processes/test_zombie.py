"""A process that lost its lease changes nothing and says so; one that lives keeps it; only certain death ends it early.

Whoever takes over here has a clock that goes ahead, so that no test waits for a lease to expire, but for the one that
is to show that it does.
"""

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crash_simulation import Script
from dotmac_workflows import Runtime, SQLitePersistence, WorkflowExecutionError, recover, verify
from dotmac_workflows._core.events import Settings
from dotmac_workflows._run.lease import this_owner
from processes.judging import effects_of
from processes.nursery import ENVIRONMENT
from processes.orders import Ledger, Order, order, to_json

FORWARD = Script(("ok", "ok", "ok"), ("ok", "ok", "ok"), Settings())
BACK = Script(("ok", "ok", "fail"), ("ok", "ok", "ok"), Settings())
HOST = socket.gethostname()


class ClockAhead:
    """Goes with the time, some seconds ahead."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def time_ns(self) -> int:
        return time.time_ns() + round(self._seconds * 1e9)

    def monotonic(self) -> float:
        return time.monotonic()


class LaterOrder(Order):
    """An order in a process for which the lease of any other has expired."""

    workflow_type = "Order"
    runtime = Runtime(clock=ClockAhead(31))


class StuckProcess:
    """A process that got stuck in an order."""

    def __init__(self, directory: Path, script: Script, how: str = "waits", **environment: str) -> None:
        self.database = directory / "orders.db"
        self.ledger = directory / "ledger"
        command = [
            *(sys.executable, "-m", "processes.stuck"),
            *(str(self.database), str(self.ledger), "order-1", how, to_json({"order-1": script})),
        ]
        self.process = subprocess.Popen(
            command, env={**ENVIRONMENT, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "stuck\n"

    @property
    def name(self) -> str:
        return f"{HOST} (process {self.process.pid})"

    def stop(self) -> None:
        """Stop it, and wait until it is."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> tuple[int, str]:
        """Let what it waits for come, and return its exit code and its last words."""
        said, _ = self.process.communicate("go\n", timeout=60)
        return self.process.returncode, said

    def contents(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return every row of the database."""
        with sqlite3.connect(self.database) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            rows = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
        connection.close()
        assert any(rows.values())
        return rows

    def effects(self) -> list[tuple[str, str, int, str]]:
        return [
            (effect.phase, effect.step, effect.attempt, effect.key.partition(":")[2])
            for effect in effects_of(self.ledger)["order-1"]
        ]


@pytest.fixture
def processes() -> Iterator[list[StuckProcess]]:
    """Ends what a test has started and not ended."""
    started: list[StuckProcess] = []
    yield started
    for stuck in started:
        stuck.process.kill()
        stuck.process.communicate()


async def take_over(stuck: StuckProcess, kind: type[Order] = LaterOrder) -> Order:
    kind.ledger = Ledger(str(stuck.ledger))
    async with SQLitePersistence(stuck.database) as store:
        run = await kind.load("order-1", store)
        await run.resume()
        assert (await verify(store)).problems == []
    return run


async def refusal(stuck: StuckProcess, kind: type[Order] = Order) -> str:
    """Try to take over by all means, each of which must be refused; return what ``resume`` was told."""
    async with SQLitePersistence(stuck.database) as store:
        before = await store.read("order-1")
        assert await recover(store, [kind]) == []
        with pytest.raises(WorkflowExecutionError, match="already running"):
            await order("order-1", FORWARD, store, kind).execute()
        with pytest.raises(WorkflowExecutionError) as refused:
            await (await kind.load("order-1", store)).resume()
        assert await store.read("order-1") == before
    return str(refused.value)


def said_of(owner: str) -> str:
    return (
        rf"Workflow 'order-1' is already running: {re.escape(owner)} holds its lease until "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\. Wait for it, or call resume\(\) after that\."
    )


def lost_to_this_process() -> str:
    return (
        "Workflow 'order-1' is no longer driven by this process: its lease expired and "
        f"{HOST} (process {os.getpid()}) took over. Nothing was recorded since; load the workflow to see where it "
        "stands.\n"
    )


FORWARD_EFFECTS = [
    ("forward", "reserve", 1, "f:1:reserve"),
    ("forward", "book", 1, "f:1:book"),
    ("forward", "book", 2, "f:1:book"),
    ("forward", "pay", 1, "f:1:pay"),
]
BACK_EFFECTS = [
    ("forward", "reserve", 1, "f:1:reserve"),
    ("forward", "book", 1, "f:1:book"),
    ("forward", "pay", 1, "f:1:pay"),
    ("rollback", "book", 1, "r:1:book"),
    ("rollback", "book", 2, "r:1:book"),
    ("rollback", "reserve", 1, "r:1:reserve"),
]


@pytest.mark.parametrize("how", ["waits", "ends", "blocks"])
@pytest.mark.parametrize(
    ("script", "status", "effects"),
    [(FORWARD, "completed", FORWARD_EFFECTS), (BACK, "failed", BACK_EFFECTS)],
    ids=["in a step", "in a rollback step"],
)
async def test_a_zombie_changes_nothing_and_says_so(
    how: str,
    script: Script,
    status: str,
    effects: list[tuple[str, str, int, str]],
    tmp_path: Path,
    processes: list[StuckProcess],
) -> None:
    stuck = StuckProcess(tmp_path, script, how)
    processes.append(stuck)
    stuck.stop()
    run = await take_over(stuck)
    assert str(run.status) == status
    contents = stuck.contents()
    stuck.go_on()
    code, said = stuck.end()
    assert code == 3
    assert said == f"lost to {this_owner()}: {lost_to_this_process()}"
    assert stuck.contents() == contents
    assert stuck.effects() == effects


async def test_a_zombie_finds_the_run_in_the_hands_of_another(tmp_path: Path, processes: list[StuckProcess]) -> None:
    """Taken over, and neither ended nor waiting when the first one comes back."""
    stuck = StuckProcess(tmp_path, FORWARD, "ends")
    processes.append(stuck)
    stuck.stop()
    in_the_step, released = asyncio.Event(), asyncio.Event()

    class Slow(LaterOrder):
        workflow_type = "Order"

        async def execute_step(self, step: str) -> Any:
            result = await super().execute_step(step)
            if step == "pay":
                in_the_step.set()
                await released.wait()
            return result

    taker = asyncio.create_task(take_over(stuck, Slow))
    await in_the_step.wait()
    stuck.go_on()
    code, said = await asyncio.to_thread(stuck.end)
    assert (code, said) == (3, f"lost to {this_owner()}: {lost_to_this_process()}")
    released.set()
    assert str((await taker).status) == "completed"
    assert stuck.effects() == FORWARD_EFFECTS


async def test_a_lease_expires_by_itself(tmp_path: Path, processes: list[StuckProcess]) -> None:
    stuck = StuckProcess(tmp_path, FORWARD, LEASE_SECONDS="1")
    processes.append(stuck)
    stuck.stop()
    refusals = []
    run = None
    while run is None:
        try:
            run = await take_over(stuck, Order)
        except WorkflowExecutionError as refused:
            refusals.append(str(refused))
            await asyncio.sleep(0.05)
    assert all(re.fullmatch(said_of(stuck.name), refusal) for refusal in refusals)
    assert str(run.status) == "completed"
    contents = stuck.contents()
    stuck.go_on()
    assert stuck.end() == (3, f"lost to {this_owner()}: {lost_to_this_process()}")
    assert stuck.contents() == contents
    assert stuck.effects() == FORWARD_EFFECTS


async def test_a_live_owner_is_not_taken_over(tmp_path: Path, processes: list[StuckProcess]) -> None:
    stuck = StuckProcess(tmp_path, FORWARD, "ends")
    processes.append(stuck)
    assert re.fullmatch(said_of(stuck.name), await refusal(stuck))
    assert stuck.end() == (0, "ended completed\n")
    assert stuck.effects() == [effect for effect in FORWARD_EFFECTS if effect[2] == 1]


async def test_a_stopped_owner_is_not_taken_over_within_its_lease(
    tmp_path: Path, processes: list[StuckProcess]
) -> None:
    stuck = StuckProcess(tmp_path, FORWARD, "ends")
    processes.append(stuck)
    stuck.stop()
    assert re.fullmatch(said_of(stuck.name), await refusal(stuck))
    stuck.go_on()
    assert stuck.end() == (0, "ended completed\n")


async def test_a_step_longer_than_its_lease_keeps_it(tmp_path: Path, processes: list[StuckProcess]) -> None:
    lease_us = 4_000_000
    stuck = StuckProcess(tmp_path, FORWARD, "ends", LEASE_SECONDS="4")
    processes.append(stuck)
    async with SQLitePersistence(stuck.database) as store:
        first = await store.lease("order-1")
        assert first is not None
        now = first
        while now.expires_at <= first.expires_at + lease_us:
            assert re.fullmatch(said_of(stuck.name), await refusal(stuck))
            await asyncio.sleep(0.2)
            held = await store.lease("order-1")
            assert held is not None
            now = held
        assert now.token == first.token
    assert stuck.end() == (0, "ended completed\n")
    assert stuck.effects() == [effect for effect in FORWARD_EFFECTS if effect[2] == 1]


async def test_an_owner_that_was_killed_is_taken_over_at_once(tmp_path: Path, processes: list[StuckProcess]) -> None:
    stuck = StuckProcess(tmp_path, FORWARD)
    processes.append(stuck)
    stuck.kill()
    run = await take_over(stuck, Order)
    assert str(run.status) == "completed"
    assert stuck.effects() == FORWARD_EFFECTS


async def test_an_owner_that_was_killed_and_not_waited_for_is_dead(
    tmp_path: Path, processes: list[StuckProcess]
) -> None:
    """A process that nobody has waited for still has its pid, and its start time."""
    stuck = StuckProcess(tmp_path, FORWARD)
    processes.append(stuck)
    stuck.process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, stuck.process.pid, os.WEXITED | os.WNOWAIT)
    assert str((await take_over(stuck, Order)).status) == "completed"


def pid_of_nobody() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


ELSEWHERE = {
    "another boot": "host-7:{pid}:1:00000000-0000-0000-0000-000000000000:{namespace}",
    "another pid namespace": "host-7:{pid}:1:{boot}:[1]",
    "where nothing tells": "host-7:{pid}:::",
    "here, if it was ever known when it began": "host-7:1::{boot}:{namespace}",
    "what names no process": "somebody",
}


@pytest.mark.parametrize("where", ELSEWHERE)
async def test_of_a_dead_owner_elsewhere_only_the_expiry_frees(
    where: str, tmp_path: Path, processes: list[StuckProcess]
) -> None:
    """Its pid is free here, which says nothing of there."""
    *_, boot, namespace = this_owner().split(":")
    dead = pid_of_nobody()
    owner = ELSEWHERE[where].format(pid=dead, boot=boot, namespace=namespace)
    stuck = StuckProcess(tmp_path, FORWARD, OWNER=owner)
    processes.append(stuck)
    stuck.kill()
    name = f"host-7 (process {owner.split(':')[1]})" if ":" in owner else owner
    assert re.fullmatch(said_of(name), await refusal(stuck))
    run = await take_over(stuck)
    assert str(run.status) == "completed"
    assert stuck.effects() == FORWARD_EFFECTS
