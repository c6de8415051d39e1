"""How a command ended, as a number for scripts and a line for people."""

from ..errors import (
    LeaseLostError,
    PayloadTooLargeError,
    PersistenceError,
    ResultNotSerializableError,
    WorkflowConfigurationError,
    WorkflowError,
)
from ..status import WorkflowStatus

DONE = 0
FAILED = 1
USAGE = 2
WAITS = 3
STORE = 4
REFUSED = 5
INTERRUPTED = 130

EXIT_CODES = """\
exit codes:
    0  done: the run completed, or the command did what it says
    1  the run failed, was rejected or was cancelled; prove found a fault;
       or an unforeseen error
    2  wrong as given: the arguments, the class, an input file
    3  the run waits for an approval, or is paused
    4  the database cannot be used, or what it holds is damaged
    5  refused: no such run, or it is driven, decided or ended already
  130  interrupted; the run goes on where it stopped when it is asked to
"""


class CommandError(Exception):
    """What is wrong with a command, in one line; `code` is the exit code."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def code_of_error(error: Exception) -> int:
    """Return the exit code for an error."""
    match error:
        case CommandError():
            return error.code
        case WorkflowConfigurationError() | ResultNotSerializableError() | PayloadTooLargeError():
            return USAGE
        case LeaseLostError():
            return REFUSED
        case PersistenceError():
            return STORE
        case WorkflowError():
            return REFUSED
    return FAILED


def code_of_status(status: WorkflowStatus) -> int:
    """Return the exit code for where a run stands after it was driven."""
    if status is WorkflowStatus.COMPLETED:
        return DONE
    return FAILED if status in (WorkflowStatus.FAILED, WorkflowStatus.CANCELLED) else WAITS
