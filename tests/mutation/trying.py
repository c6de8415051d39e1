"""Trying mutants against the tests: everything is imported and collected once, and each trial is a fork of that.

In the fork the code of the functions that differ is exchanged in place, so that whoever holds one has the mutant; then
the tests that come by it run until one fails, the quick and narrow ones first. What is not in a function (tables,
defaults), or in one that no test comes by (one that makes a table, say), is tried in a fork of a process that has not
imported the library yet.

A process that a test starts has the code on the disk and not the mutant, one that it forks has the mutant.
"""

import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from inspect import CO_NEWLOCALS
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import IO, NamedTuple

import pytest
from _pytest.runner import runtestprotocol

from mutation import forks

PACKAGE = "dotmac_workflows"
OPTIONS = (
    "-q",
    "-s",
    "-p",
    "no:cacheprovider",
    "--assert=plain",  # where the library is a plugin's, pytest rewrites it, and nothing is what was compiled
    "-p",
    "no:faulthandler",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)

PATIENCE = 8.0
"""Seconds that a test may take beyond twenty times what it took without a mutant."""
_FILES_AT_FIRST = 3
_PATIENCE_AT_FIRST = 60.0  # seconds until the first test begins

Place = tuple[str, str]
"""A module's path below the package, and the qualified name of an outermost function in it."""


class Change(NamedTuple):
    """What is to be tried: a module's text, and where it differs."""

    module: str
    function: str
    """The outermost function that differs; empty: what differs is not in a function."""
    text: Callable[[], str]
    """Makes the module's text; called in the fork."""
    first: str = ""
    """A test to try first, since it failed the last time."""
    once: bool = False
    """Whether it is tried with the first limit alone, since it is known to survive."""


class Outcome(NamedTuple):
    """How a trial ended."""

    verdict: str
    """``killed``, ``timeout``, ``survived``; ``same`` where it compiles to the same code."""
    test: str
    """The test that failed or hung, or ``import``."""
    tests: int
    """How many were run."""


class Cost(NamedTuple):
    """What a test takes, and where it comes by."""

    seconds: float
    places: frozenset[Place]


_CONTROL = Change("", "", str)
"""No change at all."""

Costs = dict[str, Cost]
Work = Callable[[Change, list[str], IO[str]], None]
"""Makes a change, in a fork, runs tests, and tells each before it begins, and the verdict at last."""
Told = Callable[[int, Outcome], None]


def module_name(path: str) -> str:
    """Return the name of a module, given its path below the package."""
    return ".".join([PACKAGE, *path.removesuffix(".py").removesuffix("/__init__").split("/")])


def try_all(
    changes: Sequence[Change],
    tests: Sequence[str],
    jobs: int,
    limits: Sequence[float],
    told: Told,
    scratch: Path,
    known: Costs,
    measured: Callable[[Costs], None],
) -> None:
    """Try every change, and tell how each ended; for a process that has not imported the library.

    Args:
        changes: What to try.
        tests: Files and folders of tests.
        jobs: How many at a time.
        limits: How many seconds of tests to give each; then, to those that survived, how many more; and so on.
        told: Called with a change's number, when its trial has ended.
        scratch: A folder for temporary files.
        known: What tests take that need not be measured.
        measured: Called with what all of them take, before the first trial.
    """
    costs: Costs = {}
    cold: list[int] = []
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reader)
            with os.fdopen(writer, "w", buffering=1) as out:
                pytest.main([*OPTIONS, *tests], plugins=[_Session(changes, jobs, limits, scratch, known, out)])
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        for line in lines:
            what, *rest = json.loads(line)
            if what == "cost":
                name, seconds, places = rest
                costs[name] = Cost(seconds, frozenset((module, function) for module, function in places))
            elif what == "measured":
                measured(costs)
            elif rest[0] == "cold":
                cold.append(what)
            else:
                told(what, Outcome(*rest))
    os.waitpid(child, 0)
    if not costs:
        raise RuntimeError("no test was found that passes without a mutant")
    anywhere = [change._replace(function="") for change in changes]  # any test of the module
    Passes(anywhere, jobs, costs, told, _cold_work, scratch).run(cold, limits)


