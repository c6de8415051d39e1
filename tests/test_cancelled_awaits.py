"""Invariants 16 and 17: the task of a verb may be cancelled at any await, once and twice, and nothing is lost.

The campaign does the same for as long as one likes: ``python -m tests.campaigns.cancellation --count 250000``.
"""

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from campaigns import cancellation as campaign
from cancelled_awaits import TASKS, Count, Task, every_schedule, every_script, sampled_schedules
from crash_simulation import Script
from dotmac_workflows import SQLitePersistence
from dotmac_workflows._core.decide import interrupted
from dotmac_workflows._core.events import Event, Settings
from dotmac_workflows._run import callbacks
from dotmac_workflows._run.local import LocalHost
from dotmac_workflows.testing import FakeClock
from dotmac_workflows.testing._judge import Violation

SEED = 20_261_125
UNDOING = Script(("ok",), ("fail",), Settings(rollback_on_cancel=True))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    """A campaign has the library log nothing."""
    logger = logging.getLogger("dotmac_workflows")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_cancel_at_every_await(clock: FakeClock, task: Task) -> None:
    print(f"seed {SEED}")
    chance = random.Random(f"{SEED}/{task}")
    some = [chance.choice(every_script(length)) for length in (1, 2)]

    async def main() -> Count:
        return sum([await every_schedule(script, task, 1, clock) for script in some], Count())

    count = clock.run(main())
    assert count.plays == count.awaits == count.cancels >= 40


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_two_cancels_at_any_awaits(clock: FakeClock, task: Task) -> None:
    print(f"seed {SEED}")
    chance = random.Random(f"{SEED}/{task}")

    async def main() -> Count:
        total = Count()
        for script in chance.sample(every_script(1, 2, 3), 5):
            total += await sampled_schedules(script, task, 2, 8, chance, clock)
        return total

    count = clock.run(main())
    assert count.plays == 40
    assert count.cancels > 45


def test_on_a_store_with_threads(clock: FakeClock, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)

    async def main() -> Count:
        total = Count()
        async with SQLitePersistence(tmp_path / "journals.db") as store:
            for script in chance.sample(every_script(1, 2, 3), 10):
                total += await sampled_schedules(script, chance.choice(TASKS), 2, 4, chance, clock, store)
        return total

    count = clock.run(main())
    assert count.plays == 40
    assert count.cancels > 40


@pytest.mark.usefixtures("_logging_as_before")
def test_the_campaign_plays_as_many_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--count", "50", "--seed", "7", "--jobs", "1", "--sampled"]) == 0
    said = capsys.readouterr().out
    assert "seed 7" in said
    assert int(said.split(" plays")[0].split()[-1]) >= 50


def test_a_campaign_of_nothing_is_an_error() -> None:
    with pytest.raises(SystemExit) as told:
        campaign.main(["--count", "0"])
    assert told.value.code == 2


# Faults that are planted, and found.


async def _not(host: LocalHost) -> None:
    """Do nothing."""


async def _once(host: LocalHost) -> None:
    await host._let_go()


def _as_if_the_workflow_were_cancelled(host: LocalHost, started: Any) -> Event:
    return interrupted(started, host.now(), "cancelled")


async def _whatever_it_raises(callback: Callable[..., Any], event: Event, state: Any) -> None:
    try:
        await callback(callbacks._argument(event, state))
    except BaseException:
        pass


@pytest.mark.parametrize(
    ("where", "fault", "cancels", "found"),
    [
        ((LocalHost, "rest"), _not, 0, "invariant 16 known: when the task was done, there was still .'renewal'"),
        ((LocalHost, "release"), _not, 1, "invariant 17: the lease was not let go"),
        ((LocalHost, "release"), _once, 2, "invariant 17: the lease was not let go"),
        ((LocalHost, "_interrupted"), _as_if_the_workflow_were_cancelled, 1, "invariant 17"),
        ((callbacks, "call"), _whatever_it_raises, 1, "invariant 17: the task was cancelled, and ended with a result"),
    ],
)
def test_a_planted_fault_is_found(
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[Any, str],
    fault: Callable[..., Any],
    cancels: int,
    found: str,
) -> None:
    monkeypatch.setattr(*where, fault)
    with pytest.raises(Violation, match=found):
        clock.run(every_schedule(UNDOING, TASKS[0], cancels, clock))
