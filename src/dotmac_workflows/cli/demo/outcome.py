"""What became of the demo's orders: shown to people, and checked against what the demo says of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...verification import verify
from ..exits import FAILED, CommandError
from ..loading import WatchedStore
from ..queries import SHOW_COLUMNS, cells_of
from ..standing import Standing, read_standing
from ..terminal import Column, Part, Styled, Table, Terminal
from ..timeline import body_of, timeline
from ..wording import status_part, status_phrase
from .orders import STEPS, Company, money

_UNTOLD = ("workflow_started", "rollback_finished")
_TOTALS = {
    "antennas in stock": "SELECT free FROM stock WHERE item = 'antenna'",
    "routers in stock": "SELECT free FROM stock WHERE item = 'router'",
    "deposits held": "SELECT coalesce(sum(cents), 0) FROM deposits",
    "addresses in use": "SELECT count(order_id) FROM addresses",
    "lines in use": "SELECT count(order_id) FROM lines",
}
_HELD = """
    SELECT (SELECT quantity || ' x ' || item FROM reserved WHERE order_id = ?1),
           (SELECT nullif(sum(cents), 0) FROM deposits WHERE order_id = ?1),
           (SELECT address FROM addresses WHERE order_id = ?1),
           (SELECT line FROM lines WHERE order_id = ?1)
"""
_CALLS = """
    SELECT step, count(*), min(key), max(key), (SELECT count(*) FROM effects WHERE key = calls.key)
    FROM calls WHERE order_id = ? GROUP BY step ORDER BY min(number)
"""

Orders = Sequence[Mapping[str, Any]]
Totals = Mapping[str, int]
Standings = Mapping[str, Standing]


def totals(company: Company) -> Totals:
    """Return what the company has, and what its customers hold."""
    return {name: company.rows(query)[0][0] for name, query in _TOTALS.items()}


async def read_all(db: Path, orders: Orders) -> dict[str, Standing]:
    """Return how each order stands; those that never came to run are not among them."""
    store = WatchedStore(db)
    async with store:
        found = {given["id"]: await read_standing(store, given["id"]) for given in orders}
    return {order_id: standing for order_id, standing in found.items() if standing is not None}


# What is shown.


def show_calls(out: Terminal, company: Company, order_id: str) -> None:
    """Show which steps of an order called the company, how often, and what that changed."""
    columns = (Column("STEP"), Column("CALLS", right=True), Column("CHANGES", right=True), Column("KEY"))
    rows = [
        (step, str(calls), str(changes), f"{key[:8]}...{key[32:]}")
        for step, calls, key, _, changes in company.rows(_CALLS, order_id)
    ]
    _show(out, columns, rows)


def show_timelines(out: Terminal, orders: Orders, standings: Standings) -> None:
    """Show the journal of each order, under columns that are the same for all."""
    told = {
        order_id: cells_of(timeline(record for record in standing.records if record.kind not in _UNTOLD))
        for order_id, standing in standings.items()
    }
    table = Table(SHOW_COLUMNS, [row for rows in told.values() for row in rows], out.width)
    out.table(table, [table.titles()])
    for given in orders:
        standing = standings[given["id"]]
        out.line(Styled(given["id"], "bold"), " ", status_phrase(standing.state.status))
        out.table(table, told[given["id"]])


def show_holdings(out: Terminal, company: Company, orders: Orders, standings: Standings) -> None:
    """Show how each order ended, and what it holds in the company's database."""
    columns = (Column("ORDER"), Column("ENDED"), *map(Column, ("STOCK", "DEPOSIT", "ADDRESS", "LINE")))
    rows: list[list[Part]] = []
    for given in orders:
        stock, cents, address, line = company.rows(_HELD, given["id"])[0]
        held = (stock, None if cents is None else money(cents), address, line)
        status = status_part(standings[given["id"]].state.status)
        rows.append([given["id"], status, *(value or Styled("-", "dim") for value in held)])
    _show(out, columns, rows)


