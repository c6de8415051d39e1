"""Checks every clause, each on stores of its own, and tells what came of it."""

import asyncio
import secrets

from ...persistence import Checks, Leases, Queries
from .._seconds import DAY, check_seconds
from . import appends, cancellation, concurrency, leases, queries, refusals, stores
from .bench import NO_ANSWER, Bench, Factory, check_factory, opened
from .clause import Clause
from .comparing import Broken, Hang, describe_error
from .killed import NotStartedError, can_be_sent
from .report import CheckedClause, Finding, PersistenceReport, contract_error

CLAUSES: tuple[Clause, ...] = (
    *appends.FIRST,
    *refusals.CLAUSES,
    *queries.CLAUSES,
    *appends.CLAUSES,
    *concurrency.CLAUSES,
    *leases.CLAUSES,
    *cancellation.CLAUSES,
    *stores.CLAUSES,
)
"""Every clause, those first that others build on: a fault is to be named by the clause that is about it."""

_CAPABILITIES = {
    "Leases": (Leases, "the backend has no lease and renew"),
    "Queries": (Queries, "the backend has no find"),
    "Checks": (Checks, "the backend has no check"),
}
_UNSENT = "the factory cannot be sent to another process (one of a module, or a functools.partial of it, can)"
_UNSTARTED = "no process could be started with the factory (see what it printed)"
_HANGS = "calls hang, and were waited for long enough"
_MOST_HANGS = 3
_ABANDON_SECONDS = 5.0


async def check_persistence(factory: Factory, *, reopens: bool = True, patience: float = 60.0) -> PersistenceReport:
    """Check that a backend keeps the contract of `Persistence`, and of the capabilities that it has.

    Every clause is checked on new stores, some dozens in all. They are not removed: give them a place that goes away,
    such as a temporary folder or a database for tests.

    Args:
        factory: Opens the store of a name: a new one for a new name, and the same one for a name that it was given
            before, also while another handle on it is open. A name is of letters, digits and underscores, and new
            in each check, so that it can be part of a file name, a schema or a key prefix. It gives the backend, or an
            awaitable of it, or an asynchronous context manager that gives it; what has no such manager is closed by
            its ``aclose()`` or ``close()``, if it has one. A function of a module, or a ``functools.partial`` of one,
            is also handed to processes that are then killed.
        reopens: Whether a name opens the same store again. False for a backend that lives in its object alone, such as
            `InMemoryPersistence`; what needs a second handle is not checked then.
        patience: How long one call of the backend may take, in seconds, before it is taken to hang: above 0, to a day.

    Returns:
        What was checked, by how many calls, and what was not applicable.

    Raises:
        PersistenceContractError: A clause does not hold; lists all that do not.
        WorkflowConfigurationError: The factory takes no name or gives no backend, or the patience is no such number.
            Nothing was checked.
    """
    check_factory(factory)
    check_seconds("The patience of check_persistence() is", patience, DAY, above_zero=True)
    prefix = f"contract_{secrets.token_hex(4)}"
    async with opened(factory, f"{prefix}_0") as backend:
        name = type(backend).__name__
        missing = {need: why for need, (kind, why) in _CAPABILITIES.items() if not isinstance(backend, kind)}
    capabilities = ("Persistence", *(capability for capability in _CAPABILITIES if capability not in missing))
    if not reopens:
        missing["reopens"] = "the factory opens no store a second time (reopens=False)"
    elif not can_be_sent(factory):
        missing["other processes"] = _UNSENT
    checked: list[CheckedClause] = []
    findings: list[Finding] = []
    hangs = 0
    for number, clause in enumerate(CLAUSES, 1):
        lacks = [why for need, why in missing.items() if need in clause.needs]
        if lacks or hangs == _MOST_HANGS:
            checked.append(CheckedClause(clause.name, "not applicable", 0, lacks[0] if lacks else _HANGS))
            continue
        bench = Bench(factory, f"{prefix}_{number}", patience)
        error = await _error_of(clause, bench)
        if isinstance(error, NotStartedError):
            checked.append(CheckedClause(clause.name, "not applicable", 0, _UNSTARTED))
        elif error is not None:
            hangs += isinstance(error, Hang)
            checked.append(CheckedClause(clause.name, "broken", bench.count))
            calls = tuple(bench.last_calls(error.about))
            findings.append(
                Finding(clause.name, clause.rule, clause.why, error.expected, error.happened, calls, clause.remedy)
            )
        else:
            checked.append(CheckedClause(clause.name, "held", bench.count, bench.note))
    report = PersistenceReport(name, capabilities, tuple(checked))
    if findings:
        raise contract_error(report, findings)
    return report


async def _error_of(clause: Clause, bench: Bench) -> Broken | NotStartedError | None:
    """Check a clause; return None when it holds."""
    task = asyncio.create_task(_check(clause, bench))
    try:
        answered = -1
        while not task.done() and answered != bench.answered:
            answered = bench.answered
            await asyncio.wait({task}, timeout=bench.patience)
    finally:
        hangs = not task.done()
        waiting, made = bench.waiting(), len(bench.calls)
        if hangs:  # or whoever awaits the check was cancelled
            task.cancel()
            await asyncio.wait({task}, timeout=_ABANDON_SECONDS)
    if hangs:
        del bench.calls[made:]  # what was called since, and how the calls ended, came of that cancellation
        for call in waiting:
            call.answer, call.shown = NO_ANSWER, True
        which = ", ".join(call.text for call in waiting) or "one"
        return Hang(f"every call to come back within {bench.patience:g} s", f"{which} did not")
    if task.cancelled():
        return Broken("no CancelledError where nobody cancels", "a call raised CancelledError")
    error = task.exception()
    if error is None and not bench.count:
        return Broken("at least one call of the backend", "there was none: a mistake of the check, not of the backend")
    if error is None or isinstance(error, Broken | NotStartedError):
        return error
    return Broken("no error but those that the protocol names", f"it raised {describe_error(error)}")


async def _check(clause: Clause, bench: Bench) -> None:
    try:
        await clause.check(bench)
    finally:
        await bench.close_all()
