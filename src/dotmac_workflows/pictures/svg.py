"""A journal as a picture: one row a step and attempt, a wait, a pause or a rollback, in the order of time.

The axis is not to scale: a wait of days beside steps of milliseconds would hide them. Each stretch between two
instants at which something began or ended is drawn as wide as the logarithm of how long it took, and the picture says
so; durations are written out. Where nobody drove, the column is hatched, with the duration above.

Every row has a sign and words beside its colour (those of Okabe and Ito, which the colour-blind can tell apart), and
bars have patterns. The background is the picture's own, light or dark as the reader's system asks, so that it can be
read wherever it is put. Text is cut to its column by how wide the broadest of the usual fonts would draw it; what was
cut is in the row's tooltip.
"""

from collections.abc import Iterable
from html import escape
from itertools import pairwise
from math import log1p

from .._core.commands import instant
from ..persistence import Record
from .spans import Look, Span, Timeline, read_timeline
from .text import cut, duration, one_line, width

_WIDTH = 900
_MARGIN = 18
_SIGN, _LABEL, _CHART, _NOTE = 80, 97, 285, 548  # where the columns begin
_CHART_END, _END = 530, _WIDTH - _MARGIN
_OPEN = 26  # pixels at the end of the chart for what goes on
_LEAST = 5  # pixels of a bar
_PATTERNED = 14  # pixels from which on a bar shows its pattern
_LABELLED = 0.6  # of the chart, at most, is made wider for durations to be written above it
_SIZE = 12  # pixels of an em
_TOP, _STRIP = 70, 22  # where the chart begins, how high the line of durations above it is
_ROW, _SECOND, _DAY = 24, 15, 22  # heights of a row, a second line, a date

_SIGNS: dict[Look, str] = {
    "done": "M2 6.5 5 9.5 10.5 3",
    "failed": "M3 3 9.5 9.5M9.5 3 3 9.5",
    "unknown": "M4 4.2A2.1 2.1 0 1 1 6.2 6.5V7.6M6.2 10V10.2",
    "running": "M3.5 2.5 10 6.2 3.5 10Z",
    "waits": "M3 2H9.5L6.2 6.2 9.5 10.5H3L6.2 6.2Z",
    "paused": "M4 2.5V10M8.5 2.5V10",
    "undone": "M4.5 1.5 2 4 4.5 6.5M2 4H8A2.9 2.9 0 0 1 8 10H5",
    "skipped": "M2.5 6.2H10",
    "mark": "M4 6.2A2.2 2.2 0 1 0 8.4 6.2 2.2 2.2 0 1 0 4 6.2",
}
_STYLE = """\
.dw{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.dw .bg{fill:#fff;stroke:#d0d7de}.dw text{fill:#1f2328}.dw .dim{fill:#59636e}.dw .bold{font-weight:600}
.dw .rule{stroke:#eaeef2}.dw .edge{stroke:#b6bec7}.dw .idle{fill:#8a939c;opacity:.13}
.dw .sign{fill:none;stroke:#59636e;stroke-width:1.8;stroke-linecap:round;stroke-linejoin:round}
.dw .done{fill:#009e73}.dw .failed{fill:#d55e00}.dw .running{fill:#0072b2}.dw .waits{fill:#e69f00}
.dw .undone{fill:#cc79a7}.dw .paused{fill:#e69f00}.dw .mark,.dw .skipped{fill:#6e7781}
.dw .unknown{fill:none;stroke:#d55e00;stroke-width:1.5;stroke-dasharray:3 2}
.dw .sign.done{stroke:#007a59}.dw .sign.failed,.dw .sign.unknown{stroke:#c25300;stroke-dasharray:none}
.dw .sign.running{stroke:#0072b2}.dw .sign.waits,.dw .sign.paused{stroke:#9a6700}.dw .sign.undone{stroke:#a8527f}
.dw .sign{fill:none}.dw .hatch{stroke:#fff;stroke-width:1.6}
@media(prefers-color-scheme:dark){
.dw .bg{fill:#0d1117;stroke:#30363d}.dw text{fill:#e6edf3}.dw .dim{fill:#9aa4af}
.dw .rule{stroke:#21262d}.dw .edge{stroke:#4d5560}
.dw .sign{stroke:#9aa4af}.dw .running{fill:#56b4e9}.dw .mark,.dw .skipped{fill:#9aa4af}
.dw .sign.done{stroke:#1fc796}.dw .sign.failed,.dw .sign.unknown{stroke:#ff8a3d}.dw .unknown{stroke:#ff8a3d}
.dw .sign.running{stroke:#56b4e9}.dw .sign.waits,.dw .sign.paused{stroke:#e69f00}.dw .sign.undone{stroke:#e29cc3}
.dw .sign{fill:none}.dw .hatch{stroke:#0d1117}}
"""
_PATTERNS = {
    "waits": '<path class="hatch" d="M-2 2 2-2M0 8 8 0M6 10 10 6"/>',
    "paused": '<path class="hatch" d="M4 0V8"/>',
    "failed": '<path class="hatch" d="M0 0 8 8M8 0 0 8"/>',
    "undone": '<path class="hatch" d="M0 4H8"/>',
}


