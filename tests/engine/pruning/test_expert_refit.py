"""Experts and routers that are left, fitted to what the dense model's layers gave."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.description import require_structure
from core.engine.evaluation.reload_check import reload_check
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.experts import stored_tensors
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.compensation import expert_refit
from core.engine.pruning.results import PruneResult
from core.engine.removals.experts.counts import expert_sparsities
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.progress import WorkStopped
from tests.engine.pruning.test_experts import CPU, GROUPED, PER_EXPERT, STACKED, discovered, opened, stock
from tests.engine.sweeping import tensors_of
from tests.engine.tiny import make_tokens
from tests.engine.watching import Watching

NO_REFIT = {"refit": 0}
ALL_THE_WAY = {"refit": 1.0}
TYPES = [PER_EXPERT, GROUPED, STACKED]


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


@pytest.mark.parametrize("model_type", [pytest.param(PER_EXPERT, marks=pytest.mark.nightly), GROUPED, STACKED])
def test_on_the_tokens_it_is_fitted_to_a_layer_comes_closer(model_type: str, tmp_path: Path) -> None:
    """And what stock classes open gives what the pass had in memory: with groups, and stacks with biases."""
    folder = opened(model_type)
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


@pytest.mark.parametrize(
    "compensation", [{"refit": "auto"}, {"refit": 0.1, "ridge": 10}, {"refit": 1.0, "ridge": 1e-6}], ids=str
)
def test_no_fit_is_kept_that_makes_the_error_grow(compensation: dict[str, Any], tmp_path: Path) -> None:
    """The error counts on the tokens fitted to or, with a chosen α, on those held aside; noise leaves little to fit."""
    result = dropped(opened(STACKED), tmp_path, compensation=compensation)
    assert len(result.sections["experts"]) == 2
    for row in result.sections["experts"]:
        assert row.routing is not None and row.routing.error is not None and row.routing.refitted is not None
        assert row.routing.refitted <= row.routing.error


@pytest.mark.parametrize("model_type", TYPES)
def test_where_all_experts_stay_nothing_changes(model_type: str, tmp_path: Path) -> None:
    folder = opened(model_type)
    result = dropped(folder, tmp_path, sparsity=0.0, compensation=ALL_THE_WAY)
    names = [f"{folder.family.blocks}.{index}" for index in range(folder.description.layers)]
    dense = stock(folder.path)
    whole = {name: each for name, each in dense.state_dict().items() if name.startswith(tuple(names))}
    expected = stored_tensors(folder.family, whole)
    left = tensors_of(result)
    assert left and all(torch.equal(tensor, expected[name]) for name, tensor in left.items())
    assert not result.sections["experts"] and not result.refits


def test_a_trained_mixture_predicts_text_it_was_not_fitted_to_more_like_the_dense_one(tmp_path: Path) -> None:
    model = tiny_model(PER_EXPERT, 0).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(25):
        tokens = _text(32, seed=100 + step)
        optimiser.zero_grad()
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
        optimiser.step()
    model.save_pretrained(tmp_path / "model")
    folder = open_model(tmp_path / "model", discovered=discovered(PER_EXPERT)[1])
    found = []
    for name, compensation in (("plain", {"compensation": NO_REFIT}), ("fitted", {})):
        result = dropped(folder, tmp_path / name, tokens=_text(64, seed=1), **compensation)
        save(result, folder, tmp_path / name / "artifact")
        found.append(divergence(folder.path, tmp_path / name / "artifact", _text(32, seed=2)))
    assert found[1] < found[0] * 0.8
    assert any("chosen on tokens held aside" in note for note in result.notes)


def _text(sequences: int, *, seed: int) -> Tensor:
    """Return random text of one chain, in which what follows hangs on the token before: [sequences, 24]."""
    following = torch.randn(96, 96, generator=torch.Generator().manual_seed(0)).mul(3).softmax(-1)
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(96, (sequences,), generator=generator)]
    while len(columns) < 24:
        columns.append(torch.multinomial(following[columns[-1]], 1, generator=generator).flatten())
    return torch.stack(columns, dim=1)


def test_a_walk_that_was_cut_off_ends_with_the_same_bytes_and_report(tmp_path: Path) -> None:
    folder = opened(PER_EXPERT)
    whole = dropped(folder, tmp_path / "whole")
    with pytest.raises(WorkStopped):
        dropped(folder, tmp_path / "one", progress=Watching(stop_after=1))
    again = dropped(folder, tmp_path / "two", previous=[tmp_path / "one"])
    assert again.resumed_from == 1
    assert [file.read_bytes() for file in again.files] == [file.read_bytes() for file in whole.files]
    assert again.sections == whole.sections and again.refits == whole.refits and again.notes == whole.notes


def test_where_all_text_is_held_aside_nothing_is_fitted(tmp_path: Path) -> None:
    folder = opened(PER_EXPERT)
    plain, fitted = (
        tensors_of(dropped(folder, tmp_path / name, tokens=make_tokens(1), **given))
        for name, given in (("plain", {"compensation": NO_REFIT}), ("fitted", {}))
    )
    assert all(torch.equal(tensor, fitted[name]) for name, tensor in plain.items())


def test_a_router_that_nothing_is_known_of_stays_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_refit, "router_tensors", lambda experts, present: [])
    folder = opened(PER_EXPERT)
    plain = tensors_of(dropped(folder, tmp_path / "plain", compensation=NO_REFIT))
    result = dropped(folder, tmp_path / "fitted", compensation=ALL_THE_WAY)
    changed = {name for name, tensor in tensors_of(result).items() if not torch.equal(tensor, plain[name])}
    assert changed and all(".w2." in name for name in changed)
    assert any("experts alone were refitted" in note for note in result.notes)


def test_half_precision_is_fitted_as_it_is_saved(tmp_path: Path) -> None:
    place = tmp_path / "model"
    tiny_model(STACKED, 0).to(torch.bfloat16).save_pretrained(place)
    folder = open_model(place, discovered=discovered(STACKED)[1])
    found = []
    for compensation in (NO_REFIT, ALL_THE_WAY):
        work = tmp_path / f"{compensation['refit']}"
        result = dropped(folder, work, compensation=compensation)
        assert {each.dtype for each in tensors_of(result).values()} == {torch.bfloat16}
        save(result, folder, work / "artifact")
        found.append(divergence(place, work / "artifact", make_tokens(16)))
    assert found[1] < found[0] * 0.5


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


@pytest.mark.parametrize("model_type", [PER_EXPERT, STACKED])
def test_merged_experts_are_the_mean_by_the_tokens_of_each(model_type: str, tmp_path: Path) -> None:
    folder = opened(model_type)
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


def test_what_was_merged_is_refitted_too(tmp_path: Path) -> None:
    folder = opened(PER_EXPERT)
    (first, *_) = dropped(folder, tmp_path, score="random", merge=True, compensation=ALL_THE_WAY).sections["experts"]
    assert first.routing is not None and first.routing.error is not None and first.routing.refitted is not None
    assert first.routing.refitted < first.routing.error
