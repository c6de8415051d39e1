"""The errors: how they derive from each other, and what they carry, also from one process to another."""

import copy
import inspect
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from dotmac_workflows import errors
from dotmac_workflows.errors import (
    AlreadyDecidedError,
    ConcurrencyError,
    JournalCorruptError,
    JournalTooNewError,
    LeaseLostError,
    PayloadTooLargeError,
    PersistenceError,
    ResultNotSerializableError,
    WorkflowConfigurationError,
    WorkflowDefinitionError,
    WorkflowError,
    WorkflowExecutionError,
    WorkflowNotFoundError,
)

PARENTS: dict[type[WorkflowError], type[Exception]] = {
    WorkflowError: Exception,
    WorkflowConfigurationError: WorkflowError,
    WorkflowExecutionError: WorkflowError,
    AlreadyDecidedError: WorkflowExecutionError,
    WorkflowDefinitionError: WorkflowExecutionError,
    WorkflowNotFoundError: WorkflowExecutionError,
    PersistenceError: WorkflowError,
    ConcurrencyError: PersistenceError,
    LeaseLostError: PersistenceError,
    JournalCorruptError: PersistenceError,
    JournalTooNewError: PersistenceError,
    ResultNotSerializableError: PersistenceError,
    PayloadTooLargeError: PersistenceError,
}
EXAMPLES: dict[str, Any] = {
    "workflow_id": "order-1",
    "step": "ship",
    "verdict": "approved",
    "actor": "approver@example.com",
    "decided_at": datetime(2026, 1, 1, tzinfo=UTC),
    "expected_version": 3,
    "stored_version": 4,
    "owner": "host-7:42:1:2:3",
    "seq": 5,
    "path": "data.items[3].price",
    "size": 2_000_000,
    "limit": 1_048_576,
}


def carried(kind: type[WorkflowError]) -> dict[str, Any]:
    """Return an example of everything that an error of a class can carry."""
    return {name: EXAMPLES[name] for name in inspect.signature(kind).parameters if name != "message"}


def test_these_are_all() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == set(PARENTS)


@pytest.mark.parametrize("kind", PARENTS)
def test_they_derive_from_each_other_as_documented(kind: type[WorkflowError]) -> None:
    assert kind.__bases__ == (PARENTS[kind],)


@pytest.mark.parametrize("kind", PARENTS)
def test_what_they_carry_is_an_attribute_and_none_where_it_was_not_said(kind: type[WorkflowError]) -> None:
    error = kind("What happened.", **carried(kind))
    assert {name: getattr(error, name) for name in carried(kind)} == carried(kind)
    assert (str(error), error.args) == ("What happened.", ("What happened.",))
    assert "workflow_id" in carried(kind)
    silent = kind()
    assert {getattr(silent, name) for name in carried(kind)} == {None}
    assert (silent.workflow_id, silent.step) == (None, None)


@pytest.mark.parametrize("kind", PARENTS)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_they_travel_whole(kind: type[WorkflowError], way: Any) -> None:
    """To another process, as an executor's errors do."""
    error = kind("What happened.", **carried(kind))
    other = way(error)
    assert type(other) is kind
    assert str(other) == "What happened."
    assert vars(other) == vars(error)
