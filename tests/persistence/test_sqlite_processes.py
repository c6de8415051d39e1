"""Several processes on one file, and processes that end, fork, hang, or run out of disk."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dotmac_workflows.errors import PersistenceError
from dotmac_workflows.persistence import SQLitePersistence
from journal_rows import header, records

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
PRELUDE = """
import asyncio, os, sys
from journal_rows import header, records
from dotmac_workflows.errors import ConcurrencyError, PersistenceError
from dotmac_workflows.persistence import SQLitePersistence

path = sys.argv[1]

async def append(store, workflow_id, version=0, mark=""):
    rows = records(version, mark=mark)
    await store.append(workflow_id, rows, expected_version=version, header=header(workflow_id, version + 2))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journals.db"


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: object) -> str:
    """Run a script to its end, which must be a good one."""
    process = start(script, *arguments)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


@pytest.fixture
def processes() -> Iterator[list["subprocess.Popen[str]"]]:
    """Ends what a test has started and not ended."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


WRITER = """
async def main():
    name = sys.argv[2]
    acknowledged = 0
    async with SQLitePersistence(path) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for version in range(0, 200, 2):
            await append(store, f"own-{name}", version)
            while True:
                seen = len(await store.read("shared"))
                try:
                    await append(store, "shared", seen, mark=name)
                except ConcurrencyError:
                    continue
                print(seen + 1, flush=True)
                break

asyncio.run(main())
"""


async def test_processes_that_write_at_once_lose_nothing(path: Path, processes: list["subprocess.Popen[str]"]) -> None:
    names = [f"p{number}" for number in range(5)]
    processes += [start(WRITER, path, name) for name in names]
    for process in processes:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won: dict[int, str] = {}
    for name, process in zip(names, processes, strict=True):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        for line in output.split():
            assert int(line) not in won, "two processes were told that the same place is theirs"
            won[int(line)] = name
    assert len(won) == 500
    async with SQLitePersistence(path) as store:
        for name in names:
            assert await store.read(f"own-{name}") == records(0, 200)
        shared = await store.read("shared")
        assert shared == [row for seq in sorted(won) for row in records(seq - 1, mark=won[seq])]


KILLED = """
async def one(store, workflow_id):
    version = 0
    while True:
        await append(store, workflow_id, version)
        version += 2
        os.write(1, f"{workflow_id} {version}\\n".encode())

async def main():
    store = SQLitePersistence(path)
    await asyncio.gather(*(one(store, f"w{number}") for number in range(8)))

asyncio.run(main())
"""


async def test_a_process_that_is_killed_loses_nothing_that_was_acknowledged(path: Path) -> None:
    for turn in range(3):
        process = start(KILLED, path.with_name(f"{turn}.db"))
        assert process.stdout is not None
        acknowledged: dict[str, int] = {}
        for _ in range(300):
            workflow_id, version = process.stdout.readline().split()
            acknowledged[workflow_id] = int(version)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        for line in rest.splitlines():
            workflow_id, version = line.split()
            acknowledged[workflow_id] = int(version)
        async with SQLitePersistence(path.with_name(f"{turn}.db")) as store:
            for workflow_id, at_least in acknowledged.items():
                found = await store.read(workflow_id)
                assert len(found) >= at_least
                assert found == records(0, len(found))
                await store.append(
                    workflow_id,
                    records(len(found)),
                    expected_version=len(found),
                    header=header(workflow_id, len(found) + 2),
                )


async def test_a_program_that_never_closes_ends_well_and_loses_nothing(path: Path) -> None:
    output = run(
        """
store = SQLitePersistence(path)

async def main():
    for version in range(0, 20, 2):
        await append(store, "w", version)
    print(len(await store.read("w")))

asyncio.run(main())
""",
        path,
    )
    assert output == "20\n"
    async with SQLitePersistence(path) as store:
        assert await store.read("w") == records(0, 20)


FORK = """
import gc, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of forking with threads: that is the point

store = SQLitePersistence(path)
if sys.argv[2] == "after use":
    asyncio.run(append(store, "w"))
    assert len(asyncio.run(store.read("w"))) == 2

child = os.fork()
if child == 0:
    async def tries():
        for call in (append(store, "w", 2), store.read("w"), store.find(), store.close(), store.__aenter__()):
            try:
                await call
            except PersistenceError as error:
                assert "before a fork" in str(error) and "Make a new SQLitePersistence" in str(error), error
            else:
                print("not refused", flush=True)
        async with SQLitePersistence(path) as another:  # and that one works
            await append(another, "child")

    async def works():
        await append(store, "child")
        await store.close()

    asyncio.run(tries() if sys.argv[2] == "after use" else works())
    del store
    gc.collect()
    sys.exit(0)

