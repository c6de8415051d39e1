"""What a user tells `prove`: how to make a world and a workflow in it, and what must hold at the end."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..base import Workflow
from ..errors import WorkflowConfigurationError
from ..persistence import Persistence
from ..status import WorkflowStatus
from ..types import JsonObject

W = TypeVar("W")


@dataclass(frozen=True, kw_only=True)
class Scenario(Generic[W]):
    """A workflow, the world that it changes, and what must be so when it has ended.

    The world is what the steps act on, made of fakes: an account with a balance, a shelf with stock. `prove` makes a
    new one for every schedule. It need not know of `prove`; each call that a step makes of a public method of it, or of
    an object in one of its attributes, is taken for one effect, before and after which a process may die.

    Two things are held to in every schedule, without a word from you: a run that a crash, a takeover or a pause
    interrupted ends as one that nothing interrupted, in the same status and with the world showing the same; and a
    run that was undone leaves the world as it found it.
    """

    world: Callable[[], W | AbstractContextManager[W] | AbstractAsyncContextManager[W]]
    """Makes a fresh world. Where it returns a context manager, sync or async, that is entered, and left after the
    schedule. None: the steps change nothing outside of the workflow."""
    workflow: Callable[[W, str, Persistence], Workflow]
    """Makes the workflow in a world: ``lambda shop, id, db: Order(id, shop, persistence=db)``. Called once for each
    process that drives, so nothing but the world and the store outlives one."""
    observe: Callable[[W], object] | None = None
    """What of the world counts: ``lambda shop: (shop.stock, shop.balance)``. Left out: its public attributes, and those
    of the objects in them; names with a leading underscore are its own affair. May be async."""
    check: Callable[[W, Workflow], object] | None = None
    """Asserts what must hold at the end of every schedule, of the world and the workflow that ended. May be async."""
    approval: JsonObject | None = None
    """What an approval brings: the ``approval_data`` behind a gate."""
    ends: WorkflowStatus = WorkflowStatus.COMPLETED
    """How a run ends in which every step does as it does and every gate is approved."""
    name: str = ""
    """What reports call it; left out: the workflow's class."""

    def __post_init__(self) -> None:
        """Refuse what is no scenario.

        Raises:
            WorkflowConfigurationError: With the attribute's name.
        """
        for name in ("world", "workflow", "observe", "check"):
            given = getattr(self, name)
            if not callable(given) and (given is not None or name in ("world", "workflow")):
                raise WorkflowConfigurationError(f"Scenario(): {name} is {given!r}. Give a function.")
        if self.approval is not None and not isinstance(self.approval, Mapping):
            raise WorkflowConfigurationError(
                f"Scenario(): approval is {self.approval!r}. Give the data that it brings, as a dictionary."
            )
        if not isinstance(self.ends, WorkflowStatus):
            raise WorkflowConfigurationError(
                f"Scenario(): ends is {self.ends!r}. Give a WorkflowStatus, such as WorkflowStatus.FAILED."
            )
