"""Where the runs of a test are kept: every test of the contract runs on each backend that it makes sense for."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dotmac_workflows.persistence import InMemoryPersistence, SQLitePersistence
from workflows import Backend, Store

settings.register_profile("suite", settings.default, deadline=None)  # a busy machine is no failure
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def the_log_as_it_was() -> Iterator[None]:
    """Campaigns have the library say nothing, for as long as their process lives; here others come after them."""
    logger = logging.getLogger("dotmac_workflows")
    level, disabled = logger.level, logger.disabled
    yield
    logger.setLevel(level)
    logger.disabled = disabled


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each backend that several objects and processes can share."""
    if request.param == "memory":
        yield InMemoryPersistence()
    else:
        async with SQLitePersistence(tmp_path / "journals.db") as opened:
            yield opened


@pytest.fixture(params=["live", "memory", "sqlite"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store | None]:
    """Each place that a run can be kept in; None (``live``) is the object itself."""
    if request.param == "live":
        yield None
    elif request.param == "memory":
        yield InMemoryPersistence()
    else:
        async with SQLitePersistence(tmp_path / "journals.db") as opened:
            yield opened


@pytest.fixture
def backend(any_store: Store | None) -> Backend:
    """The same, with what makes workflows there."""
    return Backend(any_store)
