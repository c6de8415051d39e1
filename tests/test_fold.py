"""Invariants 12 and 13: the state is the fold of the journal, for every prefix, and sequence numbers are dense."""

import asyncio
import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dotmac_workflows import InMemoryPersistence, Persistence, WorkflowExecutionError, WorkflowResult
from dotmac_workflows._core.actions import Action, Stop, Wait
from dotmac_workflows._core.decide import decide
from dotmac_workflows._core.events import Event
from dotmac_workflows._core.state import RunState, fold, replay
from dotmac_workflows._run.local import LocalHost
from dotmac_workflows._view import View
from dotmac_workflows.persistence import Header, LeaseChange, Record
from workflows import Behaviour, InTurn, Order, Store, asks, events, fails, nothing, raises


async def pauses(workflow: Order, name: str) -> WorkflowResult:
    await workflow.pause()
    return WorkflowResult(True, name)


async def cancels(workflow: Order, name: str) -> WorkflowResult:
    await workflow.cancel()
    return WorkflowResult(True, name)


FORWARD: dict[str, Behaviour | None] = {
    "succeeds": None,
    "asks": asks,
    "fails": fails(),
    "raises": raises(OSError("down")),
    "pauses": pauses,
    "cancels": cancels,
    "is left": raises(SystemExit()),
}
BACKWARD: dict[str, Behaviour | None] = {
    "undoes": None,
    "has none": nothing,
    "fails": fails(),
    "is left": raises(SystemExit()),
}
VERBS = "execute resume approve_and_continue reject_and_cancel approve reject pause cancel retry retry_rollback".split()


class Life(NamedTuple):
    """What happens to a run: its plan, what each step does in turn, and what callers ask of it."""

    steps: list[str]
    forward: dict[str, list[str]]
    backward: dict[str, list[str]]
    halt: bool
    continues: bool
    undoes_cancels: bool
    verbs: list[str]


@st.composite
def lives(draw: st.DrawFn) -> Life:
    steps = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
    names = sorted(set(steps))
    does = st.lists(st.sampled_from(sorted(FORWARD)), min_size=1, max_size=3)
    undoes = st.lists(st.sampled_from(sorted(BACKWARD)), min_size=1, max_size=3)
    return Life(
        steps,
        {name: draw(does) for name in names},
        {name: draw(undoes) for name in names},
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
        ["execute", *draw(st.lists(st.sampled_from([*VERBS, *VERBS[:3], "skip_rollback"]), max_size=8))],
    )


async def live(life: Life, persistence: Persistence | None) -> Order:
    """Let a run have its life; what is refused is refused."""
    does: dict[str, Behaviour] = {
        name: InTurn(*(FORWARD[what] for what in life.forward[name])) for name in life.forward
    }
    does |= {f"rollback_{name}": InTurn(*(BACKWARD[what] for what in life.backward[name])) for name in life.backward}
    order = Order("order-1", life.steps, {"n": 1}, persistence=persistence, does=does)
    order.configure(
        rollback_on_failure=not life.continues,
        continue_on_step_failure=life.continues,
        require_approval=True,
        rollback_on_cancel=life.undoes_cancels,
        on_rollback_failure="halt" if life.halt else "continue",
    )
    for verb in life.verbs:
        try:
            if verb == "skip_rollback":
                await order.skip_rollback(life.steps[0], "by hand")
            else:
                await getattr(order, verb)()
        except (WorkflowExecutionError, SystemExit):
            pass
    return order


