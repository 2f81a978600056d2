"""Commands that run a job's artifact, for each runtime that can open it; the tests run every command."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from core.engine.architectures.description import CLASSIFICATION
from core.engine.checkpoints.files import ONNX_FILE
from core.engine.exporters.registry import ADDED
from core.pipeline.reports.report import Report, Verification
from secateur_wire.jobs import WayToRun
from secateur_wire.metrics import Metrics
from secateur_wire.shown_commands import python_text, shell

FOLDER: Final = "pruned"
"""Folder of the artifact in the commands, relative to where they run."""
_PROMPT: Final = "The capital of France is"


def ways_to_run(report: Report, metrics: Metrics, files: Collection[str], folder: str = FOLDER) -> list[WayToRun]:
    """Return the ways to run an artifact with these files in a folder; none if there is no model.

    The commands restore packed weights first. They may be restored already: nothing is done then.
    """
    if "config.json" not in files:
        return []
    ways_of_task = _WAYS[(report.model and report.model.task) or "language-model"]
    ways = ways_of_task(report.verification or Verification(), files, folder)
    if metrics.bytes is not None and metrics.bytes.restored_from is not None:
        ways = [
            way.model_copy(update={"commands": f"{shell('secateur', 'unpack', folder)}\n{way.commands}"})
            for way in ways
        ]
    return [*ways, *_of_added_files(metrics, files, folder)]


def _of_language_model(verification: Verification, files: Collection[str], folder: str) -> list[WayToRun]:
    trust = ", trust_remote_code=True" if verification.trust_remote_code else ""
    about = "Continues a text with the likeliest words"
    if trust:
        about += "; trust_remote_code runs the modelling file of this folder, which layers of different shapes need"
    if not any(file.startswith("tokenizer") for file in files):
        return []  # without a tokenizer no text can be turned into tokens
    script = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({python_text(folder)})\n"
        f"model = AutoModelForCausalLM.from_pretrained({python_text(folder)}{trust})\n"
        f'tokens = tokenizer("{_PROMPT}", return_tensors="pt", return_token_type_ids=False)\n'
        "written = model.generate(**tokens, max_new_tokens=24, do_sample=False)\n"
        "print(tokenizer.decode(written[0], skip_special_tokens=True))"
    )
    return [_way("transformers", about, ("transformers", "torch"), script)]


def _of_added_files(metrics: Metrics, files: Collection[str], folder: str) -> list[WayToRun]:
    ways = []
    for each in metrics.exports:
        example = ADDED[each.format].example if each.format in ADDED else None
        if example is None or each.file not in files:
            continue
        script = example.script.format(file=python_text(f"{folder}/{each.file}"), prompt=_PROMPT)
        ways.append(_way(f"{example.runtime}, {each.type}", example.about, example.packages, script))
    return ways


def _of_classifier(verification: Verification, files: Collection[str], folder: str) -> list[WayToRun]:
    shape = ", ".join(map(str, verification.image_shape))
    if not shape:
        return []
    ways = []
    if verification.from_pretrained:
        script = (
            "import torch\nfrom transformers import AutoModelForImageClassification\n\n"
            f"model = AutoModelForImageClassification.from_pretrained({python_text(folder)})\n"
            f"images = torch.zeros(1, {shape}, dtype=model.dtype)  # any number, normalised as the model was trained\n"
            "print(model(pixel_values=images).logits.argmax(dim=-1))"
        )
        ways.append(_way("transformers", "Prints the class of an image", ("transformers", "torch"), script))
    if ONNX_FILE in files:
        script = (
            "import numpy\nimport onnxruntime\n\n"
            f"session = onnxruntime.InferenceSession({python_text(f'{folder}/{ONNX_FILE}')})\n"
            f"images = numpy.zeros((1, {shape}), numpy.float32)  # any number, normalised as the model was trained\n"
            '(logits,) = session.run(["logits"], {"pixel_values": images})\n'
            "print(logits.argmax(axis=-1))"
        )
        about = "Prints the class of an image, without PyTorch"
        ways.append(_way("ONNX Runtime", about, ("onnxruntime", "numpy"), script))
    return ways


_WAYS: Final[Mapping[str, Callable[[Verification, Collection[str], str], list[WayToRun]]]] = {
    "language-model": _of_language_model,
    CLASSIFICATION: _of_classifier,
}
"""Ways to run the model itself, by its task."""


def _way(runtime: str, about: str, packages: Sequence[str], script: str) -> WayToRun:
    return WayToRun(runtime=runtime, about=about, packages=[*packages], commands=f"python - <<'END'\n{script}\nEND")
