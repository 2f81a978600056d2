"""Experts and routers that are left, fitted to what the dense model's layers gave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine.architectures.description import require_structure
from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.experts import stored_tensors
from core.engine.models.folder import ModelFolder
from core.engine.pruning.results import PruneResult
from core.engine.removals.experts.counts import expert_sparsities
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from tests.engine.pruning.test_experts import CPU, GROUPED, STACKED, opened, stock
from tests.engine.sweeping import tensors_of
from tests.engine.tiny import make_tokens

NO_REFIT = {"refit": 0}
ALL_THE_WAY = {"refit": 1.0}


def half_of_experts(folder: ModelFolder) -> float:
    """The sparsity of as many experts gone as are in the middle of those that can."""
    sparsities = expert_sparsities(folder.description, require_structure(folder.description))
    return sparsities[len(sparsities) // 2]


def dropped(
    folder: ModelFolder, work: Path, *, tokens: Tensor | None = None, sparsity: float | None = None, **given: Any
) -> PruneResult:
    """Remove experts as a job does; a progress and previous attempts may be given, beside parameters."""
    setting = {name: given.pop(name) for name in ("progress", "previous") if name in given}
    share = half_of_experts(folder) if sparsity is None else sparsity
    request = resolve_request(
        folder.description, UnresolvedRequest("expert-drop", "structured", share, given, is_calibrated=True)
    )
    calibration = make_tokens(16) if tokens is None else tokens
    work.mkdir(parents=True, exist_ok=True)
    return walk_for(folder, request, device=CPU, calibration=calibration, evaluations={}, work=work, **setting).run()


def save(result: PruneResult, folder: ModelFolder, artifact: Path) -> None:
    """Save what is left, and require that it opens with the logits that the pass had in memory."""
    write_checkpoint(result.files, result.unchanged, folder.path, artifact, config=result.config)
    reload_check(artifact, result.verification, device=CPU, discovered=folder.family)


def divergence(folder: Path, cut: Path, tokens: Tensor) -> float:
    """Mean KL divergence of the cut model's predictions from the dense one's, in nats a token."""
    with torch.inference_mode():
        dense, left = (
            stock(each)(input_ids=tokens, use_cache=False).logits.double().log_softmax(-1) for each in (folder, cut)
        )
    return float((dense.exp() * (dense - left)).sum(-1).mean())


def test_on_the_tokens_it_is_fitted_to_a_layer_comes_closer(tmp_path: Path) -> None:
    """And what stock classes open gives what the pass had in memory: with stacks and biases."""
    folder = opened(STACKED)
    found = []
    for compensation in (NO_REFIT, ALL_THE_WAY):
        work = tmp_path / f"{compensation['refit']}"
        result = dropped(folder, work, compensation=compensation)
        save(result, folder, work / "artifact")
        found.append(divergence(folder.path, work / "artifact", make_tokens(16)))
    assert found[1] < found[0] * 0.5
    assert result.sections["experts"]
    for row in result.sections["experts"]:
        assert row.routing is not None and row.routing.error is not None and row.routing.refitted is not None
        assert row.routing.refitted < row.routing.error


@pytest.mark.parametrize("compensation", [{"refit": "auto"}, {"refit": 1.0, "ridge": 1e-6}], ids=str)
def test_no_fit_is_kept_that_makes_the_error_grow(compensation: dict[str, Any], tmp_path: Path) -> None:
    """The error counts on the tokens fitted to or, with a chosen α, on those held aside; noise leaves little to fit."""
    result = dropped(opened(STACKED), tmp_path, compensation=compensation)
    assert len(result.sections["experts"]) == 2
    for row in result.sections["experts"]:
        assert row.routing is not None and row.routing.error is not None and row.routing.refitted is not None
        assert row.routing.refitted <= row.routing.error


def test_where_all_experts_stay_nothing_changes(tmp_path: Path) -> None:
    folder = opened(GROUPED)
    result = dropped(folder, tmp_path, sparsity=0.0, compensation=ALL_THE_WAY)
    names = [f"{folder.family.blocks}.{index}" for index in range(folder.description.layers)]
    dense = stock(folder.path)
    whole = {name: each for name, each in dense.state_dict().items() if name.startswith(tuple(names))}
    expected = stored_tensors(folder.family, whole)
    left = tensors_of(result)
    assert left and all(torch.equal(tensor, expected[name]) for name, tensor in left.items())
    assert not result.sections["experts"] and not result.refits


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
    save(result, folder, tmp_path / "artifact")
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
