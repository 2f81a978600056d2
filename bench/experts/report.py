"""The tables of the experts' bench as Markdown, from the figures there are. What was not run is a dash."""

import json
from collections.abc import Sequence
from math import log
from statistics import fmean
from typing import Any

from bench.cells import own_release
from bench.contest import MIB
from bench.experts.plan import LAYOUTS, MERGED, REAP, REFITTED, ROWS, SHARES, WEIGHTS
from bench.experts.running import TRAINING_LENGTH, Bench
from bench.machine import describe_machine
from bench.page import MISSING, summary, table

AIM = 0.8
"""Most that a refit's excess was to be, as a share of REAP's."""
_HEADER = [
    "row",
    "perplexity",
    "÷ before",
    "excess ÷ reap's",
    "MiB",
    "tokens/s",
    "busiest expert",
    "processor s",
]
_ROWS = (
    "Each cell has the mean ± the standard deviation over seeds, with the number of seeds in brackets if there are "
    "several. *Excess* is ln(perplexity ÷ before). *Tokens/s* are tokens per second of processor time, in windows of "
    "the held-out text. *Busiest expert* is the number of tokens that the busiest expert of a layer gets ÷ the mean of "
    "the layer's experts, on held-out text, as a mean over layers; 1 means an even load. A dash: not run."
)


def page(bench: Bench) -> str:
    """Return the section of the page: how the mixture was made, and a table for each share that goes."""
    parts = ["\n".join(f"- {fact}" for fact in (*_making(bench), *_settings(bench))), _ROWS]
    for share in SHARES:
        parts += [f"#### {share} % of the experts", _table(bench, share), _goals(bench, share)]
    parts += [f"#### {100 * WEIGHTS:g} % of the weights", _table(bench, None)]
    return "\n\n".join(each for each in parts if each)


def against_reap(bench: Bench, row: str, share: str | None) -> float | None:
    """Return a row's excess as a share of that of REAP alone, over the seeds that both have."""
    reap = dict(_of(bench, REAP, share))
    pairs = [(figures, reap[seed]) for seed, figures in _of(bench, row, share) if seed in reap]
    if not pairs:
        return None
    before = _before(bench)["perplexity"]
    own, other = (fmean(log(pair[place]["perplexity"] / before) for pair in pairs) for place in (0, 1))
    return own / other if other > 0 else None


def busiest(reached: Sequence[Sequence[int]]) -> float:
    """Return how many times the mean of its layer the busiest expert's tokens are, mean over layers; 1 is even."""
    return fmean(max(each) * len(each) / sum(each) for each in reached)


def _making(bench: Bench) -> list[str]:
    made, recipe = bench.made, bench.recipe
    apart = ", ".join(f"{share:.2f}" for share in made["difference"].values())
    first, last = fmean(made["losses"][:5]), fmean(made["losses"][-5:])
    others = ", ".join(f"{bench.before[each]['perplexity']:.3f} as {each}" for each in LAYOUTS)
    return [
        f"The mixture is made from {bench.files.model.name} with {json.dumps(made['recipe'])}. It is trained on "
        f"windows of {TRAINING_LENGTH} tokens of {' and '.join(text.stem for text in bench.texts)} in turn, "
        f"{recipe.steps * recipe.batch * TRAINING_LENGTH:,} tokens in total, in {made['processor_seconds']:,.0f} "
        f"processor seconds. The mean loss is {first:.3f} in the first five steps, and {last:.3f} in the last five.",
        f"The perplexity on held-out text is {made['dense_perplexity']:.3f} for the dense model, and {others} for the "
        f"mixture. It is {made['misrouted_perplexity']:.3f} if each token goes to the experts next to the chosen ones. "
        f"For the same token, the outputs of two experts of a layer differ by {apart} of their length, layer by layer "
        "(equal copies: 0).",
    ]


def _settings(bench: Bench) -> list[str]:
    sizes = bench.sizes
    return [
        f"The methods calibrate on {sizes.calibration} × {sizes.calibration_length} tokens of {bench.texts[0].stem}, "
        f"which the seed chooses. Models are measured on {sizes.held_out} × {sizes.held_out_length} tokens of "
        f"{bench.files.evaluation.stem} by the stock class in bfloat16. `frontier` calibrates on the same text, and "
        "does not use text that the model writes.",
        f"{describe_machine()}; {bench.threads} thread(s), together with other work; {own_release()}.",
    ]


def _table(bench: Bench, share: str | None) -> str:
    before = _before(bench)
    rows = [["before", f"{before['perplexity']:.3f}", "1", "0", *_sizes([before]), ""]]
    for row in (each for each in bench.plan.rows if ROWS[each].drops is (share is not None)):
        figures = [figures for _, figures in _of(bench, row, share)]
        if not figures:
            rows.append([row, *[MISSING] * (len(_HEADER) - 1)])
            continue
        ratio = against_reap(bench, row, share)
        rows.append(
            [
                row,
                summary([each["perplexity"] for each in figures], ".3f"),
                summary([each["perplexity"] / before["perplexity"] for each in figures], ".4f"),
                MISSING if ratio is None else f"{ratio:.2f}",
                *_sizes(figures),
                f"{fmean(each['prune_seconds'] for each in figures):,.0f}",
            ]
        )
    kept = [place for place, _ in enumerate(_HEADER) if share is not None or _HEADER[place] != "excess ÷ reap's"]
    return table([_HEADER[place] for place in kept], [[row[place] for place in kept] for row in rows], text_columns=1)


def _goals(bench: Bench, share: str) -> str:
    said = []
    for row in (REFITTED, MERGED):
        ratio = against_reap(bench, row, share)
        if ratio is not None:
            said.append(f"{row}: {ratio:.2f} of REAP's excess, {'reached' if ratio <= AIM else 'missed'}")
    return f"The aim of a refit is at most {AIM:g}. {'; '.join(said)}." if said else ""


def _sizes(figures: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{fmean(each['bytes'] for each in figures) / MIB:,.0f}",
        f"{fmean(each['tokens_per_second'] for each in figures):,.0f}",
        f"{fmean(busiest(each['reached']) for each in figures):.2f}",
    ]


def _of(bench: Bench, row: str, share: str | None) -> list[tuple[int, dict[str, Any]]]:
    own = (pruning for pruning in bench.plan.prunings() if (pruning.row, pruning.share) == (row, share))
    return [(pruning.seed, bench.found[pruning]) for pruning in own if pruning in bench.found]


def _before(bench: Bench) -> dict[str, Any]:
    return bench.before[LAYOUTS[0]]
