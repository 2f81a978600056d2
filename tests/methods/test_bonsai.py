"""Bonsai: masked is removed, the regression finds what matters, and choices meet the counts round by round."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from core.engine.architectures.units import removed_kinds
from core.engine.models.folder import open_model
from core.engine.pruning.units.removal import KeptUnits, UnitCounts, layer_unit_sets
from core.engine.resume.kinds import SELECTION
from core.methods.bonsai import UnitMasks, kendall_tau, lasso, regress, ridge
from tests.engine.pruning.test_structured import edit, removal, save
from tests.engine.resuming import saved_state
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

FEW = {"masks_per_round": 20, "round_share": 0.1, "sequences": 4}


def chosen(work: Path) -> KeptUnits:
    return KeptUnits(layers=UnitCounts.model_validate(saved_state(work, SELECTION)).kept or {})


def masks_of(folder: Path, model: torch.nn.Module, attention: Any) -> UnitMasks:
    opened = open_model(folder)
    structure = opened.description.structure
    assert structure is not None
    blocks = model.get_submodule(opened.family.blocks)
    assert isinstance(blocks, torch.nn.ModuleList)
    unit_sets = [
        layer_unit_sets(opened.family, structure, layer, removed_kinds(attention)) for layer in range(len(blocks))
    ]
    return UnitMasks(list(blocks), unit_sets)


@pytest.mark.parametrize(
    ("name", "attention"),
    [("llama", "kv_groups"), ("phi3", "query_heads"), ("gpt2", "none")],
)
def test_a_model_with_units_masked_gives_the_logits_of_one_without_them(
    name: str, attention: Any, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "model", name)
    result = removal(
        folder, tmp_path / "work", "random-structured", 0.25, parameters={"attention": attention, "round_to": 1}
    )
    kept = chosen(tmp_path / "work")
    tokens = make_tokens(2)
    sliced = AutoModelForCausalLM.from_pretrained(save(result, folder, tmp_path / "sliced")).eval()
    whole = AutoModelForCausalLM.from_pretrained(folder).eval()
    masks = masks_of(folder, whole, attention)
    kept_U = masks.kept_by(kept)
    assert attention == "none" or any("heads" in each for each in kept.layers.values())
    assert 0 < kept_U.sum() < len(masks)
    with torch.inference_mode():
        dense, expected = whole(input_ids=tokens).logits, sliced(input_ids=tokens).logits
        with masks.masked(kept_U):
            masked = whole(input_ids=tokens).logits
        torch.testing.assert_close(masked, expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(dense, expected, atol=1e-3)
        assert torch.equal(whole(input_ids=tokens).logits, dense), "no mask is left behind"


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_prior_is_mean_weight_times_rms_activation_of_what_is_still_there(name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", name)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    masks = masks_of(folder, model, "none" if name == "gpt2" else "kv_groups")
    kept_U = torch.arange(len(masks)) % 5 != 0
    reader = open_model(folder).family.sublayers[1].output
    module = model.get_submodule(f"{open_model(folder).family.blocks}.1.{reader}")
    seen: list[torch.Tensor] = []
    with torch.inference_mode(), masks.masked(kept_U), masks.recorded_statistics([None, None]) as statistics:
        module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        for batch in make_tokens(6).split(4):
            model(input_ids=batch)
        prior_U = masks.output_magnitudes(statistics)
    inputs_NF = torch.cat([each.flatten(0, 1) for each in seen])
    weight = module.get_parameter("weight").detach()
    columns = weight if name == "gpt2" else weight.T
    expected_F = inputs_NF.square().mean(0).sqrt() * columns.abs().mean(1)
    torch.testing.assert_close(masks.split(prior_U)[1]["channels"], expected_F)
    assert (prior_U[~kept_U] == 0).all() and (prior_U[kept_U] > 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), share=st.sampled_from([0.01, 0.1, 0.5]))
def test_ridge_lasso_and_tau_are_those_of_the_libraries(seed: int, share: float) -> None:
    import scipy.stats  # slow to import, both
    import sklearn.linear_model

    random = numpy.random.default_rng(seed)
    X, y = random.normal(size=(20, 50)), random.normal(size=20)
    penalty = share * float(abs(X.T @ y).max()) / 20
    X_NU, y_N = torch.tensor(X), torch.tensor(y)
    theirs = sklearn.linear_model.Lasso(alpha=penalty, fit_intercept=False, max_iter=100_000, tol=1e-10).fit(X, y).coef_

    def objective(beta: numpy.ndarray) -> float:
        return float(((y - X @ beta) ** 2).sum() / 40 + penalty * abs(beta).sum())

    ours = lasso(X_NU, y_N, penalty, torch.zeros(50).double())
    assert objective(ours.numpy()) <= objective(theirs) * (1 + 1e-2)
    theirs = sklearn.linear_model.Ridge(alpha=20 * share, fit_intercept=False).fit(X, y).coef_
    assert ridge(X_NU, y_N, share).numpy() == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    first, second = random.integers(0, 6, 30), random.integers(0, 6, 30)
    found = kendall_tau(torch.tensor(first).double(), torch.tensor(second).double())
    assert found == pytest.approx(scipy.stats.kendalltau(first, second).statistic)


@pytest.mark.parametrize(("dense", "penalty"), [(True, "L2"), (False, "L1")])
def test_importance_is_found_from_fewer_masks_than_units(dense: bool, penalty: str) -> None:
    """Performance a sum over all units, or over a few of them: the penalty that suits is the one chosen."""
    generator = torch.Generator().manual_seed(0)
    units, pairs = 60, 25
    worth_U = torch.rand(units, generator=generator).double() if dense else torch.zeros(units).double()
    if not dense:
        worth_U[[3, 30, 44]] = torch.tensor([3.0, 2.0, 1.0]).double()
    halves = [torch.randperm(units, generator=generator) < units // 2 for _ in range(pairs)]
    kept_NU = torch.stack([mask for half in halves for mask in (half, ~half)])
    found = regress(kept_NU, kept_NU.double() @ worth_U - 20, generator)
    assert found.penalty == penalty
    assert found.tau > 0.4
    if dense:
        assert torch.corrcoef(torch.stack([found.importance_U, worth_U]))[0, 1] > 0.6
    else:
        assert found.importance_U.argsort(descending=True)[:3].tolist() == [3, 30, 44]


def test_rounds_that_follow_one_another_end_at_the_counts_and_take_the_silent_channels(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama")

    def silence_half(weight: torch.Tensor) -> None:
        weight[:, 8:32] = 0

    edit(folder, {f"model.layers.{layer}.mlp.down_proj.weight": silence_half for layer in range(3)})
    progress = Watching()
    result = removal(
        folder, tmp_path / "work", "bonsai", 0.25, parameters=FEW | {"attention": "none", "round_to": 1},
        evaluations={"text": make_tokens(seed=1)}, progress=progress,
    )  # fmt: skip
    kept = [each["channels"] for each in chosen(tmp_path / "work").layers.values()]
    assert all(24 <= len(each) < 48 and {*range(8), *range(32, 48)} <= {*each} for each in kept)
    assert result.perplexity["text"].pruned == pytest.approx(result.perplexity["text"].dense, rel=1e-5)
    rounds = [line for line in progress.logs if line.startswith("round")]
    assert len(rounds) > 2 and all("Kendall's τ" in line for line in rounds)
