"""Has many processes drive and approve orders on one file at once, and judges what came of it."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crash_simulation import GATES, Script
from dotmac_workflows.testing._judge import Violation
from processes.judging import Evidence
from processes.nursery import ENVIRONMENT
from processes.orders import scripts_of, to_json
from processes.storm import PATIENCE

PROCESSES = 12
SHARED = 4
"""How many orders all processes are at: each has gates, which all of them decide."""


@dataclass
class Report:
    """What a storm came to."""

    workflows: int = 0
    appends: int = 0
    """How many appends were acknowledged."""
    seconds: float = 0.0
    """How long the last process took for its orders and the shared ones, from when all were let go."""
    longest: float = 0.0
    """How long the longest append took, in seconds."""
    busy: int = 0
    """How many processes were told who held the lock for too long."""


def run_storm(directory: Path, seed: int, own: int) -> Report:
    """Let the processes go, and judge what came of it.

    Args:
        directory: Where the database and the ledger go.
        seed: Of the orders.
        own: How many orders each process has for itself.

    Raises:
        Violation: A promise was broken.
    """
    chance, evidence = random.Random(seed), Evidence(directory)
    every_script = scripts_of(2, 3, 4)
    gated = [script for script in every_script if set(script.behaviours) & set(GATES)]

    def orders(names: Iterable[str], choice: list[Script]) -> str:
        made = {name: chance.choice(choice) for name in names}
        evidence.scripts.update(made)
        return to_json(made)

    told = {
        "own": [
            (
                orders([f"order-{number}-{index}" for index in range(own)], every_script),
                orders([f"later-{number}"], every_script),
            )
            for number in range(PROCESSES)
        ],
        "shared": orders([f"shared-{index}" for index in range(SHARED)], gated),
    }
    command = [sys.executable, "-m", "processes.storm", str(evidence.database), str(evidence.ledger)]
    ran = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, errors = ran.communicate(json.dumps(told))
    if ran.returncode:
        raise Violation(f"a process failed in the storm:\n{errors}")
    return _judge(evidence, ran.pid)


def _judge(evidence: Evidence, holder: int) -> Report:
    """Judge a storm, after which the lock was held by `holder`."""
    report = Report()
    lock, host = f"{evidence.database}-lock", os.uname().nodename
    wanted = (
        f"{lock!r} was not to be had for {PATIENCE:g} s: process {holder} on host {host} holds it, or took it last. "
        "Nothing was written."
    )
    for number in range(PROCESSES):
        said = (evidence.database.parent / f"said-{number}").read_text().splitlines()
        evidence.note(said)
        for line in said:
            what, _, rest = line.partition(" ")
            if what == "took":
                seconds, longest = map(float, rest.split())
                report.seconds, report.longest = max(report.seconds, seconds), max(report.longest, longest)
            elif what == "busy":
                if not rest.startswith(f"later-{number} {wanted}"):
                    raise Violation(f"busy: {rest!r} does not say {wanted!r}")
                report.busy += 1
    if report.busy != PROCESSES:
        raise Violation(f"busy: only {report.busy} of {PROCESSES} were told who holds the lock")
    asyncio.run(evidence.judge())
    report.workflows, report.appends = evidence.judged, evidence.acknowledged
    return report
