"""The journal is the truth: everything is folded, everything comes back as written, and damage is said to be damage."""

import contextlib
import json
import random
import typing
from collections.abc import Awaitable, Callable, Sequence
from types import UnionType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crash_simulation import Script, World, scripts
from dotmac_workflows import Workflow, verify
from dotmac_workflows._core import actions, codec
from dotmac_workflows._core import events as ev
from dotmac_workflows._core.actions import Action, Decision
from dotmac_workflows._core.events import Draft, Event, Settings, StepStarted, WorkflowStarted
from dotmac_workflows._core.state import FOLD, RunState, replay
from dotmac_workflows._run import callbacks, drive
from dotmac_workflows._run.journal import digest_of, header_of
from dotmac_workflows.errors import (
    JournalCorruptError,
    JournalTooNewError,
    PersistenceError,
    ResultNotSerializableError,
    WorkflowError,
    WorkflowExecutionError,
)
from dotmac_workflows.persistence import Header, InMemoryPersistence, LeaseChange, Record
from dotmac_workflows.result import WorkflowResult
from dotmac_workflows.status import WorkflowStatus
from dotmac_workflows.testing import _judge
from dotmac_workflows.values import Codec

SEED = 20_260_702


def members(union: Any) -> set[type[Any]]:
    """Return the classes of a union of classes and unions."""
    if isinstance(union, UnionType):
        return {leaf for member in typing.get_args(union) for leaf in members(member)}
    return {union}


EVENT_TYPES = sorted(members(Event), key=lambda event_type: event_type.__name__)


# Nothing is forgotten.


def test_every_event_of_the_module_is_an_event() -> None:
    own = {value for value in vars(ev).values() if isinstance(value, type) and hasattr(value, "_fields")}
    assert own - {Settings, Draft} == set(EVENT_TYPES)


def test_every_event_is_folded_written_and_judged() -> None:
    assert set(FOLD) == set(EVENT_TYPES)
    assert set(codec._EVENTS) == set(EVENT_TYPES)
    assert set(_judge._RULES) == set(EVENT_TYPES)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_field_of_an_event_is_written(event_type: Any) -> None:
    assert event_type._fields[0] == "at"
    assert tuple(codec._EVENTS[event_type]) == event_type._fields[1:]


def test_every_callback_is_told_of_an_event_that_there_is() -> None:
    assert set(callbacks.NAMES) <= set(EVENT_TYPES)
    declared = {name for name in vars(Workflow) if name.startswith("on_")} - {"on_rollback_failure"}
    assert set(callbacks.NAMES.values()) == declared


