"""Text that cannot take a terminal over, tables that fit, and output that nobody reads."""

import io
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac_workflows.cli.terminal import Column, Styled, Table, Terminal, clean, columns_of, wrap


class Stream(io.StringIO):
    """A stream that may be a terminal, and may not know every character."""

    def __init__(self, *, terminal: bool = True, encoding: str = "utf-8") -> None:
        super().__init__()
        self._terminal = terminal
        self._encoding = encoding

    def isatty(self) -> bool:
        return self._terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a class attribute in typeshed, read alike
        return self._encoding


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größer 大きい", "größer 大きい"),
        ("a\nb\tc\r\u2028d\xa0e", "a b c  d e"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[H\x1b[?25lgone", "gone"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r\x1b\\x", "x"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lines", "lines"),
        ("\x1b\x1b[31m[31mnested", "\\x1b[31mnested"),
        ("\x1b]0;never ended", "0;never ended"),
        (
            "\x00\x07\x08\x7f\x85\u202e\u2066\u200b\ufeff\ud800",
            "\\x00\\x07\\x08\\x7f \\u202e\\u2066\\u200b\\ufeff\\ud800",
        ),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


ANY = st.text(st.sampled_from("\x1b\x9b\x9d\x07[]0;31mH?\\ax \n\x00\u202e\x85大é") | st.characters())


@given(text=ANY)
def test_what_is_clean_prints(text: str) -> None:
    assert clean(text).isprintable()


@given(text=ANY, terminal=st.booleans())
def test_nothing_but_colours_reaches_a_terminal(text: str, terminal: bool) -> None:
    stream = Stream(terminal=terminal)
    Terminal(stream).line(text, Styled(text, "good"))
    shown = stream.getvalue()
    assert shown.endswith("\n")
    assert shown[:-1].replace("\x1b[32m", "").replace("\x1b[0m", "").isprintable(), (
        "a colour and one line's end, whatever it was given"
    )
    assert terminal or "\x1b" not in shown


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(*, terminal: bool) -> str:
        stream = Stream(terminal=terminal)
        Terminal(stream).line("it ", Styled("works", "good"), Styled("  ", "bad"))
        return stream.getvalue()

    assert shown(terminal=True) == "it \x1b[32mworks\x1b[0m\n"
    assert shown(terminal=False) == "it works\n"
    monkeypatch.setenv("NO_COLOR", "")
    assert shown(terminal=True) == "it \x1b[32mworks\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(terminal=True) == "it works\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert shown(terminal=True) == "it works\n"


def test_a_line_that_was_begun_is_taken_the_place_of() -> None:
    stream = Stream()
    terminal = Terminal(stream)
    terminal.begin("step ...")
    terminal.line("done")
    assert stream.getvalue() == "step ...\r        \rdone\n"
    terminal.begin("step ...")
    terminal.keep_begun()
    terminal.keep_begun()
    terminal.line("below")
    assert stream.getvalue().endswith("\rdone\nstep ...\nbelow\n")
    before = stream.getvalue()
    terminal.begin("x" * 80)  # would wrap, and could not be taken back
    assert stream.getvalue() == before


def test_without_a_terminal_nothing_is_begun() -> None:
    stream = Stream(terminal=False)
    Terminal(stream).begin("step ...")
    assert stream.getvalue() == ""


def test_characters_that_a_stream_does_not_know() -> None:
    stream = Stream(encoding="ascii")
    Terminal(stream).line("größer")
    assert stream.getvalue() == "gr\\xf6\\xdfer\n"


def test_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "123")
    assert Terminal(Stream(terminal=False)).width == 123
    monkeypatch.setenv("COLUMNS", "7")
    assert Terminal(Stream()).width == 40
    monkeypatch.delenv("COLUMNS")
    assert Terminal(Stream(terminal=False)).width is None


def test_an_output_that_nobody_reads_is_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        terminal = Terminal(stream)
        terminal.line("lost")
        terminal.line("lost as well")


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 5, [""]),
        ("one two three", 7, ["one two", "three"]),
        ("one two three", 5, ["one", "two", "three"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("a bcdefgh i", 4, ["a", "bcde", "fgh", "i"]),
        ("大きいです", 4, ["大き", "いで", "す"]),
        ("a  b", 9, ["a  b"]),
    ],
)
def test_wrap(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines


@given(text=st.text(st.sampled_from("ab c大 ")), width=st.integers(2, 12))
def test_what_is_wrapped_fits_and_is_all_there(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert max(map(columns_of, lines)) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def rendered(columns: list[Column], rows: list[list[str]], width: int | None) -> str:
    stream = Stream(terminal=False)
    terminal = Terminal(stream)
    table = Table(columns, rows, width)
    terminal.table(table, [table.titles(), *rows])
    return stream.getvalue()


COLUMNS = [Column("ID"), Column("WHAT IT IS", 6), Column("TOOK", right=True), Column("NOTE", 8)]
ROWS = [["a", "small", "5 ms", ""], ["a-longer-id", "大きい", "12 ms", "a note that is longer than the rest"]]


def test_a_table_that_fits() -> None:
    assert rendered(COLUMNS, ROWS, 80) == (
        "ID           WHAT IT IS   TOOK  NOTE\n"
        "a            small        5 ms\n"
        "a-longer-id  大きい      12 ms  a note that is longer than the rest\n"
    )
    assert rendered(COLUMNS, ROWS, None) == rendered(COLUMNS, ROWS, 80)


def test_a_table_that_is_squeezed() -> None:
    assert rendered(COLUMNS, ROWS, 38) == (
        "ID           WHAT IT    TOOK  NOTE\n"
        "             IS\n"
        "a            small      5 ms\n"
        "a-longer-id  大きい    12 ms  a note\n"
        "                              that is\n"
        "                              longer\n"
        "                              than the\n"
        "                              rest\n"
    )


@given(
    rows=st.lists(st.lists(st.text(st.characters(exclude_categories=["C", "Z"])), min_size=4, max_size=4), min_size=1),
    width=st.integers(60, 100),
)
def test_a_table_fits_where_its_columns_can_be_squeezed(rows: list[list[str]], width: int) -> None:
    columns = [Column("A", 4), Column("B", 4), Column("C", 4, right=True), Column("D", 4)]
    for line in rendered(columns, rows, width).splitlines():
        assert columns_of(line) <= width
    shown = rendered(columns, rows, width)
    for row in rows:
        for cell in row:
            assert set(cell) <= set(shown) | {c for c in cell if unicodedata.combining(c)}
