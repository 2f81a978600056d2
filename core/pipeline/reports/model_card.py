"""Model card of an artifact: pruning, quality and size, code that loads it, and the recipe that reproduces it."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from core.engine.cuts import unit_rows
from core.engine.exporters.registry import ADDED, OFFERED
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.card_parts import CardParts
from core.pipeline.reports.classifier_card import ClassifierCard
from core.pipeline.reports.language_card import LanguageCard
from core.pipeline.reports.markdown import fenced, plain
from core.pipeline.reports.report import Report
from core.pipeline.reports.source_card import NO_FACTS, SourceFacts
from core.pipeline.reports.verdict import verdict_on
from secateur_wire.answers import ComparedAnswer
from secateur_wire.equal_bytes import in_words
from secateur_wire.metrics import NOT_WELL, Metrics, Parameters, Sizes, Sparsity, TokenRate, is_noisy, with_noise
from secateur_wire.reports import Generation

SHAPE_CHART = "layers.svg"
WORTH_TABLE = "worth.json"
"""File of an artifact: what the variants of its source's layers are worth, for other limits of cost."""
"""File of an artifact with a picture of what each layer of a smaller model keeps."""

VOCABULARY_CHART = "vocabulary.svg"
"""File of an artifact with a picture of how much of the texts each number of tokens covers."""

_ANSWERS: Final = 3
"""Questions of each set whose answers are on the card."""

CARDS: Final[Mapping[str, CardParts]] = {"language-model": LanguageCard(), "image-classification": ClassifierCard()}
"""Sections of the card that depend on the model's task, by task."""


def model_card(recipe: Recipe, report: Report, source: SourceFacts = NO_FACTS) -> str:
    """Return the README.md of an artifact from its recipe and report; figures that were not measured are left out.

    `source` has the facts that the model's source states.
    """
    metrics = report.metrics or Metrics()
    parameters, sizes = metrics.parameters or Parameters(), metrics.bytes or Sizes()
    method = get_method(recipe.method)
    recovery = report.recovery
    parts = CARDS[(report.model and report.model.task) or "language-model"]
    names = method.model_names
    title = "stored in other forms" if method.only_stores else "trained further"
    lines = [
        "---",
        "library_name: transformers",
        f"pipeline_tag: {parts.pipeline_tag}",
        *source.lines,
        f"tags: [{', '.join(('pruning', method.id, *parts.tags))}]",
        "---",
        "",
        f"# {plain(recipe.model)}, {f'pruned with {method.title}' if method.prunes else title}",
        "",
        *_verdict(recipe, metrics),
        *([f"At equal bytes: {plain(in_words(metrics.equal_bytes))}.", ""] if metrics.equal_bytes else []),
        recipe.request.pass_removal.outcome(
            metrics.sparsity or Sparsity(), report.layers, recipe.pattern if method.prunes else None
        ),
        "",
        *([f"![What each layer keeps]({SHAPE_CHART})", ""] if unit_rows(report.layers) else []),
        *_vocabulary(report),
        *(parts.recovery(recovery, has_zeros=not recipe.shrinks) if recovery else []),
        f"| | {' | '.join(names)} |",
        "|---|---|---|",
        *parts.figures(metrics, pruned=method.prunes),
        f"| parameters not zero | {parameters.dense:,} | {parameters.nonzero:,} |",
        f"| bytes of weights | {sizes.dense:,} | {sizes.artifact:,} |",
    ]
    lines += [
        f"| bytes of the {plain(each.name)}, for comparison | {each.bytes:,} (× {each.ratio:.3g}) | |"
        for each in metrics.alternatives
    ]
    exported = report.exported(recipe.output.format)
    if exported is not None:
        lines.append(f"| bytes of weight files, {recipe.output.format} | | {exported.bytes:,} |")
    lines += _added_files(metrics)
    if metrics.latency is not None:
        lines += parts.latencies(metrics.latency)
    lines += ["", *_target(metrics), *(f"- {plain(note)}" for note in report.notes), ""]
    if exported is not None:
        lines += [OFFERED[recipe.output.format].opening, ""]
    lines += parts.how_to_open(report)
    lines += _how_to_run(metrics)
    if method.paper is not None:
        paper = method.paper
        lines += [f"Method: {paper.authors}, *{paper.title}* ({paper.year}), {paper.url}", ""]
    lines += [
        "The job body that reproduces this run; `secateur.json` holds it with every default, and the whole report:",
        "",
        "```json",
        json.dumps(recipe.shown_body(), indent=2),
        "```",
        "",
        *_answers(report.answers, names),
        *_generations(report.generations, names),
    ]
    return "\n".join(lines)


def _vocabulary(report: Report) -> list[str]:
    """Return the section on the tokens that are left; empty where none went."""
    vocabulary = report.vocabulary
    if vocabulary is None:
        return []
    lines = [
        f"Vocabulary: {vocabulary.words} Text that needs no other tokens is tokenized as before, with new ids.",
        "",
        f"![Share of the texts' tokens by the number of kept tokens]({VOCABULARY_CHART})",
        "",
    ]
    rows = [
        f"| {plain(each.word)} | {plain(name)} | {each.count:,} | {each.dense} | {each.pruned} |"
        for name, text in vocabulary.texts.items()
        for each in text.words
    ]
    if rows:
        lines += ["| longer word | text | times | tokens before | tokens |", "|---|---|---|---|---|", *rows, ""]
    return lines


