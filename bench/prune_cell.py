"""One pruning with Secateur's engine, as a runner does it but without evaluation: load, prune, save."""

import shutil
import time
from pathlib import Path
from typing import Any

import torch

from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors
from core.methods.registry import get_method
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request


def prune(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` into its `output`, in fresh folders; each part timed in seconds."""
    output = Path(spec["output"])
    work = output.with_name(f"{output.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    begun = time.perf_counter()
    folder = open_model(Path(spec["model"]))
    request = resolve_request(
        folder.description, UnresolvedRequest(spec["method"], spec["pattern"], spec["sparsity"], spec["parameters"])
    )
    needs = get_method(request.method).needs
    calibration = load_tensors(Path(spec["tokens"]))["tokens"] if needs.calibration else None
    sweep = walk_for(folder, request, device=torch.device("cpu"), calibration=calibration, evaluations={}, work=work)
    loaded = time.perf_counter()
    pruned = sweep.run()
    done = time.perf_counter()
    write_checkpoint(pruned.files, pruned.unchanged, folder.path, output)
    saved = time.perf_counter()
    shutil.rmtree(work)
    return {
        "load_seconds": loaded - begun,
        "prune_seconds": done - loaded,
        "save_seconds": saved - done,
        "forward_dtype": str(sweep.plan.forward_dtype).removeprefix("torch."),
    }
