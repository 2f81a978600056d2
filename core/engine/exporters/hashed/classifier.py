"""Weight sharing by a hash (HashedNets, Chen et al. 2015, arXiv:1504.04788) of a classifier's linear layers.

The paper trains the shared values from the start; here they are fitted to the existing weights. Only surviving weights
are hashed: the more weights are pruned, the fewer share a bucket. The hash is that of `secateur_wire.weights.hashed`,
which also expands.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from core.engine.architectures.structure import LinearShape
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES
from core.engine.exporters.hashed.sharing import HashSharing, expected_collision_rate, sharing_of
from core.engine.models.classifier import ClassifierFolder
from core.engine.models.tensors import DTYPES
from secateur_wire.errors import InvalidRequest
from secateur_wire.weights.hashed import bucket_and_sign


def bucket_values(weight_OI: Tensor, sharing: HashSharing) -> Tensor:
    """Return v, [buckets], float32: the least-squares fit to the nonzero weights.

    Σ_i (w_i − ξ_i·v_h(i))² is minimal where v_k is the mean of ξ_i·w_i over h(i) = k; buckets without a weight hold 0.
    """
    buckets_N, signs_N = _hashed(weight_OI, sharing)
    survives_N = weight_OI.reshape(-1) != 0
    signed_N = weight_OI.reshape(-1).double() * signs_N
    sums_K = torch.zeros(sharing.buckets, dtype=torch.float64, device=weight_OI.device)
    sums_K.index_add_(0, buckets_N[survives_N], signed_N[survives_N])
    counts_K = torch.bincount(buckets_N[survives_N], minlength=sharing.buckets)
    return (sums_K / counts_K.clamp(min=1)).float()


def expand(values_K: Tensor, survives_OI: Tensor, sharing: HashSharing) -> Tensor:
    """Return ŵ_i = ξ_i·v_h(i) where a weight survives, else 0 (eq. 8), in the dtype of the values."""
    buckets_N, signs_N = _hashed(survives_OI, sharing)
    weight_OI = (values_K[buckets_N] * signs_N.to(values_K.dtype)).reshape(survives_OI.shape)
    return torch.where(survives_OI, weight_OI, torch.zeros_like(weight_OI))


def share(weight_OI: Tensor, sharing: HashSharing, dtype: torch.dtype) -> Tensor:
    """Return the layer with its weights shared, float32, exactly representable in its stored `dtype`."""
    values_K = bucket_values(weight_OI, sharing).to(dtype)
    return expand(values_K, weight_OI != 0, sharing).float()


def collision_rate(survives_OI: Tensor, sharing: HashSharing) -> float:
    """Return the share of surviving weights that are not alone in their bucket."""
    buckets_N, _ = _hashed(survives_OI, sharing)
    counts_K = torch.bincount(buckets_N[survives_OI.reshape(-1)], minlength=sharing.buckets)
    total = int(counts_K.sum())
    return float(counts_K[counts_K > 1].sum()) / total if total else 0.0


@dataclass(frozen=True)
class Collisions:
    """Collision rate at a sparsity: the counted one, and the mean of a random hash."""

    sparsity: float
    measured: float
    expected: float


def collisions_by_sparsity(weight_OI: Tensor, sharing: HashSharing, sparsities: Sequence[float]) -> list[Collisions]:
    """Return the collision rates with the smallest weights pruned; sparsities below the layer's own are left out."""
    order_N = weight_OI.reshape(-1).abs().argsort(descending=True, stable=True)
    alive = int((weight_OI != 0).sum())
    rates = []
    for sparsity in sparsities:
        kept = weight_OI.numel() - round(sparsity * weight_OI.numel())
        if kept > alive:
            continue
        survives_N = torch.zeros(weight_OI.numel(), dtype=torch.bool, device=weight_OI.device)
        survives_N[order_N[:kept]] = True
        measured = collision_rate(survives_N.reshape(weight_OI.shape), sharing)
        rates.append(Collisions(sparsity, measured, expected_collision_rate(kept, sharing.buckets)))
    return rates


def _hashed(matrix_OI: Tensor, sharing: HashSharing) -> tuple[Tensor, Tensor]:
    """Return bucket and sign, −1 or 1, of every weight, both int64, in row-major order."""
    bucket, is_negative = bucket_and_sign(0, matrix_OI.numel(), seed=sharing.seed, buckets=sharing.buckets)
    signs_N = 1 - 2 * torch.from_numpy(is_negative).to(torch.int64)
    return torch.from_numpy(bucket).to(matrix_OI.device), signs_N.to(matrix_OI.device)


_SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Sparsities at which collisions are counted; those below the layer's own are left out."""


@torch.no_grad()
def share_linears(
    model: nn.Module, layers: Sequence[LinearShape], folder: ClassifierFolder, *, compression: float, seed: int
) -> list[JsonValue]:
    """Share the weights of the linear layers among `layers`, in place, with values representable in the stored dtype.

    `compression` is the number of bucket values per weight. Returns a row of each layer, for the report: the tensor's
    name in the file, seed and buckets; the numbers of weights and of surviving weights, and the share of survivors that
    are not alone in their bucket, as counted and as expected; the same at higher sparsities; and ‖W − Ŵ‖/‖W‖. Raises
    InvalidRequest where no layer is linear.
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
            "output.format: 'hashed' shares the weights of linear layers, but this job may change no linear layer: "
            "use 'packed'",
            param="output.format",
        )
    return rows
