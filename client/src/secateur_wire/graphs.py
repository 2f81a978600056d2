"""Open graphs of language models: one implementation for the worker that checks a file and the client that runs it.

An engine's package is loaded only when a graph is opened.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAST: Final = "past_key_values."
PRESENT: Final = "present."
"""Prefixes of the inputs and outputs of an ONNX graph that are keys and values; the same name follows."""


class Graph(Protocol):
    """Open graph of a model with `vocabulary` tokens, and the keys and values of a sequence."""

    vocabulary: int

    def reset(self) -> None:
        """Forget the tokens that were read."""

    def read(self, ids: list[int], position: int) -> "NDArray[np.float32]":
        """Read tokens, the first at a position, after those that were read before; return logits [time, vocabulary]."""


class OnnxGraph:
    """Graph in ONNX Runtime, whose keys and values are inputs and outputs; `threads` None: as it chooses."""

    def __init__(self, file: Path, threads: int | None = None) -> None:
        import numpy as np
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._empty = {
            each.name: np.zeros([1, each.shape[1], 0, each.shape[3]], np.float32)
            for each in self._session.get_inputs()
            if each.name.startswith(PAST)
        }
        self._past = self._empty
        self.vocabulary = int(self._session.get_outputs()[0].shape[-1])

    def reset(self) -> None:
        self._past = self._empty

    def read(self, ids: list[int], position: int) -> "NDArray[np.float32]":
        given = {name: value for name, value in _tokens(ids, position).items() if name in self._inputs}
        logits_BTV, *present = self._session.run(self._outputs, given | self._past)
        names = (PAST + name.removeprefix(PRESENT) for name in self._outputs[1:])
        self._past = dict(zip(names, present, strict=True))
        logits_TV: NDArray[np.float32] = logits_BTV[0]
        return logits_TV


class OpenVinoGraph:
    """Graph in OpenVINO, which keeps its keys and values itself.

    `threads` None: as OpenVINO chooses. Unless `is_exact`, it computes in bfloat16 where the processor can, and rounds
    what weights in int8 are multiplied with.
    """

    def __init__(self, file: Path, threads: int | None = None, *, is_exact: bool = True) -> None:
        import openvino

        settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if is_exact:
            settings |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        model = openvino.Core().compile_model(str(file), "CPU", settings)
        self._inputs = {name for each in model.inputs for name in each.get_names()}
        self._request = model.create_infer_request()
        self.vocabulary = int(model.outputs[0].get_partial_shape()[-1].get_length())

    def reset(self) -> None:
        self._request.reset_state()

    def read(self, ids: list[int], position: int) -> "NDArray[np.float32]":
        given = {name: value for name, value in _tokens(ids, position).items() if name in self._inputs}
        logits_TV: NDArray[np.float32] = self._request.infer(given)[0][0]
        return logits_TV


def _tokens(ids: list[int], position: int) -> "dict[str, NDArray[Any]]":
    """Return the inputs that say which tokens a sequence goes on with; a graph may lack some."""
    import numpy as np

    end = position + len(ids)
    return {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, end), np.int64),
        "position_ids": np.arange(position, end, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
