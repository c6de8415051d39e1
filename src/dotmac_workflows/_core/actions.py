"""What to do next: what `decide` asks of the host that drives."""

from typing import NamedTuple, TypeAlias

from .events import Event, RollbackStepStarted, StepStarted


class RunStep(NamedTuple):
    """Call the user's step, and come back with what happened."""

    started: StepStarted


class RunRollback(NamedTuple):
    """Call the user's rollback of a step, and come back with what happened."""

    started: RollbackStepStarted
    outcome_unknown: bool
    """Whether the step was interrupted, so that there may be nothing to undo."""


class Wait(NamedTuple):
    """Only a fact from outside moves the run on; a host may wait for one or give its thread back."""


class Stop(NamedTuple):
    """There is nothing to do for this driver: the run ended, or holds."""


Action: TypeAlias = RunStep | RunRollback | Wait | Stop


Decision: TypeAlias = tuple[list[Event], Action]
"""The facts that are to be recorded with what led here, and then what to do."""
