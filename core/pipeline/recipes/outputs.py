"""Outputs: the requested form of the artifact, checked against the model, with the defaults of the form."""

from typing import Final

from core.engine.architectures.description import CLASSIFICATION, Description, is_narrowed, require_structure
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.cuts import Losses
from core.engine.exporters.registry import ADDED, OFFERED
from core.engine.quantization.settings import PARAM, resolve_quantization
from core.engine.removals.widths import width_divisor
from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Output, Quantization
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.errors import InvalidRequest

_IMPORTANCE: Final = "output.importance_matrix"


def resolve_output(
    output: Output,
    description: Description,
    request: ResolvedRequest,
    *,
    loses_tokens: bool = False,
    is_calibrated: bool = False,
) -> Output:
    """Return the output with its form's defaults; raises InvalidRequest if it does not fit the form or the model."""
    if output.quantization is not None:
        output = _with_quantization(output, output.quantization, description, request, is_calibrated)
    _check_exports(output, description, request)
    output = _with_importance(output, is_calibrated)
    exporter = OFFERED[output.format]
    as_it_is = exporter.written == "first" and not output.exports and output.dtype in ("keep", description.dtype)
    as_it_is &= output.quantization is None
    if as_it_is and not loses_tokens and get_method(request.method).only_stores:
        raise InvalidRequest(
            f"output: {request.method} prunes nothing, and the output asks for the model as it is: add output.exports, "
            'for example [{"format": "gguf", "types": ["Q8_0"]}], a narrower output.dtype, or output.quantization',
            param="output",
        )
    if exporter.default_compression is None and output.compression is not None:
        compressed = " and ".join(repr(form) for form, each in OFFERED.items() if each.default_compression is not None)
        raise InvalidRequest(
            f"output.compression is only for format {compressed}, not to {output.format!r}: leave it out",
            param="output.compression",
        )
    exporter.check(description, request.removal)
    _check_dtype(output, description)
    if exporter.default_compression is None:
        return output
    return output.model_copy(update={"compression": output.compression or exporter.default_compression})


def _check_dtype(output: Output, description: Description) -> None:
    dtype = output.dtype
    if not is_narrowed(description, dtype):
        return
    if description.task == CLASSIFICATION:
        raise InvalidRequest(
            f"output.dtype: weights of language models are stored as {dtype}, {description.architecture} is none: use "
            "'keep'",
            param="output.dtype",
        )
    if WEIGHT_BYTES[description.dtype] <= WEIGHT_BYTES[dtype]:
        raise InvalidRequest(
            f"output.dtype: the weights are {description.dtype}, which takes no more bytes than {dtype}: use 'keep'",
            param="output.dtype",
        )


def _with_quantization(
    output: Output, chosen: Quantization, description: Description, request: ResolvedRequest, is_calibrated: bool
) -> Output:
    if description.task == CLASSIFICATION:
        raise InvalidRequest(
            f"{PARAM}: {description.architecture} is an image classifier, and only language models are quantised: "
            "leave it out",
            param=PARAM,
        )
    if request.layout == "per_layer":
        raise InvalidRequest(
            f"output.layout beside {PARAM}: layers of different shapes are not quantised: use 'uniform'",
            param="output.layout",
        )
    steps = []
    if request.removal is not None and request.removal.narrows:
        alignment = width_divisor(request.parameters)
        steps = [alignment or 1]
        if losses_of(description, request).heads:
            steps.append(require_structure(description.language_model).facts["head_dim"])
    resolved = resolve_quantization(chosen, description.language_model, steps, is_calibrated=is_calibrated)
    return output.model_copy(update={"quantization": resolved})


def _with_importance(output: Output, is_calibrated: bool) -> Output:
    """Return the output with the default of the importance matrix: True if a type reads it and there is a text."""
    readers = [kind for each in output.exports for kind in each.types if kind in ADDED[each.format].importance_types]
    if output.importance_matrix and not readers:
        types = ", ".join(kind for each in ADDED.values() for kind in each.importance_types)
        raise InvalidRequest(
            f"{_IMPORTANCE}: only files of {types} are rounded with an importance matrix, and output.exports has none: "
            "leave it out",
            param=_IMPORTANCE,
        )
    if output.importance_matrix and not is_calibrated:
        raise InvalidRequest(
            "calibration is required: an importance matrix measures the layers' inputs on text, for example "
            f'"calibration": {{"dataset": "NAME", "samples": 128, "sequence_length": 512}}; or leave {_IMPORTANCE} out',
            param="calibration",
        )
    if output.importance_matrix is not None or not (readers and is_calibrated):
        return output
    return output.model_copy(update={"importance_matrix": True})


def losses_of(description: Description, request: ResolvedRequest) -> Losses:
    """Return the parts that a request removes from a model."""
    if request.removal is None:
        return Losses(different_layers=request.layout == "per_layer")
    return request.removal.losses(request.cut(description))


def _check_exports(output: Output, description: Description, request: ResolvedRequest) -> None:
    seen: set[str] = set()
    for index, export in enumerate(output.exports):
        param = f"output.exports.{index}"
        if description.task not in ADDED[export.format].added_to:
            raise InvalidRequest(
                f"{param}: {export.format} is written of language models, {description.architecture} is none: leave "
                "output.exports out",
                param=param,
            )
        if export.format in seen:
            raise InvalidRequest(
                f"{param}: {export.format!r} is named twice: give all its types in one place", param=param
            )
        seen.add(export.format)
        exporter, types = ADDED[export.format], export.types
        wrong = [each for each in types if each not in exporter.types]
        if wrong or len(set(types)) < len(types):
            mistake = f"{wrong[0]} is no type of {export.format}" if wrong else f"{', '.join(types)} has one twice"
            raise InvalidRequest(
                f"{param}.types: {mistake}: use some of {', '.join(exporter.types)}", param=f"{param}.types"
            )
        losses = losses_of(description, request)
        exporter.check_types(description.language_model, types, losses, f"{param}.types")
