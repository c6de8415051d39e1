"""Clauses on what is stored, and how it comes back."""

import inspect

from ...persistence import Checks, Queries
from ...status import WorkflowStatus
from .bench import Bench, attempt, together
from .clause import Clause, clause
from .comparing import Broken, holds, same
from .rows import NOTHING, START, header, let_go, records, taken

_SMALL = 1024 * 1024 + 64 * 1024  # a value of 1 MiB, the default limit of `Codec`, and what surrounds it in a body
_LARGE = 8 * 1024 * 1024
_FAR = 253_402_300_799_999_999  # the last microsecond that a datetime knows

_IDS = (
    "caf\u00e9",
    "cafe\u0301",  # the same to look at, and another id
    "CAF\u00c9",
    "order-1",
    "ORDER-1",
    "order_1",
    "order%1",
    " order-1",
    "order-1 ",
    "../order-1",
    "order/1",
    "order:1",
    "a\\b",
    "'; DROP TABLE records; --",
    "\u65e5\u672c-42",
    "\U0001f600" * 200,  # the longest that there is: 200 characters, 800 bytes in UTF-8
)


@clause(
    "the capabilities that it claims are whole",
    rule="A capability is there with all its methods or not at all, and each method is asynchronous: `Leases` is lease "
    "and renew, `Queries` is find, `Checks` is check.",
    why="The engine finds capabilities by their methods. Half of one is taken for none: with lease and no renew, "
    "nobody is told that a run is driven, and two processes drive it at once.",
    remedy="Write the missing method, or give the one that is there another name.",
)
async def capabilities_are_whole(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0)
    backend = store.backend
    for one, other in (("lease", "renew"), ("renew", "lease")):
        holds(
            not hasattr(backend, one) or hasattr(backend, other),
            f"{other} where there is {one}",
            f"{type(backend).__name__} has {one} and no {other}",
        )
    for kind, name in ((Queries, "find"), (Checks, "check")):
        if isinstance(backend, kind):
            holds(callable(getattr(backend, name)), f"{name} to be a method", f"it is {getattr(backend, name)!r}")
    read = backend.read("w")
    awaitable = inspect.isawaitable(read)
    if awaitable:
        await read
    holds(awaitable, "read('w') to be awaited", f"it gave {type(read).__name__} at once")


@clause(
    "a new store is empty, and a store of its own",
    rule="An id that nobody has appended to has no records, no lease and no header, and cannot be deleted; what one "
    "store holds no other does.",
    why="A workflow would begin in the middle of another one's journal.",
    remedy="In the backend: answer [], None and False for an unknown id. In the factory: make a new store for every "
    "new name, such as a file, a schema or a key prefix of that name.",
)
async def a_new_store_is_empty(bench: Bench) -> None:
    other = await bench.open("other")
    await other.append("w", records(0), expected_version=0)
    store = await bench.open()
    same(await store.read("w"), [], "store.read('w')")
    same(await store.read("w", after=3), [], "store.read('w', after=3)")
    same(await store.delete("w"), False, "store.delete('w')")
    if store.has_leases:
        same(await store.lease("w"), None, "store.lease('w')")
    if store.has_queries:
        same(await store.find(), [], "store.find()")
    same(len(await other.read("w")), 2, "other.read('w'), in number,")


@clause(
    "rows come back as they were given",
    rule="Every field of a record, in order and of its type: `Record`, whole microseconds, the text of the body to "
    "the letter. The same for headers, where they can be found.",
    why="The digest of a record is made of its fields: one that comes back different is a damaged journal, and the "
    "workflow can never be loaded again.",
    remedy="Store integers as 64-bit integers and texts as they are, and build `Record(...)` and `Header(...)` from "
    "the row.",
)
async def rows_come_back(bench: Bench) -> None:
    store = await bench.open()
    body = '{"a": [1.50, "\\u00e9\\ud83d\\ude00", null],"b":  {}, "quote": "it\'s \\"so\\" \\\\ %s {x}"}'
    given = [records(0, 1)[0]._replace(body=body, at=START), records(1, 1)[0]._replace(at=1)]
    wide = header("w", 2, pending_step="check", wake_at=_FAR, status=WorkflowStatus.WAITING_APPROVAL)
    await store.append("w", given, expected_version=0, header=wide)
    await store.append("other", records(0), expected_version=0)
    same(await store.read("w"), given, "read('w')")
    if store.has_queries:
        same((await store.contents("w")).headers, [wide], "find()")


