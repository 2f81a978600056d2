"""Bytes and perplexity of the dense model, and an artifact beside the best dense file of no more bytes."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import log, sqrt
from statistics import fmean, stdev
from typing import Any, Final

from core.engine.architectures.description import Description, ModelDescription, stored_as
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.perplexity_ratio import FEWEST_WINDOWS
from core.engine.exporters.registry import ADDED
from core.engine.quantization.settings import resolve_quantization
from core.methods.registry import METHODS, get_method
from core.pipeline.recipes.recipe import Output, Recipe
from core.pipeline.reports.dense_figures import DenseFigure, Facts
from core.pipeline.reports.report import ARTIFACT, Report, Rounding
from secateur_wire.base import JsonObject
from secateur_wire.equal_bytes import EqualBytes
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import Export, Quantization, StoredDtype
from secateur_wire.metrics import Alternative, Metrics, Perplexity

NARROW: Final[StoredDtype] = "bfloat16"
"""Dtype that costs wider weights almost no quality."""

NARROW_CLASSIFIER: Final[StoredDtype] = "float16"
"""Dtype of an image classifier's smaller copy: its weights need no wider range, and float16 rounds them less."""


def narrower_dtype(description: Description) -> StoredDtype:
    """Return the `output.dtype` in which a model takes the fewest bytes at almost no cost, 'keep' where it has it."""
    is_wider = stored_as(description, NARROW).bytes < description.bytes
    return NARROW if description.model_task.has_perplexity and is_wider else "keep"


def alternatives_to_pruning(description: Description) -> list[Alternative]:
    """Return the copies of a dense model that are smaller than it."""
    if not description.model_task.has_perplexity:
        copy = _classifier_copy(description)
        return [copy] if copy.bytes < description.bytes else []
    return [each for each in _copies(description) if each.bytes < description.bytes]


def _classifier_copy(description: Description) -> Alternative:
    size = stored_as(description, NARROW_CLASSIFIER).bytes
    return Alternative(
        name=name_of_copy(NARROW_CLASSIFIER),
        output={},
        bytes=size,
        ratio=size / description.bytes,
        basis=f"counted: every wider weight in {WEIGHT_BYTES[NARROW_CLASSIFIER]} bytes, as `model.half()` stores them",
    )


def _copies(description: Description) -> Iterator[Alternative]:
    size = stored_as(description, NARROW).bytes
    yield Alternative(
        name=name_of_copy(NARROW),
        output={"dtype": NARROW},
        bytes=size,
        ratio=size / description.bytes,
        basis=f"counted: every wider weight in {WEIGHT_BYTES[NARROW]} bytes",
    )
    for form, exporter in ADDED.items():
        for kind, size in exporter.dense_sizes(description.language_model).items():
            yield Alternative(
                name=name_of_file(form, kind),
                output={"exports": [{"format": form, "types": [kind]}]},
                bytes=size,
                ratio=size / description.bytes,
                basis="counted: the sizes of its tensors as they are written; the vocabulary is added to them",
            )


def alternatives_measured_in(description: Description, recipe: Recipe, rounding: Rounding | None) -> list[Alternative]:
    """Return the alternatives to a pruning job, with what its own pass measured of the model in `output.dtype`.

    A job that prunes nothing has that copy alone, where it rounds.
    """
    alternatives = alternatives_to_pruning(description)
    measured = None if rounding is None else name_of_copy(rounding.dtype)
    return [
        each if rounding is None or each.name != measured else _rounded(each, rounding)
        for each in alternatives
        if get_method(recipe.method).prunes or each.name == measured
    ]


def _rounded(copy: Alternative, rounding: Rounding) -> Alternative:
    """Return the copy with the figures of the dense model as it was rounded, on the worst text."""
    figures = {name: each for name, each in rounding.perplexity.items() if each.rounded and each.ratio}
    bits = [
        math.log(each.rounded) / math.log(each.dense) for each in figures.values() if each.rounded and each.dense > 1
    ]
    on = f"; its quality measured on {' and '.join(figures)}" if figures else ""
    return copy.model_copy(
        update={
            "basis": f"{copy.basis}{on}",
            "kl": max((each.kl for each in figures.values() if each.kl is not None), default=None),
            "perplexity_ratio": max((each.ratio for each in figures.values() if each.ratio), default=None),
            "bits_per_byte_ratio": max(bits, default=None),
        }
    )


def with_compared_types(
    description: Description, offered: Alternative, alternatives: Sequence[Alternative]
) -> dict[str, Any]:
    """Return the `output` of an alternative, with the compared types of its added form that no job has measured."""
    exports = offered.output.get("exports")
    if not isinstance(exports, list):
        return dict(offered.output)
    measured = {each.name for each in alternatives if each.kl is not None}
    added = []
    for each in map(Export.model_validate, exports):
        missing = [
            kind
            for kind in ADDED[each.format].compared_types(description.language_model)
            if kind not in each.types and name_of_file(each.format, kind) not in measured
        ]
        added.append({"format": each.format, "types": [*each.types, *missing]})
    return {**offered.output, "exports": added}


