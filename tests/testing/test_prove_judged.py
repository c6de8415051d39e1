"""`prove` itself is judged: each kind of schedule finds something that no other does, and what it cannot do it says."""

import asyncio
import logging
import signal
import threading
import time
from typing import Any

import pytest

from dotmac_workflows import (
    AlreadyDecidedError,
    Persistence,
    Workflow,
    WorkflowConfigurationError,
    WorkflowExecutionError,
    WorkflowResult,
)
from dotmac_workflows._run import lease
from dotmac_workflows.testing import ProofError, Report, Scenario, prove, prove_async
from testing.shop import Order, Shop, scenario

EACH = (
    "fail undo-fails reject cancel-at approve-only approve-twice reject-first approve-first pause cancel disconnect "
    "crash rival freeze pair".split()
)


def without(*kinds: str) -> list[str]:
    """Return all kinds but some."""
    return [kind for kind in EACH if kind not in kinds]


def found(*args: Any, **options: Any) -> ProofError:
    with pytest.raises(ProofError) as caught:
        prove(*args, **options)
    return caught.value


# Faults of the engine that one kind of schedule finds, and none of the others.


def test_only_a_rival_finds_that_a_lease_is_not_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "is_free", lambda *args: True)
    assert found(scenario(), without=without("rival"), budget=300).schedule == "clean rival@1"
    assert prove(scenario(), without=without("crash", "pair"), budget=300).schedules > 100


def test_who_decides_twice_must_be_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    approve = Workflow.approve

    async def approve_quietly(self: Workflow, *args: Any, **options: Any) -> None:
        try:
            await approve(self, *args, **options)
        except AlreadyDecidedError:
            pass

    monkeypatch.setattr(Workflow, "approve", approve_quietly)
    error = found(scenario(), without=without("approve-twice"))
    assert (error.schedule, error.details[0][:31]) == ("approve-twice:check", "other@example.com approved a ga")
    assert prove(scenario(), without=without("approve-only", "reject")).schedules == 3


@pytest.mark.parametrize("kind", ["reject-first", "approve-first"])
def test_who_loses_a_race_must_be_told_so(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("approve_and_continue", "reject_and_cancel"):
        verb = getattr(Workflow, name)

        async def quietly(self: Workflow, *args: Any, verb: Any = verb, **options: Any) -> None:
            try:
                await verb(self, *args, **options)
            except AlreadyDecidedError:
                pass

        monkeypatch.setattr(Workflow, name, quietly)
    error = found(scenario(), without=without(kind))
    assert error.schedule == f"{kind}:check"
    assert error.details == ("two decided one gate, and nobody was told that somebody else came first",)


def test_a_decision_that_is_refused_without_a_race_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: Workflow, *args: Any, **options: Any) -> None:
        raise AlreadyDecidedError("Somebody else did.", workflow_id="proof")

    monkeypatch.setattr(Workflow, "approve_and_continue", refuse)
    error = found(scenario())
    assert error.details == ("approve_and_continue() raised AlreadyDecidedError: Somebody else did.",)


def test_a_process_that_wakes_may_be_told_that_it_was_overtaken_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*args: Any) -> Exception:
        return KeyError("token")

    monkeypatch.setattr("dotmac_workflows._run.local._lease_lost", lost)
    error = found(scenario(), without=without("freeze", "crash"), budget=400)
    assert error.details == ("the process that was frozen raised KeyError: 'token'",)
    assert prove(scenario(), without=without("crash", "pair", "rival"), budget=300).schedules > 100


def test_a_rollback_that_fails_again_and_again_is_told() -> None:
    class Stuck(Order):
        def undo_charge(self, key: str | None) -> None:
            raise RuntimeError("no connection")

    error = found(Scenario(world=Shop, workflow=Stuck))
    assert error.schedule == "fail:check"
    assert error.details == ("the rollback could not be finished: rollback_charge: step_execution_error",)
    assert error.advice.startswith("A rollback that fails leaves its step done")


class Sleepy(Order):
    """Takes its time over each step, so that heartbeats come; and looks whether it is done."""

    fault = "looks instead"

    async def execute_step(self, step: str) -> WorkflowResult:
        result = await super().execute_step(step)
        await asyncio.sleep(5)
        return result


def test_a_frozen_process_renews_nothing_and_acts_late() -> None:
    error = found(Scenario(world=Shop, workflow=Sleepy), only="fail:charge freeze@2")
    assert error.advice.startswith("Step 'reserve' ran once more in a process that had been frozen")


def test_a_run_that_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Workflow, *args: Any, **options: Any) -> None:
        pass

    monkeypatch.setattr(Workflow, "approve_and_continue", nothing)
    assert found(scenario()).details == ("the run did not end: it is waiting_approval after 60 verbs",)


