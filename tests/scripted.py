"""A workflow whose steps do what a test says, and what the journal says of it afterwards."""

import inspect
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dotmac_workflows import Persistence, Workflow, WorkflowResult


class Effect(NamedTuple):
    """One time that a step's code ran."""

    step: str
    phase: str
    visit: int
    attempt: int
    key: str


class Scripted(Workflow):
    """Does what `script` says for a step: returns a value, raises an exception, calls a function with the workflow.

    Steps that the script does not name succeed, and so do their rollbacks.
    """

    def __init__(
        self,
        workflow_id: str | None = None,
        steps: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        persistence: Persistence | None = None,
        script: Mapping[str, Any] | None = None,
        effects: list[Effect] | None = None,
    ) -> None:
        super().__init__(workflow_id, steps, metadata, persistence=persistence)
        self.script = script if script is not None else {}
        self.effects = effects if effects is not None else []

    async def execute_step(self, step: str) -> WorkflowResult:
        context = self.step_context
        self.effects.append(
            Effect(step, context.phase, context.visit, context.attempt, context.idempotency_key),
        )
        answer = self.script.get(step, _SUCCEEDS)
        if answer is _SUCCEEDS:
            return WorkflowResult(True, step)
        if inspect.isfunction(answer):
            answer = answer(self)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]  # what is none is the point of some tests


_SUCCEEDS = object()


def ran(workflow: Scripted) -> list[str]:
    """Return the steps and rollback steps that ran, in order."""
    return [effect.step for effect in workflow.effects]


async def journal(store: Persistence, workflow_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the kinds and bodies of what is recorded."""
    return [(record.kind, json.loads(record.body)) for record in await store.read(workflow_id)]


async def kinds(store: Persistence, workflow_id: str) -> list[str]:
    """Return the kinds of what is recorded."""
    return [record.kind for record in await store.read(workflow_id)]


def shape(results: list[WorkflowResult]) -> list[tuple[str, bool, str | None]]:
    """Return step, success and error code of each result."""
    return [(result.step, result.success, result.error) for result in results]
