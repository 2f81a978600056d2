"""Claim 6: rankings against the oracle, and accuracy against FLOPs by each.

The rankings follow the criteria of Molchanov (2016, arXiv:1611.06440, section 2). The product has only the Taylor
criterion. All rankings have one signature; scores are [units] for each group of coupled channels, and higher is kept.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import scipy.stats
import torch
from torch import Tensor, nn

from bench.claims.data import IMAGE_SHAPE, fashion_mnist
from bench.claims.networks import RETRAINING_RATE, VGG, layers, outcome, trained
from bench.claims.record import Record
from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.subset import draw_images
from core.engine.evaluation.flops import count_flops
from core.engine.pruning.filters import rankings
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.network import Network, mean_loss
from core.methods.filter_taylor.info import FilterTaylorParameters
from core.methods.filter_taylor.method import FilterTaylor

Criterion = Callable[[Network, CoupledChannels, ImageSet, int], list[Tensor]]


def taylor(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return the product's own scores."""
    return rankings.taylor(network, groups, images)


def obd(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return ½·h, h = ∂²C/∂g² by Gauss–Newton: LeCun's (1989) estimate of the loss of deleting a gate of 1.

    For cross-entropy JᵀH_zJ is the expected squared gradient of a label's log-probability, with the label drawn from
    the model's own prediction: a sum over all labels.
    """
    totals = _zeros(groups)
    for pixels_BCHW, _ in network.batches(images):
        gates = rankings.open_gates(network, groups, len(pixels_BCHW))
        with groups.gated(gates):
            logarithms_BK = network.logits(pixels_BCHW).log_softmax(dim=-1)
        for logarithm_B in logarithms_BK.unbind(1):
            gradients = torch.autograd.grad(logarithm_B.sum(), gates, retain_graph=True)
            for total_U, gradient_BU in zip(totals, gradients, strict=True):
                total_U += (gradient_BU.square() * logarithm_B.detach().exp()[:, None]).sum(dim=0) / 2
    return [total_U / len(images) for total_U in totals]


@torch.no_grad()
def oracle(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return |ΔC|, the change of the loss without each unit (section 2.2, oracle-abs)."""
    dense, scores = mean_loss(network, images), _zeros(groups)
    for place, score_U in enumerate(scores):
        for unit in range(len(score_U)):
            with groups.silenced({place: [unit]}):
                score_U[unit] = abs(mean_loss(network, images) - dense)
    return scores


@torch.no_grad()
def activation(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return mean |z| over images, places and readers: the mean activation for maps after a rectifier."""
    totals = _zeros(groups)

    def see(readers: int, total_U: Tensor, channels_UK: Tensor, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        size_C = inputs[0].abs().movedim(1 if isinstance(layer, nn.Conv2d) else -1, -1)
        mean_C = size_C.flatten(1, -2).mean(dim=1).sum(dim=0) if size_C.dim() > 2 else size_C.sum(dim=0)
        total_U += mean_C[channels_UK].mean(dim=1) / readers

    hooks = [
        network.module(member.name).register_forward_pre_hook(
            partial(see, len(group.readers), total_U, member.channels_UK)
        )
        for group, total_U in zip(groups.groups, totals, strict=True)
        for member in group.readers
    ]
    for pixels_BCHW, _ in network.batches(images):
        network.logits(pixels_BCHW)
    for hook in hooks:
        hook.remove()
    return [total_U / len(images) for total_U in totals]


def minimum_weight(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return 1/|w| Σ w² over the kernels that produce the map."""
    return [
        rankings.kernel_sums(network.model, group, power=2)
        / sum(
            network.model.get_parameter(f"{member.name}.weight")[0].numel() * member.channels_UK.shape[1]
            for member in group.leaders
        )
        for group in groups.groups
    ]


def random(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Draw scores uniformly from [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(group.units, generator=generator, dtype=torch.float64) for group in groups.groups]


CRITERIA: Final[Mapping[str, Criterion]] = {
    each.__name__: each for each in (taylor, obd, activation, minimum_weight, random, oracle)
}


def rank(name: str, network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return the scores of a criterion, comparable between layers; `oracle` and `random` are not divided for that."""
    scores = CRITERIA[name](network, groups, images, seed)
    return scores if name in ("random", "oracle") else rankings.between_layers(scores)


class Ranked(FilterTaylor):
    """The product's method with another criterion in the place of Taylor's."""

    def __init__(self, parameters: FilterTaylorParameters, criterion: str) -> None:
        super().__init__(parameters)
        self._criterion = criterion

    def scores(self, network: Network, groups: CoupledChannels, number: int = 0) -> list[Tensor]:
        seed = self._parameters.seed + number
        images = draw_images(network.calibration, self._parameters.measured_images, seed)
        return rank(self._criterion, network, groups, images, seed)


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Correlations of the dense network's rankings; then filters removed by some of them, from share to share."""
    data = fashion_mnist()
    dense = trained(VGG, data.train, seed)
    record.fact("dense error", outcome(dense, data.test).error)
    images = draw_images(data.train, setting["images"], seed)
    scene, groups = Network(dense, layers(dense), images=images), CoupledChannels.of(dense, IMAGE_SHAPE)
    scores = {name: torch.cat(rank(name, scene, groups, images, seed)) for name in CRITERIA}
    for name, score_U in scores.items():
        if name != "oracle":
            correlation = scipy.stats.spearmanr(score_U, scores["oracle"]).statistic
            record.point("correlation", name, "Spearman", float(correlation))
    all_flops, all_parameters = count_flops(dense, IMAGE_SHAPE), dense.num_parameters()
    record.fact("dense MFLOPs for an image", all_flops / 1e6)
    for ranking in setting["rankings"]:
        model = copy.deepcopy(dense)
        for share in setting["shares"]:
            parameters = FilterTaylorParameters(
                flops_reduction=1 - (1 - share) * all_flops / count_flops(model, IMAGE_SHAPE),
                filters_per_round=setting["filters_per_round"],
                measured_images=setting["images"],
                retrain_steps=setting["retrain_steps"],
                retrain_learning_rate=RETRAINING_RATE,
                seed=seed,
            )
            Ranked(parameters, ranking).prune(Network(model, layers(model), images=data.train))
            record.point("error", ranking, share, outcome(model, data.test).error)
            record.point("parameters", ranking, share, model.num_parameters() / all_parameters)


def _zeros(groups: CoupledChannels) -> list[Tensor]:
    return [torch.zeros(group.units, dtype=torch.float64) for group in groups.groups]
