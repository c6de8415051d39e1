"""Mutation testing: how many small changes to the engine the tests notice.

``python -m tests.campaigns.mutation``, from the repository, with the extra ``mutation``: every mutant that mutmut's
operators make of the core, the shell and the stores is tried against the tests that come by it; `mutation.trying` says
how. Prints what became of them, module by module. A mutant that survives is an error unless it stands in
``tests/mutation/survivors.toml``, which says why no test can tell it from the original.
"""

import argparse
import asyncio  # noqa: F401 - imported before there are forks, as all that the tests need and the library is not
import json
import random
import sqlite3  # noqa: F401 - likewise
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import hypothesis
import pytest_asyncio  # noqa: F401 - likewise

from mutation import making, survivors, trying

MODULES = ("_core", "_run", "persistence")
# Not about these modules, or about processes that have the code on the disk.
OTHER_TESTS = (
    "tests/cli",
    "tests/processes",
    "tests/test_approval_web.py",
    "tests/test_benchmarks.py",
    "tests/test_docs.py",
    "tests/test_examples.py",
    "tests/test_import_cost.py",
    "tests/test_import_directions.py",
    "tests/test_mutation.py",
    "tests/test_pictures.py",
    "tests/test_project_files.py",
)
LIMITS = (5.0, 60.0)
"""Seconds of tests for each mutant, then for those that survive."""

Results = dict[making.Mutant, trying.Outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    options = _options(arguments)
    began = time.monotonic()
    hypothesis.settings.register_profile("mutation", derandomize=True, database=None)
    hypothesis.settings.load_profile("mutation")
    # In processes of their own, so that the syntax trees are not in the memory of what will be forked so often.
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        made = [mutant for mutants in pool.map(making.mutants, _modules(options.modules)) for mutant in mutants]
    for mutant in made:
        making.original(mutant.module)  # read by now, whatever is done to the file meanwhile
    tried = [mutant for mutant in made if not mutant.left_out]
    if options.again is not None:
        tried = _not_killed(options.again, tried)
    if options.count is not None:
        tried = random.Random(options.seed).sample(tried, min(options.count, len(tried)))
    if not tried:
        print("error: there is nothing to try", file=sys.stderr)
        return 1
    print(f"{len(made)} mutants, {len(tried)} to try, {options.jobs} at a time", flush=True)
    results: Results = {}

    def told(number: int, outcome: trying.Outcome) -> None:
        results[tried[number]] = outcome
        if options.results is not None:
            with options.results.open("a", encoding="utf-8") as file:
                _write(file, tried[number], outcome)

    def measured(costs: trying.Costs) -> None:
        print(f"{len(costs)} tests measured", flush=True)
        if options.costs is not None:
            trying.save(costs, options.costs)

    known_to_survive = survivors.allowed()
    killers = _killers(options.killers) if options.killers is not None else {}
    changes = [
        trying.Change(
            mutant.module,
            mutant.function,
            partial(getattr, mutant, "source"),
            killers.get((mutant.module, mutant.number), ""),
            mutant.key in known_to_survive,
        )
        for mutant in tried
    ]
    tests = options.tests or ["tests", *(f"--ignore={path}" for path in OTHER_TESTS)]
    with tempfile.TemporaryDirectory() as scratch:
        known = trying.load(options.costs) if options.costs is not None and options.costs.exists() else {}
        trying.try_all(changes, tests, options.jobs, options.seconds, told, Path(scratch), known, measured)
    return _report(made, results, time.monotonic() - began)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.mutation", description=__doc__)
    parser.add_argument("--modules", nargs="+", default=MODULES, help="modules or folders, below the package")
    parser.add_argument("--tests", nargs="+", help="files and folders of tests")
    parser.add_argument("--count", type=_positive, help="try no more than this many, drawn by chance")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn by")
    parser.add_argument("--jobs", type=_positive, default=1, help="how many at a time")
    parser.add_argument("--seconds", type=float, nargs="+", default=LIMITS, help="seconds of tests, for each pass")
    parser.add_argument("--costs", type=Path, help="a file that keeps what the tests take, measured once")
    parser.add_argument("--results", type=Path, help="a file that gets a line of JSON for each mutant that was tried")
    parser.add_argument("--killers", type=Path, help="such a file: try the test first that killed a mutant there")
    parser.add_argument("--again", type=Path, help="such a file: try only what was not killed there")
    return parser.parse_args(arguments)


def _modules(names: Sequence[str]) -> list[str]:
    paths = [making.SOURCE / name for name in names]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return [file.relative_to(making.SOURCE).as_posix() for file in files]


def _not_killed(path: Path, mutants: list[making.Mutant]) -> list[making.Mutant]:
    """Return the mutants that a file of results does not say are killed; the last line about one counts."""
    verdicts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        verdicts[result["module"], result["number"]] = result["verdict"]
    return [mutant for mutant in mutants if verdicts.get((mutant.module, mutant.number)) not in ("killed", "same")]


def _killers(path: Path) -> dict[tuple[str, int], str]:
    results = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(result["module"], result["number"]): result["test"] for result in results if result["verdict"] == "killed"}


