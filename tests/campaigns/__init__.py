"""What the test suite does in small, for as long as one likes. Run from the repository, with nothing installed."""

import argparse
import logging
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(_REPOSITORY / "src"), str(_REPOSITORY / "tests")]


def whole_number(text: str) -> int:
    """Return the number of an option, which must be at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1: a campaign of nothing proves nothing")
    return number


def quiet() -> None:
    """Let the library say nothing of what a campaign means to do to it: rollbacks, faults, processes that die."""
    logging.getLogger("dotmac_workflows").setLevel(logging.CRITICAL)
