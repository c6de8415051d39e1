"""The list of mutants that no test can tell from the original, each with the reason."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

LIST = Path(__file__).with_name("survivors.toml")


class Survivor(NamedTuple):
    """A mutant that may survive."""

    module: str
    function: str
    before: str
    """The lines that it replaces, without the indentation that they share."""
    after: str
    times: int
    """How often the function has just this line, so that there are as many mutants that look alike."""
    why: str
    """Why it makes no difference that a test could or should see."""


Key = tuple[str, str, str, str]
"""What tells a survivor from others: all but the reason and how often."""


def allowed() -> Counter[Key]:
    """Return how many mutants of each kind may survive."""
    return Counter({survivor[:4]: survivor.times for survivor in listed()})


def listed() -> list[Survivor]:
    """Return the list."""
    table = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return [Survivor(**{"function": "", "times": 1, **entry}) for entry in table["survivor"]]
