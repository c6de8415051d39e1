"""The codec of values: what it takes comes back as it was, and what it does not take is refused by name."""

import copy
import enum
import json
import math
import sys
import zoneinfo
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dotmac_workflows.errors import (
    JournalCorruptError,
    PayloadTooLargeError,
    ResultNotSerializableError,
    WorkflowConfigurationError,
)
from dotmac_workflows.values import Codec, CodecType

CODEC = Codec()
BERLIN = "Europe/Berlin"
needs_zones = pytest.mark.skipif(
    BERLIN not in zoneinfo.available_timezones(), reason="this machine has no time zone database"
)


def identity(value: Any) -> Any:
    """Return what tells a value from every other, types and all, in a form that == compares."""
    kind = type(value)
    if kind is dict:
        return kind, [(key, identity(item)) for key, item in value.items()]
    if kind in (list, tuple):
        return kind, [identity(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted(repr(identity(item)) for item in value)
    if kind is Decimal:
        return kind, value.as_tuple()
    if kind in (datetime, time):
        zone = value.tzinfo
        return kind, value.isoformat(), value.fold, type(zone), getattr(zone, "key", None)
    return kind, repr(value)


def assert_round_trip(value: dict[str, Any], codec: Codec = CODEC) -> str:
    before = identity(value)
    text = codec.encode(value, "data")
    assert text.isascii()
    again = codec.decode(text)
    assert identity(again) == before
    assert identity(value) == before
    assert codec.encode(again, "data") == text
    return text


def refused(value: Any, codec: Codec = CODEC) -> ResultNotSerializableError:
    with pytest.raises(ResultNotSerializableError) as caught:
        codec.encode(value, "data")
    assert caught.value.path is not None
    assert str(caught.value).startswith(caught.value.path + " ")
    return caught.value


def nested(depth: int, value: Any = None) -> Any:
    for _ in range(depth):
        value = [value]
    return value


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


@dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str


MONEY = CodecType(Money, "money", lambda m: [m.amount, m.currency], lambda j: Money(*j))


# What is accepted, and how it is written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-(2**70), "-1180591620717411303424"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        ("", '""'),
        ("a\0\x7f\n\"\\", '"a\\u0000\\u007f\\n\\"\\\\"'),
        ("grün 😀", '"gr\\u00fcn \\ud83d\\ude00"'),
        ("\ud800", '"\\ud800"'),
        ("\udc00\ud800", '"\\udc00\\ud800"'),
        ([], "[]"),
        ([1, [2, []]], "[1,[2,[]]]"),
        ({}, "{}"),
        ({"b": 1, "a": {"c": None}}, '{"b":1,"a":{"c":null}}'),
        ((), '{"$":["tuple",[]]}'),
        ((1, (2,)), '{"$":["tuple",[1,{"$":["tuple",[2]]}]]}'),
        (set(), '{"$":["set",[]]}'),
        ({"b", "a", "c"}, '{"$":["set",["a","b","c"]]}'),
        (frozenset({2, "2", None}), '{"$":["frozenset",["2",2,null]]}'),
        ({(2, 1), (1, 2)}, '{"$":["set",[{"$":["tuple",[1,2]]},{"$":["tuple",[2,1]]}]]}'),
        (Decimal("1.50"), '{"$":["decimal","1.50"]}'),
        (Decimal("-0E-7"), '{"$":["decimal","-0E-7"]}'),
        (Decimal("1E+999999"), '{"$":["decimal","1E+999999"]}'),
        (UUID(int=5), '{"$":["uuid","00000000-0000-0000-0000-000000000005"]}'),
        (b"", '{"$":["bytes",""]}'),
        (b"\0\xff", '{"$":["bytes","AP8="]}'),
        (date(2026, 7, 1), '{"$":["date","2026-07-01"]}'),
        (timedelta(days=-1, hours=1, microseconds=5), '{"$":["timedelta",[-1,3600,5]]}'),
        (timedelta.max, '{"$":["timedelta",[999999999,86399,999999]]}'),
        (time(12, 30), '{"$":["time","12:30:00"]}'),
        (time(12, 30, fold=1), '{"$":["time",["12:30:00",null,1]]}'),
        (time(1, 2, 3, 4, UTC), '{"$":["time","01:02:03.000004+00:00"]}'),
        (datetime.min, '{"$":["datetime","0001-01-01T00:00:00"]}'),
        (datetime(2026, 7, 1, 12, 0, 0, 5), '{"$":["datetime","2026-07-01T12:00:00.000005"]}'),
        (datetime(2026, 7, 1, fold=1), '{"$":["datetime",["2026-07-01T00:00:00",null,1]]}'),
        (datetime(2026, 7, 1, tzinfo=UTC), '{"$":["datetime","2026-07-01T00:00:00+00:00"]}'),
        (
            datetime(2026, 7, 1, tzinfo=timezone(-timedelta(hours=3, seconds=7, microseconds=9))),
            '{"$":["datetime","2026-07-01T00:00:00-03:00:07.000009"]}',
        ),
        ({"$": 1}, '{"$":["dict",{"$":1}]}'),
        ({"$": ["tuple", [1]]}, '{"$":["dict",{"$":["tuple",[1]]}]}'),
        ({"a": (), "$": {"$": ()}}, '{"$":["dict",{"a":{"$":["tuple",[]]},"$":{"$":["dict",{"$":'
         '{"$":["tuple",[]]}}]}}]}'),
        ({"$$": 1, "$ ": "$"}, '{"$$":1,"$ ":"$"}'),
    ],
    ids=repr,
)  # fmt: skip
def test_written_form(value: Any, written: str) -> None:
    assert assert_round_trip({"value": value}) == '{"value":' + written + "}"


