"""What a step tells of itself."""

from dataclasses import dataclass
from typing import Any

from .types import JsonObject

_LEFT_OUT: JsonObject = {}


@dataclass(init=False)
class WorkflowResult:
    """The outcome of one step (or of a validation, a rollback step, a rejection).

    Raises:
        TypeError: when `data` is not a dictionary.
        ValueError: when `step` is empty or no string.
    """

    success: bool
    """Whether the step did what it was for. One that failed is not rolled back: it is to have done nothing."""
    step: str
    """The step's name."""
    data: JsonObject
    """What the step found out: JSON, and the further types that `dotmac_workflows.Codec` lists."""
    error: str | None = None
    """A short machine-readable code, such as ``card_declined``."""
    message: str | None = None
    """What happened, for people."""
    execution_time: float | None = None
    """How long the step ran, in seconds; set by the engine."""
    requires_approval: bool = False
    """Ask for an approval before the *next* step; only a workflow configured with ``require_approval`` waits."""

    # By hand, since one is made for every step: checks included, it costs what a generated one costs without.
    def __init__(
        self,
        success: bool,
        step: str,
        data: JsonObject = _LEFT_OUT,
        error: str | None = None,
        message: str | None = None,
        execution_time: float | None = None,
        requires_approval: bool = False,
    ) -> None:
        if data is _LEFT_OUT:
            data = {}
        elif not isinstance(data, dict):
            raise TypeError(f"data must be a dictionary, not {type(data).__name__}")
        if not step or not isinstance(step, str):
            raise ValueError(f"step must be a non-empty string, not {step!r}")
        self.success = success
        self.step = step
        self.data = data
        self.error = error
        self.message = message
        self.execution_time = execution_time
        self.requires_approval = requires_approval

    def to_dict(self) -> dict[str, Any]:
        """Return the seven fields by name. `data` is the result's own dictionary, not a copy."""
        return {
            "success": self.success,
            "step": self.step,
            "data": self.data,
            "error": self.error,
            "message": self.message,
            "execution_time": self.execution_time,
            "requires_approval": self.requires_approval,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "WorkflowResult":
        """Make a result of what `to_dict` returned; only ``success`` and ``step`` have to be there.

        Raises:
            ValueError: when a required key is missing, or there is one that a result does not have.
        """
        missing = [key for key in ("success", "step") if key not in data]
        unknown = [key for key in data if key not in cls.__dataclass_fields__]
        if missing or unknown:
            what = f"lacks {missing}" if missing else f"has unknown keys {unknown}"
            raise ValueError(f"a result's dictionary {what}; its keys are {list(cls.__dataclass_fields__)}")
        return cls(**data)
