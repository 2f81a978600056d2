"""Dropout rates of a network that has lost weights (Han 2015, section 3.2): fewer connections need less of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from core.engine.models.hooks import removed_after
from core.engine.pruning.layer_matrix import layer_of
from core.engine.pruning.network import Network

_KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@torch.no_grad()
def layers_before_dropout(network: Network) -> dict[str, str]:
    """Return, by the name of each dropout module with a rate above zero, the prunable layer executed last before it."""
    predecessors: dict[str, str] = {}
    last: list[str] = []

    def ran(name: str) -> Any:
        return lambda *_: last.append(name)

    def dropped(name: str) -> Any:
        return lambda *_: predecessors.update({name: last[-1]} if last else {})

    handles = [network.module(shape.name).register_forward_hook(ran(shape.name)) for shape in network.layers]
    handles += [
        module.register_forward_hook(dropped(name))
        for name, module in network.model.named_modules()
        if isinstance(module, _KINDS) and module.p > 0
    ]
    with removed_after(handles):
        network.logits(network.calibration.batch([0]).to(network.device))
    return predecessors


@contextmanager
def scaled_dropout(network: Network, before: Mapping[str, str]) -> Iterator[dict[str, float]]:
    """Scale every dropout rate to D_o·√(C_ir / C_io) (eq. 2) inside the context, and yield the rates by name.

    C_io are the connections of the layer before it, C_ir those that are left. The original rates are restored
    afterwards. `before` is the result of `layers_before_dropout`.
    """
    original: dict[str, float] = {}
    scaled: dict[str, float] = {}
    for name, layer in before.items():
        module = network.module(name)
        assert isinstance(module, _KINDS)
        weight = layer_of(network.model, layer).weight
        original[name] = module.p
        scaled[name] = module.p = module.p * float((weight != 0).sum() / weight.numel()) ** 0.5
    try:
        yield scaled
    finally:
        for name, rate in original.items():
            module = network.module(name)
            assert isinstance(module, _KINDS)
            module.p = rate
