"""Every verb that a person gives takes an actor, kept in the journal."""

from typing import Any

import pytest

from dotmac_workflows import Workflow, WorkflowResult
from workflows import Backend, Held, InTurn, Order, asks, events, fails, raises, within

ACTOR = "operator@example.com"


async def pauses(workflow: Order, name: str) -> WorkflowResult:
    await workflow.pause(actor=ACTOR)
    return WorkflowResult(True, name)


async def waiting(backend: Backend) -> Order:
    order = backend.order(does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    return order


async def failed(backend: Backend) -> Order:
    order = backend.order(does={"b": InTurn(fails(), None), "rollback_a": InTurn(fails(), None)})
    await order.execute()
    return order


async def paused(backend: Backend) -> Order:
    order = backend.order(does={"a": pauses})
    await order.execute()
    return order


VERBS: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "approve": (waiting, (), "Approved"),
    "approve_and_continue": (waiting, (), "Approved"),
    "reject": (waiting, (), "Rejected"),
    "reject_and_cancel": (waiting, (), "Rejected"),
    "cancel": (waiting, (), "CancelRequested"),
    "resume": (paused, (), "Resumed"),
    "retry_rollback": (failed, (), "RollbackRetried"),
    "skip_rollback": (failed, ("a", "by hand"), "RollbackWaived"),
}


async def actors(workflow: Workflow, kind: str) -> list[str | None]:
    return [getattr(event, "actor", None) for event in await events(workflow) if type(event).__name__ == kind]


@pytest.mark.parametrize("actor", [ACTOR, None])
@pytest.mark.parametrize("verb", VERBS)
async def test_the_actor_of_a_verb_is_kept_in_the_journal(backend: Backend, verb: str, actor: str | None) -> None:
    begin, arguments, kind = VERBS[verb]
    order = await begin(backend)
    await getattr(order, verb)(*arguments, actor=actor)
    assert await actors(order, kind) == [actor]
    assert await actors(await backend.again(order), kind) == [actor]


async def test_the_actor_of_a_pause_is_kept_in_the_journal(backend: Backend) -> None:
    assert await actors(await paused(backend), "PauseRequested") == [ACTOR]


@pytest.mark.parametrize("actor", [ACTOR, None])
async def test_the_actor_of_a_retry_is_kept_in_the_journal(backend: Backend, actor: str | None) -> None:
    order = await failed(backend)
    await order.retry_rollback()
    await order.retry(actor=actor)
    assert await actors(order, "Retried") == [actor]


async def test_an_actor_is_a_keyword_and_never_taken_for_something_else(backend: Backend) -> None:
    order = await waiting(backend)
    for verb in ("approve_and_continue", "reject_and_cancel", "approve", "reject", "pause", "cancel"):
        with pytest.raises(TypeError):
            await getattr(order, verb)(None, ACTOR)
    for verb in ("resume", "retry", "retry_rollback"):
        with pytest.raises(TypeError):
            await getattr(order, verb)(ACTOR)
    assert order.is_waiting_approval


async def test_nobody_is_recorded_for_what_the_engine_does_by_itself(backend: Backend) -> None:
    held = Held(raises(SystemExit()))
    order = backend.order(["a"], does={"a": held})
    held.go.set()
    with pytest.raises(SystemExit):
        await within(order.execute())
    order.does = {}
    await order.resume()
    named = [event for event in await events(order) if getattr(event, "actor", None) is not None]
    assert named == []
