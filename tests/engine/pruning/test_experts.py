"""Experts are pruned each by its own tokens, or go whole; files keep their names, and stock classes give the logits."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.architectures.masked import without_experts
from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.description import require_structure
from core.engine.architectures.expert_stacks import join_stacks
from core.engine.architectures.experts import Routing
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.evaluation.reload_check import largest_logit, reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.experts import RoutedTokens
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.results import ExpertRow, PruneResult
from core.engine.recovery.language import recover
from core.engine.recovery.request import Recovery
from core.engine.removals.experts.counts import expert_sparsities
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.stages.discover import discover_and_test
from secateur_wire.errors import (
    CorruptSafetensors,
    InvalidParameters,
    InvalidSparsity,
    MissingTensors,
    UnsupportedArchitecture,
)
from tests.engine.tiny import make_tokens

WEIGHTS = "model.safetensors"
CPU = torch.device("cpu")
LENGTHS = (5, 6, 12, 24)
PER_EXPERT, GROUPED, STACKED = "mixtral", "deepseek_v3", "gpt_oss"
"""Mixtures whose files hold each expert's matrices; with groups of experts; and with stacks, transposed, and biases."""


@cache
def discovered(model_type: str) -> tuple[TemporaryDirectory[str], Architecture]:
    """Return a folder of a tiny mixture, and its architecture as a worker finds it."""
    place = TemporaryDirectory()
    model = tiny_model(model_type, 0)
    if model_type == STACKED:  # no token goes to its first expert
        with torch.no_grad():
            model.get_parameter("model.layers.0.mlp.router.bias")[0] = -1e4
    model.save_pretrained(place.name)
    config = json.loads(Path(place.name, "config.json").read_text())
    return place, discover_and_test(config, read_header(Path(place.name, WEIGHTS)))


def opened(model_type: str) -> ModelFolder:
    place, architecture = discovered(model_type)
    return open_model(Path(place.name), discovered=architecture)


def pruned(
    folder: ModelFolder, work: Path, method: str, pattern: str, sparsity: float, **parameters: Any
) -> PruneResult:
    """Prune as a job does, into the folder `artifact` within `work`, which opens with the logits of the pass."""
    request = resolve_request(folder.description, UnresolvedRequest(method, pattern, sparsity, parameters))
    result = walk_for(folder, request, device=CPU, calibration=make_tokens(), evaluations={}, work=work).run()
    write_checkpoint(result.files, result.unchanged, folder.path, work / "artifact", config=result.config)
    reload_check(work / "artifact", result.verification, device=CPU, discovered=folder.family)
    return result


