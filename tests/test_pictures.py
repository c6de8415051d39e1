"""The plan as Mermaid and the journal as SVG: whole texts, hostile names, and every state that a run can be in."""

import importlib.util
import json
import re
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac_workflows import InMemoryPersistence, Workflow, WorkflowResult, WorkflowStatus
from dotmac_workflows._core import codec
from dotmac_workflows.persistence import Record
from dotmac_workflows.pictures import timeline_svg
from dotmac_workflows.pictures.text import cut, one_line, width

TOP = Path(__file__).parents[1]
GOLDEN = sorted(path for path in (TOP / "tests" / "golden").glob("v*/*.json") if path.stem != "store")
HOSTILE = [
    "end",
    'a"]-->b["x',
    "one\ntwo\r\nthree\u2028four",
    "1. list",
    "- list",
    "<script>alert(1)</script>",
    "*bold* `code` __strong__ ~~gone~~",
    "%%{init: {'theme': 'x'}}%%",
    "classDef style:#fff;",
    "#quot; &amp; &lt;b&gt;",
    "\x00\x07\x1b[31mred\x1b[0m\x7f\x9b",
    "abc\u202egnp.exe\u2066\ufeff\ufffe",
    "\ud800 lone",
    "ﬂ°°60¶ß",
    "résumé 注文",
    "x" * 500,
    "w" * 500,
    "W@M%" * 100,
    "",
    "   ",
    "]]> <!-- --> <![CDATA[",
    "</text></svg>",
    "url(#dw-waits)",
    "\\",
]


class Order(Workflow):
    """Does as its attributes say."""

    fails: str | None = None
    asks: tuple[str, ...] = ()
    not_undone: tuple[str, ...] = ()
    has_no_undo: tuple[str, ...] = ()
    drawn: str = ""

    async def execute_step(self, step: str) -> WorkflowResult:
        self.drawn = self.to_mermaid()
        if step == self.fails:
            return WorkflowResult(False, step, error="refused", message="no")
        return WorkflowResult(True, step, requires_approval=step in self.asks)

    async def rollback_step(self, step: str) -> WorkflowResult | None:
        self.drawn = self.to_mermaid()
        if step in self.not_undone:
            return WorkflowResult(False, step, error="closed")
        return None if step in self.has_no_undo else WorkflowResult(True, step)


def order(*steps: str, workflow_id: str = "order-42", **attributes: object) -> Order:
    made = Order(workflow_id, list(steps or ("reserve", "charge", "ship")))
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def boxes(mermaid: str) -> list[str]:
    """Return what the boxes of a flowchart say, with their state."""
    found = re.findall(r'^    (\w+)(?:\["|\{\{")(.*)(?:"\]|"\}\}):::(\w+)$', mermaid, re.MULTILINE)
    return [f"{node} {decoded(label)} ({state})" for node, label, state in found]


def title(mermaid: str) -> str:
    found = re.search(r'^  subgraph plan\["(.*)"\]$', mermaid, re.MULTILINE)
    assert found is not None
    return decoded(found[1])


def why_undo(mermaid: str) -> str | None:
    found = re.search(r'^  plan -\. "(.*)" \.-> undo$', mermaid, re.MULTILINE)
    return None if found is None else decoded(found[1])


def decoded(label: str) -> str:
    return re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label.replace("<br/>", " / "))


# Mermaid.


def test_a_plan_that_has_not_run() -> None:
    assert (
        order("reserve", "charge").to_mermaid()
        == """\
flowchart LR
  subgraph plan["Order"]
    direction TB
    s0["reserve"]:::pending
    s1["charge"]:::pending
    s0 --> s1
  end
  subgraph undo["undo, the last one first"]
    direction BT
    u1["undo charge"]:::pending
    u0["undo reserve"]:::pending
    u1 --> u0
  end
  plan -. "a step fails" .-> undo
  classDef pending fill:none,stroke:#8a8a8a,stroke-dasharray:4 3
  classDef frame fill:none,stroke:#8a8a8a
  class plan,undo frame
"""
    )


