"""A clause of the contract: a name, a rule, what a broken one costs, and the code that finds out."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from .bench import Bench


class Clause(NamedTuple):
    """A clause of the contract."""

    name: str
    """What it promises, in a few words."""
    rule: str
    """What the backend owes."""
    why: str
    """What a user loses where it does not hold."""
    remedy: str
    """What mends it, as a rule."""
    needs: frozenset[str]
    """What has to be there: names of capabilities, or ``reopens``."""
    check: Callable[[Bench], Awaitable[None]]
    """Finds out; raises whatever goes wrong."""


def clause(
    name: str, *, rule: str, why: str, remedy: str, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Bench], Awaitable[None]]], Clause]:
    """Make a clause of the function that checks it."""

    def made(check: Callable[[Bench], Awaitable[None]]) -> Clause:
        return Clause(name, rule, why, remedy, frozenset(needs), check)

    return made
