"""Sensitivity scan: the loss of the network against the rate at which one layer alone is pruned.

All other layers stay dense, and nothing is retrained (Han 2015, figure 6; Li 2016, section 3.2).
"""

from collections.abc import Callable, Mapping, Sequence

from core.counting import counted
from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_set import ImageSet
from core.engine.options.sensitivity import LayerCosts, allocate
from core.engine.pruning.network import Network, loss_and_accuracy
from secateur_wire.errors import InvalidSparsity

Curve = list[tuple[float, float, float]]
"""Points of a curve: (rate, mean cross-entropy in nats, top-1 accuracy)."""


def layer_sensitivity_curves(
    network: Network, images: ImageSet, rates: Sequence[float], prune_layer: Callable[[LinearShape, float], None]
) -> dict[str, Curve]:
    """Return the curve of each of the network's layers, by name.

    `prune_layer` prunes one layer of `network.model` to a rate, and changes nothing else; the layer is restored
    afterwards. Raises WorkStopped between layers when the job is stopped.
    """
    curves: dict[str, Curve] = {}
    for shape in counted(network.layers, "scanning layers"):
        network.progress.raise_if_stopped()
        layer = network.module(shape.name)
        dense = {name: each.clone() for name, each in layer.state_dict().items()}
        curves[shape.name] = []
        for rate in rates:
            try:
                prune_layer(shape, rate)
                curves[shape.name].append((rate, *loss_and_accuracy(network, images)))
            finally:
                layer.load_state_dict(dense)
        network.progress.log(f"sensitivity of {shape.name} measured")
    return curves


def rates_from_curves(
    layers: Sequence[LinearShape], curves: Mapping[str, Curve], dense_loss: float, sparsity: float
) -> dict[str, float]:
    """Return a rate for each layer, by name, that together remove `sparsity` of the layers' weights.

    The last weight removed costs the same in each layer, see `core.engine.options.sensitivity`. Raises
    InvalidSparsity above the highest rate of the scan: nothing is known beyond it.
    """
    highest = max(rate for curve in curves.values() for rate, _, _ in curve)
    if sparsity > highest:
        raise InvalidSparsity(
            f"sparsity {sparsity} is above the highest rate the layers are scanned at, {highest}: add a higher one to "
            "parameters.scan_rates, or choose another allocation",
            param="sparsity",
        )
    costs = []
    for shape in layers:
        curve = sorted(curves[shape.name])
        increases = [loss - dense_loss for _, loss, _ in curve]
        costs.append(LayerCosts(shape.name, shape.numel, [rate for rate, _, _ in curve], increases))
    return {layer.name: rate for layer, rate in zip(costs, allocate(costs, sparsity), strict=True)}


def exact_counts(layers: Sequence[LinearShape], rates: Mapping[str, float], total: int) -> dict[str, int]:
    """Return the number of weights each layer loses, by name, rounded to sum to `total` by largest remainders."""
    wanted = {shape.name: rates[shape.name] * shape.numel for shape in layers}
    counts = {name: int(each) for name, each in wanted.items()}
    order = sorted(wanted, key=lambda name: counts[name] - wanted[name])
    sizes = {shape.name: shape.numel for shape in layers}
    short = total - sum(counts.values())
    while short:
        step = 1 if short > 0 else -1
        before = short
        for name in order if short > 0 else reversed(order):
            if short and 0 <= counts[name] + step <= sizes[name]:
                counts[name] += step
                short -= step
        assert short != before, "no layer has room"
    return counts
