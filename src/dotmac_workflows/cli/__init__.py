"""The command line: ``dotmac-workflows``, or ``python -m dotmac_workflows``.

Looking and deciding needs no code of the user's: records are read as plain JSON. What runs steps is given the class.
Steps are told of by watching what the store has made durable, so that nothing of the user's workflow is touched.
"""

import os
import sys
import traceback
from collections.abc import Sequence

from .arguments import make_parser
from .context import Context
from .exits import FAILED, INTERRUPTED, USAGE, CommandError, code_of_error
from .loading import said
from .notices import show_notices
from .terminal import Styled

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command.

    Args:
        argv: The arguments; None: those of the process.

    Returns:
        The exit code; see ``--help``.
    """
    parser = make_parser(_program())
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        arguments = parser.parse_args(given)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE
    context = Context(arguments, parser.prog)
    with show_notices(context.err, context.progress, debug=arguments.debug):
        try:
            code: int = arguments.command(context)
        except KeyboardInterrupt:
            context.err.line("Interrupted.")
            code = INTERRUPTED
        except Exception as error:
            code = _tell(context, error)
    return code


def _program() -> str:
    """Return how the user calls this."""
    folder, name = os.path.split(sys.argv[0] if sys.argv else "")
    as_module = name == "__main__.py" and os.path.basename(folder) == "dotmac_workflows"
    return "python -m dotmac_workflows" if as_module else "dotmac-workflows"


def _tell(context: Context, error: Exception) -> int:
    """Say what went wrong in one line; return the exit code."""
    context.progress.keep_begun()
    if context.arguments.debug:
        for line in traceback.format_exc().splitlines():
            context.err.line(line)
    code = code_of_error(error)
    foreseen = code != FAILED or isinstance(error, CommandError)
    message = str(error) if foreseen else f"{said(error)} (--debug shows the traceback)"
    context.err.line(Styled("error", "bad"), f": {message}")
    return code
