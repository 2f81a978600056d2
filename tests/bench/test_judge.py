"""The judge: rotated models predict the same, with weights that lie on no grid of few bits."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.judge.__main__ import page
from bench.judge.cell import levels
from bench.judge.rotation import random_rotation, rotated


def model(*, is_tied: bool) -> LlamaForCausalLM:
    """Return a small model of weights with 16 levels, with four query heads for each of two KV heads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=is_tied,
    )
    made: LlamaForCausalLM = LlamaForCausalLM(config).double().eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            drawn = torch.randint(-8, 8, parameter.shape) / 20
            parameter.copy_(1 + drawn if name.endswith("norm.weight") else drawn)
    return made


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_rotated_model_predicts_the_same_with_other_weights(is_tied: bool) -> None:
    dense = model(is_tied=is_tied)
    turned, tokens_BT = rotated(dense), torch.arange(64).view(4, 16)
    with torch.inference_mode():
        expected, found = (each(input_ids=tokens_BT, use_cache=False).logits for each in (dense, turned))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    own = dict(dense.named_parameters(remove_duplicate=False))
    for name, weight in turned.named_parameters(remove_duplicate=False):
        if not name.endswith("norm.weight"):
            assert not torch.allclose(weight, own[name], atol=0.1), name
    assert levels(dense) <= 16 and levels(turned) > 31
    assert not torch.equal(rotated(dense, seed=1).lm_head.weight, turned.lm_head.weight)
    assert torch.equal(rotated(dense).lm_head.weight, turned.lm_head.weight)


def test_rotations_are_orthogonal_and_drawn() -> None:
    draws = torch.Generator().manual_seed(3)
    one, other = (random_rotation(24, draws) for _ in range(2))
    torch.testing.assert_close(one.T @ one, torch.eye(24, dtype=torch.float64), atol=1e-12, rtol=0)
    assert not torch.allclose(one, other)


def test_the_page_shows_the_sample_and_the_judge() -> None:
    made = {
        "perplexity": {"articles": [20.0, 20.0, 20.125]},
        "logit_difference": 3e-5,
        "levels": [15.2, 31.9],
        "parameters": [134_515_008, 162_826_560],
        "seconds": 61.2,
    }
    text = page(made)
    assert "20.125" in text and "15.2 and 31.9" in text and "134,515,008 and 162,826,560" in text
