"""What the test suite does in small, for as long as one likes. Run from the repository, with nothing installed."""

import argparse
import logging
import random
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


def parser_of(campaign: str, description: str | None, counted: str, *, jobs: int = 1) -> argparse.ArgumentParser:
    """Return a parser of what every campaign is told.

    Args:
        campaign: The name of its module.
        description: What it does.
        counted: What ``--count`` counts.
        jobs: How many parts of it are run at a time, where nothing else is said.
    """
    made = argparse.ArgumentParser(prog=f"python -m tests.campaigns.{campaign}", description=description)
    made.add_argument("--count", type=whole_number, required=True, help=counted)
    made.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    made.add_argument("--jobs", type=whole_number, default=jobs, help="how many at a time")
    return made


def quiet() -> None:
    """Let the library say nothing of what a campaign means to do to it: rollbacks, faults, processes that die."""
    logging.getLogger("dotmac_workflows").setLevel(logging.CRITICAL)
