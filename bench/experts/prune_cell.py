"""One pruning of the mixture as a job does it, judged by the stock class that opens what was written."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.evaluate_cell import perplexity
from bench.experts.upcycle import watched
from bench.prune_cell import prune_into
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import require_structure
from core.engine.architectures.discovered import architectures
from core.engine.checkpoints.files import CONFIG_FILE, SINGLE_FILE
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors
from core.engine.removals.experts.counts import expert_sparsities
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.stages.discover import discover_and_test


def work(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` by its `method` and `parameters`, and judge it on `held_out` tokens; none without one.

    Of whole experts so many go from each layer as are `removed`; of weights the share `sparsity` becomes zero.
    """
    place, output = Path(spec["model"]), Path(spec["output"])
    held_out_NT = load_tensors(Path(spec["held_out"]))["tokens"]
    if spec["method"] is None:
        return _judged(place, held_out_NT)
    discovered = _discovered(place, Path(spec["architecture"]))
    folder = open_model(place, discovered=discovered)
    description = folder.description
    if removed := spec["removed"]:
        pattern, sparsity = "structured", expert_sparsities(description, require_structure(description))[removed]
    else:
        pattern, sparsity = "unstructured", spec["sparsity"]
    request = resolve_request(
        description, UnresolvedRequest(spec["method"], pattern, sparsity, spec["parameters"], is_calibrated=True)
    )
    calibration = load_tensors(Path(spec["tokens"]))["tokens"] if spec["method"] != "magnitude" else None
    pruned = prune_into(output, folder, request, calibration, discovered=discovered)
    judged, result = _judged(output, held_out_NT), pruned.result
    shutil.rmtree(output)
    rows = [each for each in result.sections.get("experts", ()) if each.routing is not None]
    return judged | {
        "prune_seconds": pruned.processor_seconds,
        "errors": [(row.routing.error, row.routing.refitted) for row in rows if row.routing is not None],
        "notes": result.notes,
    }


def _discovered(place: Path, kept: Path) -> Architecture:
    """Return what a worker discovers of the mixture, from the file where it is kept once it is known."""
    if not kept.exists():
        config = json.loads((place / CONFIG_FILE).read_bytes())
        kept.write_bytes(architectures.dump_json(discover_and_test(config, read_header(place / SINGLE_FILE))))
    return architectures.validate_json(kept.read_bytes())


@torch.inference_mode()
def _judged(place: Path, tokens_NT: Tensor) -> dict[str, Any]:
    """Return the perplexity, bytes and speed of a folder, and the tokens that reach each expert, by layer.

    Speed is in tokens a second of processor time, which others on the machine take none of.
    """
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16, local_files_only=True).eval()
    with watched(model) as calls:
        begun = time.process_time()
        found = perplexity(model, tokens_NT)
        seconds = time.process_time() - begun
        experts = getattr(model.config, "num_experts", None) or model.config.num_local_experts
        reached = [torch.stack([call.reached(experts) for call in each]).sum(0).tolist() for each in calls.values()]
    return {
        "perplexity": found,
        "bytes": sum(file.stat().st_size for file in place.glob("*.safetensors")),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_second": tokens_NT.numel() / seconds,
        "reached": reached,
    }
