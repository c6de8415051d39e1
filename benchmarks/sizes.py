"""How much of everything is done: in full, and to see quickly that it works."""

from typing import NamedTuple


class Sizes(NamedTuple):
    """The cases of the scenarios, the smallest first."""

    steps: tuple[int, ...]
    """Of a workflow in memory."""
    alone: int
    """Workflows in a round of one at a time."""
    at_once: tuple[int, ...]
    sleeping: tuple[int, ...]
    """At once, with steps that sleep."""
    waiting: tuple[int, ...]
    approved: int
    """Of those that wait, in one process, after the first."""
    crashed: int
    undone: int
    """Workflows in a round of those that are undone durably; ten times as many in memory."""
    in_memory: int
    """Runs whose memory is measured together."""
    on_disk: int
    """Runs whose files are measured together."""
    stored: tuple[int, ...]
    """Completed runs in a store that grew."""


FULL = Sizes(
    steps=(10, 100, 1000, 10_000),
    alone=20,
    at_once=(100, 1000),
    sleeping=(100, 1000),
    waiting=(1000, 100_000),
    approved=20,
    crashed=1000,
    undone=20,
    in_memory=200,
    on_disk=200,
    stored=(1000, 100_000, 1_000_000),
)
QUICK = Sizes(
    steps=(10, 100),
    alone=3,
    at_once=(100,),
    sleeping=(100,),
    waiting=(100,),
    approved=3,
    crashed=50,
    undone=3,
    in_memory=50,
    on_disk=20,
    stored=(1000,),
)
