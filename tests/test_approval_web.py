"""The web example, asked over HTTP as a browser would, on a real file."""

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="FastAPI is in the dev extra only; .ci/run installs it")
httpx = pytest.importorskip("httpx", reason="httpx is in the dev extra only; .ci/run installs it")

from dotmac_workflows import SQLitePersistence, Workflow, WorkflowStatus  # noqa: E402 # after the question above

EXAMPLE = Path(__file__).parents[1] / "examples" / "approval_web.py"
FIRST, SECOND = ({"X-Forwarded-User": f"{name}@example.com"} for name in ("first", "second"))


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("DOTMAC_WORKFLOWS_DB", str(tmp_path / "purchases.db"))
    spec = importlib.util.spec_from_file_location("approval_web", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[Any]:
    """Start the application, and stop it at the end."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://purchases") as client:
            yield client


def decision(verdict: str, **more: str) -> dict[str, str]:
    return {"step": "quote", "verdict": verdict, **more}


async def answer(request: Any) -> tuple[int, Any]:
    response = await request
    return response.status_code, response.json()


async def test_the_first_decision_wins_and_the_run_goes_on(example: ModuleType, tmp_path: Path) -> None:
    async with served(example.app) as client:
        waits = {"status": "waiting_approval", "waits_after": "quote", "metadata": {"amount": 500}, "done": ["quote"]}
        for _ in ("once", "and once more, as a client that saw no answer"):
            assert await answer(client.put("/purchases/p-1", json={"amount": 500})) == (200, {"id": "p-1", **waits})

        url = "/purchases/p-1/decision"
        assert (await answer(client.post(url, json=decision("approve"))))[0] == 401
        yes = decision("approve", reason="in the budget")
        status, body = await answer(client.post(url, json=yes, headers=FIRST))
        assert (status, body["status"]) == (200, "running")
        assert (await answer(client.post(url, json=yes, headers=FIRST)))[0] == 200, "the same click, twice"
        status, body = await answer(client.post(url, json=decision("reject"), headers=SECOND))
        assert (status, body["detail"], body["by"]) == (409, "already approved", "first@example.com")
        assert body["at"].endswith("+00:00")

        done = {"id": "p-1", "status": "completed", "waits_after": None, "metadata": {"amount": 500}}
        assert await answer(client.get("/purchases/p-1")) == (200, {**done, "done": ["quote", "order", "pay"]})

    async with SQLitePersistence(tmp_path / "purchases.db") as persistence:
        purchase = await Workflow.load("p-1", persistence)
        assert purchase.approval_data == {"note": "in the budget"}
        kinds = [record.kind for record in await persistence.read("p-1")]
        assert kinds.count("approved") == 1
        assert kinds.count("step_started") == 3


async def test_a_rejected_purchase_ends_and_cannot_be_decided_again(example: ModuleType) -> None:
    async with served(example.app) as client:
        await client.put("/purchases/p-1", json={"amount": 500})
        url = "/purchases/p-1/decision"
        assert (await answer(client.post(url, json=decision("reject", reason="no"), headers=FIRST)))[0] == 200
        status, body = await answer(client.get("/purchases/p-1"))
        assert (status, body["status"], body["done"]) == (200, "cancelled", ["quote"])
        status, body = await answer(client.post(url, json=decision("approve"), headers=SECOND))
        assert (status, body["detail"], body["by"]) == (409, "already rejected", "first@example.com")


async def test_what_cannot_be_decided_says_so(example: ModuleType) -> None:
    async with served(example.app) as client:
        url = "/purchases/p-1/decision"
        assert await answer(client.get("/purchases/p-1")) == (404, {"detail": "there is no such purchase"})
        assert (await answer(client.post(url, json=decision("approve"), headers=FIRST)))[0] == 404
        await client.put("/purchases/p-1", json={"amount": 500})
        other = {"step": "pay", "verdict": "approve"}
        expected = (409, {"detail": "it waits after 'quote' by now"})
        assert await answer(client.post(url, json=other, headers=FIRST)) == expected


async def test_a_store_that_is_gone_is_said_to_be(example: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "purchases.db"
    async with served(example.app) as client:
        await client.put("/purchases/p-1", json={"amount": 500})
        path.rename(tmp_path / "moved.db")
        gone = await answer(client.get("/purchases/p-1"))
        (tmp_path / "moved.db").rename(path)
        assert gone == (503, {"detail": "the store cannot be used, try again later"})


async def test_a_decision_that_nobody_carried_on_is_carried_on_at_the_next_start(
    example: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "purchases.db"
    async with SQLitePersistence(path) as persistence:
        await example.Purchase("p-1", persistence=persistence).execute()
        await (await Workflow.load("p-1", persistence)).approve(actor="first@example.com")
    async with served(example.app):
        pass
    async with SQLitePersistence(path) as persistence:
        assert (await Workflow.load("p-1", persistence)).status is WorkflowStatus.COMPLETED