_, status = os.waitpid(child, 0)
assert status == 0, status

async def after():
    await append(store, "w", 2 if sys.argv[2] == "after use" else 0)
    print([found.workflow_id for found in await store.find()])
    await store.close()

asyncio.run(after())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("when", ["before use", "after use"])
async def test_a_store_belongs_to_the_process_that_opened_it(path: Path, when: str) -> None:
    assert run(FORK, path, when) == "['child', 'w']\n"
    async with SQLitePersistence(path) as store:
        assert await store.read("w") == records(0, 4 if when == "after use" else 2)
        assert await store.read("child") == records(0)


ORPHAN = """
import signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from dotmac_workflows.persistence.sqlite._lock import InterprocessLock

lock = InterprocessLock(path, 1)
lock.open()
lock.__enter__()
if os.fork() == 0:
    print("ready", flush=True)
    sys.stdin.readline()  # until the test ends
else:
    signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_died(tmp_path: Path) -> None:
    from dotmac_workflows.persistence.sqlite._lock import InterprocessLock

    process = start(ORPHAN, tmp_path / "lock")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    lock = InterprocessLock(str(tmp_path / "lock"), 2)
    lock.open()
    with lock:
        pass
    lock.close()
    process.communicate()


async def test_a_busy_file_names_the_host_and_process_that_hold_it(
    path: Path, processes: list["subprocess.Popen[str]"]
) -> None:
    async with SQLitePersistence(path) as store:
        await store.append("w", records(0), expected_version=0, header=header("w", 2))
        process = start(
            """
async def main():
    async with SQLitePersistence(path) as store:
        with store._database.lock:
            print("ready", flush=True)
            sys.stdin.readline()

asyncio.run(main())
""",
            path,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        store._database.lock.time_limit = 0.1
        with pytest.raises(PersistenceError) as refusal:
            await store.append("w", records(2), expected_version=2, header=header("w", 4))
        assert f"process {process.pid} on host {os.uname().nodename}" in str(refusal.value)
        assert refusal.value.workflow_id == "w"
        assert await store.read("w") == records(0), "who reads needs no lock"
        store._database.lock.time_limit = 30
        process.stdin.write("go\n")
        process.stdin.flush()
        await store.append("w", records(2), expected_version=2, header=header("w", 4))


DISK_FULL = """
import resource

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    async with SQLitePersistence(path) as store:
        await append(store, "w")
        if sys.argv[2] == "with a reader":
            await store.read("w")
        limit(8_000)
        calls = [append(store, f"b{number}") for number in range(20)]
        alone = await asyncio.gather(append(store, "w", 2), return_exceptions=True)
        together = await asyncio.gather(*calls, return_exceptions=True)
        for outcome in alone + together:
            assert type(outcome) is PersistenceError and outcome.workflow_id, outcome
            said = str(outcome)
            assert "no space is left on the disk" in said and "Nothing of this was stored" in said, said
        assert len(await store.read("w")) == 2
        limit(resource.RLIM_INFINITY)
        await append(store, "w", 2)
        assert len(await store.read("w")) == 4

asyncio.run(main())
"""


@pytest.mark.parametrize("reader", ["with a reader", "without a reader"])
async def test_a_full_disk_is_one_clear_error_and_once_mended_the_store_goes_on(path: Path, reader: str) -> None:
    pytest.importorskip("resource")
    run(DISK_FULL, path, reader)
    async with SQLitePersistence(path) as store:
        assert await store.read("w") == records(0, 4)
        assert [found.workflow_id for found in await store.find()] == ["w"]


READ_ONLY = """
store = SQLitePersistence(path)  # before: another user might not be able to read Python's own modules
if os.geteuid() == 0:  # whom permissions do not bind
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def main():
    try:
        async with store:
            print("opened")
    except PersistenceError as error:
        print(error)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="this system has no permissions of this kind")
@pytest.mark.parametrize("what", ["file", "lock", "directory"])
async def test_a_file_that_can_only_be_read_is_refused_with_the_remedy(what: str) -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own is closed to other users
        path = Path(directory) / "journals.db"
        async with SQLitePersistence(path) as store:
            await store.append("w", records(0), expected_version=0, header=header("w", 2))
        lock = Path(f"{path}-lock")
        if what == "directory":
            path.unlink()
            lock.unlink()
        else:
            lock.chmod(0o666 if what == "file" else 0o444)
            path.chmod(0o444 if what == "file" else 0o666)
        Path(directory).chmod(0o777 if what == "file" else 0o555)
        said = run(READ_ONLY, path)
        Path(directory).chmod(0o700)
    if what == "file":
        assert "may be read but not written" in said
        assert "SQLITE_READONLY" in said
    else:
        assert "lock file" in said
        assert "must be able to create and write files in the directory" in said
