"""A backend of one's own: three methods over a folder of JSON-lines files.

    PYTHONPATH=src python3 examples/custom_persistence.py [FOLDER]

One file a workflow, one line an append: a line is there to its end or not at all, so that records and header are
stored together or not at all. It is durable when `append` returns (the file and its folder are flushed), and safe
between processes (one lock around each change; `fcntl` is not there on Windows). Its price is that a file is read
whole for every append. It has no leases, which the library warns of: resume only what nobody drives.
"""

import asyncio
import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from dotmac_workflows import (
    ConcurrencyError,
    JournalCorruptError,
    PersistenceError,
    Workflow,
    WorkflowResult,
)
from dotmac_workflows.persistence import Header, LeaseChange, Record


class FolderPersistence:
    """Keeps journals in a folder. Nothing here awaits, so that no task can be cancelled in the middle of a write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        # `lease` is not stored here. That is safe: who takes a run over appends a record that says so, and the check
        # of the version refuses whoever had it before. What is missing is below, at `Leases`.
        with self._locked():
            stored, end = self._read(workflow_id)
            if len(stored) != expected_version:
                raise ConcurrencyError(
                    f"Workflow {workflow_id!r} is at version {len(stored)}, not {expected_version}.",
                    workflow_id=workflow_id,
                    expected_version=expected_version,
                    stored_version=len(stored),
                )
            line = json.dumps({"header": [*header[:2], header.status.value, *header[3:]], "records": records})
            self._write(workflow_id, end, line.encode() + b"\n")

    async def read(self, workflow_id: str, *, after: int = 0) -> list[Record]:
        return self._read(workflow_id)[0][after:]

    async def delete(self, workflow_id: str) -> bool:
        with self._locked():
            found = self._path(workflow_id).exists()
            self._path(workflow_id).unlink(missing_ok=True)
            self._flush_folder()
            return found

    def _path(self, workflow_id: str) -> Path:
        # Never the id itself: it may hold slashes, or differ from another one by its case alone.
        return self.folder / f"{sha256(workflow_id.encode()).hexdigest()}.jsonl"

    def _read(self, workflow_id: str) -> tuple[list[Record], int]:
        """Return the records, and where the last whole line ends: what comes after it is an append that a crash cut."""
        try:
            text = self._path(workflow_id).read_bytes()
        except FileNotFoundError:
            return [], 0
        end = text.rfind(b"\n") + 1
        try:
            lines = [json.loads(line) for line in text[:end].splitlines()]
            return [Record(*row) for line in lines for row in line["records"]], end
        except (ValueError, TypeError, KeyError) as error:
            raise JournalCorruptError(f"{self._path(workflow_id)} is damaged.", workflow_id=workflow_id) from error

    def _write(self, workflow_id: str, end: int, line: bytes) -> None:
        try:
            with open(self._path(workflow_id), "ab") as file:
                file.truncate(end)
                try:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), end)  # a refused append must not be there afterwards
                    raise
            self._flush_folder()
        except OSError as error:
            raise PersistenceError(f"{self.folder} cannot be written: {error}.", workflow_id=workflow_id) from error

    def _flush_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a new file may be gone after a power loss, whatever was flushed into it
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(self.folder / "lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file lets go

    # What more would bring, each found by its methods (`dotmac_workflows.persistence.Leases`, `.Queries`):
    #
    # `lease` and `renew` (Leases), with `append` comparing and storing the lease: execute() and resume() then refuse a
    # run that another process drives, instead of taking it over, where the step in flight would run a second time; a
    # step is interrupted within a second when its run is cancelled from elsewhere.
    #
    # `find` (Queries), over headers: verify(), and with leases recover(), which need to list what there is.


class Report(Workflow):
    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step, requires_approval=step == "write")


async def main(folder: Path) -> None:
    report = Report("report-1", ["collect", "write", "publish"], persistence=FolderPersistence(folder))
    report.configure(require_approval=True)
    await report.execute()
    print(f"{report.status} at {report.pending_approval_step!r}")

    # Another object over the same folder, as another process would make it.
    again = await Report.load("report-1", FolderPersistence(folder))
    results = await again.approve_and_continue(actor="approver@example.com")
    print(f"{again.status}: {', '.join(result.step for result in results)}")

    for record in await FolderPersistence(folder).read("report-1"):
        print(f"  {record.seq:>2} {record.kind}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory(prefix="custom-") as temporary:
            asyncio.run(main(Path(temporary)))