def test_the_reserved_key_at_the_top() -> None:
    assert assert_round_trip({"$": ["set", []]}) == '{"$":["dict",{"$":["set",[]]}]}'


def test_empty() -> None:
    assert CODEC.encode({}, "data") == "{}"
    first, second = CODEC.decode("{}"), CODEC.decode("{}")
    assert first == {} == second
    assert first is not second


@needs_zones
@pytest.mark.parametrize("fold", [0, 1])
def test_a_zone_comes_back_as_the_zone(fold: int) -> None:
    doubled = datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo(BERLIN), fold=fold)
    text = assert_round_trip({"at": doubled, "daily": time(8, tzinfo=zoneinfo.ZoneInfo(BERLIN))})
    offset = "+01:00" if fold else "+02:00"
    assert f'["datetime",["2026-10-25T02:30:00{offset}","Europe/Berlin",{fold}]]' in text
    again = CODEC.decode(text)["at"]
    assert again.tzinfo is doubled.tzinfo
    assert (again + timedelta(hours=6)).isoformat() == (doubled + timedelta(hours=6)).isoformat()


def test_a_name_of_an_offset_is_not_kept_and_the_instant_is() -> None:
    named = datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=2), "CEST"))
    again = CODEC.decode(CODEC.encode({"at": named}, "data"))["at"]
    assert again == named
    assert again.utcoffset() == timedelta(hours=2)


def test_the_context_of_decimals_changes_nothing() -> None:
    with localcontext(Context(prec=2, Emax=3, Emin=-3, capitals=0, traps=[])):
        assert_round_trip({"value": Decimal("123.4567E-90")})
        with pytest.raises(JournalCorruptError):
            CODEC.decode('{"value":{"$":["decimal","twelve"]}}')


def test_whatever_shares_a_member_is_written_in_full() -> None:
    shared = (1,)
    again = CODEC.decode(CODEC.encode({"a": [shared, shared]}, "data"))
    assert again == {"a": [(1,), (1,)]}


def test_a_decoded_value_is_a_copy() -> None:
    value = {"items": [{"tags": {"a"}}], "plain": [1]}
    text = CODEC.encode(value, "data")
    CODEC.decode(text)["items"][0]["tags"].add("b")
    again = CODEC.decode(text)
    assert again == value
    assert again["plain"] is not value["plain"]


_finite = st.floats(allow_nan=False, allow_infinity=False)
_offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
_zones: st.SearchStrategy[tzinfo | None] = (
    st.none()
    | st.just(UTC)
    # What is less than a second is refused, which has a test of its own.
    | _offsets.filter(lambda offset: not offset or abs(offset) >= timedelta(seconds=1)).map(timezone)
)
if BERLIN in zoneinfo.available_timezones():
    _zones |= st.sampled_from([BERLIN, "Asia/Kathmandu", "UTC"]).map(zoneinfo.ZoneInfo)


