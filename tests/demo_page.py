"""What the demo prints, and the page of the documentation that shows it.

    python tests/demo_page.py

puts the output of the demo at hand into the page.
"""

import re
import sys
import tempfile
from pathlib import Path

from command_line import call, environment

PAGE = Path(__file__).parents[1] / "docs" / "demo.md"
_BLOCK = re.compile(r"(?s)(?<=<!-- made by: python tests/demo_page.py -->\n```text\n).*?(?=```\n)")


def run_demo(folder: Path) -> tuple[int, str, str]:
    """Run the demo in a folder, without a terminal; it leaves its databases in ``demo``."""
    variables = environment()
    del variables["COLUMNS"]
    return call(folder, "demo", "--folder", "demo", env=variables)


def shown() -> str:
    """Return the output that the page shows."""
    found = _BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    return found[0]


def tidy(text: str) -> str:
    """Return an output as from a fresh clone on a host of no particular name."""
    text = re.sub(
        r"(?m)^  (PYTHONPATH=\S+ )?\S+ -m dotmac_workflows", "  PYTHONPATH=src python3 -m dotmac_workflows", text
    )
    return re.sub(r"by \S+ \(process", "by myhost (process", text)


def normalised(text: str) -> list[str]:
    """Return the lines of an output without what differs from run to run."""
    for pattern, name in (
        (r"(process|kill -9) \d+", r"\1 PID"),
        (r"\d\d:\d\d:\d\d", "TIME"),
        (r"<?\d+ ms|\d+\.\d s\b", "TOOK"),
        (r"\b[0-9a-f]{8}\.\.\.", "KEY..."),
        (r"(?<=\S) +", " "),
    ):
        text = re.sub(pattern, name, text)
    return text.splitlines()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = run_demo(Path(folder))
    if code or err:
        sys.exit(f"the demo ended with {code}: {err}")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_BLOCK.sub(lambda _: tidy(out), page), encoding="utf-8")


if __name__ == "__main__":
    main()
