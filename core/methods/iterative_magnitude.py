"""Iterative magnitude pruning (Han, Pool, Tran & Dally 2015, arXiv:1506.02626).

Learn which connections matter, cut the others, retrain those left, and repeat.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.datasets.image_set import draw_images
from core.engine.models.hooks import removed_after
from core.engine.pruning.iterative.dead_neurons import remove_dead_neurons
from core.engine.pruning.iterative.layer_scan import exact_counts, layer_sensitivity_curves, rates_from_curves
from core.engine.pruning.iterative.rounds import matrices, prune_in_rounds, train
from core.engine.pruning.layer_matrix import layer_of, set_matrix, to_matrix
from core.engine.pruning.layerwise.classifier_pass import layer_rates
from core.engine.pruning.masks import lowest_in_tensor
from core.engine.pruning.network import Network, loss_and_accuracy
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.methods.descriptions.classifiers import IterativeMagnitudeParameters

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
            total = round(sum(rates[shape.name] * shape.numel for shape in network.layers))
            network.figures |= {"rates": rates, "removed": exact_counts(network.layers, rates, total)}

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
                dead = remove_dead_neurons(network)
                row |= {"dead_neurons": dead.neurons, "weights_of_dead_neurons": dead.weights}
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
        """Choose the rate of each layer by name; if layers are scanned, the curves are added to the figures."""
        parameters = self.parameters
        if parameters.allocation != "sensitivity":
            return layer_rates(network.layers, parameters.allocation, network.sparsity)
        images = draw_images(network.calibration, parameters.scan_images, parameters.seed)
        loss, accuracy = loss_and_accuracy(network, images)
        curves = layer_sensitivity_curves(
            network,
            images,
            sorted(set(parameters.scan_rates)),
            lambda shape, rate: cut_layer(network, shape.name, round(rate * shape.numel)),
        )
        network.figures["scan"] = {
            "dense": {"loss": loss, "accuracy": accuracy},
            "layers": {
                name: [{"rate": rate, "loss": loss, "accuracy": accuracy} for rate, loss, accuracy in curve]
                for name, curve in curves.items()
            },
        }
        return rates_from_curves(network.layers, curves, loss, network.sparsity)


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
    last: list[str] = []

    def ran(name: str) -> Any:
        return lambda *_: last.append(name)

    def dropped(name: str) -> Any:
        return lambda *_: predecessors.update({name: last[-1]} if last else {})

    handles = [network.module(shape.name).register_forward_hook(ran(shape.name)) for shape in network.layers]
    handles += [
        module.register_forward_hook(dropped(name))
        for name, module in network.model.named_modules()
        if isinstance(module, _DROPOUTS) and module.p > 0
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
    original: dict[str, float] = {}
    scaled: dict[str, float] = {}
    for name, layer in before.items():
        module = network.module(name)
        assert isinstance(module, _DROPOUTS)
        weight = layer_of(network.model, layer).weight
        original[name] = module.p
        scaled[name] = module.p = module.p * float((weight != 0).sum() / weight.numel()) ** 0.5
    try:
        yield scaled
    finally:
        for name, rate in original.items():
            module = network.module(name)
            assert isinstance(module, _DROPOUTS)
            module.p = rate
