"""Journals that no engine wrote: rows changed at random, some of them as by somebody who can rewrite a whole store.

What is changed of a row: its kind, its instant, its body (a value in it replaced, left out, put in twice; its text cut
off, garbled, nested too deep, a number too large), its place, its digest. The digests stay as they are, and then the
first of them that is wrong must be noticed; or all are made anew, and then it is for the codec and the fold to make
sense of what they get, or to say in an error of ours that they cannot.
"""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dotmac_workflows._core import codec
from dotmac_workflows._run.journal import digest_of
from dotmac_workflows.persistence import Record

WORKFLOW_ID = "order-42"
GOLDEN = Path(__file__).parents[1] / "golden"


class Fuzzed(NamedTuple):
    """A journal with changed rows."""

    records: list[Record]
    is_sealed: bool
    """Whether its digests are right."""
    rows: int
    """How many rows were changed."""


def journals() -> list[list[Record]]:
    """Return the golden journals, which together hold every event."""
    return [
        [Record(**row) for row in json.loads(path.read_text(encoding="ascii"))["records"]]
        for path in sorted(GOLDEN.glob("v*/*.json"))
        if path.stem not in ("store", "in_a_time_zone")  # which not every machine can read
    ]


def fuzz(chance: random.Random, originals: Sequence[Sequence[Record]]) -> Fuzzed:
    """Return a journal, or the beginning of one, with one to three rows changed."""
    original = list(chance.choice(originals))
    if chance.random() < 0.7:
        original = original[: chance.randrange(1, len(original) + 1)]
    while True:
        records, rows = list(original), chance.choice((1, 1, 1, 2, 3))
        is_sealed = chance.random() < 0.7
        for _ in range(rows):
            _change(chance, records, originals, is_sealed)
        if is_sealed:
            return Fuzzed(sealed(WORKFLOW_ID, records), all(map(has_digest, records)), rows)
        # The beginning of a journal is a journal, and so is what several changes made into that of another one.
        if not any(records == list(one[: len(records)]) for one in originals):
            return Fuzzed(records, False, rows)


def sealed(workflow_id: str, records: Sequence[Record]) -> list[Record]:
    """Number rows anew, and give them digests that are right, as somebody would who can rewrite the file."""
    digest = ""
    rows: list[Record] = []
    for seq, record in enumerate(records, 1):
        digest = digest_of(digest, workflow_id, seq, *record[1:4]) if has_digest(record) else ""
        rows.append(record._replace(seq=seq, digest=digest))
    return rows


def has_digest(record: Record) -> bool:
    """Tell whether it could have been written: it has no half of a pair of surrogates, which SQLite cannot hold."""
    try:
        "".join((record.kind, record.body, record.digest)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _change(
    chance: random.Random, records: list[Record], originals: Sequence[Sequence[Record]], is_sealed: bool
) -> None:
    place = chance.randrange(len(records))
    record = records[place]
    match chance.randrange(12 if is_sealed else 14):
        case 0 | 1 | 2 | 3:
            records[place] = record._replace(body=_with_other(chance, record.body))
        case 4 | 5 | 6:
            records[place] = record._replace(body=chance.choice(GARBLINGS)(chance, record.body))
        case 7:
            records[place] = record._replace(kind=chance.choice((*codec._READERS, *codec._READERS, *KINDS)))
        case 8:
            records[place] = record._replace(at=chance.choice(INSTANTS))
        case 9:
            del records[place]
            if not records:
                records.append(record)
        case 10:
            records.insert(place, chance.choice(chance.choice(originals)))
        case 11:
            other = chance.randrange(len(records))
            records[place], records[other] = records[other], record
        case 12:
            records[place] = record._replace(seq=chance.choice((0, -1, record.seq + 1, record.seq - 1, 2**63 - 1)))
        case _:
            records[place] = record._replace(digest=chance.choice(("", record.digest[:-1], record.digest.upper(), "é")))


# Bodies

STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63,
    10**30,
    1.5,
    -0.0,
    1e300,
    "",
    "reserve",
    "book",
    "continue",
    "running",
    "a\x00b",
    "\ud800",
    "\u202e\x1b[2J",
    "é" * 300,
    [],
    [[]],
    ["reserve"],
    ["reserve", "book", "send"],
    {},
    {"": None},
    {"success": True, "step": "book"},
    {"success": False, "step": "rollback_book", "error": "stuck"},
    {"success": True, "step": ["book"]},
    {"$": None},
    {"$": ["tuple", [1]]},
    {"$": ["tuple", "ab"]},
    {"$": ["set", [[], []]]},
    {"$": ["set", [{"$": ["set", []]}]]},
    {"$": ["dict", {"$": 5}]},
    {"$": ["decimal", "NaN"]},
    {"$": ["decimal", 7]},
    {"$": ["decimal", "1e999999999999999999"]},
    {"$": ["bytes", "AA"]},
    {"$": ["uuid", "6d1f"]},
    {"$": ["uuid", 5]},
    {"$": ["timedelta", [10**10, 0, 0]]},
    {"$": ["timedelta", [0] * 9]},
    {"$": ["date", "2026-13-01"]},
    {"$": ["time", "25:00"]},
    {"$": ["datetime", "yesterday"]},
    {"$": ["datetime", ["2026-10-25T02:30:00", "../../etc/passwd", 1]]},
    {"$": ["datetime", ["2026-10-25T02:30:00", "Nowhere/At_All", 7]]},
    {"$": ["datetime", ["2026-10-25T02:30:00", None, -1]]},
    {"$": ["datetime", []]},
    {"$": ["money", [1]]},
    {"$": [["tuple"], [1]]},
)
"""What stands where something else is expected."""