def test_a_verb_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Workflow, *args: Any, **options: Any) -> None:
        raise WorkflowExecutionError("No.", workflow_id="proof")

    monkeypatch.setattr(Workflow, "approve_and_continue", fail)
    assert found(scenario()).details == ("approve_and_continue() raised WorkflowExecutionError: No.",)


def test_every_kind_comes_to_pass() -> None:
    report = prove(scenario(), budget=900)
    assert [part.name for part in report.rounds if part.run] == [
        "courses without a fault",
        "a call that fails",
        "one crash",
        "a rival",
        "a frozen process",
        "two crashes",
    ]
    assert 0 < report.struck < report.points


# What it is told.


@pytest.mark.parametrize(
    ("only", "says"),
    [
        ("", "it is empty, and the one in which nothing happens is 'clean'"),
        ("clean wake@2", "'wake' .* nobody is frozen before"),
        ("clean wake@2 freeze@5", "'wake' .* nobody is frozen before"),
        ("clean crash@3 freeze@3", "no two faults strike at one point"),
        ("clean freeze@10", "freeze@10 did not come to pass"),  # a call
        ("clean rival@10", "rival@10 did not come to pass"),
        ("clean disconnect@2", "disconnect@2 did not come to pass"),  # no call
        ("clean crash@999", "crash@999 did not come to pass"),
        ("fail:charge pause:charge", "pause:charge did not come to pass"),
        ("reject:check approve-only:check", "approve-only:check did not come to pass"),
        ("approve-first:ship", "approve-first:ship did not come to pass"),
    ],
)
def test_a_schedule_in_which_something_never_strikes_is_refused(only: str, says: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match=says):
        prove(scenario(), only=only)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": 10.5}, "the budget is 10.5"),
        ({"budget": "10"}, "the budget is '10'"),
        ({"budget": True}, "the budget is True"),
        ({"budget": None}, "the budget is None"),
        ({"seed": "one"}, "the seed is 'one'"),
        ({"only": 5}, "only is 5"),
        ({"without": "crash"}, "without is 'crash'"),
        ({"without": None}, "without is None"),
        ({"without": [3]}, "without names 3"),
        ({"progress": 3}, "progress is 3"),
    ],
)
async def test_wrong_options_are_refused_by_both(options: dict[str, Any], says: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match=says):
        prove(scenario(), **options)
    with pytest.raises(WorkflowConfigurationError, match=says):
        await prove_async(scenario(), **options)


def test_what_is_no_scenario_is_refused() -> None:
    with pytest.raises(WorkflowConfigurationError, match="'order' is no scenario"):
        prove("order")  # type: ignore[arg-type]


# What it says.


class Plain(Workflow):
    """Two steps, and no gate."""

    def __init__(self, shop: Shop, workflow_id: str, persistence: Persistence) -> None:
        super().__init__(workflow_id, ["reserve", "ship"], persistence=persistence)
        self.shop = shop

    async def execute_step(self, step: str) -> WorkflowResult:
        getattr(self, step)(self.step_context.idempotency_key)
        return WorkflowResult(True, step)

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        if step == "reserve":
            self.shop.release(self.workflow_id, self.step_context.idempotency_key)
        return WorkflowResult(True, step)

    def reserve(self, key: str) -> None:
        self.shop.reserve(self.workflow_id, key)
        self.reserved = True

    def ship(self, key: str) -> None:
        self.shop.ship(self.workflow_id, key)


def test_a_clean_run_that_fails_by_itself_is_not_told_of_lost_state() -> None:
    class Failing(Plain):
        def ship(self, key: str) -> None:
            raise RuntimeError("no courier")

    error = found(Scenario(world=Shop, workflow=Failing))
    assert error.details[2] == "step_execution_error: Step 'ship' failed: RuntimeError: no courier"
    assert error.advice == ""

    class Refusing(Plain):
        async def execute_step(self, step: str) -> WorkflowResult:
            return WorkflowResult(False, step, error="out_of_stock", message="no antenna left")

    class Silent(Plain):
        async def execute_step(self, step: str) -> WorkflowResult:
            return WorkflowResult(False, step)

    assert found(Scenario(world=lambda: None, workflow=Silent)).details[2] == "it does not say why"
    error = found(Scenario(world=lambda: None, workflow=Refusing))
    assert error.details == ("it ends failed", "and should end completed", "out_of_stock: no antenna left")
    assert error.advice == "If the run is meant to end so, say it: Scenario(..., ends=...)."


