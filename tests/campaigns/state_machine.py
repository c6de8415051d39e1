"""Verbs of the public API by chance, held to a simple model, for as long as one likes.

``python -m tests.campaigns.state_machine --count 2000``, from the repository: so many examples, each of up to fifty
calls of verbs, by several actors, on fresh objects and on ones used before, with processes lost at appends; see
`state_machine`. Prints the seed and how many calls were made and compared. The first that differs ends it, with the
calls that lead there, as short as Hypothesis can make them; the same seed finds it again.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from campaigns import quiet, whole_number
from state_machine import Machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.state_machine", description=__doc__)
    parser.add_argument("--count", type=whole_number, required=True, help="how many examples")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    quiet()
    began, before = time.monotonic(), Machine.calls_made

    @seed(options.seed)
    class Seeded(Machine):
        pass

    many = settings(
        max_examples=options.count,
        stateful_step_count=50,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Seeded, settings=many)
    except AssertionError as difference:
        notes = "\n".join(getattr(difference, "__notes__", ()))
        print(f"error: {difference}\n{notes}", file=sys.stderr)
        return 1
    made = Machine.calls_made - before
    print(
        f"{options.count} examples in {time.monotonic() - began:.0f} s: {made} calls of verbs, each as the model says"
    )
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
