"""Weight sharing by a hash (HashedNets, Chen et al. 2015, arXiv:1504.04788) of a classifier's linear layers."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from pydantic import JsonValue
from torch import nn

from core.engine.architectures.layer_shape import LinearShape
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES
from core.engine.exporters.hashed.fit import collision_rate, collisions_by_sparsity, share
from core.engine.exporters.hashed.sharing import expected_collision_rate, sharing_of
from core.engine.models.classifier import ClassifierFolder
from core.engine.models.tensors import DTYPES
from core.errors import InvalidRequest

_SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Sparsities at which collisions are counted, from the layer's own on."""


@torch.no_grad()
def share_linears(
    model: nn.Module, layers: Sequence[LinearShape], folder: ClassifierFolder, *, compression: float, seed: int
) -> list[JsonValue]:
    """Share the weights of the linear ones among a model's layers, in place, representable in their stored dtype.

    `compression` is bucket values for each weight. Returns a row of each layer, for the report: the tensor's name in
    the file, seed and buckets; weights, how many survive, and the share of these that are not alone in their bucket, as
    counted and as expected; the same at higher sparsities; and ‖W − Ŵ‖/‖W‖. Raises InvalidRequest where none is linear.
    """
    rows: list[JsonValue] = []
    for shape in layers:
        layer = model.get_submodule(shape.name)
        if not isinstance(layer, nn.Linear):
            continue
        entry = folder.tensors[f"{shape.name}.weight"]
        dense_OI = layer.weight.detach().clone()
        survives_OI = dense_OI != 0
        sharing = sharing_of(dense_OI.numel(), compression, seed=seed, layer=shape.layer)
        layer.weight.copy_(share(dense_OI, sharing, DTYPES[WEIGHT_DTYPES[entry.dtype]]))
        norm = float(dense_OI.norm())
        survivors = int(survives_OI.sum())
        rows.append(
            {
                "name": shape.name,
                "tensor": entry.name,
                "seed": sharing.seed,
                "buckets": sharing.buckets,
                "weights": dense_OI.numel(),
                "survivors": survivors,
                "collision_rate": collision_rate(survives_OI, sharing),
                "expected_collision_rate": expected_collision_rate(survivors, sharing.buckets),
                "by_sparsity": [asdict(each) for each in collisions_by_sparsity(dense_OI, sharing, _SPARSITIES)],
                "relative_error": float((layer.weight - dense_OI).norm()) / norm if norm else 0.0,
            }
        )
    if not rows:
        raise InvalidRequest(
            "output.format: 'hashed' shares the weights of linear layers, and none is among those this job may change: "
            "use 'packed'",
            param="output.format",
        )
    return rows
