"""Fields of a job in an answer of the server."""

from pydantic import Field, JsonValue

from secateur_wire.jobs import JobState
from secateur_wire.metrics import Metrics


class JobDocument(JobState[Metrics]):
    """A job with every field of its body, with defaults filled in."""

    target: dict[str, float] | None = None
    recovery: dict[str, JsonValue] | None = None
    gates: dict[str, float | None] = Field(default_factory=dict)
    queue: str = "default"
    priority: int = 0
    metadata: dict[str, str] = Field(default_factory=dict)
