"""Sentences of plans: a summary, the choices with their reasons, and the unknown figures."""

from collections.abc import Mapping, Sequence
from math import log

from pydantic import JsonValue

from core.engine.architectures.description import Description
from core.engine.exporters.registry import ADDED
from core.engine.options.patterns import parse_pattern
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.reports.verdict import CLOSE_TO_DENSE
from core.service.jobs.resolution.dataset import SELF
from core.service.plans.amounts import PACKED, ArtifactForm
from core.service.plans.job_bodies import RECOVERIES, RECOVERY_MINUTES
from core.service.plans.vocabulary import UnusedTokens
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Alternative
from secateur_wire.plans import FigureName, Goal, PlanChoice, PlanFigure
from secateur_wire.progress import between, roughly

WORTH = 0.05
"""Smallest share to remove that is worth the time of a job."""
_CLOSE_KL = 0.02
"""Largest mean divergence, in nats, of a copy that counts as equal to the dense model."""
_PARTS = {"speed": "parameters", "size": "bytes", "sparsity": "prunable weights"}


def summary(model: str, goal: Goal, job: Recipe, amount: float | None, figures: Mapping[FigureName, PlanFigure]) -> str:
    """Return a sentence about the job and its expected outcome."""
    title = get_method(job.method).title
    text = "" if job.calibration is None else f", calibrated on {_text(job.calibration.dataset)}"
    if amount is None:
        sentence = f"Measure what each layer of {model} can lose ({title}){text}"
    else:
        verb = "Remove" if goal != "sparsity" else "Set to zero"
        form = " and pack what is left" if job.output.format == PACKED else ""
        removed = f"{_share(amount)} of the {_PARTS[goal]}"
        if goal == "size" and job.shrinks:  # the added file takes fewer bytes as well
            form = f" and write {', '.join(f'{each.format} {each.types[0]}' for each in job.output.exports)}"
            removed = f"{_share(job.sparsity or 0.0)} of the {_PARTS['speed']}"
        sentence = f"{verb} {removed} of {model} with {title} ({job.pattern}){form}{text}"
        if job.recovery is not None:
            sentence += f", then train ({job.recovery.method})"
    expected = []
    if "perplexity_ratio" in figures:
        figure = figures["perplexity_ratio"]
        expected.append(
            f"perplexity of {figure.estimate:.2f} times the dense model's ({figure.low:.2f} to {figure.high:.2f})"
        )
    if "bytes_ratio" in figures and goal != "sparsity":
        expected.append(f"{_share(figures['bytes_ratio'].estimate)} of its bytes")
    duration = f" in {between(seconds.low, seconds.high)}" if (seconds := figures.get("seconds")) is not None else ""
    outcome = f": expect {' and '.join(expected)}" if expected else ""
    return f"{sentence}{duration}{outcome}."


def tokens_summary(model: str, unused: UnusedTokens, figures: Mapping[FigureName, PlanFigure]) -> str:
    """Return a sentence about a job that removes unused tokens alone, and its expected outcome."""
    assert unused.counted is not None
    removed = unused.tokens - unused.counted.kept
    outcome = f"expect no loss on text of the other tokens and {_share(figures['bytes_ratio'].estimate)} of its bytes"
    return (
        f"Remove {removed:,} of {unused.tokens:,} tokens from {model}, which {unused.text} does not use, with "
        f"{_share(unused.share)} of the parameters: {outcome}."
    )


def tokens_first(share: float) -> str:
    """Return a sentence about the share of the parameters that goes with unused tokens; empty where none go."""
    return (
        f"Before that the tokens go that the text does not use, with {_share(share)} of the parameters."
        if share
        else ""
    )


def best_alternative(
    goal: Goal, description: Description, figures: Mapping[FigureName, PlanFigure], alternatives: Sequence[Alternative]
) -> Alternative | None:
    """Return the smallest copy of the model that needs no pruning; None where the planned model for size is smaller.

    Copies that were measured to differ from the dense model are left out. None for goals other than size.
    """
    if goal != "size":
        return None
    close = [each for each in alternatives if _is_close(each)]
    best = min(close, key=lambda each: each.bytes, default=None)
    planned = figures["bytes_ratio"].estimate * description.bytes
    return None if best is None or planned < (1 - WORTH) * best.bytes else best


