"""The structured bench's tables as Markdown, from the figures there are. What was not run is a dash."""

import json
from collections.abc import Sequence
from statistics import fmean, stdev

from bench.contest_report import MIB
from bench.frontier_report import accuracies
from bench.judging_texts import IN_DOMAIN, OUT_OF_DOMAIN
from bench.page import table
from bench.structured.figures import Dense, Figures
from bench.structured.goals import goals, goals_table
from bench.structured.ground import distillation
from bench.structured.plan import FRONTIER, LENGTH, MANY, ROWS, SAMPLES, TARGETS, Cell, Row
from bench.structured.ranking import Ranking
from bench.structured.running import ROUNDS, Bench
from core.engine.evaluation.zero_shot_tasks import TASKS

_MISSING = "–"
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


def page(bench: Bench, facts: Sequence[str]) -> str:
    """The section of the page: facts, what each row is, a table for each target, goals and tasks."""
    measured = sorted(figures.measured for figures in bench.found.values())
    if measured:
        facts = [*facts, f"Measured from {measured[0]} to {measured[-1]}."]
    facts = [*facts, *(f"Not run, {title}: {why}" for title, why in bench.refused.items())]
    ranking = Ranking(bench)
    parts = ["\n".join(f"- {fact}" for fact in facts), _rows(bench), _caption()]
    for target in bench.plan.targets:
        parts += [f"#### {TARGETS[target].title}", _table(bench, ranking, target)]
    parts += ["#### Goals", goals_table(goals(bench, ranking))]
    if bench.plan.task_limit and bench.plan.task_rows:
        parts += ["#### Zero-shot accuracy", _tasks(bench)]
    return "\n\n".join(parts)


def _caption() -> str:
    return f"""Mean ± standard deviation over seeds, in brackets how many there are where there are several; the dense
model has none. *Blocks removed* and *parameters* are of the model that came out. *Excess* is ln(perplexity ÷ dense) as
a share of the same of the better `flap` row of the table, in and out of domain. Prefill (512 tokens) and decoding with
the cache are milliseconds ÷ those of the dense model, the median of {ROUNDS} rounds in turn with it in one process, ±
the rounds' interquartile range, first seed. *Seconds* are those of choosing and cutting, and of training after a +;
*processor s* are of all threads of the processes that did it. SliceGPT's parameters count its rotations; its embeddings
and head stay tied and whole. `osscar-like` and `slimgpt-like` remove channels alone. A dash: not run."""


def _rows(bench: Bench) -> str:
    rows = []
    for title in bench.plan.rows:
        row = ROWS[title]
        body = f"`{json.dumps(row.body())}`" if not row.baseline else "of this bench's own writing"
        if recovery := distillation(row, bench.ground.calibration.stem, bench.plan.distil_steps):
            body += f", then `{json.dumps({'recovery': recovery.model_dump(mode='json', exclude_unset=True)})}`"
        rows.append([title, body, _calibration(row)])
    return (
        f"Calibrated on {SAMPLES} × {LENGTH} tokens of {bench.ground.calibration.stem}, by seed, {FRONTIER} and FLAP "
        f"at its best on {MANY}, a paper's setting on what the paper says; text of the model's own among them where "
        "the method takes some.\n\n" + table(["row", "job", "calibration"], rows, text_columns=3)
    )


def _calibration(row: Row) -> str:
    return f"{row.samples} × {row.length}" if row.samples else "none"


def _table(bench: Bench, ranking: Ranking, target: str) -> str:
    rows = []
    if bench.dense is not None:
        perplexities = [f"{bench.dense.perplexity[text]:,.2f}" for text in (IN_DOMAIN, OUT_OF_DOMAIN)]
        dense = [
            "0.0 %",
            _millions(bench.dense.parameters),
            perplexities[0],
            "1",
            perplexities[1],
            "1",
            "0",
            "0",
            "1",
            "1",
        ]
        rows.append(["dense", *dense, *[""] * 3])
    for title in bench.plan.rows:
        rows.append([title, *_columns(bench, ranking, title, target)])
    return table(_HEADER, rows, text_columns=1)


def _columns(bench: Bench, ranking: Ranking, row: str, target: str) -> list[str]:
    figures, dense = ranking.figures(row, target), bench.dense
    if not figures or dense is None:
        return [_MISSING] * (len(_HEADER) - 1)
    latency = bench.latency.get(Cell(row, target, 0), {})
    times = [latency.get(name) for name in ("prefill", "decode")]
    return [
        f"{100 * fmean(ranking.blocks_removed(each) for each in figures):.1f} %",
        _millions(fmean(each.parameters for each in figures)),
        *_perplexity(figures, dense, IN_DOMAIN),
        *_perplexity(figures, dense, OUT_OF_DOMAIN),
        _share(ranking.excess(row, target, IN_DOMAIN)),
        _share(ranking.excess(row, target, OUT_OF_DOMAIN)),
        *(f"{each.ratio:.2f} ± {each.spread:.2f}" if each else _MISSING for each in times),
        _seconds(figures),
        _summary([each.processor_seconds for each in figures], ",.0f"),
        f"{max(each.peak_bytes for each in figures) / MIB:,.0f}",
    ]


def _perplexity(figures: Sequence[Figures], dense: Dense, text: str) -> tuple[str, str]:
    values = [each.perplexity[text] for each in figures]
    return _summary(values, ",.2f"), f"{fmean(values) / dense.perplexity[text]:,.2f}"


def _seconds(figures: Sequence[Figures]) -> str:
    trained = [each.recovery_seconds for each in figures if each.recovery_seconds is not None]
    pruning = _summary([each.seconds for each in figures], ",.0f")
    return f"{pruning} + {fmean(trained):,.0f}" if trained else pruning


def _summary(values: Sequence[float], form: str) -> str:
    """Mean, and deviation and number where there are several."""
    several = f" ± {format(stdev(values), form)} ({len(values)})" if len(values) > 1 else ""
    return f"{format(fmean(values), form)}{several}"


def _share(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.2f}"


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.1f} M"


def _tasks(bench: Bench) -> str:
    rows = [["dense", "", *accuracies(bench.answers.get(None))]]
    for target in (each for each in bench.plan.targets if each in bench.plan.task_targets):
        for row in bench.plan.task_rows:
            answers = bench.answers.get(Cell(row, target, 0))
            rows.append([row, TARGETS[target].title, *accuracies(answers)])
    return (
        f"Per cent of the first {bench.plan.task_limit} questions of each task ± the standard error, for which the "
        "questions count, not seeds: all of the first seed.\n\n" + table(["row", "removed", *TASKS, "mean"], rows)
    )
