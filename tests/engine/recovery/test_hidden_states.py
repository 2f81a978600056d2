"""Losses of distillation: values and gradients of the divergence and of the error of hidden states."""

from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from core.engine.models.folder import open_model
from core.engine.recovery.completion import check_matching, complete_image_recovery
from core.engine.recovery.distill import matched_layers, mean_error, relative_error
from core.engine.recovery.losses import Labels, divergence
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import Teacher
from secateur_wire.errors import InvalidRequest
from tests.engine.recovering import tiny_lora, train
from tests.engine.tiny import make_model


def states(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_its_gradient_is_that_of_finite_differences_and_it_is_zero_where_nothing_differs() -> None:
    given, wanted = states(0, 2, 5, 7).requires_grad_(), states(1, 2, 5, 7)
    assert torch.autograd.gradcheck(partial(relative_error, wanted_BTH=wanted), (given,))
    pairs = [states(seed, 2, 3, 4).requires_grad_() for seed in (2, 3)], [states(seed, 2, 3, 4) for seed in (3, 2)]
    assert torch.autograd.gradcheck(lambda *given: mean_error(given, pairs[1]), pairs[0])
    assert relative_error(wanted, wanted) == 0 and relative_error(torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)) == 0


def test_every_dimension_is_measured_by_its_own_size_and_no_first_token_rules_it() -> None:
    given, wanted = states(0, 3, 6, 4), states(1, 3, 6, 4)
    by_hand_BH = (given - wanted).square().sum(1) / wanted.square().sum(1)
    torch.testing.assert_close(relative_error(given, wanted), by_hand_BH.mean())
    massive = wanted.clone()
    massive[:, 0, 3] = 1e4
    off = (massive + 0.1 * massive.mean(-1, keepdim=True)).detach()
    assert relative_error(off, massive) > 100, "what is off by as much in small dimensions is seen beside the large one"
    hardly_there = wanted * torch.tensor([1.0, 1.0, 1.0, 1e-9])
    assert relative_error(hardly_there + 1e-3, hardly_there) < 1e-3, "a dimension of no size is no reason for an error"


@pytest.mark.parametrize(
    ("layers", "removed", "matched"),
    [(4, [], [0, 1, 2, 3]), (6, [2, 3], [0, 3, 4, 5]), (6, [0, 2, 5], [2, 3, 5])],
)
def test_a_layer_is_matched_with_the_last_before_the_next_that_is_left(
    layers: int, removed: list[int], matched: list[int]
) -> None:
    assert matched_layers(layers, removed) == matched


def test_a_model_without_the_layers_that_did_nothing_has_no_error(tmp_path: Path) -> None:
    dense = make_model(tmp_path / "dense", num_hidden_layers=4)
    whole = load_file(dense / "model.safetensors")
    for layer in (2, 3):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            whole[f"model.layers.{layer}.{name}.weight"].zero_()
    save_file(whole, dense / "model.safetensors", {"format": "pt"})
    left = make_model(tmp_path / "left", num_hidden_layers=2)
    kept = {name: whole[name] for name in load_file(left / "model.safetensors")}
    save_file(kept, left / "model.safetensors", {"format": "pt"})
    asked = Recovery(method="distill", lora=tiny_lora(), hidden_states=0.5, steps=1, batch_size=4)
    errors = {}
    for removed in ((2, 3), (1, 2)):
        recovered = train(
            left, tmp_path / f"work{removed}", asked, teacher=Teacher(open_model(dense), "dense"),
            removed_layers=removed,
        )  # fmt: skip
        errors[removed] = recovered.hidden_errors
        assert len(recovered.hidden_errors) == len(recovered.losses) == 1
    assert errors[2, 3][0] == 0, "no block that is left has anything to learn"
    assert errors[1, 2][0] > 0.01, "were it others that are gone, the first block would have"


def test_what_cannot_be_matched_is_refused_by_name(tmp_path: Path) -> None:
    asked = Recovery(method="distill", hidden_states=1.0)
    model, narrow, shallow = (
        open_model(make_model(tmp_path / str(number), **changes)).description
        for number, changes in enumerate([{}, {"hidden_size": 16}, {"num_hidden_layers": 2}])
    )
    check_matching(asked, shallow, model, [1])
    with pytest.raises(InvalidRequest, match="have 16 values, but the teacher's have 32"):
        check_matching(asked, narrow, model)
    with pytest.raises(InvalidRequest, match="has 2 layers and the teacher 3"):
        check_matching(asked, shallow, model)
    with pytest.raises(InvalidRequest, match="is only for language models"):
        complete_image_recovery(asked)


WORDS = 12


def logits_of(seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Given, which take gradients, and wanted, of five tokens."""
    generator = torch.Generator().manual_seed(seed)
    given_NV, wanted_NV = torch.randn(2, 5, WORDS, generator=generator) * spread
    return given_NV.requires_grad_(), wanted_NV


def by_definition(given_NV: Tensor, wanted_NV: Tensor, temperature: float) -> Tensor:
    given_log, wanted_log = (functional.log_softmax(each / temperature, -1) for each in (given_NV, wanted_NV))
    return functional.kl_div(given_log, wanted_log, reduction="batchmean", log_target=True) * temperature**2


@settings(max_examples=20)
@given(
    st.integers(0, 2**20),
    st.sampled_from([0.1, 1.0, 8.0]),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([None, [1, 0, 11, 3, 3], [-1, 7, 7, -1, 2], [-1] * 5]),
)
def test_value_and_gradient_are_those_of_the_definition(
    seed: int, spread: float, temperature: float, right: list[int] | None
) -> None:
    given_NV, wanted_NV = logits_of(seed, spread)
    exact = by_definition(given_NV, wanted_NV, temperature)
    labels = None if right is None else Labels(torch.tensor(right), 0.3)
    if labels is not None:
        exact = 0.7 * exact
        if any(each >= 0 for each in right or []):
            exact = exact + 0.3 * functional.cross_entropy(given_NV, labels.labels_N, ignore_index=-1)
    (slope,) = torch.autograd.grad(2 * exact, given_NV)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.engine.recovery.losses._ROWS_BYTES", 4 * WORDS * 2)  # two rows at a time
        value = divergence(given_NV, wanted_NV, temperature, labels)
        torch.testing.assert_close(value, exact, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.autograd.grad(2 * value, given_NV)[0], slope, rtol=1e-4, atol=1e-5)
