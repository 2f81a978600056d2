"""Engines of added files, and the library of quantised weights: a job must have a worker that has what it asks for."""

from collections.abc import Sequence

from core.engine.exporters.registry import ADDED
from core.engine.quantization.settings import LIBRARY, PARAM
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.tables import WorkerRow
from secateur_wire.errors import InvalidRequest


def require_engines(job: Recipe, workers: Sequence[WorkerRow]) -> None:
    """Require that a worker of the job's queue has the engine of each added form, and what quantised weights need.

    Raises InvalidRequest.

    Where there is no worker, or one does not tell its engines, nothing is known, and the job may wait for one.
    """
    if not workers or any(each.runtimes is None for each in workers):
        return
    there = {name for each in workers for name in each.runtimes or ()}
    if job.output.quantization is not None and LIBRARY.name not in there:
        raise InvalidRequest(
            f"{PARAM}: no worker of queue {job.queue!r} has {LIBRARY.name}, which packs the weights: install it on a "
            f"worker with {LIBRARY.how_to_install}, name a queue that has it, or leave {PARAM} out",
            param=PARAM,
        )
    for index, export in enumerate(job.output.exports):
        runtime = ADDED[export.format].runtime
        if runtime is not None and runtime.name not in there:
            param = f"output.exports.{index}.format"
            raise InvalidRequest(
                f"{param}: no worker of queue {job.queue!r} has {runtime.name}, which {export.format} files are "
                f"checked by: install it on a worker with {runtime.how_to_install}, name a queue that has it, or leave "
                f"{export.format} out",
                param=param,
            )
