"""Plans: a goal and a model, and the job that serves it."""

from pydantic import Field, RootModel

from secateur.operations.calls import given
from secateur.operations.discoveries import DiscoveryOperations, OnWait
from secateur_wire.discoveries import Discovery
from secateur_wire.plans import Goal, Plan


class _Planned(RootModel[Plan | Discovery]):
    """Answer of a plan: the plan, or the discovery that has to be waited for."""

    root: Plan | Discovery = Field(union_mode="left_to_right")


class PlanOperations(DiscoveryOperations):
    """Operations on plans."""

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
