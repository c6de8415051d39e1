"""What was wanted against what came: strictly, types included, and told in a line."""

import traceback
from typing import TypeVar

from ...persistence import Header, Lease, Record
from .rows import Contents

_WIDTH = 90

Expected = TypeVar("Expected")


class Broken(Exception):  # noqa: N818 - what it says is what it is
    """A clause does not hold."""

    def __init__(self, expected: str, happened: str, *, about: str | None = None) -> None:
        super().__init__(f"expected {expected}; {happened}")
        self.expected = expected
        self.happened = happened
        self.about = about
        """The workflow whose calls show it, where the others are of no interest."""


class Hang(Broken):
    """A call does not come back."""


def same(actual: object, wanted: object, what: str, *, about: str | None = None) -> None:
    """Hold a backend to an answer.

    Args:
        actual: What came.
        wanted: What was to come, of the same types throughout: a row is not a tuple, a float not an int.
        what: What was asked, such as ``read('w')``.
        about: The workflow whose calls alone show it.

    Raises:
        Broken: They differ.
    """
    difference = differs(actual, wanted)
    if difference is not None:
        raise Broken(f"{what} to give {brief(wanted)}", difference, about=about)


def holds(condition: bool, expected: str, happened: str) -> None:
    """Hold a backend to a condition.

    Raises:
        Broken: It is false.
    """
    if not condition:
        raise Broken(expected, happened)


def differs(actual: object, wanted: object) -> str | None:
    """Tell in a line how two values differ; None when they do not."""
    if type(actual) is not type(wanted):
        return f"{brief(actual)}, of type {type(actual).__name__} and not {type(wanted).__name__}"
    if isinstance(actual, tuple) and isinstance(wanted, tuple) and (fields := _fields(wanted)):
        if actual == wanted and [*map(type, actual)] == [*map(type, wanted)] and not isinstance(actual, Contents):
            return None
        for field, one, other in zip(fields, actual, wanted, strict=True):
            if (inner := differs(one, other)) is not None:
                return inner if isinstance(actual, Contents) else f"{brief(actual)}, whose {field} is {inner}"
        return None
    if isinstance(actual, list) and isinstance(wanted, list):
        if len(actual) != len(wanted):
            return f"{brief(actual)}: {len(actual)} and not {len(wanted)}"
        for one, other in zip(actual, wanted, strict=True):
            if (inner := differs(one, other)) is not None:
                return inner
        return None
    return None if actual == wanted else f"{brief(actual)} and not {brief(wanted)}"


def brief(value: object) -> str:
    """Name a value in a few words."""
    if isinstance(value, Record):
        return f"record {value.seq!r}"
    if isinstance(value, Header):
        return f"the header of {value.workflow_id!r} at version {value.version!r}"
    if isinstance(value, Lease):
        return f"the lease {value.token!r} until {value.expires_at!r}"
    if isinstance(value, list):
        return _brief_list(value)
    if isinstance(value, Contents):
        lease = brief(value.lease) if value.lease is not None else "no lease"
        head = brief(value.headers[0]) if value.headers else "no header"
        return f"{brief(value.records) if value.records else 'no records'}, {lease}, {head}"
    if isinstance(value, str) and len(value) > _WIDTH:
        return f"a text of {len(value):,} characters, {_short(value)}"
    return _short(value)


def describe_error(error: BaseException) -> str:
    """Name an error, and where the backend raised it."""
    where = traceback.extract_tb(error.__traceback__)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    at = f" (line {where[-1].lineno} of {where[-1].filename.replace(chr(92), '/').rpartition('/')[2]})" if where else ""
    return f"{' '.join(said.split())[: 3 * _WIDTH]}{at}"


def _fields(value: tuple[object, ...]) -> tuple[str, ...]:
    return getattr(value, "_fields", ())


def _brief_list(values: list[object]) -> str:
    if not values:
        return "[]"
    if all(isinstance(value, Record) for value in values):
        seqs: list[object] = [value.seq for value in values if isinstance(value, Record)]
        first = seqs[0]
        if isinstance(first, int) and seqs == list(range(first, first + len(seqs))):
            return f"record {first}" if len(seqs) == 1 else f"records {first} to {seqs[-1]}"
        return f"records {_short(seqs)}"
    if all(isinstance(value, Header) for value in values):
        return f"the headers of {_short([value.workflow_id for value in values if isinstance(value, Header)])}"
    return _short(values)


def _short(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 3]}..."
