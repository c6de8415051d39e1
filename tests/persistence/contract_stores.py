"""Opens the stores that the contract is checked on: here, so that other processes can open them too."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from dotmac_workflows.persistence import Persistence, SQLitePersistence

EXAMPLES = Path(__file__).parents[2] / "examples"


def sqlite_in(folder: Path, name: str) -> SQLitePersistence:
    return SQLitePersistence(folder / f"{name}.db")


def example_in(folder: Path, name: str) -> Persistence:
    """Open a store of ``examples/custom_persistence.py``."""
    (folder / name).mkdir(exist_ok=True)
    store: Persistence = _example().FolderPersistence(folder / name)
    return store


@cache
def _example() -> Any:
    spec = importlib.util.spec_from_file_location("custom_persistence", EXAMPLES / "custom_persistence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
