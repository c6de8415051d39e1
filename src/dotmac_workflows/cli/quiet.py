"""What the user's code writes while a proof runs it thousands of times: dropped, so that a terminal stays readable.

Whoever writes later may hold the stream of earlier: the handler of a logger holds the error output of the time when its
module was imported. So the streams that such a module sees are our own from the start. They lead to the real ones, and
for as long as a proof lasts to nowhere.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from typing import Any, TextIO, TypeAlias, cast

Quiet: TypeAlias = Callable[[], AbstractContextManager[None]]


class _Lead:
    """A stream that leads to another one, which may change; all that it can do is done by that one."""

    def __init__(self, stream: TextIO) -> None:
        self.own = self.to = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.to, name)


@contextmanager
def can_be_quiet() -> Iterator[Quiet]:
    """Set up the standard streams for a module that is to be imported, and give what makes it quiet for a while.

    While it is quiet, what is written to the standard output and the error output is dropped, and so is what is logged,
    wherever to. A `Terminal` that was made before is not concerned.
    """
    leads = _Lead(sys.stdout), _Lead(sys.stderr)
    out, err = (cast("TextIO", lead) for lead in leads)
    with redirect_stdout(out), redirect_stderr(err):
        yield partial(_quiet, leads)


@contextmanager
def _quiet(leads: tuple[_Lead, ...]) -> Iterator[None]:
    disabled = logging.root.manager.disable
    with open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere:
        try:
            for lead in leads:
                lead.to = nowhere
            logging.disable(sys.maxsize)  # above every level, those of a program's own included
            yield
        finally:
            logging.disable(disabled)
            for lead in leads:
                lead.to = lead.own
