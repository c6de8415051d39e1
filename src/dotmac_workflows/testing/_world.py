"""Making, entering and leaving the world of a scenario, and what it shows."""

import inspect
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar, cast

from ..errors import WorkflowConfigurationError
from . import _words as words
from ._picture import picture
from ._process import Broken
from .scenario import Scenario

W = TypeVar("W")


async def entered(scenario: Scenario[W], worlds: AsyncExitStack) -> W:
    """Return a fresh world; where it is what a context manager gives, that is on the stack.

    Raises:
        WorkflowConfigurationError: It cannot be made or entered.
    """
    with _named("Scenario.world raised"):
        made: Any = scenario.world()
    if inspect.isawaitable(made) and not hasattr(type(made), "__aenter__"):
        if inspect.iscoroutine(made):
            made.close()
        raise WorkflowConfigurationError(
            "Scenario.world returned something to be awaited. Let it return the world, or an async context manager."
        )
    with _named("Scenario.world, when what it returned was entered, raised"):
        context: Any = made
        world: Any = made
        if hasattr(type(made), "__aenter__"):
            world = await worlds.enter_async_context(context)
        elif hasattr(type(made), "__enter__"):
            world = worlds.enter_context(context)
    return cast("W", world)


async def leave(worlds: AsyncExitStack) -> None:
    """Leave what was entered.

    Raises:
        WorkflowConfigurationError: It cannot be left.
    """
    with _named("Scenario.world, when what it returned was left, raised"):
        await worlds.aclose()


async def shown(scenario: Scenario[W], world: W, run_id: str | None) -> object:
    """Return the picture of what counts of a world.

    Raises:
        Broken: `observe` raised.
        WorkflowConfigurationError: It returned what shows nothing.
    """
    if scenario.observe is None:
        return picture(world, run_id)
    try:
        seen = await settled(scenario.observe(world))
    except Exception as error:
        raise Broken(f"Scenario.observe raised {words.error(error)}", error, of_the_scenario=True) from error
    if seen is None or isinstance(seen, Iterator):
        raise WorkflowConfigurationError(
            f"Scenario.observe returned {'None' if seen is None else f'a {type(seen).__name__}'}, which shows "
            "nothing. Let it return what counts, such as a list."
        )
    return picture(seen, run_id)


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Have an error say who raised it."""
    try:
        yield
    except Exception as error:
        raise WorkflowConfigurationError(f"{what} {words.error(error)}") from error


async def settled(value: Any) -> Any:
    """Return what a function of the user's returned, which may be async."""
    return await value if inspect.isawaitable(value) else value
