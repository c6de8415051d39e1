"""Whether the owner of a lease is certainly dead, so that its run can be taken over before the lease expires."""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dotmac_workflows import InMemoryPersistence, WorkflowExecutionError, WorkflowStatus
from dotmac_workflows._run import lease
from dotmac_workflows.persistence import Lease
from scripted import Scripted, ran

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

NOW = 1_000_000
LATER = NOW + 1


def owner(
    *,
    host: str | None = None,
    pid: int | str | None = None,
    start: str | None = None,
    boot: str | None = None,
    namespace: str | None = None,
) -> str:
    """Return this process as an owner, but for what is given."""
    own = lease.this_owner().split(":")
    given = (host, None if pid is None else str(pid), start, boot, namespace)
    return ":".join(mine if other is None else other for mine, other in zip(own, given, strict=True))


def is_free(owner: str, token: str = "token of nobody", *, expires_at: int = LATER) -> bool:
    return lease.is_free(Lease(owner, token, expires_at), NOW)


def start_time(pid: int) -> str:
    """Return the 22nd field of stat, counted by hand."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(") ", 1)[1].split()[19]


@contextlib.contextmanager
def running() -> Iterator[subprocess.Popen[bytes]]:
    """Have another process, which does nothing until it is killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_owner_names_host_process_start_boot_and_namespace() -> None:
    host, pid, start, boot, namespace = lease.this_owner().split(":")
    assert host == socket.gethostname()
    assert int(pid) == os.getpid()
    assert start == start_time(os.getpid())
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        assert boot == file.read().strip()
    assert f"pid:{namespace}" == os.readlink("/proc/self/ns/pid")


def test_no_lease_and_one_that_has_expired_are_free() -> None:
    with running() as process:
        alive = owner(pid=process.pid, start=start_time(process.pid))
        assert lease.is_free(None, NOW)
        assert is_free(alive, expires_at=NOW)
        assert is_free("another machine:1:2:3:4", expires_at=NOW)
        assert not is_free(alive, expires_at=LATER)


def test_of_this_process_the_token_decides() -> None:
    lease.take("token")
    try:
        assert not is_free(owner(), "token")
        assert is_free(owner(), "another token")
    finally:
        lease.drop("token")
    assert is_free(owner(), "token")


def test_a_live_process_keeps_its_lease() -> None:
    with running() as process:
        assert not is_free(owner(pid=process.pid, start=start_time(process.pid)))


def test_a_stopped_process_is_alive() -> None:
    with running() as process:
        alive = owner(pid=process.pid, start=start_time(process.pid))
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert not is_free(alive)


def test_a_pid_that_another_process_has_by_now_is_a_dead_owners() -> None:
    with running() as process:
        assert is_free(owner(pid=process.pid, start=str(int(start_time(process.pid)) - 1)))
        assert is_free(owner(pid=process.pid, start="x"))


def test_a_dead_process_loses_its_lease() -> None:
    with running() as process:
        dead = owner(pid=process.pid, start=start_time(process.pid))
        process.kill()
        process.wait()
        assert is_free(dead)


def test_a_process_that_has_exited_is_dead_before_its_parent_asks_for_it() -> None:
    with running() as process:
        dead = owner(pid=process.pid, start=start_time(process.pid))
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # and leave it a zombie
        with open(f"/proc/{process.pid}/stat", encoding="ascii") as stat:
            assert ") Z " in stat.read()
        assert is_free(dead)


@pytest.mark.parametrize("what", ["boot", "namespace"])
def test_where_the_pid_means_nothing_only_the_expiry_counts(what: str) -> None:
    with running() as process:
        start = start_time(process.pid)
        process.kill()
        process.wait()
        elsewhere = owner(pid=process.pid, start=start, **{what: "elsewhere"})
        assert not is_free(elsewhere)
        assert is_free(elsewhere, expires_at=NOW)
        unknown = owner(pid=process.pid, start=start, **{what: ""})
        assert not is_free(unknown)
    assert not is_free(owner(**{what: "elsewhere"}))


def test_another_name_of_the_same_machine_changes_nothing() -> None:
    with running() as process:
        start = start_time(process.pid)
        assert not is_free(owner(host="renamed", pid=process.pid, start=start))
        process.kill()
        process.wait()
        assert is_free(owner(host="renamed", pid=process.pid, start=start))