class RecordingHost:
    """Notes what the loop has it do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def now(self) -> int:
        return 1

    async def commit(self, state: RunState, events: list[Event]) -> None:
        self.done.append("commit")

    async def wait(self, wait: actions.Wait) -> list[Event]:
        self.done.append("wait")
        return []

    async def perform(self, action: actions.RunStep | actions.RunRollback) -> list[Event]:
        self.done.append(f"perform {type(action).__name__}")
        return []


ACTIONS: dict[type[Any], tuple[Action, list[str]]] = {
    actions.RunStep: (
        actions.RunStep(StepStarted(1, "a", 0, 1, 1)),
        ["commit", "perform RunStep", "commit"],
    ),
    actions.RunRollback: (
        actions.RunRollback(ev.RollbackStepStarted(1, "a", 0, 1, 1), False),
        ["commit", "perform RunRollback", "commit"],
    ),
    actions.Wait: (actions.Wait(), ["commit", "wait"]),
    actions.Stop: (actions.Stop(), ["commit"]),
}


def test_every_action_has_its_example() -> None:
    assert set(ACTIONS) == members(Action)


@pytest.mark.parametrize("action_type", ACTIONS)
async def test_every_action_is_done_by_the_loop(action_type: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    action, expected = ACTIONS[action_type]
    decisions: list[Decision] = [([], action), ([], actions.Stop())]
    monkeypatch.setattr(drive, "decide", lambda state, now: decisions.pop(0))
    host = RecordingHost()
    await drive.drive(host, RunState("w"), [])
    assert host.done == expected


# Journals to read and to spoil; `test_prefixes` holds what is folded of such against what was live.


def random_runs(count: int, chance: random.Random) -> list[list[Event]]:
    """Return the journals of runs of random scripts with random crashes."""
    journals = []
    every = [script for length in (1, 2, 3, 4) for script in scripts(length)]
    for script in chance.sample(every, count):
        world = World(script, chance.sample(range(30), 2))
        world.play()
        journals.append(world.journal)
    return journals


def encoded(journal: Sequence[Event], values: Codec) -> list[tuple[Event, tuple[str, str]]]:
    return [(event, codec.encode(event, values)) for event in journal]


# What is written comes back.

texts = st.text(max_size=20)
names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
optional_texts = st.none() | texts
instants = st.integers(-(2**62), 2**62)
counts = st.integers(0, 10**6)
data = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)
results = st.builds(
    WorkflowResult,
    success=st.booleans(),
    step=names,
    data=data,
    error=optional_texts,
    message=optional_texts,
    execution_time=st.none() | st.floats(0, 1e9),
    requires_approval=st.booleans(),
)
settings_of_runs = st.builds(
    Settings, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["continue", "halt"])
)
drafts = st.builds(
    Draft,
    st.sampled_from(WorkflowStatus),
    counts,
    st.lists(results, max_size=2).map(tuple),
    st.none() | names,
    st.none() | data,
    st.sampled_from(["none", "running", "done", "incomplete"]),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "at": instants,
    "run_id": texts,
    "workflow_type": names,
    "steps": st.lists(names, max_size=4).map(tuple),
    "settings": settings_of_runs,
    "metadata": data,
    "draft": st.none() | drafts,
    "owner": texts,
    "token": texts,
    "step": names,
    "position": counts,
    "visit": counts,
    "attempt": counts,
    "result": results,
    "gated": st.booleans(),
    "exception": optional_texts,
    "traceback": optional_texts,
    "actor": optional_texts,
    "data": data,
    "reason": optional_texts,
    "complete": st.booleans(),
    "from_index": counts,
}


def events_of(event_type: Any) -> st.SearchStrategy[Event]:
    fields = {name: FIELDS[name] for name in event_type._fields}
    if event_type is ev.RollbackWaived:
        fields["reason"] = texts  # a person who answers for it says why
    return st.builds(event_type, **fields)


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_event_comes_back_as_it_was_written(event_type: Any) -> None:
    values = Codec()

    @given(events_of(event_type))
    def check(event: Event) -> None:
        kind, body = codec.encode(event, values)
        assert body.isascii()
        assert json.loads(body).keys() == set(event_type._fields[1:])
        read = codec.decode(kind, event.at, body, values)
        assert type(read) is event_type
        assert read == event
        assert codec.encode(read, values) == (kind, body)

    check()


def test_flags_that_a_caller_set_to_something_true_or_false_are_kept_as_flags() -> None:
    given = Settings(1, 0, "yes", None)  # type: ignore[arg-type]  # what callers do
    event = WorkflowStarted(1, "run", "T", ("a",), given, {}, None)
    kind, body = codec.encode(event, Codec())
    read = codec.decode(kind, 1, body, Codec())
    assert isinstance(read, WorkflowStarted)
    assert read.settings == Settings(True, False, True, False, "continue")


# What is damaged is said to be, and where.


class Store(InMemoryPersistence):
    """A store that can be filled by hand, and that counts the writes of others."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def fill(self, rows: Sequence[Record], header: Header) -> None:
        self._records["w"] = list(rows)
        self._headers["w"] = header

    async def append(
        self,
        workflow_id: str,
        records: Sequence[Record],
        *,
        expected_version: int,
        header: Header,
        lease: LeaseChange | None = None,
    ) -> None:
        await super().append(workflow_id, records, expected_version=expected_version, header=header, lease=lease)
        self.writes += 1


class Row(NamedTuple):
    """A row without what follows from the others: its seq and its digest."""

    kind: str
    at: int
    body: str


def chained(rows: Sequence[Row]) -> list[Record]:
    """Return records with the right seqs and digests, as somebody who can rewrite the store would."""
    digest, records = "", []
    for seq, (kind, at, body) in enumerate(rows, 1):
        digest = digest_of(digest, "w", seq, kind, at, body)
        records.append(Record(seq, kind, at, body, digest))
    return records


def rows_of(journal: Sequence[Event]) -> list[Row]:
    return [Row(kind, event.at, body) for event, (kind, body) in encoded(journal, Codec())]


class Simulated(Workflow):
    """Has the steps of the simulation, all well."""

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step)


def a_journal() -> list[Event]:
    world = World(Script(("ok", "approve", "fail"), ("ok",) * 3, Settings(require_approval=True)))
    world.play()
    return world.journal


