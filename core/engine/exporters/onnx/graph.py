"""Export of a classifier as one ONNX file, which any ONNX runtime executes without PyTorch."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import OnnxExporterError

from core.counting import working
from secateur_wire.errors import UnsupportedArchitecture

INPUT, OUTPUT = "pixel_values", "logits"
_EXAMPLES = 2
"""Number of images in the trace: with one image, the batch size 1 would become part of the graph."""


class _Logits(nn.Module):
    """A classifier that returns its logits alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.classifier(pixel_values=pixel_values).logits  # type: ignore[no-any-return]


def export_onnx(model: nn.Module, image_shape: tuple[int, int, int], file: Path) -> int:
    """Write a classifier, in float32 and evaluation mode, as an ONNX file; return its bytes, weights included.

    `image_shape` is [channels, height, width]. The graph has one input, `pixel_values` [batch, channels, height,
    width], and one output, `logits` [batch, classes]; batch may be any number. The weights are inside the file; only
    where they exceed 1.5 GB, too much for the format, they are in `FILE.data` next to it.

    Raises UnsupportedArchitecture naming the operator that ONNX has no counterpart for.
    """
    assert not model.training, "a network in training mode is another function"
    device = next(model.parameters()).device
    example_BCHW = torch.zeros((_EXAMPLES, *image_shape), device=device)
    try:
        with warnings.catch_warnings(), working("exporting to ONNX"):
            warnings.simplefilter("ignore")  # deprecations between torch's own parts
            program = torch.onnx.export(
                _Logits(model),
                (example_BCHW,),
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                verbose=False,
            )
    except OnnxExporterError as error:
        raise UnsupportedArchitecture(
            f"the model cannot be exported to ONNX: {_reason(error)}", param="model"
        ) from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # file names and lines of the node's origin
    program.save(file, external_data=False)
    onnx.checker.check_model(str(file), full_check=True)
    return sum(each.stat().st_size for each in (file, file.with_name(f"{file.name}.data")) if each.is_file())


_OPERATOR = re.compile(r"OpOverload\(op='([^']+)'")


def _reason(error: BaseException) -> str:
    """Return the operator that has no counterpart, if that is the cause; else the innermost error's message."""
    causes = list(_causes(error))
    for cause in reversed(causes):
        named = _OPERATOR.search(str(cause))
        if named is not None:
            return f"ONNX has no counterpart of its operator {named[1]}"
    return str(causes[-1]).strip().partition("\n")[0][:300]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
