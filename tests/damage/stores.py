"""A small store to damage, and all that can be read of it."""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from dotmac_workflows import SQLitePersistence, WorkflowResult
from scripted import Scripted

STEPS = ["a", "b"]
IDS = ["order-1", "order-2", "order-3", "order-4"]
NAME = "journals.db"
FRAME = 24 + 4096
"""The size of a frame of a write-ahead log, which begins after 32 bytes."""


def commits(log: bytes) -> list[int]:
    """Return which frames of a log, from 0, are the last of a commit."""
    return [number for number in range((len(log) - 32) // FRAME) if any(log[32 + number * FRAME + 4 :][:4])]


async def fill(store: SQLitePersistence) -> None:
    """Make four runs: left by a shutdown, waiting, failed and undone, completed."""
    gated = WorkflowResult(True, "a", {"x": [1, (2, "drei")]}, requires_approval=True)
    left = Scripted("order-1", STEPS, {"amount": 5}, persistence=store, script={"b": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        await left.execute()
    waiting = Scripted("order-2", STEPS, {"amount": 5}, persistence=store, script={"a": gated})
    waiting.configure(require_approval=True)
    await waiting.execute()
    await Scripted("order-3", STEPS, persistence=store, script={"b": RuntimeError("no")}).execute()
    await Scripted("order-4", STEPS, persistence=store).execute()


class Image(NamedTuple):
    """The files of a store."""

    database: bytes
    log: bytes = b""

    def put(self, directory: Path) -> Path:
        """Write them into an empty directory; return the path of the database."""
        path = directory / NAME
        path.write_bytes(self.database)
        if self.log:
            Path(f"{path}-wal").write_bytes(self.log)
        return path


def images() -> Mapping[str, Image]:
    """Return the store as it is when it was closed, and as a killed process leaves it, with all of it in the log."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / NAME

        async def make() -> Image:
            async with SQLitePersistence(path) as store:
                store._writer.idle_seconds = 3600
                await fill(store)
                return Image(path.read_bytes(), Path(f"{path}-wal").read_bytes())

        left = asyncio.run(make())
        return {"closed": Image(path.read_bytes()), "left": left}
