"""The commands that only look: list, show, verify."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from .._run.journal import check_digests, read_state
from ..errors import JournalCorruptError, PersistenceError
from ..persistence import Header
from ..status import WorkflowStatus
from ..verification import verify
from .context import Context
from .exits import DONE, STORE, CommandError
from .loading import WatchedStore, open_store
from .pictures import write_svg
from .standing import PlainCodec, Standing, driver_of, not_found, what_next
from .terminal import Column, Part, Styled, Table
from .timeline import Row, body_of, timeline
from .wording import day, duration, iso, status_part, status_phrase, time_of_day

_PAGE = 500
_LIST = (Column("ID"), Column("TYPE", 6), Column("STATUS"), Column("LAST CHANGE (UTC)", 10), Column("NOTE", 10))
SHOW_COLUMNS = (
    Column("UTC"),
    Column("WHAT", 8),
    Column("STEP", 8),
    Column("TRY", right=True),
    Column("TOOK", right=True),
    Column("DETAIL", 16),
)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def list_runs(context: Context) -> int:
    """List runs, the oldest first, so that the newest stand next to the prompt."""
    arguments = context.arguments
    since = None if arguments.since is None else parse_since(arguments.since)
    store = open_store(context.db)

    async def work() -> int:
        async with store:
            after = None if arguments.after is None else await _key_of(store, arguments.after)
            pages = _pages(store, arguments.status, arguments.type, since, after)
            more = await (_list_json if arguments.json else _list_table)(context, store, pages, arguments.limit)
        if more is not None:
            filters = [
                word
                for name in ("status", "type", "since")
                if (value := getattr(arguments, name)) is not None
                for word in (f"--{name}", str(value))
            ]
            limit = ["--limit", str(arguments.limit)]
            context.err.line("More: ", context.commands()("list", *filters, *limit, "--after", more))
        return DONE

    return asyncio.run(work())


def parse_since(text: str) -> int:
    """Return the instant that ``2026-07-01``, ``2026-07-01T12:30`` (UTC) or ``2h`` (ago) means.

    Raises:
        CommandError: It is none of these.
    """
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    try:
        if ago is not None:
            instant = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            instant = datetime.fromisoformat(text)
            instant = instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)
        return int(instant.timestamp() * 1_000_000)
    except (ValueError, OverflowError) as error:
        raise CommandError(
            f"--since {text!r} is no time. Give a date, 2026-07-01 or 2026-07-01T12:30 (UTC), or how long ago: 30m, "
            "2h, 7d."
        ) from error


async def _key_of(store: WatchedStore, workflow_id: str) -> Header:
    records = await store.read(workflow_id)
    if not records:
        raise not_found(workflow_id, store)
    # A page begins behind the start and the id; nothing else of the header is looked at.
    return Header(workflow_id, "", WorkflowStatus.PENDING, 0, None, records[0].at, 0, None)


async def _pages(
    store: WatchedStore, status: str | None, workflow_type: str | None, since: int | None, after: Header | None
) -> AsyncIterator[list[Header]]:
    wanted = None if status is None else WorkflowStatus(status)
    while page := await store.find(status=wanted, workflow_type=workflow_type, after=after, limit=_PAGE):
        after = page[-1]
        yield [header for header in page if since is None or header.updated_at >= since]


async def _list_table(
    context: Context, store: WatchedStore, pages: AsyncIterator[list[Header]], limit: int | None
) -> str | None:
    out = context.out
    table: Table | None = None
    listed = 0
    last = ""
    async for page in pages:
        shown = page if limit is None else page[: limit - listed]
        rows: list[list[Part]] = [
            [
                header.workflow_id,
                header.workflow_type,
                status_part(header.status),
                f"{day(header.updated_at)} {time_of_day(header.updated_at)}",
                await _note(store, header),
            ]
            for header in shown
        ]
        if table is None and rows:
            table = Table(_LIST, rows, out.width)
            out.table(table, [table.titles()])
        if table is not None:
            out.table(table, rows)
        listed += len(shown)
        last = shown[-1].workflow_id if shown else last
        if len(shown) < len(page):
            return last
    if not listed:
        context.err.line("No runs." if not _filtered(context) else "No such runs.")
    return None


def _filtered(context: Context) -> bool:
    return any(getattr(context.arguments, name) is not None for name in ("status", "type", "since", "after"))


async def _note(store: WatchedStore, header: Header) -> Part:
    if header.status is WorkflowStatus.WAITING_APPROVAL:
        return f"after {header.pending_step}"
    if header.status is WorkflowStatus.RUNNING:
        driver = await driver_of(store, header.workflow_id)
        return Styled("due", "waits") if driver is None else f"by {driver.partition(' until')[0]}"
    return ""


async def _list_json(
    context: Context, store: WatchedStore, pages: AsyncIterator[list[Header]], limit: int | None
) -> str | None:
    listed = 0
    last = ""
    async for page in pages:
        shown = page if limit is None else page[: limit - listed]
        for header in shown:
            context.out.raw("[\n  " if not listed else ",\n  ")
            context.out.raw(json.dumps(_header_fields(header)))
            listed += 1
            last = header.workflow_id
        if len(shown) < len(page):
            context.out.raw("\n]\n")
            return last
    context.out.raw("\n]\n" if listed else "[]\n")
    return None


def _header_fields(header: Header) -> dict[str, Any]:
    return {
        "workflow_id": header.workflow_id,
        "workflow_type": header.workflow_type,
        "status": header.status.value,
        "version": header.version,
        "pending_step": header.pending_step,
        "created_at": iso(header.created_at),
        "updated_at": iso(header.updated_at),
        "wake_at": iso(header.wake_at),
    }


def show(context: Context) -> int:
    """Show the journal of a run, without its class; a damaged one as far as it can be read."""
    workflow_id: str = context.arguments.id
    store = open_store(context.db)

    async def work() -> int:
        async with store:
            records = await store.read(workflow_id)
            driver = await driver_of(store, workflow_id)
        if not records:
            raise not_found(workflow_id, store)
        damage: PersistenceError | None = None
        standing = None
        try:
            check_digests(workflow_id, records)
            standing = Standing(records, read_state(workflow_id, records, PlainCodec()), driver)
        except PersistenceError as error:
            damage = error
        if context.arguments.svg is not None:
            write_svg(context, workflow_id, records, context.arguments.svg)
        elif context.arguments.json:
            context.print_json(
                {
                    "workflow_id": workflow_id,
                    "status": None if standing is None else standing.state.status.value,
                    "pending_step": None if standing is None else standing.state.pending_step,
                    "rollback_status": None if standing is None else standing.state.rollback_status,
                    "driven_by": driver,
                    "records": [
                        {
                            "seq": record.seq,
                            "kind": record.kind,
                            "at": iso(record.at),
                            "body": body_of(record),
                            "digest": record.digest,
                        }
                        for record in records
                    ],
                }
            )
        else:
            _show_table(context, workflow_id, timeline(records), standing)
        if damage is not None:
            raise damage
        return DONE

    return asyncio.run(work())


def cells_of(rows: Iterable[Row]) -> list[list[Part]]:
    """Return a timeline as the rows of a table of `SHOW_COLUMNS`."""
    return [
        [
            time_of_day(row.at),
            Styled(row.what, row.style),
            row.step,
            str(row.attempt or ""),
            duration(row.took),
            Styled(row.detail, "dim") if row.style == "dim" else row.detail,
        ]
        for row in rows
    ]


def _show_table(context: Context, workflow_id: str, rows: list[Row], standing: Standing | None) -> None:
    out = context.out
    stands = Styled("is damaged", "bad")
    if standing is not None:
        stands = status_phrase(standing.state.status, driven=standing.driver is not None)
    out.line(Styled(workflow_id, "bold"), " ", stands)
    out.line()
    cells = cells_of(rows)
    table = Table(SHOW_COLUMNS, cells, out.width)
    out.table(table, [table.titles()])
    today = ""
    for row, line in zip(rows, cells, strict=True):
        if day(row.at) != today:
            today = day(row.at)
            out.line(Styled(today, "dim"))
        out.table(table, [line])
    next_lines = [] if standing is None else what_next(standing, context.commands())
    if next_lines:
        out.line()
        context.tell(*next_lines)


def verify_store(context: Context) -> int:
    """Check every run of a database."""
    store = open_store(context.db)

    async def work() -> int:
        async with store:
            found = await verify(store)
        if context.arguments.json:
            context.print_json(
                {
                    "workflows": found.workflows,
                    "records": found.records,
                    "problems": [
                        {"workflow_id": problem.workflow_id, "error": type(problem).__name__, "message": str(problem)}
                        for problem in found.problems
                    ],
                }
            )
            return STORE if found.problems else DONE
        for problem in found.problems:
            what = "damaged" if isinstance(problem, JournalCorruptError) else "not readable"
            context.out.line(Styled(what, "bad"), f": {problem}")
        sound = found.workflows - sum(problem.workflow_id is not None for problem in found.problems)
        if found.problems:
            damaged = Styled(f"{found.workflows - sound} not", "bad")
            context.out.line(f"{found.workflows} runs checked: {sound} sound, ", damaged, ".")
            return STORE
        context.out.line(
            f"{found.workflows} runs with {found.records} records checked: ", Styled("all sound", "good"), "."
        )
        return DONE

    return asyncio.run(work())
