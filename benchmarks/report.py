"""The figures as tables of Markdown, for the terminal and for a page."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.catalogue import OURS
from benchmarks.figures import Cell, Figures, spread
from benchmarks.scenarios import SCENARIOS, Scenario

NONE = "–"
BEGIN, END = "<!-- tables -->", "<!-- end of the tables -->"
SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


def report(figures: Figures) -> str:
    """Return all tables."""
    parts = [machine(figures.machine), participants(figures.peers)]
    parts += [tables(figures, scenario) for scenario in SCENARIOS.values()]
    return "\n\n".join(part for part in parts if part) + "\n"


def into(page: str, tables: str) -> str:
    """Return a page with its tables in the place of those that it has, between two comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for tables: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def machine(told: dict[str, Any]) -> str:
    """Return on what the figures were taken."""
    flushed = told["fsync_ms"]
    return (
        f"{told['date']}, commit {told['commit']}: {told['cores']} cores, {told['processor']}, load {told['load']}; "
        f"{told['system']}; Python {told['python']}, SQLite {told['sqlite']}; {told['file_system']}, an fsync of 4 KiB "
        f"appended takes {flushed['p50']:.2f} ms (p50), {flushed['p99']:.2f} ms (p99)."
    )


def lost(journal_mode: str, synchronous: int) -> str:
    """Return what a power loss takes, by SQLite's own documentation of these two settings."""
    if synchronous >= 3 or (journal_mode == "wal" and synchronous == 2):
        return "nothing acknowledged"
    if journal_mode in ("delete", "persist", "truncate") and synchronous == 2:
        return "a commit just before it"
    if synchronous == 1:
        return "all since the last checkpoint" if journal_mode == "wal" else "the last commits, seldom the file"
    return "anything, the file too"


def participants(peers: Iterable[dict[str, Any]]) -> str:
    """Return who took part, in which settings, and what each loses at power loss."""
    rows = []
    for peer in peers:
        if "missing" in peer:
            rows.append([peer["title"], " ".join(peer["requirements"]) or NONE, peer["missing"], NONE, NONE, NONE])
            continue
        settings, power = NONE, "everything" if peer["durable"] is None else NONE
        if "journal_mode" in peer:
            settings = f"{str(peer['journal_mode']).upper()}, {SYNCHRONOUS[int(peer['synchronous'])]}"
            power = lost(str(peer["journal_mode"]), int(peer["synchronous"]))
        version = peer["version"] or ("this tree" if peer["name"] == OURS.name else NONE)
        rows.append([peer["title"], version, peer["memory"] or NONE, peer["durable"] or NONE, settings, power])
    heads = ["", "version", "in memory", "on SQLite", "journal_mode, synchronous, read back", "power loss takes"]
    return table(heads, rows)


def tables(figures: Figures, scenario: Scenario) -> str:
    """Return the tables of one scenario: one a figure, a row a peer, a column a case."""
    cells = [cell for cell in figures.cells if cell.scenario == scenario.name]
    if not cells:
        return ""
    titles = {peer["name"]: peer["title"] for peer in figures.peers}
    parts = [f"### {scenario.title}", scenario.told]
    for figure in dict.fromkeys(cell.figure for cell in cells if cell.figure):
        of_it = [cell for cell in cells if cell.figure == figure]
        cases = list(dict.fromkeys(cell.case for cell in of_it))
        rows = []
        for name, title in titles.items():
            found = [shown(of_it, name, case) for case in cases]
            if any(one != NONE for one in found):
                rows.append([title, *found])
        parts.append(table([figure, *cases], rows))
    parts.append(missing(cells, figures.peers))
    return "\n\n".join(part for part in parts if part)


def missing(cells: Sequence[Cell], peers: Iterable[dict[str, Any]]) -> str:
    """Return which peers have no figure, or none in some cases, and why; a limit is none for everything."""
    why: dict[str, list[str]] = {}
    for peer in peers:
        of_it = [cell for cell in cells if cell.peer == peer["name"]]
        partly = any(cell.values for cell in of_it)
        for cell in of_it:
            if cell.reason is not None and peer["kind"] == "peer":
                who = f"{peer['title']} ({cell.case})" if partly else str(peer["title"])
                named = why.setdefault(cell.reason, [])
                if who not in named:
                    named.append(who)
    if not why:
        return ""
    return "Not measured: " + "; ".join(f"{', '.join(who)}: {reason}" for reason, who in why.items()) + "."


def shown(cells: Iterable[Cell], peer: str, case: str) -> str:
    """Return a figure, and how many times as long as this library's it is, with the least and the most of the pairs."""
    of_case = [cell for cell in cells if cell.case == case]
    if peer == OURS.name:
        values = our_values(of_case)
        return number(spread(values).middle) if values else NONE
    cell = next((one for one in of_case if one.peer == peer), None)
    if cell is None:
        return NONE
    told = number(spread(cell.values).middle)
    ratio = cell.ratio()
    if ratio is None:
        return told
    if len(cell.values) == 1:
        return f"{told} (×{number(ratio.middle, 2)})"
    return f"{told} (×{number(ratio.middle, 2)}, {number(ratio.least, 2)}–{number(ratio.most, 2)})"


def our_values(cells: Iterable[Cell]) -> list[float]:
    """Return all values of this library that were taken, alone or beside a peer."""
    return [value for cell in cells for value in (cell.values if cell.peer == OURS.name else cell.ours)]


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many digits that count."""
    if value == int(value) and abs(value) < 100:
        return str(int(value))
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 10 ** (digits - 1):
        return f"{rounded:,.0f}"
    return f"{rounded:.{digits}g}" if abs(rounded) < 1e-3 else f"{rounded:,.{places(rounded, digits)}f}"


def places(value: float, digits: int) -> int:
    """Return how many places behind the point give so many digits that count."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    leading = 0
    while abs(value) * 10 ** (leading + 1) < 1:
        leading += 1
    return digits - whole if whole else digits + leading


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * max(3, width) for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
