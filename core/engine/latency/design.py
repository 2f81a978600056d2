"""Shapes of the small models that are timed, and the costs of parts that follow from their times.

All have the hidden size, heads and vocabulary of the model in question, and a few of its layers. Every second layer of
one has a variant, so that parts are timed among others as in a whole model, and caches of the processor hold no more of
the weights than there. The costs are the least squares of the sums over parts: differences of models, per layer.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.engine.latency.costs import ModelWidths, PassCosts
from core.engine.latency.variants import BlockVariant, ModelShape

_WIDTH_SHARES: Final = (1 / 8, 1 / 2)
_VOCABULARY_SHARE: Final = 1 / 4
"""Widths of the FFN and rows of the vocabulary that are timed beside the dense ones."""
_ALL_GROUPS: Final = 4
"""Most KV groups of which each number is timed; of more, 1 and a half of them."""
_WIDTH_STEP: Final = 64
_LEAST_LAYERS: Final = 4
_LAYER_BYTES: Final = 128 * 2**20
"""Bytes of layers beyond which one more layer would not change what a cache of the processor holds."""


def timed_layers(layers: int, layer_bytes: float, most: int) -> int:
    """Return the depth of the small models: even, at most the model's own and `most`, and too large for a cache."""
    wanted = max(_LEAST_LAYERS, -(-_LAYER_BYTES // max(round(layer_bytes), 1)))
    return max(2, min(wanted, most, layers) // 2 * 2)


def timed_groups(kv_groups: int) -> list[int]:
    """Return the numbers of KV groups below all of them that are timed."""
    return list(range(1, kv_groups)) if kv_groups <= _ALL_GROUPS else [1, kv_groups // 2]


def timed_widths(width: int) -> list[int]:
    """Return the widths of the FFN below the full one that are timed."""
    step = max(min(_WIDTH_STEP, width // 8), 1)
    return sorted({max(round(width * share / step), 1) * step for share in _WIDTH_SHARES} - {width})


def timed_shapes(model: ModelWidths, layers: int, *, without_ffn: bool = True) -> list[ModelShape]:
    """Return the shapes of the models that are timed, of so many layers; the dense one is first.

    `without_ffn`: the engine runs layers of an attention alone. Layers of an FFN alone tell the two apart too.
    """
    groups, width = model.block
    variants = [
        BlockVariant(0, 0),
        BlockVariant(0, width),
        *([BlockVariant(groups, 0)] if without_ffn else []),
        *(BlockVariant(fewer, width) for fewer in timed_groups(groups)),
        *(BlockVariant(groups, narrower) for narrower in timed_widths(width)),
    ]
    dense = (model.block,) * layers
    rows = max(round(model.vocabulary * _VOCABULARY_SHARE), 1)
    return [
        ModelShape(dense, model.vocabulary),
        ModelShape(dense, rows),
        *(ModelShape((model.block, each) * (layers // 2), model.vocabulary) for each in variants),
    ]


def fitted_costs(model: ModelWidths, shapes: Sequence[ModelShape], milliseconds: Sequence[float]) -> PassCosts:
    """Return the costs of parts whose sums are nearest, in least squares, to the times of models of these shapes.

    No cost is negative, and none of attention or FFN is above that of a larger size. `shapes` are `timed_shapes`.
    """
    groups = [*timed_groups(model.block.kv_groups), model.block.kv_groups]
    widths = [*timed_widths(model.block.ffn_width), model.block.ffn_width]
    rows = [
        [
            1.0,
            shape.vocabulary / model.vocabulary,
            *(sum(each.kv_groups == size for each in shape.layers) for size in groups),
            *(sum(each.ffn_width == size for each in shape.layers) for size in widths),
        ]
        for shape in shapes
    ]
    costs, _, rank, _ = np.linalg.lstsq(np.array(rows, dtype=float), np.array(milliseconds, dtype=float), rcond=None)
    assert rank == len(rows[0]), "the shapes that are timed tell the parts apart"
    attention, ffn = costs[2 : 2 + len(groups)], costs[2 + len(groups) :]
    return PassCosts(
        attention=dict(zip(groups, _ascending(attention), strict=True)),
        ffn=dict(zip(widths, _ascending(ffn), strict=True)),
        vocabulary={model.vocabulary: max(float(costs[1]), 0.0)},
        rest=max(float(costs[0]), 0.0),
    )


def _ascending(costs: NDArray[np.float64]) -> list[float]:
    """Return the nearest numbers to these, in least squares, that never fall and are not below 0."""
    pools: list[tuple[float, int]] = []
    for each in costs:
        mean, count = float(each), 1
        while pools and pools[-1][0] > mean:
            before, members = pools.pop()
            mean, count = (before * members + mean * count) / (members + count), members + count
        pools.append((mean, count))
    return [max(mean, 0.0) for mean, count in pools for _ in range(count)]
