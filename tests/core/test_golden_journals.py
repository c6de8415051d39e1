"""Journals that were written once are read for ever: see ``tests/golden/make.py``."""

import json
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pytest

from dotmac_workflows import Workflow, verify
from dotmac_workflows._core import codec
from dotmac_workflows._run.journal import check_digests, header_of, read_state
from dotmac_workflows.persistence import InMemoryPersistence, Record
from dotmac_workflows.values import Codec
from golden.make import EVERY_VALUE

FILES = sorted((Path(__file__).parents[1] / "golden").glob("v*/*.json"))


def rows_of(golden: dict[str, Any]) -> list[Record]:
    return [Record(**row) for row in golden["records"]]


@pytest.fixture(params=FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param.stem == "in_a_time_zone" and "Europe/Berlin" not in available_timezones():
        pytest.skip("this machine has no database of time zones")
    found: dict[str, Any] = json.loads(request.param.read_text(encoding="ascii"))
    return found


async def test_a_golden_journal_is_what_it_was(golden: dict[str, Any]) -> None:
    rows = rows_of(golden)
    check_digests("order-42", rows)
    state = read_state("order-42", rows, Codec())
    store = InMemoryPersistence()
    await store.append("order-42", rows, expected_version=0, header=header_of(state, rows[-1].at))
    shown = (await Workflow.load("order-42", store)).to_dict()
    for name in ("metadata", "approval_data"):
        del shown[name]
    for result in shown["results"]:
        del result["data"]
    assert shown == golden["shown"]
    checked = await verify(store)
    assert (checked.workflows, checked.records, checked.problems) == (1, len(rows), [])


def test_a_golden_journal_has_every_value_as_it_was() -> None:
    golden = json.loads((FILES[0].parents[1] / "v1" / "completed.json").read_text(encoding="ascii"))
    state = read_state("order-42", rows_of(golden), Codec())
    assert state.results[0].data == EVERY_VALUE
    assert {name: type(value) for name, value in state.results[0].data.items()} == {
        name: type(value) for name, value in EVERY_VALUE.items()
    }
    assert state.plan is not None
    assert state.plan.metadata == {"reserve": "every value", "about": EVERY_VALUE}


def test_this_version_writes_what_its_golden_journals_hold(golden: dict[str, Any]) -> None:
    """Let the writer change a kind only together with the kind's name, and with a reader for the old one."""
    for row in rows_of(golden):
        event = codec.decode(row.kind, row.at, row.body, Codec())
        assert codec.encode(event, Codec()) == (row.kind, row.body)


def test_every_kind_has_a_golden_record() -> None:
    kinds = {row.kind for path in FILES for row in rows_of(json.loads(path.read_text(encoding="ascii")))}
    assert kinds == set(codec._TYPES)
