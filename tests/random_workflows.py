"""Random workflows over the pure core, longer and odder than `crash_simulation.scripts`, and their every prefix.

A workflow has up to twelve steps, some of one name, and mixes all that steps, approvers and others do; its drivers are
lost or let go at random, and its values are of every kind that the codec knows. Its journal is stored, and what is read
back of it is folded again from the start, up to every single record: it must come to the state that was live there.
"""

import random
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from crash_simulation import NAMES, Behaviour, Script, SimulatedHost, Undoing, World, lines, owned
from dotmac_workflows import InMemoryPersistence
from dotmac_workflows._core import codec
from dotmac_workflows._core.actions import Decision, RunRollback, RunStep
from dotmac_workflows._core.decide import decide
from dotmac_workflows._core.events import Event, Released, RollbackOutcome, Settings, StepFailed, StepOutcome
from dotmac_workflows._core.state import RunState, apply, replay
from dotmac_workflows._run.journal import StoredJournal
from dotmac_workflows.persistence import Record
from dotmac_workflows.testing._judge import Violation
from dotmac_workflows.values import Codec

ID = "simulated"
_BEHAVIOURS: dict[Behaviour, int] = {
    "ok": 20,
    "approve": 6,
    "pause": 4,
    "pause_approve": 3,
    "fail": 2,
    "reject": 1,
    "cancel_at_gate": 1,
    "pause_cancel": 1,
    "cancel": 1,
    "cancel_fail": 1,
    "interrupt": 1,
}
_UNDOINGS: dict[Undoing, int] = {"ok": 4, "none": 1, "fail": 1}
_TEXTS = (None, "", "a", "Straße", "日本 🚀", 'quoted "twice"', "line\nline\u2028\x00\x7f", "\u202eabc")
_VALUES: tuple[Any, ...] = (
    *_TEXTS,
    True,
    0,
    -(10**40),
    0.1,
    -0.0,
    1e300,
    Decimal("1.10"),
    UUID(int=7),
    b"\x00\xff",
    datetime(2026, 1, 1, 12, 30, 1, 5, tzinfo=UTC),
    datetime(2026, 1, 1),
    date(2026, 2, 28),
    time(23, 59, 59),
    timedelta(days=-1, microseconds=1),
    (1, (2, "three")),
    {"x", "y"},
    [],
    {},
    {"": [{"deep": ({},)}]},
)


def random_script(chance: random.Random) -> Script:
    """Draw a script."""
    length = chance.randint(1, len(NAMES))
    behaviours = chance.choices(tuple(_BEHAVIOURS), tuple(_BEHAVIOURS.values()), k=length)
    undoings = chance.choices(tuple(_UNDOINGS), tuple(_UNDOINGS.values()), k=length)
    goes_on = chance.random() < 0.3
    settings = Settings(
        rollback_on_failure=not goes_on and chance.random() < 0.7,
        continue_on_step_failure=goes_on,
        require_approval=chance.random() < 0.8,
        rollback_on_cancel=chance.random() < 0.7,
        on_rollback_failure="halt" if chance.random() < 0.3 else "continue",
    )
    return Script(tuple(behaviours), tuple(undoings), settings, chance.choice(("nothing", "retry", "waive")))


class LiveHost(SimulatedHost):
    """Keeps what the loop held the state to be at each of its commits."""

    async def commit(self, state: RunState, events: list[Event]) -> None:
        await super().commit(state, events)
        world = self._world
        assert isinstance(world, RandomWorld)
        world.live[state.version] = owned(state)