def _folded(moment: Any, fold: int) -> Any:
    return moment.replace(fold=fold)


_text = st.text(st.characters(exclude_categories=()) | st.sampled_from("$\0é😀\ud800"), max_size=8).filter(
    # What is refused: a high and a low surrogate side by side. UTF-16 has no other reading of them either.
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == text
)
_hashable_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**700), 10**700)
    | _finite
    | _text
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.builds(_folded, st.datetimes(timezones=_zones), st.integers(0, 1))
    | st.builds(_folded, st.times(timezones=_zones), st.integers(0, 1))
)
_hashable = st.recursive(
    _hashable_scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
_values = st.recursive(
    _hashable | st.sets(_hashable, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=8,
)
_data = st.dictionaries(_text, _values, max_size=3)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(_data)
def test_every_value_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert_round_trip(value)


# What is refused


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "data.value is nan, which JSON cannot hold. Store None or a string instead."),
        (-math.inf, "data.value is -inf, which JSON cannot hold. Store None or a string instead."),
        (Decimal("NaN"), "data.value is Decimal NaN, which is no number. Store None or a string instead."),
        (Decimal("sNaN"), "data.value is Decimal sNaN, which is no number. Store None or a string instead."),
        (
            Decimal("-Infinity"),
            "data.value is Decimal -Infinity, which is no number. Store None or a string instead.",
        ),
        (
            object(),
            "data.value is of type object, which a journal cannot hold. Store what it is made of, or register object "
            "with a Codec.",
        ),
        (
            Colour.RED,
            "data.value is of type Colour, which a journal cannot hold. Store what it is made of, or register Colour "
            "with a Codec.",
        ),
        (
            Level.LOW,
            "data.value is of type Level, which would come back as a plain int. Convert it to int, or register Level "
            "with a Codec.",
        ),
        (
            Word("a"),
            "data.value is of type Word, which would come back as a plain str. Convert it to str, or register Word "
            "with a Codec.",
        ),
        (
            Point(1, 2),
            "data.value is of type Point, which would come back as a plain tuple. Convert it to tuple, or register "
            "Point with a Codec.",
        ),
        (
            OrderedDict(a=1),
            "data.value is of type OrderedDict, which would come back as a plain dict. Convert it to dict, or register "
            "OrderedDict with a Codec.",
        ),
        (
            {1: "a", "1": "b"},
            "data.value has a key of type int, and JSON has plain strings only. Make its keys str.",
        ),
        ({None: 1}, "data.value has a key of type NoneType, and JSON has plain strings only. Make its keys str."),
        ({True: 1}, "data.value has a key of type bool, and JSON has plain strings only. Make its keys str."),
        ({Word("a"): 1}, "data.value has a key of type Word, and JSON has plain strings only. Make its keys str."),
        (
            10**4300,
            "data.value is an int of more digits than can be read back (4,300 at most). Store hex() of it instead.",
        ),
        (
            -(10**4300),
            "data.value is an int of more digits than can be read back (4,300 at most). Store hex() of it instead.",
        ),
        (
            "\ud83d\ude00",
            "data.value holds a character as two surrogates side by side, which would come back as one. Join them by "
            "encode('utf-16', 'surrogatepass').decode('utf-16').",
        ),
    ],
    ids=["nan", "inf", "dnan", "snan", "dinf", "object", "enum", "intenum", "str", "namedtuple", "ordered",
         "int key", "None key", "bool key", "str key", "int", "negative int", "surrogates"],
)  # fmt: skip
def test_refusals(value: Any, message: str) -> None:
    error = refused({"value": value})
    assert str(error) == message
    assert error.path == "data.value"
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"items": [{}, {}, {}, {"price": math.nan}]}, "data.items[3].price"),
        ({"odd key": math.nan}, 'data["odd key"]'),
        ({"": [math.nan]}, 'data[""][0]'),
        ({"$": math.nan}, 'data["$"]'),
        ({"größe": math.nan}, "data.größe"),
        ({'a"\n\u202e': math.nan}, 'data["a\\"\\n\\u202e"]'),
        ({"k" + "-" * 100: math.nan}, 'data["k' + "-" * 56 + '..."]'),
        ({"ok": 1, "pair": (1, [2, (3, math.nan)])}, "data.pair[1][1][1]"),
        ({"tags": {1.5, math.nan}}, "data.tags{*}"),
        ({"tags": frozenset({(1, math.inf)})}, "data.tags{*}[1]"),
        ({"a": {"b": {1: 2}}}, "data.a.b"),
        ({1: 2}, "data"),
        ({"a": 1, "\ud83d\ude00": 2}, 'data["\\ud83d\\ude00"]'),
        ({"a": ["", "\ud83d\ude00"], "b": ()}, "data.a[1]"),
        ({"a": {"at": datetime.max}, "b": [10**5000]}, "data.b[0]"),
    ],
)
def test_the_path_leads_to_it(value: dict[Any, Any], path: str) -> None:
    assert refused(value).path == path


