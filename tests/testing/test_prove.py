"""`prove` finds what people get wrong, tells it in words, and is silent where nothing is wrong."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import dotmac_workflows
from core.test_crash_schedules import FAULTS
from dotmac_workflows import Persistence, Workflow, WorkflowConfigurationError, WorkflowResult, WorkflowStatus
from dotmac_workflows.testing import ProofError, Round, Scenario, prove, prove_async
from testing.shop import Order, Shop, scenario


def test_a_right_workflow_holds() -> None:
    report = prove(scenario(), budget=1_000)
    assert report.scenario == "Order"
    assert [(round.name, round.run == round.total) for round in report.rounds] == [
        ("courses without a fault", True),
        ("a call that fails", True),
        ("one crash", True),
        ("a rival", False),
        ("a frozen process", False),
        ("two crashes", False),
    ]
    courses, _, crashes = report.rounds[:3]
    # clean, 4 failures, 6 ways to decide the gate, 4 pauses, 4 cancels, the rollbacks of 3 steps failing once
    assert courses.total == 1 + 4 + 6 + 4 + 4 + 3
    assert crashes.total == report.points
    assert report.schedules == courses.run + 1_000
    assert set(report.steps) == {"reserve", "charge", "check", "ship"}
    assert set(report.rollbacks) == {"reserve", "charge", "check", "ship"}
    assert min([*report.steps.values(), *report.rollbacks.values()]) > 20
    assert report.gates == ("check",)
    assert report.not_covered == ()


_NOT_PAID = "step_execution_error: Step 'ship' failed: AttributeError: 'Order' object has no attribute 'paid'"


@pytest.mark.parametrize(
    ("fault", "schedule", "headline", "details", "advice"),
    [
        (
            "not idempotent",
            "clean crash@10",
            "A crash in step 'charge', after Shop.charge() and before that was recorded. "
            "Step 'charge' ran again, with the same idempotency key.",
            ("the world shows  charges is [50, 50]", "and should show  charges is [50]"),
            "Step 'charge' is not idempotent.",
        ),
        (
            "no rollback",
            "fail:check",
            "Step 'check' fails.",
            ("the world shows  charges is [50]", "and should show  charges is []"),
            "Step 'charge' has no rollback",
        ),
        (
            "incomplete rollback",
            "fail:ship",
            "Step 'ship' fails.",
            ("the world shows  parcels is ['label']", "and should show  parcels is []"),
            "Step 'check' has no rollback",
        ),
        (
            "rollback not idempotent",
            "fail:check crash@20",
            "Step 'check' fails; then a crash in the rollback of 'charge', after Shop.refund_blindly() and before "
            "that was recorded. The rollback of 'charge' ran again, with the same idempotency key.",
            ("the world shows  charges is [-50]", "and should show  charges is []"),
            "The rollback of 'charge' is not idempotent.",
        ),
        (
            "state",
            "clean",
            "In a clean run, where nothing strikes and every gate is approved.",
            ("it ends failed", "and should end completed", _NOT_PAID),
            "Behind a gate, another process goes on. What a step keeps in the object is lost with the process",
        ),
        (
            "clock",
            "clean crash@10",
            "A crash in step 'charge', after Shop.charge() and before that was recorded. Step 'charge' ran again, "
            "with the same idempotency key. Where no time passes in between, all is well.",
            (
                "'charge' had called Shop.charge('proof', 50, '<run>:f:1:charge')",
                "and when it ran again Shop.charge('proof', 60, '<run>:f:1:charge')",
            ),
            "It depends on the clock",
        ),
        (
            "ends otherwise",
            "clean crash@10",
            "A crash in step 'charge', after Shop.charge() and before that was recorded. Step 'charge' ran again, with "
            "the same idempotency key.",
            (
                "it ends failed, rollback done",
                "and should end completed",
                "charge: failed (step_execution_error)",
                "rollback_reserve: done",
                "charge: done is not there",
                "check: done is not there",
                "ship: done is not there",
            ),
            "Step 'charge' is not idempotent.",
        ),
        (
            "outcome unknown",
            "cancel:charge crash@9",
            "The run is cancelled while 'charge' runs; then a crash in step 'charge', before Shop.charge().",
            ("the world shows  charges is [-50]", "and should show  charges is []"),
            "The crash left it unknown whether the step had its effect",
        ),
    ],
)
def test_a_fault_is_caught_and_told(
    fault: str, schedule: str, headline: str, details: tuple[str, ...], advice: str
) -> None:
    with pytest.raises(ProofError) as caught:
        prove(scenario(fault), budget=1_000)
    told = caught.value
    assert (told.schedule, told.headline, told.details) == (schedule, headline, details)
    assert told.advice.startswith(advice)
    assert str(told).startswith(f"Order does not hold.\n\n{headline}\n  {details[0]}\n")
    assert str(told).endswith(f"Once more: prove(..., only={schedule!r})")
    # The schedule runs just that one again, and it is told alike.
    with pytest.raises(ProofError) as once_more:
        prove(scenario(fault), only=schedule)
    assert str(once_more.value) == str(told)


def test_a_process_that_was_frozen_acts_late_and_looking_does_not_help() -> None:
    late = "fail:charge freeze@2"
    with pytest.raises(ProofError) as caught:
        prove(scenario("looks instead"), only=late)
    assert caught.value.headline == (
        "Step 'charge' fails; then the process is frozen past its lease before step 'reserve' ran. Step 'reserve' ran "
        "again, with the same idempotency key."
    )
    assert caught.value.details == ("the world shows  stock is 4", "and should show  stock is 5")
    assert caught.value.advice.startswith("Step 'reserve' ran once more in a process that had been frozen")
    prove(scenario(), only=late)


def test_under_one_key_a_step_must_ask_for_the_same_again() -> None:
    with pytest.raises(ProofError) as caught:
        prove(scenario("random amount"))
    assert caught.value.schedule == "clean crash@10"
    assert caught.value.details[0].startswith("'charge' had called Shop.charge('proof', 0.")
    assert caught.value.details[1].startswith("and when it ran again Shop.charge('proof', 0.")
    assert caught.value.advice.startswith("A step that runs again has to ask for the same")


# What a user's check and observe say.


def test_a_check_is_asked_at_the_end_of_every_schedule() -> None:
    ends: list[tuple[WorkflowStatus, list[float]]] = []

    async def check(shop: Shop, order: Workflow) -> None:
        ends.append((order.status, list(shop.charges)))
        assert order.is_completed == (shop.charges == [50])

    report = prove(scenario(check=check), budget=20)
    assert len(ends) == report.schedules + 1, "and of the second clean run"
    assert {status for status, _ in ends} == {
        WorkflowStatus.COMPLETED,
        WorkflowStatus.FAILED,
        WorkflowStatus.CANCELLED,
    }


def test_a_check_that_fails_is_told_with_its_line() -> None:
    def check(shop: Shop, order: Workflow) -> None:
        assert shop.stock == 5, "nothing may leave the shelf"

    with pytest.raises(ProofError) as caught:
        prove(scenario(check=check))
    assert caught.value.schedule == "clean"
    assert caught.value.details[0].startswith('the check says assert shop.stock == 5, "nothing may leave the shelf"')
    assert isinstance(caught.value.__cause__, AssertionError)


def test_what_is_observed_may_be_a_dictionary() -> None:
    with pytest.raises(ProofError) as caught:
        prove(scenario("no rollback", observe=lambda shop: {"paid": {"in all": sum(shop.charges)}}))
    assert caught.value.details[0] == "the world shows  paid['in all'] is 50"


def test_a_scenario_has_the_name_of_its_workflow_or_its_own() -> None:
    with pytest.raises(ProofError, match="^Order does not hold"):
        prove(scenario("state"))
    with pytest.raises(ProofError, match="^selling does not hold"):
        prove(scenario("state", name="selling"))


def test_observe_says_what_counts() -> None:
    scenarios = scenario("no rollback", observe=lambda shop: shop.stock)
    assert prove(scenarios, budget=50).schedules > 50, "charges do not count"


def test_a_run_that_is_meant_to_fail_says_so() -> None:
    class Lost(Order):
        def do_ship(self, key: str | None) -> None:
            raise RuntimeError("no courier")

    lost = Scenario(world=Shop, workflow=Lost, ends=WorkflowStatus.FAILED)
    assert prove(lost, budget=50).rollbacks.keys() == {"reserve", "charge", "check"}
    with pytest.raises(ProofError, match="it ends completed\n  and should end failed"):
        prove(scenario(ends=WorkflowStatus.FAILED))


# The world.


class Courier:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self._keys: set[str] = set()

    async def send(self, parcel: str, *, key: str) -> str:
        await asyncio.sleep(10)
        if key not in self._keys:
            self._keys.add(key)
            self.sent.append(parcel)
        return f"{parcel} is on its way"


class Town:
    def __init__(self) -> None:
        self.couriers = {"north": Courier()}
        self.entered = 0

    def __enter__(self) -> "Town":
        self.entered += 1
        return self

    def __exit__(self, *error: object) -> None:
        self.entered -= 1


class Delivery(Workflow):
    keyed = True

    def __init__(self, town: Town, workflow_id: str, persistence: Persistence) -> None:
        super().__init__(workflow_id, ["send", "note"], persistence=persistence)
        self.configure(rollback_on_failure=False)
        self.town = town

    async def execute_step(self, step: str) -> WorkflowResult:
        assert self.town.entered == 1
        if step == "send":
            key = self.step_context.idempotency_key if self.keyed else str(id(self))
            await self.town.couriers["north"].send("parcel", key="k" if not self.keyed else key)
        else:
            await asyncio.to_thread(self.town.couriers.keys)
        return WorkflowResult(True, step)


def test_a_world_may_be_async_nested_and_a_context_and_steps_may_sleep_and_use_threads() -> None:
    made: list[Town] = []

    def world() -> Town:
        made.append(Town())
        return made[-1]

    report = prove(Scenario(world=world, workflow=Delivery), budget=60)
    assert {town.entered for town in made} == {0}
    assert report.not_covered == (
        "gates: no step of the clean run asks for an approval",
        "rollback: no schedule undoes anything (rollback_on_failure is off, or no step fails)",
    )


def test_a_call_of_the_world_is_a_point_and_what_a_fake_does_inside_it_is_none() -> None:
    class Bank:
        def __init__(self) -> None:
            self.paid = 0

        def pay(self, amount: int) -> None:
            self.add(amount)

        def add(self, amount: int) -> None:
            self.paid += amount

    class Payment(Workflow):
        def __init__(self, bank: Bank, workflow_id: str, persistence: Persistence) -> None:
            super().__init__(workflow_id, ["pay"], persistence=persistence)
            self.bank = bank

        async def execute_step(self, step: str) -> WorkflowResult:
            if not self.bank.paid:
                self.bank.pay(50)
            return WorkflowResult(True, step)

    report = prove(Scenario(world=Bank, workflow=Payment), without=["fail", "cancel", "pause", "pair", "freeze"])
    # before and after: the append that starts it, the step, the call, the append that ends it
    assert report.points == 8


def test_a_dead_process_has_no_effect_in_its_finally_blocks() -> None:
    class Locked(Order):
        def do_charge(self, key: str | None) -> dict[str, Any]:
            charged = False
            try:
                done = super().do_charge(key)
                charged = True
                return done
            finally:
                if not charged:
                    self.shop.ship("a parcel of the dead", "once")

    assert prove(Scenario(world=Shop, workflow=Locked), budget=300, without=["disconnect"]).schedules > 300


def test_what_a_step_calls_after_a_call_that_raised_is_seen() -> None:
    class Lists:
        def __init__(self) -> None:
            self.users: list[str] = []
            self.mails: list[str] = []

        def find(self, name: str) -> str:
            if name not in self.users:
                raise LookupError(name)
            return name

        def add(self, name: str) -> None:
            self.users.append(name)

        def mail(self, name: str) -> None:
            self.mails.append(name)

    class Welcome(Workflow):
        def __init__(self, workflow_id: str, *, lists: Lists, **options: Any) -> None:
            super().__init__(workflow_id, steps=["welcome"], **options)
            self.lists = lists

        async def execute_step(self, step: str) -> WorkflowResult:
            try:
                self.lists.find("somebody")
            except LookupError:
                self.lists.add("somebody")
                self.lists.mail("somebody")
            return WorkflowResult(True, step)

    def welcome(lists: Lists, workflow_id: str, persistence: Any) -> Welcome:
        return Welcome(workflow_id, lists=lists, persistence=persistence)

    with pytest.raises(ProofError, match="after Lists.add"):
        prove(Scenario(world=Lists, workflow=welcome), without=["disconnect"])


def test_a_step_that_swallows_everything_dies_all_the_same() -> None:
    class Stubborn(Order):
        async def execute_step(self, step: str) -> WorkflowResult:
            try:
                return await super().execute_step(step)
            except BaseException:
                return WorkflowResult(False, step, error="swallowed")

    assert prove(Scenario(world=Shop, workflow=Stubborn), budget=300).schedules > 300


def test_steps_in_a_task_group_die_too() -> None:
    class Parallel(Order):
        async def execute_step(self, step: str) -> WorkflowResult:
            async with asyncio.TaskGroup() as tasks:
                done = tasks.create_task(super().execute_step(step))
            return done.result()

    assert prove(Scenario(world=Shop, workflow=Parallel), budget=300).schedules > 300


# Other settings and plans, all of them right.


class Twice(Workflow):
    """Comes by one step twice, and has two gates."""

    settings: dict[str, Any]

    def __init__(self, shop: Shop, workflow_id: str, persistence: Persistence) -> None:
        super().__init__(workflow_id, ["reserve", "charge", "reserve:1", "charge"], persistence=persistence)
        self.configure(require_approval=True, **self.settings)
        self.shop = shop

    async def execute_step(self, step: str) -> WorkflowResult:
        context = self.step_context
        thing = f"{step} {context.visit}"
        if step == "charge":
            self.shop.charge(thing, 50, context.idempotency_key)
        else:
            self.shop.reserve(thing, context.idempotency_key)
        return WorkflowResult(True, step, requires_approval=step == "charge")

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        if step == "charge":
            self.shop.refund_the_last(self.step_context.idempotency_key)
        else:
            self.shop.release_the_last(step, self.step_context.idempotency_key)
        return WorkflowResult(True, step)


@pytest.mark.parametrize(
    "settings",
    [
        {"rollback_on_cancel": True},
        {"rollback_on_cancel": False},
        {"rollback_on_failure": False},
        {"rollback_on_failure": False, "continue_on_step_failure": True},
        {"on_rollback_failure": "halt", "rollback_on_cancel": True},
    ],
)
def test_other_settings_and_a_step_that_comes_twice(settings: dict[str, Any]) -> None:
    kind: Callable[..., Twice] = type("Twice", (Twice,), {"settings": settings})
    report = prove(Scenario(world=Shop, workflow=kind), budget=500)
    assert report.gates == ("charge",)
    assert sum(step.startswith("reserve") for step in report.steps) == 2


def test_a_step_that_comes_twice_fails_at_either_time() -> None:
    def check(shop: Shop, run: Workflow) -> None:
        assert len(run.results) != 7

    kind: Callable[..., Twice] = type("Twice", (Twice,), {"settings": {}})
    with pytest.raises(ProofError) as caught:
        prove(Scenario(world=Shop, workflow=kind, check=check))
    assert caught.value.schedule == "fail:charge:2"


def test_a_rollback_that_is_retried_has_another_key() -> None:
    class Fixed(Order):
        def undo_charge(self, key: str | None) -> None:
            if self.step_context.visit == 1:
                super().undo_charge(key)

    with pytest.raises(ProofError) as caught:
        prove(Scenario(world=Shop, workflow=Fixed))
    assert caught.value.schedule == "fail:ship undo-fails:charge"
    assert caught.value.advice.startswith("The rollback of 'charge' was retried: it had another visit")


def test_who_finds_that_the_frozen_process_came_first_is_told_so_and_that_is_well() -> None:
    """Two retry the rollback, and the one that was frozen wakes and does it all before the other has begun."""
    report = prove(scenario(), only="fail:charge undo-fails:reserve freeze@16 wake@17")
    assert report.rounds == (Round("the schedule asked for", 1, 1),)


# What cannot be proved.


def test_a_proof_of_nothing_is_an_error() -> None:
    class Nothing(Workflow):
        def __init__(self, world: object, workflow_id: str, persistence: Persistence) -> None:
            super().__init__(workflow_id, [], persistence=persistence)

    with pytest.raises(WorkflowConfigurationError, match="cannot start: empty_steps"):
        prove(Scenario(world=object, workflow=Nothing))


def test_a_scenario_must_be_the_same_twice() -> None:
    numbers = iter(range(100))
    with pytest.raises(WorkflowConfigurationError, match="not alike: the world shows  5; and should show  2"):
        prove(scenario(observe=lambda shop: next(numbers)))


@pytest.mark.parametrize(
    ("workflow", "says"),
    [
        (lambda shop, workflow_id, store: "order", "returned str"),
        (lambda shop, workflow_id, store: Order(shop, "other", store), "another id"),
        (lambda shop, workflow_id, store: Order(shop, workflow_id, dotmac_workflows.InMemoryPersistence()), "another"),
    ],
)
def test_a_workflow_must_be_one_over_what_it_is_given(workflow: Callable[..., Any], says: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match=says):
        prove(Scenario(world=Shop, workflow=workflow))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": 0}, "the budget is 0"),
        ({"without": ["fial"]}, "without names fial"),
        ({"only": "fail"}, "'fail' in the schedule 'fail' cannot be read"),
        ({"only": "crash@x"}, "'crash@x' in the schedule"),
        ({"only": "explode@3"}, "'explode@3' in the schedule"),
        ({"only": "'"}, "No closing quotation"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], says: str) -> None:
    with pytest.raises(WorkflowConfigurationError, match=says):
        prove(scenario(), **options)


# Options.


def test_one_schedule_runs_alone() -> None:
    report = prove(scenario(), only="fail:ship crash@12 crash@20")
    assert (report.schedules, report.rounds[-1].name) == (3, "the schedule asked for")


@pytest.mark.parametrize("schedule", ["fail:pay", "fail:ship:2", "clean crash@999", "undo-fails:ship"])
def test_a_schedule_of_another_scenario_is_told(schedule: str) -> None:
    with pytest.raises(
        WorkflowConfigurationError, match=f"another scenario.*{schedule.split()[-1]} did not come to pas"
    ):
        prove(scenario(), only=schedule)


def test_what_is_left_out_is_said() -> None:
    report = prove(scenario(), without=["freeze", "rival", "pair", "cancel", "clock", "disconnect"], budget=50)
    assert [round.name for round in report.rounds] == ["courses without a fault", "one crash"]
    assert report.not_covered == (
        *(f"{kind}: left out" for kind in ("cancel", "clock", "disconnect", "freeze", "pair", "rival")),
        "the rollback of ship: nothing fails, is rejected or cancelled behind it",
    )
    assert prove(scenario("clock"), without=["clock"], budget=50).schedules > 50


def test_samples_are_drawn_by_the_seed() -> None:
    def schedules_of(seed: int) -> list[tuple[str, ...]]:
        ran: list[tuple[str, ...]] = []
        prove(scenario(check=lambda shop, order: ran.append(tuple(shop.parcels))), budget=100, seed=seed)
        return ran

    assert schedules_of(1) == schedules_of(1)
    assert schedules_of(1) != schedules_of(2)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    report = prove(scenario(), budget=300, progress=lambda done, planned: told.append((done, planned)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1][1] == report.schedules
    assert len(told) >= report.schedules // 64


async def test_it_works_inside_of_an_event_loop() -> None:
    assert prove(scenario(), only="clean").schedules == 2
    assert (await prove_async(scenario(), only="clean")).schedules == 2
    with pytest.raises(ProofError):
        prove(scenario("not idempotent"))


def test_the_report_is_a_table() -> None:
    report = prove(scenario(), budget=200, without=["clock"])
    totals = {round.name: f"{round.total:,}" for round in report.rounds}
    lines = str(report).splitlines()
    assert lines[0].startswith("Order: 222 schedules were run, and all held (")
    assert lines[1:9] == [
        "",
        "  courses without a fault         22",
        "  a call that fails                5",
        f"  one crash                      145 of {totals['one crash']}, drawn by seed 0",
        f"  a rival                         16 of {totals['a rival']}, drawn by seed 0",
        f"  a frozen process                17 of at least {totals['a frozen process']}, drawn by seed 0",
        f"  two crashes                     17 of at least {totals['two crashes']}, drawn by seed 0",
        "",
    ]
    struck = f"{report.struck} of them struck"
    assert lines[9].split() == f"points to die at {totals['one crash']}, {struck}".split()
    assert 145 <= report.struck < report.points
    assert lines[-2:] == ["  Not covered:", "    clock: left out"]


# The engine is judged as well.

NOT_IN_A_SCENARIO = {
    "no halt",  # needs on_rollback_failure="halt"
    "a retry that does all again",  # nobody retries a run
}


@pytest.mark.parametrize("fault", FAULTS.keys() - NOT_IN_A_SCENARIO)
def test_a_fault_of_the_engine_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, _ = FAULTS[fault]
    plant(monkeypatch)
    with pytest.raises(ProofError):
        prove(scenario(), budget=900)