class RandomWorld(World):
    """Plays a random script, with values and faults drawn by chance."""

    host = LiveHost

    def __init__(self, chance: random.Random) -> None:
        script = random_script(chance)
        points = range(4 + 6 * len(script.behaviours))
        super().__init__(script, sorted(chance.sample(points, chance.randint(0, 4))))
        self.live: dict[int, RunState] = {}
        """The states that drivers committed, by version."""
        self.commits: list[int] = []
        """The versions that were there to be read: what comes between was stored at one go."""
        self._chance = chance

    def append(self, events: list[Event], version: int) -> None:
        super().append(events, version)
        self.commits.append(version)

    def lost(self, driver: str) -> None:
        """Lose a driver, who in half the cases lets go of the run before."""
        super().lost(driver)
        if self._chance.random() < 0.5 and self.state().token == driver:
            self.outside([Released(self.now())])

    def outside(self, facts: list[Event]) -> None:
        super().outside(self._said(facts))

    def _take_over(self, state: RunState, facts: list[Event]) -> None:
        super()._take_over(state, self._said(facts))

    def _said(self, facts: list[Event]) -> list[Event]:
        """Return the facts with words of those that they are of."""
        said: list[Any] = list(facts)
        for index, event in enumerate(said):
            for name in ("actor", "reason"):
                if name in event._fields and (word := self._chance.choice(_TEXTS)) is not None:
                    event = event._replace(**{name: word})
            said[index] = event
        return said

    def data(self, position: int) -> dict[str, Any]:
        chance = self._chance
        return {f"{name}": chance.choice(_VALUES) for name in range(chance.choice((0, 1, 1, 3)))}

    def run_step(self, action: RunStep) -> Event:
        event = super().run_step(action)
        if isinstance(event, StepFailed):
            event = event._replace(exception=self._chance.choice(_TEXTS), traceback=self._chance.choice(_TEXTS))
        return self._told(event)

    def run_rollback(self, action: RunRollback) -> Event:
        return self._told(super().run_rollback(action))

    def _told(self, event: Event) -> Event:
        assert isinstance(event, StepOutcome | RollbackOutcome)
        event.result.execution_time = self._chance.choice((None, 0.0, 0.125, 1e-9))
        event.result.message = self._chance.choice(_TEXTS)
        return event


def fold_every_prefix(seed: int) -> tuple[RandomWorld, Counter[str]]:
    """Play the workflow of a seed, and fold every prefix of its journal; return it, and how often what was recorded.

    Raises:
        Violation: A prefix amounts to another state, or another decision, than was live there.
    """
    world = RandomWorld(random.Random(seed))
    try:
        world.play()
        prefixes = _hold_prefixes(world)
    except Exception as error:
        raise Violation(f"{error}\n{world.script}\nschedule {world.schedule}\n{lines(world.journal)}") from error
    counts = Counter(type(event).__name__ for event in world.journal)
    counts["prefixes"] = prefixes
    counts["states of drivers"] = len(world.live)
    return world, counts


def _hold_prefixes(world: RandomWorld) -> int:
    values = Codec()
    records = stored(world, values)
    read = [codec.decode(record.kind, record.at, record.body, values) for record in records]
    live = RunState(ID)
    for length, event in enumerate(world.journal, 1):
        if not alike([event], read[length - 1 : length]):
            raise Violation(f"invariant 12 read back, record {length}: {event} is read as {read[length - 1]}")
        apply(live, event)
        folded = replay(ID, read[:length])
        if folded != live:
            raise Violation(f"invariant 12 prefix, record {length}: live {live} is not folded {folded}")
        if folded != world.live.get(length, folded):
            raise Violation(f"invariant 12 driver, record {length}: {world.live[length]} is not folded {folded}")
        _hold_decision(live, folded, length)
    return len(read)


def _hold_decision(live: RunState, folded: RunState, length: int) -> None:
    """Hold what would come next against each other; a state that it changes is another one at the next record."""
    one, other = _decision(decide(live, length)), _decision(decide(folded, length))
    if one != other:
        raise Violation(f"invariant 12 decision, record {length}: live {one} is not folded {other}")


def _decision(decision: Decision) -> tuple[object, ...]:
    events, action = decision
    return [*map(type, events)], events, type(action), action


def alike(some: list[Event], others: list[Event]) -> bool:
    """Tell whether events are equal and of the same types: as tuples, those of two types can be equal."""
    return some == others and list(map(type, some)) == list(map(type, others))


def stored(world: RandomWorld, values: Codec) -> list[Record]:
    """Store a journal, commit by commit, as the engine does; return its records."""
    store = InMemoryPersistence()
    journal = StoredJournal(store, ID, values)
    state = RunState(ID)
    at = 0
    for version in world.commits:
        events, at = world.journal[at:version], version
        for event in events:
            apply(state, event)
        finished(journal.append(state, events))
    folded = finished(journal.fresh().load())
    if folded != state:
        raise Violation(f"invariant 12 stored: {state} is loaded as {folded}")
    records: list[Record] = finished(store.read(ID))
    return records


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")
