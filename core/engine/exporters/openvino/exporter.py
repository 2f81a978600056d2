"""Exporter of OpenVINO files: a graph (`.xml`) and its weights (`.bin`)."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from transformers import PreTrainedModel

from core.engine.exporters.engine import RunningEngine
from core.engine.exporters.graph_files import GraphFiles
from core.engine.exporters.graph_trace import decoder_inputs
from core.engine.exporters.openvino.info import INFO

_TELEMETRY: Final = "openvino_telemetry"
"""Package through which OpenVINO and NNCF report their use over the network; they go on without it."""


class _OpenVino(RunningEngine):
    name = "OpenVINO"
    module = "core.engine.exporters.openvino.runtime"


class OpenVinoFiles(GraphFiles):
    info = INFO
    engine = _OpenVino

    def weights_of(self, file: Path) -> Path:
        return file.with_suffix(".bin")

    def write(self, model: PreTrainedModel, files: Mapping[str, Path]) -> None:
        sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type]  # makes its import fail
        import nncf
        import openvino
        from transformers.exporters.configs import OpenVINOConfig
        from transformers.exporters.exporter_openvino import OpenVINOExporter

        inputs, varying = decoder_inputs(model)
        config = OpenVINOConfig(dynamic=True, dynamic_shapes=varying)
        program = OpenVINOExporter().export(model, inputs, config).program
        for kind, file in files.items():
            stored = program
            if kind == "INT8":
                stored = nncf.compress_weights(program.clone(), mode=nncf.CompressWeightsMode.INT8_ASYM)
            openvino.save_model(stored, file, compress_to_fp16=kind == "F16")
