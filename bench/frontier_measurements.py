"""The frontier bench's figures as measurements: one of each setting of ours at each target. Loads no torch."""

from collections.abc import Iterator
from datetime import date

from bench.cells import own_release
from bench.contest import Dense
from bench.frontier_plan import SETTINGS, TARGETS, Cell, Plan
from bench.frontier_report import Found
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN
from bench.machine import describe_machine
from bench.measurements import spread
from core.measurements.measurement import MeasuredModel, Measurement
from worker.samples.language import CALIBRATION


def measured(
    found: Found, plan: Plan, dense: Dense, model: MeasuredModel, *, length: int, threads: int
) -> Iterator[Measurement]:
    """Measurements of the seeds there are, with `length` tokens in a calibration sequence."""
    for name in plan.settings:
        setting = SETTINGS[name]
        if setting.is_peer:
            continue
        for title in plan.targets:
            target = TARGETS[title]
            cells = (Cell(name, title, seed, plan.samples) for seed in range(plan.seeds))
            figures = [each for cell in cells if (each := found.get(cell))]
            if not figures:
                continue
            texts = {"in_domain": IN_DOMAIN, "out_of_domain": OUT_OF_DOMAIN}
            yield Measurement.model_validate(
                {
                    "model": model,
                    "method": setting.method,
                    "pattern": target.pattern,
                    "parameters": dict(setting.parameters),
                    "calibration": None if setting.draws else CALIBRATION,
                    "calibration_tokens": 0 if setting.draws else sum(setting.sequences(plan.samples)) * length,
                    "sparsity": target.sparsity,
                    "perplexity": {
                        key: spread([each.perplexity[text] / dense.perplexity[text] for each in figures])
                        for key, text in texts.items()
                    },
                    "seconds": spread([each.prune_seconds for each in figures]),
                    "processor_seconds": spread([each.processor_seconds for each in figures]),
                    "peak_bytes": max(each.peak_bytes for each in figures),
                    "machine": describe_machine(),
                    "threads": threads,
                    "measured": date.fromisoformat(max(each.measured for each in figures)[:10]),
                    "releases": own_release(),
                }
            )
