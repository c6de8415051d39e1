"""What a world shows: its state as plain values that can be kept, compared, and told apart in words.

A picture is made of anything: built-in containers item by item, other objects by their public attributes. What begins
with an underscore is an object's own affair (the keys that a fake has answered, say) and is not in it. A run's id is
random and differs from run to run; wherever a text holds it, the picture holds ``<run>`` instead.
"""

import inspect
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from itertools import zip_longest
from pathlib import PurePath
from typing import Any
from uuid import UUID

_AS_IT_IS = (int, float, complex, bytes, type(None), Enum, Decimal, Fraction, date, time, timedelta, UUID, PurePath)
_NOT_STATE = (types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, type)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_SHOWN = 160  # characters of a value that a message shows
_MOST = 8  # differences that a message tells


def picture(value: object, run_id: str | None = None) -> object:
    """Return what `value` shows at this moment, independent of it from here on.

    Args:
        value: Anything.
        run_id: The id that is to be shown as ``<run>``.
    """

    def shown_text(text: str) -> str:
        return text.replace(run_id, "<run>") if run_id else text

    return _Camera(shown_text).of(value)


class Shown(dict[str, object]):
    """The public attributes of an object."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.items())})"


class _Camera:
    def __init__(self, text: Callable[[str], str]) -> None:
        self._text = text
        self._above: set[int] = set()
        """The containers that the value at hand lies in: one that holds itself is shown once."""

    def of(self, value: object) -> object:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, _AS_IT_IS):
            return value if _is_itself(value) else repr(value)
        if isinstance(value, _NOT_STATE):
            return f"<{getattr(value, '__name__', type(value).__name__)}>"
        if id(value) in self._above:
            return "<itself>"
        self._above.add(id(value))
        try:
            return self._inside(value)
        finally:
            self._above.discard(id(value))

    def _inside(self, value: object) -> object:
        if isinstance(value, Mapping):
            return {self._key(key): self.of(item) for key, item in value.items()}
        if isinstance(value, Set):
            return sorted((self.of(item) for item in value), key=repr)
        if isinstance(value, list | tuple):
            return [self.of(item) for item in value]
        if isinstance(value, Collection) and not hasattr(value, "__dict__"):
            return [self.of(item) for item in value]
        shown = Shown(type(value).__name__)
        for name, item in attributes(value):
            if name.startswith("_") or isinstance(item, _NOT_STATE):
                continue
            if not isinstance(inspect.getattr_static(type(value), name, None), cached_property):
                shown[name] = self.of(item)
        # An object that shows nothing may still be told apart by what it prints, unless that is its address.
        printed = type(value).__repr__
        return shown if shown or printed is object.__repr__ else self._text(_ADDRESS.sub("", repr(value)))

    def _key(self, key: object) -> object:
        return self._text(key) if isinstance(key, str) else key if isinstance(key, _AS_IT_IS) else repr(self.of(key))


def _is_itself(value: object) -> bool:
    """Tell whether a value equals itself, as NaN does not."""
    try:
        return bool(value == value)
    except ArithmeticError:  # a signalling NaN
        return False


def attributes(value: object) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of an object's own attributes, slots included."""
    yield from list(getattr(value, "__dict__", {}).items())
    for name in _slots(value):
        if hasattr(value, name):
            yield name, getattr(value, name)


def _slots(value: object) -> list[str]:
    found: list[str] = []
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        found += [slots] if isinstance(slots, str) else [name for name in slots if isinstance(name, str)]
    return [name for name in found if not name.startswith("__")]


def differences(shows: object, should: object) -> list[tuple[str, str, str]]:
    """Return where two pictures differ: the place, what one shows there, and what the other does; the first few."""
    found: list[tuple[str, str, str]] = []
    _compare(shows, should, "", found)
    return found[:_MOST]


def _compare(shows: object, should: object, place: str, found: list[tuple[str, str, str]]) -> None:
    if shows == should:
        return
    if isinstance(shows, Shown) and isinstance(should, Shown) and shows.keys() == should.keys():
        for name in shows:
            _compare(shows[name], should[name], f"{place}.{name}" if place else name, found)
    elif (
        isinstance(shows, dict)
        and isinstance(should, dict)
        and not isinstance(shows, Shown)
        and (shows.keys() == should.keys() or _is_long(shows, should))
    ):
        for name in {**should, **shows}:
            inside = f"{place}[{name!r}]" if place or not isinstance(name, str) else name
            _compare(shows.get(name, _NOTHING), should.get(name, _NOTHING), inside, found)
    elif isinstance(shows, list) and isinstance(should, list) and _is_long(shows, should):
        for number, (one, other) in enumerate(zip_longest(shows, should, fillvalue=_NOTHING)):
            _compare(one, other, f"{place}[{number}]", found)
    else:
        found.append((place, short(shows), short(should)))


class _Nothing:
    def __repr__(self) -> str:
        return "not there"


_NOTHING = _Nothing()


def _is_long(*values: object) -> bool:
    """Tell whether the difference between two values could lie behind what a message shows of them."""
    return any(len(repr(value)) > _SHOWN for value in values)


def short(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
