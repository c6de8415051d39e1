"""Values to JSON text and back: what results' ``data``, metadata and approval data may hold, and how it is written.

This form is part of the journal format: it is read by people, by other languages and by every later version, so a
tag never changes its meaning.

What JSON can hold is written as it is: None, bool, int, finite float, str, list, dict with str keys. Any other value
is *tagged*: an object whose only key is ``$``, holding a list of two, the tag and what it applies to::

    {"$": ["tuple", [1, 2]]}                            also "set" and "frozenset", sorted by their members' text
    {"$": ["decimal", "1.50"]}                          str(), so the exponent is kept
    {"$": ["uuid", "6d1f..."]}   {"$": ["bytes", "AAE="]}    base64
    {"$": ["date", "2026-07-01"]}
    {"$": ["timedelta", [1, 3600, 0]]}                  days, seconds, microseconds
    {"$": ["time", "12:30:00"]}
    {"$": ["datetime", "2026-07-01T12:30:00+02:00"]}    ISO 8601; no offset: naive
    {"$": ["datetime", ["2026-10-25T02:30:00+01:00", "Europe/Berlin", 1]]}    with a zone's key (or null) and the fold
    {"$": ["dict", {"$": 5, "a": 1}]}                   a dict of the user that has the key "$": its keys are plain
    {"$": ["money", ["9.99", "EUR"]]}                   a type registered by the user, as its `to_json` wrote it

What is under a tag may hold tagged values in turn. Nothing else is ever built: a tag is looked up in a table, never
imported. The text is ASCII, and no value is nested deeper than 100.

Only exact types are accepted. A subclass (an IntEnum, an OrderedDict, a named tuple) would come back as its base, and
a run that was resumed would then see something else than the one that was not. (What a workflow shows read-only of
its own plan is written as the plain list or dict that it stands for.) For the same reason an aware datetime
must have a `datetime.timezone` (its offset is kept, a name given to it is not) or a `zoneinfo.ZoneInfo` made from a
key. The latter comes back at the same time on the wall, by the rules of the machine that reads it: the offset is
there for people and for languages without a zone database.
"""

import json
import math
import re
from collections.abc import Collection, Iterable
from json.encoder import encode_basestring_ascii as _text
from typing import Any, NoReturn

from ._read_only import ReadOnlyDict, ReadOnlyList
from ._value_types import (
    DICT_TAG,
    PLAIN_TYPES,
    RESTORE,
    CodecType,
    DamagedError,
    JsonValue,
    RefusedError,
    shown,
)
from .errors import JournalCorruptError, PayloadTooLargeError, ResultNotSerializableError, WorkflowConfigurationError

__all__ = ["Codec", "CodecType", "JsonValue"]