def test_of_a_process_that_may_not_be_looked_at_only_the_expiry_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc mounted with hidepid shows no process of another user."""

    def hidden(path: str, **kwargs: object) -> None:
        raise FileNotFoundError(path)

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    with running() as process:
        alive = owner(pid=process.pid, start=start_time(process.pid))
        monkeypatch.setattr(lease, "open", hidden, raising=False)
        assert not is_free(alive)
        monkeypatch.setattr(os, "kill", forbidden)
        assert not is_free(alive)
        monkeypatch.undo()
        process.kill()
        process.wait()
        assert is_free(alive)


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        ":",
        "::::",
        "worker-7",
        "host:1",
        "host:1:2:3",
        "host:1:2:3:4:5",
        "\0",
        "host\n:1:2:3:4",
        "x" * 100_000,
        ":" * 100_000,
    ],
)
def test_an_owner_of_another_form_counts_until_its_expiry(malformed: str) -> None:
    assert not is_free(malformed)
    assert is_free(malformed, expires_at=NOW)
    assert isinstance(lease.describe(malformed), str)


@pytest.mark.parametrize(
    "pid", ["", " ", "x", "-1", "1.0", "0x1", "²", "٣", "9" * 5_000, "9" * 30, "0", "../1", "self", "+1"]
)
def test_a_pid_that_is_none_counts_until_its_expiry(pid: str) -> None:
    assert not is_free(owner(pid=pid))
    assert is_free(owner(pid=pid), expires_at=NOW)


def test_an_owner_is_told_by_host_and_process() -> None:
    assert lease.describe("host-7:42:1:2:3") == "host-7 (process 42)"
    assert lease.describe("worker-7") == "worker-7"


@pytest.mark.parametrize("proc", ["readable", "not there"])
async def test_a_run_that_this_process_no_longer_drives_goes_on_at_once(
    proc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on systems that have no /proc, where nothing can be told of other processes."""
    if proc == "not there":
        _without_proc(monkeypatch)
    store = InMemoryPersistence()

    class Vanished(BaseException):
        """Leaves without letting go, as a task does that is never awaited to its end."""

    async def vanish() -> None:
        monkeypatch.setattr(store, "append", _vanished)
        raise Vanished

    async def _vanished(*args: object, **kwargs: object) -> None:
        raise Vanished

    workflow = Scripted("order-1", ["a"], persistence=store, script={"a": lambda _: vanish()})
    with pytest.raises(Vanished):
        await workflow.execute()
    monkeypatch.delattr(store, "append")
    assert await store.lease("order-1") is not None

    again = await Scripted.load("order-1", store)
    await again.resume()
    assert (again.status, ran(again)) == (WorkflowStatus.COMPLETED, ["a"])


async def test_a_run_of_a_live_process_is_refused_naming_owner_and_lease() -> None:
    store = InMemoryPersistence()
    with pytest.raises(KeyboardInterrupt):
        await Scripted("order-1", ["a"], persistence=store, script={"a": KeyboardInterrupt()}).execute()
    with running() as process:
        alive = owner(host="host-7", pid=process.pid, start=start_time(process.pid))
        await claim(store, "order-1", Lease(alive, "another's", 4_102_444_800_000_000))
        workflow = await Scripted.load("order-1", store)
        with pytest.raises(WorkflowExecutionError) as caught:
            await workflow.resume()
        assert str(caught.value) == (
            f"Workflow 'order-1' is already running: host-7 (process {process.pid}) holds its lease until 2100-01-01 "
            "00:00:00Z. Wait for it, or call resume() after that."
        )
        assert caught.value.workflow_id == "order-1"
        process.kill()
        process.wait()
        await workflow.resume()
        assert (workflow.status, ran(workflow)) == (WorkflowStatus.COMPLETED, ["a"])


@pytest.mark.parametrize("expires_at", [2**62, 253_402_300_800_000_000])
async def test_a_lease_beyond_the_calendar_is_told_too(expires_at: int) -> None:
    store = InMemoryPersistence()
    with pytest.raises(KeyboardInterrupt):
        await Scripted("order-1", ["a"], persistence=store, script={"a": KeyboardInterrupt()}).execute()
    await claim(store, "order-1", Lease("another machine:1:2:3:4", "another's", expires_at))
    workflow = await Scripted.load("order-1", store)
    with pytest.raises(WorkflowExecutionError) as caught:
        await workflow.resume()
    assert str(caught.value) == (
        "Workflow 'order-1' is already running: another machine (process 1) holds its lease until after the year "
        "9999. Wait for it, or call resume() after that."
    )


