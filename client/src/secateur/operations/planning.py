"""Steps before a job: the discovery of a model, samples, and plans."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from pydantic import BaseModel, Field, JsonValue, RootModel

from secateur.errors import NotFound
from secateur.operations.calls import Calls, given, ignore
from secateur.transport import segment
from secateur_wire.discoveries import Discovery
from secateur_wire.plans import Goal, Plan
from secateur_wire.samples import SampleRequest

OnWait = Callable[[Discovery], None]
"""Function that is told of a discovery that is waited for."""

LOOK_SECONDS = 1.0
_SAMPLES_LOOK_SECONDS = 2.0

Described = TypeVar("Described", bound=BaseModel)


class _Planned(RootModel[Plan | Discovery]):
    """Answer of a plan: the plan, or the discovery that has to be waited for."""

    root: Plan | Discovery = Field(union_mode="left_to_right")


class PlanningOperations(Calls):
    """Operations on discoveries, plans, and requests for the samples."""

    async def discovery(self, discovery_id: str) -> Discovery:
        """Return how far the discovery of a model's architecture is. Raises NotFound once it was forgotten."""
        return await self._transport.call("GET", f"discoveries/{segment(discovery_id)}", Discovery)

    async def _once_discovered(
        self,
        path: str,
        answer: type[RootModel[Described | Discovery]],
        body: Mapping[str, JsonValue],
        on_wait: OnWait | None,
    ) -> Described:
        """Return the answer of a call about a model, asked again until the server knows what the model is."""
        while True:
            given = (await self._transport.call("POST", path, answer, body=body, slow=True)).root
            if not isinstance(given, Discovery):
                return given
            await self._over(given, on_wait or ignore)

    async def _over(self, discovery: Discovery, on_wait: OnWait) -> None:
        """Wait until a discovery is over, well or not."""
        while discovery.state in ("waiting", "running"):
            on_wait(discovery)
            await self._transport.sleep(LOOK_SECONDS)
            try:
                discovery = await self.discovery(discovery.id)
            except NotFound:
                return

    async def plan(
        self,
        model: str,
        goal: Goal,
        *,
        amount: float | None = None,
        keep_quality: float | None = None,
        pattern: str | None = None,
        dataset: str | None = None,
        on_wait: OnWait | None = None,
    ) -> Plan:
        """Return a job body for a goal, with the reason for each choice and an estimate of the outcome.

        `client.submit(**plan.job)` submits it. How much goes is an `amount`, or what keeps a quality: the perplexity
        allowed as a ratio to the dense model's; neither: what stays close to the dense model. Where the server has to
        discover what the model is, this waits, as `inspect` does.
        """
        body = given(model=model, goal=goal, amount=amount, keep_quality=keep_quality, pattern=pattern, dataset=dataset)
        return await self._once_discovered("plans", _Planned, body, on_wait)

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
            await self._transport.sleep(_SAMPLES_LOOK_SECONDS)
