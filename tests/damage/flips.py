"""Flipped bits in the files of a store: what they change is noticed in an error of ours, and nothing overwritten."""

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from damage.stores import FRAME, IDS, NAME, STEPS, Image, commits, images
from dotmac_workflows import (
    PersistenceError,
    SQLitePersistence,
    WorkflowError,
    WorkflowNotFoundError,
    verify,
)
from dotmac_workflows.testing._judge import Violation
from scripted import Scripted

Result = TypeVar("Result")

VERBS = (
    "load",
    "execute",
    "resume",
    "approve",
    "approve_and_continue",
    "reject_and_cancel",
    "pause",
    "cancel",
    "retry",
    "retry_rollback",
)
_PATIENCE = 60.0
"""In seconds; what takes longer hangs."""


class Flip(NamedTuple):
    """A bit of a file of an image."""

    image: str
    suffix: str
    """``-wal``, or empty for the database."""
    place: int
    bit: int

    def __str__(self) -> str:
        return f"{self.image}/{NAME}{self.suffix}/{self.place}/{self.bit}"


def parse(text: str) -> Flip:
    """Return the flip that was written so."""
    image, name, place, bit = text.split("/")
    return Flip(image, name.removeprefix(NAME), int(place), int(bit))


class Seen(NamedTuple):
    """What a store shows of itself."""

    opened: bool
    contents: list[object]
    """All that can be read."""
    noticed: list[PersistenceError]
    """What it says is damaged."""
    damaged: list[str]
    """The workflows that it says cannot be read."""


class Flipper:
    """Flips bits of the images of a store, one at a time, in a directory of its own."""

    def __init__(self, directory: Path, runner: asyncio.Runner) -> None:
        self._directory = directory
        self._runner = runner
        self._images = images()
        self._sound = {name: self._look(image).contents for name, image in self._images.items()}
        left = self._images["left"]
        self._last_commit = 32 + (commits(left.log)[-2] + 1) * FRAME
        """Where the last commit of the log begins, which nobody can tell from one that a crash cut off."""
        self._without_last = self._look(left._replace(log=left.log[: self._last_commit])).contents
        assert self._without_last not in self._sound.values()
        self.outcomes: Counter[str] = Counter()

    def draw(self, chance: random.Random) -> Flip:
        """Draw a bit; most of the time one of a byte that is not zero, since those are in use."""
        image, suffix = chance.choice(
            (("closed", ""), ("closed", ""), ("left", "-wal"), ("left", "-wal"), ("left", ""))
        )
        content = self.content(image, suffix)
        place = chance.randrange(len(content))
        while not content[place] and chance.random() < 0.9:
            place = chance.randrange(len(content))
        return Flip(image, suffix, place, chance.randrange(8))

    def play(self, flip: Flip) -> str:
        """Flip a bit and use the store; return what came of it.

        Raises:
            Violation: It was not noticed and changed something, or something was overwritten, or an error was none of
                ours.
        """
        image = self._images[flip.image]
        damaged = bytearray(self.content(flip.image, flip.suffix))
        damaged[flip.place] ^= 1 << flip.bit
        image = image._replace(log=bytes(damaged)) if flip.suffix else image._replace(database=bytes(damaged))
        try:
            outcome = self._outcome(flip, image)
        except WorkflowError as error:
            raise Violation(f"invariant 14: {flip}: an error where none was due: {error!r}") from error
        except Violation as violation:
            raise Violation(f"invariant 14: {flip}: {violation}") from violation
        except Exception as error:
            raise Violation(f"invariant 14: {flip}: an error that is none of ours: {error!r}") from error
        self.outcomes[outcome] += 1
        return outcome

    def content(self, image: str, suffix: str) -> bytes:
        """Return a file of an image."""
        return self._images[image].log if suffix else self._images[image].database

    def _outcome(self, flip: Flip, image: Image) -> str:
        seen = self._look(image)
        if seen.opened:
            self._use(seen.damaged)
        if seen.noticed:
            return "noticed"
        if seen.contents == self._sound[flip.image]:
            return "without effect"
        if flip.suffix and flip.place >= self._last_commit and seen.contents == self._without_last:
            return "of the last commit of a log, which is gone"
        raise Violation("it changed what is read, in silence")

    def _look(self, image: Image) -> Seen:
        """Read all that there is, and see that this overwrites nothing; a log is folded in where it is sound."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir()
        path = image.put(self._directory)
        seen = self._run(_look(path))
        if (not seen.opened or not image.log) and self._files(path) != image:
            raise Violation(f"reading it changed the file; noticed: {seen.noticed}")
        return seen

    def _use(self, damaged: Sequence[str]) -> None:
        """Try every verb on workflows that cannot be read, which overwrites nothing; and let the others go on."""
        path = self._directory / NAME
        before = self._files(path)
        self._run(_insist(path, damaged))
        if self._files(path) != before:
            raise Violation(f"a verb on one of {damaged} changed the file")
        self._run(_go_on(path, damaged))

    @staticmethod
    def _files(path: Path) -> Image:
        log = Path(f"{path}-wal")
        return Image(path.read_bytes(), log.read_bytes() if log.exists() else b"")

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(asyncio.wait_for(work, _PATIENCE))


async def _look(path: Path) -> Seen:
    noticed: list[PersistenceError] = []
    damaged: list[str] = []
    contents: list[object] = []
    store = SQLitePersistence(path)
    try:
        async with store:
            try:
                noticed += (await verify(store)).problems
                contents.append(await store.find())
            except PersistenceError as error:
                noticed.append(error)
            for workflow_id in IDS:
                part: object = None
                try:
                    part = await _shown(workflow_id, store), await store.read(workflow_id)
                except WorkflowNotFoundError:
                    pass  # which tells nobody that there should be one
                except PersistenceError as error:
                    noticed.append(error)
                    damaged.append(workflow_id)
                contents.append(part)
            try:
                contents.append([await store.lease(workflow_id) for workflow_id in IDS])
            except PersistenceError as error:
                noticed.append(error)
    except PersistenceError as error:
        return Seen(False, contents, [error], [])
    return Seen(True, contents, noticed, damaged)


async def _shown(workflow_id: str, store: SQLitePersistence) -> object:
    run = await Scripted.load(workflow_id, store)
    return run.results, run.status, run.rollback_status, run.metadata, run.pending_approval_step


async def _insist(path: Path, damaged: Sequence[str]) -> None:
    """Do with a fresh object of each what a process might."""
    async with SQLitePersistence(path) as store:
        for workflow_id in damaged:
            for verb in VERBS:
                try:
                    if verb == "load":
                        await Scripted.load(workflow_id, store)
                    else:
                        await getattr(Scripted(workflow_id, STEPS, {"amount": 5}, persistence=store), verb)()
                except PersistenceError:
                    continue
                raise Violation(f"{verb} of {workflow_id}, which cannot be read, did something")


async def _go_on(path: Path, damaged: Sequence[str]) -> None:
    async with SQLitePersistence(path) as store:
        for workflow_id in IDS:
            if workflow_id not in damaged:
                with contextlib.suppress(WorkflowError):  # what is damaged may refuse, in words of ours
                    await (await Scripted.load(workflow_id, store)).resume()
