"""The public names: a change to these lists is a change that users see."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dotmac_workflows
from dotmac_workflows import errors, persistence, testing
from dotmac_workflows.persistence import sqlite

PACKAGE = """
    AlreadyDecidedError AsyncWorkflowCallback Clock Codec CodecType ConcurrencyError InMemoryPersistence
    InMemoryStateStore JournalCorruptError JournalTooNewError LeaseLostError PayloadTooLargeError Persistence
    PersistenceError Recovered ResultNotSerializableError Runtime SQLitePersistence StepContext StepName Verification
    Workflow WorkflowCallback WorkflowConfigurationError WorkflowDefinitionError WorkflowError WorkflowExecutionError
    WorkflowId WorkflowNotFoundError WorkflowResult WorkflowStateStore WorkflowStatus recover verify
""".split()

PERSISTENCE = """
    Checks Header InMemoryPersistence InMemoryStateStore Lease LeaseChange Leases Persistence Queries Record
    SQLitePersistence WorkflowStateStore
""".split()

WORKFLOW = """
    approve approve_and_continue cancel configure continue_on_step_failure current_step_index execute execute_step
    execution_time from_dict is_completed is_failed is_waiting_approval load metadata on_approval_required
    on_rollback_completed on_rollback_failure on_rollback_started on_step_completed on_step_started
    on_workflow_cancelled on_workflow_completed on_workflow_failed pause pending_approval_step persistence reject
    reject_and_cancel require_approval results resume retry retry_rollback rollback_on_cancel rollback_on_failure
    rollback_status rollback_step runtime skip_rollback status step_context steps to_dict to_mermaid validate
    workflow_id workflow_type approval_data
""".split()

SIGNATURES = {
    "__init__": "(self, workflow_id=None, steps=None, metadata=None, *, persistence=None)",
    "configure": "(self, rollback_on_failure=True, continue_on_step_failure=False, require_approval=False, *, "
    "rollback_on_cancel=False, on_rollback_failure='continue')",
    "validate": "(self)",
    "execute_step": "(self, step)",
    "rollback_step": "(self, step)",
    "execute": "(self)",
    "approve_and_continue": "(self, approval_data=None, *, actor=None)",
    "reject_and_cancel": "(self, reason=None, *, actor=None)",
    "approve": "(self, data=None, *, actor=None)",
    "reject": "(self, reason=None, *, actor=None)",
    "resume": "(self, *, actor=None)",
    "pause": "(self, reason=None, *, actor=None)",
    "cancel": "(self, reason=None, *, actor=None)",
    "retry": "(self, *, actor=None)",
    "retry_rollback": "(self, *, actor=None)",
    "skip_rollback": "(self, step, reason, *, actor=None)",
    "load": "(workflow_id, persistence, **init)",
    "from_dict": "(data, **init)",
    "to_dict": "(self)",
    "to_mermaid": "(self)",
}


def test_the_names_of_the_package_are_these() -> None:
    assert sorted(dotmac_workflows.__all__) == sorted(PACKAGE)
    assert dotmac_workflows.__version__ == "1.0.0"


def test_the_names_of_persistence_are_these() -> None:
    assert sorted(persistence.__all__) == sorted(PERSISTENCE)
    assert sqlite.__all__ == ["SQLitePersistence"]


def test_the_names_of_testing_hold_the_clock_and_the_contract_of_a_backend() -> None:
    names = "CheckedClause FakeClock PersistenceContractError PersistenceReport check_persistence"
    assert set(names.split()) <= set(testing.__all__)


@pytest.mark.parametrize("module", ["dotmac_workflows", "dotmac_workflows.persistence", "dotmac_workflows.testing"])
def test_every_public_name_is_there_and_is_shown_by_dir(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None
        assert name in dir(loaded)


def test_the_public_members_of_workflow_are_these() -> None:
    members = {name for name in dir(dotmac_workflows.Workflow) if not name.startswith("_")}
    annotated = {name for name in inspect.get_annotations(dotmac_workflows.Workflow) if not name.startswith("_")}
    assert sorted(members | annotated) == sorted(WORKFLOW)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_of_the_contract_are_these(name: str) -> None:
    signature = inspect.signature(getattr(dotmac_workflows.Workflow, name))
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    assert str(inspect.Signature(plain)) == SIGNATURES[name]


def test_the_errors_are_these_and_each_is_importable_from_the_package() -> None:
    tree = {
        name: [base.__name__ for base in thing.__bases__]
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception)
    }
    execution, kept = ["WorkflowExecutionError"], ["PersistenceError"]
    assert tree == {
        "WorkflowError": ["Exception"],
        "WorkflowConfigurationError": ["WorkflowError"],
        "WorkflowExecutionError": ["WorkflowError"],
        "AlreadyDecidedError": execution,
        "WorkflowDefinitionError": execution,
        "WorkflowNotFoundError": execution,
        "PersistenceError": ["WorkflowError"],
        "ConcurrencyError": kept,
        "LeaseLostError": kept,
        "JournalCorruptError": kept,
        "JournalTooNewError": kept,
        "ResultNotSerializableError": kept,
        "PayloadTooLargeError": kept,
    }
    assert all(getattr(dotmac_workflows, name) is getattr(errors, name) for name in tree)


def test_every_error_has_the_ids_as_attributes() -> None:
    for name, error in vars(errors).items():
        if inspect.isclass(error) and issubclass(error, errors.WorkflowError):
            assert (error("text").workflow_id, str(error("text", workflow_id="w"))) == (None, "text"), name
            assert error("text", workflow_id="order-1").workflow_id == "order-1"
            assert error("text").step is None


@pytest.mark.parametrize("module", ["dotmac_workflows", "dotmac_workflows.persistence"])
def test_sqlite_persistence_is_there_without_importing_sqlite3_before_it_is_asked_for(module: str) -> None:
    program = f"""
import sys
import {module} as module
assert "SQLitePersistence" in module.__all__
assert "SQLitePersistence" in dir(module)
assert "sqlite3" not in sys.modules, "imported by the package alone"
assert module.SQLitePersistence.__name__ == "SQLitePersistence"
assert "sqlite3" in sys.modules
from {module} import SQLitePersistence, InMemoryPersistence
from {module} import *
assert SQLitePersistence is module.SQLitePersistence
try:
    module.nothing_of_the_kind
except AttributeError as error:
    assert str(error) == "module '{module}' has no attribute 'nothing_of_the_kind'", error
else:
    raise AssertionError
"""
    source = Path(__file__).resolve().parents[1] / "src"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", [dotmac_workflows, persistence])
def test_a_name_that_there_is_not_is_said_by_its_module(module: ModuleType) -> None:
    with pytest.raises(AttributeError) as caught:
        _ = module.nothing_of_the_kind
    assert str(caught.value) == f"module {module.__name__!r} has no attribute 'nothing_of_the_kind'"


def test_no_member_of_the_package_is_public_by_accident() -> None:
    """Every name without an underscore is in __all__ or a module."""
    stray = [
        name
        for name, thing in vars(dotmac_workflows).items()
        if not name.startswith("_") and name not in dotmac_workflows.__all__ and not inspect.ismodule(thing)
    ]
    assert stray == ["TYPE_CHECKING"]
