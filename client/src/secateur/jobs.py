"""Jobs as this client gives them."""

from typing import Literal, Self

from pydantic import Field, JsonValue

from secateur.errors import GateMissed, JobCancelled, JobFailed
from secateur_wire.jobs import JobState
from secateur_wire.metrics import Metrics

JobSort = Literal["newest", "oldest", "model", "method", "status", "finished"]


class Job(JobState[Metrics]):
    """Job with every field of its body, defaults filled in."""

    target: dict[str, float] | None = None
    recovery: dict[str, JsonValue] | None = None
    gates: dict[str, float | None] = Field(default_factory=dict)
    queue: str = "default"
    priority: int = 0
    metadata: dict[str, str] = Field(default_factory=dict)

    def raise_for_status(self) -> Self:
        """Return the job itself where it succeeded: `client.wait(job_id).raise_for_status()`.

        Raises GateMissed, JobFailed or JobCancelled, and ValueError where the job has not ended.
        """
        if self.status == "succeeded":
            return self
        if not self.finished:
            raise ValueError(f"{self.id} has not ended, it is {self.status}: wait for it first")
        if self.status == "cancelled":
            raise JobCancelled(self)
        raise (GateMissed if self.missed_gate else JobFailed)(self)
