"""Configs made to be hostile: refused by the key at fault, from the headers alone, before anything is built."""

import json
import math
import resource
from pathlib import Path
from typing import Any

import pytest

from core.engine.architectures.config import MOST_LEVELS, MOST_VALUES, check_sizes
from core.engine.architectures.declared import CLASSIFIER_ARCHITECTURES
from core.engine.architectures.describe import describe_classifier, inspect_folder
from core.engine.checkpoints.safetensors_header import TensorEntry
from secateur_wire.errors import UnusableModel
from tests.engine.tiny import make_model


def _deep(levels: int) -> Any:
    return [_deep(levels - 1)] if levels else 0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers', and 1000000000 is not from 1 to 1024: the files hold"),
        ({"num_hidden_layers": -1}, "'num_hidden_layers', and -1 is not from 1"),
        ({"num_attention_heads": 0}, "'num_attention_heads', and 0 is not from 1"),
        ({"vocab_size": 10**12}, "'vocab_size', and a whole number up to 2147483647 is needed"),
        ({"vocab_size": 10**6}, "'vocab_size', and 1000000 is not from 1 to 131072"),
        ({"intermediate_size": -48}, "'intermediate_size', and -48 is not from 0 to 131072"),
        ({"intermediate_size": [48, 2**20]}, "'intermediate_size', and 1048576 is not"),
        ({"hidden_size": 32.0}, "'hidden_size', and '32.0' is no whole number"),
        ({"hidden_size": True}, "'hidden_size', and 'True' is no whole number"),
        ({"head_dim": "8"}, "'head_dim', and '8' is no whole number"),
        ({"max_position_embeddings": 10**15}, "'max_position_embeddings', and a whole number up to"),
        ({"text_config": {"num_experts": 2**30}}, "'text_config.num_experts', and 1073741824 is not from 0 to"),
        ({"rope_parameters": {"factor": math.nan}}, "'rope_parameters.factor', and not-a-number (NaN)"),
        ({"attention": _deep(MOST_LEVELS)}, "'attention.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0', which is nested"),
        ({"rope_parameters": {"partial_rotary_factor": 2.0}}, "partial_rotary_factor', and 2.0 is not from 0 to 1"),
        ({"hidden_act": "\ud800"}, "'hidden_act', and its text is not valid"),
        ({"text_config": {"a\0": 1}}, "'text_config.a\\\\x00', and its text is not valid"),
        ({"layer_types": ["full_attention"] * MOST_VALUES}, "has more than 100000 values with those of 'layer_types'"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)  # fmt: skip
def test_a_hostile_config_is_refused_by_the_key_at_fault(said: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | said))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnusableModel) as refused:
        inspect_folder(folder)
    assert words in refused.value.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15, "kibibytes"


@pytest.mark.parametrize("name", [None, "llama/../x", {"llama": 1}, "x" * 101], ids=str)
def test_a_type_has_a_name(name: object) -> None:
    with pytest.raises(UnusableModel, match=r"'model_type', and .* is the name of no type"):
        check_sizes({"model_type": name}, {})


def test_a_dimension_of_a_tensor_without_values_allows_nothing() -> None:
    tensors = {"empty": _entry((0, 2**40)), "a": _entry((8, 4))}
    with pytest.raises(UnusableModel, match="their largest dimension is 8"):
        check_sizes({"model_type": "llama", "hidden_size": 2**20}, tensors)
    check_sizes({"model_type": "llama", "hidden_size": 2**20}, tensors | {"b": _entry((2**17, 2))})


def _entry(shape: tuple[int, ...]) -> TensorEntry:
    return TensorEntry("", "F32", shape, Path("model.safetensors"), 0, 4 * math.prod(shape))


def test_a_classifier_without_floats_is_refused_by_the_field_of_the_model() -> None:
    family = CLASSIFIER_ARCHITECTURES["ConvNextForImageClassification"]
    whole = TensorEntry("classifier.weight", "I64", (2, 3), Path(), 0, 48)
    with pytest.raises(UnusableModel, match="not stored as floats") as refused:
        describe_classifier({"model_type": family.model_type}, family, {whole.name: whole})
    assert refused.value.param == "model"
