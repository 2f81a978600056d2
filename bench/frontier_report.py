"""The frontier's tables as Markdown, and its measurements, from the figures there are. What was not run is a dash."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from statistics import fmean, stdev
from typing import Any

from bench.cells import own_release
from bench.contest import MIB, Figures
from bench.frontier_plan import REFERENCE, SETTINGS, SIZED, TARGETS, Plan, Pruning
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN
from bench.machine import describe_machine
from bench.measurements import spread
from bench.page import MISSING, table
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.measurements.measurement import MeasuredModel, Measurement
from worker.samples.language import CALIBRATION

Dense = Mapping[str, Any]
"""The model before, judged as those that were pruned: perplexity by text, and accuracies by task."""
Found = Mapping[Pruning, Figures | None]
"""The prunings there are; None: not offered by its contender."""


@dataclass(frozen=True)
class _Measure:
    title: str
    of: Callable[[Figures], float]
    form: str

    @classmethod
    def perplexity(cls, text: str) -> "_Measure":
        return cls(f"Perplexity {text}", lambda figures: figures.perplexity[text], ",.2f")


_COSTS = (
    _Measure("Seconds of pruning", lambda figures: figures.prune_seconds, ",.1f"),
    _Measure("Seconds of the whole process", lambda figures: figures.seconds, ",.1f"),
    _Measure("Processor seconds of the process, all threads", lambda figures: figures.processor_seconds, ",.1f"),
    _Measure("Peak memory of the process, MiB", lambda figures: figures.peak_bytes / MIB, ",.0f"),
)


def page(found: Found, plan: Plan, dense: Dense | None, facts: Sequence[str]) -> str:
    """The section of the page: facts, settings, and all tables."""
    measured = sorted(figures.measured for figures in found.values() if figures)
    if measured:
        facts = [*facts, f"Measured from {measured[0]} to {measured[-1]}."]
    parts = ["\n".join(f"- {fact}" for fact in facts), _settings(plan)]
    parts.append(
        "Each cell has the mean ± the standard deviation over seeds, the number of seeds in brackets, and the mean of "
        f"the ratios to {REFERENCE} with the same seeds. A dash: not run."
    )
    for text in (IN_DOMAIN, OUT_OF_DOMAIN):
        measure = _Measure.perplexity(text)
        parts += [
            f"### {measure.title}",
            _by_target(found, plan, measure, dense["perplexity"][text] if dense else None),
        ]
    for measure in _COSTS:
        parts += [f"### {measure.title}", _by_target(found, plan, measure, None)]
    if plan.sizes and plan.compared:
        parts += [f"### Perplexity over calibration sequences, at {TARGETS[SIZED].title}", _by_size(found, plan)]
    if plan.asked and plan.compared:
        parts += ["### Zero-shot accuracy", _by_task(found, plan, dense)]
    return "\n\n".join(parts)


def _settings(plan: Plan) -> str:
    rows = []
    for title in plan.settings:
        setting = SETTINGS[title]
        body = json.dumps({"method": setting.method, "parameters": dict(setting.parameters)})
        drawn, written = setting.sequences(plan.samples)
        job = f"{setting.method}, its defaults as Secateur's" if setting.is_peer else f"`{body}`"
        rows.append([title, job, str(drawn), str(written)])
    return table(["setting", "job", "sequences of the text", "of the model's own"], rows)


def _by_target(found: Found, plan: Plan, measure: _Measure, dense: float | None) -> str:
    header = ["setting", *(TARGETS[target].title for target in plan.targets)]
    rows = [] if dense is None else [["dense", *[format(dense, measure.form)] * len(plan.targets)]]
    for setting in plan.settings:
        columns = (
            [Pruning(setting, target, seed, plan.samples) for seed in range(plan.seeds)] for target in plan.targets
        )
        rows.append([setting, *(_summary(found, cells, measure) for cells in columns)])
    return table(header, rows, text_columns=1)


def _summary(found: Found, cells: Sequence[Pruning], measure: _Measure) -> str:
    """Mean, deviation, number and ratio of cells that differ in the seed alone."""
    if any(cell in found and found[cell] is None for cell in cells):
        return "not offered"
    own = {cell: measure.of(figures) for cell in cells if (figures := found.get(cell))}
    if not own:
        return MISSING
    values = list(own.values())
    deviation = f" ± {format(stdev(values), measure.form)}" if len(values) > 1 else ""
    references = {cell: found.get(replace(cell, setting=REFERENCE)) for cell in own}
    ratios = [own[cell] / measure.of(figures) for cell, figures in references.items() if figures]
    ratio = f"{fmean(ratios):.3f}" if ratios else MISSING
    return f"{format(fmean(values), measure.form)}{deviation} ({len(values)}); {ratio}"


def _by_size(found: Found, plan: Plan) -> str:
    rows = []
    for setting in plan.compared:
        columns = [[Pruning(setting, SIZED, seed, samples) for seed in plan.sized_seeds] for samples in plan.sizes]
        for text in (IN_DOMAIN, OUT_OF_DOMAIN):
            measure = _Measure.perplexity(text)
            texts = (_summary(found, cells, measure) for cells in columns)
            rows.append([setting, text, *texts, _is_monotone(found, columns, measure)])
    return table(["setting", "text", *map(str, plan.sizes), "monotone"], rows)


def _is_monotone(found: Found, columns: Sequence[Sequence[Pruning]], measure: _Measure) -> str:
    """Whether the mean never rises from one column to the next, over the seeds that are in every column."""
    seeds = [
        [measure.of(figures) for cell in cells if (figures := found.get(cell))] for cells in zip(*columns, strict=True)
    ]
    complete = [values for values in seeds if len(values) == len(columns)]
    if not complete or len(columns) < 2:
        return MISSING
    means = [fmean(values) for values in zip(*complete, strict=True)]
    rises = [columns[place][0].samples for place in range(1, len(means)) if means[place] > means[place - 1]]
    return f"no: rises at {', '.join(map(str, rises))}" if rises else "yes"


def _by_task(found: Found, plan: Plan, dense: Dense | None) -> str:
    rows = [["dense", "", *accuracies(dense["tasks"] if dense else None)]]
    for target in plan.asked:
        for setting in plan.compared:
            figures = found.get(Pruning(setting, target, 0, plan.samples))
            rows.append([setting, TARGETS[target].title, *accuracies(figures.tasks if figures else None)])
    return (
        f"The accuracy in per cent on the first {plan.task_limit} questions of each task, ± the standard error. This "
        "error is over the questions, not over seeds: all rows are of the first seed.\n\n"
        + table(["setting", "target", *TASKS, "mean"], rows)
    )


def accuracies(tasks: Mapping[str, Mapping[str, float]] | None) -> list[str]:
    """Every task's, and the mean with the standard error of a mean of independent means."""
    if not tasks:
        return [MISSING] * (len(TASKS) + 1)
    metrics = [(name, task.metric) for name, task in TASKS.items()]
    pairs = [(tasks[name][metric], tasks[name][f"{metric}_stderr"]) for name, metric in metrics]
    error = math.sqrt(sum(each**2 for _, each in pairs)) / len(pairs)
    pairs.append((fmean(accuracy for accuracy, _ in pairs), error))
    return [f"{100 * accuracy:.1f} ± {100 * error:.1f}" for accuracy, error in pairs]


def measured(
    found: Found, plan: Plan, dense: Dense, model: MeasuredModel, *, length: int, threads: int
) -> Iterator[Measurement]:
    """Yield a measurement of each of our settings at each target, of the seeds there are.

    A calibration sequence has `length` tokens.
    """
    for name in plan.settings:
        setting = SETTINGS[name]
        if setting.is_peer:
            continue
        for title in plan.targets:
            target = TARGETS[title]
            cells = (Pruning(name, title, seed, plan.samples) for seed in range(plan.seeds))
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
                        key: spread([each.perplexity[text] / dense["perplexity"][text] for each in figures])
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