async def test_a_run_that_was_undone_in_part() -> None:
    run = order(fails="ship", asks=("charge",), not_undone=("reserve",), require_approval=True)
    await run.execute()
    await run.approve_and_continue()
    assert (
        run.to_mermaid()
        == """\
flowchart LR
  subgraph plan["Order order-42 failed"]
    direction TB
    s0["✓ reserve"]:::done
    s1["✓ charge"]:::done
    g1{{"✓ approved"}}:::done
    s2["✗ ship<br/>failed#58; refused"]:::failed
    s0 --> s1
    s1 --> g1
    g1 --> s2
  end
  subgraph undo["undo, the last one first"]
    direction BT
    u1["↶ charge undone"]:::undone
    u0["✗ undo reserve<br/>failed#58; closed"]:::failed
    u1 --> u0
  end
  plan -. "ship failed" .-> undo
  classDef done fill:#d5f0e7,stroke:#009E73,color:#111,stroke-width:2px
  classDef failed fill:#fae0d2,stroke:#D55E00,color:#111,stroke-width:3px
  classDef undone fill:#f6e4ee,stroke:#CC79A7,color:#111,stroke-width:2px
  classDef frame fill:none,stroke:#8a8a8a
  class plan,undo frame
"""
    )


def test_no_steps() -> None:
    run = order()
    run.steps = []
    assert (
        run.to_mermaid()
        == """\
flowchart LR
  subgraph plan["Order"]
    direction TB
    s0["no steps"]:::skipped
  end
  classDef skipped fill:none,stroke:#8a8a8a
  classDef frame fill:none,stroke:#8a8a8a
  class plan frame
"""
    )


async def test_while_a_step_runs() -> None:
    run = order()
    await run.execute()
    assert title(run.drawn) == "Order order-42 is running"
    assert boxes(run.drawn)[:3] == [
        "s0 ✓ reserve (done)",
        "s1 ✓ charge (done)",
        "s2 ► ship / runs, or is next (running)",
    ]


async def test_a_completed_run_has_no_undo_path() -> None:
    run = order()
    await run.execute()
    assert title(run.to_mermaid()) == "Order order-42 completed"
    assert boxes(run.to_mermaid()) == ["s0 ✓ reserve (done)", "s1 ✓ charge (done)", "s2 ✓ ship (done)"]


async def test_a_run_that_waits() -> None:
    run = order(asks=("charge",), require_approval=True, rollback_on_cancel=True)
    await run.execute()
    drawn = run.to_mermaid()
    assert title(drawn) == "Order order-42 waits for approval"
    assert boxes(drawn) == [
        "s0 ✓ reserve (done)",
        "s1 ✓ charge (done)",
        "g1 … approval / waits for a decision (waiting)",
        "s2 ship (pending)",
        "u2 undo ship (pending)",
        "u1 undo charge (pending)",
        "u0 undo reserve (pending)",
    ]
    assert "    g1 -- if approved --> s2\n" in drawn
    assert why_undo(drawn) == "a step fails, or rejected or cancelled"


async def test_a_step_that_asks_where_nobody_is_asked() -> None:
    run = order(asks=("charge",))
    await run.execute()
    assert boxes(run.to_mermaid()) == ["s0 ✓ reserve (done)", "s1 ✓ charge (done)", "s2 ✓ ship (done)"]


async def test_a_rejected_run() -> None:
    run = order(asks=("charge",), require_approval=True, rollback_on_cancel=True, has_no_undo=("reserve",))
    await run.execute()
    await run.reject_and_cancel("no")
    drawn = run.to_mermaid()
    assert title(drawn) == "Order order-42 was cancelled"
    assert boxes(drawn) == [
        "s0 ✓ reserve (done)",
        "s1 ✓ charge (done)",
        "g1 ✗ rejected (failed)",
        "s2 ship / not run (pending)",
        "u1 ↶ charge undone (undone)",
        "u0 undo reserve / has no rollback (skipped)",
    ]
    assert why_undo(drawn) == "rejected"


async def test_a_run_that_was_cancelled_where_it_waited() -> None:
    run = order(asks=("charge",), require_approval=True)
    await run.execute()
    await run.cancel("no")
    drawn = run.to_mermaid()
    assert boxes(drawn) == [
        "s0 ✓ reserve (done)",
        "s1 ✓ charge (done)",
        "g1 approval / not decided (skipped)",
        "s2 ship / not run (pending)",
    ]
    assert why_undo(drawn) is None


