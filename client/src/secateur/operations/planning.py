"""Operations before a job: discoveries of models, samples, and plans."""

import time
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
"""Callback that gets the discovery that a call waits for."""

LOOK_SECONDS = 1.0
_SAMPLES_LOOK_SECONDS = 2.0

Described = TypeVar("Described", bound=BaseModel)


class _Planned(RootModel[Plan | Discovery]):
    """Answer of a plan: the plan, or the discovery to wait for."""

    root: Plan | Discovery = Field(union_mode="left_to_right")


class PlanningOperations(Calls):
    """Operations on discoveries, plans, and requests for the samples."""

    def discovery(self, discovery_id: str) -> Discovery:
        """Return the discovery of a model's architecture. Raises NotFound after it was removed."""
        return self._transport.call("GET", f"discoveries/{segment(discovery_id)}", Discovery)

    def _once_discovered(
        self,
        path: str,
        answer: type[RootModel[Described | Discovery]],
        body: Mapping[str, JsonValue],
        on_wait: OnWait | None,
    ) -> Described:
        """Return the answer of a call about a model, repeated until the model is discovered."""
        while True:
            answered = self._transport.call("POST", path, answer, body=body, slow=True).root
            if not isinstance(answered, Discovery):
                return answered
            self._over(answered, on_wait or ignore)

    def _over(self, discovery: Discovery, on_wait: OnWait) -> None:
        """Wait until a discovery has ended, successfully or not."""
        while discovery.state in ("waiting", "running"):
            on_wait(discovery)
            time.sleep(LOOK_SECONDS)
            try:
                discovery = self.discovery(discovery.id)
            except NotFound:
                return

    def plan(
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

        `client.submit(**plan.job)` submits it. `amount` sets how much to remove, and `keep_quality` the allowed
        perplexity, as a ratio to the dense model's. Without both, the result stays close to the dense model. If the
        server has to discover the model, this waits, as `inspect` does.
        """
        body = given(model=model, goal=goal, amount=amount, keep_quality=keep_quality, pattern=pattern, dataset=dataset)
        return self._once_discovered("plans", _Planned, body, on_wait)

    def request_samples(self, goal: Goal | None = None, *, idempotency_key: str | None = None) -> SampleRequest:
        """Request the samples: a worker registers the sample model and texts. Returns at once; see `wait_for_samples`.

        With a `goal`, the model is then pruned for it: for `speed` by the job of the demo, for others by a plan. If an
        earlier request is not over, that one is returned.
        """
        return self._create("samples", SampleRequest, given(goal=goal), idempotency_key=idempotency_key)

    def sample_request(self, request_id: str) -> SampleRequest:
        """Return a request for the samples: its progress, the resulting job, or the error."""
        return self._transport.call("GET", f"samples/{segment(request_id)}", SampleRequest)

    def wait_for_samples(
        self, request_id: str, on_progress: Callable[[SampleRequest], None] | None = None
    ) -> SampleRequest:
        """Wait until a request has ended, and return it, successful or not; `on_progress` gets each intermediate state.

        Its job, `job_id`, is only submitted by then: `wait` for that too.
        """
        say = on_progress or ignore
        while True:
            request = self.sample_request(request_id)
            say(request)
            if request.finished:
                return request
            time.sleep(_SAMPLES_LOOK_SECONDS)
