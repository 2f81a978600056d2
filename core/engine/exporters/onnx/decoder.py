"""ONNX files of a language model's graph: keys and values are inputs and outputs, weights lie beside the graph."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import onnx
import onnx_ir
from transformers import PreTrainedModel
from transformers.exporters.configs import OnnxConfig
from transformers.exporters.exporter_onnx import OnnxExporter

from core.engine.exporters.engine import RunningEngine
from core.engine.exporters.graph_files import GraphFiles
from core.engine.exporters.graph_trace import decoder_inputs
from core.engine.exporters.onnx.info import INFO
from secateur_wire.graphs import PAST, PRESENT

_TRACED: Final = re.compile(r"(input|output)\.cache\.layers\.([0-9]+)\.(key|value)s")


class _OnnxRuntime(RunningEngine):
    name = "ONNX Runtime"
    module = "core.engine.exporters.onnx.runtime"


class OnnxDecoder(GraphFiles):
    info = INFO
    engine = _OnnxRuntime

    def weights_of(self, file: Path) -> Path:
        return file.with_name(f"{file.name}.data")

    def write(self, model: PreTrainedModel, files: Mapping[str, Path]) -> None:
        inputs, varying = decoder_inputs(model)
        exporter, config = OnnxExporter(), OnnxConfig(dynamic=True, dynamic_shapes=varying)
        program = exporter.export(model, inputs, config).program
        for value in (*program.graph.inputs, *program.graph.outputs):
            value.name = decoder_name(value.name)
        _drop_origins(program)
        for file in files.values():
            onnx_ir.save(program, file, external_data=self.weights_of(file).name)
            onnx.checker.check_model(str(file))


def decoder_name(name: str) -> str:
    """Return the name of an input or output as programs for ONNX Runtime expect it; `name` is that of the trace."""
    traced = _TRACED.fullmatch(name)
    if traced is None:
        return name
    return f"{PAST if traced[1] == 'input' else PRESENT}{traced[2]}.{traced[3]}"


def _drop_origins(program: onnx_ir.Model) -> None:
    """Drop the file names and lines that each node comes from: they are the worker's."""
    program.metadata_props.clear()
    for graph in program.graphs():
        graph.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            node.doc_string = None
            for output in node.outputs:
                output.metadata_props.clear()
        for value in (*graph.inputs, *graph.initializers.values()):
            value.metadata_props.clear()
    for function in program.functions.values():
        function.metadata_props.clear()
        for node in function:
            node.metadata_props.clear()
