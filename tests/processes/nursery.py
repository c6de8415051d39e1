"""A process that has imported everything, and forks one worker after the other: ``python -m processes.nursery``.

A worker that is born takes a few milliseconds, and a new interpreter a hundred. For each line on its input, the
arguments of `worker.main` as JSON, it says ``born PID``, the worker says what it has to say, and when that is dead
``died STATUS``: the exit code, or the signal with a minus.
"""

import asyncio
import json
import os
import sys

from processes.worker import main, say


def work(arguments: list[str]) -> None:
    """Be a worker, and end."""
    status = 1
    try:
        asyncio.run(main(*arguments))
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def bear() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            work(json.loads(line))
        say(f"born {child}")
        _, status = os.waitpid(child, 0)
        say(f"died {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    bear()
