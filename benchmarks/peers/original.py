"""The loop of the in-memory original that this library replaces.

Written anew by what is documented of it (docs/how-to/migrate-from-the-original.md): results and state in the object,
callbacks between the steps whose errors are swallowed, an exception as a failed result, an undoing that stops at the
first step that cannot be undone. It keeps nothing: what it had done is gone with the process.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers._adapter import Adapter, Work
from benchmarks.peers._serve import serve


@dataclass
class Result:
    """What a step returns."""

    success: bool
    step: str
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    message: str | None = None
    execution_time: float | None = None
    requires_approval: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.data, dict):
            raise TypeError("data must be a dictionary")
        if not self.step or not isinstance(self.step, str):
            raise ValueError("step must be a non-empty string")


class Original:
    """Named steps in order, in memory."""

    on_step_started: Callable[[str], None] | None = None
    on_step_completed: Callable[[Result], None] | None = None

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.results: list[Result] = []
        self.status = "pending"
        self.current_step_index = 0
        self.rollback_on_failure = True
        self.require_approval = False

    async def execute_step(self, step: str) -> Result:
        return Result(True, step)

    async def execute(self) -> list[Result]:
        """Run the steps that are left."""
        if self.status == "running":
            raise RuntimeError("already running")
        self.status, began = "running", time.monotonic()
        while self.current_step_index < len(self.steps):
            step = self.steps[self.current_step_index]
            self._tell(self.on_step_started, step)
            result = await self._result_of(step)
            self.results.append(result)
            self._tell(self.on_step_completed, result)
            if not result.success:
                self.status = "failed"
                if self.rollback_on_failure:
                    await self._undo()
                break
            if result.requires_approval and self.require_approval:
                self.status = "waiting_approval"
                return self.results
            self.current_step_index += 1
        else:
            self.status = "completed"
        self.execution_time = time.monotonic() - began
        return self.results

    async def _result_of(self, step: str) -> Result:
        began = time.monotonic()
        try:
            result = await self.execute_step(step)
        except Exception as error:
            result = Result(False, step, error="step_execution_error", message=str(error))
        result.execution_time = time.monotonic() - began
        return result

    async def _undo(self) -> None:
        for step in reversed(self.steps[: self.current_step_index]):
            result = await self._result_of(f"rollback_{step}")
            self.results.append(result)
            if not result.success:
                break

    def _tell(self, callback: Callable[[Any], None] | None, told: object) -> None:
        if callback is not None:
            try:
                callback(told)
            except Exception:  # noqa: S110 - as it did
                pass


class Order(Original):
    """One that fails, and is undone."""

    work: Work

    async def execute_step(self, step: str) -> Result:
        if step.startswith("rollback_"):
            await self.work.undo("", step)
            return Result(True, step)
        return Result(await self.work.step("", step), step)


class OriginalLoop(Adapter):
    """The original's loop."""

    memory = "its only one"

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        return len(await Original(names).execute())

    async def undo_in_memory(self, names: list[str]) -> None:
        """See `Adapter`."""
        order = Order(names)
        order.work = self.work
        await order.execute()


if __name__ == "__main__":
    serve(OriginalLoop())