async def test_a_step_that_failed_once_the_run_was_cancelled() -> None:
    class Cancelled(Order):
        async def execute_step(self, step: str) -> WorkflowResult:
            if step == "charge":
                await self.cancel("no")
                raise RuntimeError("the step that asked goes on, and fails")
            return await super().execute_step(step)

    run = Cancelled("order-42", ["reserve", "charge", "ship"])
    run.rollback_on_cancel = True
    await run.execute()
    drawn = run.to_mermaid()
    assert run.results[1].error == "step_execution_error"
    assert why_undo(drawn) == "cancelled"
    assert boxes(drawn) == [
        "s0 ✓ reserve (done)",
        "s1 ✗ charge / raised an error (failed)",
        "s2 ship / not run (pending)",
        "u0 ↶ reserve undone (undone)",
    ]


async def test_an_interrupted_step_is_undone_too() -> None:
    run = order()
    run.status, run.current_step_index, run.rollback_on_cancel = WorkflowStatus.CANCELLED, 1, True
    run.results = [
        WorkflowResult(True, "reserve"),
        WorkflowResult(False, "charge", error="step_interrupted"),
        WorkflowResult(True, "rollback_charge"),
        WorkflowResult(True, "rollback_reserve"),
    ]
    run = Order.from_dict({**run.to_dict(), "rollback_status": "done"})
    assert boxes(run.to_mermaid()) == [
        "s0 ✓ reserve (done)",
        "s1 ? charge / interrupted: its outcome is unknown (unknown)",
        "s2 ship / not run (pending)",
        "u1 ↶ charge undone (undone)",
        "u0 ↶ reserve undone (undone)",
    ]
    assert why_undo(run.to_mermaid()) == "cancelled"


async def test_a_paused_run() -> None:
    class Paused(Order):
        async def execute_step(self, step: str) -> WorkflowResult:
            if step == "reserve":
                await self.pause("holiday")
            return await super().execute_step(step)

    run = Paused("order-42", ["reserve", "charge", "ship"])
    await run.execute()
    assert title(run.to_mermaid()) == "Paused order-42 is paused"
    assert boxes(run.to_mermaid())[:3] == [
        "s0 ✓ reserve (done)",
        "s1 ‖ charge / paused before it (paused)",
        "s2 ship (pending)",
    ]


async def test_failures_that_are_gone_over() -> None:
    run = order(fails="charge", rollback_on_failure=False, continue_on_step_failure=True)
    assert why_undo(run.to_mermaid()) is None
    await run.execute()
    assert boxes(run.to_mermaid()) == [
        "s0 ✓ reserve (done)",
        "s1 ✗ charge / failed: refused (failed)",
        "s2 ✓ ship (done)",
    ]


async def test_while_it_is_undone() -> None:
    run = order(fails="ship")
    await run.execute()
    assert boxes(run.drawn)[3:] == [
        "u1 ↶ charge undone (undone)",
        "u0 ► undo reserve / runs, or is next (running)",
    ]
    assert boxes(run.to_mermaid())[3:] == ["u1 ↶ charge undone (undone)", "u0 ↶ reserve undone (undone)"]


async def test_a_rollback_that_halts_is_retried_and_skipped() -> None:
    run = order(fails="ship", not_undone=("charge",), on_rollback_failure="halt")
    await run.execute()
    assert boxes(run.to_mermaid())[3:] == [
        "u1 ✗ undo charge / failed: closed (failed)",
        "u0 undo reserve / not tried (pending)",
    ]
    run.not_undone = ("reserve",)
    await run.retry_rollback()
    assert boxes(run.drawn)[3:] == ["u1 ↶ charge undone (undone)", "u0 ► undo reserve / runs, or is next (running)"]
    await run.skip_rollback("reserve", "by hand", actor="operator")
    assert boxes(run.to_mermaid())[3:] == [
        "u1 ↶ charge undone (undone)",
        "u0 undo reserve / skipped: put right by hand (skipped)",
    ]


