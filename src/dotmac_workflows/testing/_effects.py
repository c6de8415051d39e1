"""Has the calls that steps make of a world pass by: each is an effect, before and after which a process may die.

A world is an object of the user's, made of fakes; it is asked for nothing. Every public method of it, and of the
objects in its public attributes, is wrapped on the object at hand, not on its class, so that ``isinstance`` and the
class itself stay as they were.
"""

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import FunctionType
from typing import Any, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from ._picture import attributes

R = TypeVar("R")
_DEEPEST = 4  # attributes of attributes


class Observer(Protocol):
    """Who is told of calls."""

    def before(self, call: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> object:
        """A call is about to be made; what is returned is handed to `after`. What is raised is raised to the caller."""
        ...

    def after(self, told: object, answer: object) -> None:
        """It was made, and returned this."""
        ...

    def raised(self, told: object, error: BaseException) -> None:
        """It was made, and raised this."""
        ...


def watch(world: object, observer: Observer) -> None:
    """Tell `observer` of every call of a public method of `world` and of the objects in it."""
    for owner in _owners(world):
        for name in _methods(type(owner)):
            _wrap(owner, name, observer)
        for name, item in attributes(owner):
            if isinstance(item, FunctionType) and not name.startswith("_") and not hasattr(item, "__wrapped__"):
                _wrap(owner, name, observer)


_methods_of: "WeakKeyDictionary[type, tuple[str, ...]]" = WeakKeyDictionary()


def _methods(kind: type) -> tuple[str, ...]:
    """Return the public methods of a class, in the order of their names."""
    if kind not in _methods_of:
        names = (name for name in dir(kind) if not name.startswith("_"))
        found = tuple(name for name in names if isinstance(inspect.getattr_static(kind, name), FunctionType))
        _methods_of[kind] = found
    return _methods_of[kind]


def _owners(world: object) -> Iterator[object]:
    """Yield the objects whose methods count: those of classes that are not the standard library's or ours."""
    seen: set[int] = set()
    level = [world]
    for _ in range(_DEEPEST):
        following: list[object] = []
        for value in level:
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, dict):
                following += value.values()
            elif isinstance(value, list | tuple | set | frozenset):
                following += value
            elif not isinstance(value, type):
                module = type(value).__module__.partition(".")[0]
                if module not in sys.stdlib_module_names and module != __name__.partition(".")[0]:
                    yield value
                following += [item for name, item in attributes(value) if not name.startswith("_")]
        level = following


def _wrap(owner: object, name: str, observer: Observer) -> None:
    method: Callable[..., Any] = getattr(owner, name)
    call = f"{type(owner).__name__}.{name}"

    @functools.wraps(method)
    def watched(*arguments: Any, **keywords: Any) -> Any:
        told = observer.before(call, arguments, keywords)
        try:
            answer = method(*arguments, **keywords)
        except BaseException as error:
            observer.raised(told, error)
            raise
        if inspect.isawaitable(answer):
            return _awaited(answer, told)
        observer.after(told, answer)
        return answer

    async def _awaited(answer: Awaitable[R], told: object) -> R:
        try:
            result = await answer
        except BaseException as error:
            observer.raised(told, error)
            raise
        observer.after(told, result)
        return result

    own = cast("dict[str, Any] | None", getattr(owner, "__dict__", None))
    if own is not None:  # one with slots alone is not watched: the points before and after its step remain
        own[name] = watched
