"""The scenarios: the same work for all who can do it. What a figure means, and how it is taken, is said at each."""

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.catalogue import OURS, Peer
from benchmarks.figures import percentile
from benchmarks.pairs import Bench, Measured, Side
from benchmarks.session import ROOT, NotMeasuredError

STEPS = 10
PATIENCE = 900.0
"""Seconds that this library itself may take for one task, before that counts as a failure of the benchmark."""


class Scenario(NamedTuple):
    """One kind of work."""

    name: str
    title: str
    told: str
    """What is done and what is counted."""
    measure: Callable[[Bench, Peer], None]
    needs: tuple[str, ...] = ()
    """What a peer must have, one of them: `memory`, `durable`."""
    task: str = ""
    """The task that it must be able to do."""
    has_limits: bool = False
    """Whether the limits take part."""

    def run(self, bench: Bench, peer: Peer) -> None:
        """Measure a peer, if it can do that at all."""
        if peer.is_limit and not self.has_limits:
            return
        about = bench.about(peer)
        cannot = about["cannot"]
        assert isinstance(cannot, dict)
        if self.needs and not any(about[need] for need in self.needs):
            bench.missing(self.name, "", peer, LACKS[self.needs[0]])
        elif self.task in cannot:
            bench.missing(self.name, "", peer, cannot[self.task])
        else:
            self.measure(bench, peer)


LACKS = {"memory": "it has no mode without a store", "durable": "it keeps no runs by itself"}


def _ask(bench: Bench, side: Side, task: str, **arguments: Any) -> dict[str, Any]:
    """Give a task; what only prepares one may take longer than the limit."""
    prepares = task in ("hang", "grow", "memory")
    limit = PATIENCE if side.session.peer == OURS else bench.limit * (3 if prepares else 1)
    return side.session.ask(task, limit, **arguments)


def _cases(
    bench: Bench, peer: Peer, scenario: str, cases: dict[str, Any], run: Callable[[list[Side], str, Any], None]
) -> None:
    """Measure case after case, the smallest first; what fails in one is not tried in a larger one."""
    with bench.sides(peer) as sides:
        for case, size in cases.items():
            try:
                run(sides, case, size)
            except NotMeasuredError:
                break
            finally:
                for side in sides:
                    _close(side)
                bench.clear()


def _close(side: Side) -> None:
    try:
        side.session.ask("close", 60)
    except NotMeasuredError:
        pass  # it was ended, and its reason is kept


def _waits(told: dict[str, Any]) -> Measured:
    """Return the percentiles of what was waited for an acknowledgement."""
    milliseconds = [seconds * 1e3 for seconds in told["waits"]]
    return {
        "ms to an acknowledgement, p50": percentile(milliseconds, 50),
        "ms to an acknowledgement, p99": percentile(milliseconds, 99),
    }


def in_memory(bench: Bench, peer: Peer) -> None:
    """Workflows of trivial steps, one after the other, each with its making."""
    a_step = 0.0

    def run(sides: list[Side], case: str, steps: int) -> None:
        nonlocal a_step
        bench.afford("in_memory", case, peer, a_step * steps)
        runs = {}
        for side in sides:  # each for some 20 ms, so that a busy machine interrupts all as often
            try:
                took = _ask(bench, side, "in_memory", steps=steps, runs=1)["seconds"]
                if took < 0.1:  # the first one is slower, but of what is slow one is enough
                    took = _ask(bench, side, "in_memory", steps=steps, runs=1)["seconds"]
            except NotMeasuredError as error:
                bench.missing("in_memory", case, peer, str(error))
                raise
            runs[side] = max(1, int(0.02 / took))
            a_step = took / steps

        def measure(side: Side) -> Measured:
            told = _ask(bench, side, "in_memory", steps=steps, runs=runs[side])
            return {"µs a step": told["seconds"] / steps / runs[side] * 1e6}

        bench.compare("in_memory", case, sides, measure)

    _cases(bench, peer, "in_memory", {f"{size:,} steps": size for size in bench.sizes.steps}, run)


