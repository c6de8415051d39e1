"""The figures as a picture: how many times as long as this library each takes, as bars on a logarithmic scale.

One scale for all panels, and a line where this library stands: a bar to the right of it is slower, or needs more; one
to the left is faster. A thin line over the bar reaches from the least to the most of the pairs. What was measured is
written beside it. The colours are those of Okabe and Ito, which the colour-blind can tell apart, and limits are
hatched; the background is the picture's own, light or dark as the reader's system asks.
"""

from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

from benchmarks.catalogue import OURS
from benchmarks.figures import Figures, Spread, spread
from benchmarks.report import number, our_values

PANELS = (
    ("In memory, 100 steps", "in_memory", "100 steps", "µs a step", "µs a step"),
    ("Durable, one workflow at a time", "durable", "one at a time", "ms a step", "ms a step"),
    ("Durable, 100 workflows at once", "durable", "100 at once", "steps a second", "steps/s"),
    ("From approve to completion, in another process", "approval", "", "ms from approve to completion, p50", "ms"),
    ("Recovery after a crash", "recovery", "", "seconds to recover all", "s"),
    ("Ten steps undone, durable", "rollback", "durable", "µs a step undone", "µs a step"),
    ("Import beyond asyncio, to run on SQLite", "importing", "to run on SQLite", "ms over asyncio", "ms"),
)
"""Title, scenario, case (the first there is), figure, and its unit as it is written here."""

WIDTH, MARGIN, GAP = 900, 18, 30
COLUMN = (WIDTH - 2 * MARGIN - GAP) / 2
LABEL, NOTE = 142, 132
"""How wide the columns left and right of the bars are."""
ROW, HEAD, FOOT = 20, 26, 30
TOP = 62

STYLE = """\
.b{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.b .bg{fill:#fff;stroke:#d0d7de}.b text{fill:#1f2328}.b .dim{fill:#59636e}.b .bold{font-weight:600}
.b .small{font-size:11px}.b .end{text-anchor:end}.b .mid{text-anchor:middle}
.b .rule{stroke:#eaeef2}.b .one{stroke:#0072b2;stroke-width:1.5}.b .reach{stroke:#1f2328;opacity:.55}
.b .ours{fill:#0072b2}.b .slower{fill:#8a939c}.b .faster{fill:#d55e00}
.b .limit{fill:url(#b-limit)}.b .hatch{stroke:#6e7781;stroke-width:1.6}
@media(prefers-color-scheme:dark){
.b .bg{fill:#0d1117;stroke:#30363d}.b text{fill:#e6edf3}.b .dim{fill:#9aa4af}
.b .rule{stroke:#21262d}.b .one{stroke:#56b4e9}.b .reach{stroke:#e6edf3}
.b .ours{fill:#56b4e9}.b .slower{fill:#6e7781}.b .faster{fill:#ff8a3d}.b .hatch{stroke:#9aa4af}}
"""


class Bar(NamedTuple):
    """One row of a panel."""

    title: str
    look: str
    ratio: Spread
    told: str


class Panel(NamedTuple):
    """One comparison."""

    title: str
    bars: list[Bar]

    @property
    def height(self) -> float:
        """In pixels."""
        return HEAD + ROW * len(self.bars) + FOOT


def panels(figures: Figures) -> list[Panel]:
    """Return what there is to draw; a panel without a peer is left out."""
    found = []
    for title, scenario, case, figure, unit in PANELS:
        cells = [cell for cell in figures.cells if (cell.scenario, cell.figure) == (scenario, figure)]
        case = case or next((cell.case for cell in cells), "")
        cells = [cell for cell in cells if cell.case == case]
        bars = []
        for peer in figures.peers:
            if peer["name"] == OURS.name:
                values = our_values(cells)
                if values:
                    middle = spread(values).middle
                    bars.append(Bar(peer["title"], "ours", Spread(1, 1, 1), f"{number(middle)} {unit}"))
                continue
            cell = next((one for one in cells if one.peer == peer["name"]), None)
            ratio = cell.ratio() if cell is not None else None
            if cell is not None and ratio is not None:
                look = "limit" if peer["kind"] == "limit" else "slower" if ratio.middle >= 1 else "faster"
                told = f"{number(spread(cell.values).middle)} {unit}"
                bars.append(Bar(peer["title"], look, ratio, told))
        if len(bars) > 1:
            shown = f"{title}, {case}" if scenario in ("approval", "recovery") else title
            found.append(Panel(shown, sorted(bars, key=lambda bar: bar.ratio.middle)))
    return found


