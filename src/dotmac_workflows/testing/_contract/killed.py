"""A process that appends until it is killed, and tells through a pipe what was acknowledged."""

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from ...persistence import Header, Lease
from .bench import Bench, Factory, opened
from .comparing import Broken, describe_error
from .rows import header, records, taken

BATCH = 3


class NotStartedError(Exception):
    """No process could be started with the factory."""


def can_be_sent(factory: Factory) -> bool:
    """Tell whether another process can be handed the factory, as `multiprocessing` does it."""
    try:
        ForkingPickler.dumps(factory)
    except Exception:  # whatever an object of the author's raises when it is pickled
        return False
    return True


def written(workflow_id: str, version: int) -> tuple[Header, Lease]:
    """Return the header and the lease that the writer leaves at a version."""
    return header(workflow_id, version, pending_step=f"step {version}"), Lease("owner of t1", "t1", version)


def kill_a_writer(bench: Bench, name: str, workflow_id: str, appends: int) -> int:
    """Kill a process that appends, once it has told of so many; return how many records it had acknowledged by then.

    Waits for it: to be called in a thread.

    Args:
        bench: Its factory opens the store in the process.
        name: Of the store.
        workflow_id: What is appended to, from its beginning.
        appends: How many.

    Raises:
        NotStartedError: It did not begin.
        Broken: It began, and could not append.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_write, args=(bench.factory, name, workflow_id, sending), daemon=True)
    process.start()
    sending.close()
    try:
        if _received(receiving, bench) != "ready":
            raise NotStartedError
        acknowledged = 0
        while (told := _received(receiving, bench)) is not None:
            if isinstance(told, str):
                raise Broken("another process to append", told)
            acknowledged = told
            if acknowledged >= appends * BATCH:
                process.kill()
        if acknowledged < appends * BATCH:
            raise Broken("another process to append", f"it ended after {acknowledged} records")
        return acknowledged
    finally:
        process.kill()
        process.join()
        receiving.close()


def _received(receiving: "Connection[object, int | str]", bench: Bench) -> int | str | None:
    """Return what the writer tells next; None when it is gone."""
    bench.told += 1
    try:
        if not receiving.poll(bench.patience):
            return f"it did not answer within {bench.patience:g} s"
        return receiving.recv()
    except EOFError:
        return None
    finally:
        bench.told += 1


def _write(factory: Factory, name: str, workflow_id: str, sending: "Connection[int | str, object]") -> None:
    sending.send("ready")
    try:
        asyncio.run(_append_on_and_on(factory, name, workflow_id, sending))
    except Exception as error:  # told, for the one who waits to report it
        sending.send(f"it raised {describe_error(error)}")


async def _append_on_and_on(
    factory: Factory, name: str, workflow_id: str, sending: "Connection[int | str, object]"
) -> None:
    async with opened(factory, name) as backend:
        version, held = 0, None
        while True:
            new = version + BATCH
            head, lease = written(workflow_id, new)
            change = taken(lease.token, replaces=held, expires_at=lease.expires_at)
            await backend.append(
                workflow_id, records(version, BATCH), expected_version=version, header=head, lease=change
            )
            version, held = new, lease.token
            sending.send(version)
