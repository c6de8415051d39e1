"""Measure this library and its peers at the same work, side by side.

    python -m benchmarks

Peers are installed into environments of their own at the first run. Shows progress, then tables; writes them with the
figures as JSON and a picture into a folder.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import machine, sizes
from benchmarks.catalogue import CATALOGUE, OURS, Peer
from benchmarks.figures import Figures
from benchmarks.pairs import Bench
from benchmarks.plot import plot
from benchmarks.report import into, report
from benchmarks.scenarios import SCENARIOS

BUILT = Path("build", "benchmarks")


def names(given: str, known: list[str], what: str) -> list[str]:
    """Return the names in a comma-separated list, in the order that is known."""
    wanted = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no such {what}: {', '.join(unknown)}. There are: {', '.join(known)}.")
    return [name for name in known if name in wanted]


def arguments() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="some of: %(default)s")
    parser.add_argument(
        "--peers", default=",".join(peer.name for peer in CATALOGUE), help="some of: %(default)s; this library always"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds: two minutes instead of fifteen"
    )
    parser.add_argument("--rounds", type=int, help="at most so many pairs a case (20; 3 with --quick)")
    parser.add_argument("--seconds", type=float, help="no further pair of a case after so long (3; 0.5 with --quick)")
    parser.add_argument(
        "--limit", type=float, help="seconds that a peer may take for one task before it is not asked on (60; 10)"
    )
    parser.add_argument(
        "--output", type=Path, default=BUILT, metavar="FOLDER", help="for results.json, tables.md, plot.svg"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there instead")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the picture there instead")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables into this page of Markdown as well")
    parser.add_argument("--venvs", type=Path, default=BUILT / "venvs", metavar="FOLDER", help="the peers' environments")
    parser.add_argument(
        "--directory", type=Path, default=Path(), help="the disk to measure: stores are made in a new folder here"
    )
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="measure nothing: tables and picture of these figures"
    )
    return parser


def measure(bench: Bench, scenarios: list[str], peers: list[Peer], kept: Path) -> Figures:
    """Run scenarios, each for this library alone and then beside each peer; what there is is written as it comes."""
    bench.figures.machine = machine.about(bench.folder)
    able = bench.prepare([OURS, *peers])
    try:
        for name in scenarios:
            for peer in able:
                SCENARIOS[name].run(bench, peer)
                kept.write_text(bench.figures.to_json(), encoding="utf-8", newline="\n")
    except KeyboardInterrupt:
        bench.say("interrupted; this is what there is")
    return bench.figures


def main(given: list[str] | None = None) -> int:
    """Read the command line, measure, and write what was found."""
    asked = arguments().parse_args(given)
    kept = asked.json or asked.output / "results.json"
    if asked.read is not None:
        figures = Figures.read(asked.read)
    else:
        kept.parent.mkdir(parents=True, exist_ok=True)
        scenarios = names(asked.scenarios, list(SCENARIOS), "scenario")
        wanted = names(asked.peers, [peer.name for peer in CATALOGUE], "peer")
        folder = Path(tempfile.mkdtemp(prefix="benchmark-", dir=asked.directory)).resolve()
        try:
            bench = Bench(
                folder,
                asked.venvs.resolve(),
                rounds=asked.rounds or (3 if asked.quick else 20),
                seconds=asked.seconds or (0.5 if asked.quick else 3.0),
                limit=asked.limit or (10.0 if asked.quick else 60.0),
                sizes=sizes.QUICK if asked.quick else sizes.FULL,
            )
            figures = measure(bench, scenarios, [peer for peer in CATALOGUE if peer.name in wanted], kept)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    told = report(figures)
    print(told)
    asked.output.mkdir(parents=True, exist_ok=True)
    written = {
        kept: figures.to_json(),
        asked.output / "tables.md": told,
        asked.plot or asked.output / "plot.svg": plot(figures),
    }
    if asked.page is not None:
        written[asked.page] = into(asked.page.read_text(encoding="utf-8"), told)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
