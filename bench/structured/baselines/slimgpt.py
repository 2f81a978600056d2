"""SlimGPT-like: channels removed layer by layer in groups, as Optimal Brain Surgeon has it (Ling 2024,
arXiv:2412.18110). Its target is each layer's own output; heads stay, as on few KV groups they cost more than channels.
"""

import math

from torch import Tensor

from bench.structured.baselines.least_squares import damped, refit, remove_in_groups

LARGEST_GROUP, SMALLEST_GROUP = 64, 8


def widths(layers: int, width: int, total: int, multiple: int) -> list[int]:
    """Channels left of each layer, as near to `total` in all as steps of `multiple` come: the share that goes rises
    with the logarithm of the depth from nothing in the first layer (incremental pruning ratio, r_i ∝ log(i + 1)).
    Raises ValueError where the others do not have so many to lose.
    """

    def at(scale: float) -> list[int]:
        exact = (width * (1 - scale * math.log(number + 1)) for number in range(layers))
        return [min(width, max(multiple, round(each / multiple) * multiple)) for each in exact]

    low, high = 0.0, 1 / math.log(2)  # the second layer would lose all
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) > total else (low, middle)
    counts = min(at(low), at(high), key=lambda each: abs(sum(each) - total))
    if abs(sum(counts) - total) > layers * multiple:
        raise ValueError(
            f"{total} channels cannot be left of {layers} × {width}: the first layer keeps all its channels"
        )
    return counts


def choose(weight: Tensor, moments: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The channels of a down projection [out, channels] that stay, and its weights then."""
    hessian = damped(moments)
    left = remove_in_groups(weight, hessian, weight.shape[1] - kept, LARGEST_GROUP, SMALLEST_GROUP)
    return left, refit(weight, hessian, left)
