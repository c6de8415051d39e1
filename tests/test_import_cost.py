"""`import dotmac_workflows` pays for what every program uses, and for nothing else."""

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
NOT_AT_IMPORT = {
    "argparse",
    "datetime",
    "decimal",
    "hashlib",
    "sqlite3",
    "uuid",
    "unittest",
    "dotmac_workflows._built_in_types",
    "dotmac_workflows._core.codec",
    "dotmac_workflows.cli",
    "dotmac_workflows.integrations",
    "dotmac_workflows.pictures",
    "dotmac_workflows.persistence.sqlite",
    "dotmac_workflows.recovery",
    "dotmac_workflows.testing",
    "dotmac_workflows.verification",
}


def modules_after(code: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter holds after `code`."""
    program = f"import sys; sys.path.insert(0, sys.argv[1])\n{code}\nprint(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-I", "-B", "-c", program, SOURCE],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return set(ran.stdout.split())


def test_import_is_light() -> None:
    loaded = modules_after("import dotmac_workflows; dotmac_workflows.Workflow")
    assert "dotmac_workflows.base" in loaded
    assert loaded & NOT_AT_IMPORT == set()


def test_the_sqlite_store_is_imported_when_it_is_asked_for() -> None:
    loaded = modules_after("from dotmac_workflows.persistence import SQLitePersistence")
    assert {"sqlite3", "dotmac_workflows.persistence.sqlite"} <= loaded
