"""An adapter as a process: it says who it is, then answers tasks, a line of JSON each.

A request is `{"task": NAME, ...arguments}`, its answer `{"told": {...}}`, or `{"cannot": WHY}` or `{"failed": WHY}`.
What the peer itself prints goes to standard error. The loop runs on while a request is waited for, as it would in a
server; peers that poll or renew do so.
"""

import asyncio
import json
import os
import platform
import sqlite3
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, TextIO

from benchmarks.peers._adapter import Adapter, NotPossibleError, Tasks


def serve(adapter: Adapter) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints must not print into the answers
    asyncio.run(_serve(adapter, answers))
    answers.flush()
    os._exit(0)  # threads and tasks that hang are meant to


async def _serve(adapter: Adapter, answers: TextIO) -> None:

    tasks = Tasks(adapter)

    def answer(told: dict[str, Any]) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    answer(
        {
            "version": version(adapter.distribution) if adapter.distribution else None,
            "imports": adapter.imports,
            "memory": adapter.memory,
            "durable": adapter.durable,
            "cannot": adapter.cannot,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }
    )
    reader = ThreadPoolExecutor(1)  # of its own: peers close the loop's
    while line := await asyncio.get_running_loop().run_in_executor(reader, sys.stdin.readline):
        request: dict[str, Any] = json.loads(line)
        name = request.pop("task")
        try:
            if name in adapter.cannot:
                raise NotPossibleError(adapter.cannot[name])
            answer({"told": await getattr(tasks, name)(**request)})
        except NotPossibleError as why:
            answer({"cannot": str(why)})
        except Exception as error:
            traceback.print_exc()
            answer({"failed": f"{type(error).__name__}: {error}"})
    await tasks.close()
