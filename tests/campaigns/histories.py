"""Histories of several drivers and persons on one store that fails, as many as one likes.

``python -m tests.campaigns.histories --count 1000000``, from the repository: two to five processes want to drive one
run with the engine itself, up to five persons decide, cancel, pause, resume and retry it beside each other, calls to
the store fail before they had their effect or after, or hang, processes are stopped, killed and shut down, and clocks
are wrong and set; all in virtual time, and each history drawn by a seed of its own (`simulation.history`). Prints the
first seed, and how often what happened. The first broken promise ends it, with the option that plays that history again
and prints it.
"""

import sys
from collections import Counter
from collections.abc import Sequence

from campaigns import seeds
from simulation.history import KINDS, History
from simulation.processes import no_operating_system


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    campaign = seeds.Campaign("histories", __doc__, "histories", KINDS, _play, _show, no_operating_system)
    return seeds.main(campaign, arguments)


def _play(seed: int) -> Counter[str]:
    story = History(seed).play()
    story.counts.update({"drivers": story.drivers, "seconds": round(story.seconds)})
    return story.counts


def _show(seed: int) -> None:
    history = History(seed, timeline=True)
    try:
        history.play()
    finally:
        print(history.script, *history.timeline or (), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