class _Session:
    """The pytest plugin that, in place of running the tests, measures them and then tries changes."""

    def __init__(
        self,
        changes: Sequence[Change],
        jobs: int,
        limits: Sequence[float],
        scratch: Path,
        known: Costs,
        out: IO[str],
    ) -> None:
        self._changes = changes
        self._jobs = jobs
        self._limits = limits
        self._scratch = scratch
        self._known = known
        self._out = out

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        costs = {item.nodeid: self._known[item.nodeid] for item in session.items if item.nodeid in self._known}
        costs |= _measure([item for item in session.items if item.nodeid not in costs], self._scratch)
        for name, cost in costs.items():
            self._tell("cost", name, cost.seconds, sorted(cost.places))
        self._tell("measured")
        for module in {change.module for change in self._changes}:
            _compiled(str(importlib.import_module(module_name(module)).__file__))
        loaded, items = _loaded(), {item.nodeid: item for item in session.items}
        gc.collect()
        gc.freeze()  # so that the forks share more

        def work(change: Change, chosen: list[str], out: IO[str]) -> None:
            session.config._tmp_path_factory._basetemp = Path(os.environ["TMPDIR"])  # type: ignore[attr-defined]  # pytest has no public name for it
            verdict = exchange(loaded, change) if change != _CONTROL else ""
            if verdict:
                out.write(f"{verdict}\n")
                return
            for name, following in zip(chosen, [*chosen[1:], None], strict=True):
                out.write(f"{name}\n")
                if not _passes(items[name], items.get(following or "")):
                    out.write("killed\n")
                    return
            out.write("survived\n")

        come_by = {place for cost in costs.values() for place in cost.places}
        numbers = []
        for number, change in enumerate(self._changes):
            if change[:2] in come_by:
                numbers.append(number)
            else:
                self._tell(number, "cold", "", 0)

        def told(number: int, outcome: Outcome) -> None:
            self._tell(number, *outcome)

        Passes(self._changes, self._jobs, costs, told, work, self._scratch).run(numbers, self._limits)
        return True

    def _tell(self, *what: object) -> None:
        self._out.write(json.dumps(what) + "\n")


def save(costs: Costs, file: Path) -> None:
    """Keep what tests take, for `load`."""
    numbers: dict[Place, int] = {}
    kept = {
        name: (cost.seconds, [numbers.setdefault(place, len(numbers)) for place in sorted(cost.places)])
        for name, cost in costs.items()
    }
    file.write_text(json.dumps({"places": list(numbers), "tests": kept}), encoding="utf-8")


