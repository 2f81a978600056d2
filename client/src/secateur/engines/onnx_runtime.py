"""Graphs in ONNX Runtime: keys and values are inputs and outputs."""

from pathlib import Path
from typing import TYPE_CHECKING

from secateur.engines.graph import GraphEngine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PAST, _PRESENT = "past_key_values.", "present."


class _OnnxGraph:
    def __init__(self, file: Path) -> None:
        import numpy as np
        import onnxruntime

        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._empty = {
            each.name: np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32)
            for each in self._session.get_inputs()
            if each.name.startswith(_PAST)
        }
        self._past = self._empty

    def reset(self) -> None:
        self._past = self._empty

    def read(self, ids: list[int], position: int) -> "NDArray[np.float32]":
        import numpy as np

        end = position + len(ids)
        tokens = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(position, end, dtype=np.int64)[None],
        }
        given = {name: value for name, value in tokens.items() if name in self._inputs}
        logits_BTV, *present = self._session.run(self._outputs, given | self._past)
        names = (_PAST + name.removeprefix(_PRESENT) for name in self._outputs[1:])
        self._past = dict(zip(names, present, strict=True))
        logits_V: NDArray[np.float32] = logits_BTV[0, -1]
        return logits_V


def open_file(file: Path) -> GraphEngine:
    return GraphEngine(_OnnxGraph(file), file.parent)