_TAG = "$"
# What `_write_flat` looks at, so that a large value is seen to be too large before its text is made.
_FEW = 20  # keys
_SHORT = 1000  # characters of one string
_MAX_DEPTH = 100
# CPython neither reads nor writes ints of more digits, unless a process sets a limit of its own, which is 640 at least
# (sys.int_info). Stores are shared between processes, so that a higher limit in one of them helps nobody.
_MAX_DIGITS = 4300
_INT_BOUND = 10**_MAX_DIGITS
_SAFE_INT_BOUND = 10**640
# A lone surrogate survives as \udXXX, but a high and a low one side by side are read back as one character.
_SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class Codec:
    """Writes values as JSON text and reads them back equal, with the same types throughout.

    It never changes after it was made, and can be shared between threads.
    """

    __slots__ = ("_max_bytes", "_tables")

    def __init__(self, types: Iterable[CodecType[Any]] = (), *, max_bytes: int = 1024 * 1024) -> None:
        """Make a codec of the built-in types and some of your own.

        Args:
            types: What it accepts besides the built-in types.
            max_bytes: The largest JSON text of one value.

        Raises:
            WorkflowConfigurationError: A registration is wrong, or `max_bytes` is.
        """
        if type(max_bytes) is not int or max_bytes < 2:
            raise WorkflowConfigurationError(f"max_bytes is {max_bytes!r}. Give a number of bytes, 2 or more.")
        self._max_bytes = max_bytes
        self._tables: _Tables | None = None
        for entry in types:
            self._register(entry)

    def encode(self, value: dict[str, Any], path: str) -> str:
        """Return a value as JSON text, ASCII only. The value is left as it is.

        Args:
            value: What to write.
            path: What errors call it, such as ``data``.

        Raises:
            ResultNotSerializableError: Something in it would not come back as it is; `path` says where.
            PayloadTooLargeError: The text is longer than `max_bytes`.
        """
        try:
            if type(value) is dict:
                if not value:
                    return "{}"
                if len(value) <= _FEW and (text := _write_flat(value)) is not None:
                    return self._within_limit(text, path)
                if _room_left(value, self._max_bytes, _MAX_DEPTH) >= 0:
                    try:
                        return self._within_limit(_dump(value), path)
                    except ValueError:
                        pass  # A NaN or an infinity: the encoder cannot say where, the conversion can.
            return self._within_limit(_dump(_Conversion(self._known(), self._max_bytes, path).top(value)), path)
        except RefusedError as refusal:
            raise refusal.error(path) from refusal.cause
        except RecursionError:
            raise ResultNotSerializableError(f"{path} {_TOO_DEEP}", path=path) from None

    def decode(self, text: str, path: str = "value") -> dict[str, Any]:
        """Return the value that a text was made of, as a fresh copy.

        Args:
            text: What `encode` returned.
            path: What errors call the value.

        Raises:
            ResultNotSerializableError: It holds a type that is not registered here, or one whose `from_json` failed,
                or a time zone that this machine does not know.
            JournalCorruptError: The text is nothing that `encode` returns.
        """
        if text == "{}":
            return {}
        try:
            value = _load(text)
            # Only a writer that is not this one escapes the "$", but what it wrote is no less a tag.
            if '"$"' in text or "\\u0024" in text:
                value = self._revive(value)
        except RefusedError as refusal:
            raise refusal.error(path) from refusal.cause
        except RecursionError:
            raise JournalCorruptError(f"{path} nests too deep to be read. {RESTORE}") from None
        except ValueError as error:
            # Not chained: a JSONDecodeError carries the whole text along, to wherever errors are reported.
            raise JournalCorruptError(f"{path} is not the JSON of a stored value: {error}. {RESTORE}") from None
        if not isinstance(value, dict):
            raise JournalCorruptError(f"{path} is a {type(value).__name__}, and must be an object. {RESTORE}")
        return value

    def _known(self) -> "_Tables":
        if self._tables is None:
            self._tables = _Tables()
        return self._tables

    def _register(self, entry: CodecType[Any]) -> None:
        if not isinstance(entry, CodecType):
            raise WorkflowConfigurationError(f"A Codec takes CodecType objects, not {entry!r}.")
        kind, tag = entry.type, entry.tag
        if not isinstance(kind, type):
            raise WorkflowConfigurationError(f"CodecType.type is {kind!r}, which is no class. Give the class itself.")
        name = kind.__qualname__
        if not isinstance(tag, str) or not tag or not tag.isprintable():
            raise WorkflowConfigurationError(f"The tag of {name} is {tag!r}. Give it a non-empty, printable str.")
        if not callable(entry.to_json) or not callable(entry.from_json):
            raise WorkflowConfigurationError(f"to_json and from_json of {name} must be functions of one argument.")
        known = self._known()
        if kind in PLAIN_TYPES or kind in known.built_in:
            raise WorkflowConfigurationError(f"{name} is built in. Leave it out, or register a class of your own.")
        if kind in known.by_type:
            raise WorkflowConfigurationError(f"{name} is registered twice. Leave one of the two out.")
        if tag == DICT_TAG or (tag in known.by_tag and known.by_tag[tag].type in known.built_in):
            raise WorkflowConfigurationError(
                f"The tag {tag!r} of {name} is built in. Choose another one, such as 'acme.{tag}'."
            )
        if tag in known.by_tag:
            other = known.by_tag[tag].type.__qualname__
            raise WorkflowConfigurationError(f"The tag {tag!r} is given to {other} and to {name}. Rename one.")
        known.by_type[kind] = entry
        known.by_tag[tag] = entry

    def _within_limit(self, text: str, path: str) -> str:
        if len(text) > self._max_bytes:
            raise _too_large(path, len(text), self._max_bytes)
        return text

    def _revive(self, value: Any) -> Any:
        """Replace tagged values by what they stand for, in place: nobody else holds what was just parsed."""
        if type(value) is list:
            self._revive_items(value, enumerate(value))
        elif type(value) is dict:
            if _TAG in value:
                return self._untag(value)
            self._revive_items(value, value.items())
        return value

    def _revive_items(self, container: Any, items: Iterable[tuple[Any, Any]]) -> None:
        key: int | str = ""
        try:
            for key, item in items:
                if type(item) is dict or type(item) is list:
                    container[key] = self._revive(item)
        except RefusedError as refusal:
            refusal.within(key)
            raise

    def _untag(self, tagged: dict[str, Any]) -> Any:
        pair = tagged[_TAG]
        if len(tagged) != 1 or type(pair) is not list or len(pair) != 2 or type(pair[0]) is not str:
            raise DamagedError("has the key '$', and is no tagged value")
        tag, payload = pair
        if tag == DICT_TAG:
            if type(payload) is not dict:
                raise DamagedError("is tagged 'dict', and holds none")
            self._revive_items(payload, payload.items())
            return payload
        known = self._known()
        entry = known.by_tag.get(tag)
        if entry is None:
            raise RefusedError(
                f"has the tag {shown(tag)}, which this Codec does not know. Read it with the class or the Codec that "
                "registers it."
            )
        payload = self._revive(payload)
        try:
            value = entry.from_json(payload)
        except RefusedError:
            raise
        except Exception as error:
            if entry.type in known.built_in:
                raise DamagedError(f"is tagged {tag!r}, and cannot be one", error) from error
            raise _failed("from_json", entry, f"raised {type(error).__name__}", error) from error
        if type(value) is not entry.type:
            raise _failed("from_json", entry, f"returned a {type(value).__qualname__}")
        return value