@pytest.mark.parametrize("value", [None, [], "text", 5, (), OrderedDict(a=1)])
def test_the_value_itself_must_be_a_dict(value: Any) -> None:
    error = refused(value)
    assert error.path == "data"
    assert "dict" in str(error)


class NoZone(tzinfo):
    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        return timedelta(0)

    def dst(self, dt: datetime | None) -> timedelta | None:
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        return "nowhere"


def test_a_zone_of_ones_own_is_refused() -> None:
    error = refused({"at": datetime(2026, 7, 1, tzinfo=NoZone())})
    assert str(error) == (
        "data.at has a time zone of type NoZone that cannot be made again. Use a datetime.timezone or a "
        "zoneinfo.ZoneInfo of a key, or astimezone(timezone.utc)."
    )
    assert refused({"at": [time(1, tzinfo=NoZone())]}).path == "data.at[0]"


@pytest.mark.parametrize("microseconds", [1, -1, 999_999, -999_999])
def test_an_offset_that_would_be_lost_is_refused(microseconds: int) -> None:
    zone = timezone(timedelta(microseconds=microseconds))
    for moment in (datetime(2026, 7, 1, tzinfo=zone), time(1, tzinfo=zone)):
        assert str(refused({"at": moment})) == (
            "data.at is off UTC by less than a second, which would come back as UTC. Use timezone.utc."
        )


@needs_zones
def test_a_zone_without_a_key_is_refused() -> None:
    import io

    # The smallest zone file there is: version 1, one type, UTC.
    empty = b"TZif\0" + bytes(15) + b"".join(n.to_bytes(4, "big") for n in (0, 0, 0, 0, 1, 4)) + bytes(6) + b"UTC\0"
    zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(empty))
    assert "time zone of type ZoneInfo" in str(refused({"at": datetime(2026, 7, 1, tzinfo=zone)}))


def _cycles() -> Iterator[tuple[dict[str, Any], str]]:
    value: dict[str, Any] = {}
    value["self"] = value
    yield value, "data.self"
    items: list[Any] = [1]
    items.append(items)
    yield {"items": items}, "data.items[1]"
    inner: list[Any] = []
    inner.append((1, inner))
    yield {"items": inner}, "data.items[0][1]"


@pytest.mark.parametrize(("value", "path"), list(_cycles()), ids=["dict", "list", "tuple"])
def test_cycles(value: dict[str, Any], path: str) -> None:
    error = refused(value)
    assert error.path == path
    assert str(error) == f"{path} contains itself. Store a copy without the cycle, or an id to find it by."


def test_ints_up_to_the_limit_of_digits() -> None:
    assert_round_trip({"value": 10**4300 - 1, "negative": 1 - 10**4300})


@pytest.fixture
def digits() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("digits")
def test_ints_where_the_process_has_another_limit() -> None:
    text = CODEC.encode({"value": 10**1000}, "data")
    sys.set_int_max_str_digits(640)
    assert_round_trip({"value": 10**639})
    assert refused({"value": 10**1000}).path == "data.value"
    with pytest.raises(JournalCorruptError, match="set_int_max_str_digits"):
        CODEC.decode(text)
    sys.set_int_max_str_digits(0)
    assert refused({"value": 10**4300}).path == "data.value"


# Depth