async def test_a_retried_run() -> None:
    run = order(fails="ship")
    await run.execute()
    run.fails = None
    await run.retry()
    assert title(run.to_mermaid()) == "Order order-42 completed"
    assert boxes(run.to_mermaid()) == ["s0 ✓ reserve (done)", "s1 ✓ charge (done)", "s2 ✓ ship (done)"]


async def test_a_plan_that_was_refused() -> None:
    class Refused(Order):
        async def validate(self) -> WorkflowResult:
            return WorkflowResult(False, "reserve", error="bad_order")

    run = Refused("order-42", ["reserve", "charge"])
    await run.execute()
    assert title(run.to_mermaid()) == "Refused order-42 was not started: bad_order"
    assert boxes(run.to_mermaid()) == ["s0 reserve / not run (pending)", "s1 charge / not run (pending)"]


async def test_names_that_come_twice_or_look_like_a_rollback() -> None:
    run = order("ping", "rollback_ping", "ping", "rollback_ping", fails=None, not_undone=("rollback_ping",))
    await run.execute()
    assert [box[-6:] for box in boxes(run.to_mermaid())] == ["(done)"] * 4
    run = order("ping", "rollback_ping", "ping", "pong", fails="pong", not_undone=("rollback_ping",))
    await run.execute()
    assert boxes(run.to_mermaid()) == [
        "s0 ✓ ping (done)",
        "s1 ✓ rollback_ping (done)",
        "s2 ✓ ping (done)",
        "s3 ✗ pong / failed: refused (failed)",
        "u2 ↶ ping undone (undone)",
        "u1 ✗ undo rollback_ping / failed: closed (failed)",
        "u0 ↶ ping undone (undone)",
    ]


def test_a_draft() -> None:
    run = order()
    run.status, run.current_step_index = WorkflowStatus.WAITING_APPROVAL, 1
    assert boxes(run.to_mermaid())[:4] == [
        "s0 reserve / passed (skipped)",
        "s1 ✓ charge (done)",
        "g1 … approval / waits for a decision (waiting)",
        "s2 ship (pending)",
    ]


async def test_a_stored_run_looks_the_same_from_anywhere() -> None:
    store = InMemoryPersistence()
    run = Order("order-42", ["reserve", "charge"], persistence=store)
    run.configure(require_approval=True)
    run.asks = ("reserve",)
    await run.execute()
    live = run.to_mermaid()
    assert (await Workflow.load("order-42", store)).to_mermaid() == live
    assert title(live) == "Order order-42 waits for approval"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_in_its_label(name: str) -> None:
    run = order("before", name, workflow_id="order-42")
    plain = order("before", "plain").to_mermaid().splitlines()
    drawn = run.to_mermaid().splitlines()
    assert [line for line in drawn if line not in plain] == [drawn[4], drawn[9]]
    assert re.fullmatch(r'    s1\["([^\W_]|(?<=\w)[_-](?=\w)|[ ]|#\d+;)+"\]:::pending', drawn[4])
    shown = one_line(name).replace("\ufb02", "fl") or "(no name)"
    said = boxes(run.to_mermaid())[1].removeprefix("s1 ").removesuffix(" (pending)")
    assert said == (shown if len(shown) <= 60 else f"{shown[:59]}…")


# SVG.

AT = 1_783_000_000_000_000  # 2026-07-02 13:46:40 UTC


class Journal:
    """Rows, each so many milliseconds after the one before it."""

    def __init__(self) -> None:
        self.rows: list[Record] = []
        self.at = AT

    def __call__(self, kind: str, after: float = 0, **body: object) -> "Journal":
        self.at += round(after * 1000)
        self.rows.append(Record(len(self.rows) + 1, kind, self.at, json.dumps(body), ""))
        return self

    def start(self) -> "Journal":
        return self("workflow_started", workflow_type="Order")("claimed", owner="one")

    def step(self, step: str, took: float, *, undo: bool = False, **result: object) -> "Journal":
        kind = "rollback_step" if undo else "step"
        outcome = "succeeded" if result.setdefault("success", True) else "failed"
        self(f"{kind}_started", step=step, position=0, visit=1, attempt=1)
        name = f"rollback_{step}" if undo else step
        return self(f"{kind}_{outcome}", took, result={"step": name, "execution_time": took / 1000, **result})

    def draw(self, workflow_id: str = "order-42") -> str:
        return timeline_svg(workflow_id, self.rows)