def _write_flat(value: dict[str, Any]) -> str | None:
    """Return the JSON of what most results hold, a few short texts and numbers, at half the price; None: not that."""
    parts = []
    for key, item in value.items():
        kind = type(item)
        if kind is str:
            if len(item) > _SHORT or not item.isascii():
                return None
            text = _text(item)
        elif kind is int:
            if not -_SAFE_INT_BOUND < item < _SAFE_INT_BOUND:
                return None
            text = repr(item)
        elif kind is bool:
            text = "true" if item else "false"
        elif item is None:
            text = "null"
        elif kind is float and math.isfinite(item):
            text = repr(item)
        else:
            return None
        if type(key) is not str or key == _TAG or len(key) > _SHORT or not key.isascii():
            return None
        parts.append(f"{_text(key)}:{text}")
    return f"{{{','.join(parts)}}}"


def _room_left(value: Any, room: int, depth: int) -> int:
    """Tell whether a dict or list is plain JSON of exact types, for the C encoder to write as it is.

    Returns what is left of `room` bytes by a lower bound of the size, which also ends the walk through lists that
    share their members, 2**30 in all; below 0 when there is none left or when the value wants conversion.
    """
    room -= 2 * len(value) + 1
    if room < 0 or not depth:
        return -1
    if type(value) is dict:
        for key in value:
            if type(key) is not str or key == _TAG or (not key.isascii() and _SPLIT_PAIR.search(key)):
                return -1
            room -= len(key)
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is str:
            if not item.isascii() and _SPLIT_PAIR.search(item):
                return -1
            room -= len(item)
        elif kind is int:
            if not -_SAFE_INT_BOUND < item < _SAFE_INT_BOUND:
                return -1
        elif kind is dict or kind is list:
            room = _room_left(item, room, depth - 1)
            if room < 0:
                return -1
        elif not (kind is bool or item is None or kind is float):
            return -1
    return room


class _Tables:
    """The types that a codec knows; made when it first meets a value that JSON lacks."""

    def __init__(self) -> None:
        from ._built_in_types import BUILT_IN

        self.by_type: dict[type, CodecType[Any]] = {entry.type: entry for entry in BUILT_IN}
        self.by_tag: dict[str, CodecType[Any]] = {entry.tag: entry for entry in BUILT_IN}
        self.built_in = frozenset(self.by_type)