def _deep_dict(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def _deep_tuple(depth: int) -> Any:
    value: Any = ()
    for _ in range(depth):
        value = (value,)
    return value


@pytest.mark.parametrize("value", [nested(98, []), _deep_dict(98), _deep_tuple(98), nested(98, Decimal(1))])
def test_a_hundred_levels_are_fine(value: Any) -> None:
    assert_round_trip({"value": value})


@pytest.mark.parametrize("value", [nested(99, []), _deep_dict(99), _deep_tuple(99), nested(99, Decimal(1))])
def test_more_are_refused(value: Any) -> None:
    error = refused({"value": value})
    assert "nests too deep, beyond 100 levels. Store it flat, or as a string of its own." in str(error)


def test_a_hundred_thousand_levels_are_refused_and_nothing_breaks() -> None:
    for value in (nested(100_000), _deep_dict(100_000), _deep_tuple(100_000)):
        assert "nests too deep" in str(refused({"value": value}))


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"$":["tuple",[', '{"$":["dict",{"a":', '{"$":['])
@pytest.mark.parametrize("depth", [2_000, 100_000])
def test_deep_texts(opening: str, depth: int) -> None:
    closing = "".join({"[": "]", "{": "}"}.get(char, "") for char in reversed(opening))
    for text in ('{"a":' + opening * depth, '{"a":' + opening * depth + "1" + closing * depth + "}"):
        try:
            CODEC.decode(text)  # a Python that reads so deep may do so
        except JournalCorruptError as error:
            assert "value" in str(error)  # noqa: PT017 - it may also be read


def test_a_caller_who_is_deep_in_its_stack_gets_the_same_errors() -> None:
    value = {"value": nested(90, (1,))}
    text = CODEC.encode(value, "data")
    raised = set()

    def descend(left: int) -> None:
        if left:
            return descend(left - 1)
        for call in (lambda: CODEC.encode(value, "data"), lambda: CODEC.decode(text)):
            try:
                call()
            except Exception as error:
                raised.add(type(error))

    for depth in range(sys.getrecursionlimit() - 500, sys.getrecursionlimit() - 150, 10):
        descend(depth)
    assert raised == {ResultNotSerializableError, JournalCorruptError}


# Size


def test_the_limit_is_in_bytes_of_text() -> None:
    codec = Codec(max_bytes=20)
    assert codec.encode({"a": "x" * 12}, "data") == '{"a":"xxxxxxxxxxxx"}'
    with pytest.raises(PayloadTooLargeError) as caught:
        codec.encode({"a": "x" * 13}, "approval")
    error = caught.value
    assert (error.path, error.size, error.limit) == ("approval", 21, 20)
    assert str(error) == (
        "approval is 21 bytes of JSON, and the limit is 20. Keep the content elsewhere and its address here, or give "
        "the Codec a larger max_bytes."
    )
    assert codec.encode({"a": "éé"}, "data") == '{"a":"\\u00e9\\u00e9"}'
    with pytest.raises(PayloadTooLargeError):
        codec.encode({"a": "ééé"}, "data")


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(_data)
def test_no_value_is_refused_whose_text_is_within_the_limit(value: dict[str, Any]) -> None:
    text = CODEC.encode(value, "data")
    assert Codec(max_bytes=max(2, len(text))).encode(value, "data") == text
    if len(text) > 2:
        with pytest.raises(PayloadTooLargeError):
            Codec(max_bytes=len(text) - 1).encode(value, "data")


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100_000_000,
        b"x" * 100_000_000,
        [None] * 10_000_000,
        (None,) * 10_000_000,
        ["x" * 1_000_000] * 10,
        {"x" * 2_000_000: 1},
    ],
    ids=["str", "bytes", "list", "tuple", "strings", "key"],
)
def test_what_is_huge_is_refused_before_it_is_written(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dotmac_workflows.values._dump", None)
    monkeypatch.setattr("dotmac_workflows._built_in_types.b64encode", None)
    with pytest.raises(PayloadTooLargeError, match=r"^data is at least [\d,]+ bytes of JSON") as caught:
        CODEC.encode({"value": value}, "data")
    assert caught.value.size is not None
    assert caught.value.size > 1024 * 1024 == caught.value.limit


@pytest.mark.parametrize("wrap", [list, tuple])
def test_lists_that_share_their_members_end(wrap: Any) -> None:
    value: Any = wrap([1])
    for _ in range(60):
        value = wrap([value, value])
    with pytest.raises(PayloadTooLargeError):
        Codec(max_bytes=10_000).encode({"value": value}, "data")


# Registered types


def test_a_registered_type() -> None:
    codec = Codec([MONEY])
    value = {"price": Money(Decimal("9.90"), "EUR"), "all": [(Money(Decimal(1), "CHF"),)]}
    text = assert_round_trip(value, codec)
    assert text.startswith('{"price":{"$":["money",[{"$":["decimal","9.90"]},"EUR"]]}')
    assert codec.decode(text) == value
    assert refused(value).path == "data.price"
    with pytest.raises(ResultNotSerializableError) as caught:
        CODEC.decode(text)
    assert caught.value.path == "value.price"
    assert str(caught.value) == (
        'value.price has the tag "money", which this Codec does not know. Read it with the class or the Codec that '
        "registers it."
    )


def test_registered_subclasses_of_built_in_types() -> None:
    codec = Codec(
        [
            CodecType(Level, "level", int, Level),
            CodecType(Colour, "colour", lambda c: c.value, Colour),
            CodecType(Point, "point", list, lambda j: Point(*j)),
            CodecType(OrderedDict, "ordered", lambda d: list(d.items()), OrderedDict),
            CodecType(Word, "word", str, Word),
            CodecType(PurePosixPath, "path", str, PurePosixPath),
        ]
    )
    value: dict[str, Any] = OrderedDict(
        a=Level.LOW, b=Colour.RED, c=Point(1, 2), d=OrderedDict(z=1), e=Word("w"), f=PurePosixPath("/a")
    )
    again = codec.decode(codec.encode(value, "data"))
    assert again == value
    assert [type(item) for item in again.values()] == [type(item) for item in value.values()]
    assert type(again) is OrderedDict


def _failing(_: Any) -> Any:
    raise KeyError("why")


@pytest.mark.parametrize("error_type", [KeyError, RecursionError, MemoryError])
def test_to_json_that_raises(error_type: type[Exception]) -> None:
    def to_json(_: Any) -> Any:
        raise error_type("why")

    error = refused({"a": [Money(Decimal(1), "EUR")]}, Codec([CodecType(Money, "money", to_json, _failing)]))
    assert error.path == "data.a[0]"
    assert str(error) == (
        f"data.a[0] is a Money whose to_json raised {error_type.__name__}. Mend the CodecType that registers Money."
    )
    assert type(error.__cause__) is error_type


def test_from_json_that_raises_or_returns_something_else() -> None:
    text = '{"a":[{"$":["money",1]}]}'
    with pytest.raises(ResultNotSerializableError) as caught:
        Codec([CodecType(Money, "money", _failing, _failing)]).decode(text, "metadata")
    assert caught.value.path == "metadata.a[0]"
    assert str(caught.value) == (
        "metadata.a[0] is a Money whose from_json raised KeyError. Mend the CodecType that registers Money."
    )
    assert type(caught.value.__cause__) is KeyError
    with pytest.raises(ResultNotSerializableError) as caught:
        Codec([CodecType(Money, "money", _failing, str)]).decode(text)
    assert str(caught.value) == (
        "value.a[0] is a Money whose from_json returned a str. Mend the CodecType that registers Money."
    )


def test_to_json_must_lead_to_something_that_is_accepted() -> None:
    def codec(to_json: Any) -> Codec:
        return Codec([CodecType(Money, "money", to_json, _failing)])

    value = {"a": Money(Decimal(1), "EUR")}
    assert refused(value, codec(lambda m: {"b": [math.nan]})).path == "data.a.b[0]"
    assert "contains itself" in str(refused(value, codec(lambda m: m)))
    assert "too deep" in str(refused(value, codec(lambda m: Money(Decimal(1), "EUR"))))


def test_the_reserved_key_in_what_to_json_returned() -> None:
    codec = Codec([CodecType(Colour, "colour", lambda c: {"$": [c.value]}, lambda j: Colour(j["$"][0]))])
    assert_round_trip({"a": Colour.RED}, codec)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([MONEY, MONEY], "Money is registered twice. Leave one of the two out."),
        (
            [MONEY, CodecType(Colour, "money", str, Colour)],
            "The tag 'money' is given to Money and to Colour. Rename one.",
        ),
        (
            [CodecType(Money, "tuple", str, _failing)],
            "The tag 'tuple' of Money is built in. Choose another one, such as 'acme.tuple'.",
        ),
        (
            [CodecType(Money, "dict", str, _failing)],
            "The tag 'dict' of Money is built in. Choose another one, such as 'acme.dict'.",
        ),
        (
            [CodecType(Decimal, "money", str, Decimal)],
            "Decimal is built in. Leave it out, or register a class of your own.",
        ),
        (
            [CodecType(bool, "money", str, bool)],
            "bool is built in. Leave it out, or register a class of your own.",
        ),
        ([CodecType(Money, "", str, _failing)], "The tag of Money is ''. Give it a non-empty, printable str."),
        (
            [CodecType(Money, "\ud800", str, _failing)],
            "The tag of Money is '\\ud800'. Give it a non-empty, printable str.",
        ),
        (
            [CodecType(Money, 5, str, _failing)],  # type: ignore[arg-type]  # what is refused
            "The tag of Money is 5. Give it a non-empty, printable str.",
        ),
        (
            [CodecType("Money", "money", str, _failing)],  # type: ignore[arg-type]  # what is refused
            "CodecType.type is 'Money', which is no class. Give the class itself.",
        ),
        (
            [CodecType(Money, "money", None, _failing)],  # type: ignore[arg-type]  # what is refused
            "to_json and from_json of Money must be functions of one argument.",
        ),
        (["money"], "A Codec takes CodecType objects, not 'money'."),
    ],
)
def test_wrong_registrations(entries: Any, message: str) -> None:
    with pytest.raises(WorkflowConfigurationError) as caught:
        Codec(entries)
    assert str(caught.value) == message


@pytest.mark.parametrize("max_bytes", [0, 1, -5, True, 10.0, None, "1"])
def test_wrong_limits(max_bytes: Any) -> None:
    with pytest.raises(WorkflowConfigurationError, match=r"^max_bytes is .*Give a number of bytes, 2 or more\.$"):
        Codec(max_bytes=max_bytes)


def test_codecs_know_nothing_of_each_other() -> None:
    Codec([MONEY])
    assert refused({"a": Money(Decimal(1), "EUR")}).path == "data.a"


# Texts that nobody encoded


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"a":1}x',
        "{'a':1}",
        '\ufeff{"a":1}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        '{"a":1e999}',
        '{"a":-1e999}',
        '{"a":1,"a":2}',
        '{"a":[{"b":1,"b":1}]}',
        '{"a":"\\ud8"}',
        '{"a":"\n"}',
        '{"a":' + "9" * 4301 + "}",
        "null",
        "[]",
        "1",
        '"{}"',
        '{"$":["tuple",[]]}',
    ],
)
def test_malformed_texts(text: str) -> None:
    with pytest.raises(JournalCorruptError, match=r"^value .*Restore the store from a backup\.$") as caught:
        CODEC.decode(text)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "tagged",
    [
        "null",
        "[]",
        '"tuple"',
        '["tuple"]',
        '["tuple",[],1]',
        "[1,[]]",
        "[[],[]]",
        '["tuple",[]],"a":1',
        '["tuple","abc"]',
        '["tuple",{}]',
        '["tuple",{"$":["tuple",[]]}]',
        '["set",[1,1]]',
        '["set",[[]]]',
        '["set","ab"]',
        '["frozenset",[1,1.0]]',
        '["dict",[]]',
        '["dict",null]',
        '["dict",{"$":["dict",{"a":{"$":1}}]}]',
        '["decimal",1]',
        '["decimal",1.5]',
        '["decimal","NaN"]',
        '["decimal","Infinity"]',
        '["decimal","x"]',
        '["decimal",[0,[1],0]]',
        '["uuid",1]',
        '["uuid","x"]',
        '["bytes",1]',
        '["bytes","a"]',
        '["bytes","AA==!"]',
        '["bytes","\\u00e9"]',
        '["date","2026-02-30"]',
        '["date",1]',
        '["time","25:00"]',
        '["time",["12:00",null]]',
        '["timedelta","123"]',
        '["timedelta",[1e300,0,0]]',
        '["timedelta",[1,"2",3]]',
        '["datetime","yesterday"]',
        '["datetime",1]',
        '["datetime",{"a":1}]',
        '["datetime",["2026-07-01T00:00:00",null,2]]',
        '["datetime",["2026-07-01T00:00:00",5,0]]',
        '["datetime",["2026-07-01T00:00:00","../../../etc/passwd",0]]',
        '["datetime",["2026-07-01T00:00:00","/etc/passwd",0]]',
    ],
)
def test_damaged_tags(tagged: str) -> None:
    with pytest.raises(JournalCorruptError, match=r"^value\.a\[0\].* Restore the store from a backup\.$"):
        CODEC.decode('{"a":[{"$":' + tagged + "}]}")


@pytest.mark.parametrize("tag", ["money", "os.system", "builtins.eval", "Tuple", "", "\ud800", "x" * 1000])
def test_unknown_tags(tag: str) -> None:
    with pytest.raises(ResultNotSerializableError) as caught:
        CODEC.decode(json.dumps({"a": [{"b": {"$": [tag, []]}}]}))
    assert caught.value.path == "value.a[0].b"
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("key", ["Atlantis/Capital", "America", "\ud800"])
def test_a_zone_that_the_machine_does_not_know(key: str) -> None:
    with pytest.raises(ResultNotSerializableError) as caught:
        CODEC.decode(json.dumps({"at": {"$": ["datetime", ["2026-07-01T00:00:00+00:00", key, 0]]}}))
    assert str(caught.value) == (
        f"value.at is in the time zone {json.dumps(key)}, which this machine does not know. Install the tzdata package."
    )


def test_a_zone_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def zone(key: str) -> tzinfo:
        raise IsADirectoryError(key)  # what a key such as "America" gives where the tzdata package is installed

    monkeypatch.setattr(zoneinfo, "ZoneInfo", zone)
    with pytest.raises(ResultNotSerializableError, match=r"^value\.at is in the time zone \"America\"") as caught:
        CODEC.decode('{"at":{"$":["datetime",["2026-07-01T00:00:00","America",0]]}}')
    assert type(caught.value.__cause__) is IsADirectoryError


def test_a_tag_is_a_tag_however_it_is_escaped_and_laid_out() -> None:
    assert CODEC.decode('{ "a" : {"\\u0024": ["tuple", [ 1 ]] }\n}') == {"a": (1,)}


_tags = st.sampled_from(
    ["tuple", "set", "frozenset", "dict", "datetime", "date", "time", "timedelta", "decimal", "uuid", "bytes", "x"]
)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["2026-07-01", "2026-07-01T00:00:00", "1.5", "AAE=", BERLIN, "12:00"])
)
_almost = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$", "a"]), inner)
        | st.builds(lambda tag, payload: {"$": [tag, payload]}, _tags, inner)
    ),
    max_leaves=12,
)


