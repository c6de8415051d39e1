"""How a type that JSON lacks is registered, and how a value is refused."""

import builtins
import json
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from .errors import JournalCorruptError, PersistenceError, ResultNotSerializableError

T = TypeVar("T")

JsonValue: TypeAlias = Any
"""What JSON holds, and what else a `Codec` accepts. Any, so that a `from_json` may say what its `to_json` made."""

RESTORE = "Restore the store from a backup."
PLAIN_TYPES = frozenset({type(None), bool, int, float, str, list, dict})
DICT_TAG = "dict"


class CodecType(NamedTuple, Generic[T]):
    """How a `Codec` writes and reads one type that is not built in.

    Whatever `to_json` returned for a value, `from_json` must make an equal one of, in every version of your code that
    may meet the journal.
    """

    type: "builtins.type[T]"
    """The class. Its subclasses are not covered; register each."""
    tag: str
    """Names it in the journal, for good. With a dot in it (``acme.money``) it can never clash with a later built-in."""
    to_json: Callable[[T], JsonValue]
    """Takes a value apart, into anything that the codec accepts."""
    from_json: Callable[[JsonValue], T]
    """Puts it together again, from what `to_json` returned."""


class RefusedError(Exception):
    """A value that cannot be written or read. It learns where it is while it passes through what it is in."""

    def __init__(self, complaint: str, cause: Exception | None = None) -> None:
        super().__init__(complaint)
        self.complaint = complaint
        self.cause = cause
        self._where: list[str] = []

    def within(self, key: int | str | None) -> None:
        """Add the place inside the next outer container; None is a set, whose members have no place."""
        if key is None:
            self._where.append("{*}")
        elif isinstance(key, str):
            self._where.append(f".{key}" if key.isidentifier() else f"[{shown(key)}]")
        else:
            self._where.append(f"[{key}]")

    def full_path(self, path: str) -> str:
        return path + "".join(reversed(self._where))

    def error(self, path: str) -> PersistenceError:
        path = self.full_path(path)
        return ResultNotSerializableError(f"{path} {self.complaint}", path=path)


class DamagedError(RefusedError):
    """Text that no codec wrote."""

    def error(self, path: str) -> PersistenceError:
        return JournalCorruptError(f"{self.full_path(path)} {self.complaint}. {RESTORE}")


def shown(name: str) -> str:
    """Quote a key or tag for a message: one line, ASCII, no longer than a line bears."""
    return json.dumps(name if len(name) <= 60 else name[:57] + "...")
