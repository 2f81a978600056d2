"""Run an ONNX file with onnxruntime alone and compare its logits with the expected ones.

    python onnx_program.py MODEL EXPECTED [THREADS]

EXPECTED is a safetensors file of `images` [images, channels, height, width] and `logits` [images, classes], both
float32. The program prints as JSON the largest absolute difference over all images, in batches of each of BATCHES. It
is complete in itself: it loads neither PyTorch nor any module of this project, and checks that.
"""

import json
import platform
import sys
from typing import Any

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

BATCHES = (1, 32)
_ELSEWHERE = {"torch", "transformers", "timm", "core", "api", "worker", "secateur"}


def logits(session: Any, images_NCHW: Any, size: int) -> Any:
    """Compute logits [images, classes] in batches of a size."""
    starts = range(0, len(images_NCHW), size)
    return np.concatenate(
        [session.run(["logits"], {"pixel_values": images_NCHW[start : start + size]})[0] for start in starts]
    )


def main(model: str, expected: str, threads: str = "1") -> dict[str, Any]:
    """Run the file on the expected images and return the largest difference, batches and versions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = load_file(expected)
    differences = []
    for size in BATCHES:
        computed_NK = logits(session, wanted["images"], size)
        if computed_NK.shape != wanted["logits"].shape:
            sys.exit(f"logits have shape {computed_NK.shape}, {wanted['logits'].shape} was expected")
        differences.append(float(np.abs(computed_NK - wanted["logits"]).max()))
    loaded = _ELSEWHERE & {name.partition(".")[0] for name in sys.modules}
    if loaded:
        sys.exit(f"{', '.join(sorted(loaded))} was loaded: the file did not run on its own")
    return {
        "maximum_difference": float(np.max(differences)),
        "batches": BATCHES,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
