"""Writing for people: a terminal's width and colours, and text that cannot take the terminal over.

Everything that is written passes through `clean`, whoever it comes from, so that a step's name or a message of
somebody's can neither move the cursor nor change what another line seems to say.
"""

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TextIO

# Readable on light and on dark: neither yellow nor blue.
_STYLES = {"good": "32", "bad": "31", "waits": "35", "dim": "2", "bold": "1"}
_ESCAPE_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, the cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC and its like: titles, links
    r"|\x1b[ -/]*[0-~]"
)
_GAP = "  "


def clean(text: str) -> str:
    """Return text on one line: escape sequences taken out, other characters that do not print shown as escapes."""
    if text.isprintable():
        return text
    return "".join(map(_printable, _ESCAPE_SEQUENCES.sub("", text)))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


class Styled(NamedTuple):
    """Text that is to stand out."""

    text: str
    style: str
    """``good``, ``bad``, ``waits``, ``dim``, ``bold``, or nothing."""


Part = str | Styled


class Terminal:
    """A stream for people. Once nobody reads it any more, what is written is dropped: a run goes on without readers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_terminal: bool = stream.isatty() and os.environ.get("TERM") != "dumb"
        """Whether a line can be begun and finished later."""
        self._colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self._begun = 0
        self.width: int | None = None
        """How many columns there are; None: as many as it takes, for it goes to a file or another program."""
        if self.is_terminal or os.environ.get("COLUMNS", "").isdecimal():
            self.width = max(40, shutil.get_terminal_size().columns)

    def line(self, *parts: Part) -> None:
        """Write a line."""
        self._end_begun()
        self._write("".join(map(self._painted, parts)).rstrip() + "\n")

    def prompt(self, *parts: Part) -> None:
        """Write the beginning of a line that somebody will finish."""
        self._write("".join(map(self._painted, parts)))

    @property
    def can_ask(self) -> bool:
        """Whether somebody sees this and can answer."""
        # A standard input that was closed before the start is None.
        return sys.stdin is not None and sys.stdin.isatty() and self._stream.isatty()

    def ask(self, *parts: Part) -> str:
        """Ask, and return the line that is answered; empty at the end of the input."""
        answer = ""
        try:
            self.prompt(*parts)
            answer = sys.stdin.readline()
        finally:
            if not answer.endswith("\n"):
                self.line()
        return answer.strip()

    def begin(self, text: str) -> None:
        """Show the beginning of a line, which the next one takes the place of; on a terminal only."""
        if self.is_terminal:
            self._end_begun()
            shown = clean(text)
            if self.width is not None and columns_of(shown) < self.width:
                self._begun = columns_of(shown)
                self._write(shown)

    def keep_begun(self) -> None:
        """Leave what was begun standing, and go on below it."""
        if self._begun:
            self._begun = 0
            self._write("\n")

    def table(self, table: "Table", rows: Iterable[Sequence[Part]]) -> None:
        """Write rows of a table."""
        for line in table.lines(rows):
            self.line(*line)

    def raw(self, text: str) -> None:
        """Write text that is safe as it is: JSON in ASCII."""
        self._write(text)

    def _end_begun(self) -> None:
        if self._begun:
            self._write("\r" + " " * self._begun + "\r")
            self._begun = 0

    def _painted(self, part: Part) -> str:
        text, style = part if isinstance(part, Styled) else (part, "")
        shown = clean(text)
        if not style or not self._colour or not shown.strip():
            return shown
        return f"\x1b[{_STYLES[style]}m{shown}\x1b[0m"

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except BrokenPipeError:
            # Python flushes again when it ends, and would complain.
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self._stream.fileno())
            os.close(devnull)


class Column(NamedTuple):
    """A column of a table."""

    title: str
    least: int = 0
    """The width that it may be squeezed to, its text wrapped; 0: it keeps its width."""
    right: bool = False
    """Whether its text stands at the right."""


class Table:
    """A table whose columns are as wide as the rows that it was made with need, and no wider than fits."""

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[Part]], width: int | None) -> None:
        self._columns = columns
        self._fits = width is not None
        self._widths = [len(column.title) for column in columns]
        for row in rows:
            for place, part in enumerate(row):
                self._widths[place] = max(self._widths[place], columns_of(_text(part)))
        if width is not None:
            self._squeeze(sum(self._widths) + len(_GAP) * (len(columns) - 1) - width)

    def _squeeze(self, excess: int) -> None:
        while excess > 0:
            room = [width if 0 < c.least < width else 0 for c, width in zip(self._columns, self._widths, strict=True)]
            if not any(room):
                return
            self._widths[room.index(max(room))] -= 1
            excess -= 1

    def titles(self) -> list[Part]:
        """Return the row of titles."""
        return [Styled(column.title, "bold") for column in self._columns]

    def lines(self, rows: Iterable[Sequence[Part]]) -> Iterator[list[Part]]:
        """Yield the lines of rows; one whose text has to be wrapped takes several."""
        for row in rows:
            yield from self._row(row)

    def _row(self, row: Sequence[Part]) -> list[list[Part]]:
        wrapped = [
            wrap(_text(part), width) if self._fits and column.least else [_text(part)]
            for part, column, width in zip(row, self._columns, self._widths, strict=True)
        ]
        lines: list[list[Part]] = []
        for number in range(max(map(len, wrapped))):
            line: list[Part] = []
            for place, texts in enumerate(wrapped):
                text = texts[number] if number < len(texts) else ""
                padding = " " * max(0, self._widths[place] - columns_of(text))
                part = row[place]
                shown: Part = Styled(text, part.style) if isinstance(part, Styled) else text
                line += [padding, shown] if self._columns[place].right else [shown, padding]
                line.append(_GAP)
            lines.append(line)
        return lines


def _text(part: Part) -> str:
    return clean(part.text if isinstance(part, Styled) else part)


def columns_of(text: str) -> int:
    """Return how many columns a terminal shows a text in."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrap(text: str, width: int) -> list[str]:
    """Break text at spaces into lines of at most so many columns; a longer word wherever it must be."""
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if columns_of(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and columns_of(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines
