"""Which process drives, and whether it certainly no longer does.

An owner is written as ``host:pid:start:boot:namespace``. On the same boot and in the same pid namespace, a pid and
its start time name one process for ever, so a process that is not there is dead and its lease is free at once. Of a
process of another machine, or where ``/proc`` tells nothing, only the expiry counts. A driver of this very process is
alive while its token is in `_live`; where there is no ``/proc``, the start is a random number.
"""

import os
import socket
from functools import cache

from ..persistence import Lease

_live: set[str] = set()


def take(token: str) -> None:
    """Note that a driver of this process holds a token."""
    _live.add(token)


def drop(token: str) -> None:
    """Note that the driver of a token is gone."""
    _live.discard(token)


def this_owner() -> str:
    """Return what names this process as an owner."""
    return _owner(os.getpid())


@cache
def _owner(pid: int) -> str:
    host = socket.gethostname().replace(":", "_") or "localhost"
    # Where nothing tells when it began, a number of its own still tells this process from all others.
    start = _start_time(pid) or os.urandom(8).hex()
    return f"{host}:{pid}:{start}:{_boot_id()}:{_pid_namespace()}"


def is_free(lease: Lease | None, now: int) -> bool:
    """Tell whether a lease may be taken over: none, expired, or its owner certainly dead."""
    if lease is None or lease.expires_at <= now:
        return True
    ours = this_owner()
    if lease.owner == ours:
        return lease.token not in _live
    parts = lease.owner.split(":")
    if len(parts) != 5 or parts[3:] != ours.split(":")[3:] or not all(parts[2:]):
        return False
    return _is_gone(parts[1], parts[2])


def _is_gone(pid: str, start: str) -> bool:
    """Tell whether a process of this boot and namespace has certainly ended."""
    if not (pid.isascii() and pid.isdecimal() and len(pid) <= 10 and int(pid)):
        return False
    found = _start_time(int(pid))
    if found is not None:
        return found != start
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # it may be alive, and hidden from us: /proc can be mounted so
    return False


def describe(owner: str) -> str:
    """Return an owner for a message: its host and process."""
    host, _, rest = owner.partition(":")
    return f"{host} (process {rest.partition(':')[0]})" if rest else owner


def _start_time(pid: int) -> str | None:
    """Return when a process began, in clock ticks since boot; empty: it has exited; None: there is no telling."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # The second field, the name in parentheses, may hold anything, spaces included; the 22nd is the start.
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot_id:
            return boot_id.read().strip()
    except OSError:
        return ""


@cache
def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").removeprefix("pid:")
    except OSError:
        return ""


def _forget_parent() -> None:
    _live.clear()
    _owner.cache_clear()  # a pid can come again


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
