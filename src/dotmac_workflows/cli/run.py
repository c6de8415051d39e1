"""The commands that run steps: run, resume, retry, retry-rollback, recover."""

import asyncio
import inspect
import json
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from .._checks import check_name
from .._core import codec
from .._verbs import Verbs, call_constructor
from ..base import Workflow
from ..errors import PersistenceError, WorkflowError
from ..persistence import Persistence, Record
from ..recovery import WorkflowMaker, recover
from ..result import WorkflowResult
from ..values import Codec
from .context import Context
from .exits import DONE, FAILED, INTERRUPTED, CommandError, code_of_error, code_of_status
from .loading import WatchedStore, load_workflow, open_store, read_object, said
from .progress import StepLines
from .standing import PlainCodec, Standing, not_found, read_standing, what_next
from .terminal import Column, Part, Styled, Table
from .wording import duration, outcome, status_phrase

_Answer = TypeVar("_Answer")

_COLUMNS = (Column("STEP", 8), Column("RESULT"), Column("TOOK", right=True), Column("WHAT IT SAID", 16))


def run(context: Context) -> int:
    """Run a workflow, or go on with it, or show what became of it."""
    arguments = context.arguments
    check_name("A workflow id", arguments.id)
    maker = load_workflow(arguments.workflow)
    metadata = read_object(arguments.metadata, "The metadata")
    store = open_store(context.db, create=True)

    async def execute(before: Standing | None) -> Workflow:
        workflow = make(maker, arguments.id, store, metadata)
        await workflow.execute()
        return workflow

    return _drive(context, store, arguments.workflow, execute)


def resume(context: Context) -> int:
    """Carry a run on that is paused, decided, or left by a crash."""
    return _drive_known(context, lambda workflow: workflow.resume(actor=context.actor))


def retry(context: Context) -> int:
    """Run a failed workflow forward again."""
    return _drive_known(context, lambda workflow: workflow.retry(actor=context.actor))


def retry_rollback(context: Context) -> int:
    """Try again what a rollback left undone."""
    return _drive_known(context, lambda workflow: workflow.retry_rollback(actor=context.actor))


def recover_all(context: Context) -> int:
    """Carry on every run that is due."""
    specs: list[str] = context.arguments.workflows
    makers = [load_workflow(spec) for spec in specs]
    store = open_store(context.db)
    store.watch = StepLines(context.progress).tell

    async def work() -> int:
        async with store:
            outcomes = await recover(store, makers, concurrency=context.arguments.concurrency)
        if context.arguments.json:
            context.print_json(
                [
                    {
                        "workflow_id": outcome.workflow_id,
                        "workflow_type": outcome.workflow_type,
                        "status": outcome.status.value,
                        "error": None if outcome.error is None else said(outcome.error),
                    }
                    for outcome in outcomes
                ]
            )
        for recovered in outcomes:
            if recovered.error is None:
                context.progress.line(f"{recovered.workflow_id} ", status_phrase(recovered.status))
            else:
                context.err.line(
                    Styled("error", "bad"),
                    f": {recovered.workflow_id} could not be carried on: {said(recovered.error)}",
                )
        if not outcomes:
            context.progress.line("Nothing is due.")
        errors = [recovered.error for recovered in outcomes if recovered.error is not None]
        return code_of_error(errors[0]) if errors else DONE

    try:
        return interruptible(work())
    except (KeyboardInterrupt, asyncio.CancelledError, SystemExit) as end:
        context.err.line(f"{_why(end)}; what was under way is let go and stays due. The same command carries it on.")
        return INTERRUPTED


def make(
    maker: WorkflowMaker, workflow_id: str, store: Persistence, metadata: dict[str, Any] | None = None
) -> Workflow:
    """Make a workflow by its class, or by a function as `recover` takes them.

    Args:
        maker: The class or function.
        workflow_id: Its id.
        store: Its persistence.
        metadata: Handed to a constructor that takes it, else set afterwards; None: it has a run already.

    Raises:
        WorkflowConfigurationError: The constructor cannot be called so.
        CommandError: The constructor or function raised, or made something else.
    """
    name = getattr(maker, "__name__", "the function")
    given: dict[str, Any] = {"workflow_id": workflow_id, "persistence": store}
    try:
        if not isinstance(maker, type):
            made: object = maker(workflow_id, store)
        elif metadata is not None and _takes_metadata(maker):
            made = call_constructor(maker, metadata=metadata, **given)
        else:
            made = call_constructor(maker, **given)
    except WorkflowError:
        raise
    except Exception as error:
        raise CommandError(f"{name} cannot be made for {workflow_id!r}: {said(error)}.") from error
    if not isinstance(made, Workflow) or made.workflow_id != workflow_id or made.persistence is not store:
        raise CommandError(
            f"{name} made {made!r}, which is no workflow of this id in this database. Hand workflow_id and "
            "persistence to Workflow.__init__."
        )
    if metadata is not None and not (isinstance(maker, type) and _takes_metadata(maker)):
        made.metadata = metadata
    return made


def _takes_metadata(workflow_class: type[Workflow]) -> bool:
    parameters = inspect.signature(workflow_class).parameters.values()
    return any(p.name == "metadata" or p.kind is p.VAR_KEYWORD for p in parameters)


