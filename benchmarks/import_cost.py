"""What importing `Workflow` costs a program that has asyncio, and which modules it adds.

    PYTHONPATH=src python -m benchmarks.import_cost

Each sample is a fresh interpreter that imports asyncio, then the package, and times both. The bytecode is cached, as it
is after the first start of an installed program.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import dotmac_workflows
from benchmarks.measuring import print_machine, print_table, spread

ROOT = Path(dotmac_workflows.__file__).parents[1]
PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
start = time.perf_counter()
import asyncio
loaded, middle = set(sys.modules), time.perf_counter()
from dotmac_workflows import Workflow, WorkflowResult
end = time.perf_counter()
print(middle - start, end - middle, *sorted(set(sys.modules) - loaded))
"""


def sample() -> tuple[float, float, list[str]]:
    """Return the seconds that asyncio took, those of the package after it, and the modules that it added."""
    ran = subprocess.run([sys.executable, "-I", "-c", PROGRAM], stdout=subprocess.PIPE, check=True, text=True)
    first, second, *modules = ran.stdout.split()
    return float(first), float(second), modules


def own_times(runs: int) -> dict[str, int]:
    """Return for each module the least time that it took itself, in microseconds, as the interpreter tells it."""
    least: dict[str, int] = {}
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import asyncio; from dotmac_workflows import Workflow"
    for _ in range(runs):
        command = [sys.executable, "-I", "-X", "importtime", "-c", program]
        said = subprocess.run(command, stderr=subprocess.PIPE, check=True, text=True).stderr
        for line in said.splitlines()[1:]:
            own, _, name = (part.strip() for part in line.removeprefix("import time:").split("|"))
            if own.isdecimal():
                least[name] = min(int(own), least.get(name, int(own)))
    return least


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="how many interpreters (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few runs, to see that it works")
    given = parser.parse_args()
    runs = 2 if given.quick else given.runs
    print_machine(f"{runs} fresh interpreters, bytecode cached")
    sample()
    samples = [sample() for _ in range(runs)]
    asyncio_took = [first * 1e3 for first, _, _ in samples]
    package_took = [second * 1e3 for _, second, _ in samples]
    print_table(
        "Import, ms",
        ["", "least", "median (quartiles)"],
        [
            ["asyncio", f"{min(asyncio_took):.1f}", spread(asyncio_took).show(1)],
            ["dotmac_workflows after it", f"{min(package_took):.1f}", spread(package_took).show(1)],
            [
                "ratio",
                f"{min(package_took) / min(asyncio_took):.2f}",
                spread([ours / theirs for ours, theirs in zip(package_took, asyncio_took, strict=True)]).show(2),
            ],
        ],
    )
    own = own_times(max(2, runs // 5))
    added = sorted(samples[0][2], key=lambda name: -own.get(name, 0))
    print_table(
        "Modules that it adds, and the least time of each alone, µs",
        ["module", "µs"],
        [[name, str(own.get(name, "-"))] for name in added],
    )
    print("\nTarget: at most 15 ms over asyncio.")


if __name__ == "__main__":
    main()
