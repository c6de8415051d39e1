"""Lists and dictionaries that refuse to be changed: what a run that was started shows of its plan.

To everything else they are the plain ones: equal to them, written as them by a `Codec` (so that a step can return a
part of its metadata), and plain once copied deep.
"""

from typing import Any, NoReturn

from .errors import WorkflowExecutionError


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise WorkflowExecutionError(
        "The steps and metadata of a workflow that was started cannot be changed: they are pinned for the run. "
        "Return what a step finds out in the data of its result."
    )


class ReadOnlyList(list[Any]):
    """A list that refuses to be changed."""

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class ReadOnlyDict(dict[str, Any]):
    """A dictionary that refuses to be changed."""

    update = pop = popitem = clear = setdefault = _refuse
    __setitem__ = __delitem__ = __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def read_only(value: Any) -> Any:
    """Return JSON-like data that refuses to be changed, at any depth."""
    if type(value) is dict:
        return ReadOnlyDict({key: read_only(item) for key, item in value.items()})
    if type(value) is list:
        return ReadOnlyList(map(read_only, value))
    return value
