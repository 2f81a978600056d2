"""Artifacts in a narrower dtype than their source: what is stored, what was measured, and what the rounding cost."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.engine.models.tensors import load_tensors
from secateur_wire.job_body import StoredDtype
from tests.engine.sweeping import save, sweep
from tests.engine.tiny import make_model, make_tokens

WEIGHTS = "model.safetensors"
WAYS: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "wanda", {"sparsity": 0.5}),
    ("llama-untied", "sparsegpt", {"pattern": "2:4", "parameters": {"include_lm_head": True}}),
    ("gpt2", "magnitude", {"sparsity": 0.4}),
    ("phi3", "wanda", {"sparsity": 0.5, "parameters": {"compensation": {"refit": 1.0}}}),
    ("opt", "depth", {"sparsity": 0.2, "is_calibrated": True}),
    ("qwen2", "frontier", {"sparsity": 0.2, "pattern": "structured"}),
    ("llama", "recover", {}),
]


def pruned(folder: Path, work: Path, method: str, dtype: StoredDtype, **request: Any) -> Any:
    return sweep(
        folder, work, calibration=make_tokens(), evaluations={"text": make_tokens(4, seed=1)}, method=method,
        dtype=dtype, **request,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("family", "method", "request_"), WAYS, ids=[f"{each[0]}-{each[1]}" for each in WAYS])
def test_what_stock_from_pretrained_opens_is_what_was_measured(
    family: str, method: str, request_: dict[str, Any], dtype: StoredDtype, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "model", family)
    result = pruned(folder, tmp_path / "work", method, dtype, **request_)
    artifact = save(result, folder, tmp_path / "artifact")
    narrow = AutoModelForCausalLM.from_pretrained(artifact)
    assert {str(each.dtype) for each in narrow.parameters()} == {f"torch.{dtype}"}
    assert json.loads((artifact / "config.json").read_text())["dtype"] == dtype
    wanted = load_tensors(Path(result.verification))
    model = AutoModelForCausalLM.from_pretrained(artifact, dtype=torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(model(wanted["tokens"]).logits, wanted["logits"], rtol=1e-4, atol=1e-4)
