"""The judge's reshaping: what is exact stays exact, and what is cut is fitted."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.judge.__main__ import TEXTS, distilling, measuring, page
from bench.judge.reshape import fitted, kept_basis, least_needed_heads, reshaped, stream_moment
from bench.judge.texts import _JUDGING_MODULES, _held_back, _others
from core.service.jobs.schemas import JobBody

_HIDDEN, _HEAD, _HEADS = 48, 8, 6


def model(*, gains: float) -> LlamaForCausalLM:
    """Return a small model with three query heads for each of two KV heads, whose last gains differ by so much."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=_HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=2,
        head_dim=_HEAD,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    made = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(1 + (gains if name == "model.norm.weight" else 0.5) * torch.rand_like(parameter))
    return made


def logits(of: LlamaForCausalLM, tokens_BT: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return of(input_ids=tokens_BT, use_cache=False).logits


def test_a_rotation_and_a_key_head_for_each_query_head_change_no_prediction() -> None:
    dense, tokens_BT = model(gains=0.0), torch.arange(64).view(4, 16)
    rotation = torch.linalg.qr(torch.randn(_HIDDEN, _HIDDEN)).Q
    narrow = reshaped(dense, rotation, _HEADS, tokens_BT)
    assert narrow.config.num_key_value_heads == _HEADS and narrow.config.tie_word_embeddings
    assert not torch.allclose(narrow.model.embed_tokens.weight, dense.model.embed_tokens.weight, atol=0.1)
    others_BT = torch.arange(30, 62).view(2, 16).flip(1)
    torch.testing.assert_close(logits(narrow, others_BT), logits(dense, others_BT), atol=2e-4, rtol=1e-4)
    keys = narrow.model.layers[0].self_attn.k_proj.weight.view(2, 3, _HEAD, _HIDDEN)
    torch.testing.assert_close(keys[:, 0], keys[:, 2], atol=1e-4, rtol=1e-4)


def test_gains_of_the_last_norm_are_diagonal_in_the_axes_that_are_kept() -> None:
    dense, tokens_BT = model(gains=1.0), torch.arange(64).view(4, 16)
    gain_H = dense.model.norm.weight.detach()
    basis_HK = kept_basis(stream_moment(dense, tokens_BT), gain_H, 40)
    torch.testing.assert_close(basis_HK.T @ basis_HK, torch.eye(40), atol=1e-5, rtol=0)
    inner_KK = basis_HK.T @ (gain_H[:, None] * basis_HK)
    torch.testing.assert_close(inner_KK, inner_KK.diagonal().diag(), atol=1e-5, rtol=0)
    every = kept_basis(stream_moment(dense, tokens_BT), gain_H, _HIDDEN)
    same = reshaped(dense, every, _HEADS, tokens_BT)
    torch.testing.assert_close(logits(same, tokens_BT), logits(dense, tokens_BT), atol=5e-4, rtol=1e-3)


def test_the_directions_with_the_most_variance_are_kept() -> None:
    variance_H = torch.arange(1.0, 9.0)
    basis_HK = kept_basis(variance_H.diag(), torch.ones(8), 3)
    assert basis_HK[:5].abs().max() < 1e-6


def test_fitted_layers_predict_better_than_cut_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, tokens_BT = model(gains=1.0), torch.randint(97, (16, 32), generator=torch.Generator().manual_seed(1))
    basis_HK = kept_basis(stream_moment(dense, tokens_BT), dense.model.norm.weight.detach(), 40)
    errors = []
    for fit in (fitted, lambda start_OI, inputs_NI, wanted_NO: start_OI):
        monkeypatch.setattr("bench.judge.reshape.fitted", fit)
        narrow = reshaped(dense, basis_HK, 5, tokens_BT)
        errors.append(float((logits(narrow, tokens_BT) - logits(dense, tokens_BT)).square().mean()))
    assert narrow.config.hidden_size == 40 and narrow.config.num_attention_heads == 5
    assert errors[0] < 0.9 * errors[1]


def test_the_head_that_others_replace_is_left_out() -> None:
    inputs_NI = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    inputs_NI[:, 4:8] = inputs_NI[:, :4] + 0.01 * inputs_NI[:, 4:8]
    assert least_needed_heads(inputs_NI, torch.eye(12), 4, 2) in ([0, 2], [1, 2])


def test_a_model_with_fewer_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 7 query heads"):
        reshaped(model(gains=0.0), torch.eye(_HIDDEN), 7, torch.arange(8)[None])


def test_the_page_says_how_the_judge_was_made_and_what_it_lost() -> None:
    reshaped = {
        "variance": 0.9879,
        "parameters": [134, 127],
        "dense_perplexity": 14.68,
        "perplexity": 34.97,
        "seconds": 600.4,
    }
    training = {"steps": 120, "tokens": 122_880, "loss_seconds": [10.0, 1500.0]}
    bits = {"dense": 1.2, "pruned": 1.1}
    judge = {
        "perplexity": {key: [40.0, 30.0] for key in TEXTS},
        "bits_per_byte": dict.fromkeys(TEXTS, bits),
        "recovery": training,
    }
    sample = {
        "perplexity": {key: [20.0, 20.1] for key in TEXTS},
        "bits_per_byte": {key: {**bits, "dense": 0.9} for key in TEXTS},
    }
    text = page(reshaped, judge, sample)
    assert "14.68 and 34.97" in text and "120 and 122,880" in text and "1500" in text
    (row,) = [line.split() for line in text.splitlines() if TEXTS[0] in line]
    assert row[3::2] == ["20.00", "40.00", "30.00", "0.900", "1.200", "1.100"]


def test_training_jobs_are_jobs() -> None:
    body = JobBody.model_validate(distilling("reshaped", 55, 3e-4))
    assert body.recovery is not None and body.recovery.minutes == 55
    assert JobBody.model_validate(measuring()).evaluation == body.evaluation


def test_code_that_judges_is_not_trained_on() -> None:
    judging, training = set(_held_back()), set(_others(10**6))
    assert len(judging) == len(_JUDGING_MODULES) and training and not judging & training
    assert sum(map(len, training)) <= 10**6
