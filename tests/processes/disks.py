"""Disks with little room: a small file system in memory, or a limit on the size of files."""

import ctypes
import os
from pathlib import Path
from typing import Protocol

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]  # where it is missing, no process asks for it

PAGE = 4096
_NEW_MOUNTS, _REMOUNT, _PRIVATE = 0x0002_0000, 32, (1 << 14) | (1 << 18)  # linux/sched.h, linux/mount.h


class Disk(Protocol):
    """Where the files of a store lie."""

    name: str

    def limit(self, pages: int) -> None:
        """Have room for so many pages from now on."""

    def make_room(self) -> None:
        """Have room for all."""


class FileLimit:
    """No file of this process grows beyond the limit."""

    name = "RLIMIT_FSIZE"

    def limit(self, pages: int) -> None:
        """See `Disk.limit`; what the ledger needs, which is such a file too, is always there."""
        resource.setrlimit(resource.RLIMIT_FSIZE, ((pages + 2) * PAGE, resource.RLIM_INFINITY))

    def make_room(self) -> None:
        """See `Disk.make_room`."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class SmallDisk:
    """A file system of its own in memory, which only this process and its children see."""

    name = "tmpfs"

    def __init__(self, place: Path) -> None:
        self._place = place

    def limit(self, pages: int) -> None:
        """See `Disk.limit`; it is mounted already."""

    def mount(self, pages: int) -> None:
        """Mount one of so many pages.

        Raises:
            OSError: This process may not.
        """
        self._mount(0, pages)

    def resize(self, pages: int) -> None:
        """Have so many pages in all.

        Raises:
            OSError: There is more in it.
        """
        self._mount(_REMOUNT, pages)

    def make_room(self) -> None:
        """See `Disk.make_room`."""
        self.resize(100_000)

    def unmount(self) -> None:
        """Forget all that is in it."""
        _call("umount2", str(self._place).encode(), 2)  # at once, whoever has a file open

    def _mount(self, flags: int, pages: int) -> None:
        place = str(self._place).encode()
        _call("mount", b"small", place, b"tmpfs", ctypes.c_ulong(flags), f"size={pages * PAGE}".encode())


def disk_of(name: str, place: Path) -> Disk | None:
    """Return a disk by its name; None: it is none."""
    if name == FileLimit.name:
        return FileLimit()
    return SmallDisk(place) if name == SmallDisk.name else None


def leave_mounts() -> bool:
    """Have what this process mounts be seen by it and its children alone; False: it may not mount anything."""
    try:
        _call("unshare", _NEW_MOUNTS)
        _call("mount", b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None)
    except (AttributeError, OSError):  # another system; not root, or in a container
        return False
    return True


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
