"""Cards of artifacts, README.md: quality and size, code that loads a model, and the recipe that reproduces it."""

import json
import re
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.engine.architectures.description import CLASSIFICATION
from core.engine.checkpoints.files import ONNX_FILE
from core.engine.cuts import unit_rows
from core.engine.exporters.registry import ADDED, OFFERED
from core.engine.options.sensitivity import Sensitivity, SensitivityPoint
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.report import Report, Verification
from core.pipeline.reports.source_card import NO_FACTS, SourceFacts
from core.pipeline.reports.verdict import verdict_on
from secateur_wire.equal_bytes import in_words
from secateur_wire.metrics import NOT_WELL, Metrics, Sizes, Sparsity, Timing, is_noisy, latency_noise, with_noise

SHAPE_CHART: Final = "layers.svg"
"""File of an artifact with a picture of what each layer of a smaller model keeps."""
WORTH_TABLE: Final = "worth.json"
"""File of an artifact: what the variants of its source's layers are worth, for other limits of cost."""
VOCABULARY_CHART: Final = "vocabulary.svg"
"""File of an artifact with a picture of how much of the texts each number of tokens covers."""
_ANSWERS_SHOWN: Final = 3
"""Questions of each set whose answers are on the card."""
_ESCAPES: Final = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]|#"} | {"<": "&lt;", ">": "&gt;"}
)
_TARGETS: Final = {
    "parameters": ("at most {:,} parameters that are not zero", "{:,}"),
    "bytes": ("at most {:,} bytes of tensors", "{:,}"),
    "latency_ratio": ("a prefill in at most {:.3g} × the dense model's time", "{:.3g} ×"),
    "decode_ratio": ("a decode step in at most {:.3g} × the dense model's time", "{:.3g} ×"),
    "memory_bytes": ("at most {:,} bytes of tensors and cache", "{:,}"),
}


def model_card(recipe: Recipe, report: Report, source: SourceFacts = NO_FACTS) -> str:
    """Return the README.md of an artifact from its recipe and report; figures that were not measured are left out.

    `source` has the facts that the model's source states.
    """
    metrics, method = report.metrics or Metrics(), get_method(recipe.method)
    title = "stored in other forms" if method.only_stores else "trained further"
    pattern = recipe.pattern if method.prunes else None
    return _rendered(
        "model_card.md.j2",
        recipe,
        report,
        is_classifier=report.model is not None and report.model.task == CLASSIFICATION,
        metrics=metrics,
        sizes=metrics.bytes or Sizes(),
        method=method,
        names=method.model_names,
        recovery=report.recovery,
        verification=report.verification or Verification(),
        exported=report.exported(recipe.output.format),
        opening=OFFERED[recipe.output.format].opening,
        source=source,
        title=f"pruned with {method.title}" if method.prunes else title,
        verdict=verdict_on(recipe.method, recipe.pattern, recipe.sparsity, metrics),
        outcome=recipe.request.pass_removal.outcome(metrics.sparsity or Sparsity(), report.layers, pattern),
        has_shapes=bool(unit_rows(report.layers)),
        longer_words=[
            (name, word)
            for name, text in (report.vocabulary.texts.items() if report.vocabulary else ())
            for word in text.words
        ],
        target=_target(metrics),
        ways_to_run=_ways_to_run(metrics),
        shape_chart=SHAPE_CHART,
        vocabulary_chart=VOCABULARY_CHART,
        onnx_file=ONNX_FILE,
        answers_shown=_ANSWERS_SHOWN,
    )


def sensitivity_card(recipe: Recipe, report: Report) -> str:
    """Return the README.md of a sensitivity job: the measurement, its chart and table, and how to use them."""
    sensitivity = Sensitivity.model_validate(report.sensitivity)
    return _rendered(
        "sensitivity_card.md.j2",
        recipe,
        report,
        sensitivity=sensitivity,
        what="layer" if sensitivity.scope == "layer" else "linear layer",
        figure=sensitivity.model_task.quality,
    )


def _rendered(template: str, recipe: Recipe, report: Report, **values: object) -> str:
    """Return a card; its last section ends with an empty line, which is cut."""
    body = json.dumps(recipe.shown_body(), indent=2)
    text = _CARDS.get_template(template).render(recipe=recipe, report=report, body=body, **values)
    return text.removesuffix("\n")


def _target(metrics: Metrics) -> str | None:
    """Return a comparison of the job's target with the figure it reached; None without a target."""
    target = metrics.target
    if target is None:
        return None
    limit_text, reached_text = _TARGETS[target.kind]
    spread = f", timings spread by {target.spread:.1%}" if target.spread else ""
    if is_noisy(target.spread):
        spread = f", {NOT_WELL}"
    return f"{limit_text.format(target.asked)}; reached {reached_text.format(target.reached)}{spread}"


def _ways_to_run(metrics: Metrics) -> list[tuple[str, str]]:
    """Return pairs of a sentence and commands: every file shows its last command, after those that set up, once."""
    ways = []
    for form in dict.fromkeys(each.format for each in metrics.exports):
        files = [each.file for each in metrics.exports if each.format == form]
        for sentence, command in ADDED[form].ways_to_run:
            *before, last = command.splitlines()
            ways.append((sentence, "\n".join([*before, *(last.format(file=file) for file in files)])))
    return ways


def _formatted(value: float | None, form: str) -> str:
    """Return a figure in a format of Python; a dash where it was not measured."""
    return "–" if value is None else format(value, form)


def _plain(text: str) -> str:
    """Return text on one line so that Markdown and HTML show it unchanged."""
    return " ".join(text.split()).translate(_ESCAPES)


def _fenced(text: str) -> str:
    """Return a code block that shows the text verbatim; its fence is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _ratio_of_times(row: Timing) -> str:
    """Return pruned ÷ dense with its noise; it is called unproven if the noise is larger than the difference."""
    if row.ratio is None:
        return "not measured"
    return with_noise(f"× {row.ratio:.3f}", latency_noise(row.spread), row.ratio)


def _shown(point: SensitivityPoint) -> str:
    if point.perplexity is not None:
        return f"{point.perplexity:.4g}"
    return f"{point.accuracy:.2%}" if point.accuracy is not None else f"{point.loss:.4g}"


_CARDS: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
    autoescape=False,  # Markdown: `plain` and `fenced` escape what users wrote
)
_CARDS.filters |= {"plain": _plain, "fenced": _fenced, "f": _formatted, "in_words": in_words, "shown": _shown}
_CARDS.globals |= {"with_noise": with_noise, "ratio_of_times": _ratio_of_times, "shown": _shown}