def _drive_known(context: Context, verb: Callable[[Workflow], Awaitable[Any]]) -> int:
    maker = load_workflow(context.arguments.workflow)
    store = open_store(context.db)

    async def drive(before: Standing | None) -> Workflow:
        if before is None:
            raise not_found(context.arguments.id, store)
        workflow = make(maker, context.arguments.id, store)
        await Verbs(workflow).attach()
        await verb(workflow)
        return workflow

    return _drive(context, store, context.arguments.workflow, drive)


def _drive(
    context: Context, store: WatchedStore, spec: str, verb: Callable[[Standing | None], Awaitable[Workflow]]
) -> int:
    """Drive one run, telling of its steps, and say how it ended."""
    workflow_id: str = context.arguments.id
    begun = False

    async def work() -> int:
        nonlocal begun
        async with store:
            before = await read_standing(store, workflow_id)
            begun = before is not None
            steps = before.state.steps if before is not None else ()
            heading = _heading(workflow_id, before)
            lines = StepLines(context.progress, steps, workflow_id=workflow_id, heading=heading)

            def watch(changed: str, records: Sequence[Record]) -> None:
                nonlocal begun
                begun = begun or changed == workflow_id
                lines.tell(changed, records)

            store.watch = watch
            workflow = await verb(before)
            store.watch = None
            after = await read_standing(store, workflow_id)
        if after is None:
            return _tell_invalid(context, workflow)
        _tell_end(context, spec, after, ran=before is None or len(after.records) > len(before.records))
        return code_of_status(after.state.status)

    try:
        return interruptible(work())
    except (KeyboardInterrupt, asyncio.CancelledError, SystemExit) as end:
        context.progress.keep_begun()
        if begun:
            command = context.commands(spec)("resume", workflow_id, spec)
            context.err.line(f"{_why(end)}; {workflow_id!r} is let go. To go on where it stopped: {command}")
        else:
            context.err.line(f"{_why(end)} before {workflow_id!r} was started; nothing is recorded.")
        return INTERRUPTED


def _why(end: BaseException) -> str:
    return f"The workflow's code ended the process ({said(end)})" if isinstance(end, SystemExit) else "Interrupted"


def interruptible(work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run to the end, or until Ctrl-C or a request to terminate, which leave what is driven in good order."""

    async def main() -> _Answer | BaseException:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        try:
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
        except (NotImplementedError, RuntimeError, ValueError):
            pass  # Windows has no such handlers, a thread that is not the main one none at all
        try:
            return await work
        except (KeyboardInterrupt, SystemExit) as end:
            return end  # asyncio complains, with a traceback, of a task that it ended with one of these

    answer = asyncio.run(main())
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _heading(workflow_id: str, before: Standing | None) -> list[Part]:
    if before is None:
        return [Styled(workflow_id, "bold")]
    state = before.state
    done = sum(result.success and result.step in state.steps for result in state.results)
    return [Styled(workflow_id, "bold"), f" goes on; {done} of {len(state.steps)} steps were done"]


def _tell_invalid(context: Context, workflow: Workflow) -> int:
    """Tell of a run whose own validation kept it from being started."""
    results = [result_fields(result, workflow.runtime.codec) for result in workflow.results]
    if context.arguments.json:
        context.print_json(
            {
                "workflow_id": workflow.workflow_id,
                "workflow_type": None,
                "status": workflow.status.value,
                "pending_step": None,
                "rollback_status": "none",
                "results": results,
            }
        )
    why = outcome(results[0]) if results else str(workflow.status)
    context.progress.line(Styled("not started", "bad"), f": {why}")
    context.tell("Nothing is recorded; mend it and run the same command again.")
    return FAILED


def _tell_end(context: Context, spec: str, standing: Standing, *, ran: bool) -> None:
    state = standing.state
    results = [result_fields(result, PlainCodec()) for result in state.results]
    if context.arguments.json:
        context.print_json(
            {
                "workflow_id": state.workflow_id,
                "workflow_type": state.plan.workflow_type if state.plan else None,
                "status": state.status.value,
                "pending_step": state.pending_step,
                "rollback_status": state.rollback_status,
                "results": results,
            }
        )
        return
    rows = [
        (
            result["step"],
            Styled("ok", "good") if result["success"] else Styled("failed", "bad"),
            duration(result["execution_time"]),
            outcome(result),
        )
        for result in results
    ]
    out = context.out
    out.line()
    if rows:
        table = Table(_COLUMNS, rows, out.width)
        out.table(table, [table.titles(), *rows])
        out.line()
    undone = "; what it had done was undone" if state.rollback_status == "done" else ""
    nothing = "" if ran else "; there was nothing left to run"
    out.line(Styled(state.workflow_id, "bold"), " ", status_phrase(state.status), undone, nothing)
    context.tell(*what_next(standing, context.commands(spec)))


def result_fields(result: WorkflowResult, values: Codec) -> dict[str, Any]:
    """Return the seven fields of a result as plain JSON, as the journal writes them."""
    fields = {**result.to_dict(), "data": {}}
    try:
        fields |= json.loads(codec.write_result(result, values))
    except PersistenceError:
        fields["data"] = {key: str(value) for key, value in result.data.items()}
    return fields
