"""LoRA (Hu 2021, arXiv:2106.09685) through peft, on weights with zeros.

Merging BA into a pruned weight would fill its zeros, and masking only the merge would give another model than the
trained one. So the update has the weight's zeros from the first step: W + alpha/r · M⊙(BA), M = (W ≠ 0), as in
SparsePEFT (Muñoz 2024, arXiv:2410.03750). The merge then loses nothing and fills no zero.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from secateur_wire.errors import UnsupportedArchitecture
from secateur_wire.recovery import Lora

ADAPTER = "default"


class MaskedLoraLinear(LoraLinear):
    """Linear layer whose adapter keeps the weight's zeros; without zeros it is peft's own layer.

    With zeros, weight and update are added before the product with the tokens (one product, not two), and dropout
    applies to A's weights (DropConnect) instead of the inputs.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, **settings: Any) -> None:
        super().__init__(base_layer, adapter_name, **settings)
        self.holds_zeros = bool((self._weight == 0).any())

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the update in the weight's own layout, zero where the weight is."""
        return self._masked(super().get_delta_weight(adapter))

    def forward(self, x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        if not self.holds_zeros or self.merged or self.disable_adapters:
            answer: Tensor = super().forward(x, *arguments, **keywords)
            return answer
        with torch.autocast(x.device.type, enabled=False):  # as precise as the merge
            A_RI, B_OR = self.factors
            update = self.update(self.lora_dropout[ADAPTER](A_RI), B_OR)
            weight = (self._weight + update).to(self._weight.dtype)
        bias: nn.Parameter | None = self.get_base_layer().bias  # type: ignore[assignment]
        return functional.linear(x, weight.T if self.fan_in_fan_out else weight, bias)

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        """Factors A [rank, in_features] and B [out_features, rank]."""
        A_RI, B_OR = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        assert isinstance(A_RI, Tensor) and isinstance(B_OR, Tensor)
        return A_RI, B_OR

    def update(self, A_RI: Tensor, B_OR: Tensor) -> Tensor:
        """Return the weight's update from these factors, in its own layout: alpha/r · M⊙(BA)."""
        update_OI = (B_OR @ A_RI) * self.scaling[ADAPTER]
        return self._masked(update_OI.T if self.fan_in_fan_out else update_OI)

    def effective(self, factors: tuple[Tensor, Tensor], dimension: int, index: Tensor) -> Tensor:
        """Return weight plus update in float32, only at `index` along a dimension of the weight."""
        A_RI, B_OR = factors
        if (dimension == 0) != self.fan_in_fan_out:
            B_OR = B_OR[index]
        else:
            A_RI = A_RI[:, index]
        weight = self._weight.index_select(dimension, index)
        update_OI = (B_OR @ A_RI) * self.scaling[ADAPTER]
        update = update_OI.T if self.fan_in_fan_out else update_OI
        merged: Tensor = weight.float() + (update.masked_fill(weight == 0, 0) if self.holds_zeros else update)
        return merged

    @property
    def _weight(self) -> Tensor:
        weight = self.get_base_layer().weight
        assert isinstance(weight, Tensor)
        return weight

    def _masked(self, update: Tensor) -> Tensor:
        return update.masked_fill(self._weight == 0, 0) if self.holds_zeros else update


def add_adapters(model: PreTrainedModel, lora: Lora, linears: Sequence[str], *, transposed: bool) -> LoraModel:
    """Freeze the model and add adapters to linear layers, given by full name.

    A is random, B is zero, both in float32 whatever the weights' dtype. Seeded by torch's global generator;
    `transposed` marks weights stored as [in, out]. Raises UnsupportedArchitecture where the model's code may read a
    layer's weight without its adapter.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        # a pattern, because a list would also match names with the same ending
        target_modules="|".join(map(re.escape, linears)),
        fan_in_fan_out=transposed,
        bias="none",
    )
    config._register_custom_module({nn.Linear: MaskedLoraLinear, Conv1D: MaskedLoraLinear})
    try:
        adapted = LoraModel(model, config, ADAPTER)
    except ValueError as error:  # raised by the library for layers of state spaces
        raise UnsupportedArchitecture(
            f"adapters cannot be added to {type(model).__name__}: {str(error)[:300]}; use a method that trains the "
            "weights themselves, or none",
            param="model",
        ) from error
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # the library uses the weights' dtype, and 16 bits would lose small steps
            parameter.data = parameter.data.float()
    return adapted


@torch.no_grad()
def merge_adapters(model: LoraModel) -> PreTrainedModel:
    """Add every update to its weight, zeros kept, and return the model without adapters."""
    merged = model.merge_and_unload()
    assert isinstance(merged, PreTrainedModel)
    return merged
