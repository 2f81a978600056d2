"""ONNX Runtime in its own process: `python -m core.engine.exporters.onnx.runtime`."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from core.engine.exporters.engine_process import run_process
from core.engine.exporters.graph_engine import GraphLibrary, GraphSession
from core.engine.exporters.onnx.names import PAST, PRESENT


class _Session(GraphSession):
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._outputs = [each.name for each in session.get_outputs()]
        self._inputs = {each.name for each in session.get_inputs()}
        self._empty = {
            each.name: np.zeros([1, each.shape[1], 0, each.shape[3]], np.float32)
            for each in session.get_inputs()
            if each.name.startswith(PAST)
        }
        self._past = self._empty
        self.vocabulary = int(session.get_outputs()[0].shape[-1])

    def reset(self) -> None:
        self._past = {name: np.repeat(each, self.batch, axis=0) for name, each in self._empty.items()}

    def read(self, ids: list[int], position: int) -> NDArray[np.float32]:
        end = position + len(ids)
        tokens = {
            "input_ids": np.array([ids] * self.batch, np.int64),
            "attention_mask": np.ones((self.batch, end), np.int64),
            "position_ids": np.tile(np.arange(position, end, dtype=np.int64), (self.batch, 1)),
        }
        given = {name: value for name, value in tokens.items() if name in self._inputs}
        logits_BTV, *present = self._session.run(self._outputs, given | self._past)
        self._past = {
            PAST + name.removeprefix(PRESENT): value for name, value in zip(self._outputs[1:], present, strict=True)
        }
        logits_TV: NDArray[np.float32] = logits_BTV[0]
        return logits_TV


class _OnnxRuntime(GraphLibrary):
    name = "ONNX Runtime"

    def session(self, file: Path, threads: int, *, is_exact: bool) -> GraphSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        return _Session(onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))


if __name__ == "__main__":
    run_process(_OnnxRuntime)
