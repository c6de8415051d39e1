"""How a store makes its commits durable: as this library chooses, and as it never does, to see that it would show."""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from dotmac_workflows.persistence.sqlite import _lock, _schema
from dotmac_workflows.persistence.sqlite._schema import Settings

DURABLE = {
    "wal-full": Settings("wal", 2, 0),
    "truncate-extra": Settings("truncate", 3, 1000),
}
"""What is chosen where the lock between processes works, and where it does not."""
LOSING = {
    "wal-normal": Settings("wal", 1, 0),
    "delete-full": Settings("delete", 2, 1000),
}
"""What loses acknowledged commits when the power fails: the campaign has to find them."""
MODES = DURABLE | LOSING


@contextlib.contextmanager
def in_mode(mode: str) -> Iterator[None]:
    """Have stores opened in a mode."""
    settings = MODES[mode]

    def choose(**found: object) -> Settings:
        return settings

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(_schema, "choose_settings", choose))
        if settings.journal_mode != "wal":
            stack.enter_context(patch.object(_lock, "fcntl", None))
        yield