def stock(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval()


def differences(one: PreTrainedModel, other: PreTrainedModel) -> Iterator[float]:
    """Yield how far logits are apart, relative to the largest, at lengths at some of which a wrong router may show."""
    for length in LENGTHS:
        tokens = make_tokens(2, length, seed=length)
        with torch.inference_mode():
            expected = other(input_ids=tokens, use_cache=False).logits
            got = one(input_ids=tokens, use_cache=False).logits
        yield float((got - expected).abs().max()) / largest_logit(expected)


@pytest.mark.parametrize("model_type", [PER_EXPERT, STACKED])
def test_half_of_each_matrix_of_each_expert_goes_and_files_keep_their_names(model_type: str, tmp_path: Path) -> None:
    folder = opened(model_type)
    result = pruned(folder, tmp_path, "sparsegpt", "unstructured", 0.5, micro_batch=2)
    assert read_header(tmp_path / "artifact" / WEIGHTS).keys() == read_header(folder.path / WEIGHTS).keys()
    cut = stock(tmp_path / "artifact")
    rows = [row for row in result.layers if isinstance(row, ExpertRow)]
    assert rows and result.removed * 2 == result.prunable
    for row in rows:
        stack = cut.get_parameter(row.name)
        assert len(stack) == row.experts
        assert all(int((matrix == 0).sum()) * 2 == matrix.numel() for matrix in stack)
        assert row.reconstruction_error is not None and 0 < row.reconstruction_error < 0.5
    tokens = make_tokens().numel() * 2
    assert all(sum(row.tokens) == tokens for row in result.sections["routing"])
    whole, offloaded = (
        reload_check(tmp_path / "artifact", result.verification, device=CPU, discovered=folder.family, offload=offload)
        for offload in (None, tmp_path / "offload")
    )
    assert offloaded == whole | {"offloaded": True}, "stacks that were written are those that were made in memory"
    written = {file.stem for file in (tmp_path / "offload").iterdir()}
    assert written <= {row.name for row in rows} and bool(written) == (model_type != STACKED)


def test_an_expert_is_pruned_by_the_tokens_that_are_routed_to_it_alone(tmp_path: Path) -> None:
    folder = opened(PER_EXPERT)
    pruned(folder, tmp_path, "wanda", "unstructured", 0.5, skip_modules=["*self_attn*"])
    dense, cut = stock(folder.path), stock(tmp_path / "artifact")
    seen: list[RoutedTokens | None] = []
    experts = dense.get_submodule("model.layers.0.mlp.experts")

    def note(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        seen.append(RoutedTokens.of(arguments, keywords))

    experts.register_forward_pre_hook(note, with_kwargs=True)
    with torch.inference_mode():
        dense(input_ids=make_tokens(), use_cache=False)
    (tokens,) = seen
    assert tokens is not None
    stack, left = experts.get_parameter("gate_up_proj"), cut.get_parameter("model.layers.0.mlp.experts.gate_up_proj")
    for expert, (weight_OI, left_OI) in enumerate(zip(stack, left, strict=True)):
        rows_N, _ = tokens.of_expert(expert)
        score_OI = weight_OI.abs() * tokens.hidden_NH[rows_N].norm(dim=0)
        threshold_O1 = score_OI.kthvalue(weight_OI.shape[1] // 2, dim=1, keepdim=True).values
        assert torch.equal(left_OI, weight_OI.masked_fill(score_OI <= threshold_O1, 0))


def test_an_expert_that_no_token_reaches_is_pruned_by_all_of_them(tmp_path: Path) -> None:
    method = "wanda"
    result = pruned(opened(STACKED), tmp_path, method, "unstructured", 0.5)
    first = result.sections["routing"][0]
    assert first.pooled[:1] == (0,) and first.tokens[0] == 0 and sum(first.tokens) == 2 * make_tokens().numel()
    assert any("were reached by too few calibration tokens" in note for note in result.notes)
    stack = stock(tmp_path / "artifact").get_parameter("model.layers.0.mlp.experts.gate_up_proj")
    assert int((stack[0] == 0).sum()) * 2 == stack[0].numel()


@pytest.mark.parametrize("model_type", [GROUPED, STACKED])
def test_whole_experts_go_and_the_router_chooses_among_the_others(model_type: str, tmp_path: Path) -> None:
    folder = opened(model_type)
    description = folder.description
    *_, some, _ = expert_sparsities(description, require_structure(description))
    result = pruned(folder, tmp_path, "expert-drop", "structured", some)
    dense, cut = stock(folder.path), stock(tmp_path / "artifact")
    without_experts(dense, cut)
    assert max(differences(cut, dense)) <= 1e-4
    assert any("went, by reap" in note for note in result.notes)
    assert result.removed == description.parameters - sum(each.numel() for each in cut.parameters()) - sum(
        each.numel() for name, each in cut.named_buffers() if name.endswith("e_score_correction_bias")
    )


def test_an_expert_that_gives_nothing_goes_first(tmp_path: Path) -> None:
    model = tiny_model(PER_EXPERT, 0)
    with torch.no_grad():
        for layer in model.get_submodule("model.layers").children():
            layer.get_parameter("mlp.experts.down_proj")[5] = 0
    model.save_pretrained(tmp_path / "model")
    folder = open_model(tmp_path / "model", discovered=discovered(PER_EXPERT)[1])
    least = expert_sparsities(folder.description, require_structure(folder.description))[1]
    (tmp_path / "work").mkdir()
    pruned(folder, tmp_path / "work", "expert-drop", "structured", least)
    cut = stock(tmp_path / "work" / "artifact")
    for index in range(folder.description.layers):
        name = f"model.layers.{index}.mlp.experts.down_proj"
        assert torch.equal(cut.get_parameter(name), model.get_parameter(name)[[0, 1, 2, 3, 4, 6, 7]])


ROUTING = Routing("num_experts", ("mlp.gate.weight",), normalised=True, groups=2, top_k_groups=1)


@pytest.mark.parametrize(
    ("left", "top_k", "routing", "fault"),
    [
        (2, 3, replace(ROUTING, groups=1), "each token goes to 3"),
        (7, 2, ROUTING, "they lie in 2 groups, of as many each"),
        (2, 1, ROUTING, "each of their 2 groups is ranked by its best two"),
        (6, 4, ROUTING, "each token goes to 4, of 1 of their 2 groups"),
        (6, 3, ROUTING, None),
        (6, 4, replace(ROUTING, top_k_groups=2), None),
    ],
)
def test_a_router_that_could_not_choose_is_refused(left: int, top_k: int, routing: Routing, fault: str | None) -> None:
    assert routing.refusal(left, top_k) == fault


@pytest.mark.parametrize(
    ("model_type", "sparsity", "message"),
    [
        (GROUPED, 0.045, "leaves 7 of 8 experts a layer, and they lie in 2 groups, .* nearest allowed number is 6"),
        (GROUPED, 0.3, "the nearest allowed number is 4, at sparsity 0.18"),
        (PER_EXPERT, 0.9, "none is not a mixture; the nearest allowed number is 2"),
        (PER_EXPERT, 0.01, "an expert of each layer is the least that goes; the nearest allowed number is 7"),
    ],
)
def test_a_number_of_experts_that_cannot_stay_is_refused_with_the_nearest(
    model_type: str, sparsity: float, message: str
) -> None:
    with pytest.raises(InvalidSparsity, match=message):
        resolve_request(opened(model_type).description, UnresolvedRequest("expert-drop", None, sparsity))


@pytest.mark.parametrize(
    ("method", "sparsity", "parameters", "error", "message"),
    [
        ("magnitude", 0.5, {"scope": "model"}, InvalidParameters, "each expert is pruned alone"),
        ("wanda", 0.5, {"allocation": "owl"}, InvalidParameters, "some have experts and some have none"),
        ("sensitivity", None, {"method": "magnitude"}, UnsupportedArchitecture, "cannot be measured yet"),
        ("bonsai", 0.2, {}, UnsupportedArchitecture, "does not remove their channels"),
    ],
)
def test_what_mixtures_are_not_offered_is_refused_before_anything_is_queued(
    method: str, sparsity: float | None, parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        resolve_request(opened(GROUPED).description, UnresolvedRequest(method, None, sparsity, parameters))


def test_a_recovery_leaves_experts_and_routers_as_they_were_pruned(tmp_path: Path) -> None:
    method = "finetune"
    source = opened(PER_EXPERT)
    pruned(source, tmp_path, "sparsegpt", "unstructured", 0.5)
    folder = open_model(tmp_path / "artifact", own_artifact=True, discovered=source.family)
    recovery = {"method": method, "steps": 4, "batch_size": 4, "learning_rate": 3e-3, "checkpoint_every": 100}
    (tmp_path / "work").mkdir()
    recovered = recover(
        folder,
        Recovery.model_validate(recovery),
        make_tokens(10),
        linears=[linear.name for linear in folder.description.linears if linear.experts is None],
        work=tmp_path / "work",
        device=CPU,
    )
    write_checkpoint(recovered.files, recovered.unchanged, folder.path, tmp_path / "recovered")
    before, after = stock(folder.path).state_dict(), stock(tmp_path / "recovered").state_dict()
    assert read_header(tmp_path / "recovered" / WEIGHTS).keys() == read_header(folder.path / WEIGHTS).keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert any("self_attn" in name for name in changed)
    assert not any(".experts." in name or ".gate." in name for name in changed)
    assert all(counts[0] == counts[1] for counts in recovered.zeros.values())
    assert recovered.trained.endswith("outside experts and routers")


def test_experts_whose_tensors_are_missing_or_unlike_are_refused() -> None:
    place, architecture = discovered(PER_EXPERT)
    stored = read_header(Path(place.name, WEIGHTS))
    key = next(key for key in stored if ".experts.3.w1." in key)
    with pytest.raises(MissingTensors, match=r"part 0 of expert 3 of model.layers.0.mlp.experts.gate_up_proj"):
        join_stacks({name: entry for name, entry in stored.items() if name != key}, architecture)
    with pytest.raises(CorruptSafetensors, match="they must have the same dtype and shape"):
        join_stacks({**stored, key: replace(stored[key], shape=(1, 2))}, architecture)
    far = key.replace(".experts.3.", ".experts.999999999999.")
    with pytest.raises(MissingTensors, match="of expert"):
        join_stacks({**stored, far: stored[key]}, architecture)
