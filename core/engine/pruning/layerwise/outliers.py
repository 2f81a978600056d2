"""Sparsities of blocks by the outliers of their scores (OWL), from a dense pass over the calibration tokens."""

from collections.abc import Callable, Sequence

import torch

from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import to_out_in
from core.engine.pruning.allocation.global_ranking import outlier_share, owl_sparsities
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.layerwise.plan import LayerwisePlan
from core.engine.pruning.saliency import weight_times_norm
from core.engine.pruning.streams.propagation import BlockPropagation, InputGroup
from core.engine.pruning.streams.stream import Stream


@torch.inference_mode()
def outlier_sparsities(
    streamed: StreamedModel,
    calibration: Stream,
    plan: LayerwisePlan,
    groups_of: Callable[[int], Sequence[InputGroup]],
    new_statistic: Callable[[Statistic], InputStatistic],
) -> list[float]:
    """Return the sparsity of each block; experts, of which the tokens each reads are not gathered here, follow it.

    `groups_of` are the linear layers of a block that are looked at. The stream ends where it began.
    """
    options = plan.parameters.allocation_options
    assert options is not None
    family = streamed.folder.family
    calibration.start()
    shares: dict[int, float] = {}
    for index, tensors in streamed.read_blocks(range(len(streamed)), "looking for outliers in blocks"):
        block = streamed.fill_block(index, tensors, calibration.dtype)
        groups = groups_of(index)
        if groups:
            read = BlockPropagation(block, index, calibration, groups, lambda: new_statistic(Statistic.NORMS))
            statistics = read.collect()
            shares[index] = outlier_share(
                (
                    weight_times_norm(to_out_in(tensors[f"{name}.weight"], family).float(), statistic.norms_I)
                    for group, statistic in statistics.items()
                    for name in group.linears
                ),
                options.owl_outlier_ratio,
            )
            del statistics  # rows of inputs, which would be there while the next block's are gathered
        calibration.advance(block, index)
        streamed.empty_block(index)
    calibration.resume(0)
    chosen = owl_sparsities(list(shares.values()), plan.sparsity, options.owl_range)
    by_layer = dict(zip(shares, chosen, strict=True))
    return [by_layer.get(index, plan.sparsity) for index in range(len(streamed))]