def durable(bench: Bench, peer: Peer) -> None:
    """Ten steps a workflow on SQLite."""
    _durable(bench, peer, "durable", {"one at a time": 1} | _at_once(bench.sizes.at_once), sleeps=False)


def sleeping(bench: Bench, peer: Peer) -> None:
    """The same with steps that sleep."""
    _durable(bench, peer, "sleeping", _at_once(bench.sizes.sleeping), sleeps=True)


def _at_once(sizes: tuple[int, ...]) -> dict[str, int]:
    return {f"{size:,} at once": size for size in sizes}


def _durable(bench: Bench, peer: Peer, scenario: str, sizes: dict[str, int], *, sleeps: bool) -> None:
    a_step = 0.0

    def run(sides: list[Side], case: str, at_once: int) -> None:
        nonlocal a_step
        workflows = at_once if at_once > 1 else bench.sizes.alone
        bench.afford(scenario, case, peer, a_step * workflows * STEPS)

        def measure(side: Side) -> Measured:
            told = _ask(
                bench,
                side,
                "durable",
                folder=str(side.folder),
                steps=STEPS,
                workflows=workflows,
                at_once=at_once,
                sleeps=sleeps,
            )
            total = workflows * STEPS
            main = (
                {"ms a step": told["seconds"] / total * 1e3}
                if at_once == 1
                else {"steps a second": total / told["seconds"]}
            )
            return main | _waits(told)

        slowest = bench.compare(scenario, case, sides, measure, more_is_better="steps a second")
        a_step = slowest / workflows / STEPS if at_once > 1 else 0.0  # alone, nothing is shared

    _cases(bench, peer, scenario, sizes, run)


