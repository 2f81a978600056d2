"""Entry point of the child process that measures the costs of a model's parts in an engine, for a worker."""

import sys
from contextlib import redirect_stdout
from functools import partial

from core.engine.latency.measure import measured_costs
from core.pipeline.messages import PartCostsReport, PartCostsTask
from core.pipeline.stages.inputs import open_place
from secateur_wire.errors import SecateurError
from secateur_wire.part_costs import PartCostsError


def answer(task: PartCostsTask) -> PartCostsReport:
    """Return the table, or why there is none."""
    try:
        costs = measured_costs(open_place(task.model), task.workload, log=partial(print, flush=True))
        return PartCostsReport(costs=costs)
    except SecateurError as error:
        return PartCostsReport(error=PartCostsError(code=error.code, message=error.message))


def main() -> None:
    """Answer the question on standard input; what libraries print goes to standard error."""
    with redirect_stdout(sys.stderr):
        answered = answer(PartCostsTask.model_validate_json(sys.stdin.read()))
    sys.stdout.write(answered.model_dump_json())


if __name__ == "__main__":
    main()
