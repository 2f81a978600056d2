"""Whole pieces of work on a device, from opening a folder to what is left of it: the same calls on every device."""

import gc
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.exporters.huggingface_classifier import round_to_stored, write_classifier
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.models.folder import open_model
from core.engine.models.micro_batches import run_within_memory
from core.engine.options.patterns import parse_pattern
from core.engine.pruning.network import Network
from core.engine.recovery.language import recover
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import Teacher
from core.engine.removals.weights import prunable_linears, selection_of
from core.methods.engine import build_classifier_method
from core.methods.registry import get_method
from core.pipeline.plans import walk_for
from core.progress import Progress
from tests.engine.classifier_folders import CLASSES, image_shape
from tests.engine.classifying import random_images
from tests.engine.recovering import linears_of, make_pruned
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model, make_tokens
from tests.families import share_of, small_parameters
from tests.simulator.host_work import at_work_on


def model_folder(place: Path, name: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
    """A model of two layers, of which there is one copy on a device at a time."""
    return make_model(place / name, name, dtype=dtype, **{"n_layer" if name == "gpt2" else "num_hidden_layers": 2})


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder but cards, which say what they were measured on."""
    files = [each for each in folder.rglob("*") if each.is_file() and each.suffix != ".md"]
    return {each.relative_to(folder).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def prune_language(
    source: Path, work: Path, device: torch.device, method: str, pattern: str | None = None, *, budget: int = 2**30,
    calibration: Tensor | None = None, evaluation: Tensor | None = None, previous: Sequence[Path] = (),
    progress: Progress | None = None, **parameters: Any,
) -> dict[str, Any]:  # fmt: skip
    """Prune a model, write it, and check what was written; return the files' digests and the figures."""
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = open_model(source)
    request = request_for(folder, method, share_of(pattern), pattern, small_parameters(method, pattern, parameters))
    work.mkdir(parents=True)
    calibration = make_tokens(3, 16) if calibration is None else calibration
    evaluation = make_tokens(2, 16, seed=9) if evaluation is None else evaluation
    artifact = work / "artifact"
    with at_work_on(device):
        walk, result = run_within_memory(
            lambda: walk_for(
                folder, request, device=device, calibration=calibration, evaluations={"text": evaluation}, work=work,
                previous=previous, progress=progress, activation_budget_bytes=budget,
            ),
            lambda walk: walk.run(),
        )  # fmt: skip
        del walk
        gc.collect()  # the check is a process of its own
        write_checkpoint(result.files, result.unchanged, source, artifact, config=result.config)
        checked = reload_check(artifact, result.verification, device=device)
    return {
        "files": digests(artifact), "rows": result.layers, "perplexity": result.perplexity, "reload": checked,
        "micro_batches": result.micro_batches, "notes": result.notes,
    }  # fmt: skip


def recover_language(
    place: Path, device: torch.device, dtype: torch.dtype = torch.float32, *, shape: dict[str, int] | None = None,
    windows: Tensor | None = None, budget: int = 0, previous: Sequence[Path] = (), progress: Progress | None = None,
    **recovery: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train a pruned model for a few steps; return the digests of what is written, and the losses.

    Its folder of work is `work` of the place.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    shape = {"num_hidden_layers": 2} | (shape or {})
    source = make_pruned(place / "pruned", dtype=dtype, **shape)
    dense = make_model(place / "dense", dtype=dtype, **shape)
    given = {"steps": 3, "batch_size": 2, "learning_rate": 1e-2, "checkpoint_every": 2}
    asked = Recovery.model_validate(given | recovery)
    work = place / "work"
    work.mkdir()
    windows = make_tokens(4, 16) if windows is None else windows
    with at_work_on(device):
        recovered = recover(
            open_model(source), asked, windows, linears=linears_of(source), work=work, previous=previous, device=device,
            teacher=Teacher(open_model(dense), "dense") if asked.method == "distill" else None,
            activation_budget_bytes=budget, progress=progress,
        )  # fmt: skip
        write_checkpoint(recovered.files, recovered.unchanged, source, place / "artifact")
    return {"files": digests(place / "artifact"), "losses": recovered.losses, "zeros": recovered.zeros}


def prune_network(
    source: Path,
    name: str,
    place: Path,
    device: torch.device,
    method: str,
    pattern: str | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """Prune a classifier and write it; return the files' digests, notes and figures."""
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = open_classifier(source)
    chosen = get_method(method).variant(pattern).parameters(**small_parameters(method, pattern, parameters))
    pattern = pattern or get_method(method).patterns[0]
    images = random_images(16, image_shape(name), classes=CLASSES)
    torch.manual_seed(0)
    with at_work_on(device):
        model = load_classifier(folder, device)
        network = Network(
            model, prunable_linears(folder.description, selection_of(chosen)), sparsity=0.3, device=device,
            batch_size=8, pattern=parse_pattern(pattern), images=images,
        )  # fmt: skip
        build_classifier_method(method, chosen).prune(network)
        round_to_stored(model, folder)
        write_classifier(model, folder, place / "artifact")
    return {"files": digests(place / "artifact"), "notes": network.notes, "figures": network.figures}
