"""Jobs as the client returns them."""

from typing import Self

from secateur.errors import GateMissed, JobCancelled, JobFailed
from secateur.job_document import JobDocument


class Job(JobDocument):
    """A job with a method that raises if it did not succeed."""

    def raise_for_status(self) -> Self:
        """Return the job itself if it succeeded: `client.wait(job_id).raise_for_status()`.

        Raises GateMissed, JobFailed or JobCancelled, and ValueError where the job has not ended.
        """
        if self.status == "succeeded":
            return self
        if not self.finished:
            raise ValueError(f"{self.id} has not ended, it is {self.status}: wait for it first")
        if self.status == "cancelled":
            raise JobCancelled(self)
        raise (GateMissed if self.missed_gate else JobFailed)(self)
