"""What a clause is checked on: fresh stores made by the author's factory, and handles that write down every call."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from ...errors import PersistenceError, WorkflowConfigurationError
from ...persistence import Checks, Header, Lease, LeaseChange, Leases, Persistence, Queries, Record
from ...status import WorkflowStatus
from .comparing import Broken, brief, describe_error
from .rows import Contents
from .rows import header as make_header

Answer = TypeVar("Answer")
Factory: TypeAlias = Callable[[str], Persistence | Awaitable[Persistence] | AbstractAsyncContextManager[Persistence]]

_SHOWN = 12  # calls in a message
NO_ANSWER = "has not come back"


def check_factory(factory: object) -> None:
    """Refuse what cannot be called with the name of a store.

    Raises:
        WorkflowConfigurationError: It cannot.
    """
    what = getattr(factory, "__name__", "") if callable(factory) else ""
    what = what or f"an object of type {type(factory).__name__}"
    if callable(factory):
        try:
            inspect.signature(factory).bind("name")
        except ValueError:  # nobody knows what it takes, as of some that are written in C
            return
        except TypeError as error:
            what += f", which cannot be called with a name: {error}"
        else:
            return
    elif inspect.iscoroutine(factory):
        factory.close()  # else Python warns that nobody awaited it, beside the error that says why
    raise WorkflowConfigurationError(
        f"check_persistence() takes a function that opens a store, not {what}. Give a function of the store's name, "
        "such as lambda name: MyStore(folder / name)."
    )


@asynccontextmanager
async def opened(factory: Factory, name: str) -> AsyncIterator[Persistence]:
    """Open a handle on the store of a name, by whatever the factory gives, and close it by whatever it has.

    Raises:
        WorkflowConfigurationError: The factory gave no backend.
    """
    made: object = factory(name)
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as entered:
            yield _backend(entered, name)
        return
    backend = _backend(made, name)
    try:
        yield backend
    finally:
        close = getattr(backend, "aclose", None) or getattr(backend, "close", None)
        closing = close() if close is not None else None
        if inspect.isawaitable(closing):
            await closing


def _backend(made: object, name: str) -> Persistence:
    if isinstance(made, type):
        raise WorkflowConfigurationError(
            f"The factory gave the class {made.__name__} for the store {name!r}. Give an object of it."
        )
    missing = [method for method in ("append", "read", "delete") if not callable(getattr(made, method, None))]
    if missing or not isinstance(made, Persistence):
        raise WorkflowConfigurationError(
            f"The factory gave {type(made).__name__} for the store {name!r}, which has no {', '.join(missing)}. Give "
            "the backend, or an asynchronous context manager that gives it."
        )
    return made


class Call:
    """A call of a backend, in words."""

    def __init__(self, text: str, about: str | None, *, shown: bool = True, counted: bool = True) -> None:
        self.text = text
        self.about = about
        """The workflow that it is about, where it is one."""
        self.answer = NO_ANSWER
        self.shown = shown
        self.counted = counted

    def __str__(self) -> str:
        return f"{self.text} -> {self.answer}"


class Handle:
    """A backend whose calls are written down; named in them by its `label`."""

    def __init__(self, backend: Persistence, name: str, label: str, calls: list[Call]) -> None:
        self.backend = backend
        self.name = name
        self.label = label
        self.calls = calls
        self.has_leases = isinstance(backend, Leases)
        self.has_queries = isinstance(backend, Queries)

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header | None = None,
        lease: LeaseChange | None = None,
    ) -> None:
        """See `Persistence.append`; without a header it comes with the one that belongs to it."""
        written = header or make_header(workflow_id, expected_version + len(records))
        text = (
            f"append({workflow_id!a}, {brief(list(records))}, expected_version={expected_version}"
            f"{_describe_header(workflow_id, written)}{_describe_change(lease)})"
        )
        call = partial(self.backend.append, expected_version=expected_version, header=written, lease=lease)
        await self._call(text, workflow_id, partial(call, workflow_id, records), done="done")

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        """See `Persistence.read`."""
        options = f", after={after}" if after else ""
        return await self._call(
            f"read({workflow_id!a}{options})", workflow_id, partial(self.backend.read, workflow_id, after=after)
        )

    async def delete(self, workflow_id: str) -> bool:
        """See `Persistence.delete`."""
        return await self._call(f"delete({workflow_id!a})", workflow_id, partial(self.backend.delete, workflow_id))

    async def lease(self, workflow_id: str) -> Lease | None:
        """See `Leases.lease`."""
        assert isinstance(self.backend, Leases)
        return await self._call(f"lease({workflow_id!a})", workflow_id, partial(self.backend.lease, workflow_id))

    async def renew(self, workflow_id: str, token: str, expires_at: int) -> int:
        """See `Leases.renew`."""
        assert isinstance(self.backend, Leases)
        text = f"renew({workflow_id!a}, {token!r}, {expires_at})"
        return await self._call(text, workflow_id, partial(self.backend.renew, workflow_id, token, expires_at))

    async def find(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str | None = None,
        due_before: int | None = None,
        after: Header | None = None,
        limit: int = 100,
    ) -> list[Header]:
        """See `Queries.find`. What is left out here is left out of the call."""
        assert isinstance(self.backend, Queries)
        given: dict[str, Any] = {
            "status": status,
            "workflow_type": workflow_type,
            "due_before": due_before,
            "after": after,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if limit != 100:
            given["limit"] = limit
        words = ", ".join(f"{name}={_describe_option(value)}" for name, value in given.items())
        return await self._call(f"find({words})", None, partial(self.backend.find, **given))

    async def check(self) -> None:
        """See `Checks.check`."""
        assert isinstance(self.backend, Checks)
        await self._call("check()", None, self.backend.check, done="done")

    async def contents(self, workflow_id: str) -> Contents:
        """Return all that can be seen of a workflow, to compare before and after; written down as one."""
        backend = self.backend
        records = await self._call(
            f"read({workflow_id!a})", workflow_id, partial(backend.read, workflow_id), shown=False
        )
        lease, found = None, list[Header]()
        if isinstance(backend, Leases):
            lease = await self._call(
                f"lease({workflow_id!a})", workflow_id, partial(backend.lease, workflow_id), shown=False
            )
        if isinstance(backend, Queries):
            found = await self._call("find(limit=10000)", workflow_id, partial(backend.find, limit=10_000), shown=False)
        contents = Contents(records, lease, [header for header in found if header.workflow_id == workflow_id])
        self.calls.append(summary := Call(f"{self.label} holds of {workflow_id!a}", workflow_id, counted=False))
        summary.answer = brief(contents)
        return contents

    async def _call(
        self, text: str, about: str | None, call: Callable[[], Awaitable[Answer]], *, done: str = "", shown: bool = True
    ) -> Answer:
        entry = Call(f"{self.label}.{text}", about, shown=shown)
        self.calls.append(entry)
        try:
            answer = await call()
        except BaseException as error:
            entry.shown = True
            known = isinstance(error, PersistenceError | asyncio.CancelledError)
            entry.answer = type(error).__name__ if known else describe_error(error)
            raise
        entry.answer = done or brief(answer)
        return answer


class Bench:
    """Makes the stores of one clause, and closes them after it."""

    def __init__(self, factory: Factory, name: str, patience: float) -> None:
        self.factory = factory
        self.patience = patience
        """How long a call may take, in seconds."""
        self.calls: list[Call] = []
        """Every call so far, of all handles, in the order in which they began."""
        self.note = ""
        """What the report says of a clause that held."""
        self.told = 0
        """How often another process told of a call that came back."""
        self._name = name
        self._stores = 0
        self._handles: dict[Handle, AsyncExitStack] = {}

    def new_name(self) -> str:
        """Return a name that no store has had yet: letters, digits and underscores."""
        self._stores += 1
        return f"{self._name}_{self._stores}"

    async def open(self, label: str = "store", *, name: str | None = None) -> Handle:
        """Open a store: a new one, or the one of a name."""
        name = name or self.new_name()
        stack = AsyncExitStack()
        handle = Handle(await stack.enter_async_context(opened(self.factory, name)), name, label, self.calls)
        self._handles[handle] = stack
        return handle

    async def close(self, handle: Handle) -> None:
        """Close one handle now."""
        self.calls.append(closing := Call(f"{handle.label} is closed", None, counted=False))
        await self._handles.pop(handle).aclose()
        closing.answer = "done"

    async def close_all(self) -> None:
        """Close what is still open, the last one first, each even where another one raised."""
        async with AsyncExitStack() as stack:
            for opened_handle in self._handles.values():
                stack.push_async_callback(opened_handle.aclose)

    @property
    def count(self) -> int:
        """How many calls of the backend were made."""
        return sum(call.counted for call in self.calls)

    def last_calls(self, about: str | None = None) -> list[str]:
        """Return the calls as lines, the last ones where they are many; `about`: those of one workflow alone."""
        shown = [str(call) for call in self.calls if call.shown and about in (None, call.about)]
        lines = shown[-_SHOWN:]
        return [f"({len(shown) - _SHOWN} calls before)", *lines] if len(shown) > _SHOWN else lines

    @property
    def answered(self) -> int:
        """How many calls have come back, those of other processes among them."""
        return self.told + sum(call.answer != NO_ANSWER for call in self.calls)

    def waiting(self) -> list[Call]:
        """Return the calls that have not come back."""
        return [call for call in self.calls if call.counted and call.answer == NO_ANSWER]


async def refused(kind: type[Exception], call: Coroutine[Any, Any, object], handle: Handle) -> None:
    """Hold a call to raise an error.

    Raises:
        Broken: It did not, or another one.
    """
    error = await attempt(call, Exception)
    if not isinstance(error, kind):
        happened = f"it raised {describe_error(error)}" if error is not None else "it was done"
        raise Broken(f"{handle.calls[-1].text} to raise {kind.__name__}", happened)


async def attempt(call: Coroutine[Any, Any, object], *kinds: type[Exception]) -> Exception | None:
    """Make a call that may be refused, and return its refusal."""
    try:
        await call
    except kinds as error:
        return error
    return None


async def together(calls: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Make calls at once, and return their answers; raises the first error only once all have ended."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
    return [task.result() for task in tasks]


def _describe_header(workflow_id: str, header: Header) -> str:
    usual = make_header(workflow_id, header.version)
    changed = [
        f"{field}={_describe_option(value)}"
        for field, value, other in zip(Header._fields, header, usual, strict=True)
        if value != other and field != "updated_at"
    ]
    return f", header({', '.join(changed)})" if changed else ""


def _describe_change(lease: LeaseChange | None) -> str:
    if lease is None:
        return ""
    what = "let go" if lease.expires_at is None else f"taken until {lease.expires_at}"
    instead = "none" if lease.replaces is None else repr(lease.replaces)
    return f", lease {lease.token!r} of {lease.owner!r} {what}, replaces {instead}"


def _describe_option(value: object) -> str:
    return str(value) if isinstance(value, WorkflowStatus) else brief(value)
