"""Files that were added to an artifact, for the stages that run them."""

from collections.abc import Iterator

from core.engine.exporters.registry import ADDED
from core.pipeline.stages.stage import RunningJob


def files_to_run(job: RunningJob, unmeasured: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each added form with its files' names by type.

    The files of a model that is too large to run in time are left out; a note begins with what is `unmeasured` then.
    """
    metrics = job.metrics
    dense = metrics.parameters.dense if metrics.parameters is not None else None
    for each in job.language.recipe.output.exports:
        most = ADDED[each.format].most_timed_parameters
        if dense is None or dense > most:
            job.report.note(f"{unmeasured}, as models of more than {most / 1e9:g} billion parameters would take long.")
            continue
        yield each.format, {file.type: file.file for file in metrics.exports if file.format == each.format}