class Scale(NamedTuple):
    """Powers of ten, from left to right."""

    low: int
    high: int

    def place(self, ratio: float, left: float) -> float:
        """Return where a ratio stands in a column that begins there."""
        wide = COLUMN - LABEL - NOTE
        share = (log10(max(ratio, 10.0**self.low)) - self.low) / (self.high - self.low)
        return left + LABEL + wide * min(1.0, share)


def plot(figures: Figures) -> str:
    """Return the picture as SVG, 900 pixels wide."""
    drawn = panels(figures)
    ratios = [value for panel in drawn for bar in panel.bars for value in (bar.ratio.least, bar.ratio.most)] or [1.0]
    scale = Scale(min(-1, max(-3, floor(log10(min(ratios))))), max(1, ceil(log10(max(ratios)))))
    bottoms, parts = [float(TOP), float(TOP)], []
    for panel in drawn:
        column = bottoms.index(min(bottoms))
        parts += _panel(panel, scale, MARGIN + column * (COLUMN + GAP), bottoms[column])
        bottoms[column] += panel.height
    height = round(max(bottoms)) + 8
    told = figures.machine
    title = "How many times as long as dotmac-workflows it takes"
    note = (
        f"Python {told['python']}, SQLite {told['sqlite']}, {told['cores']} cores, {told['file_system']}, "
        f"{told['date'][:10]}; each compared with the run beside it; logarithmic"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="b" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{title}</title>",
            f"<style>\n{STYLE}</style>",
            '<defs><pattern id="b-limit" width="6" height="6" patternUnits="userSpaceOnUse">'
            '<path class="hatch" d="M-1 1 1-1M0 6 6 0M5 7 7 5"/></pattern></defs>',
            f'<rect class="bg" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
            _text(MARGIN, 26, title, "bold"),
            _text(MARGIN, 45, note, "dim small"),
            *_legend(),
            *parts,
            "</svg>",
            "",
        ]
    )


def _legend() -> list[str]:
    parts, left = [], WIDTH - MARGIN - 262.0
    for look, name, wide in (
        ("slower", "slower", 66),
        ("faster", "faster", 64),
        ("limit", "a limit", 68),
        ("ours", "this", 0),
    ):
        parts.append(f'<rect class="{look}" x="{left:.0f}" y="17" width="12" height="11"/>')
        parts.append(_text(left + 17, 27, name, "small"))
        left += wide
    return parts


def _panel(panel: Panel, scale: Scale, left: float, top: float) -> list[str]:
    first, last = top + HEAD - 4, top + HEAD + ROW * len(panel.bars)
    parts = [_text(left, top + 14, panel.title, "bold")]
    for power in range(scale.low, scale.high + 1):
        x = scale.place(10.0**power, left)
        kind = "one" if power == 0 else "rule"
        parts.append(f'<path class="{kind}" d="M{x:.1f} {first:.0f}V{last:.0f}"/>')
        if power % 2 == 0:
            label = f"{10.0**power:,g}"
            parts.append(_text(x, last + 13, f"×{label}", "dim small mid"))
    one = scale.place(1.0, left)
    for number_, bar in enumerate(panel.bars):
        y = top + HEAD + ROW * number_
        begin, end = sorted((one, scale.place(bar.ratio.middle, left)))
        if bar.look == "ours":
            begin, end = one - 3, one + 3
        told = bar.told if bar.look == "ours" else f"×{number(bar.ratio.middle, 2)} · {bar.told}"
        parts.append(f"<g><title>{escape(f'{bar.title}: {told}')}</title>")
        parts.append(_text(left + LABEL - 8, y + 12, bar.title, "end bold" if bar.look == "ours" else "end"))
        parts.append(
            f'<rect class="{bar.look}" x="{begin:.1f}" y="{y + 2}" width="{max(1.0, end - begin):.1f}" height="12"/>'
        )
        reach = scale.place(bar.ratio.least, left), scale.place(bar.ratio.most, left)
        if bar.look != "ours" and reach[1] - reach[0] > 1:
            parts.append(f'<path class="reach" d="M{reach[0]:.1f} {y + 8}H{reach[1]:.1f}"/>')
        parts.append(_text(left + COLUMN, y + 12, told, "dim small end"))
        parts.append("</g>")
    return parts


def _text(x: float, y: float, told: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(told)}</text>'