def filled(rows: Sequence[Record], journal: Sequence[Event]) -> Store:
    store = Store()
    store.fill(rows, header_of(replay("w", journal), journal[-1].at))
    return store


VERBS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "load": lambda store: Simulated.load("w", store),
    "execute": lambda store: Simulated("w", list(scripts_names(3)), persistence=store).execute(),
    "resume": lambda store: Simulated("w", persistence=store).resume(),
    "approve": lambda store: Simulated("w", persistence=store).approve(),
    "reject": lambda store: Simulated("w", persistence=store).reject_and_cancel(),
    "pause": lambda store: Simulated("w", persistence=store).pause(),
    "cancel": lambda store: Simulated("w", persistence=store).cancel(),
    "retry": lambda store: Simulated("w", persistence=store).retry(),
    "retry_rollback": lambda store: Simulated("w", persistence=store).retry_rollback(),
    "skip_rollback": lambda store: Simulated("w", persistence=store).skip_rollback("reserve", "by hand"),
}


def scripts_names(length: int) -> tuple[str, ...]:
    return next(scripts(length)).steps


async def refusal_of(verb: str, store: Store) -> WorkflowError:
    with pytest.raises(WorkflowError) as refused:
        await VERBS[verb](store)
    assert store.writes == 0
    return refused.value


@pytest.mark.parametrize("verb", VERBS)
async def test_a_kind_of_a_newer_version_is_refused_by_every_verb(verb: str) -> None:
    journal = a_journal()
    rows = rows_of(journal)
    rows[4] = Row("step_delegated", 1, '{"to":"somebody"}')
    error = await refusal_of(verb, filled(chained(rows), journal))
    assert type(error) is JournalTooNewError
    assert error.workflow_id == "w"
    assert str(error) == (
        "Record 5 of workflow 'w' cannot be read: there is no event 'step_delegated' in this version; "
        "upgrade dotmac-workflows to read it."
    )


@pytest.mark.parametrize("verb", VERBS)
async def test_a_malformed_body_is_refused_by_every_verb(verb: str) -> None:
    journal = a_journal()
    rows = rows_of(journal)
    rows[2] = rows[2]._replace(body='{"step":"reserve","position":"first","visit":1,"attempt":1}')
    error = await refusal_of(verb, filled(chained(rows), journal))
    assert type(error) is JournalCorruptError
    assert (error.workflow_id, error.seq) == ("w", 3)
    assert str(error) == (
        "The journal of workflow 'w' is damaged: record 3 cannot be read, its body is not that of a 'step_started' "
        "('first' is not int). Nothing was overwritten. Restore the store from a backup, or delete the workflow."
    )


MALFORMED: dict[str, tuple[str, str]] = {
    "no JSON": ("paused", "{"),
    "no object": ("paused", "[]"),
    "a field too many": ("paused", '{"why":"so"}'),
    "a field too few": ("claimed", '{"owner":"o"}'),
    "a text that is none": ("claimed", '{"owner":1,"token":"t"}'),
    "a number that is none": ("retried", '{"actor":null,"from_index":true}'),
    "a flag that is none": ("rollback_finished", '{"complete":1}'),
    "a result that is none": ("step_interrupted", '{"result":[]}'),
    "a result without a step": ("step_interrupted", '{"result":{"success":true}}'),
    "a result with an empty step": ("step_interrupted", '{"result":{"success":true,"step":""}}'),
    "a result with a foreign key": ("step_interrupted", '{"result":{"success":true,"step":"a","colour":"red"}}'),
    "a success that is none": ("step_interrupted", '{"result":{"success":"yes","step":"a"}}'),
    "an error that is none": ("step_interrupted", '{"result":{"success":true,"step":"a","error":5}}'),
    "a time that is none": ("step_interrupted", '{"result":{"success":true,"step":"a","execution_time":"1"}}'),
    "an approval that is none": ("step_interrupted", '{"result":{"success":true,"step":"a","requires_approval":1}}'),
    "data that is none": ("step_interrupted", '{"result":{"success":true,"step":"a","data":[]}}'),
    "deeper than can be read": ("approved", '{"actor":null,"data":{"a":' + "[" * 100_000 + "]" * 100_000 + "}}"),
}
PLAN = (
    '{"run_id":"r","workflow_type":"T","steps":["a"],"settings":{"rollback_on_failure":true,'
    '"continue_on_step_failure":false,"require_approval":false,"rollback_on_cancel":false,'
    '"on_rollback_failure":"continue"},"metadata":{},"draft":null}'
)
DRAFT = (
    '"draft":{"status":"paused","current_step_index":0,"results":[],"pending_approval_step":null,'
    '"approval_data":null,"rollback_status":"none"}'
)
for _what, _old, _new in [
    ("steps that are none", '["a"]', '"a"'),
    ("a step that is none", '["a"]', "[1]"),
    ("settings that are none", '{"rollback_on_failure":true,', '{"colour":"red",'),
    ("a setting that is none", '"rollback_on_failure":true', '"rollback_on_failure":"yes"'),
    ("a policy that is none", '"continue"', '"sometimes"'),
    ("metadata that is none", '"metadata":{}', '"metadata":[]'),
    ("a draft that is none", '"draft":null', '"draft":[]'),
    ("a draft that is empty", '"draft":null', '"draft":{}'),
    ("a draft's status that is none", '"draft":null', DRAFT.replace('"paused"', '"tired"')),
    (
        "a draft's place that is none",
        '"draft":null',
        DRAFT.replace('"current_step_index":0', '"current_step_index":"0"'),
    ),
    ("a draft's result that is none", '"draft":null', DRAFT.replace('"results":[]', '"results":[1]')),
    (
        "a draft's gate that is none",
        '"draft":null',
        DRAFT.replace('"pending_approval_step":null', '"pending_approval_step":1'),
    ),
    ("a draft's approval that is none", '"draft":null', DRAFT.replace('"approval_data":null', '"approval_data":1')),
    ("a draft's rollback that is none", '"draft":null', DRAFT.replace('"none"', '"some"')),
]:
    assert _old in PLAN
    MALFORMED[_what] = ("workflow_started", PLAN.replace(_old, _new))


