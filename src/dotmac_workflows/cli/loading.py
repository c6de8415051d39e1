"""What a command is given: a class, a JSON file, a database, and who gives it."""

import getpass
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, cast

from ..base import Workflow
from ..persistence import Header, LeaseChange, Persistence, Record
from ..persistence.sqlite import SQLitePersistence
from ..recovery import WorkflowMaker
from .exits import STORE, CommandError

DB_VARIABLE = "DOTMAC_WORKFLOWS_DB"


def load_workflow(spec: str) -> WorkflowMaker:
    """Return the class that ``MODULE:CLASS`` or ``FILE.py:CLASS`` names, or the function that makes one.

    Raises:
        CommandError: There is none of that name, or it is no workflow.
    """
    named = find(spec, "CLASS", "shop.orders:Order")
    if isinstance(named.found, type):
        if issubclass(named.found, Workflow) and named.found is not Workflow:
            return named.found
    elif callable(named.found):
        return cast("Callable[[str, Persistence], Workflow]", named.found)
    known = [
        key
        for key, value in vars(named.module).items()
        if isinstance(value, type) and issubclass(value, Workflow) and value.__module__ == named.module.__name__
    ]
    raise named.wrong("workflow", known, "give a subclass of dotmac_workflows.Workflow")


class Named(NamedTuple):
    """What somebody named, and where it was looked for."""

    place: str
    name: str
    module: ModuleType
    found: Any
    """None: there is nothing of that name."""

    def called(self) -> Any:
        """Return what the function that was named makes, without arguments.

        Raises:
            CommandError: It raised, or wants arguments.
        """
        try:
            made: Any = self.found()
        except (Exception, SystemExit) as error:
            raise CommandError(
                f"{self.name} of {self.place} cannot be called: {said(error)}{_place(error)}."
            ) from error
        if inspect.iscoroutine(made):
            made.close()  # else Python warns that nobody awaited it, beside the error that it is not what was wanted
        return made

    def wrong(self, kind: str, known: Sequence[str], instead: str) -> CommandError:
        """Return an error that says that this is none of a kind, and what is; or else what to give instead."""
        what = f"{self.name} of {self.place} is no {kind}"
        if self.found is None:
            what = f"{self.place} has no {self.name!r}"
        return CommandError(f"{what}; {f'its {kind}s: ' + ', '.join(known) if known else instead}.")


def find(spec: str, kind: str, example: str) -> Named:
    """Import what ``MODULE:NAME`` or ``FILE.py:NAME`` names.

    Args:
        spec: What was given.
        kind: What it stands for in the usage, such as ``CLASS``.
        example: One that could have been given.

    Raises:
        CommandError: There is no such module, or it cannot be imported.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise CommandError(
            f"{spec!r} names no {kind.lower()}. Give MODULE:{kind} or FILE.py:{kind}, such as {example}."
        )
    module = _load_file(place, kind) if place.endswith(".py") else _load_module(place, kind)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return Named(place, name, module, found)


def _load_module(name: str, kind: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CommandError(
                f"There is no module {error.name!r}, neither in {here} nor where Python looks. Give MODULE:{kind}, "
                f"or a path, FILE.py:{kind}."
            ) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _load_file(path: str, kind: str) -> ModuleType:
    if not os.path.isfile(path):
        raise CommandError(f"There is no file {path!r}. Give MODULE:{kind} or FILE.py:{kind}.")
    directory, stem = os.path.dirname(os.path.abspath(path)), os.path.basename(path).removesuffix(".py")
    if directory not in sys.path:
        sys.path.insert(0, directory)  # as Python does for a script: its neighbours can be imported
    name = stem if stem not in sys.modules else f"_workflows_of_{stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(path, error) from error
    return module


def _broken(name: str, error: BaseException) -> CommandError:
    return CommandError(f"{name} cannot be imported: {said(error)}{_place(error)}.")


def said(error: BaseException) -> str:
    """Return an error without its traceback, to be written by `Terminal.line`."""
    text, name = str(error), type(error).__name__
    return f"{name}: {text}" if text else name


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def read_object(path: str | None, what: str) -> dict[str, Any] | None:
    """Read a JSON object from a file, or from the standard input for ``-``; None where no path is given.

    Raises:
        CommandError: It cannot be read, or is none.
    """
    if path is None:
        return None
    shown = "the standard input" if path == "-" else repr(path)
    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
        value = json.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise CommandError(f"{what} cannot be read from {shown}: {error.strerror}.") from error
    except RecursionError as error:
        raise CommandError(f"{what} in {shown} nests too deep.") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{what} in {shown} is not UTF-8 (byte {error.start + 1}).") from error
    except json.JSONDecodeError as error:
        raise CommandError(
            f"{what} in {shown} is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from error
    except ValueError as error:
        raise CommandError(f"{what} in {shown} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise CommandError(f'{what} in {shown} is a JSON {_json_name(value)}; give an object, such as {{"amount": 5}}.')
    return value


def _json_name(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def actor(given: str | None) -> str:
    """Return who gives the command: the name given, else the user of the operating system.

    Raises:
        CommandError: The name is empty.
    """
    if given is not None:
        if not given.strip():
            raise CommandError("--as names nobody. Give a name, or leave it out.")
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


class WatchedStore(SQLitePersistence):
    """A store that tells what was recorded through it, once it is durable."""

    watch: Callable[[str, Sequence[Record]], None] | None = None

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        """See `SQLitePersistence.append`."""
        await super().append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)
        if self.watch is not None:
            self.watch(workflow_id, records)


def open_store(path: str, *, create: bool = False) -> WatchedStore:
    """Return the store in a file, which only `create` may make.

    Raises:
        CommandError: There is no such file.
    """
    if not create and _is_missing(path):
        raise CommandError(
            f"There is no database {path!r}. Check --db and {DB_VARIABLE}; only 'run' makes a new one.", STORE
        )
    return WatchedStore(path)


def _is_missing(path: str) -> bool:
    """Tell whether there is no store yet; an empty file would become one."""
    try:
        return os.path.getsize(path) == 0 and not os.path.exists(f"{path}-wal")
    except OSError:
        return not os.path.exists(path)
