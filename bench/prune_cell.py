"""Prunings with Secateur's engine, as a runner does them but without evaluation: prune, and save."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.accelerator import backend_of
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.tensors import load_tensors
from core.engine.pruning.plan import LayerwisePlan
from core.engine.pruning.zeros_pass import LayerwisePass
from core.engine.removals.runs import LanguagePass
from core.methods.registry import get_method
from core.pipeline.plans import make_plan, walk_for
from core.pipeline.recipes.request import ResolvedRequest, UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request


@dataclass(frozen=True)
class Pruned:
    """A pass that was run, and its seconds."""

    walk: LanguagePass[Any]
    seconds: float


def prune_into(
    output: Path,
    folder: ModelFolder,
    request: ResolvedRequest,
    calibration: Tensor | None,
    *,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    layerwise: type[LayerwisePass] | None = None,
) -> Pruned:
    """Carry a request out and write the checkpoint to `output`, whole or not at all.

    `layerwise` is a kind of pass to be used in place of the request's own.
    """
    work = output.with_name(f"{output.name}.work")
    for left in (work, output):
        shutil.rmtree(left, ignore_errors=True)
    work.mkdir(parents=True)
    setting: dict[str, Any] = {"calibration": calibration, "evaluations": {}, "work": work}
    if layerwise is None:
        walk = walk_for(folder, request, device=device, **setting)
    else:
        plan = make_plan(folder, request, device=device)
        assert isinstance(plan, LayerwisePlan)
        walk = layerwise(folder, plan, **setting)
    backend = backend_of(device)
    backend.synchronise()
    begun = time.perf_counter()
    result = walk.run()
    backend.synchronise()
    seconds = time.perf_counter() - begun
    artifact = work / "artifact"
    write_checkpoint(result.files, result.unchanged, folder.path, artifact, config=result.config)
    artifact.rename(output)
    shutil.rmtree(work)
    return Pruned(walk, seconds)


def prune(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` into its `output`; the seconds without loading and saving."""
    folder = open_model(Path(spec["model"]))
    request = resolve_request(
        folder.description, UnresolvedRequest(spec["method"], spec["pattern"], spec["sparsity"], spec["parameters"])
    )
    calibrates = get_method(spec["method"]).needs.calibration
    calibration = load_tensors(Path(spec["tokens"]))["tokens"] if calibrates else None
    pruned = prune_into(Path(spec["output"]), folder, request, calibration)
    dtype = str(pruned.walk.plan.forward_dtype).removeprefix("torch.")
    return {"prune_seconds": pruned.seconds, "forward_dtype": dtype}
