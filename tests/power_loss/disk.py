"""A model of a disk when the power fails: which files it may hold afterwards, and what may be in them.

A recording is a list of operations in the order in which they happened. A *cut* is a place between two of them. What
was flushed before the cut is there for certain. Everything else may be there or not, each for itself and whatever came
before or after it, as the system writes back what it likes when it likes:

- A write may be there, or not, or in part: any of its sectors of 512 bytes. A sector is whole, old or new, and one that
  was not written to is left alone (SQLite calls that a *powersafe overwrite* and assumes it, as all disks are built).
- A change of size may be there or not. A file may have grown without the bytes that were to go there: then zeros are
  found, or anything whatever.
- That a file was made or deleted may be there or not; of one name, though, not a later one without the earlier. Only a
  flush of the directory makes it certain. (On ext4 a flush of a new file does as well. Not here: nobody else promises.)
- A flush covers what was done to its file before it began. While it runs nothing is certain yet.
- ``fdatasync`` counts as ``fsync``: POSIX has it flush what is needed to read the data, and so the size.

The disk is not one that lies: what it reports as flushed is so.

The ``-shm`` file is left out, since SQLite makes it anew when nobody has it open; so is the lock file, which says
nothing but a name.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

SECTOR = 512
PAGE = 4096


class Operation(NamedTuple):
    """What a process did."""

    what: str
    """``create``, ``delete``, ``write``, ``resize``, ``flush``, ``flushed`` or ``mark``."""
    process: int
    name: str
    """The file; ``.`` for the directory."""
    number: int = 0
    """The offset of a write, or a new size."""
    data: bytes = b""


class Write(NamedTuple):
    """Bytes that were put into a file."""

    offset: int
    data: bytes

    def pieces(self, size: int) -> list["Write"]:
        """Return the parts of it that lie in one sector, or page, of that size each."""
        found, at, end = [], self.offset, self.offset + len(self.data)
        while at < end:
            after = min(end, (at // size + 1) * size)
            found.append(Write(at, self.data[at - self.offset : after - self.offset]))
            at = after
        return found


class Resize(NamedTuple):
    """A file was cut off, or made longer."""

    size: int


class Naming(NamedTuple):
    """A name was given to a new file, or (None) taken away."""

    name: str
    file: int | None


Change: TypeAlias = Write | Resize


class Thing(NamedTuple):
    """Something that was done and is not certain to be on the disk."""

    at: int
    """Which operation it was."""
    file: int
    """What it was done to; which file of all there ever were. Of a naming: none of them, -1."""
    change: Change | Naming


class Cut(NamedTuple):
    """The power fails before operation `at`."""

    at: int
    names: dict[str, int]
    """The directory as it is for certain."""
    contents: dict[int, bytes]
    """The files as they are for certain."""
    things: tuple[Thing, ...]
    """What is not certain, in the order in which it happened."""


def cuts(operations: Sequence[Operation]) -> Iterator[Cut]:
    """Yield the disk before each operation that is more than a mark or the beginning of a flush, and at the end.

    Between these nothing changes but that more is promised, so that the last of several equal cuts is the hardest.
    """
    names: dict[str, int] = {}
    contents: dict[int, bytes] = {}
    things: tuple[Thing, ...] = ()
    current: dict[str, int] = {}
    flushing: dict[tuple[int, str], int] = {}
    files = 0
    for at, operation in enumerate(operations):
        what, process, name, number, data = operation
        if what not in ("mark", "flush"):
            yield Cut(at, dict(names), dict(contents), things)
        if what == "flush":
            assert (process, name) not in flushing, f"operation {at}: two flushes of {name} at once"
            flushing[process, name] = at
        elif what == "flushed":
            began = flushing.pop((process, name))
            covered = [thing for thing in things if thing.at < began and _is_covered(thing, name, current)]
            things = tuple(thing for thing in things if thing not in covered)
            _settle(covered, names, contents)
        elif what == "create":
            current[name] = files
            contents[files] = b""
            things = (*things, Thing(at, -1, Naming(name, files)))
            files += 1
        elif what == "delete":
            del current[name]
            things = (*things, Thing(at, -1, Naming(name, None)))
        elif what == "write":
            things = (*things, Thing(at, current[name], Write(number, data)))
        elif what == "resize":
            things = (*things, Thing(at, current[name], Resize(number)))
    yield Cut(len(operations), names, contents, things)


def _is_covered(thing: Thing, flushed: str, current: dict[str, int]) -> bool:
    if flushed == ".":
        return thing.file < 0
    return thing.file == current[flushed]


def _settle(covered: Iterable[Thing], names: dict[str, int], contents: dict[int, bytes]) -> None:
    changes: dict[int, list[Change]] = {}
    for _, file, change in covered:
        if isinstance(change, Naming):
            _name(names, change)
        else:
            changes.setdefault(file, []).append(change)
    for file, made in changes.items():
        contents[file] = changed(contents[file], made)


def _name(names: dict[str, int], naming: Naming) -> None:
    if naming.file is None:
        names.pop(naming.name, None)
    else:
        names[naming.name] = naming.file


def changed(content: bytes, changes: Iterable[Change], garbage: bytes = b"") -> bytes:
    """Return what a file holds after some changes.

    Args:
        content: What it held before.
        changes: What was done to it.
        garbage: What is found beyond `content` where nothing was written; zeros where it ends.
    """
    new = bytearray(content)
    new += garbage[len(content) :]
    for change in changes:
        if isinstance(change, Resize):
            del new[change.size :]
            end, data = change.size, b""
        else:
            end, data = change.offset, change.data
        if len(new) < end:
            new += bytes(end - len(new))
        new[end : end + len(data)] = data
    return bytes(new)


# States: which of the things are there


def states(cut: Cut, chance: random.Random) -> list[str]:
    """Return the names of the states that a cut may leave: all simple ones, and some drawn by chance.

    ``nothing`` and ``everything`` of what is not certain; ``first N`` things and no more; all ``without N``; ``only
    N``; ``until N M``, the first N things and of the next one no more than its first M sectors; ``front N M`` and
    ``back N M``, everything, but of thing N only its first or its last M sectors; ``chance S``, anything.
    """
    count = len(cut.things)
    if not count:
        return ["nothing"]
    names = ["nothing", "everything", *(f"first {number}" for number in range(1, count))]
    names += (f"{how} {number}" for number in range(count) for how in ("without", "only"))
    for number, thing in enumerate(cut.things):
        if isinstance(thing.change, Write) and (sectors := len(thing.change.pieces(SECTOR))) > 1:
            in_first_page = len(thing.change.pieces(PAGE)[0].data)
            page = len(Write(thing.change.offset, thing.change.data[:in_first_page]).pieces(SECTOR))
            for kept in {min(page, sectors - 1), chance.randrange(1, sectors)}:
                names += (f"{how} {number} {kept}" for how in ("until", "front", "back"))
    return names + [f"chance {chance.randrange(10**6)}" for _ in range(4 + count)]


def build(cut: Cut, state: str) -> dict[str, bytes]:
    """Return the files that a state of a cut consists of, by name."""
    how, *numbers = state.split()
    if how == "chance":
        chance = random.Random(f"{cut.at}/{numbers[0]}")
        kept = _kept_by_chance(cut.things, chance)
        garbage = chance if chance.random() < 0.5 else None
    else:
        kept, garbage = _kept(cut.things, how, *map(int, numbers)), None
    names, lost = dict(cut.names), set()
    changes: dict[int, list[Change]] = {}
    for thing, parts in zip(cut.things, kept, strict=True):
        if isinstance(thing.change, Naming):
            if parts and thing.change.name not in lost:
                _name(names, thing.change)
            else:
                lost.add(thing.change.name)
        else:
            changes.setdefault(thing.file, []).extend(part for part in parts if not isinstance(part, Naming))
    return {
        name: changed(cut.contents[file], changes.get(file, ()), _garbage(cut, file, garbage))
        for name, file in sorted(names.items())
    }


Kept: TypeAlias = Sequence[Change | Naming]


def _kept(things: Sequence[Thing], how: str, number: int = 0, sectors: int = 0) -> list[Kept]:
    """Return what is there of each thing."""
    if how in ("nothing", "everything"):
        return [[thing.change] if how == "everything" else [] for thing in things]
    kept: list[Kept] = []
    for at, (_, _, change) in enumerate(things):
        before, here = at < number, at == number
        if here and sectors:
            assert isinstance(change, Write)
            parts = change.pieces(SECTOR)
            kept.append(parts[-sectors:] if how == "back" else parts[:sectors])
        elif how in ("first", "until"):
            kept.append([change] if before else [])
        else:
            kept.append([change] if here == (how == "only") else [])
    return kept


def _kept_by_chance(things: Sequence[Thing], chance: random.Random) -> list[Kept]:
    share, size = chance.choice((0.1, 0.5, 0.9)), chance.choice((0, SECTOR, PAGE))
    kept: list[Kept] = []
    for _, _, change in things:
        parts: Kept = change.pieces(size) if size and isinstance(change, Write) else [change]
        kept.append([part for part in parts if chance.random() < share])
    return kept


def _garbage(cut: Cut, file: int, chance: random.Random | None) -> bytes:
    """Return what is in a file that grew without what was to be written there; a byte string of its whole size."""
    changes = [thing.change for thing in cut.things if thing.file == file]
    if chance is None or any(isinstance(change, Resize) for change in changes):
        return b""
    size = max((change.offset + len(change.data) for change in changes if isinstance(change, Write)), default=0)
    return chance.choice((bytes, chance.randbytes))(size)
