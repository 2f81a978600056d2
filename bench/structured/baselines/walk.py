"""The loop that the layer-wise baselines share: calibration tokens go through one block after another, each changed
before the tokens leave it, so that a later block sees what those before it have become.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.models.folder import ModelFolder
from core.engine.models.loading import load_model


class _Reached(Exception):
    """The first block was reached: what it was called with is known."""


def dense_model(folder: ModelFolder) -> PreTrainedModel:
    """The model in float32, whatever its folder stores."""
    return load_model(folder, torch.device("cpu"), dtype=torch.float32).requires_grad_(False)


def linear(block: nn.Module, name: str) -> nn.Linear:
    """A linear layer of a block without a bias, which these methods do not treat."""
    module = block.get_submodule(name)
    assert isinstance(module, nn.Linear) and module.bias is None
    return module


def set_weight(layer: nn.Linear, weight: Tensor) -> None:
    """Give a linear layer another weight, of another shape too."""
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.out_features, layer.in_features = weight.shape


@dataclass
class Walk:
    """`hidden` has the residual stream of each window [1, time, width] where the walk stands; all windows are of one
    length, so that blocks are called with the same `keywords` (rotary embeddings, mask) for each.
    """

    blocks: nn.ModuleList
    hidden: list[Tensor]
    keywords: dict[str, Any]

    @classmethod
    def begin(cls, model: PreTrainedModel, blocks: nn.ModuleList, tokens_NT: Tensor) -> "Walk":
        """At the input of the first block."""
        hidden: list[Tensor] = []
        keywords: dict[str, Any] = {}

        def reach(block: nn.Module, inputs: tuple[Any, ...], given: dict[str, Any]) -> None:
            hidden.append(inputs[0])
            keywords.update(given)
            raise _Reached

        handle = blocks[0].register_forward_pre_hook(reach, with_kwargs=True)
        for window_1T in tokens_NT.split(1):
            with suppress(_Reached):
                model(input_ids=window_1T, use_cache=False)
        handle.remove()
        return cls(blocks, hidden, keywords)

    def moments(self, block: nn.Module, module: nn.Module) -> Tensor:
        """XᵀX in float64 of what a module of the block reads [features, features], over all tokens."""
        total: Tensor | None = None

        def add(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal total
            rows = inputs[0].flatten(0, -2)
            product = (rows.T @ rows).double()
            total = product if total is None else total.add_(product)

        handle = module.register_forward_pre_hook(add)
        for hidden in self.hidden:
            block(hidden, **self.keywords)
        handle.remove()
        assert total is not None
        return total

    def advance(self, block: nn.Module) -> None:
        """Let the tokens through a block."""
        self.hidden = [block(hidden, **self.keywords) for hidden in self.hidden]

    def steps(self) -> Iterator[tuple[int, nn.Module]]:
        """Each block with its number; the tokens go through it once it comes back changed."""
        for number, block in enumerate(self.blocks):
            yield number, block
            self.advance(block)