def test_state_that_is_lost_where_nothing_struck_is_told_so() -> None:
    class Forgetful(Plain):
        def ship(self, key: str) -> None:
            if getattr(self, "reserved", False):
                super().ship(key)

    error = found(Scenario(world=Shop, workflow=Forgetful))
    assert error.schedule == "pause:reserve"
    assert error.advice.startswith("Another process went on with it, and does not know what the first one knew.")


def test_an_effect_of_a_callback_is_told_of_as_one() -> None:
    class Telling(Plain):
        async def on_workflow_completed(self, results: list[WorkflowResult]) -> None:
            self.shop.charge(self.workflow_id, 50, "once")

    error = found(Scenario(world=Shop, workflow=Telling), without=["pause"])
    assert "after the end was recorded" in error.headline
    assert error.advice.startswith("Nothing ran twice. If it is an effect of on_workflow_completed: a callback is")


def test_what_was_not_run_is_said() -> None:
    report = prove(scenario(), budget=1, without=["disconnect", "freeze"])
    assert "a rival: none was run, the budget is too small" in report.not_covered
    said = prove(scenario(), without=["crash"], budget=9).not_covered
    assert "freeze and pair: left out, as they are drawn from what single crashes lead to" in said
    assert [part.exact for part in report.rounds if part.name == "two crashes"] == [False]
    assert "of at least " in str(report)


def test_a_scenario_that_is_another_one_each_time_is_told_so() -> None:
    runs: list[int] = []

    class Moody(Order):
        def do_reserve(self, key: str | None) -> None:
            super().do_reserve(key)
            if self.step_context.attempt > 1:
                runs.append(1)
                if len(runs) == 1:
                    super().do_reserve(None)

    with pytest.raises(WorkflowConfigurationError, match="not the same twice: .*stock is 3.* nothing was wrong"):
        prove(Scenario(world=Shop, workflow=Moody))

    class Restless(Order):
        def do_reserve(self, key: str | None) -> None:
            super().do_reserve(key)
            runs.append(1)
            if len(runs) % 40 < 20:
                self.shop.holds("nothing")

    with pytest.raises(WorkflowConfigurationError, match="not the same twice: .* did not come to pass"):
        prove(Scenario(world=Shop, workflow=Restless), budget=10_000, without=["disconnect"])


# Beside others.


async def test_two_proofs_at_once_take_turns() -> None:
    dates: set[int] = set()

    def check(shop: Shop, order: Workflow) -> None:
        dates.add(time.gmtime().tm_year)

    proofs = [prove_async(scenario(check=check), budget=60) for _ in range(3)]
    reports: list[Report] = await asyncio.gather(*proofs)
    assert {report.schedules for report in reports} == {82}
    assert dates <= {2026, 2027, 2028}
    assert not logging.getLogger("dotmac_workflows").filters


async def test_a_proof_that_is_cancelled_begins_no_schedule_more() -> None:
    worlds: list[Shop] = []
    begun = threading.Event()

    def world() -> Shop:
        worlds.append(Shop())
        if len(worlds) > 30:
            begun.set()
        return worlds[-1]

    proof = asyncio.ensure_future(prove_async(Scenario(world=world, workflow=Order)))
    waits = asyncio.ensure_future(prove_async(scenario()))
    await asyncio.to_thread(begun.wait)
    for task in (proof, waits):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(prove, scenario(), only="clean")  # which comes when that one has ended
    made = len(worlds)
    assert made < 1_000
    assert prove(scenario(), only="clean").schedules == 2
    assert len(worlds) == made


async def test_what_is_proved_proves_nothing() -> None:
    def check(shop: Shop, order: Workflow) -> None:
        prove(scenario())

    error = found(scenario(check=check))
    assert "prove() was called by what is being proved" in error.details[0]


async def test_ctrl_c_ends_a_proof_that_blocks_an_event_loop() -> None:
    checked: list[Shop] = []

    def check(shop: Shop, order: Workflow) -> None:
        checked.append(shop)
        if len(checked) == 20:
            signal.raise_signal(signal.SIGINT)

    def interrupted(*args: object) -> None:
        assert blocked is not None
        blocked.cancel()  # as asyncio does

    blocked = asyncio.current_task()
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        with pytest.raises(asyncio.CancelledError):
            prove(scenario(check=check))
    finally:
        signal.signal(signal.SIGINT, before)
        assert blocked is not None
        blocked.uncancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)  # the cancel is delivered at the next await as well
    assert len(checked) < 5_000


def test_what_other_threads_log_is_not_kept_back(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("dotmac_workflows")

    def check(shop: Shop, order: Workflow) -> None:
        thread = threading.Thread(target=logger.warning, args=("from a service beside it",))
        thread.start()
        thread.join()
        logger.warning("from the proof")

    prove(scenario(check=check), only="clean")
    assert {record.getMessage() for record in caplog.records} == {"from a service beside it"}
