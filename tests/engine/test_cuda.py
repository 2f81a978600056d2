"""The same code on an NVIDIA GPU: the same masks as on the CPU, up to what another summation order moves."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from core.engine.models.accelerator import backend_of, default_device
from core.engine.models.folder import open_model
from core.engine.pruning.results import PruneResult
from core.engine.recovery.language import recover
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import Teacher
from core.pipeline.plans import walk_for
from tests.engine.crossing import crossed
from tests.engine.recovering import linears_of, make_pruned
from tests.engine.sweeping import request_for, tensors_of
from tests.engine.tiny import UNLIKE, make_model, make_tokens
from tests.families import reloaded

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: none here")]


def prune(folder: Path, work: Path, device: str, method: str, pattern: str) -> PruneResult:
    opened = open_model(folder)
    request = request_for(opened, method, 0.5, pattern, {"forward_dtype": "float32"})
    work.mkdir()
    return walk_for(
        opened, request, device=torch.device(device), calibration=make_tokens(),
        evaluations={"text": make_tokens(seed=9)}, work=work
    ).run()  # fmt: skip


@crossed("name, way", UNLIKE, reloaded("weights"))
def test_cuda_prunes_as_the_cpu_does(name: str, way: tuple[str, str], tmp_path: Path) -> None:
    folder, (method, pattern) = make_model(tmp_path / "model", name), way
    cpu, cuda = (prune(folder, tmp_path / device, device, method, pattern) for device in ("cpu", "cuda"))
    assert cuda.perplexity["text"].dense == pytest.approx(cpu.perplexity["text"].dense, rel=1e-4)
    assert cuda.perplexity["text"].pruned == pytest.approx(cpu.perplexity["text"].pruned, rel=0.05)
    ours, theirs = tensors_of(cuda), tensors_of(cpu)
    for row in cuda.layers:
        key = f"{row.name}.weight"
        assert ((ours[key] == 0) == (theirs[key] == 0)).float().mean() > 0.95


@pytest.mark.parametrize(
    ("method", "dtype"), [("finetune", torch.float32), ("lora", torch.bfloat16), ("distill", torch.float16)]
)
def test_cuda_trains_and_keeps_every_zero(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # one process, one device and arithmetic; here several
    source, dense = make_pruned(tmp_path / "pruned", dtype=dtype), make_model(tmp_path / "dense", dtype=dtype)
    asked = Recovery.model_validate({"method": method, "steps": 40, "batch_size": 4, "learning_rate": 1e-2})
    recovered = recover(
        open_model(source), asked, make_tokens(4), linears=linears_of(source), work=tmp_path / "work",
        teacher=Teacher(open_model(dense), "dense") if method == "distill" else None, device=torch.device("cuda"),
    )  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    assert sum(recovered.losses[-4:]) < 0.9 * sum(recovered.losses[:4])
    assert all(after >= before > 0 for before, after in recovered.zeros.values())


def test_memory_is_that_of_the_device_that_is_named() -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)  # with two of them, not the current one
    backend = backend_of(device)
    assert 0 < backend.free_bytes() <= torch.cuda.get_device_properties(device).total_memory
    torch.cuda.reset_peak_memory_stats(device)
    before = backend.peak_bytes()
    assert before is not None
    ones = torch.ones(2**24, dtype=torch.uint8, device=device)
    backend.synchronise()
    assert backend.peak_bytes() == before + ones.nbytes
    del ones
    assert backend.prefers_bfloat16() == (torch.cuda.get_device_properties(device).major >= 8)
    assert default_device().type == device.type