class _Conversion:
    """Makes plain JSON of one value, or says what is in the way and where."""

    def __init__(self, known: _Tables, limit: int, path: str) -> None:
        self._known = known
        self._limit = limit
        self._path = path
        self._room = limit
        self._around: set[int] = set()

    def top(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise RefusedError(
                f"is of type {type(value).__qualname__}, and must be a dict. Put it into one, under a key."
            )
        return self._convert(value)

    def _convert(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return self._string(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return _readable_int(value)
        if kind is float:
            if not math.isfinite(value):
                raise RefusedError(f"is {value}, which JSON cannot hold. Store None or a string instead.")
            return value
        if id(value) in self._around:
            raise RefusedError("contains itself. Store a copy without the cycle, or an id to find it by.")
        if len(self._around) == _MAX_DEPTH:
            raise RefusedError(_TOO_DEEP)
        self._around.add(id(value))
        if kind is list or kind is ReadOnlyList:
            converted: Any = self._list(value)
        elif kind is dict or kind is ReadOnlyDict:
            converted = self._dict(value)
        else:
            converted = self._tagged(value)
        self._around.remove(id(value))
        return converted

    def _tagged(self, value: Any) -> dict[str, Any]:
        entry = self._known.by_type.get(type(value))
        if entry is None:
            raise _unknown(type(value), self._known.built_in)
        self._spend(len('{"$":["",]}'))
        return {_TAG: [entry.tag, self._payload(entry, value)]}

    def _payload(self, entry: CodecType[Any], value: Any) -> Any:
        if entry.type is tuple:
            return self._list(value)
        if entry.type is set or entry.type is frozenset:
            return sorted(self._list(value, ordered=False), key=_dump)
        if entry.type is bytes and len(value) > self._room:
            self._spend(len(value))
        try:
            payload = entry.to_json(value)
        except RefusedError:
            raise
        except Exception as error:
            raise _failed("to_json", entry, f"raised {type(error).__name__}", error) from error
        return self._convert(payload)

    def _list(self, items: Collection[Any], ordered: bool = True) -> list[Any]:
        self._spend(2 * len(items) + 1)
        converted: list[Any] = []
        try:
            for item in items:
                converted.append(self._convert(item))
        except RefusedError as refusal:
            refusal.within(len(converted) if ordered else None)
            raise
        return converted

    def _dict(self, value: dict[Any, Any]) -> dict[str, Any]:
        self._spend(2 * len(value) + 1)
        converted: dict[str, Any] = {}
        for key, item in value.items():
            if type(key) is not str:
                raise RefusedError(
                    f"has a key of type {type(key).__qualname__}, and JSON has plain strings only. Make its keys str."
                )
            try:
                self._string(key)
                converted[key] = self._convert(item)
            except RefusedError as refusal:
                refusal.within(key)
                raise
        return {_TAG: [DICT_TAG, converted]} if _TAG in converted else converted

    def _string(self, value: str) -> str:
        if not value.isascii() and _SPLIT_PAIR.search(value):
            raise RefusedError(
                "holds a character as two surrogates side by side, which would come back as one. Join them by "
                "encode('utf-16', 'surrogatepass').decode('utf-16')."
            )
        self._spend(len(value))
        return value

    def _spend(self, size: int) -> None:
        """Stop early where the text is sure to be too large, before it takes memory."""
        self._room -= size
        if self._room < 0:
            raise _too_large(self._path, self._limit - self._room, self._limit, "at least ")


def _readable_int(value: int) -> int:
    if not -_SAFE_INT_BOUND < value < _SAFE_INT_BOUND:
        try:
            if not -_INT_BOUND < value < _INT_BOUND:
                raise ValueError
            str(value)  # the limit of this process may be a lower one
        except ValueError:
            raise RefusedError(
                f"is an int of more digits than can be read back ({_MAX_DIGITS:,} at most). Store hex() of it instead."
            ) from None
    return value


def _unknown(kind: type, built_in: frozenset[type]) -> RefusedError:
    name = kind.__qualname__
    for base in kind.__mro__:
        if base in PLAIN_TYPES or base in built_in:
            plain = base.__name__
            return RefusedError(
                f"is of type {name}, which would come back as a plain {plain}. Convert it to {plain}, or register "
                f"{name} with a Codec."
            )
    return RefusedError(
        f"is of type {name}, which a journal cannot hold. Store what it is made of, or register {name} with a Codec."
    )


def _failed(function: str, entry: CodecType[Any], what: str, cause: Exception | None = None) -> RefusedError:
    name = entry.type.__qualname__
    return RefusedError(f"is a {name} whose {function} {what}. Mend the CodecType that registers {name}.", cause)


def _too_large(path: str, size: int, limit: int, bound: str = "") -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"{path} is {bound}{size:,} bytes of JSON, and the limit is {limit:,}. Keep the content elsewhere and its "
        "address here, or give the Codec a larger max_bytes.",
        path=path,
        size=size,
        limit=limit,
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has one key twice")
    return value


def _finite_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large for a float")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_TOO_DEEP = f"nests too deep, beyond {_MAX_DEPTH} levels. Store it flat, or as a string of its own."
# Prebuilt, because json.dumps and json.loads make their coder anew when an option is not the default. Cycles need not
# be looked for: nothing gets here that was not found to end.
_dump = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite_float, parse_constant=_refuse_constant)


def _load(text: str) -> Any:
    """Return what a JSON text says."""
    # Only a writer that is not this one puts white space around it; to allow for that takes twice as long.
    value, end = _decoder.raw_decode(text) if text.startswith("{") else (None, -1)
    return value if end == len(text) else _decoder.decode(text)
