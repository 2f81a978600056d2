"""Files of a quantised artifact hold its codes: what llama.cpp multiplies is what the artifact's weights are."""

from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file

from core.engine.exporters.gguf.settings import read_settings
from core.engine.exporters.gguf.tensors import placed_tensors, read_placed
from core.engine.models.folder import open_model
from secateur_wire.job_body import Quantization
from tests.gguf.cells import export, quantised

INT8 = Quantization(scheme="int8", rounding="nearest")
INT4 = Quantization(scheme="int4", group_size=64, rounding="nearest")
NARROW_GROUPS = Quantization(scheme="int4", group_size=32, rounding="gptq")


def tensors_of(file: Path) -> dict[str, ReaderTensor]:
    return {each.name: each for each in GGUFReader(file).tensors}


def values_of(tensor: ReaderTensor) -> torch.Tensor:
    return torch.from_numpy(numpy.array(dequantize(tensor.data, tensor.tensor_type)))


@pytest.mark.parametrize(
    ("family", "chosen", "kind"),
    [
        ("llama", INT8, "Q8_0"),  # rows of queries and keys in another order
        ("gpt-neox", NARROW_GROUPS, "Q4_0"),  # fused, and in another order
    ],
)
def test_a_file_has_the_artifact_s_weights_bit_for_bit(
    family: str, chosen: Quantization, kind: str, tmp_path: Path
) -> None:
    folder = quantised(tmp_path, chosen, family)
    exported = export(folder, kind)
    artifact = open_model(folder, own_artifact=True)
    stored, settings = tensors_of(folder / f"model-{kind}.gguf"), read_settings(artifact)
    linears = {f"{each.name}.weight" for each in artifact.description.linears}
    entries = {artifact.tensors[name].name for name in linears}
    codes = 0
    for placed in placed_tensors(artifact, settings):
        if placed.entries[0].name in entries:
            tensor = stored[placed.name]
            assert tensor.tensor_type.name == kind
            weight = torch.from_numpy(numpy.array(read_placed(placed, settings)))
            assert torch.equal(values_of(tensor).bfloat16(), weight.bfloat16()), placed.name
            codes += 1
    assert f"holds the codes of {codes} of {codes} quantised matrices as they are, with their" in exported.notes[-1]
    (file,) = exported.files
    assert file.kl is not None and file.kl < 1e-2 and not file.other_types


def test_scales_that_float16_rounds_are_said_and_those_it_loses_are_not_used(tmp_path: Path) -> None:
    folder = quantised(tmp_path, INT4, dtype="keep")
    tensors = load_file(folder / "model.safetensors")
    lost, kept = (f"model.layers.0.mlp.{each}_proj.weight_scale" for each in ("up", "down"))
    tensors[lost] *= 1e-6
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    exported = export(folder, "Q4_0")
    stored = tensors_of(folder / "model-Q4_0.gguf")
    assert exported.files[0].other_types == {"F16": ["blk.*.ffn_up.weight"]}
    assert stored["blk.0.ffn_up.weight"].tensor_type.name == "F16"
    assert "13 of 14 quantised matrices" in exported.notes[1] and "rounds by up to 0.05%" in exported.notes[1]
    read, scales = values_of(stored["blk.0.ffn_down.weight"]), tensors[kept].repeat_interleave(64, dim=1)
    artifact = open_model(folder, own_artifact=True).read("model.layers.0.mlp.down_proj.weight")
    assert torch.equal((read / scales).round(), (artifact / scales).round()), "no code changes"
    assert not torch.equal(read, artifact) and torch.allclose(read, artifact, rtol=2**-11, atol=0)