def load(file: Path) -> Costs:
    """Return what `save` kept."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    places = [(module, function) for module, function in kept["places"]]
    return {
        name: Cost(seconds, frozenset(places[number] for number in numbers))
        for name, (seconds, numbers) in kept["tests"].items()
    }


class Passes:
    """Changes that are tried with the first limit's tests, those that survive with the next one's, and so on.

    A test that fails after others may do so without a change as well. So a kill counts only where the same tests, one
    after the other, pass without one; otherwise the last of them is used no more, and the change is tried again.
    """

    def __init__(
        self, changes: Sequence[Change], jobs: int, costs: Costs, told: Told, work: Work, scratch: Path
    ) -> None:
        self._changes = changes
        self._jobs = jobs
        self._costs = costs
        self._told = told
        self._work = work
        self._scratch = scratch
        self._killers: dict[Place, Counter[str]] = defaultdict(Counter)
        self._done: dict[int, list[str]] = defaultdict(list)
        self._sound: set[tuple[str, ...]] = {()}  # where not even one began, the change itself cannot be loaded

    def run(self, numbers: Sequence[int], limits: Sequence[float]) -> None:
        """Try those changes, and tell how each ended."""
        left = list(numbers)
        for turn, limit in enumerate(limits):
            survived: list[int] = []
            while left:
                left = self._tried(left, limit, turn, survived)
            for number in survived:
                if turn == len(limits) - 1 or self._changes[number].once:
                    self._told(number, Outcome("survived", "", len(self._done[number])))
                else:
                    left.append(number)

    def _tried(self, numbers: list[int], limit: float, turn: int, survived: list[int]) -> list[int]:
        """Try each once; return which to try again, since what killed it fails without it too."""
        chosen: dict[int, list[str]] = {}
        again = []

        def choose() -> Iterator[int]:
            for number in numbers:
                place = self._changes[number][:2]
                likely = self._killers[place] + Counter({self._changes[number].first: 10**6})
                tests = _choose(place, likely, self._costs, set(self._done[number]), limit)
                chosen[number] = tests if place[1] or turn else _of_few_files(tests)
                if tests:
                    yield number
                else:
                    survived.append(number)

        def work(number: int, out: IO[str]) -> None:
            self._work_in(str(number), self._changes[number], chosen[number], out)

        for trial in forks.run(choose(), self._jobs, work, self._patience):
            number, lines = trial.number, trial.lines
            shutil.rmtree(self._scratch / str(number), ignore_errors=True)
            outcome = _outcome(lines, trial.hung, len(self._done[number]))
            begun = [line for line in lines if line in self._costs]
            culprit = self._culprit(begun) if outcome.verdict == "killed" else ""
            if culprit:
                del self._costs[culprit]
                print(f"not used, since it fails without a change too: {culprit}", flush=True)
                again.append(number)
                continue
            self._done[number] += begun
            if outcome.verdict == "survived":
                survived.append(number)
                continue
            if outcome.verdict == "killed":
                self._killers[self._changes[number][:2]][outcome.test] += 1
            self._told(number, outcome)
        return again

    def _culprit(self, tests: Sequence[str]) -> str:
        """Return which of those tests fails, one after the other, without a change; empty: none."""
        key = tuple(tests)
        if key in self._sound:
            return ""

        def work(_: int, out: IO[str]) -> None:
            self._work_in("control", _CONTROL, list(tests), out)

        (trial,) = forks.run(iter([0]), 1, work, self._patience)
        shutil.rmtree(self._scratch / "control", ignore_errors=True)
        outcome = _outcome(trial.lines, trial.hung, 0)
        if outcome.verdict != "survived":
            return outcome.test
        self._sound.update(key[:length] for length in range(len(key) + 1))
        return ""

    def _work_in(self, folder: str, change: Change, tests: list[str], out: IO[str]) -> None:
        path = self._scratch / folder
        path.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(path)
        self._work(change, tests, out)

    def _patience(self, line: str) -> float:
        cost = self._costs.get(line)
        return _PATIENCE_AT_FIRST if cost is None else PATIENCE + 20 * cost.seconds


def _outcome(lines: list[str], hung: bool, before: int) -> Outcome:
    """Return how a trial ended of which these lines were told: the tests begun, and a verdict."""
    if hung:
        return Outcome("timeout", lines[-1] if lines else "import", before + len(lines))
    if lines and lines[-1] in ("survived", "same", "cold"):
        return Outcome(lines[-1], "", before + len(lines) - 1)
    begun = [line for line in lines if line != "killed"]
    return Outcome("killed", begun[-1] if begun else "import", before + len(begun))


def _choose(place: Place, killers: Counter[str], costs: Costs, done: set[str], seconds: float) -> list[str]:
    """Return the tests that come by a place and fit into a time: those that killed there, then quick and narrow ones.

    A test that comes by few places is likely to be about them.
    """
    coming = [name for name, cost in costs.items() if _comes_by(cost.places, place)]
    if not coming and not place[1]:
        coming = list(costs)  # a module without functions: any test may look at it
    coming = [name for name in coming if name not in done]
    chosen: list[str] = []
    total = 0.0
    for name in sorted(coming, key=lambda name: (-killers[name], costs[name].seconds * len(costs[name].places))):
        total += costs[name].seconds
        if chosen and total > seconds:
            break
        chosen.append(name)
    return chosen


def _of_few_files(tests: list[str]) -> list[str]:
    """Return those tests that are in the first files: to load all files takes longer than most tests."""
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))[:_FILES_AT_FIRST]
    return [name for name in tests if name.partition("::")[0] in files]


def _comes_by(places: frozenset[Place], place: Place) -> bool:
    module, function = place
    return place in places if function else any(other == module for other, _ in places)


def _passes(item: pytest.Item, following: pytest.Item | None) -> bool:
    try:
        return not any(report.failed for report in runtestprotocol(item, nextitem=following, log=False))
    except BaseException:  # what ends pytest itself
        return False


# Measuring


def _measure(items: Sequence[pytest.Item], scratch: Path) -> Costs:
    """Run every test once, in a fork, and return what those take that pass; without those that hang."""
    file = scratch / "costs"
    left = list(items)

    def work(_number: int, out: IO[str]) -> None:
        with file.open("a", encoding="utf-8", buffering=1) as costs:
            for item, following in zip(left, [*left[1:], None], strict=True):
                out.write("another\n")
                costs.write(json.dumps(_cost(item, following)) + "\n")

    costs: Costs = {}
    while left:
        for _ in forks.run(iter([0]), 1, work, lambda _: _PATIENCE_AT_FIRST):
            pass
        lines = file.read_text(encoding="utf-8").splitlines()
        for line in lines:
            name, seconds, places, passed = json.loads(line)
            if passed:
                costs[name] = Cost(seconds, frozenset((module, function) for module, function in places))
        left = left[len(lines) + 1 :]
        file.unlink()
    return costs


def _cost(item: pytest.Item, following: pytest.Item | None) -> tuple[str, float, list[Place], bool]:
    seen: set[CodeType] = set()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    began = time.perf_counter()
    threading.setprofile(look)
    sys.setprofile(look)
    try:
        passed = _passes(item, following)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    places = {place for code in seen if (place := _place(code)) is not None}
    return item.nodeid, time.perf_counter() - began, sorted(places), passed


def _place(code: CodeType) -> Place | None:
    _, ours, path = code.co_filename.rpartition(f"/src/{PACKAGE}/")
    return (path, code.co_qualname.partition(".<locals>")[0]) if ours else None


# Exchanging code in a process that has loaded it


def _loaded() -> dict[CodeType, list[FunctionType]]:
    """Return every function of the library that there is, by its code."""
    found = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and _place(thing.__code__) is not None:
            found[thing.__code__].append(thing)
    return dict(found)


def exchange(loaded: dict[CodeType, list[FunctionType]], change: Change) -> str:
    """Put a change's code in the place of what is loaded, if that can be done.

    Returns:
        Empty when it was done; ``same`` where there is no difference; ``cold`` where the module must be loaded anew.
    """
    file = sys.modules[module_name(change.module)].__file__
    assert file is not None
    before = _compiled(file)
    after = compile(change.text(), file, "exec", dont_inherit=True)
    if before == after:
        return "same"
    pairs = list(_pairs(before, after))
    if any(_outside(old) != _outside(new) for old, new in pairs if not _is_function(old)):
        return "cold"
    changed = [(old, new) for old, new in pairs if old != new and _is_function(old)]
    functions = [(function, new) for old, new in changed for function in loaded.get(old, ())]
    if changed and (not functions or any(len(old.co_freevars) != len(new.co_freevars) for old, new in changed)):
        return "cold"
    for function, new in functions:
        function.__code__ = new
    return "" if changed else "same"


@cache
def _compiled(file: str) -> CodeType:
    return compile(Path(file).read_text(encoding="utf-8"), file, "exec", dont_inherit=True)


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Yield the code objects of two versions of a text that are the same thing's."""
    yield old, new
    others = defaultdict(list)
    for constant in reversed(new.co_consts):
        if isinstance(constant, CodeType):
            others[constant.co_name].append(constant)
    for constant in old.co_consts:
        if isinstance(constant, CodeType) and others[constant.co_name]:
            yield from _pairs(constant, others[constant.co_name].pop())


