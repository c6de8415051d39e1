"""SpiffWorkflow: a `WorkflowSpec` of one task spec a step, each connected to the next, run by `run_all()`.

Its own task class, as its documentation has it for work in Python; the specification is made once, the workflow for
each run, and the recursion limit is raised, without which it runs no 1,000 steps. It serialises a workflow for its
user to keep, and keeps none itself. So it takes part in memory only.
"""

import sys
from functools import cache
from typing import Any, ClassVar

from SpiffWorkflow.specs.Simple import Simple
from SpiffWorkflow.specs.WorkflowSpec import WorkflowSpec
from SpiffWorkflow.workflow import Workflow

from benchmarks.peers._adapter import Adapter
from benchmarks.peers._serve import serve

sys.setrecursionlimit(1_000_000)  # it descends once for each step that is left


class Step(Simple):
    """A task that does nothing, and notes that it was done."""

    def _run_hook(self, my_task: Any) -> bool:
        my_task.workflow.data["at"] = my_task.workflow.data.get("at", 0) + 1
        return True


@cache
def specification(names: tuple[str, ...]) -> WorkflowSpec:
    spec = WorkflowSpec(addstart=True)
    last = spec.start
    for name in names:
        step = Step(spec, name)
        last.connect(step)
        last = step
    return spec


class SpiffWorkflow(Adapter):
    """SpiffWorkflow."""

    distribution = "SpiffWorkflow"
    imports: ClassVar[dict[str, str]] = {"memory": "from SpiffWorkflow.workflow import Workflow"}
    memory = "its only one"

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        workflow = Workflow(specification(tuple(names)))
        workflow.run_all()
        assert workflow.is_completed()
        return int(workflow.data["at"])


if __name__ == "__main__":
    serve(SpiffWorkflow())
