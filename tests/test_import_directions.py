"""Imports point one way, and nothing but the standard library is needed.

    integrations, cli -> testing -> base -> _run -> {_core, persistence} -> {result, status, ...}

Pictures stand beside `_run`: base and cli draw, and what draws sees results and rows alone.

`_core` is pure: of the standard library it may import only what can neither wait, nor look at a clock, nor touch the
world. Imports under ``if TYPE_CHECKING:`` cost nothing at run time and are exempt; imports inside functions are not.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "dotmac_workflows"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE

LEAVES = frozenset({"result", "status", "types", "errors", "values", "_value_types", "_built_in_types", "_read_only"})
FACE = "__init__"  # the package itself: what `from dotmac_workflows import ...` names
UP_TO_RUN = LEAVES | {"_core", "persistence", "_run"}
UP_TO_BASE = UP_TO_RUN | {"pictures", "base", "_verbs", "_view", "_checks"}
ABOVE_BASE = UP_TO_BASE | {"recovery", "verification"}
PLUGIN = "integrations.pytest_plugin"
WALL_CLOCK = "testing._wall_clock"
TOP = frozenset({"integrations", "testing", "cli", PLUGIN})
EXTRAS = frozenset({"integrations", PLUGIN, WALL_CLOCK})  # may import what an extra installs

# Which top-level modules each one may import; a new one has to be given its place here. A module further down may have
# a place of its own.
MAY_IMPORT: dict[str, frozenset[str]] = {
    **dict.fromkeys(LEAVES, LEAVES),
    "_core": LEAVES | {"_core"},
    "persistence": LEAVES | {"persistence"},
    "_run": UP_TO_RUN,
    "pictures": LEAVES | {"_core", "persistence", "pictures"},
    "base": UP_TO_BASE,
    "_verbs": UP_TO_BASE,  # base's verbs, in a module of their own for their size
    "_checks": LEAVES | {"_core"},  # what these two are handed
    "_view": UP_TO_RUN | {"_checks"},  # and what an object shows
    "_listing": LEAVES | {"persistence"},
    "recovery": UP_TO_BASE | {"_listing"},
    "verification": UP_TO_RUN | {"_listing"},
    FACE: ABOVE_BASE,
    "integrations": ABOVE_BASE | {"integrations", FACE},
    "testing": ABOVE_BASE | {"testing", FACE, WALL_CLOCK},
    WALL_CLOCK: frozenset(),
    "cli": ABOVE_BASE | {"cli", FACE, "testing"},
    PLUGIN: frozenset({"testing"}),
    "__main__": frozenset({"cli"}),
}

# No asyncio, contextvars, io, logging, os, pathlib, random, secrets, socket, sqlite3, subprocess, sys, threading, time.
PURE_STANDARD_LIBRARY = frozenset(
    "__future__ abc base64 binascii bisect collections copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq itertools json keyword math numbers operator re string textwrap types typing unicodedata "
    "uuid".split()
)
IMPURE_CALLS = frozenset(
    "open print input datetime.now datetime.utcnow datetime.today date.today uuid1 uuid4 uuid.uuid1 uuid.uuid4".split()
)


class Module(NamedTuple):
    """One module's dotted name, whether it is a package's ``__init__``, and its source."""

    name: str
    is_package: bool
    source: str

    @property
    def unit(self) -> str:
        """The top-level module that it is, or is part of, or the one below with a place of its own."""
        return unit_of(self.name.split(".")[1:])


def unit_of(parts: list[str]) -> str:
    """Return which entry of MAY_IMPORT a name in the package belongs to; a new top-level module: itself."""
    own = ".".join(parts[:2])
    return own if own in MAY_IMPORT else parts[0] if parts else FACE


def modules() -> list[Module]:
    """Return every module of the package."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, is_package, path.read_text(encoding="utf-8")))
    return found


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below `node` that can run, so not those under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for alternative in child.orelse:
                yield alternative
                yield from runtime_nodes(alternative)
        else:
            yield child
            yield from runtime_nodes(child)


def absolute(module: Module, level: int, name: str) -> str:
    """Return the absolute form of a module's name with `level` leading dots."""
    if not level:
        return name
    package = module.name.split(".")
    above = level if not module.is_package else level - 1
    return ".".join([*package[: len(package) - above], *([name] if name else [])])


