"""What the library logs, as lines for people: without tracebacks, and without what the step lines say already."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from .terminal import Styled, Terminal


class _Notices(logging.Handler):
    def __init__(self, terminal: Terminal, progress: Terminal, *, debug: bool) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal
        self._progress = progress
        self._debug = debug

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what another line says anyway."""
        if self._debug:
            return True
        if record.module == "outcomes":  # a step that failed or has no rollback; its line says so
            return "returned a result for step" in str(record.msg)
        return record.module != "recovery"  # whose summary says it

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, and the traceback where it was asked for."""
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            message += f" ({type(error).__name__}: {error})"
        self._progress.keep_begun()
        self._terminal.line(Styled("warning", "waits"), f": {message}")
        if self._debug and error is not None:
            for line in "".join(traceback.format_exception(error)).splitlines():
                self._terminal.line(line)


@contextmanager
def show_notices(terminal: Terminal, progress: Terminal, *, debug: bool) -> Iterator[None]:
    """Show what the library warns of while this lasts, on a terminal, below what is under way on another.

    Handlers that the user's code sets up get it all as well.
    """
    logger = logging.getLogger("dotmac_workflows")
    handler = _Notices(terminal, progress, debug=debug)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
