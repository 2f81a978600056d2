"""Latency of a dense and a pruned classifier, measured in turn in one process, in PyTorch and in onnxruntime."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

from core.engine.checkpoints.files import ONNX_FILE
from core.engine.evaluation.forward_memory import TIMED_AT_ONCE
from core.engine.evaluation.timing import NO_SPEED_UP, in_turn, spread, timed
from core.engine.exporters.onnx.graph import INPUT, OUTPUT, export_onnx
from core.engine.models.accelerator import backend_of
from core.engine.models.classifier import ClassifierFolder, load_classifier
from secateur_wire.errors import OutOfMemory
from secateur_wire.metrics import latency_noise

_ROUNDS = 5
_ENOUGH_MS = 100.0
_MOST_REPEATS = 20
"""Most repeats within a round. A model runs again until it has taken _ENOUGH_MS, for the clock's precision."""
_CPU = torch.device("cpu")
_COPIES = 3
"""Copies of each model in memory: PyTorch's, onnxruntime's, and one during export."""


def measure_classifier_latency(
    dense: ClassifierFolder,
    pruned: ClassifierFolder,
    *,
    image_shape: tuple[int, int, int],
    device: torch.device,
    batches: Sequence[int] = TIMED_AT_ONCE,
) -> dict[str, Any]:
    """Measure dense and pruned in turn and return `latency` and `notes`; images are [channels, height, width].

    For each engine and batch size, `rows` has the medians over rounds in milliseconds, `dense_ms` and `pruned_ms`; the
    `spread`, which is the slowest round over the fastest, minus 1; and the `noise`, the relative difference below which
    two times do not count as different. `dense_spread` is the dense model's alone. PyTorch's figures with the first
    batch size are also at the top level, next to `rows`. onnxruntime runs on the CPU. Raises OutOfMemory where the two
    models do not both fit.
    """
    parameters = dense.description.parameters + pruned.description.parameters
    needed = int(1.2 * _COPIES * 4 * parameters)
    free = backend_of(device).free_bytes()
    if needed > free:
        raise OutOfMemory(
            f"the dense and the pruned model together need about {needed} bytes, but {free} are free on {device.type}"
        )
    models: dict[str, nn.Module] = {"dense": load_classifier(dense, device), "pruned": load_classifier(pruned, device)}
    with TemporaryDirectory() as scratch:
        sessions = {
            name: _session(_onnx_file(folder, models[name], image_shape, Path(scratch) / f"{name}.onnx"))
            for name, folder in {"dense": dense, "pruned": pruned}.items()
        }
        rows = []
        for batch in batches:
            images_BCHW = torch.randn((batch, *image_shape), generator=torch.Generator().manual_seed(0))
            on_device_BCHW = images_BCHW.to(device)
            in_torch = {name: partial(_run_torch, model, on_device_BCHW) for name, model in models.items()}
            in_onnx = {name: partial(_run_onnx, session, images_BCHW) for name, session in sessions.items()}
            rows.append({"engine": "pytorch", "device": device.type, "batch": batch} | _against(in_torch, device))
            rows.append({"engine": "onnxruntime", "device": "cpu", "batch": batch} | _against(in_onnx, _CPU))
    latency = {**rows[0], "rounds": _ROUNDS, "image_shape": list(image_shape), "rows": rows}
    is_smaller = pruned.description.parameters < dense.description.parameters
    return {"latency": latency, "notes": [*([] if is_smaller else [NO_SPEED_UP]), *_measured(latency)]}


def _measured(latency: dict[str, Any]) -> list[str]:
    return [
        f"Measured in {row['engine']}, the pruned model took {row['pruned_ms'] / row['dense_ms']:.2f} × the dense "
        f"one's time for {row['batch']} image{'s' if row['batch'] > 1 else ''} at once."
        for row in latency["rows"]
        if abs(row["pruned_ms"] / row["dense_ms"] - 1) > row["noise"]
    ]


def _against(calls: Mapping[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    calls["dense"]()
    _, first = timed(calls["dense"], device)
    repeats = int(min(max(_ENOUGH_MS / first, 1), _MOST_REPEATS))
    times = in_turn({name: partial(_median_ms, call, device, repeats) for name, call in calls.items()}, _ROUNDS)
    spreads = {name: spread(each) for name, each in times.items()}
    return {
        "dense_ms": statistics.median(times["dense"]),
        "pruned_ms": statistics.median(times["pruned"]),
        "spread": max(spreads.values()),
        "dense_spread": spreads["dense"],
        "noise": latency_noise(max(spreads.values())),
    }


def _median_ms(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    return statistics.median(timed(call, device)[1] for _ in range(repeats))


@torch.inference_mode()
def _run_torch(model: nn.Module, images_BCHW: Tensor) -> object:
    return model(pixel_values=images_BCHW)


def _run_onnx(session: onnxruntime.InferenceSession, images_BCHW: Tensor) -> object:
    return session.run([OUTPUT], {INPUT: images_BCHW.numpy()})


def _session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _onnx_file(folder: ClassifierFolder, model: nn.Module, image_shape: tuple[int, int, int], scratch: Path) -> Path:
    """Return the artifact's own ONNX file, or export a source model to `scratch`."""
    if not (folder.path / ONNX_FILE).is_file():
        export_onnx(model, image_shape, scratch)
        return scratch
    return folder.path / ONNX_FILE
