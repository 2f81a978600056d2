"""Files hold the codes of a quantised artifact bit for bit, or are rounded by an importance matrix measured on it."""

from pathlib import Path

import numpy
import pytest
import torch
from gguf import GGUFReader, ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.exporters.gguf.settings import read_settings
from core.engine.exporters.gguf.tensors import placed_tensors, read_placed
from core.engine.exporters.protocols import Importance
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.pruning.streams.mean_squares import mean_squares
from core.methods.registry import parse_parameters
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.recipe import Output
from core.pipeline.recipes.request import ResolvedRequest
from secateur_wire.job_body import Quantization
from tests.engine.tiny import make_model, make_tokens
from tests.gguf.cells import export, quantised
from tests.gguf.trained import LINES, save_trained

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


CPU = torch.device("cpu")
_ZEROS = ResolvedRequest("magnitude", "unstructured", 0.5, parse_parameters("magnitude", {}))


def measured(folder: Path, work: Path, budget: int = 2**30) -> dict[str, torch.Tensor]:
    opened = open_model(folder)
    tokens = make_tokens(6, 32, vocabulary=opened.description.vocabulary_size)
    return mean_squares(opened, tokens, work=work, device=CPU, activation_budget_bytes=budget)


def weighted_error(weight: NDArray[numpy.float32], stored: ReaderTensor, squares_I: NDArray[numpy.float32]) -> float:
    """Return Σ x² (w − ŵ)²."""
    errors = numpy.square(weight - dequantize(stored.data, stored.tensor_type))
    return float((errors @ squares_I).sum())


def test_every_linear_layer_has_the_mean_squares_of_its_inputs(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama")
    averages = measured(folder, tmp_path / "work", budget=1000)
    opened = open_model(folder)
    model, inputs = load_model(opened, CPU), dict[str, torch.Tensor]()
    for each in opened.description.linears:
        model.get_submodule(each.name).register_forward_pre_hook(
            lambda module, given, name=each.name: inputs.__setitem__(name, given[0])
        )
    with torch.inference_mode():
        model(input_ids=make_tokens(6, 32, vocabulary=opened.description.vocabulary_size))
    assert averages.keys() == inputs.keys()
    for name, squares_I in averages.items():
        torch.testing.assert_close(squares_I, inputs[name].flatten(0, 1).square().mean(dim=0), rtol=1e-4, atol=1e-7)
    assert not list((tmp_path / "work").rglob("*.safetensors")), "what was beyond the budget is removed"


def test_llama_cpp_rounds_what_matters_more_with_less_error(tmp_path: Path) -> None:
    folder = save_trained(tmp_path / "model", num_attention_heads=2, num_key_value_heads=1, head_dim=32)
    squares = measured(folder, tmp_path / "work")
    opened = open_model(folder)
    read, notes = [], []
    for importance in (None, Importance(squares, 192, "lines")):
        added = GgufFiles().export(
            opened, ["Q4_0"], LINES, name="small", device=CPU, threads=1, log=lambda text: None, importance=importance
        )
        (file,) = added.files
        read.append({each.name: each for each in GGUFReader(folder / file.file).tensors})
        notes.append([note for note in added.notes if "importance matrix" in note])
        assert file.importance_tokens == (192 if importance else None) and not file.other_types
    assert notes[0] == [] and "over 192 tokens of lines" in notes[1][0]
    assert not list(folder.glob("importance*"))
    settings = read_settings(opened)
    names = {opened.tensors[f"{name}.weight"].name: squares_I.numpy() for name, squares_I in squares.items()}
    weighted = 0
    for placed in placed_tensors(opened, settings):
        if placed.entries[0].name in names:
            weight, squares_I = read_placed(placed, settings), names[placed.entries[0].name]
            plain, chosen = (weighted_error(weight, each[placed.name], squares_I) for each in read)
            assert chosen < plain, placed.name
            weighted += 1
    assert weighted == len(squares) == 14


def test_it_is_used_where_there_is_a_text_and_a_type_for_it(tmp_path: Path) -> None:
    description = open_model(make_model(tmp_path, "llama")).description
    for types, is_calibrated, expected in ((["Q4_0"], True, True), (["Q4_0"], False, None), (["Q8_0"], True, None)):
        output = Output.model_validate({"exports": [{"format": "gguf", "types": types}]})
        resolved = resolve_output(output, description, _ZEROS, is_calibrated=is_calibrated)
        assert resolved.importance_matrix is expected
