"""Service orders: reserve, charge, approve, activate, and undo it all when something goes wrong.

    PYTHONPATH=src python3 examples/provisioning.py [--folder DIR] [--orders FILE]

Two SQLite files: ``workflows.db``, where the library keeps its journals, and ``company.db``, which stands for the
systems that the steps change. Both lie in a temporary folder, or in the one that you name: run it there twice and
each order is still done once; kill it anywhere and run it again, and it goes on where it stopped. With a folder, the
command line can look at the runs: ``python3 -m dotmac_workflows list --db DIR/workflows.db``.

The part to copy is `Company.once`: a step's effect and its idempotency key are stored in one transaction, so that a
step which runs again after a crash finds its key, and does nothing but give the same answer.
"""

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dotmac_workflows import (
    Persistence,
    SQLitePersistence,
    StepContext,
    Workflow,
    WorkflowNotFoundError,
    WorkflowResult,
)

APPROVAL_LIMIT = 50_000
STEPS = ["reserve_stock", "book_deposit", "assign_address", "approval", "activate", "notify"]

Answer = dict[str, Any]
Effect = Callable[[sqlite3.Connection], Answer]


class RefusedError(Exception):
    """The company says no; nothing was changed."""


class Company:
    """The systems that an order touches, in one database."""

    SCHEMA = """
        CREATE TABLE effects (key TEXT PRIMARY KEY, answer TEXT NOT NULL) STRICT;
        CREATE TABLE stock (item TEXT PRIMARY KEY, free INTEGER NOT NULL CHECK (free >= 0)) STRICT;
        CREATE TABLE reservations (order_id TEXT PRIMARY KEY, item TEXT NOT NULL, quantity INTEGER NOT NULL) STRICT;
        CREATE TABLE ledger (entry INTEGER PRIMARY KEY, order_id TEXT NOT NULL, customer TEXT NOT NULL,
                             amount INTEGER NOT NULL) STRICT;
        CREATE TABLE addresses (address TEXT PRIMARY KEY, order_id TEXT UNIQUE) STRICT;
        CREATE TABLE lines (line TEXT PRIMARY KEY, condition TEXT NOT NULL) STRICT;
        CREATE TABLE activations (order_id TEXT PRIMARY KEY, line TEXT NOT NULL UNIQUE) STRICT;
        CREATE TABLE notifications (number INTEGER PRIMARY KEY, order_id TEXT NOT NULL, text TEXT NOT NULL) STRICT;
        INSERT INTO stock VALUES ('antenna', 4), ('router', 10);
        INSERT INTO addresses (address) VALUES ('192.0.2.1'), ('192.0.2.2'), ('192.0.2.3'), ('192.0.2.4');
        INSERT INTO lines VALUES ('line-1', 'good'), ('line-2', 'good'), ('line-3', 'good'), ('line-4', 'faulty');
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=30, uri=True)
        db.execute("BEGIN IMMEDIATE")
        if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in self.SCHEMA.split(";"):
                db.execute(statement)
        return db

    def once(self, key: str, effect: Effect) -> Answer:
        """Change something and remember the key, both or neither; a known key only gets its old answer."""
        with closing(self._connect()) as db:  # closing without a commit undoes
            known = db.execute("SELECT answer FROM effects WHERE key = ?", (key,)).fetchone()
            if known:
                return dict(json.loads(known[0]))
            answer = effect(db)
            db.execute("INSERT INTO effects VALUES (?, ?)", (key, json.dumps(answer)))
            db.execute("COMMIT")
            return answer

    def rows(self, query: str, *parameters: str) -> list[tuple[Any, ...]]:
        with closing(self._connect()) as db:
            rows = db.execute(query, parameters).fetchall()
            db.execute("COMMIT")
            return rows


class ServiceOrder(Workflow):
    """One order, from stock to notification. Every step has an ``undo_`` that takes it back."""

    def __init__(
        self,
        workflow_id: str | None = None,
        steps: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        persistence: Persistence | None = None,
        company: Company | None = None,
    ) -> None:
        super().__init__(workflow_id, steps or list(STEPS), metadata, persistence=persistence)
        self.configure(require_approval=True, rollback_on_cancel=True)
        self.company = company or Company(Path("company.db"))

    async def validate(self) -> WorkflowResult:
        order = self.metadata
        wrong = [name for name in ("customer", "item", "line") if not isinstance(order.get(name), str)]
        wrong += [name for name in ("total", "deposit") if type(order.get(name)) is not int or order[name] < 0]
        wrong += [name for name in ("quantity",) if type(order.get(name)) is not int or order[name] < 1]
        if wrong:
            said = ", ".join(f"{name} is {order.get(name)!r}" for name in wrong)
            return WorkflowResult(False, "validation", error="bad_order", message=said)
        return await super().validate()

    async def execute_step(self, step: str) -> WorkflowResult:
        return await self.change(step, getattr(self, step), self.step_context)

    async def rollback_step(self, step: str) -> WorkflowResult:
        return await self.change(f"rollback_{step}", getattr(self, f"undo_{step}"), self.step_context)

    async def change(self, name: str, effect: Effect, context: StepContext) -> WorkflowResult:
        try:
            # In a thread, because a database that blocks the event loop would hold up everything else in it.
            answer = await asyncio.to_thread(self.company.once, context.idempotency_key, effect)
        except RefusedError as refused:
            return WorkflowResult(False, name, error="refused", message=str(refused))
        message = answer.pop("said")
        ask = name == "approval" and answer["total"] > APPROVAL_LIMIT
        return WorkflowResult(True, name, answer, message=message, requires_approval=ask)

    # The steps. Each sees an open transaction, and says what it did.

    def reserve_stock(self, db: sqlite3.Connection) -> Answer:
        item, quantity = self.metadata["item"], self.metadata["quantity"]
        (free,) = db.execute("SELECT free FROM stock WHERE item = ?", (item,)).fetchone() or (0,)
        if free < quantity:
            raise RefusedError(f"{quantity} x {item} wanted, {free} in stock")
        db.execute("UPDATE stock SET free = free - ? WHERE item = ?", (quantity, item))
        db.execute("INSERT INTO reservations VALUES (?, ?, ?)", (self.workflow_id, item, quantity))
        return {"said": f"{quantity} x {item}, {free - quantity} left"}

    def undo_reserve_stock(self, db: sqlite3.Connection) -> Answer:
        gone = "DELETE FROM reservations WHERE order_id = ? RETURNING item, quantity"
        for item, quantity in db.execute(gone, (self.workflow_id,)).fetchall():
            db.execute("UPDATE stock SET free = free + ? WHERE item = ?", (quantity, item))
            return {"said": f"{quantity} x {item} back in stock"}
        return {"said": "nothing was reserved"}

    def book_deposit(self, db: sqlite3.Connection) -> Answer:
        customer, deposit = self.metadata["customer"], self.metadata["deposit"]
        entry = (self.workflow_id, customer, deposit)
        db.execute("INSERT INTO ledger (order_id, customer, amount) VALUES (?, ?, ?)", entry)
        return {"said": f"{money(deposit)} from {customer}"}

    def undo_book_deposit(self, db: sqlite3.Connection) -> Answer:
        # A ledger is not corrected by deleting: the money goes back by an entry of its own.
        held = "SELECT coalesce(sum(amount), 0) FROM ledger WHERE order_id = ?"
        (amount,) = db.execute(held, (self.workflow_id,)).fetchone()
        customer = self.metadata["customer"]
        if amount:
            entry = (self.workflow_id, customer, -amount)
            db.execute("INSERT INTO ledger (order_id, customer, amount) VALUES (?, ?, ?)", entry)
        return {"said": f"{money(amount)} back to {customer}"}

    def assign_address(self, db: sqlite3.Connection) -> Answer:
        free = db.execute("SELECT min(address) FROM addresses WHERE order_id IS NULL").fetchone()[0]
        if free is None:
            raise RefusedError("no address is free")
        db.execute("UPDATE addresses SET order_id = ? WHERE address = ?", (self.workflow_id, free))
        return {"said": free, "address": free}

    def undo_assign_address(self, db: sqlite3.Connection) -> Answer:
        taken_back = "UPDATE addresses SET order_id = NULL WHERE order_id = ? RETURNING address"
        rows = db.execute(taken_back, (self.workflow_id,)).fetchall()
        return {"said": f"{rows[0][0]} is free again" if rows else "no address was assigned"}

    def approval(self, db: sqlite3.Connection) -> Answer:
        total = self.metadata["total"]
        compared = "above" if total > APPROVAL_LIMIT else "within"
        return {"said": f"{money(total)} is {compared} the limit of {money(APPROVAL_LIMIT)}", "total": total}

    def undo_approval(self, db: sqlite3.Connection) -> Answer:
        return {"said": "it changed nothing"}

    def activate(self, db: sqlite3.Connection) -> Answer:
        line = self.metadata["line"]
        condition = db.execute("SELECT condition FROM lines WHERE line = ?", (line,)).fetchone()
        if condition != ("good",):
            raise RefusedError(f"{line} is {condition[0] if condition else 'unknown'}")
        db.execute("INSERT INTO activations VALUES (?, ?)", (self.workflow_id, line))
        return {"said": f"{line} is up"}

    def undo_activate(self, db: sqlite3.Connection) -> Answer:
        db.execute("DELETE FROM activations WHERE order_id = ?", (self.workflow_id,))
        return {"said": f"{self.metadata['line']} is down"}

    def notify(self, db: sqlite3.Connection) -> Answer:
        return self._send(db, "your service is ready")

    def undo_notify(self, db: sqlite3.Connection) -> Answer:
        # A crash may have left it unknown whether anything was sent, if the order was cancelled meanwhile.
        if not db.execute("SELECT 1 FROM notifications WHERE order_id = ?", (self.workflow_id,)).fetchone():
            return {"said": "nothing was sent"}
        return self._send(db, "your service was taken back")

    def _send(self, db: sqlite3.Connection, text: str) -> Answer:
        db.execute("INSERT INTO notifications (order_id, text) VALUES (?, ?)", (self.workflow_id, text))
        return {"said": f"told {self.metadata['customer']}: {text}"}


# What is printed.


def money(cents: int) -> str:
    return f"{cents / 100:.2f}"


class Story:
    """Prints what happens to one order, as it happens: its callbacks come after the commit they tell of."""

    def __init__(self, order: ServiceOrder) -> None:
        self.lines = 0
        order.on_step_completed = self.step
        order.on_approval_required = lambda step: self.say(step, "waits", "for an approval")
        order.on_rollback_completed = self.undone

    def say(self, what: str, how: str, message: str | None) -> None:
        self.lines += 1
        print(f"  {what:<24}{how:<10}{message or ''}", flush=True)

    def step(self, result: WorkflowResult) -> None:
        self.say(result.step, "done" if result.success else "FAILED", result.message)

    def undone(self, results: list[WorkflowResult]) -> None:
        for result in results:
            if result.step.startswith("rollback_"):
                self.say(result.step, "undone" if result.success else "FAILED", result.message)


def show_company(company: Company, when: str) -> None:
    entries = company.rows("SELECT order_id, amount FROM ledger ORDER BY entry")
    tables = {
        "stock": [f"{free} x {item}" for item, free in company.rows("SELECT item, free FROM stock ORDER BY item")],
        "ledger": [f"{order} {'+' if amount > 0 else ''}{money(amount)}" for order, amount in entries],
        "addresses": [
            f"{address} {order or 'free'}"
            for address, order in company.rows("SELECT address, order_id FROM addresses ORDER BY address")
        ],
        "activations": [
            f"{line} {order}" for order, line in company.rows("SELECT order_id, line FROM activations ORDER BY line")
        ],
        "notifications": [
            f"{order} '{text}'"
            for order, text in company.rows("SELECT order_id, text FROM notifications ORDER BY number")
        ],
    }
    print(f"\nThe company's database {when}")
    for table, rows in tables.items():
        indent = f"  {table:<16}"
        print(textwrap.fill(", ".join(rows) or "-", 80, initial_indent=indent, subsequent_indent=" " * len(indent)))


def show_summary(orders: list[tuple[ServiceOrder, dict[str, Any]]]) -> list[str]:
    """Print a line an order, and return what is not as it should be."""
    problems = []
    print(f"\n{'order':<12}{'status':<11}{'done':>4}{'undone':>8}  {'rollback':<10}{'last said'}")
    for order, given in orders:
        forward = [r for r in order.results if r.step in STEPS and r.success]
        undone = [r for r in order.results if r.step.startswith("rollback_") and r.success]
        told = [r for r in order.results if not r.success] or order.results
        said = textwrap.shorten(told[-1].message or "", 80 - 47, placeholder=" ...")
        line = f"{order.workflow_id:<12}{order.status!s:<11}{len(forward):>4}{len(undone):>8}"
        print(f"{line}  {order.rollback_status:<10}{said}")
        found = {"status": str(order.status), "rollback": order.rollback_status}
        if found != given["expect"]:
            problems.append(f"{order.workflow_id} is {found}, not {given['expect']}")
        if what_it_holds(order) != ([1, 1, 1, 1] if order.is_completed else [0, 0, 0, 0]):
            problems.append(f"{order.workflow_id} is {order.status} and holds {what_it_holds(order)}")
    return problems


def what_it_holds(order: ServiceOrder) -> list[int]:
    """Count the order's reservations, deposits, addresses and activations: all of a service, or nothing."""
    held = """
        SELECT (SELECT count(*) FROM reservations WHERE order_id = ?1),
               (SELECT coalesce(sum(amount), 0) <> 0 FROM ledger WHERE order_id = ?1),
               (SELECT count(*) FROM addresses WHERE order_id = ?1),
               (SELECT count(*) FROM activations WHERE order_id = ?1)
    """
    return list(order.company.rows(held, order.workflow_id)[0])


