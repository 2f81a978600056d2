"""Attention in blocks against torch's kernel, and the modules that keep that kernel."""

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from core.engine.models.causal_attention import attention_in_blocks


def _inputs(time: int, heads: int, groups: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of two sequences, whose values have another size."""
    generator = torch.Generator().manual_seed(time)
    shapes = ((2, heads, time, 48), (2, groups, time, 48), (2, groups, time, 32))
    queries, keys, values = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return queries, keys, values


def _module(heads: int, groups: int) -> nn.Module:
    module = nn.Module()
    module.num_key_value_groups = heads // groups
    return module


@pytest.mark.parametrize(("time", "heads", "groups"), [(129, 6, 2), (256, 4, 4), (300, 3, 1)])
@torch.inference_mode()
def test_blocks_are_nearer_to_exact_attention_than_the_kernel(time: int, heads: int, groups: int) -> None:
    module, inputs = _module(heads, groups), _inputs(time, heads, groups)
    kernel, _ = sdpa_attention_forward(module, *inputs, None, scaling=0.11)
    exact, _ = sdpa_attention_forward(module, *(each.double() for each in inputs), None, scaling=0.11)
    with attention_in_blocks():
        blocks, weights = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *inputs, None, scaling=0.11)
    assert weights is None and blocks.shape == kernel.shape and blocks.dtype is torch.bfloat16
    assert (blocks - exact).norm() <= 1.1 * (kernel - exact).norm()


@torch.inference_mode()
def test_what_blocks_cannot_do_keeps_the_kernel() -> None:
    module, long = _module(4, 2), _inputs(200, 4, 2)
    mask = torch.ones(200, 200, dtype=torch.bool)
    asked = [
        (_inputs(64, 4, 2), None, {}),
        (_inputs(200, 4, 2, torch.float32), None, {}),
        (long, mask, {}),
        (long, None, {"is_causal": False}),
    ]
    for inputs, attention_mask, keywords in asked:
        kernel, _ = sdpa_attention_forward(module, *inputs, attention_mask, **keywords)
        with attention_in_blocks():
            answer, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *inputs, attention_mask, **keywords)
        assert torch.equal(answer, kernel)
