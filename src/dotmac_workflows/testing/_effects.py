"""Has the calls that steps make of a world pass by: each is an effect, before and after which a process may die.

A world is made of objects of the user's. While a proof runs, the public methods of their classes tell whoever listens
in the context that they are called in, which a step's is and that of its tasks and threads; everybody else's calls pass
through. The objects themselves stay as they are: they can be copied, compared, and have slots. Only functions that
they hold are exchanged, as long as a world lasts.
"""

import functools
import inspect
import sys
from collections.abc import Awaitable, Iterator
from contextvars import ContextVar
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any, Protocol, TypeVar, cast

from ..base import Workflow
from ._picture import attributes

R = TypeVar("R")
_DEEPEST = 4  # attributes of attributes


class Listener(Protocol):
    """Who is told of calls; what it raises is raised to the caller."""

    def before(self, call: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> object:
        """A call is about to be made; what is returned is handed to the others."""
        ...

    def after(self, told: object, answer: object) -> None:
        """It was made, and returned this."""
        ...

    def raised(self, told: object, error: BaseException) -> None:
        """It was made, and raised this."""
        ...


listener: ContextVar[Listener | None] = ContextVar("who hears of the calls of the world", default=None)


class Watch:
    """As a context, watches the classes of all worlds that it is shown, until it is left."""

    def __init__(self) -> None:
        self._seen: set[type] = set()
        self._changed: list[tuple[type, str, object]] = []
        self._functions: list[tuple[object, str, FunctionType]] = []
        self.blind: set[str] = set()
        """The names of the classes that cannot be watched."""

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *error: object) -> None:
        self.look_away()
        while self._changed:
            kind, name, own = self._changed.pop()
            if own is None:
                delattr(kind, name)
            else:
                setattr(kind, name, own)

    def look_at(self, world: object) -> None:
        """Watch the classes of a world and of the objects in it, and the functions among their attributes."""
        for owner in _owners(world):
            if type(owner) not in self._seen:
                self._seen.add(type(owner))
                self._watch_class(type(owner))
            for name, item in attributes(owner):
                if isinstance(item, FunctionType) and not name.startswith("_"):
                    self._watch_function(owner, name, item)

    def look_away(self) -> None:
        """Put the functions among the attributes of the last world back, which may be in the next one too."""
        while self._functions:
            owner, name, function = self._functions.pop()
            object.__setattr__(owner, name, function)

    def _watch_function(self, owner: object, name: str, function: FunctionType) -> None:
        try:
            object.__setattr__(owner, name, _watched(function, f"{type(owner).__name__}.{name}", bound=0))
        except (AttributeError, TypeError):  # an object that lets nobody change it
            self.blind.add(type(owner).__name__)
        else:
            self._functions.append((owner, name, function))

    def _watch_class(self, kind: type) -> None:
        for name in dir(kind):
            method = inspect.getattr_static(kind, name)
            if name.startswith("_") or not isinstance(method, FunctionType):
                continue
            own = vars(kind).get(name)
            try:
                setattr(kind, name, _watched(method, f"{kind.__name__}.{name}", bound=1))
            except (AttributeError, TypeError):  # a class that lets nobody change it
                self.blind.add(kind.__name__)
                return
            self._changed.append((kind, name, own))


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
            if isinstance(value, type | Enum | ModuleType | Workflow):
                continue
            module = type(value).__module__.partition(".")[0]
            if module not in sys.stdlib_module_names and module != __name__.partition(".")[0]:
                yield value
            if isinstance(value, dict):
                following += value.values()
            elif isinstance(value, list | tuple | set | frozenset):
                following += value
            following += [item for name, item in attributes(value) if not name.startswith("_")]
        level = following


def _watched(method: FunctionType, call: str, bound: int) -> FunctionType:
    """Return a function that tells of its calls; the first `bound` arguments are not told."""

    @functools.wraps(method)
    def watched(*arguments: Any, **keywords: Any) -> Any:
        told_to = listener.get()
        if told_to is None:
            return method(*arguments, **keywords)
        told = told_to.before(call, arguments[bound:], keywords)
        listener.set(None)  # what a fake calls of itself is no effect of the step's
        try:
            answer = method(*arguments, **keywords)
        except BaseException as error:
            listener.set(told_to)
            told_to.raised(told, error)
            raise
        listener.set(told_to)
        if inspect.iscoroutine(answer):  # any other awaitable may be more than that, and is handed on
            return _awaited(answer, told_to, told)
        told_to.after(told, answer)
        return answer

    @functools.wraps(method)
    async def watched_when_awaited(*arguments: Any, **keywords: Any) -> Any:
        told_to = listener.get()
        if told_to is None:
            return await method(*arguments, **keywords)
        told = told_to.before(call, arguments[bound:], keywords)
        return await _awaited(method(*arguments, **keywords), told_to, told)

    return cast("FunctionType", watched_when_awaited if inspect.iscoroutinefunction(method) else watched)


async def _awaited(answer: Awaitable[R], told_to: Listener, told: object) -> R:
    listener.set(None)
    try:
        result = await answer
    except GeneratorExit:  # nobody awaits it any more, and this may be another context
        raise
    except BaseException as error:
        listener.set(told_to)
        told_to.raised(told, error)
        raise
    listener.set(told_to)
    told_to.after(told, result)
    return result
