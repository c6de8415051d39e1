"""What data, metadata and approval data may hold: what a live run sees is what a resumed run sees."""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from dotmac_workflows import (
    Codec,
    CodecType,
    PayloadTooLargeError,
    ResultNotSerializableError,
    Runtime,
    WorkflowResult,
)
from workflows import Backend, Order, Store, asks, events, seen

EVERYTHING: dict[str, Any] = {
    "json": {"null": None, "true": True, "int": 10**30, "float": 0.1, "text": "é\u2028", "list": [1, [2]], "": {}},
    "datetime": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "naive": datetime(2026, 1, 2, 3, 4),
    "date": date(2026, 1, 2),
    "time": time(3, 4),
    "timedelta": timedelta(days=-1, microseconds=3),
    "decimal": Decimal("1.50"),
    "uuid": UUID(int=7),
    "bytes": b"\x00\xff",
    "tuple": (1, ("a",)),
    "set": {1, 2},
}


def spelled(value: Any) -> str:
    """A value with its types: 1.0 is not 1, and a tuple is no list."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {spelled(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return ("list" if isinstance(value, list) else "tuple") + "[" + ", ".join(map(spelled, value)) + "]"
    return repr(value)


async def test_all_types_come_back_live_and_resumed_alike(store: Store) -> None:
    live: list[str] = []

    def gives(workflow: Order, name: str) -> WorkflowResult:
        live.append(spelled(workflow.metadata))
        return WorkflowResult(True, name, dict(EVERYTHING), requires_approval=True)

    order = Backend(store).order(["a", "b"], metadata=dict(EVERYTHING), does={"a": gives})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve({**EVERYTHING})
    loaded = await Order.load("order-1", store)
    for one in (order, loaded):
        assert spelled(one.metadata) == spelled(EVERYTHING)
        assert spelled(one.results[0].data) == spelled(EVERYTHING)
        assert spelled(one.approval_data) == spelled(EVERYTHING)
    assert live == [spelled(EVERYTHING)]


async def test_what_a_live_run_sees_is_a_copy_as_a_resumed_run_would_see_it(store: Store) -> None:
    given: dict[str, Any] = {"list": [1]}
    order = Backend(store).order(
        ["a", "b"], metadata={"n": given}, does={"a": lambda workflow, name: WorkflowResult(True, name, given)}
    )
    await order.execute()
    given["list"].append(2)
    assert (order.results[0].data, order.metadata) == ({"list": [1]}, {"n": {"list": [1]}})


async def test_a_step_may_return_a_part_of_its_metadata(store: Store) -> None:
    def gives(workflow: Order, name: str) -> WorkflowResult:
        return WorkflowResult(True, name, {"address": workflow.metadata["address"], "all": dict(workflow.metadata)})

    metadata = {"address": {"street": "High Street", "numbers": [1, 2]}}
    order = Backend(store).order(["a"], metadata=metadata, does={"a": gives})
    await order.execute()
    assert (seen(order), order.results[0].data) == (
        ("completed", ["a"]),
        {"address": metadata["address"], "all": metadata},
    )
    other = Backend(store).order(order.steps, workflow_id="order-2", metadata=order.metadata, does={"a": gives})
    await other.execute()
    assert (seen(other), other.metadata) == (("completed", ["a"]), metadata)


class Node:
    """Something that no codec knows."""


CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"items": [{"price": 1}, {"price": math.nan}]}, "data.items[1].price"),
    "infinity": ({"n": -math.inf}, "data.n"),
    "a key that is no string": ({"n": {1: "a"}}, "data.n"),
    "an object": ({"node": Node()}, "data.node"),
    "a cycle": (CYCLE, "data.self"),
    "a split pair": ({"text": "\ud83d" + "\ude00"}, "data.text"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_would_not_come_back_is_a_failed_step_naming_the_path(store: Store, name: str) -> None:
    data, path = REFUSED[name]
    order = Backend(store).order(["a", "b"], does={"b": lambda workflow, step: WorkflowResult(True, step, data)})
    await order.execute()
    assert seen(order) == ("failed", ["a", "b!", "rollback_a"])
    assert order.results[1].error == "result_not_serializable"
    assert f"cannot be stored: {path} " in str(order.results[1].message)
    assert seen(await Order.load("order-1", store)) == seen(order)


@pytest.mark.parametrize("name", REFUSED)
async def test_metadata_that_would_not_come_back_is_refused_and_nothing_is_started(store: Store, name: str) -> None:
    data, path = REFUSED[name]
    order = Backend(store).order(["a"], metadata=data)
    with pytest.raises(ResultNotSerializableError) as caught:
        await order.execute()
    assert (caught.value.path, caught.value.workflow_id) == (path.replace("data", "metadata", 1), "order-1")
    assert (order.ledger, await store.read("order-1"), order.status.value) == ([], [], "pending")


async def test_the_default_limit_is_1_mib_a_value(store: Store) -> None:
    def order(size: int, workflow_id: str) -> Order:
        data = {"text": "x" * (size - len('{"text":""}'))}
        return Backend(store).order(
            ["a"], workflow_id=workflow_id, does={"a": lambda workflow, step: WorkflowResult(True, step, data)}
        )

    fits, large = order(1024 * 1024, "order-1"), order(1024 * 1024 + 1, "order-2")
    await fits.execute()
    await large.execute()
    assert (seen(fits), seen(large)) == (("completed", ["a"]), ("failed", ["a!"]))
    assert large.results[0].error == "payload_too_large"
    assert "1,048,577" in str(large.results[0].message)
    with pytest.raises(PayloadTooLargeError) as caught:
        await Backend(store).order(["a"], workflow_id="order-3", metadata={"text": "x" * 2**20}).execute()
    assert (caught.value.path, caught.value.limit) == ("metadata", 1024 * 1024)


@dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str


MONEY = CodecType(Money, "example.money", lambda m: [m.amount, m.currency], lambda pair: Money(*pair))


class Invoice(Order):
    runtime = Runtime(codec=Codec([MONEY]))


async def test_types_registered_with_the_codec_come_back(store: Store) -> None:
    price = Money(Decimal("9.90"), "EUR")
    order = Invoice(
        "order-1",
        ["a"],
        {"price": price},
        persistence=store,
        does={"a": lambda workflow, name: WorkflowResult(True, name, {"price": workflow.metadata["price"]})},
    )
    await order.execute()
    loaded = await Invoice.load("order-1", store)
    assert (loaded.metadata, loaded.results[0].data) == ({"price": price}, {"price": price})


async def test_a_stored_type_that_this_codec_does_not_know_is_said_and_nothing_is_built(store: Store) -> None:
    await Invoice("order-1", ["a"], {"price": Money(Decimal(1), "EUR")}, persistence=store).execute()
    before = await store.read("order-1")

    class Plain(Order):
        workflow_type = "Invoice"

    with pytest.raises(ResultNotSerializableError, match=r"example\.money.*does not know"):
        await Plain.load("order-1", store)
    assert await store.read("order-1") == before


async def test_a_run_in_its_object_holds_live_values() -> None:
    node = Node()
    order = Order("order-1", ["a", "b"], {"node": node}, does={"a": asks})
    order.configure(require_approval=True)
    await order.execute()
    await order.approve_and_continue({"node": node})
    assert order.approval_data is not None
    assert (order.metadata["node"], order.approval_data["node"]) == (node, node)
    assert [type(event).__name__ for event in await events(order)].count("Approved") == 1
