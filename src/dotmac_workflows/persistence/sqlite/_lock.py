"""One lock between processes, held around every commit, every checkpoint, and what may make one.

It is an advisory ``flock`` on a file of its own beside the database. The kernel lets go of it when its holder dies, so
that a crash never leaves it behind, and it belongs to the open file, not to the process: two stores in one process
exclude each other like two processes. A ``threading.Lock`` in front keeps the threads that share one object apart.

Asked for without waiting, again and again with short pauses, since a ``flock`` that waits knows no time limit. Whoever
takes it leaves its host and process id in the file, for the error of those who waited in vain; these words are only for
people, no decision depends on them.

Where the system or the file system has no ``flock``, `available` is False and only the threads are kept apart.
"""

import os
import random
import threading
import time
import weakref
from types import TracebackType

from ...errors import PersistenceError

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]  # the module's absence is tested where it is used

_FIRST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


class InterprocessLock:
    """The lock, as a context manager for the threads of one store.

    Args:
        path: The lock file; created (0600) by `open`, never deleted: a lock on a deleted file excludes nobody.
        time_limit: How long to wait for it, in seconds.
    """

    available: bool
    """Whether other processes are kept out; False until `open` has found out."""

    def __init__(self, path: str, time_limit: float) -> None:
        self.path = path
        self.time_limit = time_limit
        self.available = False
        self._threads = threading.Lock()
        self._descriptor = -1
        self._name = f"{_host_name()} {os.getpid()}\n".encode()
        _all_locks.add(self)

    def open(self) -> bool:
        """Create the lock file where it is missing, and find out whether it can be locked.

        Raises:
            PersistenceError: The file cannot be opened.
        """
        with self._threads:
            if fcntl is not None and self._descriptor < 0:
                self._name = f"{_host_name()} {os.getpid()}\n".encode()
                self._open_file()
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                    self.available = True
                except BlockingIOError:  # somebody holds it: so it works
                    self.available = True
                except OSError:  # ENOLCK, EOPNOTSUPP: this file system has no such lock
                    self.available = False
            return self.available

    def close(self) -> None:
        """Let go of the lock file. `open` takes it up again."""
        with self._threads:
            self._close_file()

    def __enter__(self) -> None:
        """Take the lock.

        Raises:
            PersistenceError: It was not to be had within the time limit; names the host and process that hold it.
        """
        deadline = time.monotonic() + self.time_limit
        if not self._threads.acquire(timeout=self.time_limit):
            raise self._busy()
        try:
            if self.available:
                self._lock_file(deadline)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of the lock. It never raises: what was done under the lock is done."""
        try:
            if self.available and fcntl is not None and self._descriptor >= 0:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError:
            self._close_file()  # which lets go of it as well
        finally:
            self._threads.release()

    def _lock_file(self, deadline: float) -> None:
        assert fcntl is not None
        pause = _FIRST_PAUSE
        while True:
            if self._descriptor < 0:
                self._open_file()
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._busy() from None
                time.sleep(pause * random.uniform(0.5, 1.0))  # uneven, so that those who wait do not march in step
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if os.fstat(self._descriptor).st_nlink > 0:
                break
            self._close_file()  # somebody deleted the file: others will lock a new one, and so must we
        # Reading first costs a microsecond and spares the write whenever nobody else held the lock in between.
        if os.pread(self._descriptor, len(self._name) + 1, 0) != self._name:
            try:
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, self._name, 0)
            except OSError:
                pass  # the disk is full: the lock holds all the same, only its holder stays unnamed

    def _open_file(self) -> None:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PersistenceError(
                f"The lock file {self.path!r} cannot be opened: {error.strerror}. The process must be able to create "
                "and write files in the directory of the database."
            ) from error

    def _close_file(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError:
                pass  # it is closed all the same

    def _busy(self) -> PersistenceError:
        holder = "another process"
        if self.available and self._descriptor >= 0:
            try:
                host, pid = os.pread(self._descriptor, 300, 0).decode(errors="replace").split()
                holder = f"process {pid} on host {host}"
            except (OSError, ValueError):
                pass  # nobody left a name: say it without
        return PersistenceError(
            f"{self.path!r} was not to be had for {self.time_limit:g} s: {holder} holds it, or took it last. "
            "Nothing was written. If that process hangs, end it; then try again."
        )


def _host_name() -> str:
    return os.uname().nodename if hasattr(os, "uname") else "localhost"


_all_locks: "weakref.WeakSet[InterprocessLock]" = weakref.WeakSet()


def _forget_locks() -> None:
    """Close the lock files in a forked child: its copies would keep a lock alive beyond its parent's death."""
    for lock in _all_locks:
        lock._close_file()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
