"""Models whose architecture nobody listed: opened, streamed and pruned as what was discovered of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bench.architectures.tiny_configs import tiny_model, tokens_of
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.describe import describe_language_model, inspect_folder
from core.engine.architectures.description import ModelDescription, descriptions
from core.engine.architectures.folder import read_tensors, weight_files
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.discovery.discover import discover
from core.engine.evaluation.reload_check import reload_check
from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel, call_block
from core.engine.pruning.streams.stream import RecordedArguments
from core.engine.removals.layers import check_layer_count, first_removable_layers, removable_layers
from core.engine.removals.widths import WidthOptions, plan_width_reduction
from core.methods.descriptions.structured import DepthParameters
from core.pipeline.plans import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from secateur_wire.errors import InvalidParameters, InvalidSparsity, MissingTensors, UnsupportedArchitecture
from secateur_wire.job_body import Layout
from tests.engine.sweeping import save
from tests.engine.tiny import architecture_of, make_model

CPU = torch.device("cpu")


def discovered(folder: Path) -> Architecture:
    tensors = {name: entry for file in weight_files(folder) for name, entry in read_header(file).items()}
    return discover(json.loads((folder / "config.json").read_bytes()), tensors)


def prune_and_reload(folder: Path, family: Architecture, tokens: torch.Tensor, work: Path) -> None:
    """Halve every linear layer, save the model and compare what opens of it."""
    opened = open_model(folder, discovered=family)
    request = resolve_request(opened.description, UnresolvedRequest("wanda", "unstructured", 0.5, {"micro_batch": 1}))
    work.mkdir()
    walk = walk_for(opened, request, device=CPU, calibration=tokens, evaluations={"text": tokens}, work=work)
    result = walk.run()
    artifact = save(result, folder, work / "artifact")
    assert reload_check(artifact, result.verification, device=CPU, discovered=family)["maximum_difference"] < 1e-3
    # What a job reports of its artifact is all that later jobs know of it.
    stored = descriptions.validate_json(open_model(artifact, discovered=family).description.model_dump_json())
    assert isinstance(stored, ModelDescription) and stored.discovered is not None
    again = open_model(artifact, own_artifact=True, discovered=stored.discovered)
    assert [each.name for each in again.description.linears] == [each.name for each in opened.description.linears]
    for linear in again.description.linears:
        zeros = int((again.read(f"{linear.name}.weight") == 0).sum())
        assert abs(zeros / linear.numel - 0.5) < 0.05, linear.name


# Tuples and no choice of positions; layers without attention; state from block to block in several streams of states.
@pytest.mark.parametrize("model_type", ["gptj", "qwen3_5_text", "gemma3n_text"])
def test_blocks_one_by_one_give_the_logits_of_the_whole_model(model_type: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model(model_type, seed=0).save_pretrained(folder)
    family = discovered(folder)
    opened = open_model(folder, discovered=family)
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    streamed = StreamedModel(opened, dtype=torch.float32, device=CPU)
    arguments = RecordedArguments(streamed, torch.float32)
    batches = [tokens_of(whole.config, 1), tokens_of(whole.config, 2), tokens_of(whole.config, 3, length=7)]
    with torch.inference_mode():
        hidden = [streamed.embed(tokens) for tokens in batches]
        for index in range(len(streamed)):  # all batches through one block, then the next: as the passes do
            block = streamed.fill_block(index, streamed.read_block(index), torch.float32)
            for batch, tokens in enumerate(batches):
                hidden[batch] = call_block(block, hidden[batch], arguments.of(tokens)[index])
            streamed.empty_block(index)
        for tokens, ends in zip(batches, hidden, strict=True):
            positions = torch.tensor([0, 4, 6])
            wanted = whole(input_ids=tokens, use_cache=False).logits[:, positions]
            assert torch.allclose(streamed.logits(tokens, ends, positions), wanted, atol=1e-4 * wanted.abs().max())
    tokens = torch.cat([tokens_of(whole.config, seed) for seed in range(3)])
    prune_and_reload(folder, family, tokens, tmp_path / "work")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelDescription]:
    """A description of Llama as if it were discovered, and refused things for reasons."""
    description = inspect_folder(make_model(tmp_path_factory.mktemp("models") / "llama"))

    def refusing(**reasons: str) -> ModelDescription:
        family = replace(architecture_of("llama"), discovered_by="1", refused=reasons)
        return description.model_copy(update={"discovered": family})

    return refusing


@pytest.mark.parametrize(
    ("what", "method", "pattern", "parameters", "error"),
    [
        ("experts", "magnitude", "unstructured", {}, UnsupportedArchitecture),
        ("weights", "magnitude", "2:4", {}, UnsupportedArchitecture),
        ("channels", "l2-structured", None, {}, UnsupportedArchitecture),
        ("heads", "l2-structured", None, {"attention": "kv_groups"}, InvalidParameters),
        ("layers", "depth", None, {}, UnsupportedArchitecture),
        ("per_layer", "l2-structured", None, {}, InvalidParameters),
        ("uniform", "l2-structured", None, {}, InvalidParameters),
        ("resume", "wanda", "unstructured", {"allocation": "fisher"}, InvalidParameters),
    ],
)
def test_what_an_architecture_cannot_be_offered_is_refused_with_the_reason_and_nothing_else_is(
    described: Callable[..., ModelDescription],
    what: str,
    method: str,
    pattern: str | None,
    parameters: dict[str, Any],
    error: type[Exception],
) -> None:
    def resolve(description: ModelDescription) -> object:
        layout: Layout | None = "per_layer" if what == "per_layer" else None
        return resolve_request(description, UnresolvedRequest(method, pattern, 0.5, parameters, layout=layout))

    with pytest.raises(error, match="for such a reason"):
        resolve(described(**{what: "for such a reason"}))
    resolve(described())


def test_a_layer_of_a_kind_that_the_model_cannot_run_without_stays(described: Callable[..., ModelDescription]) -> None:
    """Layers 0 and 2 of three have attention."""
    whole = described()
    linears = [each for each in whole.linears if not (each.layer == 1 and ".self_attn." in each.name)]
    family = replace(whole.known_as, required=("self_attn.o_proj",), discovered_by="a test")
    hybrid = whole.model_copy(update={"linears": linears, "discovered": family})
    assert removable_layers(hybrid) == [0, 1, 2] and removable_layers(hybrid, [0]) == [1]
    assert first_removable_layers(hybrid, [2, 0, 1], 2) == [2, 1]
    check_layer_count(hybrid, 2)
    two_kinds = hybrid.model_copy(
        update={"discovered": replace(family, required=("self_attn.o_proj", "mlp.down_proj"))}
    )
    with pytest.raises(InvalidSparsity, match=r"removes 2 of 3 layers.*self_attn\.o_proj.*: at most 1 can go"):
        check_layer_count(two_kinds, 2)

    middle = [each for each in whole.linears if each.layer == 1 or ".mlp." in each.name]
    with pytest.raises(InvalidParameters, match="in a row"):
        DepthParameters(criterion="angular").check_removed_layers(
            whole.model_copy(update={"linears": middle, "discovered": family}), 2
        )


def test_a_layer_has_the_linear_layers_of_its_kind_and_no_other_kind_is_taken(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    whole = architecture_of("llama")
    config, tensors = json.loads((folder / "config.json").read_bytes()), read_tensors(folder, whole)
    kinds = [
        tuple(sorted(name for name in each if not name.startswith(missing)))
        for each in [{name.removeprefix("model.layers.1.") for name in tensors if ".layers.1." in name}]
        for missing in ("nothing", "self_attn.")
    ]
    family = replace(whole, discovered_by="1", block_kinds=tuple(kinds))
    cut = {name: entry for name, entry in tensors.items() if not name.startswith("model.layers.1.self_attn.")}
    description = describe_language_model(config, cut, family)
    assert [sum(each.layer == layer for each in description.linears) for layer in range(3)] == [7, 3, 7]
    assert description.structure is not None
    assert [each.sizes["heads"] for each in description.structure.layers] == [4, 0, 4]
    resolved = resolve_request(
        description, UnresolvedRequest("l2-structured", None, 0.2, {"round_to": 1, "attention": "kv_groups"})
    )
    assert isinstance(resolved.parameters, WidthOptions)
    plan = plan_width_reduction(description, resolved.parameters, 0.2)
    assert plan.counts is not None
    heads, channels = ([each.units[kind] for each in plan.counts] for kind in ("heads", "channels"))
    assert heads[1] == 0 < heads[0] == heads[2] and len(set(channels)) == 1, "all alike but for what one has not"
    assert sum(each.removed for each in plan.counts) / description.parameters == pytest.approx(0.2, abs=0.02)

    del cut["model.layers.2.mlp.up_proj.weight"]
    with pytest.raises(MissingTensors, match=r"of layer 2 are not those of a block of Llama.*mlp\.up_proj\.weight"):
        describe_language_model(config, cut, family)


def test_a_pass_whose_blocks_read_what_others_made_is_not_resumed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    resumed: list[int] = []
    for refused in ({}, {"resume": "block 1 reads a value from inside block 0"}):
        opened = open_model(folder)
        opened = replace(opened, family=replace(opened.family, refused=refused))
        request = resolve_request(opened.description, UnresolvedRequest("magnitude", "unstructured", 0.5))
        work = tmp_path / f"work-{len(resumed)}"
        previous: list[Path] = []
        for attempt in ("first", "second"):
            (work / attempt).mkdir(parents=True)
            result = walk_for(
                opened, request, device=CPU, calibration=None, evaluations={}, work=work / attempt, previous=previous
            ).run()
            previous = [work / attempt]
        resumed.append(result.resumed_from)
    assert resumed == [3, 0]
