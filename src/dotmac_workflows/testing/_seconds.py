"""The seconds that a test hands in, looked at before anything is made of them."""

from datetime import timedelta

from ..errors import WorkflowConfigurationError

DAY = 86_400
"""What nothing outside is waited for longer than, in seconds: no selector takes more than some days."""


def check_seconds(what: str, seconds: object, most: int, *, above_zero: bool = False) -> None:
    """Refuse what is no number of seconds, or one that is out of range.

    Args:
        what: What they are, with a verb, such as ``The patience of run() is``.
        seconds: What was handed in.
        most: How many there may be.
        above_zero: Whether 0 is too few.

    Raises:
        WorkflowConfigurationError: They are none: a bool, a text, NaN, a timedelta; or they are too few or too many.
    """
    if (
        isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and 0 <= seconds <= most
        and (seconds or not above_zero)
    ):
        return
    instead = f"a number of seconds, {'above 0, to' if above_zero else 'from 0 to'} {most:,}"
    if isinstance(seconds, timedelta):
        instead = "its .total_seconds()"
    raise WorkflowConfigurationError(f"{what} {shown(seconds)}. Give {instead}.")


def shown(value: object) -> str:
    """Return how an error shows what was handed in: in a line, however long it is."""
    if isinstance(value, int) and value.bit_length() > 200:  # Python writes no int of some thousand digits
        return f"an int of {value.bit_length():,} bits"
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
