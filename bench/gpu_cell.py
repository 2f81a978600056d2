"""The inside of the cells of `python -m bench.gpu`: what runs on the device, each in a process of its own."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.sparse import to_sparse_semi_structured

from bench.prune_cell import prune_into
from core.engine.models.accelerator import backend_of
from core.engine.models.folder import open_model
from core.engine.models.tensors import load_tensors
from core.engine.options.patterns import STRUCTURED
from core.engine.pruning.input_statistics import InputStatistic
from core.engine.pruning.layerwise.language_pass import LayerwisePass
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request

ROOT = Path(__file__).parents[1]
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
    device = torch.device(spec["device"])
    folder = open_model(Path(spec["model"]))
    request = resolve_request(
        folder.description, UnresolvedRequest(spec["method"], spec["pattern"], spec["sparsity"], spec["parameters"])
    )
    tokens = load_tensors(Path(spec["tokens"]))["tokens"]
    layerwise = None if request.pattern == STRUCTURED.text else TimedPass
    pruned = prune_into(Path(spec["output"]), folder, request, tokens, device=device, layerwise=layerwise)
    return {
        "prune_seconds": pruned.seconds,
        "save_seconds": pruned.save_seconds,
        "solve_seconds": pruned.walk.solve_seconds if isinstance(pruned.walk, TimedPass) else None,
        "device_peak_bytes": backend_of(device).peak_bytes(),
        "forward_dtype": str(pruned.walk.plan.forward_dtype).removeprefix("torch."),
        "solve_precision": torch.get_float32_matmul_precision(),
    }


class Outcomes:
    """Plugin of pytest that counts tests by how they ended, and keeps the names of those that failed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
            if report.failed:
                self.failed.append(report.nodeid)


def run_tests(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the tests under the spec's `folders` that are marked for a GPU."""
    outcomes = Outcomes()
    folders = [str(ROOT / folder) for folder in spec["folders"]]
    options = ["--rootdir", str(ROOT), "-q", "-m", "gpu", "-p", "no:cacheprovider", *folders]
    pytest.main(options, plugins=[outcomes])
    return {"counts": dict(outcomes.counts), "failed": outcomes.failed}


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
