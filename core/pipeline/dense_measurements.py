"""Figures of the dense model in one job: an earlier job's figure is reused if the measurement is exactly the same.

Other figures are measured. The report says which figures were reused.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from core.pipeline.messages import JobSpec
from core.pipeline.reports.dense_figures import DenseFigure, DenseKind, Facts, KnownDenseFigures
from core.pipeline.reports.report import DenseUse, Report
from core.progress import Progress


class DenseMeasurements:
    """Figures of the dense model, reused or measured.

    `log` is called for each reused figure. `count` is called for each measurement, with the number of measurements
    before.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        log: Callable[[str], None],
        count: Callable[[int], None] = lambda before: None,
    ) -> None:
        self._baseline = spec.baseline or KnownDenseFigures()
        self._job = spec.job
        self._log = log
        self._count = count
        self._figures: list[DenseFigure] = []
        self._measured = 0

    def reuse(self, kind: DenseKind, name: str, facts: Facts) -> DenseFigure | None:
        """Return an earlier job's figure for exactly these facts; None if it has to be measured."""
        figure = self._baseline.find(kind, facts)
        if figure is None:
            return None
        self._figures.append(figure.model_copy(update={"name": name}))
        self._log(f"The dense model's {kind} on {name} was taken from job {figure.job}: the same measurement.")
        return figure

    def add(
        self,
        kind: DenseKind,
        name: str,
        facts: Facts,
        values: Mapping[str, float],
        *,
        window_losses: Sequence[float] = (),
        measured: bool = True,
    ) -> None:
        """Add figures that this job measured; `measured` is False for figures that were kept on its node."""
        if measured:
            self._count(self._measured)
            self._measured += 1
        figure = DenseFigure(
            kind=kind,
            name=name,
            facts=facts,
            values=dict(values),
            window_losses=tuple(window_losses),
            job=self._job,
        )
        self._figures.append(figure)

    def write_to(self, report: Report) -> None:
        """Fill `dense` of the report: every figure with its facts, and how many were measured here or reused."""
        before = report.dense or DenseUse()
        report.dense = DenseUse(
            measured=before.measured + self._measured,
            taken=before.taken + len(self._figures) - self._measured,
            figures=[*before.figures, *self._figures],
        )
        report.note(
            *(
                f"The dense model's {each.kind} on {each.name} was measured by job {each.job}."
                for each in self._figures
                if each.job != self._job
            )
        )


def dense_figures(spec: JobSpec, progress: Progress) -> DenseMeasurements:
    """Return the dense figures of this job; each measurement reports a `dense_evaluation` metric, numbered from 1."""
    return DenseMeasurements(
        spec, log=progress.log, count=lambda before: progress.metric("dense_evaluation", before, before + 1)
    )


def releases() -> Facts:
    """Return the versions of the libraries that figures of the dense model depend on."""
    return {name: version(name) for name in ("torch", "transformers")}
