"""What `prove` tells of a run, word for word: ``python -m testing.test_prove_timelines`` writes it anew, to be read."""

import re
from pathlib import Path

import pytest

from dotmac_workflows import Workflow, WorkflowResult
from dotmac_workflows.testing import ProofError, Scenario, prove
from testing.shop import Order, Shop

TOLD = Path(__file__).with_suffix(".txt")
SCHEDULES = [
    "clean rival@8",
    "clean crash@0",
    "clean disconnect@9",
    "fail:check",
    "fail:check crash@17",
    "fail:check crash@20",
    "fail:ship undo-fails:charge",
    "reject:check",
    "cancel-at:check",
    "approve-only:check",
    "approve-twice:check",
    "reject-first:check",
    "approve-first:check",
    "pause:charge crash@12",
    "cancel:charge crash@9",
    "clean crash@7 crash@10",
    "fail:charge freeze@2 wake@9",
]


class Budgeted(Order):
    """What it ships depends on what the approval brought."""

    async def execute_step(self, step: str) -> WorkflowResult:
        if step == "ship":
            assert self.approval_data == {"budget": "travel"}
        return await super().execute_step(step)


def told(schedule: str) -> str:
    """Return what is told of a schedule, by a check that fails when it is its turn."""
    runs, before = 0, 2 + (":" in schedule and "@" in schedule)  # two clean runs, and one that only departs

    def check(shop: Shop, order: Workflow) -> bool:
        nonlocal runs
        runs += 1
        return runs <= before

    scenario = Scenario(world=Shop, workflow=Budgeted, check=check, approval={"budget": "travel"})
    with pytest.raises(ProofError) as caught:
        prove(scenario, only=schedule)
    return re.sub(r"\S+ \(process \d+\)", "HOST (process PID)", str(caught.value))


def sections() -> dict[str, str]:
    """Return what is written of each schedule."""
    parts = TOLD.read_text(encoding="utf-8").split("\n=== ")
    return {head: text.rstrip("\n") for head, _, text in (part.partition("\n") for part in parts) if head}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_is_told_as_it_is_written(schedule: str) -> None:
    assert told(schedule) == sections()[schedule]


def test_every_section_is_of_a_schedule() -> None:
    assert list(sections()) == SCHEDULES


if __name__ == "__main__":
    TOLD.write_text("".join(f"\n=== {schedule}\n{told(schedule)}\n" for schedule in SCHEDULES), encoding="utf-8")
