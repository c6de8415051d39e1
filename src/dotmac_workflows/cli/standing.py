"""Where a stored run stands, read without its class, and what to do about it."""

import shlex
from dataclasses import replace
from typing import Any, NamedTuple

from .._core.commands import show_time
from .._core.state import RunState
from .._run import lease
from .._run.journal import check_digests, read_state
from .._verbs import Verbs
from ..base import Workflow
from ..errors import WorkflowNotFoundError
from ..persistence import Record
from ..status import WorkflowStatus
from ..values import Codec
from .loading import WatchedStore


class PlainCodec(Codec):
    """Reads values as the JSON that they are written in, so that no type of the user's has to be known."""

    def _revive(self, value: Any) -> Any:
        return value


class Standing(NamedTuple):
    """A run, as its journal says it stands."""

    records: list[Record]
    state: RunState
    driver: str | None
    """Which living process drives it, and until when its lease holds."""


async def read_standing(store: WatchedStore, workflow_id: str) -> Standing | None:
    """Read a run; None: the store does not know it.

    Raises:
        JournalCorruptError: Its journal is damaged.
        JournalTooNewError: A newer version wrote it.
    """
    records = await store.read(workflow_id)
    if not records:
        return None
    check_digests(workflow_id, records)
    state = read_state(workflow_id, records, PlainCodec())
    return Standing(records, state, await driver_of(store, workflow_id))


async def driver_of(store: WatchedStore, workflow_id: str) -> str | None:
    """Say which living process drives a run; None: none does."""
    held = await store.lease(workflow_id)
    if held is None or lease.is_free(held, Workflow.runtime.clock.time_ns() // 1000):
        return None
    return f"{lease.describe(held.owner)} until {show_time(held.expires_at)}"


def not_found(workflow_id: str, store: WatchedStore) -> WorkflowNotFoundError:
    """Return the error for an id that the store does not know."""
    return WorkflowNotFoundError(
        f"There is no workflow {workflow_id!r} in {store.path!r}. See which there are with 'list'.",
        workflow_id=workflow_id,
    )


async def load_any(store: WatchedStore, workflow_id: str) -> Workflow:
    """Load a run of any type, to decide about it without its class.

    Raises:
        WorkflowNotFoundError: The store does not know the id.
    """
    workflow = Workflow(workflow_id, persistence=store)
    workflow.runtime = replace(workflow.runtime, codec=PlainCodec())
    try:
        await Verbs(workflow).attach()
    except WorkflowNotFoundError:
        raise not_found(workflow_id, store) from None
    return workflow


class Commands(NamedTuple):
    """How the commands to look further are written for this user."""

    program: str
    db: str | None
    """The database to name; None: the environment names it."""
    spec: str = "MODULE:CLASS"

    def __call__(self, verb: str, *arguments: str) -> str:
        """Return a command that can be pasted."""
        option = ["--db", self.db] if self.db is not None else []
        return f"{self.program} {shlex.join([verb, *arguments, *option])}"


def what_next(standing: Standing, command: Commands) -> list[str]:
    """Return what to do about a run: sentences, and commands on lines of their own, indented."""
    state = standing.state
    workflow_id = state.workflow_id
    match state.status:
        case WorkflowStatus.WAITING_APPROVAL:
            return [
                f"It waits for a decision after step {state.pending_step!r}:",
                "  " + command("approve", workflow_id),
                "  " + command("reject", workflow_id),
            ]
        case WorkflowStatus.PAUSED:
            return ["It is paused. To let it go on:", "  " + command("resume", workflow_id, command.spec)]
        case WorkflowStatus.RUNNING if standing.driver is not None:
            return [f"It is driven by {standing.driver}."]
        case WorkflowStatus.RUNNING:
            return [
                "Nobody drives it. To carry it on ('recover' does so for all that is due):",
                "  " + command("resume", workflow_id, command.spec),
            ]
    if state.rollback_status == "incomplete" and state.rollback is not None:
        failed = [failure.step.step for failure in state.rollback.failed]
        tell = [
            f"Its rollback is incomplete; what failed: {', '.join(failed)}. Mend the cause and try again, or say that",
            "a step was put right by hand:",
            "  " + command("retry-rollback", workflow_id, command.spec),
        ]
        return [*tell, *("  " + command("skip-rollback", workflow_id, step, "--reason", "WHY") for step in failed[:1])]
    if state.status is WorkflowStatus.FAILED:
        return ["To try again:", "  " + command("retry", workflow_id, command.spec)]
    return []