def _write(file: IO[str], mutant: making.Mutant, outcome: trying.Outcome) -> None:
    line = {"module": mutant.module, "number": mutant.number, "function": mutant.function, **outcome._asdict()}
    if outcome.verdict != "killed":
        line |= mutant.change._asdict()
    file.write(json.dumps(line) + "\n")


def _report(made: list[making.Mutant], results: Results, elapsed: float) -> int:
    """Print what became of the mutants; returns the exit code."""
    known = survivors.allowed()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    news = 0
    for mutant in made:
        verdict = results[mutant].verdict if mutant in results else mutant.left_out and "left out"
        if not verdict:
            continue
        counts[mutant.module][verdict] += 1
        if verdict == "survived":
            line, before, after = mutant.change
            if known[mutant.key]:
                known[mutant.key] -= 1
                counts[mutant.module]["explained"] += 1
            else:
                news += 1
                print(f"\n{mutant.module}:{line}: {mutant.function} survived {results[mutant].tests} tests")
                print("\n".join(f"- {text}" for text in before.splitlines()))
                print("\n".join(f"+ {text}" for text in after.splitlines()))
    _print_table(counts)
    reasons = Counter(mutant.left_out for mutant in made if mutant.left_out)
    print("left out: " + (", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none"))
    total = sum(counts.values(), Counter())
    tried = total["killed"] + total["timeout"] + total["survived"]
    print(
        f"{tried} mutants tried in {elapsed:.0f} s: {total['killed']} killed, {total['timeout']} timed out, "
        f"{total['survived']} survived ({total['explained']} explained); {_rate(total)} noticed"
    )
    return 1 if news or not tried else 0


COLUMNS = ("killed", "timeout", "survived", "explained", "same", "left out")


def _print_table(counts: dict[str, Counter[str]]) -> None:
    print(f"\n{'module':<32}" + "".join(f"{name:>10}" for name in COLUMNS) + f"{'noticed':>10}")
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for module, count in counts.items():
        groups[module.partition("/")[0]] += count
        print(f"{module:<32}" + "".join(f"{count[name]:>10}" for name in COLUMNS) + f"{_rate(count):>10}")
    for group, count in groups.items():
        print(f"{group:<32}" + "".join(f"{count[name]:>10}" for name in COLUMNS) + f"{_rate(count):>10}")


def _rate(count: Counter[str]) -> str:
    noticed, survived = count["killed"] + count["timeout"], count["survived"]
    return f"{100 * noticed / (noticed + survived):.1f} %" if noticed + survived else "-"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1: a campaign of nothing proves nothing")
    return number


if __name__ == "__main__":
    sys.exit(main())