async def claim(store: InMemoryPersistence, workflow_id: str, held: Lease) -> None:
    """Have another process drive a run."""
    from dotmac_workflows._core.events import Claimed
    from dotmac_workflows._core.state import apply
    from dotmac_workflows._run.journal import StoredJournal
    from dotmac_workflows.persistence import LeaseChange
    from dotmac_workflows.values import Codec

    journal = StoredJournal(store, workflow_id, Codec())
    state = await journal.load()
    claimed = Claimed(NOW, held.owner, held.token)
    apply(state, claimed)
    in_place = await store.lease(workflow_id)
    replaces = in_place.token if in_place is not None else None
    await journal.append(state, [claimed], LeaseChange(held.token, held.owner, held.expires_at, replaces))


def _without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(path: str, **kwargs: object) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(lease, "open", not_there, raising=False)
    monkeypatch.setattr(os, "readlink", not_there)
    monkeypatch.setattr(os, "kill", None)  # on Windows it would end the process, whatever the signal
    for name in ("_owner", "_boot_id", "_pid_namespace"):
        monkeypatch.setattr(lease, name, functools.cache(getattr(lease, name).__wrapped__))


def test_where_there_is_no_proc_only_the_expiry_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_proc(monkeypatch)
    assert not is_free(owner(pid=os.getppid()))
    assert not is_free(owner(start="1"))
    assert is_free(owner(start="1"), expires_at=NOW)


def test_where_there_is_no_proc_an_earlier_process_of_the_same_pid_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container every process may be number 1."""
    _without_proc(monkeypatch)
    earlier = lease.this_owner()
    assert is_free(earlier, "token of nobody"), "it is still this process"
    lease._owner.cache_clear()
    assert lease.this_owner() != earlier
    assert not is_free(earlier, "token of nobody")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_another_owner_and_holds_nothing_of_its_parents() -> None:
    lease.take("parent's")
    own = lease.this_owner()
    (read_end, write_end) = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            known = lease._owner.cache_info().currsize
            free = lease.is_free(Lease(own, "parent's", LATER), NOW)
            os.write(write_end, f"{lease.this_owner()} {free} {len(lease._live)} {known}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        said = answer.read().split(" ")
    os.waitpid(child, 0)
    lease.drop("parent's")
    assert said[0].split(":")[1] == str(child)
    assert said[1:] == ["False", "0", "0"]


def test_a_pid_has_one_to_ten_digits_and_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_start_time", lambda pid: "another")
    for pid in ("7", "1234567890"):
        assert lease._is_gone(pid, "start")
    for pid in ("", "0", "00", "12345678901", "-7", "+7", "1_0", " 7", "\u0667", "x"):
        assert not lease._is_gone(pid, "start"), pid


def test_a_process_that_is_hidden_is_looked_for_without_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as process:
        monkeypatch.setattr(lease, "_start_time", lambda pid: None)
        assert not lease._is_gone(str(process.pid), "start")
        sent: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda pid, signal: sent.append((pid, signal)))
        assert not lease._is_gone(str(process.pid), "start")
        assert sent == [(process.pid, 0)]


def test_an_owner_whose_start_nobody_knows_keeps_its_lease() -> None:
    with running() as process:
        assert not is_free(owner(pid=process.pid, start=""))
        assert not is_free(owner(pid=process.pid, start="").rpartition(":")[0])
        assert not is_free(owner(pid=process.pid, start="x") + ":")


def test_a_process_may_have_any_name() -> None:
    rename = r"open('/proc/self/comm', 'wb', buffering=0).write(b') Z 1 \xff\xe9 ('); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with open(f"/proc/{process.pid}/stat", "rb") as stat:
                name, _, fields = stat.read().rpartition(b") ")
            assert name.endswith(b"() Z 1 \xff\xe9 (")
            start = fields.split()[19].decode()
            assert lease._start_time(process.pid) == start
            assert not is_free(owner(pid=process.pid, start=start))
        finally:
            process.kill()


def test_one_that_has_exited_began_at_no_time() -> None:
    with running() as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # and leave it a zombie
        assert lease._start_time(process.pid) == ""
    assert lease._start_time(process.pid) is None
