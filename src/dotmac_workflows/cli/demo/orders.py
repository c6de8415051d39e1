"""The demo's workflow, and the company whose database its steps change."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

from ...base import Workflow
from ...persistence import Persistence
from ...result import WorkflowResult

APPROVAL_LIMIT = 10_000
STEPS = ["reserve", "deposit", "address", "activate"]

Change = Callable[[sqlite3.Connection], str]


def sample_orders() -> list[dict[str, Any]]:
    """Return the orders that ship with the package."""
    text = resources.files("dotmac_workflows.cli.demo").joinpath("orders.json").read_text(encoding="utf-8")
    orders: list[dict[str, Any]] = json.loads(text)["orders"]
    return orders


def money(cents: int) -> str:
    """Return an amount for people."""
    return f"{cents / 100:.2f}"


class RefusedError(Exception):
    """The company says no; nothing was changed."""


class Company:
    """What the steps change: a database that knows nothing of workflows but the keys of their steps."""

    _SCHEMA = """
        CREATE TABLE calls (number INTEGER PRIMARY KEY, order_id TEXT, step TEXT, key TEXT) STRICT;
        CREATE TABLE effects (key TEXT PRIMARY KEY, answer TEXT NOT NULL) STRICT;
        CREATE TABLE stock (item TEXT PRIMARY KEY, free INTEGER NOT NULL CHECK (free >= 0)) STRICT;
        CREATE TABLE reserved (order_id TEXT PRIMARY KEY, item TEXT NOT NULL, quantity INTEGER NOT NULL) STRICT;
        CREATE TABLE deposits (entry INTEGER PRIMARY KEY, order_id TEXT NOT NULL, cents INTEGER NOT NULL) STRICT;
        CREATE TABLE addresses (address TEXT PRIMARY KEY, order_id TEXT UNIQUE) STRICT;
        CREATE TABLE lines (line TEXT PRIMARY KEY, works INTEGER NOT NULL, order_id TEXT UNIQUE) STRICT;
        INSERT INTO stock VALUES ('antenna', 4), ('router', 10);
        INSERT INTO addresses (address) VALUES ('192.0.2.1'), ('192.0.2.2'), ('192.0.2.3'), ('192.0.2.4');
        INSERT INTO lines (line, works)
            VALUES ('line-1', 1), ('line-2', 1), ('line-3', 1), ('line-4', 0), ('line-5', 1);
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def found(self) -> None:
        """Make the database."""
        with closing(sqlite3.connect(self._path)) as db:
            db.executescript(self._SCHEMA)

    def call(self, order_id: str, step: str, key: str, change: Change) -> tuple[str, bool]:
        """Make a change and remember its key, both or neither; a key that is known gets its old answer.

        Returns:
            What the company says, and whether it made the change just now.

        Raises:
            RefusedError: It will not.
        """
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=30)) as db:
            db.execute("BEGIN IMMEDIATE")  # to close without a commit undoes
            db.execute("INSERT INTO calls (order_id, step, key) VALUES (?, ?, ?)", (order_id, step, key))
            known = db.execute("SELECT answer FROM effects WHERE key = ?", (key,)).fetchone()
            answer: str = known[0] if known else change(db)
            if not known:
                db.execute("INSERT INTO effects VALUES (?, ?)", (key, answer))
            db.execute("COMMIT")
            return answer, not known

    def rows(self, query: str, *parameters: str) -> list[tuple[Any, ...]]:
        """Look at the database."""
        with closing(sqlite3.connect(self._path, timeout=30)) as db:
            return db.execute(query, parameters).fetchall()


class Order(Workflow):
    """Reserve stock, book a deposit, have it approved, assign an address, activate a line; or undo it all.

    Its company's database lies beside the journal's file.
    """

    def __init__(
        self,
        workflow_id: str | None = None,
        steps: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        persistence: Persistence | None = None,
    ) -> None:
        super().__init__(workflow_id, steps or list(STEPS), metadata, persistence=persistence)
        self.configure(require_approval=True, rollback_on_cancel=True)
        self._company = Company(Path(getattr(persistence, "path", "workflows.db")).with_name("company.db"))

    async def execute_step(self, step: str) -> WorkflowResult:
        """Have the company do it; what it refuses fails the step."""
        try:
            said, made = await self._call(step, getattr(self, f"_{step}"))
        except RefusedError as refused:
            return WorkflowResult(False, step, error="refused", message=str(refused))
        if made and step == "address":  # done, and its answer is on its way: the moment to be killed in
            await asyncio.sleep(self.metadata.get("address_takes", 0))
        ask = step == "deposit" and self.metadata["deposit"] > APPROVAL_LIMIT
        return WorkflowResult(True, step, message=said, requires_approval=ask)

    async def rollback_step(self, step: str) -> WorkflowResult:
        """Have the company take it back."""
        said, _ = await self._call(f"undo {step}", getattr(self, f"_undo_{step}"))
        return WorkflowResult(True, f"rollback_{step}", message=said)

    async def _call(self, name: str, change: Change) -> tuple[str, bool]:
        key = self.step_context.idempotency_key
        return await asyncio.to_thread(self._company.call, self.workflow_id, name, key, change)

    def _reserve(self, db: sqlite3.Connection) -> str:
        item, quantity = self.metadata["item"], self.metadata["quantity"]
        (free,) = db.execute(
            "UPDATE stock SET free = free - ? WHERE item = ? RETURNING free", (quantity, item)
        ).fetchone()
        db.execute("INSERT INTO reserved VALUES (?, ?, ?)", (self.workflow_id, item, quantity))
        return f"{quantity} x {item}, {free} left"

    def _undo_reserve(self, db: sqlite3.Connection) -> str:
        gone = "DELETE FROM reserved WHERE order_id = ? RETURNING item, quantity"
        item, quantity = db.execute(gone, (self.workflow_id,)).fetchone()
        db.execute("UPDATE stock SET free = free + ? WHERE item = ?", (quantity, item))
        return f"{quantity} x {item} back in stock"

    def _deposit(self, db: sqlite3.Connection) -> str:
        return self._book(db, self.metadata["deposit"])

    def _undo_deposit(self, db: sqlite3.Connection) -> str:
        return self._book(db, -self.metadata["deposit"])  # an entry of its own: nothing is struck out of a ledger

    def _book(self, db: sqlite3.Connection, cents: int) -> str:
        db.execute("INSERT INTO deposits (order_id, cents) VALUES (?, ?)", (self.workflow_id, cents))
        return f"{money(cents)} booked"

    def _address(self, db: sqlite3.Connection) -> str:
        first = "(SELECT min(address) FROM addresses WHERE order_id IS NULL)"
        take = f"UPDATE addresses SET order_id = ? WHERE address = {first} RETURNING address"
        (address,) = db.execute(take, (self.workflow_id,)).fetchone()
        return str(address)

    def _undo_address(self, db: sqlite3.Connection) -> str:
        free = "UPDATE addresses SET order_id = NULL WHERE order_id = ? RETURNING address"
        (address,) = db.execute(free, (self.workflow_id,)).fetchone()
        return f"{address} is free again"

    def _activate(self, db: sqlite3.Connection) -> str:
        line = self.metadata["line"]
        taken = db.execute("UPDATE lines SET order_id = ? WHERE line = ? AND works", (self.workflow_id, line))
        if not taken.rowcount:
            raise RefusedError("faulty line")
        return f"{line} is up"

    def _undo_activate(self, db: sqlite3.Connection) -> str:
        db.execute("UPDATE lines SET order_id = NULL WHERE order_id = ?", (self.workflow_id,))
        return f"{self.metadata['line']} is down"
