"""The inside of the cells of `python -m bench.gpu`: what runs on the device, each in a process of its own."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.sparse import to_sparse_semi_structured

from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.accelerator import backend_of
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.layerwise.language_pass import LayerwisePass
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request

ROUNDS = 20
WARM_UP = 5


class TimedPass(LayerwisePass):
    """The pass that counts the seconds in which it prunes, and not forwards: statistics are factorised in these too."""

    solve_seconds = 0.0

    def _prune(self, modules: list[str], stored: list[Tensor], statistic: InputStatistic) -> list[Tensor]:
        backend = backend_of(self.plan.device)
        backend.synchronise()
        begun = time.perf_counter()
        pruned = super()._prune(modules, stored, statistic)
        backend.synchronise()
        self.solve_seconds += time.perf_counter() - begun
        return pruned


def look(spec: dict[str, Any]) -> dict[str, Any]:
    """Use the device once; raises where torch cannot."""
    device = torch.device(spec["device"])
    ones_DD = torch.ones(8, 8, device=device)
    return {"sum": float((ones_DD @ ones_DD).sum()), "bfloat16": backend_of(device).prefers_bfloat16()}


def prune(spec: dict[str, Any]) -> dict[str, Any]:
    """Prune the spec's `model` and write it to `output`; seconds of each part, and the device's peak bytes."""
    device, output = torch.device(spec["device"]), Path(spec["output"])
    work = output.with_name(f"{output.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    folder = open_model(Path(spec["model"]))
    request = resolve_request(
        folder.description, UnresolvedRequest(spec["method"], spec["pattern"], spec["sparsity"], spec["parameters"])
    )
    tokens = load_tensors(Path(spec["tokens"]))["tokens"]
    setting: dict[str, Any] = {"calibration": tokens, "evaluations": {}, "work": work}
    walk = walk_for(folder, request, device=device, **setting)
    if isinstance(walk, LayerwisePass):
        walk = TimedPass(folder, walk.plan, **setting)
    backend = backend_of(device)
    backend.synchronise()
    begun = time.perf_counter()
    pruned = walk.run()
    backend.synchronise()
    done = time.perf_counter()
    write_checkpoint(pruned.files, pruned.unchanged, folder.path, output, config=pruned.config)
    saved = time.perf_counter()
    shutil.rmtree(work)
    return {
        "prune_seconds": done - begun,
        "save_seconds": saved - done,
        "solve_seconds": walk.solve_seconds if isinstance(walk, TimedPass) else None,
        "device_peak_bytes": backend.peak_bytes(),
        "forward_dtype": str(walk.plan.forward_dtype).removeprefix("torch."),
        "solve_precision": torch.get_float32_matmul_precision(),
    }


def semi_structured(spec: dict[str, Any]) -> dict[str, Any]:
    """Time a linear layer of these sizes in bfloat16, dense and with 2:4 zeros in torch's semi-structured form.

    Where torch has no kernel for it on the device, the reason is returned in place of seconds.
    """
    device = torch.device(spec["device"])
    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(spec["outputs"], spec["inputs"], generator=generator, dtype=torch.float32)
    kept_GM = weight_OI.reshape(-1, 4).abs().topk(2, dim=1).indices
    zeros_GM = torch.zeros(weight_OI.numel() // 4, 4).scatter_(1, kept_GM, 1.0)
    sparse_OI = (weight_OI * zeros_GM.reshape(weight_OI.shape)).to(device, torch.bfloat16)
    x_TI = torch.randn(spec["tokens"], spec["inputs"], generator=generator).to(device, torch.bfloat16)
    dense = _median_seconds(lambda: torch.nn.functional.linear(x_TI, sparse_OI), device)
    try:
        packed_OI = to_sparse_semi_structured(sparse_OI)
        difference = (torch.nn.functional.linear(x_TI, packed_OI) - torch.nn.functional.linear(x_TI, sparse_OI)).abs()
        sparse = _median_seconds(lambda: torch.nn.functional.linear(x_TI, packed_OI), device)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return {"dense_seconds": dense, "reason": str(error).partition("\n")[0][:200]}
    return {"dense_seconds": dense, "sparse_seconds": sparse, "difference": float(difference.float().max())}


def _median_seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    """Return the median of some rounds, after a few that warm the device up."""
    backend, seconds = backend_of(device), []
    with torch.inference_mode():
        for _ in range(WARM_UP + ROUNDS):
            backend.synchronise()
            begun = time.perf_counter()
            work()
            backend.synchronise()
            seconds.append(time.perf_counter() - begun)
    return median(seconds[WARM_UP:])
