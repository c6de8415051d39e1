"""What the tests of the command line share: a module of workflows, and ways to call the command line."""

import errno
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SOURCE = Path(__file__).parents[1] / "src"

SHOP = '''
"""Orders. Metadata says what goes wrong; the file `ledger` what was done; the file `broken` breaks the rollback."""

import asyncio
import os

from dotmac_workflows import Workflow, WorkflowResult

STEPS = ["check", "reserve", "charge", "ship"]


def note(text):
    with open("ledger", "a") as ledger:
        ledger.write(text + "\\n")


class Order(Workflow):
    def __init__(self, workflow_id=None, metadata=None, *, persistence=None):
        super().__init__(workflow_id, list(STEPS), metadata, persistence=persistence)
        self.configure(require_approval=True, rollback_on_cancel=True)

    async def validate(self):
        if self.metadata.get("customer") == "":
            return WorkflowResult(False, "validation", error="no_customer", message="An order needs a customer.")
        return await super().validate()

    async def execute_step(self, step):
        note(f"{step} {self.step_context.attempt}")
        if hasattr(self.runtime.clock, "advance"):
            self.runtime.clock.advance(0.25)
        if self.metadata.get("exit_in") == step:
            raise SystemExit(7)
        if self.metadata.get("wait_in") == step and not os.path.exists("go"):
            print("inside", step, flush=True)
            await asyncio.Event().wait()
        if self.metadata.get("fail_in") == step:
            raise RuntimeError(self.metadata.get("because", "the card was declined"))
        gate = self.metadata.get("approve_after") == step
        return WorkflowResult(True, step, {"number": len(step)}, requires_approval=gate)

    async def rollback_step(self, step):
        note(f"undo {step}")
        if step == "check":
            return None
        if step == "reserve" and os.path.exists("broken"):
            return WorkflowResult(False, "rollback_reserve", error="warehouse_closed")
        return WorkflowResult(True, f"rollback_{step}")


def make_order(workflow_id, persistence):
    return Order(workflow_id, persistence=persistence)


class Bare(Workflow):
    """Takes no metadata."""

    def __init__(self, workflow_id, persistence):
        super().__init__(workflow_id, ["one"], persistence=persistence)

    async def execute_step(self, step):
        return WorkflowResult(True, step, {"metadata": dict(self.metadata)})


class Needy(Order):
    def __init__(self, gateway, **kwargs):
        super().__init__(**kwargs)


class Exploding(Order):
    def __init__(self, **kwargs):
        raise OSError("no gateway")


not_a_workflow = 5


def forget_the_store(workflow_id, persistence):
    return Order(workflow_id)


def make_another(workflow_id, persistence):
    return Order("another", persistence=persistence)


def make_nothing(workflow_id, persistence):
    return None
'''


@dataclass
class Answer:
    """What a command came to, in this process."""

    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


def environment(**more: str) -> dict[str, str]:
    """Return the variables for a real process: this source tree, 80 columns, and no colour but what a test asks."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "DOTMAC_WORKFLOWS_DB")}
    return kept | {"PYTHONPATH": str(SOURCE), "COLUMNS": "80", "PYTHONUNBUFFERED": "1"} | more


def start(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a real process that carries out a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "dotmac_workflows", *arguments],
        cwd=folder,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process; return its exit code, output and error output."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def call(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Carry out a command in a real process."""
    return finish(start(folder, *arguments, env=env))


def read_until(stream: IO[str] | None, text: str) -> str:
    """Read lines up to one that holds a text, and return them all."""
    assert stream is not None
    read = ""
    while text not in read:
        line = stream.readline()
        assert line, f"the output ended without {text!r}: {read}"
        read += line
    return read


class Screen:
    """A command on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        env = environment(TERM="xterm", **variables)
        child, self._terminal = pty.fork()
        if child == 0:
            os.chdir(folder)
            os.execve(sys.executable, [sys.executable, "-m", "dotmac_workflows", *arguments], env)
        self._process = child
        self.shown = ""

    def _read(self) -> Iterator[str]:
        while True:
            try:
                read = os.read(self._terminal, 4096)
            except OSError as error:
                if error.errno != errno.EIO:  # what Linux answers when the other end is closed
                    raise
                return
            if not read:
                return
            yield read.decode()

    def until(self, text: str) -> None:
        """Wait for a text to be shown."""
        for read in self._read():
            self.shown += read
            if text in self.shown:
                return
        raise AssertionError(f"{text!r} was not shown: {self.shown!r}")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        for read in self._read():
            self.shown += read
        _, status = os.waitpid(self._process, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)
