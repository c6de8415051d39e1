"""Many drivers and persons on one store that fails: every history keeps the promises, and a broken engine does not.

The campaign plays the same for as long as one likes: ``python -m tests.campaigns.histories --count 1000000``.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from campaigns import histories as campaign
from campaigns import seeds
from dotmac_workflows import ConcurrencyError, InMemoryPersistence, JournalCorruptError, PersistenceError
from dotmac_workflows._core import commands
from dotmac_workflows._core.events import Event, Released
from dotmac_workflows._core.state import RunState, apply
from dotmac_workflows._run import lease
from dotmac_workflows._run.drive import Conflict
from dotmac_workflows._run.journal import StoredJournal
from dotmac_workflows._run.local import LocalHost, Tenure
from dotmac_workflows.persistence import Lease, LeaseChange
from dotmac_workflows.testing._judge import Violation
from simulation.history import KINDS, History
from simulation.processes import no_operating_system

SEED = 20_261_125


@pytest.fixture(autouse=True)
def _simulated(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.CRITICAL, "dotmac_workflows")  # it is made to say much, and that takes its time
    with no_operating_system():
        yield


def play(count: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(SEED, SEED + count):
        counts += History(seed).play().counts
    return counts


def test_every_history_keeps_the_promises() -> None:
    print(f"seed {SEED}")
    counts = play(500)
    assert [kind for kind in KINDS if not counts[kind]] == [], "something never happened"


def test_a_seed_is_one_history() -> None:
    first, again, other = (History(seed, timeline=True).play() for seed in (SEED, SEED, SEED + 1))
    assert first == again
    assert first.timeline != other.timeline


# The watch has power: each fault that is planted here is found within some seeds.

Plant = Callable[[pytest.MonkeyPatch], None]


def without_fencing(patch: pytest.MonkeyPatch) -> None:
    """Neither the store nor the driver compares tokens."""

    async def read_again(host: LocalHost) -> RunState:
        return await host._journal.load()

    patch.setattr(InMemoryPersistence, "_check_lease", lambda self, workflow_id, token: None)
    patch.setattr(LocalHost, "_read_again", read_again)


def without_a_token_in_the_store(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InMemoryPersistence, "_check_lease", lambda self, workflow_id, token: None)


def without_expiry(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes takes over, whether the lease has expired or not."""

    def is_free(held: Lease | None, now: int) -> bool:
        return True

    patch.setattr(lease, "is_free", is_free)


def early_expiry(patch: pytest.MonkeyPatch) -> None:
    """A lease is held to be free a second before it is."""
    rightly = lease.is_free
    patch.setattr(lease, "is_free", lambda held, now: rightly(held, now + 1_000_000))


def a_lease_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lease, "is_free", lambda held, now: held is None)


def without_a_heartbeat(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LocalHost, "_arm_heartbeat", lambda self: None)


def a_conflict_is_a_success(patch: pytest.MonkeyPatch) -> None:
    """Whoever decides second hears nothing of it."""
    rightly = StoredJournal.append

    async def append(
        self: StoredJournal, state: RunState, events: list[Event], lease: LeaseChange | None = None
    ) -> None:
        try:
            await rightly(self, state, events, lease)
        except ConcurrencyError:
            if lease is not None:
                raise

    patch.setattr(StoredJournal, "append", append)


def a_failed_append_is_lost(patch: pytest.MonkeyPatch) -> None:
    """A driver whose append failed holds that nothing of it was written, and writes it again."""
    rightly = LocalHost.commit

    async def commit(self: LocalHost, state: RunState, events: list[Event]) -> None:
        try:
            await rightly(self, state, events)
        except PersistenceError:
            if self.run is None:
                raise
            raise Conflict(await self._read_again()) from None

    patch.setattr(LocalHost, "commit", commit)


def an_append_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    rightly = StoredJournal.append
    tasks: list[asyncio.Task[None]] = []

    async def append(
        self: StoredJournal, state: RunState, events: list[Event], lease: LeaseChange | None = None
    ) -> None:
        tasks.append(asyncio.ensure_future(rightly(self, state, events, lease)))
        await asyncio.sleep(0)

    patch.setattr(StoredJournal, "append", append)


def an_acknowledged_append_is_lost(patch: pytest.MonkeyPatch) -> None:
    rightly = InMemoryPersistence.append

    async def append(self: InMemoryPersistence, workflow_id: str, records: Sequence[Any], **how: Any) -> None:
        if how["expected_version"] < 3:
            await rightly(self, workflow_id, records, **how)

    patch.setattr(InMemoryPersistence, "append", append)