@clause(
    "read gives what comes after",
    rule="read(id) gives all records in order, and read(id, after=n) those with a seq above n.",
    why="A driver that is told that somebody appended would not see what, or see it in another order.",
    remedy="Select by seq > after, ordered by seq.",
)
async def read_gives_what_comes_after(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0)
    await store.append("w", records(2, 10), expected_version=2)
    same(await store.read("w"), records(0, 12), "read('w')")
    for after in (1, 2, 9, 11):
        same(await store.read("w", after=after), records(after, 12 - after), f"read('w', after={after})")
    same(await store.read("w", after=12), [], "read('w', after=12)")


@clause(
    "a long journal is read whole",
    rule="read gives all records, however many there are.",
    why="A workflow of many steps would be loaded as it stood long ago, and run its later steps once more.",
    remedy="Read on until there is no more: many databases hand out a page at a time.",
)
async def a_long_journal_is_read_whole(bench: Bench) -> None:
    store = await bench.open()
    for version in range(0, 2400, 200):
        await store.append("w", records(version, 200), expected_version=version)
    same(await store.read("w"), records(0, 2400), "read('w')")
    same(await store.read("w", after=100), records(100, 2300), "read('w', after=100)")


@clause(
    "an append without records is one too",
    rule="An append may carry no record: then header and lease change, and the version stays and is still compared.",
    why="A lease could not be let go at the end of a run, or would be let go by whoever came too late.",
    remedy="Do not return early when there are no records.",
)
async def an_append_without_records(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t1"))
    then = header("w", 2, wake_at=3, status=WorkflowStatus.PAUSED)
    await store.append("w", [], expected_version=2, header=then, lease=let_go("t1"))
    contents = await store.contents("w")
    same(contents.records, records(0), "read('w')")
    same(contents.lease, None, "lease('w')")
    if store.has_queries:
        same(contents.headers, [then], "find()")
    error = await attempt(store.append("w", [], expected_version=1, lease=taken("t2")), Exception)
    holds(error is not None, "an append without records at version 1 of 2 to be refused", "it was done")
    same(await store.contents("w"), contents, "what is stored of 'w'")
    await store.append("w", records(2), expected_version=2, lease=taken("t2"))
    same(await store.read("w"), records(0, 4), "read('w')")


@clause(
    "an append with a lease stores its records",
    rule="Every append of a driver carries a change of lease. A backend without `Leases` may ignore it, and stores the "
    "rest.",
    why="No workflow would run.",
    remedy="Take the parameter `lease`, and leave it aside where there are no leases.",
)
async def an_append_with_a_lease(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t1"))
    await store.append("w", records(2), expected_version=2, lease=taken("t1", replaces="t1"))
    await store.append("w", records(4), expected_version=4, lease=taken("t2", replaces="t1"))
    await store.append("w", records(6), expected_version=6, lease=let_go("t2"))
    same(await store.read("w"), records(0, 8), "read('w')")


@clause(
    "ids and texts of any script stay apart",
    rule="An id is 1 to 200 printable characters and is compared letter by letter: case, accents, blanks and forms of "
    "Unicode count. Names of types and steps come back as they were given.",
    why="Two customers' workflows would write into one journal, or one could not be stored at all.",
    remedy="Compare ids as bytes (a binary collation), and never make a file name, a pattern or SQL of one.",
)
async def ids_stay_apart(bench: Bench) -> None:
    store = await bench.open()
    given = {
        workflow_id: header(workflow_id, 2, workflow_type="Gr\u00f6\u00dfe", pending_step="ve\u0301rifier \U0001f600")
        for workflow_id in _IDS
    }
    for number, (workflow_id, head) in enumerate(given.items()):
        await store.append(workflow_id, records(0, mark=str(number)), expected_version=0, header=head)
    for number, (workflow_id, head) in enumerate(given.items()):
        same(await store.read(workflow_id), records(0, mark=str(number)), f"read({workflow_id!a})")
        if store.has_queries:
            found = await store.find(workflow_type="Gr\u00f6\u00dfe")
            same([one for one in found if one.workflow_id == workflow_id], [head], f"the header of {workflow_id!a}")
    same(await store.delete("order_1"), True, "delete('order_1')")
    same(await store.read("order-1"), records(0, mark=str(_IDS.index("order-1"))), "read('order-1')")


@clause(
    "a large body comes back whole",
    rule="A body that holds a value of 1 MiB, the default limit of the codec, is stored. A larger one is stored whole "
    "too, or refused with an error, and then nothing of its append is stored.",
    why="A step has its effect and then cannot be recorded; or its record is cut, and the journal is damaged.",
    remedy="Use a column without a limit (LONGTEXT, BYTEA, a blob), or split bodies; refuse with "
    "`PayloadTooLargeError`.",
)
async def a_large_body(bench: Bench) -> None:
    store = await bench.open()
    for size, must in ((70_000, True), (_SMALL, True), (_LARGE, False)):
        large = records(1, 1)[0]._replace(body=f'{{"data":"{"x" * (size - 11)}"}}')
        name, given = f"of {size} bytes", [*records(0, 1), large, *records(2, 1)]
        error = await attempt(store.append(name, given, expected_version=0), Exception)
        if error is not None and must:
            raise Broken(f"a body of {size:,} bytes to be stored", f"it was refused: {error}")
        same(await store.read(name), given if error is None else [], f"read({name!r})")
        if error is None:
            bench.note = f"took {size:,} bytes"


@clause(
    "what a reader was given is the reader's",
    rule="A list that read gave does not change when somebody appends, and changing it does not change the store.",
    why="A workflow would see facts that it has not read, in the middle of a decision.",
    remedy="Give a new list each time.",
)
async def what_a_reader_was_given(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0)
    seen = await store.read("w")
    await store.append("w", records(2), expected_version=2)
    same(seen, records(0), "the list that was read before the append")
    (await store.read("w")).clear()
    same(await store.read("w"), records(0, 4), "read('w'), after the reader emptied its own list")
    given = records(4)
    await store.append("w", given, expected_version=4)
    given.clear()
    same(await store.read("w"), records(0, 6), "read('w'), after the writer emptied its own list")


@clause(
    "a deleted workflow is forgotten",
    rule="delete forgets journal, header and lease of one workflow and of no other, and tells whether there was one. "
    "The id can be used again, from version 0.",
    why="A new workflow would inherit the lease or the records of one that was deleted, or a deletion take another "
    "one's along.",
    remedy="Delete all rows of the id in one transaction.",
)
async def a_deleted_workflow_is_forgotten(bench: Bench) -> None:
    store = await bench.open()
    await store.append("w", records(0), expected_version=0, lease=taken("t1"))
    await store.append("w2", records(0), expected_version=0, lease=taken("t2"))
    other = await store.contents("w2")
    same(await store.delete("w"), True, "delete('w')")
    same(await store.contents("w"), NOTHING, "what is stored of 'w'")
    same(await store.delete("w"), False, "delete('w'), a second time")
    await store.append("w", records(0, 1, mark="again"), expected_version=0)
    contents = await store.contents("w")
    same(contents.records, records(0, 1, mark="again"), "read('w')")
    same(contents.lease, None, "the lease of the new 'w'")
    same(await store.contents("w2"), other, "what is stored of 'w2'")


@clause(
    "check finds nothing in a store that is well",
    rule="check returns when nothing is damaged.",
    why="verify() would tell users that their journals are damaged.",
    remedy="Raise `JournalCorruptError` for damage alone; name a method that does something else otherwise.",
    needs=("Checks",),
)
async def check_finds_nothing(bench: Bench) -> None:
    store = await bench.open()
    await store.check()
    await together([store.append(f"w{n}", records(0), expected_version=0) for n in range(5)])
    await store.delete("w3")
    await store.check()


FIRST: tuple[Clause, ...] = (
    capabilities_are_whole,
    a_new_store_is_empty,
    rows_come_back,
    read_gives_what_comes_after,
    a_long_journal_is_read_whole,
    an_append_with_a_lease,
)
"""What all else builds on."""

CLAUSES: tuple[Clause, ...] = (
    an_append_without_records,
    ids_stay_apart,
    a_large_body,
    what_a_reader_was_given,
    a_deleted_workflow_is_forgotten,
    check_finds_nothing,
)