def show_totals(out: Terminal, before: Totals, after: Totals) -> None:
    """Show the company's database as it was and as it is."""
    columns = (Column("company.db"), Column("BEFORE", right=True), Column("AFTER", right=True))
    shown = ((name, before[name], after[name]) for name in before)
    rows = [
        (name, money(was), money(now)) if name == "deposits held" else (name, str(was), str(now))
        for name, was, now in shown
    ]
    _show(out, columns, rows)


def _show(out: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[Part]]) -> None:
    table = Table(columns, rows, out.width)
    out.table(table, [table.titles(), *rows])


# What is checked.


def check_killed(company: Company, standing: Standing | None) -> list[str]:
    """Return what is not as it should be after the worker was killed: the step done, and not known to be."""
    if standing is None:
        return ["the order of the killed worker has no journal"]
    order_id, last = standing.state.workflow_id, standing.records[-1]
    found = []
    if (last.kind, body_of(last).get("step")) != ("step_started", "address"):
        found.append(f"the journal of {order_id} ends with {last.kind}, not in the step 'address'")
    if company.rows(_HELD, order_id)[0][2] is None:
        found.append(f"company.db has no address for {order_id}")
    if standing.driver is not None:
        found.append(f"{order_id} is driven by {standing.driver}")
    return found


async def check(db: Path, company: Company, orders: Orders, before: Totals) -> list[str]:
    """Return what is not as the demo says."""
    standings = await read_all(db, orders)
    found = []
    for given in orders:
        standing = standings.get(given["id"])
        found += [f"{given['id']} has no journal"] if standing is None else _check(company, given, standing)
    async with WatchedStore(db) as store:
        found += [str(problem) for problem in (await verify(store)).problems]
    reserved = {
        f"{item}s in stock": n for item, n in company.rows("SELECT item, sum(quantity) FROM reserved GROUP BY 1")
    }
    after = totals(company)
    for name in ("antennas in stock", "routers in stock"):
        if after[name] != before[name] - reserved.get(name, 0):
            found.append(f"{name}: {before[name]} before, {after[name]} after, {reserved.get(name, 0)} reserved")
    return found


def _check(company: Company, given: Mapping[str, Any], standing: Standing) -> list[str]:
    """Return what is not as it should be about one order."""
    order_id, state = standing.state.workflow_id, standing.state
    completed = given["ends"] == "completed"
    did = [body_of(record)["step"] for record in standing.records if record.kind == "step_started"]
    undid = [body_of(record)["step"] for record in standing.records if record.kind == "rollback_step_started"]
    done = [result.step for result in state.results if result.success and result.step in STEPS]
    decided = [record.kind for record in standing.records if record.kind in ("approved", "rejected")]
    calls = company.rows(_CALLS, order_id)
    killed = ["address"] if "address_takes" in given["order"] else []
    expected = {
        "status": (str(state.status), given["ends"]),
        "rollback": (state.rollback_status, "none" if completed else "done"),
        "undone": (undid, [] if completed else done[::-1]),
        "decisions": (decided, {"approve": ["approved"], "reject": ["rejected"]}.get(given.get("verdict", ""), [])),
        "holdings": ([value is not None for value in company.rows(_HELD, order_id)[0]], [completed] * len(STEPS)),
        "steps run": (sorted(did), sorted({*did, *done} if not killed else [*STEPS, *killed])),
        "calls": (
            sorted(step for step, times, *_ in calls for _ in range(times)),
            sorted([*done, *killed, *(f"undo {step}" for step in undid)]),
        ),
        "keys": ([least == most for *_, least, most, _ in calls], [True] * len(calls)),
        "changes": ([changes for *_, changes in calls], [1] * len(calls)),
    }
    return [f"{order_id}: {what} {is_}, not {should}" for what, (is_, should) in expected.items() if is_ != should]


def insist(problems: Sequence[str]) -> None:
    """Fail the demo if there are problems.

    Raises:
        CommandError: There are.
    """
    if problems:
        raise CommandError(f"It did not go as the demo says: {'; '.join(problems)}.", FAILED)