def _verdict(recipe: Recipe, metrics: Metrics) -> list[str]:
    """Return a comparison with the dense model in words; empty if no quality was measured."""
    verdict = verdict_on(recipe.method, recipe.pattern, recipe.sparsity, metrics)
    return [] if verdict is None else [f"**{verdict.words.capitalize()}**: {plain(verdict.reason)}.", ""]


def _added_files(metrics: Metrics) -> list[str]:
    """Return table rows of the added files: their speed, and how closely they predict what the artifact does."""
    lines = []
    for each in metrics.exports:
        dense = "" if each.speed is None else f" {each.speed.dense_bytes:,}"
        lines.append(
            f"| bytes of {each.file} |{dense} | {each.bytes:,} (KL {each.kl:.2g} nats, the same likeliest token for "
            f"{each.top_1:.2%} of {each.predictions:,}) |"
        )
        if each.speed is not None:
            after, threads = each.speed.prompt_tokens, each.speed.threads
            where = f"tokens/s of {each.file} in {threads} thread{'' if threads == 1 else 's'}"
            lines.append(f"| {where}, prefill of {after} tokens | {_rates(each.speed.prefill)} |")
            lines.append(f"| {where}, decode | {_rates(each.speed.decode)} |")
        if (own := each.own_speed) is not None:
            where = f"tokens/s of {each.file} in {own.threads} thread{'' if own.threads == 1 else 's'}"
            lines.append(
                f"| {where}, prefill of {own.prompt_tokens} tokens | | {_rate(own.prefill, own.prefill_noise)} |"
            )
            lines.append(f"| {where}, decode | | {_rate(own.decode, own.decode_noise)} |")
    return lines


def _rate(rate: float, noise: float | None) -> str:
    return with_noise(f"{rate:.4g}", noise)


def _rates(rate: TokenRate) -> str:
    return f"{rate.dense:.1f} | {rate.pruned:.1f} ({with_noise(f'× {rate.ratio:.3f}', rate.noise, rate.ratio)})"


def _how_to_run(metrics: Metrics) -> list[str]:
    lines = []
    for form in dict.fromkeys(each.format for each in metrics.exports):
        files = [each.file for each in metrics.exports if each.format == form]
        for sentence, command in ADDED[form].ways_to_run:
            # Every file shows its last command; the set-up commands before it are shown once.
            *before, last = command.splitlines()
            lines += [sentence, "", "```sh", *before, *(last.format(file=file) for file in files), "```", ""]
    return lines


def _generations(generations: Sequence[Generation], names: tuple[str, str]) -> list[str]:
    """Return the section with the texts that both models generate from the job's prompts.

    `names` are the models' names.
    """
    if not generations:
        return []
    lines = ["## What they write", "", "After each prompt, the likeliest tokens, one after another.", ""]
    for each in generations:
        lines += ["Prompt:", "", *fenced(each.prompt), ""]
        for name, text in zip(names, (each.dense, each.pruned), strict=True):
            lines += [f"The {name} model:", "", *_written(text), ""]
    return lines


def _answers(answers: Mapping[str, Sequence[ComparedAnswer]], names: tuple[str, str]) -> list[str]:
    """Return the section with the first answers of both models to the questions of each set."""
    if not answers:
        return []
    lines = ["## What they answer", "", "With the likeliest tokens, one after another.", ""]
    for name, compared in answers.items():
        for each in compared[:_ANSWERS]:
            lines += [f"Question of {plain(name)}:", "", *fenced(each.question), ""]
            for model, answer in zip(names, (each.dense, each.pruned), strict=True):
                lines += [f"The {model} model:", "", *_written(answer.text), ""]
    return lines


def _written(text: str | None) -> list[str]:
    if text is None:
        return ["Not generated: see the notes."]
    return fenced(text) if text else ["Nothing: the text ends here."]


_TARGETS = {
    "parameters": ("at most {:,} parameters that are not zero", "{:,}"),
    "bytes": ("at most {:,} bytes of tensors", "{:,}"),
    "latency_ratio": ("a prefill in at most {:.3g} × the dense model's time", "{:.3g} ×"),
    "decode_ratio": ("a decode step in at most {:.3g} × the dense model's time", "{:.3g} ×"),
    "memory_bytes": ("at most {:,} bytes of tensors and cache", "{:,}"),
}


def _target(metrics: Metrics) -> list[str]:
    """Return the line that compares the job's target with the figure it reached; empty without a target."""
    target = metrics.target
    if target is None:
        return []
    limit_text, reached_text = _TARGETS[target.kind]
    spread = f", timings spread by {target.spread:.1%}" if target.spread else ""
    if is_noisy(target.spread):
        spread = f", {NOT_WELL}"
    return [f"- Target: {limit_text.format(target.asked)}; reached {reached_text.format(target.reached)}{spread}."]