def name_of_file(form: str, kind: str, copy: str | None = None) -> str:
    """Return the name of the alternative that is an added file of the dense model, or of its `copy` of that name."""
    return f"{copy or 'dense'} as {form} {kind}"


def stored_copy(output: Output) -> str | None:
    """Return the name of the copy that a job which stores the dense model writes; None where its weights stay."""
    if output.quantization is not None:
        return name_of_copy(output.quantization.scheme)
    return None if output.dtype == "keep" else name_of_copy(output.dtype)


def name_of_copy(dtype: str) -> str:
    """Return the name of the alternative that is the dense model in a narrower dtype."""
    return f"dense in {dtype}"


_OF_MODEL: Final = ("dtype", "device", "torch", "transformers")
"""Facts of a dense figure in which compared files may differ: the others say which windows were read."""
_HERE: Final = "measured in this job"
_FEW_BITS: Final = Quantization(scheme="int4")


@dataclass(frozen=True)
class TextLosses:
    """Losses of a file on one evaluation set: by the number of the window, with the facts that name the windows."""

    facts: Facts
    losses: Mapping[int, float]


@dataclass(frozen=True)
class MeasuredFile:
    """File, or weights, of a model, with its losses by evaluation set; `basis` says where they were measured."""

    name: str
    bytes: int
    texts: Mapping[str, TextLosses]
    basis: str = _HERE


def artifact_files(report: Report, metrics: Metrics) -> list[MeasuredFile]:
    """Return the files of a job's artifact that were measured: its own weights, and those that were added."""
    stored = None if metrics.bytes is None else metrics.bytes.stored
    sizes = {} if stored is None else {ARTIFACT: stored}
    sizes |= {each.file: each.bytes for each in metrics.exports}
    return [MeasuredFile(name, size, _texts(report, name)) for name, size in sizes.items()]


def dense_files_of(report: Report, metrics: Metrics, output: Output, basis: str) -> list[MeasuredFile]:
    """Return the files of a job that stored the dense model, by the names that alternatives to pruning have."""
    copy = stored_copy(output)
    names = {each.file: name_of_file(each.format, each.type, copy) for each in metrics.exports}
    if copy is not None:
        names[ARTIFACT] = copy
    files = artifact_files(report, metrics)
    return [replace(each, name=names[each.name], basis=basis) for each in files if each.name in names]


def dense_files_here(report: Report, metrics: Metrics) -> list[MeasuredFile]:
    """Return what any job measures of the dense model: its weights as they are, and in a narrower `output.dtype`."""
    files = []
    figures = _figures(report)
    if metrics.bytes is not None and metrics.bytes.dense and figures:
        texts = {
            name: TextLosses(_window_facts(each), dict(enumerate(each.window_losses)))
            for name, each in figures.items()
            if each.window_losses
        }
        dtype = next(iter(figures.values())).facts.get("dtype")
        files.append(MeasuredFile(name_of_copy(str(dtype)), metrics.bytes.dense, texts))
    files += [
        MeasuredFile(each.name, each.bytes, texts)
        for each in metrics.alternatives
        if (texts := _texts(report, each.name))
    ]
    return files


def is_compared(recipe: Recipe) -> bool:
    """Return whether a job has an artifact that is compared with dense files: one that is not such a file itself."""
    return not recipe.measures and not recipe.stores_dense_model and bool(recipe.evaluation.datasets)


def compare_at_equal_bytes(
    report: Report, metrics: Metrics, known: Sequence[MeasuredFile], measure: JsonObject | None
) -> dict[str, EqualBytes]:
    """Return the comparison with the best dense file of no more bytes, by evaluation set.

    The artifact's smallest file is compared. The best dense file is the one with the fewest bits per byte on the same
    windows: of those that this job measured, and those that are `known` from others. `measure` is the body of a job
    that would measure smaller ones.
    """
    own, dense = artifact_files(report, metrics), [*dense_files_here(report, metrics), *known]
    return {name: _compared(name, own, dense, figures, measure) for name, figures in metrics.perplexity.items()}


def measuring_job(
    recipe: Recipe,
    description: ModelDescription,
    own: Sequence[MeasuredFile],
    known: Sequence[MeasuredFile],
) -> JsonObject | None:
    """Return the body of a job that measures dense files as small as the artifact's `own`; None where there is none.

    Added files come first, then weights in 4 bits. Files that are `known` on the same windows are not measured again.
    """
    names = _measured_names(own, known)
    output = _unmeasured_files(description, min((each.bytes for each in own), default=0), names)
    if output is None and name_of_copy(_FEW_BITS.scheme) not in names:
        with suppress(InvalidRequest):
            resolve_quantization(_FEW_BITS, description, (), is_calibrated=False)
            output = {"quantization": {"scheme": _FEW_BITS.scheme}}
    if output is None:
        return None
    evaluation = recipe.evaluation.model_dump(
        mode="json",
        include={"datasets", "samples", "sequence_length", "shape", "counted_tokens"},
        exclude_none=True,
    )
    storing = next(each.id for each in METHODS.values() if each.only_stores)
    body: JsonObject = {"model": recipe.model, "method": storing, "evaluation": evaluation, "output": output}
    if recipe.output.importance_matrix and recipe.calibration is not None:  # the dense files are rounded so too
        body["calibration"] = recipe.calibration.model_dump(mode="json", exclude_none=True)
    return body


