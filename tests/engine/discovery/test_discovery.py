"""An architecture is discovered as it is declared; what cannot be one is refused with a reason of its own."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import transformers
from pydantic import JsonValue
from transformers import PretrainedConfig

from core.engine.architectures.folder import read_config, weight_files
from core.engine.checkpoints.safetensors_header import TensorEntry, read_header
from core.engine.discovery.blocks import find_blocks
from core.engine.discovery.build import build_traceable
from core.engine.discovery.discover import discover
from core.engine.discovery.execution import trace
from secateur_wire.errors import MissingTensors, UnsupportedArchitecture, UnusableModel
from tests.engine.crossing import partly
from tests.engine.tiny import architecture_of, make_model
from tests.families import LANGUAGE_MODELS


def headers(folder: Path) -> dict[str, TensorEntry]:
    """Return the tensors of a folder by the names that its files have for them."""
    return {name: entry for file in weight_files(folder) for name, entry in read_header(file).items()}


def tiny(kind: str, **settings: object) -> tuple[dict[str, JsonValue], dict[str, TensorEntry]]:
    """Return config.json and headers of a small model of a class of transformers."""
    model_class = getattr(transformers, kind)
    config = model_class.config_class(vocab_size=96, **settings)
    with torch.device("meta"):
        tensors = model_class(config).state_dict()
    read = json.loads(config.to_json_string()) | {"architectures": [kind]}
    return read, {name: TensorEntry(name, "F32", tuple(each.shape), Path(), 0, 0) for name, each in tensors.items()}


@partly("name", LANGUAGE_MODELS, in_every_run=["gpt2", "gpt-neox", "phi3"])
def test_a_declared_architecture_is_discovered_as_it_is_declared(name: str, tmp_path: Path) -> None:
    folder, declared = make_model(tmp_path / "model", name), architecture_of(name)
    tensors = headers(folder)
    found = discover(read_config(folder), tensors)
    for same in ("base", "blocks", "head", "inputs", "transposed", "tied_by_default", "block_kinds", "arguments"):
        assert getattr(found, same) == getattr(declared, same), same
    assert set(found.lists_by_layer) >= {key for key in declared.lists_by_layer if key in read_config(folder)}
    for ours, theirs in zip(found.sublayers, declared.sublayers, strict=True):
        assert (ours.groups, ours.bias) == (theirs.groups, theirs.bias)
        assert theirs.norm in (None, ours.norm)  # some are declared for configs that put it elsewhere
    assert [found.module_name(key) for key in tensors] == [declared.module_name(key) for key in tensors]


def test_widths_of_a_large_model_are_watched_without_its_weights() -> None:
    config: PretrainedConfig = transformers.LlamaConfig(
        hidden_size=16384, intermediate_size=53248, num_attention_heads=128, num_key_value_heads=8, num_hidden_layers=2
    )
    config.architectures = ["LlamaForCausalLM"]
    model = build_traceable(config)
    parameters = list(model.parameters())
    assert sum(each.numel() for each in parameters) > 5_000_000_000
    assert sum(each.untyped_storage().nbytes() for each in parameters) < 1000
    block, other = trace(model, find_blocks(model)).blocks
    assert block == other
    assert [each.norm for each in block.sublayers] == ["input_layernorm", "post_attention_layernorm"]


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("RwkvForCausalLM", {"hidden_size": 32, "num_hidden_layers": 2}, "changes its own weights"),
        ("XLMWithLMHeadModel", {"emb_dim": 32, "n_layers": 2, "n_heads": 4}, "no list of modules runs as decoder"),
    ],
)
def test_what_does_not_run_block_by_block_is_refused(kind: str, settings: Mapping[str, object], reason: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=reason):
        discover(*tiny(kind, **settings))


def test_a_config_that_its_weights_do_not_bear_out_is_refused_before_anything_is_built() -> None:
    config, tensors = tiny(
        "LlamaForCausalLM", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    with pytest.raises(UnusableModel, match="num_hidden_layers"):
        discover({**config, "num_hidden_layers": 1_000_000_000}, tensors)
    with pytest.raises(MissingTensors, match="needs"):
        discover({**config, "intermediate_size": 56}, tensors)
    with pytest.raises(UnsupportedArchitecture, match="'OtherForCausalLM'"):
        discover({**config, "architectures": ["OtherForCausalLM"]}, tensors)
