"""What `prove` is told, and whether it makes sense."""

from collections.abc import Callable, Collection
from typing import NamedTuple, TypeAlias, get_args

from ..errors import WorkflowConfigurationError
from ._schedule import DepartureKind, FaultKind

Progress: TypeAlias = Callable[[int, int], object]
_MAY_BE_LEFT_OUT = {*get_args(DepartureKind), *get_args(FaultKind), "pair", "clock"} - {"wake"}


class Options(NamedTuple):
    """The options of `prove`."""

    budget: int
    seed: int
    only: str | None
    without: Collection[str]
    progress: Progress | None

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            WorkflowConfigurationError: With the option's name.
        """
        known = ", ".join(sorted(_MAY_BE_LEFT_OUT))
        if not isinstance(self.budget, int) or isinstance(self.budget, bool) or self.budget < 1:
            raise wrong(f"the budget is {self.budget!r}", "A budget is a whole number from 1")
        if not isinstance(self.seed, int):
            raise wrong(f"the seed is {self.seed!r}", "A seed is a whole number")
        if self.only is not None and not isinstance(self.only, str):
            raise wrong(f"only is {self.only!r}", "It is the text of a schedule, as a ProofError names it")
        if isinstance(self.without, str) or not isinstance(self.without, Collection):
            raise wrong(f"without is {self.without!r}", f'It is a list, such as ["pair"], that may name {known}')
        unknown = [name for name in self.without if name not in _MAY_BE_LEFT_OUT]
        if unknown:
            raise wrong(f"without names {', '.join(map(str, unknown))}", f"It may name {known}")
        if self.progress is not None and not callable(self.progress):
            raise wrong(f"progress is {self.progress!r}", "It is a function of two numbers")


def wrong(what: str, remedy: str) -> WorkflowConfigurationError:
    """Return the error of an argument that makes no sense."""
    return WorkflowConfigurationError(f"prove(): {what}. {remedy}.")
