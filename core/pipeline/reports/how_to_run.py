"""Commands that run a job's artifact, for each runtime that takes it: those alone that the tests run too."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from core.engine.checkpoints.files import ONNX_FILE
from core.engine.exporters.registry import ADDED
from core.pipeline.reports.classifier_card import TASK
from core.pipeline.reports.report import Report, Verification
from secateur_wire.metrics import Metrics

FOLDER: Final = "pruned"
"""Folder that the commands take the artifact to be in, below where they are run."""
_PROMPT: Final = "The capital of France is"


@dataclass(frozen=True)
class WayToRun:
    """Commands of a shell that run the artifact in one runtime, which needs these `packages` of Python's."""

    runtime: str
    about: str
    packages: tuple[str, ...]
    commands: str


def ways_to_run(report: Report, metrics: Metrics, files: Collection[str]) -> list[WayToRun]:
    """Return the ways to run an artifact of these files, in the folder `FOLDER`; none where there is no model."""
    if "config.json" not in files:
        return []
    if report.model is not None and report.model.task == TASK:
        return _of_classifier(report.verification or Verification(), files)
    return [*_of_language_model(report.verification or Verification(), files), *_of_added_files(metrics, files)]


def _of_language_model(verification: Verification, files: Collection[str]) -> list[WayToRun]:
    trust = ", trust_remote_code=True" if verification.trust_remote_code else ""
    about = "Continues a text with the likeliest words"
    if trust:
        about += "; trust_remote_code runs the modelling file of this folder, which layers of different shapes need"
    if not any(file.startswith("tokenizer") for file in files):
        return []  # nothing turns a text into its tokens
    script = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{FOLDER}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{FOLDER}"{trust})\n'
        f'tokens = tokenizer("{_PROMPT}", return_tensors="pt", return_token_type_ids=False)\n'
        "written = model.generate(**tokens, max_new_tokens=24, do_sample=False)\n"
        "print(tokenizer.decode(written[0], skip_special_tokens=True))"
    )
    return [WayToRun("transformers", about, ("transformers", "torch"), _in_python(script))]


def _of_added_files(metrics: Metrics, files: Collection[str]) -> list[WayToRun]:
    ways = []
    for each in metrics.exports:
        example = ADDED[each.format].example if each.format in ADDED else None
        if example is None or each.file not in files:
            continue
        script = example.script.format(file=f"{FOLDER}/{each.file}", prompt=_PROMPT)
        ways.append(WayToRun(f"{example.runtime}, {each.type}", example.about, example.packages, _in_python(script)))
    return ways


def _of_classifier(verification: Verification, files: Collection[str]) -> list[WayToRun]:
    shape = ", ".join(map(str, verification.image_shape))
    if not shape:
        return []
    ways = []
    if verification.from_pretrained:
        script = (
            "import torch\nfrom transformers import AutoModelForImageClassification\n\n"
            f'model = AutoModelForImageClassification.from_pretrained("{FOLDER}")\n'
            f"images = torch.zeros(1, {shape}, dtype=model.dtype)  # any number, normalised as the model was trained\n"
            "print(model(pixel_values=images).logits.argmax(dim=-1))"
        )
        ways.append(
            WayToRun("transformers", "Prints the class of an image", ("transformers", "torch"), _in_python(script))
        )
    if ONNX_FILE in files:
        script = (
            "import numpy\nimport onnxruntime\n\n"
            f'session = onnxruntime.InferenceSession("{FOLDER}/{ONNX_FILE}")\n'
            f"images = numpy.zeros((1, {shape}), numpy.float32)  # any number, normalised as the model was trained\n"
            '(logits,) = session.run(["logits"], {"pixel_values": images})\n'
            "print(logits.argmax(axis=-1))"
        )
        about = "Prints the class of an image, without PyTorch"
        ways.append(WayToRun("ONNX Runtime", about, ("onnxruntime", "numpy"), _in_python(script)))
    return ways


def _in_python(script: str) -> str:
    return f"python - <<'END'\n{script}\nEND"
