"""Samples: a model and texts to begin with, which a worker fetches."""

from collections.abc import Callable

from secateur.operations.calls import Calls, given, ignore
from secateur.transport import segment
from secateur_wire.plans import Goal
from secateur_wire.samples import SampleRequest

_LOOK_SECONDS = 2.0


class SampleOperations(Calls):
    """Operations on requests for the samples."""

    async def request_samples(self, goal: Goal | None = None, *, idempotency_key: str | None = None) -> SampleRequest:
        """Have a worker register the sample model and texts, and return before it has. See `wait_for_samples`.

        With a `goal` the model is then pruned as planned for it. While an earlier request is not over, it is returned.
        """
        return await self._create("samples", SampleRequest, given(goal=goal), idempotency_key=idempotency_key)

    async def sample_request(self, request_id: str) -> SampleRequest:
        """Return a request for the samples: how far it is, the job it led to, or why they could not be had."""
        return await self._transport.call("GET", f"samples/{segment(request_id)}", SampleRequest)

    async def wait_for_samples(
        self, request_id: str, on_progress: Callable[[SampleRequest], None] | None = None
    ) -> SampleRequest:
        """Wait until a request is over, handing each look at it to `on_progress`; returns it as it ended, well or not.

        The job it led to, `job_id`, is only submitted then: `wait` for that.
        """
        say = on_progress or ignore
        while True:
            request = await self.sample_request(request_id)
            say(request)
            if request.finished:
                return request
            await self._transport.sleep(_LOOK_SECONDS)
