"""The matrix of architectures: its data are what a run gives, and its checks notice what is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.architectures import report
from bench.architectures.checks import check_type
from bench.architectures.masked import Unmatched, without_layers, without_units
from bench.architectures.outcomes import CAPABILITIES
from bench.architectures.report import known_type
from bench.architectures.tiny_configs import TYPES, tiny_config, tiny_model, tokens_of
from tests.engine.crossing import partly

KNOWN = json.loads(Path(report.__file__).with_name("known_types.json").read_text())
IN_EVERY_RUN = (
    "bloom",  # positions by a bias that depends on the tokens, queries, keys and values interleaved
    "exaone",  # a config of its own for Llama's class
    "falcon",  # attention and FFN read one tensor, one key and value head
    "mamba",
    "mixtral",
)
REPRESENTATIVES = (
    *IN_EVERY_RUN,
    "gpt_bigcode",  # one key and value head beside the queries
    "mpt",
    "phi",
    "cohere2",
    "gemma",
    "minicpm3",  # keys and values of all heads from one latent
    "bart",  # the decoder of an encoder and decoder
    "recurrent_gemma",  # recurrent layers and attention
)


@partly("model_type", REPRESENTATIVES, IN_EVERY_RUN)
def test_what_is_known_of_a_type_is_what_a_run_gives(model_type: str, tmp_path: Path) -> None:
    assert known_type(check_type(model_type, tmp_path, seeds=(0,))) == KNOWN["types"][model_type]


def test_all_types_are_known_and_nothing_is_wrong() -> None:
    assert KNOWN["types"].keys() == set(TYPES)
    assert all(each["offered"] or set(each["not_offered"]) == set(CAPABILITIES) for each in KNOWN["types"].values())


def _cut(dense: PreTrainedModel, rows: Sequence[int], columns: Sequence[int]) -> PreTrainedModel:
    """Return a model with those rows of the layers that give channels, and those columns of the one that reads them."""
    config = tiny_config("llama")
    config.intermediate_size = len(rows)
    cut: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    cut.eval()
    tensors = {
        name: tensor[rows] if ".gate_" in name or ".up_" in name else tensor[:, columns] if ".down_" in name else tensor
        for name, tensor in dense.state_dict().items()
    }
    cut.load_state_dict(tensors)
    return cut


@torch.inference_mode()
def test_a_cut_is_the_masked_model_where_the_units_that_are_gone_are_those_that_nothing_reads() -> None:
    dense, kept = tiny_model("llama", 0), range(0, 96, 2)
    tokens = tokens_of(dense.config, 0)
    right, wrong = _cut(dense, kept, kept), _cut(dense, kept, range(1, 96, 2))
    for cut, is_right in ((right, True), (wrong, False)):
        masked = tiny_model("llama", 0)
        without_units(masked, cut)
        assert torch.allclose(masked(input_ids=tokens).logits, cut(input_ids=tokens).logits, atol=1e-4) is is_right


def test_a_cut_with_weights_of_its_own_is_no_cut() -> None:
    dense, kept = tiny_model("llama", 0), range(48)
    cut = _cut(dense, kept, kept)
    cut.get_parameter("model.layers.1.mlp.down_proj.weight").data.mul_(1.01)
    with pytest.raises(Unmatched, match=r"model\.layers\.1\.mlp\.down_proj"):
        without_units(dense, cut)
    with pytest.raises(Unmatched, match="0 blocks are gone"):
        without_layers(tiny_model("llama", 0), tiny_model("llama", 0), "model.layers")
