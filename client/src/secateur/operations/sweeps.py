"""Operations on sweeps: many jobs on one model."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from secateur.operations.calls import Calls
from secateur.transport import segment
from secateur_wire.states import SweepStatus
from secateur_wire.sweeps import Sweep, SweepResults

POLL_SECONDS: Final = 2.0


class SweepOperations(Calls):
    """Operations on sweeps."""

    def submit_sweep(self, /, *, idempotency_key: str | None = None, **body: Any) -> Sweep:
        """Start a sweep of many jobs on one model.

            submit_sweep(job={"model": …, "evaluation": …}, grid={"method": ["wanda", "admm"], "sparsity": [0.4, 0.5]})

        In place of the grid, `search={…}` starts a search.

        The same `idempotency_key` with the same body gives the same sweep again, never a second one.
        """
        return self._create("sweeps", Sweep, body, idempotency_key=idempotency_key, slow=True)

    def sweeps(self, *, status: SweepStatus | None = None) -> Iterator[Sweep]:
        """Iterate over the team's sweeps, newest first."""
        return self._list("sweeps", Sweep, {"status": status} if status else None)

    def sweep(self, sweep_id: str) -> Sweep:
        """Return one sweep."""
        return self._transport.call("GET", f"sweeps/{segment(sweep_id)}", Sweep)

    def sweep_results(self, sweep_id: str, *, quality: str | None = None, cost: str | None = None) -> SweepResults:
        """Return every point with its current figures, the best by each objective, and the result of a search.

        `quality` is perplexity:SET, bits_per_byte:SET, accuracy:SET or accuracy:TASK, `cost` is parameters,
        bytes or latency: the two axes of the Pareto front.
        """
        params = {name: value for name, value in (("quality", quality), ("cost", cost)) if value}
        path = f"sweeps/{segment(sweep_id)}/results"
        return self._transport.call("GET", path, SweepResults, params=params)

    def cancel_sweep(self, sweep_id: str) -> Sweep:
        """Start no more jobs of a sweep, and cancel its unfinished jobs."""
        return self._transport.call("POST", f"sweeps/{segment(sweep_id)}/cancel", Sweep)

    def resume_sweep(self, sweep_id: str) -> Sweep:
        """Resume a cancelled or failed sweep."""
        return self._transport.call("POST", f"sweeps/{segment(sweep_id)}/resume", Sweep)

    def wait_sweep(
        self, sweep_id: str, on_change: Callable[[Sweep], None] | None = None, *, poll_seconds: float = POLL_SECONDS
    ) -> Sweep:
        """Wait until the sweep has ended, and return it; `on_change` gets each change."""
        last: Sweep | None = None
        while True:
            sweep = self.sweep(sweep_id)
            if sweep != last and on_change is not None:
                on_change(sweep)
            if sweep.finished:
                return sweep
            last = sweep
            time.sleep(poll_seconds)
