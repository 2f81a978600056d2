"""Experts are pruned each by its own tokens, or go whole and the others are fitted; stock classes give the logits."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.architectures.masked import without_experts
from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.folder import join_stacks
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.evaluation.reload_check import largest_logit, reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.experts import RoutedTokens
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.hooks import removed_after
from core.engine.pruning.results import ExpertRow, PruneResult
from core.engine.recovery.language import recover
from core.engine.recovery.request import Recovery
from core.engine.removals.experts import expert_sparsities
from core.pipeline.plans import walk_for
from core.pipeline.stages.discover import discover_and_test
from secateur_wire.errors import (
    CorruptSafetensors,
    InvalidParameters,
    InvalidSparsity,
    MissingTensors,
    UnsupportedArchitecture,
)
from secateur_wire.job_body import Layout
from tests.engine.sweeping import request_for
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
    folder: ModelFolder, work: Path, method: str, pattern: str, sparsity: float, *, layout: Layout = "uniform",
    samples: int = 6, **parameters: Any,
) -> PruneResult:  # fmt: skip
    """Prune as a job does, into the folder `artifact` within `work`, which opens with the logits of the pass."""
    request = request_for(folder, method, sparsity, pattern, parameters, layout=layout, is_calibrated=True)
    work.mkdir(parents=True, exist_ok=True)
    tokens = make_tokens(samples)
    result = walk_for(folder, request, device=CPU, calibration=tokens, evaluations={}, work=work).run()
    artifact, family = work / "artifact", folder.family
    write_checkpoint(result.files, result.unchanged, folder.path, artifact, config=result.config, discovered=family)
    reload_check(artifact, result.verification, device=CPU, discovered=family)
    return result


def divergence(folder: Path, narrow: Path, tokens: Tensor) -> float:
    """Mean KL divergence of the cut model's predictions from the dense one's, in nats a token."""
    with torch.inference_mode():
        one, other = (
            stock(each)(input_ids=tokens, use_cache=False).logits.double().log_softmax(-1) for each in (folder, narrow)
        )
    return float((one.exp() * (one - other)).sum(-1).mean())


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


def routed(model: PreTrainedModel, experts: str) -> RoutedTokens:
    """Return the tokens that a model's experts are given of the calibration."""
    seen: list[RoutedTokens | None] = []

    def note(module: nn.Module, arguments: tuple[object, ...], keywords: dict[str, object]) -> None:
        seen.append(RoutedTokens.of(arguments, keywords))

    with (
        removed_after([model.get_submodule(experts).register_forward_pre_hook(note, with_kwargs=True)]),
        torch.inference_mode(),
    ):
        model(input_ids=make_tokens(), use_cache=False)
    (tokens,) = seen
    assert tokens is not None
    return tokens


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
    unreached = (0,) if model_type == STACKED else ()
    assert result.sections["routing"][0].pooled[:1] == unreached, "it is pruned by all tokens"
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
    experts, tokens = dense.get_submodule("model.layers.0.mlp.experts"), routed(dense, "model.layers.0.mlp.experts")
    stack, left = experts.get_parameter("gate_up_proj"), cut.get_parameter("model.layers.0.mlp.experts.gate_up_proj")
    for expert, (weight_OI, left_OI) in enumerate(zip(stack, left, strict=True)):
        rows_N, _ = tokens.of_expert(expert)
        score_OI = weight_OI.abs() * tokens.hidden_NH[rows_N].norm(dim=0)
        threshold_O1 = score_OI.kthvalue(weight_OI.shape[1] // 2, dim=1, keepdim=True).values
        assert torch.equal(left_OI, weight_OI.masked_fill(score_OI <= threshold_O1, 0))


@pytest.mark.parametrize("model_type", [GROUPED, STACKED])
def test_whole_experts_go_and_the_router_chooses_among_the_others(model_type: str, tmp_path: Path) -> None:
    folder = opened(model_type)
    description = folder.description
    *_, some, _ = expert_sparsities(description)
    result = pruned(folder, tmp_path, "expert-drop", "structured", some, compensation=NO_REFIT)
    dense, cut = stock(folder.path), stock(tmp_path / "artifact")
    without_experts(dense, cut)
    assert max(differences(cut, dense)) <= 1e-4
    assert any("went, by reap" in note for note in result.notes)
    assert result.removed == description.parameters - sum(each.numel() for each in cut.parameters()) - sum(
        each.numel() for name, each in cut.named_buffers() if name.endswith("e_score_correction_bias")
    )


@pytest.mark.parametrize(
    ("model_type", "method", "sparsity", "parameters", "error", "message"),
    [
        (GROUPED, "expert-drop", 0.045, {}, InvalidSparsity, "lie in 2 groups, .* nearest allowed number is 6"),
        (GROUPED, "expert-drop", 0.3, {}, InvalidSparsity, "the nearest allowed number is 4, at sparsity 0.18"),
        (PER_EXPERT, "expert-drop", 0.9, {}, InvalidSparsity, "none is not a mixture; the nearest .* number is 2"),
        (PER_EXPERT, "expert-drop", 0.01, {}, InvalidSparsity, "the nearest allowed number is 7"),
        (GROUPED, "magnitude", 0.5, {"scope": "model"}, InvalidParameters, "each expert is pruned alone"),
        (GROUPED, "wanda", 0.5, {"allocation": "owl"}, InvalidParameters, "some have experts and some have none"),
        (GROUPED, "sensitivity", None, {"method": "magnitude"}, UnsupportedArchitecture, "cannot be measured yet"),
        (GROUPED, "bonsai", 0.2, {}, UnsupportedArchitecture, "does not remove their channels"),
    ],
)
def test_what_a_mixture_cannot_lose_is_refused_with_what_it_can(
    model_type: str, method: str, sparsity: float | None, parameters: dict[str, Any], error: type[Exception],
    message: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        request_for(opened(model_type), method, sparsity, None, parameters)


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


NO_REFIT = {"refit": 0}
ALL_THE_WAY = {"refit": 1.0}


def dropped(folder: ModelFolder, work: Path, **given: Any) -> PruneResult:
    """Remove as many experts as are in the middle of those that can go."""
    sparsities = expert_sparsities(folder.description)
    share = sparsities[len(sparsities) // 2]
    return pruned(folder, work, "expert-drop", "structured", share, samples=16, **given)


def test_on_the_tokens_it_is_fitted_to_a_layer_comes_closer(tmp_path: Path) -> None:
    """And what stock classes open gives what the pass had in memory: with stacks and biases."""
    folder = opened(STACKED)
    found = []
    for compensation in (NO_REFIT, ALL_THE_WAY):
        work = tmp_path / f"{compensation['refit']}"
        result = dropped(folder, work, compensation=compensation)
        found.append(divergence(folder.path, work / "artifact", make_tokens(16)))
    assert found[1] < found[0] * 0.5
    assert result.sections["experts"]
    for row in result.sections["experts"]:
        assert row.routing is not None and row.routing.error is not None and row.routing.refitted is not None
        assert row.routing.refitted < row.routing.error


def test_the_report_says_which_stay_by_what_scores_and_where_tokens_go(tmp_path: Path) -> None:
    folder = opened(GROUPED)
    top_k = folder.family.experts.top_k if folder.family.experts else 0
    routed = make_tokens(16).numel() * top_k
    (row,) = dropped(folder, tmp_path / "reap").sections["experts"]
    assert len(row.scores) == 8 and row.routing is not None
    assert sum(row.routing.tokens) == sum(row.routing.tokens_left) == routed
    assert len(row.routing.tokens) == 8 and len(row.routing.tokens_left) == len(row.kept) < 8
    for group in (range(4), range(4, 8)):
        went = [row.scores[expert] for expert in group if expert not in row.kept]
        assert went and max(went) <= min(row.scores[expert] for expert in row.kept if expert in group)
    (by_chance,) = dropped(folder, tmp_path / "random", score="random", compensation=NO_REFIT).sections["experts"]
    assert by_chance.scores == () and by_chance.routing is None


def test_merged_experts_are_the_mean_by_the_tokens_of_each(tmp_path: Path) -> None:
    folder = opened(STACKED)
    given = {"score": "frequency", "compensation": NO_REFIT}
    result = dropped(folder, tmp_path, merge=True, **given)
    dense, cut = stock(folder.path).state_dict(), stock(tmp_path / "artifact").state_dict()
    assert result.sections["experts"]
    for row in result.sections["experts"]:
        prefix = f"{row.name}.mlp.experts."
        own = [name for name in dense if name.startswith(prefix)]
        flat = torch.cat([dense[f"{prefix}{name}"].flatten(1) for name in ("gate_up_proj", "down_proj")], dim=1)
        groups = {expert: [expert] for expert in row.kept}
        for expert in set(range(len(flat))) - set(row.kept):
            likeness = torch.cosine_similarity(flat[expert], flat[list(row.kept)])
            groups[row.kept[int(likeness.argmax())]].append(expert)
        assert any(len(members) > 1 for members in groups.values()) and any("merged" in note for note in result.notes)
        for name in own:
            for left, members in zip(cut[name], groups.values(), strict=True):
                tokens = torch.tensor([row.scores[member] for member in members])
                mean = torch.tensordot(tokens / tokens.sum(), dense[name][members], dims=1)
                torch.testing.assert_close(left, mean if len(members) > 1 and tokens.sum() else dense[name][members[0]])