def is_done(measure: JsonObject, own: Sequence[MeasuredFile], known: Sequence[MeasuredFile]) -> bool:
    """Return whether the dense files that the body of a job would measure are known, on the windows of the artifact."""
    output = Output.model_validate(measure["output"])
    names = {name_of_file(each.format, kind) for each in output.exports for kind in each.types}
    if output.quantization is not None:
        names.add(name_of_copy(output.quantization.scheme))
    return names <= _measured_names(own, known)


def _measured_names(own: Sequence[MeasuredFile], known: Sequence[MeasuredFile]) -> set[str]:
    """Return the names of the known files that were measured on all windows on which the artifact was."""
    windows = [text.facts for file in own for text in file.texts.values()]
    return {
        file.name for file in known if all(facts in [text.facts for text in file.texts.values()] for facts in windows)
    }


def _unmeasured_files(description: ModelDescription, most_bytes: int, known: Collection[str]) -> JsonObject | None:
    """Return the `output` with the types of added files by which models are compared, without those known or larger."""
    for form, exporter in ADDED.items():
        sizes = exporter.dense_sizes(description)
        types = [
            kind
            for kind in exporter.compared_types(description)
            if name_of_file(form, kind) not in known and sizes.get(kind, 0) <= most_bytes
        ]
        if types:
            return {"exports": [{"format": form, "types": [*types]}]}
    return None


def _compared(
    name: str,
    own: Sequence[MeasuredFile],
    dense: Sequence[MeasuredFile],
    figures: Perplexity,
    measure: JsonObject | None,
) -> EqualBytes:
    """Return the comparison on one evaluation set."""
    smallest = min((each for each in own if name in each.texts), key=lambda each: each.bytes, default=None)
    if smallest is None:
        return EqualBytes(reason=f"no file of the artifact has a finite loss on {name}")
    about: JsonObject = {"file": smallest.name, "bytes": smallest.bytes}
    bits = figures.bits_per_byte
    if bits is None or not bits.bytes or not bits.tokens:
        return EqualBytes.model_validate(about | {"reason": f"the bytes of {name} are not known exactly"})
    measured = [(each, pair) for each in dense if (pair := _differences(smallest, each, name))]
    pairs = [(each, pair) for each, pair in measured if each.bytes <= smallest.bytes]
    if not pairs:
        reason = f"no dense file of at most {smallest.bytes:,} bytes was measured on these windows of {name}"
        if measured:
            least = min((each for each, _ in measured), key=lambda each: each.bytes)
            reason += f"; the smallest that was, the {least.name}, takes {least.bytes:,}"
        return EqualBytes.model_validate(about | {"reason": reason, "measure": measure})
    best, differences = max(pairs, key=lambda each: fmean(each[1]))
    about |= {"dense": best.name, "dense_bytes": best.bytes, "basis": best.basis, "windows": len(differences)}
    if len(differences) < FEWEST_WINDOWS:
        reason = f"{len(differences)} windows of {name} are too few for an error: use at least {FEWEST_WINDOWS}"
        return EqualBytes.model_validate(about | {"reason": reason})
    per_byte = bits.tokens / (bits.bytes * log(2))
    difference, stderr = fmean(differences) * per_byte, stdev(differences) / sqrt(len(differences)) * per_byte
    outcome = "within error" if abs(difference) <= stderr else "worse" if difference > 0 else "better"
    return EqualBytes.model_validate(about | {"difference": difference, "stderr": stderr, "outcome": outcome})


def _differences(own: MeasuredFile, dense: MeasuredFile, name: str) -> list[float]:
    """Return the losses of a file minus those of a dense one, on the windows that both were measured on."""
    text = own.texts[name]
    other = next((each.losses for each in dense.texts.values() if each.facts == text.facts), {})
    return [loss - other[window] for window, loss in text.losses.items() if window in other]


def _texts(report: Report, file: str) -> dict[str, TextLosses]:
    """Return the losses of a file of a report, by evaluation set; those that are not finite are left out."""
    figures = _figures(report)
    return {
        name: TextLosses(_window_facts(figures[name]), losses.by_window)
        for name, losses in report.window_losses.get(file, {}).items()
        if losses.losses and name in figures
    }


def _figures(report: Report) -> dict[str, DenseFigure]:
    """Return the dense model's figures of perplexity, by evaluation set."""
    return {each.name: each for each in report.dense_figures if each.kind == "perplexity"}


def _window_facts(figure: DenseFigure) -> Facts:
    """Return the facts that say which windows of which text were read."""
    return {name: value for name, value in figure.facts.items() if name not in _OF_MODEL}
