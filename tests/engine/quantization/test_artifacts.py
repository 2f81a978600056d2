"""Quantised artifacts: opened by stock transformers in a fresh process, read back by us, and no other job's are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.engine.architectures.folder import read_config
from core.engine.checkpoints.quantisation import QUANTISATION_KEY
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.models.tensors import load_tensors, unpack
from core.engine.pruning.grid import Grid, QuantisedWeight
from core.engine.quantization.settings import resolve_quantization, stored_bits
from core.pipeline.plans import walk_for
from core.progress import Progress, WorkStopped
from secateur_wire.errors import InvalidRequest, UnusableModel
from secateur_wire.job_body import Quantization
from tests.engine.apart import Apart
from tests.engine.crossing import partly
from tests.engine.reloading import reload
from tests.engine.sweeping import request_for, save
from tests.engine.tiny import UNLIKE, architecture_of, make_model, make_tokens
from tests.engine.watching import Watching

CPU = torch.device("cpu")
INT8 = Quantization(scheme="int8", rounding="nearest")
INT4 = Quantization(scheme="int4", group_size=32, rounding="gptq")
WIDE = {"hidden_size": 64, "intermediate_size": 96}
"""Widths that groups of 32 inputs divide."""
FAMILIES = [name for name in UNLIKE if not architecture_of(name).transposed and architecture_of(name).experts is None]
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {"method": "none"},
    "at-once": {"method": "sparsegpt", "sparsity": 0.5},
    "n-m": {"method": "sparsegpt", "pattern": "2:4", "parameters": {"include_lm_head": True}},
    "fitted": {"method": "frontier", "sparsity": 0.5, "is_calibrated": True},
    "some": {"method": "wanda", "sparsity": 0.5, "parameters": {"skip_modules": ["down_proj", "q_proj"]}},
}


def quantised(folder: Path, work: Path, chosen: Quantization, *, progress: Progress | None = None, **request: Any):  # type: ignore[no-untyped-def]
    opened = open_model(folder)
    work.mkdir(parents=True, exist_ok=True)
    return walk_for(
        opened, request_for(opened, **request), device=CPU, quantization=chosen, calibration=make_tokens(),
        evaluations={"text": make_tokens(4, seed=1)}, work=work, progress=progress,
    ).run()  # fmt: skip


@partly("family", FAMILIES, in_every_run=["phi3"])
def test_every_family_is_opened_as_it_was_measured(family: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", family)
    result = quantised(folder, tmp_path / "work", INT8, method="none")
    artifact = save(result, folder, tmp_path / "artifact")
    Apart(reload, artifact, result.verification).wait()


@pytest.mark.parametrize(
    ("way", "chosen"), [("nothing", INT8), ("at-once", INT4), ("n-m", INT8), ("fitted", INT4), ("some", INT4)]
)
def test_what_is_saved_is_what_was_measured(way: str, chosen: Quantization, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama-untied", dtype=torch.bfloat16, **WIDE)
    result = quantised(folder, tmp_path / "work", chosen, **WAYS[way])
    artifact = save(result, folder, tmp_path / "artifact")
    fresh = Apart(reload, artifact, result.verification)
    own = open_model(artifact, own_artifact=True)
    wanted = load_tensors(result.verification)
    with torch.inference_mode():
        logits = load_model(own, CPU, dtype=torch.float32)(input_ids=wanted["tokens"]).logits
    assert float((logits - wanted["logits"]).abs().max()) < 0.05
    assert QUANTISATION_KEY not in own.raw_config and own.is_quantised
    zeros = [int((own.read(f"{row.name}.weight") == 0).sum()) for row in result.layers]
    assert all(zero >= row.zeros for zero, row in zip(zeros, result.layers, strict=True))
    if WAYS[way]["method"] == "none":
        assert result.removed == 0
    files = load_file(artifact / "model.safetensors")
    packed = {name for name in files if name.endswith("weight_packed")}
    assert packed == {f"{each.name}.weight_packed" for each in own.description.linears}
    shapes = 16 * len(own.description.linears)  # the shape of each weight, two numbers of 8 bytes
    bytes_of = sum(each.nbytes for name, each in files.items() if name.partition(".weight_")[1])
    assert 8 * (bytes_of - shapes) == stored_bits(own.description, chosen)
    fresh.wait()


@pytest.mark.parametrize(("bits", "groups"), [(4, 3), (4, 1), (8, 1)])
def test_unpacking_undoes_the_librarys_packing(bits: int, groups: int) -> None:
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 96), dtype=torch.int8)
    scales = torch.rand(5, groups).bfloat16()
    weight = QuantisedWeight(codes, Grid(scales.T.float(), bits, torch.bfloat16), torch.tensor(0.0))
    tensors = weight.packed("layer.weight")
    assert torch.equal(unpack(tensors["layer.weight_packed"], bits), codes)
    assert torch.equal(tensors["layer.weight_scale"], scales)
    assert tensors["layer.weight_shape"].tolist() == [5, 96]


def test_packed_weights_are_taken_from_our_own_artifacts_alone(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama")
    artifact = save(quantised(folder, tmp_path / "work", INT8, method="none"), folder, tmp_path / "artifact")
    with pytest.raises(UnusableModel, match="name it job:ID"):
        read_config(artifact)
    config = json.loads((artifact / "config.json").read_text())
    config[QUANTISATION_KEY]["config_groups"]["group_0"]["weights"]["num_bits"] = 4
    (artifact / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnusableModel, match="name it job:ID"):
        read_config(artifact, own_artifact=True)


@pytest.mark.parametrize(
    ("family", "chosen", "steps", "why"),
    [
        ("gpt2", INT8, (), r"stores its layers as \[inputs, outputs\]"),
        ("llama", INT4, (), "group size 32 must divide"),
        ("llama", INT8, (6,), "the 4 codes of a word must divide"),
        ("llama", INT8.model_copy(update={"group_size": 64}), (), "only for int4"),
        ("llama", INT4.model_copy(update={"group_size": 48}), (), "use one of 128, 64, 32"),
    ],
)
def test_what_does_not_fit_is_refused(
    family: str, chosen: Quantization, steps: tuple[int, ...], why: str, tmp_path: Path
) -> None:
    description = open_model(make_model(tmp_path, family)).description
    with pytest.raises(InvalidRequest, match=why):
        resolve_quantization(chosen, description, steps, is_calibrated=True)


def test_defaults_are_the_largest_groups_and_the_best_rounding(tmp_path: Path) -> None:
    description = open_model(make_model(tmp_path, "llama", hidden_size=128, intermediate_size=192)).description
    chosen = Quantization(scheme="int4")
    complete = resolve_quantization(chosen, description, (), is_calibrated=True)
    assert (complete.group_size, complete.rounding) == (32, "gptq")  # the heads together have 32 features
    assert resolve_quantization(chosen, description, (), is_calibrated=False).rounding == "nearest"
    with pytest.raises(InvalidRequest, match="calibration is required: gptq"):
        resolve_quantization(INT4, description, (), is_calibrated=False)


def test_an_attempt_goes_on_to_the_same_files(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama", **WIDE)
    whole = quantised(folder, tmp_path / "work", INT4, method="sparsegpt", sparsity=0.5)
    stopped = Watching(stop_after=2)
    with pytest.raises(WorkStopped):
        quantised(folder, tmp_path / "half", INT4, method="sparsegpt", sparsity=0.5, progress=stopped)
    again = quantised(folder, tmp_path / "half", INT4, method="sparsegpt", sparsity=0.5)
    assert again.resumed_from > 0
    assert [file.read_bytes() for file in again.files] == [file.read_bytes() for file in whole.files]