class Seen:
    """What a live run had, as it went: each committed state, and what each commit of a driver was made of."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.states: list[tuple[int, RunState]] = []
        self.commits: list[tuple[int, int]] = []
        commit, publish = LocalHost.commit, View.publish

        async def watched_commit(host: LocalHost, state: RunState, committed: list[Event]) -> None:
            version = state.version
            await commit(host, state, committed)
            self.commits.append((version - len(committed), version))

        def watched_publish(view: View, attributes: dict[str, Any], state: RunState) -> None:
            self.states.append((state.version, copy.deepcopy(state)))
            publish(view, attributes, state)

        patch.setattr(LocalHost, "commit", watched_commit)
        patch.setattr(View, "publish", watched_publish)


def check_prefixes(journal: Sequence[Event], watched: Seen) -> None:
    for version, state in watched.states:
        assert replay("order-1", journal[:version]) == state
    for begin, end in watched.commits:
        assert any(decided_so(journal, split, end) for split in range(begin, end + 1))
    for end in range(1, len(journal) + 1):
        state = replay("order-1", journal[:end])
        before = copy.deepcopy(state)
        first, second = decide(state, 7), decide(state, 7)
        assert (first, state) == (second, before)
        settles(state)


def decided_so(journal: Sequence[Event], split: int, end: int) -> bool:
    """Tell whether the facts up to `split` lead a decision to exactly those up to `end`."""
    rest = list(journal[split:end])
    decided, _ = decide(replay("order-1", journal[:split]), rest[0].at if rest else 0)
    return decided == rest


def settles(state: RunState) -> Action:
    """Fold the decision in: what then stands still stays so."""
    decided, action = decide(state, 7)
    fold(state, decided)
    if isinstance(action, Stop | Wait):
        assert decide(state, 7) == ([], action)
    return action


@pytest.mark.parametrize("kept", ["in the object", "in a store"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(life=lives())
def test_fold_of_every_prefix_then_decide_equals_the_live_state(life: Life, kept: str) -> None:
    """Invariant 12."""

    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            watched = Seen(patch)
            order = await live(life, InMemoryPersistence() if kept == "in a store" else None)
        check_prefixes(await events(order), watched)
        assert watched.commits

    asyncio.run(run())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(life=lives())
def test_a_run_in_the_object_and_one_in_a_store_go_alike(life: Life) -> None:
    async def run() -> None:
        inside, stored = await live(life, None), await live(life, InMemoryPersistence())
        assert (inside.status, inside.rollback_status, inside.ledger, inside.current_step_index) == (
            stored.status,
            stored.rollback_status,
            stored.ledger,
            stored.current_step_index,
        )
        assert [type(event).__name__ for event in await events(inside)] == [
            type(event).__name__
            for event in await events(stored)
            if type(event).__name__ not in ("Claimed", "Released")
        ]

    asyncio.run(run())


class Watched:
    """Checks at each append that the journal only grows, densely."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.appends = 0

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        before = await self.inner.read(workflow_id)
        await self.inner.append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)
        after = await self.inner.read(workflow_id)
        assert after == [*before, *records]
        assert [record.seq for record in after] == list(range(1, len(after) + 1))
        self.appends += 1

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return await self.inner.read(workflow_id, after=after)

    async def delete(self, workflow_id: str) -> bool:
        return await self.inner.delete(workflow_id)


LIVES = [
    Life(list("abc"), {n: ["succeeds"] for n in "abc"}, {n: ["undoes"] for n in "abc"}, False, False, True, verbs)
    for verbs in (["execute"], ["execute", "execute"])
] + [
    Life(
        list("aba"),
        {"a": ["asks", "succeeds"], "b": ["fails", "pauses", "succeeds"]},
        {"a": ["fails", "undoes"], "b": ["has none"]},
        False,
        False,
        True,
        ["execute", "approve_and_continue", "retry_rollback", "retry", "resume", "cancel", "execute"],
    ),
    Life(
        list("abc"),
        {"a": ["is left", "succeeds"], "b": ["is left", "asks"], "c": ["cancels"]},
        {n: ["is left", "undoes"] for n in "abc"},
        True,
        False,
        True,
        ["execute", "execute", "resume", "approve", "resume", "resume", "resume", "resume"],
    ),
]


@pytest.mark.parametrize("life", LIVES)
async def test_sequence_numbers_are_dense_unique_and_append_only(store: Store, life: Life) -> None:
    """Invariant 13."""
    watched = Watched(store)
    await live(life, watched)
    records = await store.read("order-1")
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert watched.appends >= 4
    (header,) = await store.find()
    assert header.version == len(records)
    assert all(earlier.at <= later.at for earlier, later in pairwise(records))
