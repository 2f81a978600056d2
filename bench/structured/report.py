"""Tables of the structured bench as Markdown, and its measurements, from the figures there are. Loads no torch.

A dash stands for what was not run.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import product
from statistics import fmean

from bench.contest import MIB, Ground
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN, accuracies
from bench.measurements import spread
from bench.page import MISSING, summary, table
from bench.structured.goals import Ranking, goals, goals_table
from bench.structured.plan import FRONTIER, LENGTH, MANY, ROWS, SAMPLES, TARGETS, Pruning, Row
from bench.structured.recipes import distillation
from bench.structured.results import Dense, Figures, Origin, Ratio, Results
from bench.structured.running import ROUNDS, Bench
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.options.patterns import STRUCTURED
from core.measurements.measurement import LatencyRatio, MeasuredModel, Measurement, Spread
from worker.samples.language import CALIBRATION

_HEADER = [
    "row",
    "blocks removed",
    "parameters",
    "in domain",
    "÷ dense",
    "out of domain",
    "÷ dense",
    "excess in",
    "excess out",
    "prefill",
    "decode",
    "seconds",
    "processor s",
    "peak MiB",
]


def page(bench: Bench, results: Results, facts: Sequence[str]) -> str:
    """The section of the page: facts, what each row is, a table for each target, goals and tasks, of these results."""
    facts = [
        *facts,
        *_origins(results),
        *(f"Not run, {title}: {why}" for title, why in bench.refused.items()),
        *_missing(results),
    ]
    ranking = Ranking(results, bench.ground.description)
    parts = ["\n".join(f"- {fact}" for fact in facts), _rows(bench, results), _caption()]
    for target in results.targets():
        parts += [f"#### {TARGETS[target].title}", _table(ranking, target)]
    parts += ["#### Goals", goals_table(goals(ranking))]
    if results.answers:
        parts += ["#### Zero-shot accuracy", _tasks(results)]
    return "\n\n".join(parts)


def measured(results: Results, ground: Ground, distil_steps: int) -> Iterator[Measurement]:
    """A measurement of each row at each target that there are figures of."""
    dense = results.dense
    if dense is None:
        return
    for name in results.rows():
        row = ROWS[name]
        for target in results.targets():
            figures = results.of(name, target)
            if not figures:
                continue
            latency = results.latency.get(Pruning(name, target, 0), {})
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


def _origins(results: Results) -> Iterator[str]:
    """Yield for each machine and version what it measured, at which targets, and when."""
    targets: defaultdict[Origin, defaultdict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    dates: defaultdict[Origin, list[str]] = defaultdict(list)
    for row, target in product(results.rows(), results.targets()):
        for figures in results.of(row, target):
            targets[figures.origin][row][target] = None
            dates[figures.origin].append(figures.measured)
    for origin, rows in targets.items():
        code = f"{origin.threads} thread(s), {origin.releases}, code {origin.code[:12]}"
        days = " to ".join(sorted({min(dates[origin])[:10], max(dates[origin])[:10]}))
        named = ", ".join(f"{row} ({', '.join(at)})" for row, at in rows.items())
        yield f"{origin.machine}, {code}, {days}: {named}."


def _missing(results: Results) -> Iterator[str]:
    if missing := [row for row in ROWS if row not in results.rows()]:
        yield f"Not run at all: {', '.join(missing)}."


def _caption() -> str:
    return f"""Each cell has the mean ± the standard deviation over seeds, with the number of seeds in brackets if there
are several. The dense model has no seeds. A dash: not run.

- *Blocks removed* and *parameters* are those of the pruned model.
- *Excess* is ln(perplexity ÷ dense), as a share of the same value for the better `flap` row of the table, in domain and
  out of domain.
- *Prefill* (512 tokens) and *decode* (with the cache) are milliseconds ÷ those of the dense model. They are the median
  of {ROUNDS} rounds in turn with it in one process, ± the interquartile range of the rounds, for the first seed.
