"""A model that is more than its language model: that alone is pruned, where its config says it, and the rest stays."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.architectures.tiny_configs import tiny_model, tokens_of
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.folder import read_config, stored_tensors
from core.engine.discovery.discover import discover
from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.recovery.language import recover
from core.engine.recovery.request import Recovery
from core.pipeline.plans import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.stages.discover import discover_and_test
from secateur_wire.errors import UnsupportedArchitecture, UnusableModel

CPU = torch.device("cpu")


@dataclass
class Composite:
    folder: Path
    family: Architecture
    tokens: torch.Tensor


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Composite:
    """Gemma 3 with its tower for images."""
    folder = tmp_path_factory.mktemp("gemma3") / "model"
    model = tiny_model("gemma3", seed=0).to(torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"image_seq_length": 4}')
    family = discover_and_test(read_config(folder), stored_tensors(folder, None))
    return Composite(folder, family, tokens_of(model.config, 3, length=16))


def prune(gemma: Composite, work: Path, method: str, sparsity: float, **how: Any) -> tuple[Path, Any]:
    """Prune, save and check as a job does."""
    opened = open_model(gemma.folder, discovered=gemma.family)
    request = resolve_request(
        opened.description, UnresolvedRequest(method, None, sparsity, how.pop("parameters", {}), **how)
    )
    result = walk_for(opened, request, device=CPU, calibration=gemma.tokens, evaluations={}, work=work).run()
    artifact = work / "artifact"
    write_checkpoint(
        result.files, result.unchanged, gemma.folder, artifact, config=result.config, discovered=gemma.family
    )
    reload_check(artifact, result.verification, device=CPU, discovered=gemma.family)
    return artifact, result


def changed_outside_blocks(gemma: Composite, artifact: Path) -> list[str]:
    """Return the tensors of the source that are not in the blocks and that the artifact has otherwise, or lacks."""
    before, after = load_file(gemma.folder / "model.safetensors"), load_file(artifact / "model.safetensors")
    names = {gemma.family.module_name(name): tensor for name, tensor in after.items()}
    return [
        name
        for name, tensor in before.items()
        if not (module := gemma.family.module_name(name)).startswith(f"{gemma.family.blocks}.")
        and (module not in names or not torch.equal(tensor, names[module]))
    ]


def test_the_towers_are_known_and_never_in_memory(gemma: Composite) -> None:
    family = gemma.family
    assert family.config_path == ("text_config",) and not family.refused
    assert family.other_modules == ("model.vision_tower", "model.multi_modal_projector")
    opened = open_model(gemma.folder, discovered=family)
    text = opened.raw_config["text_config"]
    facts = opened.description
    assert (facts.layers, facts.hidden_size) == (text["num_hidden_layers"], text["hidden_size"])
    streamed = StreamedModel(opened, dtype=torch.float32, device=CPU)
    empty = [name for name, each in streamed.model.named_parameters() if each.is_meta]
    beside = [each for name, each in opened.tensors.items() if family.is_of_other_module(name)]
    assert empty and all(family.is_of_other_module(name) for name in empty)
    assert facts.other_module_parameters == sum(each.numel for each in beside) > 0


def test_zeros_leave_the_config_and_all_outside_the_blocks_as_they_were(gemma: Composite, tmp_path: Path) -> None:
    artifact, _ = prune(gemma, tmp_path, "wanda", 0.5)
    assert changed_outside_blocks(gemma, artifact) == []
    for file in ("config.json", "processor_config.json"):
        assert (artifact / file).read_bytes() == (gemma.folder / file).read_bytes()


@pytest.mark.parametrize("layout", ["uniform", "per_layer"])
def test_a_cut_is_said_in_the_language_models_part_of_the_config(gemma: Composite, tmp_path: Path, layout: str) -> None:
    own = {"protected_first": 1, "protected_last": 0} if layout == "per_layer" else {}
    artifact, _ = prune(gemma, tmp_path, "l2-structured", 0.06, parameters=own, layout=layout)
    before, after = (json.loads((each / "config.json").read_bytes()) for each in (gemma.folder, artifact))
    ours = {"architectures", "auto_map", "secateur_layers"}
    assert {key for key in before | after if before.get(key) != after.get(key)} - ours <= {"text_config"}

    if layout == "uniform":
        assert after["architectures"] == before["architectures"]
        assert after["text_config"]["intermediate_size"] < before["text_config"]["intermediate_size"]
    else:
        assert after["secateur_layers"][0] != after["secateur_layers"][1]
    assert changed_outside_blocks(gemma, artifact) == []


def test_a_recovery_trains_the_language_model_alone(gemma: Composite, tmp_path: Path) -> None:
    opened = open_model(gemma.folder, discovered=gemma.family)
    request = Recovery(method="finetune", steps=2, batch_size=2, learning_rate=1e-2)
    linears = [each.name for each in opened.description.linears]
    done = recover(opened, request, gemma.tokens, linears=linears, work=tmp_path)
    artifact = tmp_path / "artifact"
    write_checkpoint(done.files, done.unchanged, gemma.folder, artifact)
    assert done.trained_parameters == opened.description.parameters - opened.description.other_module_parameters
    assert {gemma.family.module_name(name) for name in changed_outside_blocks(gemma, artifact)} == {
        "model.language_model.embed_tokens.weight",
        "model.language_model.norm.weight",
    }


def test_a_part_that_config_json_leaves_out_and_a_class_that_drops_the_others_are_refused(gemma: Composite) -> None:
    config, tensors = read_config(gemma.folder), stored_tensors(gemma.folder, None)
    without = {name: value for name, value in config.items() if name != "text_config"}
    with pytest.raises(UnusableModel, match="no object 'text_config'"):
        discover(without, tensors)
    with pytest.raises(UnsupportedArchitecture, match="opens only its language model"):
        discover({"model_type": "qwen3_5", "architectures": ["Qwen3_5ForCausalLM"]}, tensors)