SVG = "{http://www.w3.org/2000/svg}"


def rows(svg: str) -> list[str]:
    """Return the rows of a picture as text, without its heading and footnote."""
    found = []
    for element in ElementTree.fromstring(svg):
        texts = ["".join(text.itertext()) for text in element.findall(f"{SVG}text")]
        if element.tag == f"{SVG}text" and "bold" in (element.get("class") or "") and element.get("y") != "30":
            found.append("".join(element.itertext()))
        elif element.tag == f"{SVG}g" and texts:
            found.append(" | ".join(texts))
    return found


def heading(svg: str) -> list[str]:
    texts = ["".join(text.itertext()) for text in ElementTree.fromstring(svg).findall(f"{SVG}text")]
    return texts[:2]


# The advance widths of DejaVu Sans, the broadest font that the picture names, for the ASCII characters from the space.
ADVANCES = [
    int(advance)
    for advance in """
    318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636 636 337 337 838
    838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603 787 695 635 611 732 684 989 685
    611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278 278 579 278 974 634 612 635 635 411 521 392 634
    592 818 592 592 525 636 337 636 838
    """.split()
]


def advance(text: str) -> float:
    """Return how wide a text is in that font, in ems; what is not ASCII as wide as its broadest signs."""
    return sum(ADVANCES[ord(c) - 32] / 1000 if c.isascii() else 1.0 for c in text)


def assert_fits(svg: str) -> None:
    """Check that a picture is XML, and that no text leaves its column or the picture."""
    root = ElementTree.fromstring(svg)
    _, _, wide, high = map(float, root.attrib["viewBox"].split())
    assert (wide, root.get("width"), root.get("height")) == (900, "900", f"{high:.0f}")
    for text in root.iter(f"{SVG}text"):
        size = float(text.get("font-size", "12")) * (1.13 if "bold" in text.get("class", "") else 1)
        x, y, length = float(text.attrib["x"]), float(text.attrib["y"]), advance("".join(text.itertext())) * size
        left = x - length / 2 if text.get("text-anchor") == "middle" else x
        limit = {97.0: 285.0, 18.0: 882.0}.get(left, 882.0)
        assert left >= 0
        assert left + length <= limit, "".join(text.itertext())
        assert 12 <= y <= high - 4


def test_width_is_no_less_than_that_of_the_broadest_font() -> None:
    for character in map(chr, range(32, 127)):
        assert width(character) >= advance(character), character


def test_cut() -> None:
    assert cut("order", width("order")) == "order"
    assert cut("orders of today", 5) == "orders…"
    assert cut("or ders", 2.8) == "or…"
    for room in (1, 2, 5, 10):
        assert width(cut("W@M% order 注文" * 9, room)) <= room


