"""The types that JSON lacks and every codec knows: how each is taken apart and put together.

Their written form is part of the journal format, shown in `dotmac_workflows.values`. Imported when a value first
needs one, or a type is registered: `decimal`, `uuid` and `datetime` would double the time of importing the package.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from ._value_types import DICT_TAG, CodecType, RefusedError, shown

Moment = TypeVar("Moment", datetime, time)


def _decimal_to_json(value: Decimal) -> str:
    if not value.is_finite():
        raise RefusedError(f"is Decimal {value}, which is no number. Store None or a string instead.")
    return str(value)


def _decimal_from_json(payload: str) -> Decimal:
    # A context that traps nothing makes a NaN of what is no number.
    value = Decimal(payload)
    if type(payload) is not str or not value.is_finite():
        raise ValueError("not a finite number")
    return value


def _moment_to_json(value: datetime | time) -> str | list[Any]:
    zone, key = value.tzinfo, None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        if offset and abs(offset) < timedelta(seconds=1):  # fromisoformat makes UTC of it (seen in 3.11 to 3.13)
            raise RefusedError("is off UTC by less than a second, which would come back as UTC. Use timezone.utc.")
    elif zone is not None:
        from zoneinfo import ZoneInfo  # here, because most processes get by without its 3 ms

        key = zone.key if type(zone) is ZoneInfo else None
        if key is None:
            raise RefusedError(
                f"has a time zone of type {type(zone).__qualname__} that cannot be made again. Use a datetime.timezone "
                "or a zoneinfo.ZoneInfo of a key, or astimezone(timezone.utc)."
            )
    return [value.isoformat(), key, value.fold] if key or value.fold else value.isoformat()


def _moment_from_json(kind: type[Moment]) -> Callable[[Any], Moment]:
    def from_json(payload: Any) -> Moment:
        if type(payload) is str:
            return kind.fromisoformat(payload)
        text, key, fold = payload
        moment = kind.fromisoformat(text).replace(fold=fold)
        return moment if key is None else moment.replace(tzinfo=_zone(key))

    return from_json


def _zone(key: str) -> Any:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, OSError) as error:  # OSError: a key that is a directory
        raise RefusedError(
            f"is in the time zone {shown(key)}, which this machine does not know. Install the tzdata package.", error
        ) from error


def _members(payload: Any) -> list[Any]:
    if type(payload) is not list:  # a str has members, too
        raise TypeError("not a list")
    return payload


def _set_from_json(kind: type) -> Callable[[Any], Any]:
    def from_json(payload: Any) -> Any:
        value = kind(_members(payload))
        if len(value) != len(payload):
            raise ValueError("a member is there twice")
        return value

    return from_json


BUILT_IN: tuple[CodecType[Any], ...] = (
    CodecType(tuple, "tuple", list, lambda payload: tuple(_members(payload))),
    CodecType(set, "set", list, _set_from_json(set)),
    CodecType(frozenset, "frozenset", list, _set_from_json(frozenset)),
    CodecType(datetime, "datetime", _moment_to_json, _moment_from_json(datetime)),
    CodecType(date, "date", date.isoformat, date.fromisoformat),
    CodecType(time, "time", _moment_to_json, _moment_from_json(time)),
    CodecType(
        timedelta,
        "timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda payload: timedelta(*_members(payload)),
    ),
    CodecType(Decimal, "decimal", _decimal_to_json, _decimal_from_json),
    CodecType(UUID, "uuid", str, UUID),
    CodecType(
        bytes, "bytes", lambda value: b64encode(value).decode(), lambda payload: b64decode(payload, validate=True)
    ),
)
BUILT_IN_TYPES = frozenset(entry.type for entry in BUILT_IN)
BUILT_IN_TAGS = frozenset(entry.tag for entry in BUILT_IN) | {DICT_TAG}
