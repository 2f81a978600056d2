"""The same code on an NVIDIA GPU: the same masks as on the CPU, up to what another summation order moves."""

from pathlib import Path

import pytest
import torch

from core.models.folder import open_model
from core.pruning.plan import make_plan
from core.pruning.sweep import Sweep
from core.pruning.walk import PruneResult
from tests.engine.sweeping import tensors_of
from tests.engine.tiny import CONFIGS, make_model, make_tokens

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: none here")]


def prune(folder: Path, work: Path, device: str, method: str, pattern: str) -> PruneResult:
    opened = open_model(folder)
    plan = make_plan(
        opened, method=method, pattern=pattern, sparsity=0.5, parameters={"forward_dtype": "float32"},
        device=torch.device(device),
    )  # fmt: skip
    work.mkdir()
    return Sweep(
        opened, plan, calibration=make_tokens(), evaluations={"text": make_tokens(seed=9)}, work=work
    ).run()  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("method", ["random", "magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_cuda_prunes_as_the_cpu_does(name: str, method: str, pattern: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name)
    cpu, cuda = (prune(folder, tmp_path / device, device, method, pattern) for device in ("cpu", "cuda"))
    assert cuda.perplexity["text"].dense == pytest.approx(cpu.perplexity["text"].dense, rel=1e-4)
    assert cuda.perplexity["text"].pruned == pytest.approx(cpu.perplexity["text"].pruned, rel=0.05)
    ours, theirs = tensors_of(cuda), tensors_of(cpu)
    for row in cuda.layers:
        key = f"{row.name}.weight"
        assert ((ours[key] == 0) == (theirs[key] == 0)).float().mean() > 0.95
