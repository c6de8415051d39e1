"""Text that fits a picture: on one line, cut to the room there is, and durations in words."""

import unicodedata

_LONGEST = 400  # characters of a text that are looked at: more never fits
_JOINERS = "\u200c\u200d"  # print nothing, but scripts and emoji are spelt with them
_NARROW = frozenset("iljftrI.,:;'|!()[]/\\- \"·")
_BROAD = frozenset("mwMW@%&…—–→")  # noqa: RUF001 - it is the dash that is meant


def one_line(text: str) -> str:
    """Return a text on one line, without control characters and what turns the direction of writing."""
    shown = (" " if c.isspace() else c for c in text[:_LONGEST] if c.isspace() or _prints(c))
    return " ".join("".join(shown).split())


def _prints(character: str) -> bool:
    return unicodedata.category(character)[0] != "C" or character in _JOINERS


def width(text: str) -> float:
    """Return how wide a text is at most, in ems, in the broadest of the usual sans-serif fonts."""
    return sum(map(_em, text))


def _em(character: str) -> float:
    if character in _NARROW:
        return 0.47
    if character in _BROAD:
        return 1.0
    if character.isascii():
        return 0.66 if character.islower() or character.isdigit() else 0.85
    if unicodedata.combining(character) or character in _JOINERS:
        return 0.0
    return 1.4 if unicodedata.east_asian_width(character) in "WF" else 1.05


def cut(text: str, room: float) -> str:
    """Return a text that is at most so many ems wide, its end replaced by … where it is wider."""
    if width(text) <= room:
        return text
    room -= 1.0  # for the …
    for place, character in enumerate(text):
        room -= _em(character)
        if room < 0:
            return text[:place].rstrip() + "…"
    return text


def duration(seconds: object) -> str:
    """Return a duration in at most two units; empty when it is none, as a record that was forged may have."""
    if not isinstance(seconds, int | float) or not seconds < 1e15:  # a NaN is not less, either
        return ""
    if seconds < 0.001:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
