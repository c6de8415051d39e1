"""What the test suite does in small, for as long as one likes. Run from the repository, with nothing installed."""

import sys
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(_REPOSITORY / "src"), str(_REPOSITORY / "tests")]