# The run.


async def place(given: dict[str, Any], persistence: Persistence, company: Company) -> ServiceOrder:
    """Do an order as far as it goes without an approval. Done already: nothing runs again."""
    order = ServiceOrder(given["id"], metadata=given["order"], persistence=persistence, company=company)
    print(f"\n{given['id']}: {given['why']}")
    story = Story(order)
    results = await order.execute()
    if results and results[0].step == "validation":
        story.step(results[0])
    elif not story.lines:
        story.say("-", str(order.status), "recorded before; nothing ran again")
    return order


async def decide(given: dict[str, Any], persistence: Persistence, company: Company) -> None:
    """Do what an approver does: load the order, which may wait since long ago, and decide."""
    decision = given["decision"]
    order = await ServiceOrder.load(given["id"], persistence, company=company)
    if not order.is_waiting_approval:
        return
    print(f"\n{given['id']}: {decision['actor']} decides to {decision['verdict']}: {decision['text']}")
    Story(order)
    if decision["verdict"] == "approve":
        await order.approve_and_continue({"note": decision["text"]}, actor=decision["actor"])
    else:
        await order.reject_and_cancel(decision["text"], actor=decision["actor"])


async def run(folder: Path, orders: list[dict[str, Any]]) -> int:
    company = Company(folder / "company.db")
    show_company(company, "before")
    async with SQLitePersistence(folder / "workflows.db") as persistence:
        placed = [await place(given, persistence, company) for given in orders]
        for given in orders:
            if "decision" in given:
                await decide(given, persistence, company)
        summary = []
        for order, given in zip(placed, orders, strict=True):
            try:
                order = await ServiceOrder.load(order.workflow_id, persistence, company=company)
            except WorkflowNotFoundError:
                pass  # it was refused before it began, so that there is no journal of it
            summary.append((order, given))
    problems = show_summary(summary)
    show_company(company, "after")
    print("\nAll went as expected." if not problems else "\nNot as expected: " + "; ".join(problems))
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run service orders, and undo those that fail.")
    parser.add_argument("--folder", type=Path, help="where to keep both databases (else: in a temporary folder)")
    parser.add_argument("--orders", type=Path, default=Path(__file__).with_name("orders.json"))
    options = parser.parse_args()
    orders = json.loads(options.orders.read_text(encoding="utf-8"))["orders"]
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(run(options.folder, orders))
    with tempfile.TemporaryDirectory(prefix="provisioning-") as folder:
        print("In a temporary folder; --folder DIR keeps the two databases.")
        return asyncio.run(run(Path(folder), orders))


if __name__ == "__main__":
    sys.exit(main())
