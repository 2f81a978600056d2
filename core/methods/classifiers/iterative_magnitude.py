"""Iterative magnitude pruning (Han, Pool, Tran & Dally 2015, arXiv:1506.02626).

Learn which connections matter, cut the others, retrain those left, and repeat.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_set import draw_images
from core.engine.models.hooks import removed_after
from core.engine.options.sensitivity import LayerCosts, allocate
from core.engine.pruning.layer_matrix import layer_of, set_matrix, to_matrix
from core.engine.pruning.layerwise.classifier_pass import layer_rates
from core.engine.pruning.masks import lowest_in_tensor
from core.engine.pruning.network import Network, loss_and_accuracy
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.methods.classifiers.dead_neurons import remove_dead_neurons
from core.methods.classifiers.rounds import matrices, prune_in_rounds, train
from core.methods.classifiers.sensitivity import layer_sensitivity_curves
from core.methods.descriptions.classifiers import IterativeMagnitudeParameters
from secateur_wire.errors import InvalidSparsity

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class IterativeMagnitude(ClassifierMethod):
    """Pruning by |w| within each layer, in rounds; a scan of each layer's sensitivity sets its rate.

    The remaining weights are retrained after each round. Dropout is scaled, and dead neurons are removed. With
    `rewind_step`, the remaining weights are reset to early weights after each cut (Frankle 2019, arXiv:1903.01611).
    """

    def __init__(self, parameters: IterativeMagnitudeParameters) -> None:
        self.parameters = parameters

    def prune(self, network: Network) -> None:
        parameters = self.parameters
        early = self._early_weights(network)
        dropout = layers_before_dropout(network) if parameters.scale_dropout else {}

        def prepare() -> None:
            if early is not None:
                network.notes.append(
                    f"after every cut survivors were set back to the weights after {parameters.rewind_step} steps of "
                    "training from those the job was given"
                )
                train(network, parameters, parameters.retrain_steps, parameters.seed + parameters.rounds + 1)
            rates = self._rates(network)
            network.figures |= {"rates": rates, "removed": _exact_counts(network.layers, rates)}

        def cut(share: float) -> dict[str, Any]:
            before, _ = loss_and_accuracy(network, network.calibration)
            counts = {name: round(share * count) for name, count in network.figures["removed"].items()}
            for name, count in counts.items():
                cut_layer(network, name, count)
            after, accuracy = loss_and_accuracy(network, network.calibration)
            row = {
                "removed": sum(counts.values()),
                "loss_before": before,
                "measured_increase": after - before,
                "accuracy_cut": accuracy,
            }
            if parameters.remove_dead_neurons:
                row |= remove_dead_neurons(network)
            if early is not None:
                rewind(network, early)
            return row

        @contextmanager
        def training() -> Iterator[dict[str, Any]]:
            with scaled_dropout(network, dropout) as rates:
                yield {"dropout": rates} if rates else {}

        prune_in_rounds(network, parameters, parameters.seed, cut, prepare=prepare, training=training)

    def _early_weights(self, network: Network) -> dict[str, Tensor] | None:
        """Train to the weights that a rewind resets to; None without rewinding. A resumed attempt computes the same."""
        if self.parameters.rewind_step is None:
            return None
        train(network, self.parameters, self.parameters.rewind_step, self.parameters.seed)
        return {name: each.clone() for name, each in network.model.state_dict().items()}

    def _rates(self, network: Network) -> dict[str, float]:
        """Choose the rate of each layer by name; if layers are scanned, the curves are added to the figures.

        By the scan, the last weight removed costs the same in each layer, see `core.engine.options.sensitivity`.
        Raises InvalidSparsity above the highest rate of the scan: nothing is known beyond it.
        """
        parameters = self.parameters
        if parameters.allocation != "sensitivity":
            return layer_rates(network.layers, parameters.allocation, network.sparsity)
        images = draw_images(network.calibration, parameters.scan_images, parameters.seed)
        dense_loss, dense_accuracy = loss_and_accuracy(network, images)
        rates = sorted(set(parameters.scan_rates))
        curves = layer_sensitivity_curves(
            network, images, rates, lambda shape, rate: cut_layer(network, shape.name, round(rate * shape.numel))
        )
        network.figures["scan"] = {
            "dense": {"loss": dense_loss, "accuracy": dense_accuracy},
            "layers": {
                name: [{"rate": rate, "loss": loss, "accuracy": accuracy} for rate, loss, accuracy in curve]
                for name, curve in curves.items()
            },
        }
        if network.sparsity > rates[-1]:
            raise InvalidSparsity(
                f"sparsity {network.sparsity} is above the highest rate the layers are scanned at, {rates[-1]}: add a "
                "higher one to parameters.scan_rates, or choose another allocation",
                param="sparsity",
            )
        costs = [
            LayerCosts(shape.name, shape.numel, rates, [loss - dense_loss for _, loss, _ in curves[shape.name]])
            for shape in network.layers
        ]
        return {layer.name: rate for layer, rate in zip(costs, allocate(costs, network.sparsity), strict=True)}


def _exact_counts(layers: Sequence[LinearShape], rates: Mapping[str, float]) -> dict[str, int]:
    """Return the number of weights each layer loses, by name; largest remainders round the sum to the nearest one."""
    shares = {shape.name: rates[shape.name] * shape.numel for shape in layers}
    counts = {name: int(each) for name, each in shares.items()}
    missing = round(sum(shares.values())) - sum(counts.values())
    for name in sorted(shares, key=lambda name: counts[name] - shares[name])[:missing]:
        counts[name] += 1
    return counts


def cut_layer(network: Network, name: str, count: int) -> None:
    """Set the `count` smallest weights of a layer to zero."""
    layer = layer_of(network.model, name)
    weight_OI = to_matrix(layer)
    set_matrix(layer, weight_OI.masked_fill(lowest_in_tensor(weight_OI.abs(), count), 0))


@torch.no_grad()
def rewind(network: Network, early: Mapping[str, Tensor]) -> None:
    """Reset everything to the early weights, but keep the zeros of the layers."""
    zeros = {name: weight_OI == 0 for name, weight_OI in matrices(network).items()}
    network.model.load_state_dict(early)
    for name, zero_OI in zeros.items():
        layer = layer_of(network.model, name)
        set_matrix(layer, to_matrix(layer).masked_fill(zero_OI, 0))


@torch.no_grad()
def layers_before_dropout(network: Network) -> dict[str, str]:
    """Return the last prunable layer executed before each dropout module whose rate is above zero, by module name."""
    predecessors: dict[str, str] = {}
    layers, last = {shape.name for shape in network.layers}, list[str]()

    def ran(name: str) -> Callable[..., None]:
        def note(*_: object) -> None:
            if name in layers:
                last[:] = [name]
            elif last:
                predecessors[name] = last[0]

        return note

    handles = [
        module.register_forward_hook(ran(name))
        for name, module in network.model.named_modules()
        if name in layers or (isinstance(module, _DROPOUTS) and module.p > 0)
    ]
    with removed_after(handles):
        network.logits(network.calibration.batch([0]).to(network.device))
    return predecessors


@contextmanager
def scaled_dropout(network: Network, before: Mapping[str, str]) -> Iterator[dict[str, float]]:
    """Scale every dropout rate to D_o·√(C_ir / C_io) (Han 2015, eq. 2) inside the context, and yield the rates by name.

    C_io is the number of connections of the layer before the dropout, and C_ir the number that remains. The original
    rates are restored afterwards. `before` is the result of `layers_before_dropout`.
    """
    modules: dict[str, Any] = {name: network.module(name) for name in before}
    original = {name: module.p for name, module in modules.items()}
    for name, layer in before.items():
        weight = layer_of(network.model, layer).weight
        modules[name].p *= float((weight != 0).sum() / weight.numel()) ** 0.5
    try:
        yield {name: module.p for name, module in modules.items()}
    finally:
        for name, rate in original.items():
            modules[name].p = rate
