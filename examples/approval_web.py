"""Purchases that are approved in a web application: FastAPI takes the decision, the run goes on behind it.

    python3 -m pip install fastapi uvicorn
    PYTHONPATH=src python3 -m uvicorn --app-dir examples approval_web:app

Who decides is taken from the X-Forwarded-User header, which a proxy that authenticates people sets. Without such a
proxy anybody could set it: put your own authentication in the place of `user`.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from dotmac_workflows import (
    AlreadyDecidedError,
    PersistenceError,
    SQLitePersistence,
    Workflow,
    WorkflowExecutionError,
    WorkflowNotFoundError,
    WorkflowResult,
    recover,
)

logger = logging.getLogger(__name__)


class Purchase(Workflow):
    def __init__(self, workflow_id: str, **options: Any) -> None:
        super().__init__(workflow_id, ["quote", "order", "pay"], **options)
        self.configure(require_approval=True)

    async def execute_step(self, step: str) -> WorkflowResult:
        return WorkflowResult(True, step, requires_approval=step == "quote")


class NewPurchase(BaseModel):
    amount: int


class Decision(BaseModel):
    step: str  # the gate that the person was shown
    verdict: Literal["approve", "reject"]
    reason: str | None = None


def user(x_forwarded_user: Annotated[str | None, Header()] = None) -> str:
    if not x_forwarded_user:
        raise HTTPException(401, "who are you?")
    return x_forwarded_user


def shown(purchase: Workflow) -> dict[str, Any]:
    return {
        "id": purchase.workflow_id,
        "status": purchase.status.value,
        "waits_after": purchase.pending_approval_step,
        "metadata": dict(purchase.metadata),
        "done": [result.step for result in purchase.results if result.success],
    }


def make_app(path: str) -> FastAPI:
    persistence = SQLitePersistence(path)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with persistence:
            await recover(persistence, [Purchase])  # what the last process was killed in the middle of
            yield

    app = FastAPI(lifespan=lifespan)

    async def carry_on(purchase_id: str) -> None:
        """Run after the answer was sent. Should the process die before, the run is due, and recover() finds it."""
        try:
            await (await Purchase.load(purchase_id, persistence)).resume()
        except Exception:
            logger.exception("Purchase %s could not be carried on; it stays due.", purchase_id)

    @app.put("/purchases/{purchase_id}")
    async def start(purchase_id: str, new: NewPurchase) -> dict[str, Any]:
        # Idempotent: the id is the client's, and sent twice it is one purchase.
        purchase = Purchase(purchase_id, metadata=new.model_dump(), persistence=persistence)
        await purchase.execute()
        return shown(purchase)

    @app.get("/purchases/{purchase_id}")
    async def show(purchase_id: str) -> dict[str, Any]:
        return shown(await Workflow.load(purchase_id, persistence))

    @app.post("/purchases/{purchase_id}/decision")
    async def decide(
        purchase_id: str, decision: Decision, actor: Annotated[str, Depends(user)], after: BackgroundTasks
    ) -> dict[str, Any]:
        purchase = await Workflow.load(purchase_id, persistence)
        if purchase.pending_approval_step not in (None, decision.step):
            raise HTTPException(409, f"it waits after {purchase.pending_approval_step!r} by now")
        if decision.verdict == "approve":
            await purchase.approve({"note": decision.reason}, actor=actor)
        else:
            await purchase.reject(decision.reason, actor=actor)
        after.add_task(carry_on, purchase_id)
        return shown(purchase)

    @app.exception_handler(WorkflowNotFoundError)
    async def not_found(request: Request, error: WorkflowNotFoundError) -> JSONResponse:
        return JSONResponse({"detail": "there is no such purchase"}, 404)

    @app.exception_handler(AlreadyDecidedError)
    async def too_late(request: Request, error: AlreadyDecidedError) -> JSONResponse:
        at = error.decided_at.isoformat() if error.decided_at else None
        return JSONResponse({"detail": f"already {error.verdict}", "by": error.actor, "at": at}, 409)

    @app.exception_handler(WorkflowExecutionError)
    async def not_now(request: Request, error: WorkflowExecutionError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(PersistenceError)
    async def no_store(request: Request, error: PersistenceError) -> JSONResponse:
        logger.error("The store failed.", exc_info=error)
        return JSONResponse({"detail": "the store cannot be used, try again later"}, 503)

    return app


app = make_app(os.environ.get("DOTMAC_WORKFLOWS_DB", "purchases.db"))
