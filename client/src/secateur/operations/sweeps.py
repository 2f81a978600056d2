"""Operations on sweeps: many jobs on one model."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from secateur.operations.calls import Calls
from secateur.transport import segment
from secateur_wire.states import SweepStatus
from secateur_wire.sweeps import Sweep, SweepResults

POLL_SECONDS: Final = 2.0


class SweepOperations(Calls):
    """Operations on sweeps."""

    async def submit_sweep(self, /, *, idempotency_key: str | None = None, **body: Any) -> Sweep:
        """Start a sweep of many jobs on one model.

            submit_sweep(job={"model": …, "evaluation": …}, grid={"method": ["wanda", "admm"], "sparsity": [0.4, 0.5]})

        In place of the grid, `search={…}` starts a search.

        The same `idempotency_key` with the same body gives the same sweep again, never a second one.
        """
        return await self._create("sweeps", Sweep, body, idempotency_key=idempotency_key, slow=True)

    def sweeps(self, *, status: SweepStatus | None = None) -> AsyncIterator[Sweep]:
        """Iterate over the team's sweeps, newest first."""
        return self._list("sweeps", Sweep, {"status": status} if status else None)

    async def sweep(self, sweep_id: str) -> Sweep:
        """Return one sweep."""
        return await self._transport.call("GET", f"sweeps/{segment(sweep_id)}", Sweep)

    async def sweep_results(
        self, sweep_id: str, *, quality: str | None = None, cost: str | None = None
    ) -> SweepResults:
        """Return every point with its current figures, the best by each objective, and the result of a search.

        `quality` is perplexity:SET, bits_per_byte:SET, accuracy:SET or accuracy:TASK, `cost` is parameters,
        bytes or latency: the two axes of the Pareto front.
        """
        params = {name: value for name, value in (("quality", quality), ("cost", cost)) if value}
        path = f"sweeps/{segment(sweep_id)}/results"
        return await self._transport.call("GET", path, SweepResults, params=params)

    async def cancel_sweep(self, sweep_id: str) -> Sweep:
        """Start no more jobs of a sweep, and cancel its unfinished jobs."""
        return await self._transport.call("POST", f"sweeps/{segment(sweep_id)}/cancel", Sweep)

    async def resume_sweep(self, sweep_id: str) -> Sweep:
        """Resume a cancelled or failed sweep."""
        return await self._transport.call("POST", f"sweeps/{segment(sweep_id)}/resume", Sweep)

    async def wait_sweep(
        self, sweep_id: str, on_change: Callable[[Sweep], None] | None = None, *, poll_seconds: float = POLL_SECONDS
    ) -> Sweep:
        """Wait until the sweep has ended, and return it; `on_change` gets each change."""
        last: Sweep | None = None
        while True:
            sweep = await self.sweep(sweep_id)
            if sweep != last and on_change is not None:
                on_change(sweep)
            if sweep.finished:
                return sweep
            last = sweep
            await self._transport.sleep(poll_seconds)
