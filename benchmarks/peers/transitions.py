"""transitions: a `Machine` with a state that goes to itself at each step, and to a final one after the last.

Without async callbacks, for it is slower with them. It has no store; its user keeps the state. So it takes part in
memory only.
"""

from typing import ClassVar

from transitions import Machine

from benchmarks.peers._adapter import Adapter
from benchmarks.peers._serve import serve


class Order:
    """A run: the machine's model."""

    state: str

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.at = 0

    def is_last(self) -> bool:
        return self.at == len(self.names)

    def do(self) -> None:
        self.at += 1


machine = Machine(
    model=None,
    states=["working", "done"],
    initial="working",
    transitions=[
        {"trigger": "step", "source": "working", "dest": "done", "conditions": "is_last"},
        {"trigger": "step", "source": "working", "dest": "=", "after": "do"},
    ],
)


class Transitions(Adapter):
    """transitions."""

    distribution = "transitions"
    imports: ClassVar[dict[str, str]] = {"memory": "from transitions import Machine"}
    memory = "its only one, without async callbacks"

    async def in_memory(self, names: list[str]) -> int:
        """See `Adapter`."""
        order = Order(names)
        machine.add_model(order)
        step = order.step  # type: ignore[attr-defined]  # the machine puts it there
        while order.state != "done":
            step()
        machine.remove_model(order)
        return order.at


if __name__ == "__main__":
    serve(Transitions())