def _assert_only_our_errors(text: str) -> None:
    try:
        value = CODEC.decode(text)
    except (JournalCorruptError, ResultNotSerializableError) as error:
        assert "value" in str(error)  # noqa: PT017 - it may also be read
    else:
        assert_round_trip(value)


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(["a", "$"]), _almost))
def test_what_looks_like_a_tag_gives_only_our_errors(value: dict[str, Any]) -> None:
    _assert_only_our_errors(json.dumps(value))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    _data,
    st.lists(st.tuples(st.integers(0, 10**6), st.characters(exclude_categories=())), min_size=1, max_size=3),
)
def test_damaged_texts_give_only_our_errors(value: dict[str, Any], damage: list[tuple[int, str]]) -> None:
    text = list(CODEC.encode(value, "data"))
    for place, char in damage:
        text[place % len(text)] = char
    _assert_only_our_errors("".join(text))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()) | st.sampled_from('{}[]",:$0')))
def test_any_text_gives_only_our_errors(text: str) -> None:
    _assert_only_our_errors(text)


def test_copying_what_is_encoded_leaves_the_original() -> None:
    value = {"a": [1, (2, {3})], "$": {"b": Decimal("1.0")}}
    before = copy.deepcopy(value)
    CODEC.encode(value, "data")
    assert value == before
