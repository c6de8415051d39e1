"""Where the runs of a test are kept: every test of the contract runs on each backend that it makes sense for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dotmac_workflows.persistence import InMemoryPersistence, SQLitePersistence
from workflows import Backend, Store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each backend that several objects and processes can share."""
    if request.param == "memory":
        yield InMemoryPersistence()
    else:
        async with SQLitePersistence(tmp_path / "journals.db") as opened:
            yield opened


@pytest.fixture(params=["live", "memory", "sqlite"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Each place that a run can be kept in; ``live`` is the object itself."""
    if request.param == "live":
        yield Backend(None)
    elif request.param == "memory":
        yield Backend(InMemoryPersistence())
    else:
        async with SQLitePersistence(tmp_path / "journals.db") as opened:
            yield Backend(opened)
