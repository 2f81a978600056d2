"""Zeros that are kept while a model is trained."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class ZeroPattern:
    """Weights of some parameters that are zero now, and stay zero.

    `parameters` are given by name; those without zeros cost nothing. Stored as one byte per weight.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        masks = {name: parameter.detach() == 0 for name, parameter in parameters.items()}
        self._zeros: dict[str, Tensor] = {name: mask for name, mask in masks.items() if bool(mask.any())}

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Zero the gradients of pruned weights, so that clipping does not count them."""
        for name, zeros in self._zeros.items():
            gradient = self._parameters[name].grad
            if gradient is not None:
                gradient.masked_fill_(zeros, 0)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for name, zeros in self._zeros.items():
            self._parameters[name].masked_fill_(zeros, 0)


def weight_names(linears: Iterable[str]) -> list[str]:
    """Return the parameter names of linear layers' weights."""
    return [f"{linear}.weight" for linear in linears]
