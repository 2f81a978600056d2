"""Artifacts in a narrower dtype than their source: what is stored, what was measured, and what the rounding cost."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import stored_as
from core.engine.evaluation.reload_check import reload_check
from core.engine.models.casting import cast_figures, folder_as_stored
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.tensors import DTYPES
from core.engine.pruning.results import PruneResult
from core.engine.pruning.streams.measure import measure
from core.progress import Progress
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import StoredDtype
from tests.engine.sweeping import save, sweep
from tests.engine.tiny import make_model, make_tokens

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
TEXT = make_tokens(4, seed=1)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "wanda": ("llama", {"method": "wanda", "sparsity": 0.5}),
    "head": ("llama-untied", {"method": "sparsegpt", "pattern": "2:4", "parameters": {"include_lm_head": True}}),
    "refitted": ("phi3", {"method": "wanda", "sparsity": 0.5, "parameters": {"compensation": {"refit": 1.0}}}),
    "layers": ("opt", {"method": "depth", "sparsity": 0.2, "is_calibrated": True}),
    "widths": ("qwen2", {"method": "frontier", "sparsity": 0.2, "pattern": "structured"}),
    "nothing": ("llama", {"method": "recover"}),
}


def pruned(folder: Path, work: Path, dtype: StoredDtype, way: str, **setting: Any) -> PruneResult:
    return sweep(folder, work, calibration=make_tokens(), evaluations={"text": TEXT}, dtype=dtype, **WAYS[way][1],
                 **setting)  # fmt: skip


@pytest.mark.parametrize(
    ("way", "dtype"), [("head", "float16"), ("refitted", "bfloat16"), ("layers", "bfloat16"), ("widths", "float16")]
)
def test_stock_from_pretrained_opens_what_was_measured(way: str, dtype: StoredDtype, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", WAYS[way][0])
    result = pruned(folder, tmp_path / "work", dtype, way)
    artifact = save(result, folder, tmp_path / "artifact")
    narrow = AutoModelForCausalLM.from_pretrained(artifact)
    assert {each.dtype for each in narrow.parameters()} == {DTYPES[dtype]}
    assert json.loads((artifact / "config.json").read_text())["dtype"] == dtype
    figures = reload_check(artifact, result.verification, device=CPU, dtype=torch.float32)
    assert figures["dtype"] == dtype and figures["maximum_difference"] <= figures["tolerance"]
    assert figures["maximum_difference"] < figures["difference_in_own_dtype"]

    measuring: dict[str, Any] = {"device": CPU, "dtype": torch.float32, "activation_budget_bytes": 2**30}
    again = measure(open_model(artifact), {"text": TEXT}, work=tmp_path / "measuring", **measuring)
    assert again.perplexity["text"] == pytest.approx(result.perplexity["text"].pruned, rel=1e-5)
    rounded = measure(
        folder_as_stored(open_model(folder), dtype), {"text": TEXT}, work=tmp_path / "rounded", **measuring
    )
    assert rounded.perplexity["text"] == pytest.approx(result.perplexity["text"].rounded, rel=1e-5)
    assert result.perplexity["text"].dense != result.perplexity["text"].rounded


def test_rounding_alone_is_what_a_cast_of_the_model_gives(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama")
    result = pruned(folder, tmp_path / "work", "bfloat16", "nothing")
    artifact = save(result, folder, tmp_path / "artifact")
    source = load_file(folder / WEIGHTS)
    stored = load_file(artifact / WEIGHTS)
    assert stored.keys() == source.keys()
    assert all(torch.equal(stored[name], each.to(torch.bfloat16)) for name, each in source.items())
    assert inspect_folder(artifact) == stored_as(inspect_folder(folder), "bfloat16")
    dense_NPV, rounded_NPV = (
        AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32)(TEXT).logits[:, :-1].detach().log_softmax(-1)
        for each in (folder, artifact)
    )
    divergence = (dense_NPV.exp() * (dense_NPV - rounded_NPV)).sum(-1).mean()
    assert result.perplexity["text"].rounded_divergence == pytest.approx(float(divergence), rel=0.02)


def edited(folder: Path, name: str, values: list[float]) -> ModelFolder:
    """Set the first values of a tensor of a folder, and open it."""
    tensors = load_file(folder / WEIGHTS)
    tensors[name].view(-1)[: len(values)] = torch.tensor(values)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return open_model(folder)


def test_a_value_beyond_the_range_of_float16_is_refused_by_its_tensor(tmp_path: Path) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    folder = edited(make_model(tmp_path / "model", "llama"), name, [7e4, -1e6])
    with pytest.raises(InvalidRequest, match=rf"'{name}' has 2 values .* up to 1e\+06 .* 65,504") as refused:
        cast_figures(folder_as_stored(folder, "float16"), "float16", Progress())
    assert refused.value.param == "output.dtype"
    with pytest.raises(InvalidRequest, match=name):
        pruned(folder.path, tmp_path / "work", "float16", "wanda")
    figures = cast_figures(folder_as_stored(folder, "bfloat16"), "bfloat16", Progress())
    assert figures.underflowed == 0


def test_weights_that_become_zero_are_counted_and_the_largest_error_is_known(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    folder = edited(make_model(tmp_path / "model", "llama"), name, [1e-9, -2e-8, 0.0, -0.0])
    figures = cast_figures(folder_as_stored(folder, "float16"), "float16", Progress())
    assert (figures.underflowed, figures.underflowed_tensors) == (2, 1)
    assert figures.weights == folder.description.parameters and figures.tensors == len(folder.tensors)
    assert 0.9 * 2**-11 < figures.largest_relative_error <= 2**-11
    narrower = cast_figures(folder_as_stored(folder, "bfloat16"), "bfloat16", Progress())
    assert narrower.underflowed == 0 and 0.9 * 2**-8 < narrower.largest_relative_error <= 2**-8


def test_what_from_pretrained_keeps_in_float32_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "_keep_in_fp32_modules_strict", ["norm"])
    folder = make_model(tmp_path / "model", "llama")
    artifact = save(pruned(folder, tmp_path / "work", "bfloat16", "wanda"), folder, tmp_path / "artifact")
    stored, source = load_file(artifact / WEIGHTS), load_file(folder / WEIGHTS)
    kept = {name for name, each in stored.items() if each.dtype is torch.float32}
    assert kept == {name for name in source if "norm" in name}
    assert all(torch.equal(stored[name], source[name]) for name in kept)
    model = AutoModelForCausalLM.from_pretrained(artifact)
    assert {name for name, each in model.named_parameters() if each.dtype is torch.float32} == kept
