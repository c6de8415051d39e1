"""python-statemachine: a state that goes to itself at each step, and to a final one after the last.

Callbacks are plain functions, for it is slower with async ones. It has no store; its user keeps the state. So it takes
part in memory only.
"""

from typing import ClassVar

from statemachine import State, StateMachine

from benchmarks.peers._adapter import Adapter
from benchmarks.peers._serve import serve


class Order(StateMachine):
    """A run."""

    working = State(initial=True)
    done = State(final=True)

    step = working.to(done, cond="is_last") | working.to.itself(on="do")

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.at = 0
        super().__init__()

    def is_last(self) -> bool:
        return self.at == len(self.names)

    def do(self) -> None:
        self.at += 1


class PythonStateMachine(Adapter):
    """python-statemachine."""

    distribution = "python-statemachine"
    imports: ClassVar[dict[str, str]] = {"memory": "from statemachine import State, StateMachine"}
    memory = "its only one, without async callbacks"

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        order = Order(names)
        while not order.done.is_active:
            order.step()
        return order.at


if __name__ == "__main__":
    serve(PythonStateMachine())
