"""The user's steps in a run that is proved: each call of one, and each call that one makes of its world, is a point."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..base import StepContext, Workflow
from ..result import WorkflowResult
from . import _words as words
from ._picture import picture, short
from ._process import OTHER, Call, Place, Process
from ._schedule import STEPS, Departure

if TYPE_CHECKING:
    from ._stage import Stage

_inside: ContextVar[Process | None] = ContextVar("inside a step of", default=None)


class Steps:
    """Takes the place of the two methods that a host calls, and is told of the calls of the world; see `Observer`."""

    def __init__(self, stage: "Stage[Any]") -> None:
        self._stage = stage

    def watch(self, process: Process, workflow: Workflow) -> None:
        """Have the steps of a workflow pass by here."""
        execute, rollback = workflow.execute_step, workflow.rollback_step

        async def execute_step(step: str) -> WorkflowResult:
            if process.undoing:  # the default `rollback_step` calls it
                return await execute(step)
            return await self._execute(process, workflow.step_context, execute)

        async def rollback_step(step: str) -> WorkflowResult | None:
            return await self._rollback(process, workflow.step_context, rollback)

        vars(workflow).update(execute_step=execute_step, rollback_step=rollback_step)

    async def _execute(
        self, process: Process, context: StepContext, code: Callable[[str], Awaitable[WorkflowResult]]
    ) -> WorkflowResult:
        stage, step = self._stage, context.step
        await stage.point(process, Place("before", "step", step))
        stage.acted(process, context)
        departure = stage.departure(STEPS, step, context.visit)
        if departure is not None and departure.kind == "fail":
            stage.say(f"    step {step!r} fails, as the schedule says")
            result = WorkflowResult(False, step, error="injected_failure", message="prove() had this step fail.")
        else:
            if departure is not None and departure not in stage.happened:
                await self._interfere(departure)
            result = await self._call(process, context, code)
        await stage.point(process, Place("after", "step", step))
        return result

    async def _rollback(
        self, process: Process, context: StepContext, code: Callable[[str], Awaitable[WorkflowResult | None]]
    ) -> WorkflowResult | None:
        stage, step = self._stage, context.step
        await stage.point(process, Place("before", "rollback", step))
        stage.acted(process, context)
        if stage.departure(("undo-fails",), step, context.visit) is not None:
            stage.say(f"    the rollback of {step!r} fails, as the schedule says")
            why = "prove() had this rollback fail once."
            result: WorkflowResult | None = WorkflowResult(
                False, f"rollback_{step}", error="injected_failure", message=why
            )
        else:
            process.undoing = True
            try:
                result = await self._call(process, context, code)
            finally:
                process.undoing = False
        await stage.point(process, Place("after", "rollback", step))
        return result

    async def _call(self, process: Process, context: StepContext, code: Callable[[str], Awaitable[Any]]) -> Any:
        """Call the user's code, whose calls of the world are the process's from here on."""
        await self._stage.about_to_act()
        process.step = words.named(context)
        process.depth, process.calls = 0, []
        self._stage.calls.setdefault(context.idempotency_key, []).append(process.calls)
        token = _inside.set(process)
        try:
            return await code(context.step)
        except Exception as error:
            self._stage.say(f"      it raises {words.error(error)}")
            raise
        finally:
            _inside.reset(token)

    async def _interfere(self, departure: Departure) -> None:
        """Have somebody else pause or cancel the run at this moment."""
        stage = self._stage
        stage.happened.add(departure)
        outside = stage.new_process()
        stage.say(f"process {outside.number}: {departure.kind}(), while {departure.step!r} runs")
        workflow = stage.make(outside)
        await (workflow.pause if departure.kind == "pause" else workflow.cancel)(actor=OTHER)

    # `Observer`.

    def before(self, call: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> object:
        """See `Observer.before`."""
        process = _inside.get()
        if process is None:
            return None
        process.must_live()
        if process.depth:  # one that a fake makes of itself: what the step asked for is one effect
            process.depth += 1
            return process, call
        self._stage.pass_by(process, Place("before", "call", process.step, call))
        if self._stage.schedule.faults or self._stage.tells:
            given = [self._short(argument) for argument in arguments]
            given += [f"{name}={self._short(value)}" for name, value in keywords.items()]
            process.calls.append(Call(f"{call}({', '.join(given)})"))
            self._stage.say(f"      {process.calls[-1].said}")
        process.depth += 1
        return process, call

    def after(self, told: object, answer: object) -> None:
        """See `Observer.after`."""
        if not isinstance(told, tuple):
            return
        process, call = told
        process.depth -= 1
        if process.depth:
            return
        if process.calls and answer is not None:
            process.calls[-1].answer = self._short(answer)
            self._stage.say(f"      -> {process.calls[-1].answer}")
        self._stage.pass_by(process, Place("after", "call", process.step, call))

    def raised(self, told: object, error: BaseException) -> None:
        """See `Observer.raised`."""
        if isinstance(told, tuple):
            told[0].depth -= 1
            if not told[0].depth:
                self._stage.say(f"      -> {type(error).__name__}")

    def _short(self, value: object) -> str:
        return short(picture(value, self._stage.run_id))
