"""Graphs in OpenVINO, which keep their keys and values themselves."""

from pathlib import Path
from typing import TYPE_CHECKING

from secateur.engines.graph import GraphEngine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _OpenVinoGraph:
    def __init__(self, file: Path) -> None:
        import openvino

        # Otherwise processors that have bfloat16 compute in it, and what meets weights in int8 is rounded.
        exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        model = openvino.Core().compile_model(str(file), "CPU", exact)
        self._inputs = {name for each in model.inputs for name in each.get_names()}
        self._request = model.create_infer_request()

    def reset(self) -> None:
        self._request.reset_state()

    def read(self, ids: list[int], position: int) -> "NDArray[np.float32]":
        import numpy as np

        end = position + len(ids)
        tokens = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(position, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        result = self._request.infer({name: value for name, value in tokens.items() if name in self._inputs})
        logits_V: NDArray[np.float32] = result[0][0, -1]
        return logits_V


def open_file(file: Path) -> GraphEngine:
    return GraphEngine(_OpenVinoGraph(file), file.parent)
