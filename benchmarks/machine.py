"""On what the figures were taken, and what a flush of its disk costs."""

import os
import platform
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile


def flushes(folder: Path, times: int) -> list[float]:
    """Return how many milliseconds each of some small appends took to reach the disk."""
    samples = []
    path = folder / "flushed"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(times):
            os.write(descriptor, bytes(4096))
            began = time.perf_counter()
            os.fsync(descriptor)
            samples.append((time.perf_counter() - began) * 1e3)
    finally:
        os.close(descriptor)
        path.unlink()
    return samples


def file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on, where the system tells."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    place = str(folder.resolve())
    found = ("", "unknown")
    for line in mounts.read_text().splitlines():
        _, point, kind, *_ = line.split()
        under = place == point or place.startswith(point.rstrip("/") + "/")
        if under and len(point) >= len(found[0]):
            found = (point, kind)
    return found[1]


def processor() -> str:
    """Return what the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def commit() -> str:
    """Return the commit that is measured, and whether the tree differs from it."""
    root = Path(__file__).parents[1]
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()


def about(folder: Path) -> dict[str, Any]:
    """Return the machine, the versions and the flushes."""
    flushed = flushes(folder, 200)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file_system": file_system(folder),
        "fsync_ms": {"p50": round(percentile(flushed, 50), 4), "p99": round(percentile(flushed, 99), 4)},
    }
