"""`verify`: check that a store still holds what was written to it."""

from dataclasses import dataclass, field

from ._listing import headers
from ._run.journal import check_digests, header_of, read_state
from .errors import JournalCorruptError, PersistenceError, ResultNotSerializableError, WorkflowConfigurationError
from .persistence import Checks, Header, Persistence, Queries
from .values import Codec


@dataclass
class Verification:
    """What `verify` found."""

    workflows: int = 0
    """How many workflows were checked."""
    records: int = 0
    """How many records they have."""
    problems: list[PersistenceError] = field(default_factory=list)
    """One for each workflow that is damaged, or that this version cannot read; and for the store itself."""


async def verify(persistence: Persistence, *, codec: Codec | None = None) -> Verification:
    """Check every workflow of a store: digests, order and meaning of its records, and the header against them.

    Nothing is written. A chain of digests shows damage and naive edits; it does not hold off somebody who can
    rewrite the whole store.

    Args:
        persistence: The store; it must have `Queries`. Where it has `Checks`, they are made first.
        codec: The codec of the workflows, where they have one of their own.

    Raises:
        WorkflowConfigurationError: The store cannot list its workflows.
        PersistenceError: The store cannot be read at all.
    """
    if not isinstance(persistence, Queries):
        raise WorkflowConfigurationError(
            f"verify() needs a persistence that has find (Queries); {type(persistence).__name__} does not."
        )
    found = Verification()
    if isinstance(persistence, Checks):
        try:
            await persistence.check()
        except JournalCorruptError as problem:
            found.problems.append(problem)
    async for header in headers(persistence):
        found.workflows += 1
        try:
            found.records += await _check(persistence, header, codec or Codec())
        except PersistenceError as problem:
            found.problems.append(problem)
    return found


async def _check(persistence: Persistence, header: Header, codec: Codec) -> int:
    workflow_id = header.workflow_id
    records = await persistence.read(workflow_id)
    check_digests(workflow_id, records)
    try:
        state = read_state(workflow_id, records, codec)
        if state.version > header.version > 0:  # it went on since it was listed
            state = read_state(workflow_id, records[: header.version], codec)
    except ResultNotSerializableError:
        # A type of the user's own that this codec does not know: the digests say that it is as it was written.
        return len(records)
    if not records or header_of(state, records[state.version - 1].at) != header:
        raise JournalCorruptError(
            f"The header of workflow {workflow_id!r} ({header.status}, version {header.version}) is not what its "
            f"{len(records)} records amount to ({state.status}, version {state.version}). Restore the store from a "
            "backup.",
            workflow_id=workflow_id,
        )
    return len(records)
