"""Claim 5: filters by their L1 norm; each convolution alone; one retraining for a quarter of the training time."""

import copy
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from bench.claims.data import IMAGE_SHAPE, Split, fashion_mnist
from bench.claims.networks import RETRAINING_RATE, VGG, layers, outcome, pruned, train, trained
from bench.claims.record import Record
from core.engine.datasets.subset import draw_images
from core.engine.evaluation.flops import count_flops
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.filters.rankings import kernel_sums
from core.engine.pruning.network import Network, mean_loss

ORDERS = ("smallest", "random", "largest")


def measure(seed: int, setting: dict[str, Any], record: Record) -> None:
    """All parts."""
    data = fashion_mnist()
    dense = trained(VGG, data.train, seed)
    record.fact("dense error", outcome(dense, data.test).error)
    all_flops = count_flops(dense, IMAGE_SHAPE)
    for share in setting["shares"]:
        for order in ORDERS:
            model, _ = pruned(
                dense, "filter-l1", share, data.train, pattern="structured", order=order, seed=seed, retrain_steps=0
            )
            record.point("before", order, share, outcome(model, data.test).error)
            _retrain(model, data, seed)
            record.point("after", order, share, outcome(model, data.test).error)
            if order == "smallest":
                removed = 1 - count_flops(model, IMAGE_SHAPE) / all_flops
                record.fact(f"FLOPs removed with {share:.0%} of parameters".replace("%", " %"), removed)
    _alone(dense, data, seed, setting, record)


def _retrain(model: PreTrainedModel, data: Split, seed: int) -> None:
    """Once, for a quarter of the first training's steps."""
    train(model, data.train, VGG.steps // 4, RETRAINING_RATE, seed=seed)


def _alone(dense: PreTrainedModel, data: Split, seed: int, setting: dict[str, Any], record: Record) -> None:
    """The loss against the share of each convolution's filters, and the one that bears most cut and retrained."""
    model = copy.deepcopy(dense)
    images = draw_images(data.train, setting["images"], seed)
    scene, groups = Network(model, layers(model), images=images), CoupledChannels.of(model, IMAGE_SHAPE)
    ascending = [kernel_sums(model, group, power=1).argsort(stable=True) for group in groups.groups]
    losses = {}
    for place, group in enumerate(groups.groups):
        for rate in setting["rates"]:
            with groups.silenced({place: _first(ascending[place], rate)}):
                losses[place, rate] = mean_loss(scene, images)
            record.point("sensitivity", group.name.removeprefix("network."), rate, losses[place, rate])
    rate = setting["rate_alone"]
    best = min(range(len(groups.groups)), key=lambda place: losses[place, rate])
    groups.remove({best: _first(ascending[best], rate)})
    _retrain(model, data, seed)
    record.fact(f"error with {rate * 100:.0f} % of one convolution gone, retrained", outcome(model, data.test).error)


def _first(order_U: Tensor, rate: float) -> list[int]:
    chosen: list[int] = order_U[: round(rate * len(order_U))].tolist()
    return chosen
