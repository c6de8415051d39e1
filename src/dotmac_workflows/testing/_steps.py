"""The user's steps in a run that is proved: each call of one, and each call that one makes of its world, is a point."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..base import StepContext, Workflow
from ..result import WorkflowResult
from . import _words as words
from ._effects import listener
from ._picture import picture, short
from ._process import Call, Place, Process
from ._schedule import STEPS

if TYPE_CHECKING:
    from ._stage import Stage


class Steps:
    """Takes the place of the two methods that a host calls."""

    def __init__(self, stage: "Stage[Any]") -> None:
        self._stage = stage

    def watch(self, process: Process, workflow: Workflow) -> None:
        """Have the steps of a workflow pass by here."""
        execute, rollback = workflow.execute_step, workflow.rollback_step

        async def execute_step(step: str) -> WorkflowResult:
            if process.acts:  # as the default `rollback_step` calls it, or a step another one
                return await execute(step)
            return await self._execute(process, workflow.step_context, execute)

        async def rollback_step(step: str) -> WorkflowResult | None:
            if process.acts:
                return await rollback(step)
            return await self._rollback(process, workflow.step_context, rollback)

        vars(workflow).update(execute_step=execute_step, rollback_step=rollback_step)

    async def _execute(
        self, process: Process, context: StepContext, code: Callable[[str], Awaitable[WorkflowResult]]
    ) -> WorkflowResult:
        stage, people, step = self._stage, self._stage.people, context.step
        await stage.point(process, Place("before", "step", step))
        stage.acted(process, context)
        departure = people.departure(STEPS, step, context.visit)
        first_time = departure not in people.happened
        if departure is not None:
            people.happened.add(departure)
        if departure is not None and departure.kind == "fail":
            stage.say(f"    step {step!r} fails, as the schedule says")
            result = WorkflowResult(False, step, error="injected_failure", message="prove() had this step fail.")
        else:
            if departure is not None and first_time:
                await people.interfere(departure)
            result = await self._call(process, context, code)
            await stage.has_acted()
        await stage.point(process, Place("after", "step", step))
        return result

    async def _rollback(
        self, process: Process, context: StepContext, code: Callable[[str], Awaitable[WorkflowResult | None]]
    ) -> WorkflowResult | None:
        stage, people, step = self._stage, self._stage.people, context.step
        await stage.point(process, Place("before", "rollback", step))
        stage.acted(process, context)
        departure = people.departure(("undo-fails",), step, context.visit)
        if departure is not None:
            people.happened.add(departure)
            stage.say(f"    the rollback of {step!r} fails, as the schedule says")
            why = "prove() had this rollback fail once."
            result: WorkflowResult | None = WorkflowResult(
                False, f"rollback_{step}", error="injected_failure", message=why
            )
        else:
            result = await self._call(process, context, code)
        await stage.point(process, Place("after", "rollback", step))
        return result

    async def _call(self, process: Process, context: StepContext, code: Callable[[str], Awaitable[Any]]) -> Any:
        """Call the user's code, whose calls of the world are the process's from here on."""
        await self._stage.about_to_act()
        calls = Calls(self._stage, process, words.named(context), context.idempotency_key)
        self._stage.calls.setdefault(context.idempotency_key, []).append(calls.made)
        token = listener.set(calls)
        process.acts = True
        try:
            return await code(context.step)
        except Exception as error:
            self._stage.say(f"      it raises {words.error(error)}")
            raise
        finally:
            process.acts = False
            listener.reset(token)


class Calls:
    """Hears of the calls that a step, running once, makes of its world; see `Listener`."""

    def __init__(self, stage: "Stage[Any]", process: Process, step: str, key: str) -> None:
        self.made: list[Call] = []
        self._stage = stage
        self._process = process
        self._step = step
        self._key = key

    def before(self, call: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[str, Call | None]:
        """See `Listener.before`."""
        self._process.entered()
        fault = self._stage.pass_by(self._process, Place("before", "call", self._step, call))
        told = None
        if self._stage.schedule.faults or self._stage.tells:
            given = [self._short(argument) for argument in arguments]
            given += [f"{name}={self._short(value)}" for name, value in keywords.items()]
            handed = (*arguments, *keywords.values())
            keys = [value for value in handed if isinstance(value, str) and value.startswith(self._key)]
            told = Call(call, f"{call}({', '.join(given)})", keys)
            self.made.append(told)
            self._stage.say(f"      {told.said}")
        if fault is not None and fault.kind == "disconnect":
            error = ConnectionError("prove() had this call fail.")
            self._stage.say(f"      -> {words.error(error)}")
            raise error
        return call, told

    def after(self, told: object, answer: object) -> None:
        """See `Listener.after`."""
        self._made(told, None if answer is None else self._short(answer))

    def raised(self, told: object, error: BaseException) -> None:
        """See `Listener.raised`."""
        if isinstance(error, Exception):
            self._made(told, type(error).__name__)

    def _made(self, told: Any, answer: str | None) -> None:
        call, made = told
        if made is not None and answer is not None:
            made.answer = answer
            self._stage.say(f"      -> {answer}")
        self._stage.pass_by(self._process, Place("after", "call", self._step, call))

    def _short(self, value: object) -> str:
        return short(picture(value, self._stage.run_id))