def test_a_small_timeline() -> None:
    drawn = Journal().start().step("reserve", 6, message="3 < 4")("approval_requested", step="reserve").draw()
    assert drawn == Journal().start().step("reserve", 6, message="3 < 4")("approval_requested", step="reserve").draw()
    head, _, body = drawn.partition("</defs>\n")
    assert head.splitlines()[:2] == [
        '<svg xmlns="http://www.w3.org/2000/svg" class="dw" width="900" height="180" viewBox="0 0 900 180" role="img">',
        "<title>order-42: Order waits for approval</title>",
    ]
    assert "@media(prefers-color-scheme:dark)" in head
    assert body == (
        """\
<rect class="bg" x="0.5" y="0.5" width="899" height="179" rx="6"/>
<text class="bold" font-size="16" x="18" y="30">order-42</text>
<path class="sign waits" transform="translate(18 42)" d="M3 2H9.5L6.2 6.2 9.5 10.5H3L6.2 6.2Z"/>
<text x="36" y="53">waits for approval · Order · 2026-07-02 13:46:40 UTC · 6 ms up to its last record</text>
<g><title>decision on reserve</title><rect class="idle" x="504.0" y="70" width="26.0" height="76"/></g>
<path class="edge" d="M285.5 70V146"/>
<path class="edge" d="M530.5 70V146"/>
<g>
<title>reserve: done in 6 ms · 3 &lt; 4</title>
<path class="rule" d="M18 92.5H882"/>
<text class="dim" x="18" y="108">13:46:40</text>
<path class="sign done" transform="translate(80 98)" d="M2 6.5 5 9.5 10.5 3"/>
<text x="97" y="108">reserve</text>
<rect class="done" x="285.0" y="98" width="219.0" height="12" rx="2"/>
<text x="548" y="108">done in 6 ms · 3 &lt; 4</text>
</g>
<g>
<title>decision on reserve: waits for a decision</title>
<path class="rule" d="M18 116.5H882"/>
<text class="dim" x="18" y="132">13:46:40</text>
<path class="sign waits" transform="translate(80 122)" d="M3 2H9.5L6.2 6.2 9.5 10.5H3L6.2 6.2Z"/>
<text x="97" y="132">decision on reserve</text>
<rect class="waits" x="504.0" y="122" width="26.0" height="12" rx="2"/>
<rect fill="url(#dw-waits)" x="504.0" y="122" width="26.0" height="12" rx="2"/>
<path class="sign waits" d="M533 124l4 4-4 4"/>
<text x="548" y="132">waits for a decision</text>
</g>
<text class="dim" x="18" y="166">Not to scale: long times are drawn short, so that short ones can be seen.</text>
</svg>
"""
    )
    assert_fits(drawn)


def everything() -> Journal:
    """Return a run that went through all that a run can go through."""
    hours = 3_600_000
    journal = Journal().start().step("reserve", 6, message="3 left")
    journal("step_started", step="charge", visit=1, attempt=1)("claimed", 34_000, owner="two")
    journal("step_started", step="charge", visit=1, attempt=2)("released", 500)("claimed", 2_000, owner="three")
    journal("step_started", step="charge", visit=1, attempt=3)(
        "step_succeeded", 8, result={"step": "charge"}, gated=True
    )
    journal("approval_requested", step="charge")("approved", 31 * hours, actor="approver@example.com", data={})
    journal("claimed", 95_000, owner="four")("pause_requested", 1, actor="operator", reason="holiday")("paused")
    journal("resumed", hours, actor="operator")("claimed", owner="five")
    journal.step("ship", 90_000, success=False, error="refused", message="no van")("rollback_started", step="ship")
    journal.step("charge", 5, undo=True, success=False, error="step_execution_error", message="OSError: closed")
    journal("rollback_step_started", step="reserve", visit=1, attempt=1)("rollback_step_skipped", 1, result={})
    journal("rollback_finished", complete=False)("workflow_failed")
    journal("rollback_retried", 2 * hours, actor="operator")("claimed", owner="six")
    journal.step("charge", 5, undo=True, success=False, error="closed")("rollback_finished", complete=False)
    journal("workflow_failed")("rollback_waived", 60_000, step="charge", actor="operator", reason="paid by hand")
    journal("rollback_finished", complete=True)("retried", 60_000, actor="operator", from_index=0)
    journal("claimed", owner="seven")("step_started", step="reserve", visit=2, attempt=1)
    return journal


def test_everything_that_can_happen() -> None:
    drawn = everything().draw()
    assert heading(drawn) == [
        "order-42",
        "running · Order · 2026-07-02 13:46:40 UTC · 34 h 5 min up to its last record, 31 h 0 min of it for a decision",
    ]
    assert rows(drawn) == [
        "13:46:40 | reserve | done in 6 ms · 3 left",
        "13:46:40 | charge | driver gone: no outcome · taken up after 34.0 s",
        "13:47:14 | charge (try 2) | let go: no outcome · its driver was shut down",
        "13:47:14 | nobody drives | for 2.0 s, then taken up",
        "13:47:16 | charge (try 3) | done in 8 ms",
        "13:47:16 | decision on charge | approved after 31 h 0 min | by approver@example.com, 2026-07-03 20:47",
        "2026-07-03",
        "20:47:16 | nobody drives | for 1 min 35 s, then taken up",
        "20:48:51 | paused | resumed by operator after 1 h 0 min | paused by operator: holiday",
        "21:48:51 | ship | failed after 1 min 30 s · refused: no van",
        "21:50:21 | rolling back | turned round at ship",
        "21:50:21 | undo charge | failed after 5 ms · OSError: closed",
        "21:50:21 | undo reserve | has no rollback",
        "21:50:21 | rollback incomplete | something is left to undo",
        "21:50:21 | failed | rollback retried by operator after 2 h 0 min",
        "23:50:21 | undo charge | failed after 5 ms · closed",
        "23:50:21 | rollback incomplete | something is left to undo",
        "23:50:21 | failed | retried by operator after 2 min 0 s",
        "23:51:21 | undo charge | skipped: put right by hand | by operator: paid by hand",
        "23:52:21 | reserve (visit 2) | no outcome recorded yet",
    ]
    assert_fits(drawn)