- *Seconds* are those of choosing and cutting, and, after a +, those of training. *Processor s* are those of all threads
  of the processes that did the work."""


def _rows(bench: Bench, results: Results) -> str:
    rows = []
    for title in results.rows():
        row = ROWS[title]
        body = f"`{json.dumps(row.body())}`"
        if recovery := distillation(row, bench.ground.calibration.stem, bench.plan.distil_steps):
            body += f", then `{json.dumps({'recovery': recovery.model_dump(mode='json', exclude_unset=True)})}`"
        rows.append([title, body, _calibration(row)])
    return (
        f"The rows are calibrated on {SAMPLES} × {LENGTH} tokens of {bench.ground.calibration.stem}, which the seed "
        f"chooses. {FRONTIER} and the best FLAP have {MANY} sequences, and the setting of a paper has what the paper "
        "says. If a method uses text that the model writes itself, these tokens include it.\n\n"
        + table(["row", "job", "calibration"], rows, text_columns=3)
    )


def _calibration(row: Row) -> str:
    return f"{row.samples} × {row.length}" if row.samples else "none"


def _table(ranking: Ranking, target: str) -> str:
    rows, dense = [], ranking.results.dense
    if dense is not None:
        perplexities = [f"{dense.perplexity[text]:,.2f}" for text in (IN_DOMAIN, OUT_OF_DOMAIN)]
        columns = [
            "0.0 %",
            _millions(dense.parameters),
            perplexities[0],
            "1",
            perplexities[1],
            "1",
            "0",
            "0",
            "1",
            "1",
        ]
        rows.append(["dense", *columns, *[""] * 3])
    for title in ranking.results.rows():
        rows.append([title, *_columns(ranking, title, target)])
    return table(_HEADER, rows, text_columns=1)


def _columns(ranking: Ranking, row: str, target: str) -> list[str]:
    figures, dense = ranking.results.of(row, target), ranking.results.dense
    if not figures or dense is None:
        return [MISSING] * (len(_HEADER) - 1)
    latency = ranking.results.latency.get(Pruning(row, target, 0), {})
    times = [latency.get(name) for name in ("prefill", "decode")]
    return [
        f"{100 * fmean(ranking.blocks_removed(each) for each in figures):.1f} %",
        _millions(fmean(each.parameters for each in figures)),
        *_perplexity(figures, dense, IN_DOMAIN),
        *_perplexity(figures, dense, OUT_OF_DOMAIN),
        _share(ranking.excess(row, target, IN_DOMAIN)),
        _share(ranking.excess(row, target, OUT_OF_DOMAIN)),
        *(f"{each.ratio:.2f} ± {each.spread:.2f}" if each else MISSING for each in times),
        _seconds(figures),
        summary([each.processor_seconds for each in figures], ",.0f"),
        f"{max(each.peak_bytes for each in figures) / MIB:,.0f}",
    ]


def _perplexity(figures: Sequence[Figures], dense: Dense, text: str) -> tuple[str, str]:
    values = [each.perplexity[text] for each in figures]
    return summary(values, ",.2f"), f"{fmean(values) / dense.perplexity[text]:,.2f}"


def _seconds(figures: Sequence[Figures]) -> str:
    trained = [each.recovery_seconds for each in figures if each.recovery_seconds is not None]
    pruning = summary([each.seconds for each in figures], ",.0f")
    return f"{pruning} + {fmean(trained):,.0f}" if trained else pruning


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.1f} M"


def _tasks(results: Results) -> str:
    rows = [["dense", "", *accuracies(results.answers.get(None))]]
    for target in results.targets():
        for row in results.rows():
            if answers := results.answers.get(Pruning(row, target, 0)):
                rows.append([row, TARGETS[target].title, *accuracies(answers)])
    questions = max(task["samples"] for answers in results.answers.values() for task in answers.values())
    return (
        f"The accuracy in per cent on the first {questions:,.0f} questions of each task (on all if it has fewer), ± "
        "the standard error. This error is over the questions, not over seeds: all rows are of the first seed.\n\n"
        + table(["row", "removed", *TASKS, "mean"], rows)
    )
