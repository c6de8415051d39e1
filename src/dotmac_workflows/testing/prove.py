"""`prove`: run a workflow under every schedule of failures, decisions, crashes and takeovers, and say what broke.

This is the way in: one proof at a time, on an event loop whose time is virtual; `_proof` goes through the schedules.
"""

import asyncio
import logging
import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from typing import Any

from ..errors import WorkflowConfigurationError
from ._options import Options, Progress
from ._proof import Proof, Stopped
from .report import ProofError, Report
from .scenario import Scenario

_one_at_a_time = threading.Lock()
"""Held by the proof that runs: the clock on the wall and the classes of the world are the whole process's."""
_in_a_proof: ContextVar[bool] = ContextVar("in a proof", default=False)


def prove(
    scenario: Scenario[Any],
    *,
    budget: int = 10_000,
    seed: int = 0,
    only: str | None = None,
    without: Collection[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Run a scenario under every schedule, and hold each run to the engine's promises and to the scenario's own.

    Time is virtual, and nothing is written to a disk. Works in any code, a coroutine of a test included, where it
    blocks the event loop; `prove_async` does not. While it runs, with the extra ``prove``, ``time.time()`` and
    ``datetime.now()`` show virtual time in the whole process, other threads included; a second proof waits for its end.

    Args:
        scenario: What to prove.
        budget: How many schedules at most, beside those without a fault; what does not fit is sampled.
        seed: What the samples are drawn by.
        only: The schedule that a `ProofError` named: runs just that one.
        without: Kinds to leave out: ``fail``, ``reject``, ``cancel``, ``crash``, ``rival``, ``freeze``, ``pair`` ...;
            ``clock``: no time passes between a crash and the process that takes over.
        progress: Told how many schedules were run, and how many there will be.

    Returns:
        What was run and covered.

    Raises:
        ProofError: A schedule breaks something; the simplest one, with its timeline.
        WorkflowConfigurationError: An option is wrong; or the scenario cannot be run, is not the same twice, or shows
            nothing that could be wrong.
    """
    __tracebackhide__ = True  # pytest shows the line of the test, and not this one
    return _prove(Proof(scenario, Options(budget, seed, only, without, progress)))


async def prove_async(
    scenario: Scenario[Any],
    *,
    budget: int = 10_000,
    seed: int = 0,
    only: str | None = None,
    without: Collection[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Do what `prove` does, in a thread, so that the event loop goes on; when cancelled, no schedule more is begun."""
    proof = Proof(scenario, Options(budget, seed, only, without, progress))
    try:
        return await asyncio.to_thread(_prove, proof)
    except asyncio.CancelledError:
        proof.stopped = True
        raise


def _prove(proof: "Proof[Any]") -> Report:
    if _in_a_proof.get():
        raise WorkflowConfigurationError("prove() was called by what is being proved. Call it from outside.")
    __tracebackhide__ = True
    try:
        if asyncio._get_running_loop() is None:
            return _run(proof, patience=0.01)
        with ThreadPoolExecutor(1, "dotmac-workflows proof") as thread:
            # The thread that waits here is none to be patient with.
            return _ended(thread.submit(_run, proof, patience=0.0), proof)
    except (ProofError, WorkflowConfigurationError) as error:
        # The way from there to here says nothing; what counts is the message, and the cause where there is one.
        raise error.with_traceback(None) from error.__cause__


def _ended(running: Future[Report], proof: Proof[Any]) -> Report:
    """Block until a proof has ended, or its caller is interrupted or cancelled: asyncio does that on Ctrl-C."""
    task = asyncio.current_task()
    try:
        while not wait([running], timeout=0.1).done:
            proof.stopped = task is not None and task.cancelling() > 0
        return running.result()
    except Stopped:
        raise asyncio.CancelledError from None
    finally:
        proof.stopped = True


def _run(proof: "Proof[Any]", patience: float) -> Report:
    """Run a proof on an event loop whose time is virtual, when no other one runs."""
    while not _one_at_a_time.acquire(timeout=0.05):
        proof.go_on()
    # Thousands of failures, all of them wanted; what other threads log is not kept back.
    unwanted, here = logging.getLogger("dotmac_workflows"), threading.get_ident()

    def wanted(record: logging.LogRecord) -> bool:
        return record.thread != here

    unwanted.addFilter(wanted)
    within = _in_a_proof.set(True)
    try:
        return proof.time.run(proof.run(), patience=patience)
    finally:
        _in_a_proof.reset(within)
        unwanted.removeFilter(wanted)
        _one_at_a_time.release()
