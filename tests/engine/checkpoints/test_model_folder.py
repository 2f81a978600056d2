"""Model folders are data: what is unsafe, corrupt or unsupported is refused by name."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from core.engine.architectures.describe import inspect_folder
from core.engine.checkpoints.safetensors_header import read_header
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import (
    CorruptSafetensors,
    InvalidParameters,
    MissingTensors,
    PathEscapes,
    PickleCheckpoint,
)

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10,
    "max_position_embeddings": 32, "tie_word_embeddings": True,
}  # fmt: skip


def tensors() -> dict[str, numpy.ndarray]:
    shapes = {"model.embed_tokens.weight": (10, 8), "model.norm.weight": (8,)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj.weight": (8, 8), f"{prefix}.self_attn.k_proj.weight": (4, 8),
            f"{prefix}.self_attn.v_proj.weight": (4, 8), f"{prefix}.self_attn.o_proj.weight": (8, 8),
            f"{prefix}.mlp.gate_proj.weight": (12, 8), f"{prefix}.mlp.up_proj.weight": (12, 8),
            f"{prefix}.mlp.down_proj.weight": (8, 12), f"{prefix}.input_layernorm.weight": (8,),
            f"{prefix}.post_attention_layernorm.weight": (8,),
        }  # fmt: skip
    return {name: numpy.ones(shape, dtype=numpy.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model")


def write(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    save_file(tensors(), folder / "model.safetensors")
    return folder


def test_a_description_counts_what_is_there(folder: Path) -> None:
    description = inspect_folder(folder)
    assert description.architecture == "LlamaForCausalLM"
    assert description.parameters == sum(each.size for each in tensors().values())
    assert description.prunable_parameters == 2 * (64 + 32 + 32 + 64 + 96 * 3)
    assert description.bytes == 4 * description.parameters
    assert (description.layers, description.dtype, description.tied_embeddings) == (2, "float32", True)


def test_a_pickle_checkpoint_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(PickleCheckpoint, match=r"pytorch_model\.bin.*convert"):
        inspect_folder(folder)


def test_an_index_that_leads_out_of_the_folder_is_refused(folder: Path) -> None:
    index = {"weight_map": {"a": "../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PathEscapes, match="outside"):
        inspect_folder(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(PathEscapes):
        inspect_folder(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptSafetensors, match=r"model\.safetensors is not a valid"):
        inspect_folder(folder)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{", b"\xff\xfe", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
     b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
     b'{"a": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}}',
     b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', b"[" * 100_000,
     b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", 4]}}',
     b'{"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}'],
)  # fmt: skip
def test_a_header_that_lies_is_refused(header: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(CorruptSafetensors):
        read_header(file)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_byte_of_a_header_is_an_error_or_a_valid_file(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": numpy.ones(4, numpy.float32), "b": numpy.ones((2, 3), numpy.float16)}, file)
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, 120))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        entries = read_header(file)
    except CorruptSafetensors:
        return
    assert sum(entry.end - entry.start for entry in entries.values()) < len(content)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    kept = {name: value for name, value in tensors().items() if "1.mlp.up_proj" not in name}
    save_file(kept, folder / "model.safetensors")
    with pytest.raises(MissingTensors, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        inspect_folder(folder)


@pytest.mark.parametrize(
    ("parameters", "param", "words"),
    [
        ({"block_sise": 64}, "parameters.block_sise", "block_size"),
        ({"skip_layers": [7]}, "parameters.skip_layers", "layers 0 to 1"),
        ({"skip_modules": ["nope"]}, "parameters.skip_modules", "matches no linear layer"),
        ({"skip_layers": [0, 1]}, "parameters", "nothing is left"),
        ({"allocation": [0.5]}, "parameters.allocation", "the model has 2 layers"),
        ({"allocation": [0.5, 0.6]}, "parameters.allocation", r"removes 0\.5500 .* asks for 0\.5"),
        ({"allocation": "owl", "owl_range": 0.5}, "parameters.owl_range", "smaller range"),
        ({"include_lm_head": True}, "parameters.include_lm_head", "shares its weights"),
    ],
)
def test_bad_parameters_are_named(folder: Path, parameters: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidParameters, match=words) as caught:
        resolve_request(inspect_folder(folder), UnresolvedRequest("sparsegpt", "unstructured", 0.5, parameters))
    assert caught.value.param == param
