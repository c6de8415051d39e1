"""A virtual environment for each peer, so that their dependencies never meet.

Made once and kept: the requirements are written beside it when it is complete, and when they change it is made anew.
The installer is that of the Python at hand, so that an environment holds the peer and what it needs, and no more.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.catalogue import Peer

LIMIT = 600.0
"""Seconds that an installation may take."""


class UnavailableError(Exception):
    """A peer cannot be installed, or does not start; the text says why."""


def python_of(peer: Peer, folder: Path) -> Path:
    """Return the Python that runs a peer, after installing what it needs.

    Raises:
        UnavailableError: It cannot be installed.
    """
    if not peer.requirements:
        return Path(sys.executable)
    place = folder / peer.name
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = "\n".join((sys.version, *peer.requirements)) + "\n"
    complete = place / "requirements.txt"
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(place)])
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", *options, *peer.requirements])
    complete.write_text(wanted, encoding="utf-8")
    return python


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.CalledProcessError as error:
        said = [line for line in (error.stderr or error.stdout).splitlines() if line.strip()]
        wrong = [line for line in said if line.startswith("ERROR")] or said[-1:] or [f"exit code {error.returncode}"]
        raise UnavailableError("cannot be installed: " + wrong[-1].removeprefix("ERROR: ").strip()) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"cannot be installed: {error}") from None
