"""Every prefix of the journals of random workflows, as many as one likes.

``python -m tests.campaigns.prefixes --count 100000``, from the repository: random workflows of up to twelve steps
(`random_workflows`) are played by the loop of the engine, with crashes; their journals are stored and read back, and
folded from the start up to every record. The state must be the one that was live there, of the driver too where one
committed, and what comes next the same. Prints the first seed, and how many prefixes and events of each type there
were. The first broken promise ends it, with the option that plays that workflow again and prints its journal.
"""

import sys
from collections import Counter
from collections.abc import Sequence

from campaigns import seeds
from crash_simulation import lines
from dotmac_workflows._core.state import FOLD
from random_workflows import fold_every_prefix

KINDS = ("prefixes", "states of drivers", *(event_type.__name__ for event_type in FOLD))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    return seeds.main(seeds.Campaign("prefixes", __doc__, "workflows", KINDS, _play, _show), arguments)


def _play(seed: int) -> Counter[str]:
    return fold_every_prefix(seed)[1]


def _show(seed: int) -> None:
    world, _ = fold_every_prefix(seed)
    print(world.script, f"schedule {world.schedule}", lines(world.journal), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