def test_the_plan_that_is_malformed_below_is_well_formed() -> None:
    for plan in (PLAN, PLAN.replace('"draft":null', DRAFT)):
        assert type(codec.decode("workflow_started", 1, plan, Codec())) is WorkflowStarted


@pytest.mark.parametrize("what", MALFORMED)
def test_a_body_that_is_not_what_its_kind_says(what: str) -> None:
    kind, body = MALFORMED[what]
    with pytest.raises(JournalCorruptError):
        codec.decode(kind, 1, body, Codec())


# What could not have happened cannot be read, whatever the digests say.

BEGUN: list[Event] = [
    WorkflowStarted(1, "run", "T", ("a", "b"), Settings(), {}, None),
    StepStarted(1, "a", 0, 1, 1),
    ev.StepSucceeded(2, WorkflowResult(True, "a"), False),
]
TURNED: list[Event] = [
    *BEGUN,
    StepStarted(2, "b", 1, 1, 1),
    ev.StepFailed(3, WorkflowResult(False, "b"), None, None),
    ev.RollbackStarted(3, "b"),
    ev.RollbackStepStarted(3, "a", 0, 1, 1),
]
UNDONE: list[Event] = [*TURNED, ev.RollbackStepSucceeded(4, WorkflowResult(True, "rollback_a"))]
IMPOSSIBLE: dict[str, tuple[list[Event], str]] = {
    "a gate behind a step that did not run": (
        [*BEGUN, ev.ApprovalRequested(2, "")],
        "step '' is not the one that ran",
    ),
    "a start without a beginning": ([ev.Claimed(1, "o", "t")], "the run was not started"),
    "a second start": ([*BEGUN, BEGUN[0]], "the run was started already"),
    "an end of no step": ([*BEGUN, BEGUN[2]], "no step was running"),
    "a failure of no step": ([*BEGUN, TURNED[4]], "no step was running"),
    "an interrupt of no step": ([*BEGUN, ev.StepInterrupted(2, WorkflowResult(False, "a"))], "no step was running"),
    "an approval of nothing": ([*BEGUN, ev.Approved(2, None, {})], "no gate was open"),
    "a rejection of nothing": ([*BEGUN, ev.Rejected(2, None, None)], "no gate was open"),
    "a second turn": ([*TURNED, TURNED[5]], "the run had turned round already"),
    "an undoing without a turn": ([*BEGUN, TURNED[6]], "nothing was left to undo"),
    "an undoing of nothing more": ([*UNDONE, TURNED[6]], "nothing was left to undo"),
    "an end of no undoing": ([*UNDONE, UNDONE[-1]], "no rollback step was running"),
    "an end of no rollback": ([*BEGUN, ev.RollbackFinished(2, True)], "no rollback was under way"),
    "a retry of no rollback": ([*UNDONE, ev.RollbackRetried(4, None)], "no rollback had ended incomplete"),
    "a waiver of no rollback": ([*UNDONE, ev.RollbackWaived(4, "a", None, "so")], "no rollback had ended incomplete"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_could_not_have_happened_is_damage(what: str) -> None:
    journal, why = IMPOSSIBLE[what]
    with pytest.raises(JournalCorruptError, match=why) as refused:
        replay("w", journal)
    assert (refused.value.workflow_id, refused.value.seq) == ("w", len(journal))


def test_who_drove_last_is_known_after_the_end() -> None:
    """For the error of a driver that was overtaken by somebody who has ended the run since."""
    state = replay("w", [BEGUN[0], ev.Claimed(1, "host:1", "t"), *BEGUN[1:], ev.WorkflowCompleted(2)])
    assert (state.token, state.owner) == (None, "host:1")


# Anything may be in a row.

JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    "",
    "reserve",
    "\ud800",
    [],
    [1],
    {},
    {"$": ["tuple", 1]},
    {"$": ["who", 1]},
)


def spoil(rows: list[Row], chance: random.Random) -> list[Row]:
    """Return rows with one thing wrong."""
    rows = list(rows)
    at = chance.randrange(len(rows))
    row = rows[at]
    how = chance.randrange(9)
    if how == 0:
        del rows[at]
    elif how == 1:
        rows.insert(at, chance.choice(rows))
    elif how == 2:
        other = chance.randrange(len(rows))
        rows[at], rows[other] = rows[other], row
    elif how == 3:
        rows[at] = row._replace(kind=chance.choice([*codec._READERS, "", "no_such_kind", "step_started "]))
    elif how == 4:
        rows[at] = row._replace(at=chance.choice([0, -1, 2**62, -(2**62)]))
    elif how == 5:
        rows[at] = row._replace(body=row.body[: chance.randrange(len(row.body))])
    elif how == 6:
        character = chance.randrange(len(row.body))
        rows[at] = row._replace(body=row.body[:character] + chance.choice('"{}[],:0a\\\0é') + row.body[character + 1 :])
    elif how == 7:
        rows[at] = row._replace(body=json.dumps(chance.choice(JUNK)))
    else:
        rows[at] = row._replace(body=json.dumps(replace_within(json.loads(row.body), chance)))
    return rows


def replace_within(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Replace, drop or add something in an object, at any depth."""
    if not body or chance.random() < 0.1:
        return {**body, chance.choice(["step", "colour", ""]): chance.choice(JUNK)}
    name = chance.choice(sorted(body))
    value = body[name]
    if isinstance(value, dict) and chance.random() < 0.7:
        body[name] = replace_within(value, chance)
    elif chance.random() < 0.2:
        del body[name]
    else:
        body[name] = chance.choice(JUNK)
    return body


@pytest.mark.parametrize("right_digests", [False, True])
async def test_spoilt_rows_raise_our_errors_and_nothing_is_written(right_digests: bool) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    refused = 0
    for journal in random_runs(100, chance):
        rows = rows_of(journal)
        for _ in range(20):
            spoilt = spoil(rows, chance)
            records = chained(spoilt)
            if not right_digests:
                true = [record.digest for record in chained(rows)]
                records = [row._replace(digest=true[min(row.seq, len(true)) - 1]) for row in records]
            store = filled(records, journal)
            try:
                refused += await is_refused(store, chance)
            except Exception as error:
                raise AssertionError(f"{error!r} of {spoilt}") from error
    print(f"{refused} of 2000 refused")
    assert refused > (1_000 if right_digests else 1_700)


async def is_refused(store: Store, chance: random.Random) -> bool:
    """Tell whether a run cannot be read; then no verb touches it, and else it goes on, or says why not."""
    refusal: PersistenceError | None = None
    try:
        workflow = await Simulated.load("w", store)
    except PersistenceError as error:
        refusal = error
    except WorkflowExecutionError:  # it is none of ours by now, or not there
        return False
    else:
        with contextlib.suppress(WorkflowError):
            await workflow.resume()
    if refusal is None:
        return False
    again = await refusal_of(chance.choice([*VERBS]), store)
    assert type(again) is type(refusal)
    assert again.workflow_id == refusal.workflow_id == "w"
    found = await verify(store)
    assert len(found.problems) == (type(refusal) is not ResultNotSerializableError)
    return True
