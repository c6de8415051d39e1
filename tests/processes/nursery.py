"""A process that has imported everything, and forks one worker after the other: ``python -m processes.nursery MODULE``.

A worker that is born takes a few milliseconds, and a new interpreter a hundred. For each line on its input, the
arguments of the ``main`` of ``processes.MODULE`` as JSON, it says ``born PID``, the worker says what it has to say,
``stopped`` and ``continued`` are said of it, and when it is dead ``died STATUS``: the exit code, or the signal with a
minus. `Worker` is the side of whoever wants them.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from dotmac_workflows.testing._judge import Violation

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])}


class Worker:
    """One process after the other, each born when the one before it is dead.

    Args:
        module: The module in ``processes`` whose ``main`` they do.
        environment: What their environment has more than ours.
    """

    def __init__(self, module: str, **environment: str) -> None:
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "processes.nursery", module],
            env={**ENVIRONMENT, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.said: list[str] = []
        """What the one at work has said so far."""
        self.process = 0
        self.status: int | None = None
        """How it died: its exit code, or the signal with a minus; None while it lives."""
        self.is_stopped = False
        # By a thread, so that nobody who has much to say has to wait, with leases in hand, until he is listened to.
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, *arguments: str) -> None:
        """Have a process born, which works."""
        assert self._nursery.stdin is not None
        self.said, self.process, self.status = [], 0, None
        self._nursery.stdin.write(json.dumps(arguments) + "\n")
        while not self.process:
            self.listen()

    def listen(self) -> None:
        """Wait for it to say something, to stop or go on, or to die."""
        line = self._lines.get()
        what, _, rest = line.partition(" ")
        if what == "born":
            self.process = int(rest)
        elif what == "died":
            self.status = int(rest)
        elif what in ("stopped", "continued"):
            self.is_stopped = what == "stopped"
        elif line:
            self.said.append(line)
        else:
            raise Violation(f"the nursery is gone, after {self.last_words}")

    def kill(self) -> None:
        """Kill it with signal 9, if it still lives, and wait until it is dead."""
        self._send(signal.SIGKILL)
        self.wait()

    def stop(self) -> bool:
        """Stop it with SIGSTOP, and wait until it is; False: it was dead before."""
        self._send(signal.SIGSTOP)
        while not self.is_stopped and self.status is None:
            self.listen()
        return self.status is None

    def go_on(self) -> None:
        """Let one that was stopped go on, and wait until it does."""
        self._send(signal.SIGCONT)
        while self.is_stopped and self.status is None:
            self.listen()

    def wait(self) -> None:
        """Wait until it is dead, and has said everything."""
        while self.status is None:
            self.listen()

    @property
    def last_words(self) -> str:
        """The last things that it said, for an error."""
        return "\n".join(self.said[-20:])

    def close(self) -> None:
        """End the nursery, and whoever is in it."""
        if self.process and self.status is None:
            self._send(signal.SIGKILL)
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait()
        self._reader.join()
        self._nursery.stdout.close()

    def _read(self) -> None:
        assert self._nursery.stdout is not None
        for line in self._nursery.stdout:
            self._lines.put(line.strip())
        self._lines.put("")  # nothing more comes

    def _send(self, which: signal.Signals) -> None:
        assert self.process, "0 would be the group of this process"
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, which)


def say(line: str) -> None:
    """Say a line at once, whole, whatever becomes of this process after it."""
    os.write(1, f"{line}\n".encode())


def _work(main: Callable[..., Coroutine[Any, Any, None]], arguments: list[str]) -> None:
    """Be a worker, and end."""
    status = 1
    try:
        asyncio.run(main(*arguments))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _watch(child: int) -> None:
    """Say what becomes of a worker, until it is dead."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED | os.WCONTINUED)
        if os.WIFSTOPPED(status):
            say("stopped")
        elif os.WIFCONTINUED(status):
            say("continued")
        else:
            break
    say(f"died {os.waitstatus_to_exitcode(status)}")


def bear(module: str) -> None:
    logging.getLogger("dotmac_workflows").setLevel(logging.CRITICAL)
    main = importlib.import_module(f"processes.{module}").main
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _work(main, json.loads(line))
        say(f"born {child}")
        _watch(child)


if __name__ == "__main__":
    bear(sys.argv[1])