def _is_function(code: CodeType) -> bool:
    return bool(code.co_flags & CO_NEWLOCALS)


def _outside(code: CodeType) -> tuple[object, ...]:
    """Return what a module's or a class's own code does, without the functions in it."""
    constants = tuple(repr(constant) for constant in code.co_consts if not isinstance(constant, CodeType))
    return code.co_code, constants, code.co_names


# Loading a module with a change


def _cold_work(change: Change, chosen: list[str], out: IO[str]) -> None:
    """Import the library with a change, and run the tests."""
    sys.meta_path.insert(0, _Finder(change))
    files = list(dict.fromkeys(name.partition("::")[0] for name in chosen))
    trial = _ColdTrial(chosen, out)
    status = pytest.main([*OPTIONS, "-x", f"--basetemp={os.environ['TMPDIR']}/pytest", *files], plugins=[trial])
    out.write("survived\n" if status == 0 else "killed\n")


class _ColdTrial:
    """The pytest plugin that runs the tests chosen, in their order, and tells which has begun."""

    def __init__(self, chosen: list[str], out: IO[str]) -> None:
        self._order = {name: number for number, name in enumerate(chosen)}
        self._out = out

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self._order), key=lambda i: self._order[i.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._out.write(f"{nodeid}\n")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module that is changed, with its change."""

    def __init__(self, change: Change) -> None:
        self._name = module_name(change.module)
        self._text = change.text()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(fullname, spec.origin, self._text)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, text: str) -> None:
        super().__init__(fullname, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._text, self.path, "exec", dont_inherit=True)
