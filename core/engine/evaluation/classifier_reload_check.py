"""Reload check of a classifier: its folder and its ONNX file must give the expected logits.

The folder is opened in a fresh process; the ONNX file runs in another one that loads neither PyTorch nor this project.
All computation is in float32, whatever dtype the weights are stored in; they were rounded to that dtype before.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from core.counting import working
from core.engine.architectures.architecture import REFERENCE_TYPE
from core.engine.checkpoints.files import ONNX_FILE
from core.engine.evaluation.forward_memory import CHECKED_AT_ONCE
from core.engine.evaluation.reload_check import largest_logit
from core.engine.models.classifier import COUNTERS, ClassifierFolder, load_classifier, model_class, open_classifier
from core.engine.models.loading import own_implementations
from core.engine.models.tensors import load_tensors, write_tensors
from secateur_wire.errors import ReloadCheckFailed

_TOLERANCE = 1e-4
"""Largest allowed difference, relative to the largest expected logit: other kernels sum in another order."""
_PROGRAM = Path(__file__).with_name("onnx_program.py")
_LIBRARIES = ("numpy", "onnxruntime", "safetensors")


def write_expected(model: nn.Module, images_NCHW: Tensor, file: Path) -> None:
    """Save images [images, channels, height, width] and the logits [images, classes] an artifact must give for them."""
    device = next(model.parameters()).device
    write_tensors(file, {"images": images_NCHW.float(), "logits": _logits(model, images_NCHW.float(), device)})


def classifier_reload_check(artifact: Path, expected: Path, *, device: torch.device) -> dict[str, Any]:
    """Compare the logits of a folder and of the ONNX file in it with the logits that `write_expected` saved.

    The folder is opened as jobs open it and, where nothing was removed from the network, also by `from_pretrained`. The
    largest of these differences is `maximum_difference`; the ONNX file's is under `onnx`. `from_pretrained` is True if
    that call opens the folder without this project. Raises ReloadCheckFailed naming the difference.
    """
    wanted = load_tensors(expected)
    images_NCHW, logits_NK = wanted["images"], wanted["logits"]
    tolerance = _TOLERANCE * largest_logit(logits_NK)
    folder = open_classifier(artifact)
    difference = _difference(load_classifier(folder, device), images_NCHW, logits_NK, tolerance, device, "reloaded")
    if not folder.description.reshaped:
        plain = _from_pretrained(folder, device)
        difference = max(difference, _difference(plain, images_NCHW, logits_NK, tolerance, device, "from_pretrained's"))
    return {
        "maximum_difference": difference,
        "tolerance": tolerance,
        "images": len(images_NCHW),
        "image_shape": list(images_NCHW.shape[1:]),
        "dtype": folder.description.dtype,
        "from_pretrained": not folder.description.reshaped and folder.family.model_type != REFERENCE_TYPE,
        "onnx": _run_onnx(artifact / ONNX_FILE, expected, tolerance),
    }


def _difference(
    model: nn.Module, images_NCHW: Tensor, wanted_NK: Tensor, tolerance: float, device: torch.device, name: str
) -> float:
    logits_NK = _logits(model, images_NCHW, device)
    if logits_NK.shape != wanted_NK.shape:
        raise ReloadCheckFailed(
            f"the {name} model's logits have shape {list(logits_NK.shape)}, not {list(wanted_NK.shape)}"
        )
    difference = float((logits_NK - wanted_NK).abs().max())
    if not difference <= tolerance:
        raise ReloadCheckFailed(
            f"the outputs (logits) of the {name} model differ by {difference:g}; at most {tolerance:g} is allowed"
        )
    return difference


def _from_pretrained(folder: ClassifierFolder, device: torch.device) -> nn.Module:
    opened: Any = AutoModelForImageClassification.from_pretrained(
        folder.path,
        local_files_only=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
        **own_implementations(model_class(folder.family)),
    )
    model: nn.Module = opened[0]
    mismatches = {
        name: sorted(key for key in map(str, keys) if not key.endswith(COUNTERS)) for name, keys in opened[1].items()
    }
    if any(mismatches.values()):
        raise ReloadCheckFailed(f"from_pretrained does not accept the artifact as it is: {str(mismatches)[:500]}")
    return model.eval().to(device)


@torch.inference_mode()
def _logits(model: nn.Module, images_NCHW: Tensor, device: torch.device) -> Tensor:
    """Return logits [images, classes], float32 on the CPU."""
    with _full_precision():
        return torch.cat(
            [model(pixel_values=batch.to(device)).logits.float().cpu() for batch in images_NCHW.split(CHECKED_AT_ONCE)]
        )


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Disable TensorFloat-32 in CUDA convolutions: its 10 bits of mantissa are too few for the comparison."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def _run_onnx(file: Path, expected: Path, tolerance: float) -> dict[str, Any]:
    """Run the stand-alone program in a process with three libraries and nothing else; return its figures.

    Raises ReloadCheckFailed where the program fails or the logits differ.
    """
    with working("running the ONNX file in a process of its own"):
        answer = subprocess.run(
            [sys.executable, "-P", "-s", str(_PROGRAM), str(file), str(expected), str(torch.get_num_threads())],
            env={"PYTHONPATH": os.pathsep.join(dict.fromkeys(_folder_of(name) for name in _LIBRARIES))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise ReloadCheckFailed(f"{file.name} does not run in onnxruntime: {reason[:500]}")
    figures: dict[str, Any] = json.loads(answer.stdout)
    if not figures["maximum_difference"] <= tolerance:
        raise ReloadCheckFailed(
            f"the outputs (logits) of {file.name} differ by {figures['maximum_difference']:g}; at most {tolerance:g} "
            "is allowed"
        )
    return figures


def _folder_of(library: str) -> str:
    """Return the folder in which Python finds a library."""
    spec = importlib.util.find_spec(library)
    assert spec is not None and spec.origin is not None, f"{library} is not installed"
    return str(Path(spec.origin).parent.parent)
