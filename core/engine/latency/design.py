"""Shapes of the small models that are timed, and the costs of parts that follow from their times.

All have the hidden size and heads of the model in question, and a few of its layers. In most of them every second layer
has a variant, so that parts are timed among others as in a whole model, and caches of the processor hold no more of the
weights than there; two are small throughout, as pruned models are. The costs are those whose sums come nearest to the
times: differences of models, per layer.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from core.engine.latency.costs import ModelWidths, PassCosts
from core.engine.latency.variants import BlockVariant, ModelShape

_WIDTH_SHARES: Final = (1 / 8, 1 / 2)
_VOCABULARY_SHARE: Final = 1 / 4
"""Widths of the FFN and rows of the vocabulary that are timed beside the dense ones."""
_ALL_GROUPS: Final = 4
"""Most KV groups of which each number is timed; of more, 1 and a half of them."""
_WIDTH_STEP: Final = 64
_MOST_WEIGHT: Final = 100
"""Weight of the shortest time over that of the longest, at most."""
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
    narrow = timed_widths(width) or [width]
    variants = [
        BlockVariant(0, 0),
        BlockVariant(0, width),
        *([BlockVariant(groups, 0)] if without_ffn else []),
        *(BlockVariant(fewer, width) for fewer in timed_groups(groups)),
        *(BlockVariant(groups, narrower) for narrower in timed_widths(width)),
    ]
    rows = max(round(model.vocabulary * _VOCABULARY_SHARE), 1)
    return [
        ModelShape((model.block,) * layers, model.vocabulary),
        ModelShape((model.block,) * layers, rows),
        ModelShape((BlockVariant(-(-groups // 2), narrow[-1]),) * layers, model.vocabulary),
        ModelShape((BlockVariant(1, narrow[0]),) * layers, rows),
        *(ModelShape((model.block, each) * (layers // 2), model.vocabulary) for each in variants),
    ]


def fitted_costs(model: ModelWidths, shapes: Sequence[ModelShape], milliseconds: Sequence[float]) -> PassCosts:
    """Return the costs of parts whose sums come nearest to the times of models of these shapes, relative to each time.

    The cost of an attention or FFN is a constant and straight lines between the sizes that are timed, the first from 0
    on. No constant and no slope is negative (non-negative least squares), so a larger size never costs less. `shapes`
    are `timed_shapes`.
    """
    groups = [*timed_groups(model.block.kv_groups), model.block.kv_groups]
    widths = [*timed_widths(model.block.ffn_width), model.block.ffn_width]
    rows = np.array([
        [
            1.0,
            shape.vocabulary / model.vocabulary,
            *np.sum([_lines(groups, each.kv_groups) for each in shape.layers], axis=0),
            *np.sum([_lines(widths, each.ffn_width) for each in shape.layers], axis=0),
        ]
        for shape in shapes
    ])  # fmt: skip
    times = np.array(milliseconds, dtype=float)
    weights = 1 / np.maximum(times, times.max() / _MOST_WEIGHT or 1.0)
    terms, _ = nnls(rows * weights[:, None], times * weights)
    attention, ffn = terms[2 : 2 + len(groups)], terms[2 + len(groups) :]
    return PassCosts(
        attention={size: float(_lines(groups, size) @ attention) for size in groups},
        ffn={size: float(_lines(widths, size) @ ffn) for size in widths},
        vocabulary={model.vocabulary: float(terms[1])},
        rest=float(terms[0]),
    )


def _lines(sizes: Sequence[int], size: int) -> NDArray[np.float64]:
    """Return what a size has of each term of its cost: the constant, and the share of each line up to it.

    The lines end at `sizes`, and the first at the second of these. A single size has its line alone.
    """
    ends = [0, *sizes[1:]] if len(sizes) > 1 else [0, *sizes]
    lines = [min(max((size - low) / (high - low), 0.0), 1.0) for low, high in pairwise(ends)]
    return np.array(([float(size > 0)] if len(sizes) > 1 else []) + lines)
