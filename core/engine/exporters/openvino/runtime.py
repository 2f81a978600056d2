"""OpenVINO in its own process: `python -m core.engine.exporters.openvino.runtime`."""

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from core.engine.exporters.engine_process import run_process
from core.engine.exporters.graph_engine import GraphLibrary, GraphSession


class _Session(GraphSession):
    def __init__(self, model: openvino.CompiledModel) -> None:
        self._request = model.create_infer_request()
        self._inputs = {name for each in model.inputs for name in each.get_names()}
        self.vocabulary = model.outputs[0].get_partial_shape()[-1].get_length()

    def reset(self) -> None:
        self._request.reset_state()

    def read(self, ids: list[int], position: int) -> NDArray[np.float32]:
        end = position + len(ids)
        tokens = {
            "input_ids": np.array([ids] * self.batch, np.int64),
            "attention_mask": np.ones((self.batch, end), np.int64),
            "position_ids": np.tile(np.arange(position, end, dtype=np.int64), (self.batch, 1)),
            "beam_idx": np.arange(self.batch, dtype=np.int32),
        }
        result = self._request.infer({name: value for name, value in tokens.items() if name in self._inputs})
        logits_TV: NDArray[np.float32] = result[0][0]
        return logits_TV


class _OpenVino(GraphLibrary):
    name = "OpenVINO"

    def session(self, file: Path, threads: int, *, is_exact: bool) -> GraphSession:
        settings: dict[str, object] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if is_exact:  # else it computes in bfloat16 where the processor can, and rounds what meets weights in int8
            settings |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        return _Session(openvino.Core().compile_model(str(file), "CPU", settings))


if __name__ == "__main__":
    run_process(_OpenVino)
