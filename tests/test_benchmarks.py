"""The benchmarks run, and print their tables; what the figures are is nobody's business here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("name", "tables", "rows"),
    [
        ("in_memory", ["In memory, µs a step"], ["| 10 ", "| 100 "]),
        (
            "sqlite",
            [
                "synchronous = ",
                "One workflow of 10 steps at a time",
                "100 workflows of 10 steps at once",
                "By length",
            ],
            ["| engine / bare |", "| without data ", "| 20 "],
        ),
        pytest.param(
            "waiting",
            ["50 started to the gate", "Memory that opening the store", "Time of a call"],
            ["| load one ", "| find 10 that wait, the last "],
            marks=pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc"),
        ),
        (
            "import_cost",
            ["Import, ms", "Modules that it adds"],
            ["| dotmac_workflows after it ", "| dotmac_workflows "],
        ),
    ],
)
def test_a_benchmark_prints_its_tables(name: str, tables: list[str], rows: list[str], tmp_path: Path) -> None:
    directory = ["--directory", str(tmp_path)] if name in ("sqlite", "waiting") else []
    ran = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", *directory],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        encoding="utf-8",
    )
    for title in ("Machine: ", "Python ", *tables):
        assert title in ran.stdout
    printed = ran.stdout.splitlines()
    for row in rows:
        assert any(line.startswith(row) for line in printed), row
    assert list(tmp_path.iterdir()) == []  # what it wrote it took away
