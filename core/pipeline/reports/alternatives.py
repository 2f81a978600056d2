"""Alternatives to pruning: what the dense model takes in a narrower dtype, and in the files of other runtimes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from core.engine.architectures.description import Description, stored_as
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.exporters.registry import ADDED
from core.methods.registry import get_method
from core.pipeline.recipes.parts import Output
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.report import Rounding
from secateur_wire.job_body import Export, StoredDtype
from secateur_wire.metrics import Alternative

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
