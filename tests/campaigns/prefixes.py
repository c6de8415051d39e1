"""Every prefix of the journals of random workflows, folded again and compared with the live state.

``python -m tests.campaigns.prefixes --count 100000``, from the repository. Each workflow has one to twelve steps, of
which any may fail, ask for an approval and get or be refused it, be paused or cancelled, and be undone well, badly or
not at all; it is retried or answered for, or not; and up to three of its drivers are lost. Its events are written as
rows and read back, and every prefix of these is folded from the start: the state must be the one that the driver had
at that point, and what is decided next must be the same. Prints the seed and how many prefixes were compared; the first
that differs ends it, with the option that plays that workflow again.
"""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from campaigns import whole_number
from crash_simulation import (
    GATES,
    GOES_ON,
    NAMES,
    STOPS,
    Behaviour,
    Script,
    SimulatedHost,
    Undoing,
    World,
    lines,
    owned,
)
from dotmac_workflows._core import codec
from dotmac_workflows._core.decide import decide
from dotmac_workflows._core.events import Event, Settings
from dotmac_workflows._core.state import RunState, apply, replay
from dotmac_workflows.values import Codec

_BATCH = 200
_VALUES = Codec()


class DifferenceError(AssertionError):
    """A prefix amounts to something else than what was live."""


class _WatchedHost(SimulatedHost):
    """Keeps the live state at every commit."""

    live: dict[int, RunState]

    async def commit(self, state: RunState, events: list[Event]) -> None:
        await super().commit(state, events)
        self.live[state.version] = owned(state)


def random_script(chance: random.Random) -> Script:
    """Draw what happens to a workflow."""
    length = chance.randint(1, len(NAMES))
    continues = chance.random() < 0.2
    goes_on: tuple[Behaviour, ...] = (*GOES_ON, "fail") if continues else GOES_ON
    behaviours = chance.choices(goes_on, k=length)
    if chance.random() < 0.8:
        behaviours[chance.randrange(length)] = chance.choice(STOPS)
    ways: tuple[Undoing, ...] = ("ok", "ok", "none", "fail")
    settings = Settings(
        rollback_on_failure=not continues and chance.random() < 0.7,
        continue_on_step_failure=continues,
        require_approval=any(behaviour in GATES for behaviour in behaviours),
        rollback_on_cancel=chance.random() < 0.6,
        on_rollback_failure=chance.choice(("continue", "halt")),
    )
    script = Script(tuple(behaviours), tuple(chance.choices(ways, k=length)), settings)
    return chance.choice((script, script._replace(then="retry"), script._replace(then="waive")))


def compare(seed: str) -> int:
    """Play one random workflow and compare each prefix of its journal; return how many there are.

    Raises:
        DifferenceError: One amounts to something else.
    """
    chance = random.Random(seed)
    script = random_script(chance)
    live: dict[int, RunState] = {}
    host = type("Host", (_WatchedHost,), {"live": live})
    world = World(script, sorted(chance.sample(range(120), chance.randint(0, 3))), host=host)
    world.play()
    read = [codec.decode(*_row(event), _VALUES) for event in world.journal]
    by_and_by = RunState("simulated")
    for length, event in enumerate(read, 1):
        apply(by_and_by, event)
        folded = replay("simulated", read[:length])
        for what, state in (("live", live.get(length)), ("folded by and by", by_and_by)):
            if state is not None and (folded != state or _next(folded) != _next(state)):
                raise DifferenceError(
                    f"the first {length} records amount to {folded}, and {what} it was {state}\n{script}\n"
                    f"{lines(world.journal)}\nagain: python -m tests.campaigns.prefixes --only {seed}"
                )
    return len(read)


def _row(event: Event) -> tuple[str, int, str]:
    kind, body = codec.encode(event, _VALUES)
    return kind, event.at, body


def _next(state: RunState) -> list[Any]:
    """Return what is decided of a state, with the types of the facts: equal fields alone would make them equal."""
    events, action = decide(state, 10**9)
    return [(type(fact), fact) for fact in (*events, action)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.prefixes", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--count", type=whole_number, help="how many workflows")
    what.add_argument("--only", metavar="SEED", help="this one alone, as a difference names it")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--jobs", type=whole_number, default=os.cpu_count() or 1, help="how many processes")
    options = parser.parse_args(arguments)
    if options.only is not None:
        print(f"{compare(options.only)} prefixes, each as it was live")
        return 0
    print(f"seed {options.seed}, {options.jobs} processes", flush=True)
    began = time.monotonic()
    batches = range(0, options.count, _BATCH)
    share = partial(_share, options.seed, options.count)
    try:
        if options.jobs == 1:
            compared = sum(map(share, batches))
        else:
            with multiprocessing.Pool(options.jobs) as pool:
                compared = sum(pool.imap_unordered(share, batches))
    except AssertionError as broken:  # a promise, or a prefix
        print(f"error: {broken}", file=sys.stderr)
        return 1
    print(
        f"{options.count} workflows in {time.monotonic() - began:.0f} s: {compared} prefixes folded again, "
        "each the state that was live there"
    )
    return 0


def _share(seed: int, count: int, begin: int) -> int:
    return sum(compare(f"{seed}/{number}") for number in range(begin, min(begin + _BATCH, count)))


if __name__ == "__main__":
    sys.exit(main())