def _is_close(copy: Alternative) -> bool:
    """Return whether a copy is as good as the dense model, as far as it was measured."""
    if copy.kl is not None:
        return copy.kl <= _CLOSE_KL
    return copy.perplexity_ratio is None or log(copy.perplexity_ratio) <= _CLOSE_KL


def makeable(alternatives: Sequence[Alternative], *, is_writing: bool) -> list[Alternative]:
    """Return the copies that a job makes; `is_writing`: workers here are known to write added files."""
    return [each for each in alternatives if each.output and (is_writing or "exports" not in each.output)]


def better_at_equal_bytes(
    goal: Goal, description: Description, figures: Mapping[FigureName, PlanFigure], alternatives: Sequence[Alternative]
) -> Alternative | None:
    """Return the copy of no more bytes than the planned model with the fewest bits per byte, where it is the better.

    It is better where its measured bits per byte are fewer than the lowest estimate. None for goals other than size.
    """
    planned = figures.get("bits_per_byte_ratio")
    if goal != "size" or planned is None:
        return None
    most = figures["bytes_ratio"].estimate * description.bytes
    fitting = [(each.bits_per_byte_ratio, each) for each in alternatives if each.bits_per_byte_ratio is not None]
    best = min((each for each in fitting if each[1].bytes <= most), key=lambda each: each[0], default=None)
    return None if best is None or best[0] >= planned.low else best[1]


def quantise_only(figures: Mapping[FigureName, PlanFigure], better: Alternative | None) -> str:
    """Return the sentence that a measured copy of no more bytes is better than the planned model; empty without one."""
    if better is None:
        return ""
    planned = figures["bits_per_byte_ratio"]
    name = better.name.replace("dense", "dense model", 1)
    return (
        f"Quantise only: the {name} has {_share(better.ratio)} of the bytes at {better.words}, and this plan is "
        f"expected to have {_share(figures['bytes_ratio'].estimate)} at × {planned.low:.4g} to {planned.high:.4g}."
    )


def not_worth(removed: float, figures: Mapping[FigureName, PlanFigure], better: Alternative | None) -> str:
    """Return the sentence that a plan is not worth its cost, with the reason; empty where it is worth it."""
    if better is not None:
        known = "" if better.kl is None and better.perplexity_ratio is None else f", {better.words}"
        return (
            f"Not worth pruning for size: take the {better.name.replace('dense', 'dense model', 1)}, which has "
            f"{_share(better.ratio)} of the bytes{known}."
        )
    if removed >= WORTH:
        return ""
    seconds = figures.get("seconds")
    time = "its time" if seconds is None else between(seconds.low, seconds.high)
    return f"Not worth {time}: less than {_share(WORTH)} goes."


def unknown(
    figures: Mapping[FigureName, PlanFigure], description: Description, job: Recipe, *, is_recovered: bool
) -> list[str]:
    """Return the reason for each figure without an estimate."""
    missing = []
    setting = f"{get_method(job.method).title} with pattern {job.pattern}"
    if not description.model_task.has_perplexity:
        missing.append(f"accuracy: what {setting} costs an image classifier was not measured here")
    elif "perplexity_ratio" not in figures:
        missing.append(
            f"perplexity_ratio: no job of this team, and no measurement of this release, is of {setting} at about this "
            "amount on a model like this"
        )
    elif is_recovered:
        missing.append("what training wins back: the perplexity is that before it, where no job has shown more")
    if "perplexity_ratio" in figures and "bits_per_byte_ratio" not in figures:
        missing.append("bits_per_byte_ratio: no job of this team has measured the perplexity of the dense model yet")
    if job.shrinks:
        names = [name for name in ("prefill_ratio", "decode_ratio") if name not in figures]
        if names:
            missing.append(
                f"{' and '.join(names)}: no job of this team, and no measurement of this release, has timed {setting} "
                "at about this amount on a model of about this size"
            )
    else:
        missing.append("prefill_ratio and decode_ratio: zeros are faster only in runtimes and on devices made for them")
    if "seconds" not in figures:
        missing.append("seconds: no time can be told for this job")
    return missing