def imported(module: Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of all that a module imports; ``?`` for a name computed at run time."""
    for node in runtime_nodes(ast.parse(module.source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = absolute(module, level, origin or "")
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(func=function, args=[name, *_]) if ast.unparse(function) in {
                "import_module",
                "importlib.import_module",
                "__import__",
            }:
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    bare = name.value.lstrip(".")
                    yield node.lineno, absolute(module, len(name.value) - len(bare), bare)
                else:
                    yield node.lineno, "?"


def offences(module: Module) -> list[str]:
    """Say which imports of a module point back, reach outside the standard library, or make the core impure."""
    found = []
    allowed = MAY_IMPORT[module.unit]
    for line, target in imported(module):
        first, *rest = target.split(".")
        if first == PACKAGE:
            unit = unit_of(rest) if unit_of(rest) in MAY_IMPORT else FACE
            if unit not in allowed:
                found.append(f"{module.name}:{line} imports {target}: {module.unit} may not import {unit}")
        elif target == "?":
            if module.unit not in TOP:
                found.append(f"{module.name}:{line} imports a name computed at run time")
        elif first not in sys.stdlib_module_names:
            if module.unit not in EXTRAS:
                found.append(f"{module.name}:{line} imports {target}, which is not in the standard library")
        elif module.unit == "_core" and first not in PURE_STANDARD_LIBRARY:
            found.append(f"{module.name}:{line} imports {target}: _core is pure")
    if module.unit == "_core":
        found.extend(
            f"{module.name}:{node.lineno} calls {ast.unparse(node.func)}(): _core is pure"
            for node in runtime_nodes(ast.parse(module.source))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS
        )
    return found


def test_every_top_level_module_has_its_place() -> None:
    units = {module.unit for module in modules()}
    assert LEAVES | {"_core", "persistence"} <= units
    assert units - MAY_IMPORT.keys() == set(), "give each new top-level module its place in MAY_IMPORT"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_imports_point_one_way(module: Module) -> None:
    assert offences(module) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("status", "from .base import Workflow"),
        ("errors", "import dotmac_workflows._run.drive"),
        ("_core.decide", "from ..persistence import Record"),
        ("_core.decide", "from .._run import drive"),
        ("_core.decide", "from .. import base"),
        ("_core.decide", "import asyncio"),
        ("_core.decide", "import os.path"),
        ("_core.decide", "from time import monotonic"),
        ("_core.decide", "def f():\n    import logging"),
        ("_core.decide", "at = datetime.now(UTC)"),
        ("_core.decide", "if TYPE_CHECKING:\n    import re\nelse:\n    import threading"),
        ("persistence.memory", "from .._core.events import Event"),
        ("persistence.sqlite.store", "from ..._core.events import Event"),
        ("persistence.sqlite.store", "from ..._run.journal import StoredJournal"),
        ("persistence.memory", "def f():\n    from ..base import Workflow"),
        ("_run.local", "from ..base import Workflow"),
        ("_run.local", "from .. import Workflow"),
        ("_run.local", "import importlib\nimportlib.import_module('dotmac_workflows.base')"),
        ("_run.local", "import importlib\nimportlib.import_module(name)"),
        ("base", "from .testing import FakeClock"),
        ("pictures.svg", "from ..base import Workflow"),
        ("pictures.svg", "from .._run.journal import read_state"),
        ("_run.local", "from ..pictures import to_mermaid"),
        ("base", "from . import cli"),
        ("base", "import attrs"),
        ("_verbs", "from .cli import main"),
        ("testing.prove", "from ..cli import main"),
        ("testing.prove", "from ..integrations.pytest_plugin import Prove"),
        ("testing._wall_clock", "from .prove import prove"),
        ("testing.prove", "import time_machine"),
    ],
)
def test_a_planted_arrow_is_caught(name: str, source: str) -> None:
    assert len(offences(Module(f"{PACKAGE}.{name}", False, source))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("types", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .base import Workflow"),
        ("_core.decide", "from collections.abc import Set\nfrom ..errors import WorkflowError\nfrom . import state"),
        ("persistence.sqlite.store", "import sqlite3\nfrom .._protocol import Record\nfrom ... import errors"),
        ("_run.journal", "import asyncio\nfrom .._core import codec\nfrom ..persistence import Persistence"),
        ("base", "from ._verbs import approve\nfrom ._core.events import Event\nfrom ._run.drive import drive"),
        ("_verbs", "from .base import Workflow"),
        ("base", "def f():\n    from .pictures import to_mermaid"),
        ("cli.app", "from .. import Workflow\nimport importlib\nimportlib.import_module(given)"),
        ("integrations.web", "import starlette\nfrom dotmac_workflows import Workflow"),
        ("integrations.pytest_plugin", "import pytest\ndef f():\n    from ..testing import prove"),
        ("testing._proof", "from ._wall_clock import WallClock"),
        ("testing._wall_clock", "import time_machine"),
        ("cli.prove", "from ..testing import prove"),
        ("__main__", "from .cli import main"),
    ],
)
def test_an_arrow_that_points_on_is_let_through(name: str, source: str) -> None:
    assert offences(Module(f"{PACKAGE}.{name}", False, source)) == []


def test_a_package_counts_its_dots_from_itself() -> None:
    assert offences(Module(f"{PACKAGE}.persistence", True, "from .memory import Store\nfrom ..errors import X")) == []
    assert len(offences(Module(f"{PACKAGE}.persistence", True, "from .._core import events"))) == 1
    assert offences(Module(PACKAGE, True, "from .base import Workflow\nfrom . import errors")) == []
    assert len(offences(Module(PACKAGE, True, "from .cli import main"))) == 1