def timeline_svg(workflow_id: str, records: Iterable[Record]) -> str:
    """Return the timeline of a run as an SVG, 900 pixels wide.

    Pure: the same records give the same text. Nothing is checked; a damaged record is drawn as far as it can be read.

    Args:
        workflow_id: The run; for the title.
        records: Its journal, as `Persistence.read` returns it.
    """
    timeline = read_timeline(records)
    axis = _Axis(timeline)
    rows, bottom = _rows(timeline, axis)
    name = one_line(workflow_id)
    height = bottom + 34
    title = f"{name}: {timeline.workflow_type} {timeline.status}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="dw" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}</style>",
        "<defs>",
        *(
            f'<pattern id="dw-{look}" width="8" height="8" patternUnits="userSpaceOnUse">{drawn}</pattern>'
            for look, drawn in _PATTERNS.items()
        ),
        "</defs>",
        f'<rect class="bg" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
        *_heading(name, timeline),
        *_columns(timeline, axis, bottom),
        *rows,
        _text(_MARGIN, bottom + 20, _footnote(timeline), "dim", room=_END - _MARGIN),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Axis:
    """Where an instant stands in the chart."""

    def __init__(self, timeline: Timeline) -> None:
        instants = {timeline.started, timeline.last}
        for span in timeline.spans:
            instants.add(span.start)
            instants.add(timeline.last if span.end is None else span.end)
        in_order = sorted(instants)
        goes_on = any(span.end is None for span in timeline.spans)
        room = _CHART_END - _CHART - (_OPEN if goes_on else 0)
        pairs = list(pairwise(in_order))
        weights = [log1p((after - before) / 1000) for before, after in pairs]
        least = _labelled(timeline, room)
        wides = [least.get(pair, 0.0) for pair in pairs]
        scale = (room - sum(wides)) / (sum(weights) or 1.0)
        self._places = {in_order[0]: float(_CHART)}
        for (before, after), weight, wide in zip(pairs, weights, wides, strict=True):
            self._places[after] = self._places[before] + weight * scale + wide

    def place(self, at: int | None) -> float:
        """Return where an instant stands, in pixels; of None, which is not over yet, the end of the chart."""
        return float(_CHART_END) if at is None else self._places[at]

    def bar(self, start: int, end: int | None) -> tuple[float, float]:
        """Return where a bar begins and how wide it is: wide enough to be seen, and within the chart."""
        begin, stop = self.place(start), self.place(end)
        wide = max(_LEAST, stop - begin)
        return min(begin, _CHART_END - wide), wide


def _labelled(timeline: Timeline, room: float) -> dict[tuple[int, int], float]:
    """Return how wide the longest stretches have to be in which nobody drove, for their durations to be written."""
    least: dict[tuple[int, int], float] = {}
    ended = [(end - start, start, end) for start, end, _ in timeline.idle if end is not None]
    for _, start, end in sorted(ended, reverse=True):
        wide = width(_said(start, end)) * _SIZE + 8
        if sum(least.values()) + wide > room * _LABELLED:
            break
        least[start, end] = wide
    return least


def _heading(name: str, timeline: Timeline) -> list[str]:
    parts = [_text(_MARGIN, 30, name, "bold", size=16, room=_END - _MARGIN)]
    facts = [timeline.status, timeline.workflow_type]
    if timeline.started:
        took = duration((timeline.last - timeline.started) / 1_000_000)
        took = f"took {took}" if timeline.look in ("done", "failed") else f"{took} up to its last record"
        waited = sum(s.end - s.start for s in timeline.spans if s.bar == "waits" and s.end is not None)
        waits = f", {duration(waited / 1_000_000)} of it for a decision" if waited else ""
        facts += [f"{instant(timeline.started):%Y-%m-%d %H:%M:%S} UTC", took + waits]
    parts.append(_sign(timeline.look, _MARGIN, 42))
    parts.append(_text(_MARGIN + 18, 53, " · ".join(fact for fact in facts if fact), room=_END - _MARGIN - 18))
    return parts