def shown_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    rightly = LocalHost.commit

    async def commit(self: LocalHost, state: RunState, events: list[Event]) -> None:
        if self.run is not None:
            self._publish(state)
        await rightly(self, state, events)

    patch.setattr(LocalHost, "commit", commit)


def a_lease_is_kept_at_a_gate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Tenure,
        "change",
        lambda self, state, expires_at: LeaseChange(self.token, self.owner, expires_at, self.in_place),
    )


def whichever_gate_is_open(patch: pytest.MonkeyPatch) -> None:
    """Who decides a gate that was decided meanwhile decides the next one."""
    rightly = commands._is_open
    patch.setattr(
        commands,
        "_is_open",
        lambda state, verdict, actor, gate: rightly(state, verdict, actor, None if state.gate else gate),
    )


def a_loser_is_told_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commands, "_is_open", lambda state, verdict, actor, gate: bool(state.gate))


def a_refused_decision_is_written(patch: pytest.MonkeyPatch) -> None:
    """What somebody asked is appended to whatever the journal has become, and not asked again."""
    rightly = StoredJournal.append

    async def append(
        self: StoredJournal, state: RunState, events: list[Event], lease: LeaseChange | None = None
    ) -> None:
        try:
            await rightly(self, state, events, lease)
        except ConcurrencyError:
            if lease is not None:
                raise
            state.version += (await self.load()).version - state.version + len(events)
            await rightly(self, state, events)

    patch.setattr(StoredJournal, "append", append)


def an_outcome_is_lost_in_a_conflict(patch: pytest.MonkeyPatch) -> None:
    rightly = LocalHost.commit

    async def commit(self: LocalHost, state: RunState, events: list[Event]) -> None:
        try:
            await rightly(self, state, events)
        except Conflict:
            events.clear()
            raise

    patch.setattr(LocalHost, "commit", commit)


def let_go_without_having_it(patch: pytest.MonkeyPatch) -> None:
    """Whoever is shut down lets go of the lease, whosever it is."""

    async def let_go(self: LocalHost) -> None:
        assert self._tenure is not None
        state = await self._journal.load()
        if state.token is not None:
            self._tenure.in_place = state.token
            released = Released(self.now())
            apply(state, released)
            await self._journal.append(state, [released], self._tenure.change(state, 0))

    patch.setattr(LocalHost, "_let_go", let_go)


FAULTS: dict[Plant, str] = {
    without_fencing: "invariant 4 stale token|.* is damaged: record .* cannot follow",
    without_a_token_in_the_store: "invariant 4 stale token",
    without_expiry: "invariant 3 one driver",
    early_expiry: "invariant 3 one driver",
    a_lease_for_ever: "invariant 3 told",
    without_a_heartbeat: "invariant 3 one driver",
    a_conflict_is_a_success: "invariant (8 told|10 seen)",
    a_refused_decision_is_written: "invariant",
    a_failed_append_is_lost: "invariant (1 never again|10 nothing made up)",
    an_append_is_not_waited_for: "invariant (16 known fate|5 key)",
    an_acknowledged_append_is_lost: "invariant 10 lost",
    an_outcome_is_lost_in_a_conflict: "invariant 2 one a crash",
    shown_before_it_is_stored: "invariant 10 seen",
    a_lease_is_kept_at_a_gate: "invariant 4 lease",
    let_go_without_having_it: "invariant 4 stale token",
    whichever_gate_is_open: "invariant 8 one decision",
    a_loser_is_told_nothing: "invariant 8",
}


@pytest.mark.parametrize("plant", FAULTS)
def test_a_planted_fault_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((Violation, JournalCorruptError), match=f"^({FAULTS[plant]})"):
        play(500)


# The campaign.


def test_the_campaign_plays_as_many_as_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--count", "60", "--seed", "7", "--jobs", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "seed 7, 1 processes"
    assert said[-1].startswith("60 histories in ")


def test_the_campaign_names_the_history_that_broke_a_promise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        without_expiry(patch)
        assert campaign.main(["--count", "60", "--seed", "7", "--jobs", "1"]) == 1
        broken, again = capsys.readouterr().err.splitlines()
        assert broken.startswith("error: invariant 3 one driver")
        seed = again.removeprefix("again: python -m tests.campaigns.histories --only ")
        assert campaign.main(["--only", seed]) == 1
        played = capsys.readouterr()
        assert played.err.splitlines() == [broken]
        assert "claimed" in played.out
    assert campaign.main(["--only", seed]) == 0


def test_a_campaign_in_which_something_never_happens_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds, "_ENOUGH", 3)
    assert campaign.main(["--count", "3", "--seed", "7", "--jobs", "1"]) == 1
    assert "there were no [" in capsys.readouterr().err