KINDS = ("", "Step_Succeeded", "step_succeeded ", "step_teleported", "\x1b[2J", "étape", "x" * 5000)
INSTANTS = (0, -1, 1, 2**62, -(2**62), 2**63 - 1, -(2**63), 253_402_300_800_000_000, -62_135_596_800_000_001)


def _with_other(chance: random.Random, body: str) -> str:
    try:
        return json.dumps(_other(chance, json.loads(body)))
    except (ValueError, RecursionError):  # it was changed already, into what is no JSON, or none that can be written
        return json.dumps(chance.choice(STRANGE))


def _other(chance: random.Random, value: Any) -> Any:
    """Return a value of which one part is another one."""
    if chance.random() < 0.1:
        return chance.choice(STRANGE)
    if isinstance(value, dict) and value:
        key = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {other: item for other, item in value.items() if other != key}
            case 1:
                return {**value, chance.choice(("", "$", "step", "extra", key.upper())): chance.choice(STRANGE)}
            case 2:
                return {**value, key: value[chance.choice(list(value))]}
        return {**value, key: _other(chance, value[key])}
    if isinstance(value, list) and value:
        place = chance.randrange(len(value))
        if chance.random() < 0.2:
            return [*value[:place], *value[place + 1 :]]
        return [*value[:place], _other(chance, value[place]), *value[place + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.5:
        return value + chance.choice((-1, 1, 2, 1000))
    return chance.choice(STRANGE)


def _cut(chance: random.Random, body: str) -> str:
    return body[: chance.randrange(len(body) + 1)]


def _with_character(chance: random.Random, body: str) -> str:
    place = chance.randrange(len(body) + 1)
    character = chance.choice(('"', "{", "}", "[", "]", ",", ":", "\\", "0", "-", ".", "e", " ", "\x00", "\ud800", "é"))
    return body[:place] + character + body[place + chance.randrange(2) :]


def _with_number(chance: random.Random, body: str) -> str:
    """Put a number that is none where a value stands."""
    number = chance.choice(("NaN", "-Infinity", "1e999", "9" * 4301, "9" * 4300, "-0", "01", "1.", "0x1", "1e-999"))
    return _with_value(chance, body, number)


def _nested(chance: random.Random, body: str) -> str:
    depth = chance.choice((99, 101, 1000, 50_000))
    begin, end = chance.choice((("[", "]"), ('{"a":', "}"), ('{"$":["tuple",[', "]]}")))
    middle = "" if begin == "[" else "1"
    return _with_value(chance, body, begin * depth + middle + end * chance.choice((depth, depth, 0)))


def _with_value(chance: random.Random, body: str, text: str) -> str:
    colons = [place for place, character in enumerate(body) if character == ":"]
    if not colons:
        return text
    place = chance.choice(colons) + 1
    ends = [found for found in (body.find(",", place), body.find("}", place)) if found >= 0]
    return body[:place] + text + body[min(ends, default=len(body)) :]


def _doubled(chance: random.Random, body: str) -> str:
    inner = body[1:-1]
    return "{" + inner + "," + inner + "}" if inner else body * 2


GARBLINGS: tuple[Callable[[random.Random, str], str], ...] = (
    _cut,
    _with_character,
    _with_character,
    _with_number,
    _nested,
    _doubled,
    lambda chance, body: chance.choice(("", " ", "null", "{}", "[]", '"text"', "1", "\ufeff" + body, body + body)),
    lambda chance, body: f" \n{body}\t",
    lambda chance, body: body.replace("e", "\\u0065", 1),
)