def status(journal: Journal) -> str:
    return heading(journal.draw())[1].partition(" · ")[0]


def test_every_status() -> None:
    assert heading(timeline_svg("order-42", [])) == ["order-42", "not started"]
    assert status(Journal()("workflow_started")) == "running, due: nobody drives it"
    assert status(Journal().start()) == "running"
    waiting = Journal().start().step("reserve", 1)("approval_requested", step="reserve")
    assert status(waiting) == "waits for approval"
    assert status(waiting("approved", 1)) == "running, due: nobody drives it"
    assert status(Journal().start()("paused")) == "paused"
    assert status(Journal().start()("rollback_started", step="x")) == "rolling back"
    for kind, word in (("completed", "completed"), ("failed", "failed"), ("cancelled", "cancelled")):
        assert status(Journal().start()(f"workflow_{kind}")) == word
    assert status(Journal()("workflow_started", draft={"status": "waiting_approval"})) == "waits for approval"


def test_a_rejection_and_a_cancel() -> None:
    waiting = Journal().start().step("reserve", 1)("approval_requested", step="reserve")
    waiting("rejected", 1500, actor="approver@example.com", reason="no budget")("workflow_cancelled")
    assert rows(waiting.draw())[1:] == [
        "13:46:40 | decision on reserve | rejected after 1.5 s | by approver@example.com, 13:46:41: no budget",
        "13:46:41 | cancelled | 1.5 s after the start",
    ]
    running = Journal().start()("step_started", step="reserve", attempt=1)
    running("cancel_requested", 5, actor="operator", reason="no")("step_interrupted", 7, result={"step": "reserve"})
    assert rows(running.draw()) == [
        "13:46:40 | reserve | interrupted after 12 ms",
        "13:46:40 | cancel requested | by operator: no",
    ]
    left = Journal().start()("step_started", step="reserve", attempt=1)("cancel_requested", 60_000, reason="no")
    left("claimed", owner="two")("step_interrupted", result={"step": "reserve"})("workflow_cancelled")
    assert rows(left.draw()) == [
        "13:46:40 | reserve | driver gone: no outcome | taken up after 1 min 0 s and cancelled",
        "13:47:40 | cancel requested | no",
        "13:47:40 | cancelled | 1 min 0 s after the start",
    ]


def test_a_driver_that_was_gone_between_two_steps() -> None:
    assert rows(Journal().start().step("reserve", 6)("claimed", 31_000, owner="two").draw()) == [
        "13:46:40 | reserve | done in 6 ms",
        "13:46:40 | driver gone | taken up after 31.0 s",
    ]


def test_a_wait_a_thousand_times_as_long_does_not_hide_the_steps() -> None:
    journal = Journal().start().step("reserve", 5)("approval_requested", step="reserve")
    journal("approved", 30 * 24 * 3_600_000)("claimed").step("ship", 5)("workflow_completed")
    root = ElementTree.fromstring(journal.draw())
    reserve, wait, ship = (
        float(next(rect for rect in row.findall(f"{SVG}rect")).attrib["width"])
        for row in root.findall(f"{SVG}g")
        if row.find(f"{SVG}text") is not None and row.find(f"{SVG}rect") is not None
    )
    assert reserve == ship >= 10
    assert wait > 100
    above = [text.text for text in root.findall(f"{SVG}text") if text.get("text-anchor") == "middle"]
    assert above == ["30 d 0 h"]