def approval(bench: Bench, peer: Peer) -> None:
    """Started up to a gate, then approved from other processes while the first one stays."""
    a_start = 0.0

    def run(sides: list[Side], case: str, waiting: int) -> None:
        nonlocal a_start
        bench.afford("approval", case, peer, a_start * waiting)
        ids: dict[Side, list[str]] = {}

        def start(side: Side) -> Measured:
            told = _ask(bench, side, "start", folder=str(side.folder), count=waiting, steps=3)
            ids.setdefault(side, []).extend(told["ids"])
            return {"starts a second": waiting / told["seconds"]}

        a_start = bench.compare("approval", case, sides, start, more_is_better="starts a second", once=True) / waiting

        def approve(side: Side) -> Measured:
            began = time.perf_counter()
            with bench.session(side.session.peer) as fresh:
                other = Side(fresh, side.folder)
                wanted = [ids[side].pop(len(ids[side]) // 2) for _ in range(bench.sizes.approved + 1)]
                arguments = {"folder": str(side.folder), "steps": 3}
                _ask(bench, other, "approve", ids=wanted[:1], **arguments)
                first = time.perf_counter() - began
                told = _ask(bench, other, "approve", ids=wanted[1:], **arguments)
            found = [seconds * 1e3 for seconds in told["waits"]]
            return {
                "ms from approve to completion, p50": percentile(found, 50),
                "ms from approve to completion, p99": percentile(found, 99),
                "ms from the start of a process to the first completion": first * 1e3,
            }

        bench.compare("approval", case, sides, approve)

    _cases(bench, peer, "approval", {f"{size:,} waiting": size for size in bench.sizes.waiting}, run)


def recovery(bench: Bench, peer: Peer) -> None:
    """Runs whose process was killed in the middle of their sixth step."""
    count = bench.sizes.crashed

    def crash_and_recover(side: Side) -> Measured:
        folder = str(side.folder)
        with bench.session(side.session.peer) as first:
            ids = _ask(bench, Side(first, side.folder), "hang", folder=folder, count=count, steps=STEPS)["ids"]
            first.kill()
        with bench.session(side.session.peer) as second:
            told = _ask(bench, Side(second, side.folder), "recover", folder=folder, ids=ids, steps=STEPS)
        return {"seconds to recover all": told["seconds"]}

    _cases(
        bench,
        peer,
        "recovery",
        {f"{count:,} crashed runs": count},
        lambda sides, case, _: _nothing(bench.compare("recovery", case, sides, crash_and_recover, once=True)),
    )


def rollback(bench: Bench, peer: Peer) -> None:
    """Ten steps undone, because the eleventh failed."""

    def run(sides: list[Side], case: str, stored: bool) -> None:
        workflows = bench.sizes.undone * (1 if stored else 10)

        def measure(side: Side) -> Measured:
            folder = str(side.folder) if stored else None
            told = _ask(bench, side, "undo", folder=folder, steps=STEPS, workflows=workflows)
            return {"µs a step undone": told["seconds"] / workflows / STEPS * 1e6}

        try:
            bench.compare("rollback", case, sides, measure)
        except NotMeasuredError:
            pass  # the other case may do

    _cases(bench, peer, "rollback", {"in memory": False, "durable": True}, run)


def importing(bench: Bench, peer: Peer) -> None:
    """What a program pays for it before it does anything."""
    imports = _imports(bench, peer)
    if not imports:
        bench.missing("importing", "", peer, "there is nothing to import")
        return
    with bench.sides(peer) as sides:
        for kind in imports:

            def measure(side: Side, kind: str = kind) -> Measured:
                one = side.session.peer
                return {"ms over asyncio": _imported(bench.python(one), _imports(bench, one)[kind])}

            bench.compare("importing", IMPORTED[kind], sides, measure)
        if peer.requirements or peer == OURS:
            bench.compare("importing", "installed", sides, lambda side: _installed(bench, side.session.peer), once=True)


IMPORTED = {"memory": "to run in memory", "durable": "to run on SQLite"}


def _imports(bench: Bench, peer: Peer) -> dict[str, str]:
    found = bench.about(peer)["imports"]
    assert isinstance(found, dict)
    return found


_IMPORT = """
import sys, time
sys.path.insert(0, {source!r})
import asyncio
began = time.perf_counter()
{line}
print(time.perf_counter() - began)
"""


def _imported(python: Path, line: str) -> float:
    program = _IMPORT.format(source=str(ROOT / "src"), line=line)
    ran = subprocess.run([python, "-I", "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    return float(ran.stdout.split()[-1]) * 1e3


def _installed(bench: Bench, peer: Peer) -> Measured:
    """Return how much was installed, without bytecode, and how many packages besides the first."""
    if not peer.requirements:
        places = [ROOT / "src" / "dotmac_workflows"]
        packages = 1
    else:
        places = list((bench.environments / peer.name).rglob("site-packages"))
        names = {re.split(r"[=<>\[]", wanted)[0].replace("-", "_").lower() for wanted in peer.requirements[:1]}
        found = [path.name.split("-")[0].lower() for place in places for path in place.glob("*.dist-info")]
        packages = len([name for name in found if name not in names]) + 1
    files = [
        path for place in places for path in place.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    return {"MB installed": sum(path.stat().st_size for path in files) / 1e6, "other packages": float(packages - 1)}


def memory(bench: Bench, peer: Peer) -> None:
    """What the process that started them needs for runs in the middle of a step, and for runs that wait."""
    count = bench.sizes.in_memory

    def run(sides: list[Side], case: str, kind: str) -> None:
        def measure(side: Side) -> Measured:
            with bench.session(side.session.peer) as fresh:
                told = _ask(
                    bench,
                    Side(fresh, side.folder),
                    "memory",
                    folder=str(side.folder),
                    kind=kind,
                    count=count,
                    steps=STEPS,
                )
            return {
                "KiB a run, resident": max(0.0, told["resident"] / count / 1024),
                "KiB a run, as Python counts": max(0.0, told["traced"] / count / 1024),
            }

        bench.compare("memory", case, sides, measure, once=True)

    _cases(bench, peer, "memory", {"in a step": "live", "waiting": "waiting"}, run)


def disk(bench: Bench, peer: Peer) -> None:
    """What is on the disk after the store was closed."""

    def measure(side: Side) -> Measured:
        workflows = bench.sizes.on_disk
        folder = str(side.folder)
        _ask(bench, side, "durable", folder=folder, steps=STEPS, workflows=workflows, at_once=1, sleeps=False)
        _close(side)
        size = sum(path.stat().st_size for path in side.folder.rglob("*") if path.is_file())
        return {"bytes a step": size / workflows / STEPS}

    _cases(
        bench,
        peer,
        "disk",
        {"runs of ten steps": 0},
        lambda sides, case, _: _nothing(bench.compare("disk", case, sides, measure, once=True)),
    )


def growth(bench: Bench, peer: Peer) -> None:
    """A step in a store with many completed runs, in turns with one in an empty store of the same peer."""
    with bench.sides(peer) as sides:
        a_run = 0.0
        for size in bench.sizes.stored:
            case = f"{size:,} runs"
            grown, empty = sides[-1], Side(sides[-1].session, bench.folder / "store-empty")
            try:
                bench.afford("growth", case, peer, a_run * size)
                began = time.monotonic()
                _ask(bench, grown, "grow", folder=str(grown.folder), runs=size)
                a_run = (time.monotonic() - began) / size

                def measure(side: Side, grown: Side = grown, empty: Side = empty) -> Measured:
                    taken = [_one_at_a_time(bench, place) for place in (empty, grown)]
                    return {"ms a step": taken[1], "times that of an empty store": taken[1] / taken[0]}

                bench.compare("growth", case, [grown], measure)
            except NotMeasuredError as error:
                if not any(cell.case == case and cell.peer == peer.name for cell in bench.figures.cells):
                    bench.missing("growth", case, peer, str(error))
                break
            finally:
                _close(grown)
                bench.clear()


def _one_at_a_time(bench: Bench, side: Side) -> float:
    told = _ask(
        bench,
        side,
        "durable",
        folder=str(side.folder),
        steps=STEPS,
        workflows=max(3, bench.sizes.alone // 2),
        at_once=1,
        sleeps=False,
    )
    return percentile([seconds * 1e3 for seconds in told["waits"]], 50)


def _nothing(_: object) -> None:
    return None


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "in_memory",
            "In memory",
            "Trivial steps, one workflow after the other, each with its making.",
            in_memory,
            ("memory",),
            has_limits=True,
        ),
        Scenario(
            "durable",
            "Durable, on SQLite",
            "Ten steps a workflow, each with a little data. An acknowledgement lies between the end of a step's code "
            "and the beginning of the next step's.",
            durable,
            ("durable",),
            has_limits=True,
        ),
        Scenario(
            "sleeping",
            "Durable, with steps that wait",
            "The same with steps that sleep 0 to 20 ms each, out of step with each other. Nothing but sleeping takes "
            "10 ms a step: with 100 at once no more than 10,000 steps a second are there to be done.",
            sleeping,
            ("durable",),
        ),
        Scenario(
            "approval",
            "Approvals",
            "Started up to a gate after the first step; then approved, two steps before their end, from "
            "fresh processes, while the one that started them stays.",
            approval,
            ("durable",),
            "start",
        ),
        Scenario(
            "recovery",
            "Recovery",
            "Runs of ten steps whose process was killed in the middle of the sixth: opening the store in a new "
            "process, and carrying on all of them to their end.",
            recovery,
            ("durable",),
            "recover",
        ),
        Scenario(
            "rollback",
            "Rollback",
            "Ten steps undone because the eleventh failed.",
            rollback,
            ("memory", "durable"),
            "undo",
        ),
        Scenario(
            "importing",
            "Importing and installing",
            "A fresh interpreter that has asyncio, with bytecode cached. Installed is all of its environment, without "
            "bytecode.",
            importing,
        ),
        Scenario(
            "memory",
            "Memory",
            "What a run adds to the process that started it, in the middle of its sixth step, and while it waits for "
            "an approval.",
            memory,
            ("durable",),
        ),
        Scenario(
            "disk", "Size on disk", "All files of the store after it was closed.", disk, ("durable",), has_limits=True
        ),
        Scenario(
            "growth",
            "As the store grows",
            "The acknowledgement of a step (p50), one workflow at a time, in a store with so many completed runs of "
            "ten steps and in an empty one, in turns. The runs are copies, by SQL and with random ids, of the rows of "
            "one that the peer itself ran.",
            growth,
            ("durable",),
            "grow",
        ),
    )
}
