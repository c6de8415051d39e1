"""The command line: ``dotmac-workflows``, or ``python -m dotmac_workflows``.

Looking and deciding needs no code of the user's: records are read as plain JSON. What runs steps is given the class.
Steps are told of by watching what the store has made durable, so that nothing of the user's workflow is touched.
"""

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from .arguments import make_parser
from .context import Context
from .exits import FAILED, INTERRUPTED, code_of_error
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
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    program = "python -m dotmac_workflows" if name == "__main__.py" else "dotmac-workflows"
    try:
        arguments = make_parser(program).parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    context = Context(arguments, program)
    with show_notices(context.err, logging.getLogger("dotmac_workflows"), debug=arguments.debug):
        try:
            code: int = arguments.command(context)
        except KeyboardInterrupt:
            context.err.line("Interrupted.")
            code = INTERRUPTED
        except Exception as error:
            if arguments.debug:
                traceback.print_exc()
            unforeseen = code_of_error(error) == FAILED
            message = f"{said(error)} (give --debug for the traceback)" if unforeseen else str(error)
            context.progress.keep_begun()
            context.err.line(Styled("error", "bad"), f": {message}")
            code = code_of_error(error)
    return code
