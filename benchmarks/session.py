"""A peer's process, as the tool sees it: started, asked, and ended."""

import json
import os
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from benchmarks.catalogue import Peer
from benchmarks.environments import UnavailableError

ROOT = Path(__file__).parents[1]
STARTED_WITHIN = 120.0


class NotMeasuredError(Exception):
    """The peer gave no figure; the text says why."""


class Session:
    """A process that answers tasks. It is killed at the end: what hangs in it is meant to."""

    def __init__(self, peer: Peer, python: Path) -> None:
        self.peer = peer
        path = os.pathsep.join((str(ROOT), str(ROOT / "src")))
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            [python, "-P", "-X", "utf8", "-m", peer.adapter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.about: dict[str, Any] = self._answer(STARTED_WITHIN)
        except NotMeasuredError as error:
            self.kill()
            raise UnavailableError(f"does not start: {error}") from None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def ask(self, task: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """Give it a task, and wait for the answer so long.

        Raises:
            NotMeasuredError: It cannot do that, failed, ended, or took longer; in the last case it is ended.
        """
        assert self._process.stdin is not None
        if self._process.returncode is not None:
            raise NotMeasuredError("its process has ended")
        try:
            self._process.stdin.write(json.dumps({"task": task, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise NotMeasuredError(self._last_words()) from None
        answer = self._answer(seconds)
        if "told" in answer:
            told: dict[str, Any] = answer["told"]
            return told
        raise NotMeasuredError(str(answer.get("cannot") or answer["failed"]))

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._said):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # an unsent request

    def _answer(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self.kill()
            raise NotMeasuredError(f"takes more than {seconds:.0f} s") from None
        if not line:
            raise NotMeasuredError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(said) if line.strip()), f"ended: {self._process.returncode}")

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(b"")
