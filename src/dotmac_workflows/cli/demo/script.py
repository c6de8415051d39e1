"""The demo: starts the worker, kills it, has the orders decided, starts it again, and checks what it then says."""

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..context import Context
from ..exits import DONE, FAILED, REFUSED, CommandError
from ..loading import DB_VARIABLE, actor
from ..standing import Standing
from ..terminal import Styled
from . import outcome
from .orders import APPROVAL_LIMIT, Company, money, sample_orders

_PATIENCE = 60.0
"""Seconds after which the demo gives up waiting for a process."""
_ANSWERS = {"": "approve", "a": "approve", "approve": "approve", "y": "approve", "yes": "approve"} | dict.fromkeys(
    ("r", "reject", "n", "no"), "reject"
)


def demo(context: Context) -> int:
    """Run the sample orders, kill their worker, and show what became of them."""
    return _Demo(context, _make_folder(context.arguments.folder)).run()


def _make_folder(given: str | None) -> Path:
    """Return the folder for the two databases.

    Raises:
        CommandError: The demo was run there before, or it cannot be made.
    """
    if given is None:
        return Path(tempfile.mkdtemp(prefix="dotmac-workflows-demo-"))
    folder = Path(given)
    there = [name for name in ("workflows.db", "company.db") if (folder / name).exists()]
    if there:
        raise CommandError(
            f"{given!r} has a {' and a '.join(there)} already; nothing was run. Name a new folder.", REFUSED
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"The folder {given!r} cannot be made: {error.strerror}.") from error
    return folder


