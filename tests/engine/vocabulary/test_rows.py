"""Models that lost tokens: the logits of those that stay are the dense model's to the bit, all else is as it was."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.describe import describe_source
from core.engine.architectures.description import UndiscoveredModel, architectures
from core.engine.checkpoints.files import INDEX_FILE
from core.engine.exporters.huggingface import write_weights
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import load_model
from core.engine.removals.vocabulary import reduced_description
from core.engine.vocabulary import rows
from core.engine.vocabulary.rows import required_tokens, write_reduced
from core.pipeline.stages.discover import discover_and_test
from secateur_wire.errors import InvalidRequest, UnsupportedArchitecture
from tests.engine.crossing import partly
from tests.engine.exporters.test_per_layer import PROTECTED, prune
from tests.engine.quantised import store_as_fp8
from tests.engine.tiny import make_model
from tests.families import LANGUAGE_MODELS

CPU = torch.device("cpu")


def kept_of(folder: ModelFolder, seed: int = 0) -> list[int]:
    """Return random tokens to keep, and those that must stay."""
    tokens = folder.description.vocabulary_size
    return sorted({*required_tokens(folder), *random.Random(seed).sample(range(tokens), tokens // 3)})


@torch.inference_mode()
def require_same_logits(dense: torch.nn.Module, cut: torch.nn.Module, kept: Sequence[int]) -> None:
    ids = torch.tensor(kept)
    tokens_BT = torch.randint(0, len(kept), (3, 17), generator=torch.Generator().manual_seed(1))
    expected, logits = dense(input_ids=ids[tokens_BT]).logits, cut(input_ids=tokens_BT).logits
    assert torch.equal(logits, expected[..., ids])
    assert float(logits.float().std()) > 0


def require_cut(folder: Path, target: Path, family: Architecture | None = None) -> ModelFolder:
    """Cut a model's rows, require what must hold of every cut, and return the cut model."""
    dense = open_model(folder, own_artifact=True, discovered=family)
    kept = kept_of(dense)
    cut = write_reduced(dense, kept, target)
    assert cut.description == reduced_description(dense.description, len(kept))
    assert cut.description.parameters < dense.description.parameters
    require_same_logits(load_model(dense, CPU), load_model(cut, CPU), kept)
    return cut


@partly("name", LANGUAGE_MODELS, in_every_run=["llama", "llama-untied", "gpt2", "opt-projected", "gpt-neox"])
def test_stock_transformers_opens_a_model_without_some_rows_and_gives_its_logits(name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name)
    cut = require_cut(folder, tmp_path / "cut")
    dense, stock = (AutoModelForCausalLM.from_pretrained(each).eval() for each in (folder, cut.path))
    require_same_logits(dense, stock, kept_of(open_model(folder)))
    before, after = dense.state_dict(), stock.state_dict()
    smaller = {each for each, tensor in before.items() if tensor.shape != after[each].shape}
    assert len(smaller) == 2 and all(torch.equal(before[each], after[each]) for each in before.keys() - smaller)


@partly(
    "model_type",
    # biases of a tied head; a bias of an untied one; second tables of embeddings; a row that is no token's; a config
    # whose language model is a part; a table of embeddings that the blocks read
    ["bert", "phi", "gemma4_text", "gemma3n_text", "moshi", "gemma3", "cpmant"],
    in_every_run=["phi", "gemma4_text"],
)
def test_every_table_of_tokens_of_a_discovered_model_is_cut(model_type: str, tmp_path: Path) -> None:
    tiny_model(model_type, 0).save_pretrained(tmp_path / "model")
    source = describe_source(tmp_path / "model")
    assert isinstance(source, UndiscoveredModel)
    family = discover_and_test(source.config, source.entries())
    assert architectures.validate_json(architectures.dump_json(family)) == family
    cut = require_cut(tmp_path / "model", tmp_path / "cut", family)
    if model_type.startswith(("gemma4", "gemma3n")):
        assert cut.config.vocab_size_per_layer_input == cut.config.vocab_size


def test_an_artifact_whose_layers_differ_stays_one(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    artifact, _ = prune(folder, tmp_path / "work", "l2-structured", 0.1, PROTECTED)
    cut = require_cut(artifact, tmp_path / "cut")
    assert cut.description.layout == "per_layer" and (cut.path / "modeling_secateur.py").is_file()
    stock = AutoModelForCausalLM.from_pretrained(cut.path, trust_remote_code=True).eval()
    require_same_logits(stock, load_model(cut, CPU), range(cut.config.vocab_size))


def test_quantised_weights_stay_as_they_are_and_a_quantised_table_is_refused(tmp_path: Path) -> None:
    folder = store_as_fp8(make_model(tmp_path / "model", "llama-untied"))
    cut = require_cut(folder, tmp_path / "cut")
    before, after = (load_file(each / "model.safetensors") for each in (folder, cut.path))
    assert before.keys() == after.keys() and cut.is_quantised
    name = "model.layers.0.mlp.up_proj.weight"
    assert after[name].dtype is torch.float8_e4m3fn
    assert torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8))
    head = store_as_fp8(
        make_model(tmp_path / "other", "llama-untied"), is_quantised=lambda each: each == "lm_head.weight"
    )
    opened = open_model(head)
    with pytest.raises(UnsupportedArchitecture, match=r"lm_head\.weight has an entry for each token and is quantised"):
        write_reduced(opened, kept_of(opened), tmp_path / "none")


def test_ids_that_the_config_leaves_to_its_class_get_their_new_numbers(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", pad_token_id=None)
    config = json.loads((folder / "config.json").read_bytes())
    del config["bos_token_id"], config["eos_token_id"]  # 1 and 2, as the class has them
    (folder / "config.json").write_text(json.dumps(config))
    dense = open_model(folder)
    assert required_tokens(dense) == {1, 2}
    cut = write_reduced(dense, [1, 2, 40, 95], tmp_path / "cut")
    assert (cut.config.bos_token_id, cut.config.eos_token_id, cut.config.vocab_size) == (0, 1, 4)


@pytest.mark.parametrize("kept", [[], [0, 1, 2, 2], [-1, 0, 1, 2], [0, 1, 2, 96], [0, 1, 5]])
def test_ids_that_are_no_choice_of_tokens_are_refused(kept: list[int], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"must ascend|no kept token of the id 2"):
        write_reduced(open_model(make_model(tmp_path / "model")), kept, tmp_path / "cut")
    assert not list(tmp_path.glob("cut/*.safetensors"))


def test_a_table_that_is_not_known_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    dense = open_model(make_model(tmp_path / "model", "llama-untied"))
    wrong = replace(dense, family=replace(dense.family, vocabulary={"lm_head.weight": 0}))
    with pytest.raises(UnsupportedArchitecture, match=r"model\.embed_tokens\.weight has an entry for each token"):
        write_reduced(wrong, kept_of(dense), tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


def test_weights_are_cut_a_few_rows_at_a_time_in_any_number_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path / "model", "llama-untied", dtype=torch.bfloat16, max_shard_size="20KB")
    monkeypatch.setattr(rows, "_AT_ONCE", 200)
    monkeypatch.setattr(rows, "write_weights", partial(write_weights, shard_bytes=20_000))
    cut = require_cut(folder, tmp_path / "cut")
    assert (cut.path / INDEX_FILE).is_file() and cut.description.dtype == "bfloat16"