def too_wide(figures: Mapping[FigureName, PlanFigure]) -> list[str]:
    """Return a sentence for each estimate whose band is too wide to call the figure known."""
    sentences = []
    for name, figure in figures.items():
        values = (figure.estimate, figure.low, figure.high)
        middle, low, high = (roughly(each) if name == "seconds" else f"{each:.2f}" for each in values)
        sentences.append(f"{name}: about {middle}, but it may be {low} as well as {high}, by {figure.basis}")
    return sentences


def pattern_reason(request: ResolvedRequest, goal: Goal) -> str:
    """Return the reason for a job's pattern."""
    if request.shrinks:
        return "removed parts make a model smaller and faster on any hardware; zeros do not"
    if goal == "size":
        return "zeros anywhere cost less quality than removed channels at the same bytes"
    if parse_pattern(request.pattern).is_unrestricted:
        return "zeros anywhere cost the least quality; ask for 2:4 if your runtime needs that"
    return "as asked for"


def _text(dataset: str) -> str:
    return "text that the model writes itself" if dataset == "self" else dataset


def _share(share: float) -> str:
    return f"{100 * share:.3g} %"


def choice(field: str, value: JsonValue, reason: str) -> PlanChoice:
    """Return a choice for any value of a job body."""
    return PlanChoice.model_validate({"field": field, "value": value, "reason": reason})


def form_choices(
    description: Description, goal: Goal, form: ArtifactForm, exports: Sequence[JsonObject]
) -> list[PlanChoice]:
    """Return the choices for an artifact that takes less space: its form, dtype and additional files."""
    choices = []
    if form.dtype != "keep":
        choices.append(choice("output.dtype", form.dtype, "half the bytes of float32, at almost no cost"))
    if form.format == PACKED:
        choices.append(choice("output.format", PACKED, "zeros take no room in packed files, which restore bit by bit"))
    is_written = any(description.task in each.added_to for each in ADDED.values())
    if goal not in ("speed", "size") or not is_written:
        return choices
    if not exports:
        why = "no worker here has llama.cpp as far as is known, or this model cannot be written for it"
        return [*choices, choice("output.exports", [], why)]
    files = []
    for each in exports:
        types = [str(name) for name in each["types"]] if isinstance(each["types"], list) else []
        sizes = ADDED[str(each["format"])].dense_sizes(description.language_model)
        dense = ", ".join(f"{name}, {sizes[name] / description.bytes:.0%} of the bytes if dense" for name in types)
        files.append(f"{each['format']} {dense}")
    why = "workers here write such files"
    packed = "; zeros take as much room there as other weights"
    why += packed if form.format == PACKED else ", and removed parts take no room there"
    return [*choices, choice("output.exports", [*files], why)]


def recovery_of_tokens(text: str) -> PlanChoice:
    """Return why a plan that removes unused tokens alone trains nothing, and what training would win."""
    why = (
        f"{text} itself loses nothing. Where other text matters more than the time, train with distill "
        f"({RECOVERY_MINUTES} minutes): the whole model teaches the words that come apart"
    )
    return choice("recovery", None, why)


def choose_recovery(
    description: Description,
    expected: PlanFigure | None,
    calibrated_on: str | None,
    *,
    shrinks: bool,
    is_little: bool,
) -> tuple[JsonObject | None, PlanChoice]:
    """Return the planned training, if any, and the reason; `expected` is the perplexity without training.

    `is_little`: what is removed is not worth the time of a job.
    """
    if not shrinks:
        return None, choice("recovery", None, "zeros cost less quality than removed parts: see the result first")
    body = RECOVERIES[description.task]
    if not description.model_task.has_perplexity:
        return body, choice("recovery", body, "filters cost accuracy that training wins back")
    if calibrated_on in (None, SELF):
        return None, choice("recovery", None, "there is no text to train on: register one like your use")
    if expected is None:
        return None, choice("recovery", None, "it is not known yet whether this amount needs it: see the result first")
    if is_little:
        why = (
            f"so little needs none; training ({body['method']}, {RECOVERY_MINUTES} minutes) wins back a part of what "
            "more would cost: give an amount to see it planned"
        )
        return None, choice("recovery", None, why)
    if expected.estimate <= CLOSE_TO_DENSE:
        return None, choice("recovery", None, "the model is expected to stay close to the dense one without it")
    why = "more is lost than stays close to the dense model, and training wins back a part of it"
    return body, choice("recovery", body, why)
