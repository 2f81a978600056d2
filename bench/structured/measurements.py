"""The structured bench's figures as the measurements that come with a release. Loads no torch."""

from collections.abc import Iterator, Sequence
from datetime import date
from statistics import fmean

from bench.contest import Ground
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN
from bench.measurements import spread
from bench.structured.plan import ROWS, TARGETS, Cell
from bench.structured.recipes import distillation
from bench.structured.results import Figures, Ratio, Results
from core.engine.options.patterns import STRUCTURED
from core.measurements.measurement import LatencyRatio, MeasuredModel, Measurement, Spread
from worker.samples.language import CALIBRATION


def measured(results: Results, ground: Ground, distil_steps: int) -> Iterator[Measurement]:
    """A measurement of each row at each target that there are figures of, but for baselines, which are no jobs."""
    dense = results.dense
    if dense is None:
        return
    for name in results.rows(lambda row: not row.baseline):
        row = ROWS[name]
        for target in results.targets():
            figures = results.of(name, target)
            if not figures:
                continue
            latency = results.latency.get(Cell(name, target, 0), {})
            recovery = distillation(row, ground.calibration.stem, distil_steps)
            request = row.request(ground.description, TARGETS[target].sparsity(ground.description))
            drawn, generated = request.parameters.split_calibration(row.samples) or (row.samples, 0)
            yield Measurement(
                model=MeasuredModel(
                    name=ground.model.name, family=ground.description.family, parameters=dense.parameters
                ),
                method=row.method,
                pattern=STRUCTURED.text,
                layout=row.layout,
                parameters=dict(row.parameters),
                recovery=None if recovery is None else recovery.model_dump(mode="json", exclude_unset=True),
                calibration=CALIBRATION if row.samples else None,
                calibration_tokens=((drawn or 0) + generated) * row.length,
                sparsity=TARGETS[target].sparsity(ground.description),
                blocks=TARGETS[target].of_blocks(ground.description),
                removed=1 - fmean(each.parameters for each in figures) / dense.parameters,
                perplexity={
                    "in_domain": _ratios(figures, IN_DOMAIN, dense.perplexity[IN_DOMAIN]),
                    "out_of_domain": _ratios(figures, OUT_OF_DOMAIN, dense.perplexity[OUT_OF_DOMAIN]),
                },
                prefill=_latency(latency.get("prefill")),
                decode=_latency(latency.get("decode")),
                seconds=spread([each.seconds for each in figures]),
                processor_seconds=spread([each.processor_seconds for each in figures]),
                peak_bytes=max(each.peak_bytes for each in figures),
                machine=" and ".join(sorted({each.origin.machine for each in figures})),
                threads=max(each.origin.threads for each in figures),
                measured=date.fromisoformat(max(each.measured for each in figures)[:10]),
                releases=" and ".join(sorted({each.origin.releases for each in figures})),
            )


def _ratios(figures: Sequence[Figures], text: str, dense: float) -> Spread:
    return spread([each.perplexity[text] / dense for each in figures])


def _latency(ratio: Ratio | None) -> LatencyRatio | None:
    return None if ratio is None else LatencyRatio(ratio=ratio.ratio, spread=ratio.spread)