def test_a_clock_that_is_set_back() -> None:
    journal = Journal().start()("step_started", 1000, step="reserve")("step_succeeded", -5000, result={})
    drawn = journal.step("charge", 6).draw()
    assert rows(drawn) == ["13:46:41 | reserve | done in <1 ms", "13:46:41 | charge | done in 6 ms"]
    assert_fits(drawn)


def test_records_that_cannot_be_read() -> None:
    journal = Journal().start()("from_the_future", some=5)("step_started", step=5)
    journal.rows.append(Record(9, "step_failed", journal.at, "not json", ""))
    journal.rows.append(Record(10, "step_failed", journal.at, "[]", ""))
    assert rows(journal.draw()) == [
        "13:46:40 | from the future",
        "13:46:40 | (no name) | failed after <1 ms",
        "13:46:40 | step | failed after <1 ms",
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_escaped_and_cut(name: str) -> None:
    journal = Journal()("workflow_started", workflow_type=name)("claimed").step(name, 6, message=name)
    journal("step_started", step=name, attempt=12345, visit=12345)("step_failed", result={"error": name, "step": name})
    journal("approval_requested", step=name)("rejected", 1, actor=name, reason=name)("rollback_started", step=name)
    journal("pause_requested", actor=name, reason=name)("paused")("cancel_requested", actor=name, reason=name)(name)
    drawn = journal.draw(name)
    assert_fits(drawn)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\ud800]", drawn)
    elements = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(drawn).iter()}
    assert elements == {"svg", "title", "style", "defs", "pattern", "path", "rect", "text", "g", "circle"}
    assert one_line(name) in "".join(ElementTree.fromstring(drawn).itertext())


def test_what_was_cut_is_in_the_tooltip() -> None:
    drawn = Journal().start().step("a_step_with_a_very_long_name_indeed", 6, message="word " * 30).draw()
    (row,) = rows(drawn)
    assert row == "13:46:40 | a_step_with_a_very_l… | done in 6 ms | word word word word word word word word…"
    tooltip = f"<title>a_step_with_a_very_long_name_indeed: done in 6 ms · {('word ' * 30).strip()}</title>"
    assert tooltip in unescape(drawn)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = (
    "step attempt visit actor reason result draft status complete workflow_type message error execution_time".split()
)
KINDS = """
    workflow_started claimed released step_started step_succeeded step_failed step_interrupted approval_requested
    approved rejected pause_requested paused resumed cancel_requested rollback_started rollback_step_started
    rollback_step_succeeded rollback_step_skipped rollback_step_failed rollback_finished rollback_retried
    rollback_waived workflow_completed workflow_failed workflow_cancelled retried
""".split()
BODIES = st.dictionaries(
    st.sampled_from(FIELDS), JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), max_size=5
)


@given(st.lists(st.tuples(st.sampled_from(KINDS) | st.text(max_size=9), st.integers(-10, 10**18), BODIES), max_size=12))
def test_any_rows_make_a_picture(given_rows: list[tuple[str, int, dict[str, Any]]]) -> None:
    made = [Record(seq, kind, at, json.dumps(body), "") for seq, (kind, at, body) in enumerate(given_rows, 1)]
    drawn = timeline_svg("order-42", made)
    ElementTree.fromstring(drawn)
    assert drawn == timeline_svg("order-42", made)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_journals_are_drawn(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="ascii"))
    drawn = timeline_svg("order-42", [Record(**row) for row in stored["records"]])
    assert_fits(drawn)
    assert "(no name)" not in drawn
    assert len(rows(drawn)) >= 1


def test_no_kind_of_record_was_forgotten_here() -> None:
    assert sorted(KINDS) == sorted(codec._KINDS.values())


def make_pictures() -> ModuleType:
    """Return the script that makes the pictures of the docs."""
    folder = TOP / "docs" / "images"
    spec = importlib.util.spec_from_file_location("make_pictures", folder / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_pictures_of_the_docs_are_what_their_script_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOP / "examples"))
    names = []
    async for name, picture in make_pictures().pictures():
        names.append(name)
        assert (TOP / "docs" / "images" / name).read_text(encoding="utf-8") == picture
        assert_fits(picture)
    assert names == ["timeline.svg", "timeline-rollback.svg"]