class _Demo:
    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._out = context.out
        self._say = context.out.line
        self._folder = folder
        self._db = folder / "workflows.db"
        self._company = Company(folder / "company.db")
        self._orders = sample_orders()
        self._last: str = self._orders[-1]["id"]

    def run(self) -> int:
        """Tell the story; return the exit code."""
        self._company.found()
        before = outcome.totals(self._company)
        self._introduce()
        self._work_until_killed()
        self._decide()
        self._work_on(before)
        self._sum_up(before)
        return DONE

    def _head(self, text: str) -> None:
        self._say()
        self._say(Styled(text, "bold"))

    def _introduce(self) -> None:
        self._say(Styled("Five orders become workflows of four steps, in two SQLite files:", "bold"))
        self._say("  workflows.db  is the library's: what happened to each order")
        self._say("  company.db    is the company's: the stock, money and addresses they change")
        self._say("They are in ", str(self._folder))
        self._say()
        for given in self._orders:
            order = given["order"]
            wanted = f"{order['quantity']} x {order['item']}".ljust(12)
            self._say("  ", Styled(given["id"], "bold"), f"  {wanted} {money(order['deposit']):>6}  {given['about']}")

    # The processes.

    def _environment(self) -> dict[str, str]:
        return {**os.environ, DB_VARIABLE: str(self._db)}

    def _start_worker(self, heading: str) -> "subprocess.Popen[bytes]":
        self._say()
        command = [sys.executable, "-m", f"{__package__}.worker", str(self._folder), heading]
        return subprocess.Popen(command, env=self._environment(), stdin=subprocess.DEVNULL)

    def _until(self, condition: Callable[[], object], worker: "subprocess.Popen[bytes] | None" = None) -> None:
        """Wait for a condition.

        Raises:
            CommandError: It does not come, or the worker ended before it did.
        """
        patience = time.monotonic() + _PATIENCE
        while not condition():
            if worker is not None and worker.poll() is not None:
                raise CommandError(f"The worker ended by itself, with {worker.returncode}.", FAILED)
            if time.monotonic() > patience:
                raise CommandError(f"The demo waited {_PATIENCE:.0f} s for a process in vain.", FAILED)
            time.sleep(0.02)

    def _work_until_killed(self) -> None:
        called = "SELECT 1 FROM calls WHERE order_id = ? AND step = 'address'"
        worker = self._start_worker("A worker takes them")
        try:
            self._until(lambda: self._company.rows(called, self._last), worker)
            self._rest(0.7)
        finally:
            worker.kill()
            code = worker.wait()
        self._say(" ...")
        self._say()
        if hasattr(signal, "SIGKILL"):
            self._command(f"kill -9 {worker.pid}")
            outcome.insist([] if code == -signal.SIGKILL else [f"the killed worker ended with {code}"])
        else:
            self._say(f"Process {worker.pid} is terminated (there is no kill -9 here).")
        self._until(lambda: self._standing().driver is None)
        outcome.insist(outcome.check_killed(self._company, self._standing()))
        self._say("Dead, in the middle of a step: company.db has the address, but the answer never")
        self._say("came. No process runs now: two orders wait for a decision, one is half done.")

    def _decide(self) -> None:
        self._head("Other processes decide, by the command line")
        for given in self._orders:
            if "decision" in given:
                self._ask(given)
                verdict = given["verdict"]
                command = [verdict, given["id"], "--as", given["actor"]]
                self._command(f"{self._context.program} {shlex.join(command)}")
                self._run_command(*command, *(["--yes"] if verdict == "reject" else []))
                given["ends"] = "completed" if verdict == "approve" else "cancelled"

    def _ask(self, given: dict[str, Any]) -> None:
        """Settle the verdict on an order: asked of somebody at a terminal where the sample leaves it open."""
        decision = given["decision"]
        given["verdict"], given["actor"] = decision["verdict"], decision["actor"]
        if decision["verdict"] == "approve" and self._out.can_ask:
            deposit, limit = money(given["order"]["deposit"]), money(APPROVAL_LIMIT)
            self._say(f"{given['id']} waits: its deposit of {deposit} is above {limit}. You decide.")
            given["verdict"], given["actor"] = self._answer(), actor(None)

    def _answer(self) -> str:
        while True:
            answer = self._out.ask(Styled("Approve or reject?", "bold"), " [Enter: approve] ")
            if (verdict := _ANSWERS.get(answer.lower())) is not None:
                return verdict

    def _run_command(self, *arguments: str) -> None:
        """Carry out a command in a process of its own, and show what it says first.

        Raises:
            CommandError: It failed.
        """
        command = [sys.executable, "-m", "dotmac_workflows", *arguments]
        process = subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        said, _ = process.communicate(timeout=_PATIENCE)
        self._say(f"process {process.pid}: {said.partition(chr(10))[0]}")
        outcome.insist([f"{arguments[0]} ended with {process.returncode}"] if process.returncode else [])

    def _work_on(self, before: outcome.Totals) -> None:
        worker = self._start_worker("The worker is started again, and takes the same orders")
        try:
            self._until(lambda: worker.poll() is not None)
        finally:
            worker.kill()
            worker.wait()
        outcome.insist([f"the worker ended with {worker.returncode}"] if worker.returncode else [])
        self._head(f"How often the steps of {self._last} called on company.db")
        outcome.show_calls(self._out, self._company, self._last)
        outcome.insist(asyncio.run(outcome.check(self._db, self._company, self._orders, before)))
        self._say("The step in flight was called twice, by the same key, and changed things once.")

    # The end.

    def _standing(self) -> Standing:
        return asyncio.run(outcome.read_all(self._db, self._orders[-1:]))[self._last]

    def _sum_up(self, before: outcome.Totals) -> None:
        standings = asyncio.run(outcome.read_all(self._db, self._orders))
        self._head("What workflows.db says")
        outcome.show_timelines(self._out, self._orders, standings)
        self._head("What company.db says: all of an order, or nothing of it")
        outcome.show_holdings(self._out, self._company, self._orders, standings)
        self._say()
        outcome.show_totals(self._out, before, outcome.totals(self._company))
        self._say()
        self._say(Styled("All of this was checked in both files.", "good"), " To look further:")
        export, run = _pasteable(self._context.program, self._db)
        for line in (export, *(f"{run} {further}" for further in ("list", f"show {self._last}", "verify", "--help"))):
            self._say("  ", line)

    def _command(self, command: str) -> None:
        self._say(Styled(f"$ {command}", "bold"))

    def _rest(self, seconds: float) -> None:
        """Let an eye follow."""
        if self._out.is_terminal:
            time.sleep(seconds)


def _pasteable(program: str, db: Path) -> tuple[str, str]:
    """Return a command that names the database to those that follow, and how these begin."""
    as_module = program != "dotmac-workflows"
    path = os.environ.get("PYTHONPATH") if as_module else None
    if os.name != "posix":
        return f'$env:{DB_VARIABLE} = "{db}"', program
    name = Path(sys.executable).name
    python = name if shutil.which(name) == sys.executable else shlex.quote(sys.executable)
    run = program.replace("python", python, 1) if as_module else program
    prefix = f"PYTHONPATH={shlex.quote(path)} " if path else ""
    return f"export {DB_VARIABLE}={shlex.quote(str(db))}", prefix + run