def _columns(timeline: Timeline, axis: _Axis, bottom: int) -> list[str]:
    """Draw where nobody drove, with how long above it, and the frame of the chart."""
    parts = []
    stretches = [*timeline.idle, *((s.start, None, s.label) for s in timeline.spans if s.end is None and s.bar)]
    for start, end, why in stretches:
        begin, wide = axis.bar(start, end)
        parts.append(
            f'<g><title>{escape(why)}</title><rect class="idle" x="{begin:.1f}" y="{_TOP}" width="{wide:.1f}" '
            f'height="{bottom - _TOP}"/></g>'
        )
        said = _said(start, end)
        if said and width(said) * _SIZE <= wide:
            middle = begin + wide / 2
            parts.append(f'<text class="dim" x="{middle:.1f}" y="{_TOP + 15}" text-anchor="middle">{said}</text>')
    for x in (_CHART, _CHART_END):
        parts.append(f'<path class="edge" d="M{x}.5 {_TOP}V{bottom}"/>')
    return parts


def _said(start: int, end: int | None) -> str:
    return "" if end is None else escape(duration((end - start) / 1_000_000))


def _rows(timeline: Timeline, axis: _Axis) -> tuple[list[str], int]:
    """Draw the rows; return them and where they end."""
    parts: list[str] = []
    y = _TOP + _STRIP
    today = f"{instant(timeline.started):%Y-%m-%d}"
    for span in timeline.spans:
        day = f"{instant(span.start):%Y-%m-%d}"
        if day != today:
            today = day
            parts.append(_text(_MARGIN, y + 15, day, "dim bold"))
            y += _DAY
        drawn, high = _row(span, axis, y)
        parts += drawn
        y += high
    return parts, y + 6


def _row(span: Span, axis: _Axis, y: int) -> tuple[list[str], int]:
    note, detail = one_line(span.note), one_line(span.detail)
    joined = " · ".join(text for text in (note, detail) if text)
    room = _END - _NOTE
    lines = [joined] if width(joined) * _SIZE <= room or not note else [note, detail]
    suffix = f" ({span.suffix})" if span.suffix else ""
    label = cut(span.label, (_CHART - 8 - _LABEL) / _SIZE - width(suffix)) + suffix
    high = _ROW + _SECOND * (len(lines) - 1)
    base = y + 16
    parts = [
        "<g>",
        f"<title>{escape(f'{span.label}{suffix}: {joined}')}</title>",
        f'<path class="rule" d="M{_MARGIN} {y}.5H{_END}"/>',
        _text(_MARGIN, base, f"{instant(span.start):%H:%M:%S}", "dim"),
        _sign(span.look, _SIGN, y + 6),
        _text(_LABEL, base, label),
        *_bar(span, axis, y + 6),
        *(
            _text(_NOTE, base + _SECOND * place, line, "dim" if place else "", room=room)
            for place, line in enumerate(lines)
            if line
        ),
        "</g>",
    ]
    return parts, high


def _bar(span: Span, axis: _Axis, y: int) -> list[str]:
    look = span.bar or span.look
    begin, wide = axis.bar(span.start, span.end)
    if span.start == span.end:
        return [f'<circle class="{look}" cx="{min(begin + 3, _CHART_END - 4):.1f}" cy="{y + 6}" r="3.5"/>']
    high = 4 if look == "mark" else 12
    shape = f'x="{begin:.1f}" y="{y + 6 - high // 2}" width="{wide:.1f}" height="{high}" rx="2"'
    parts = [f'<rect class="{look}" {shape}/>']
    if look in _PATTERNS and wide >= _PATTERNED:
        parts.append(f'<rect fill="url(#dw-{look})" {shape}/>')
    if span.end is None:
        parts.append(f'<path class="sign {look}" d="M{_CHART_END + 3} {y + 2}l4 4-4 4"/>')
    return parts


def _sign(look: Look, x: int, y: int) -> str:
    return f'<path class="sign {look}" transform="translate({x} {y})" d="{_SIGNS[look]}"/>'


def _text(x: int, y: int, text: str, style: str = "", *, size: int = _SIZE, room: int | None = None) -> str:
    if room is not None:
        text = cut(text, room / (size * (1.13 if "bold" in style else 1)))
    looks = f' class="{style}"' if style else ""
    big = f' font-size="{size}"' if size != _SIZE else ""
    return f'<text{looks}{big} x="{x}" y="{y}">{escape(text)}</text>'


def _footnote(timeline: Timeline) -> str:
    if not timeline.spans:
        return "The journal holds no step yet."
    words = "Not to scale: long times are drawn short, so that short ones can be seen."
    return f"{words} Grey columns: nobody drove the run." if timeline.idle else words
