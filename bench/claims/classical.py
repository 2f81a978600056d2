"""Claims 1 to 6, on digits, XOR, the MONK problems and Fashion-MNIST: a function each, named as the claim.

Rankings of claim 6 follow the criteria of Molchanov (2016, arXiv:1611.06440, section 2); the product has only the
Taylor criterion. All have one signature; scores are [units] for each group of coupled channels, and higher is kept.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import scipy.stats
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bench.claims.data import IMAGE_SHAPE, Split, digits, fashion_mnist, monk, xor
from bench.claims.networks import (
    LENET_5,
    RETRAINING_RATE,
    VGG,
    Recipe,
    digit_network,
    layers,
    outcome,
    prune,
    pruned,
    train,
    trained,
)
from bench.claims.record import Record
from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_set import ImageSet, draw_images
from core.engine.evaluation.flops import count_flops
from core.engine.pruning.network import Network, mean_loss
from core.methods.classifiers import filters
from core.methods.classifiers.coupled_channels import CoupledChannels
from core.methods.classifiers.filters import FilterTaylor, kernel_sums
from core.methods.classifiers.sensitivity import layer_sensitivity_curves
from core.methods.descriptions.classifiers import FilterTaylorParameters

_AT_ONCE = 0.05
"""Share of the weights that goes before the curvature is taken anew."""
_CURVATURES = {"obd": "gauss_newton", "obd, squared error": "squared_error"}
_OBD: dict[str, Any] = {"rounds": 1, "retrain_steps": 0, "curvature_images": None}


def optimal_brain_damage(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 1: OBD against magnitude on the digit network, nothing retrained."""
    data, dense = digit_network(seed, setting)
    before = outcome(dense, data.train)
    record.fact("dense training loss", before.loss)
    record.fact("dense test error", outcome(dense, data.test).error)
    in_turn = {line: copy.deepcopy(dense) for line in _CURVATURES}
    for sparsity in setting["sparsities"]:
        for line, model in in_turn.items():  # from where the share before left it
            for share in (sparsity - _AT_ONCE, sparsity):
                prune(model, "obd", share, data.train, curvature=_CURVATURES[line], **_OBD)
        at_once, scene = pruned(dense, "obd", sparsity, data.train, **_OBD)
        magnitude, _ = pruned(dense, "magnitude", sparsity, scope="model")
        for line, model in (in_turn | {"obd at once": at_once, "magnitude": magnitude}).items():
            record.point("loss", line, sparsity, outcome(model, data.train).loss)
            record.point("error", line, sparsity, outcome(model, data.test).error)
        increase = outcome(at_once, data.train).loss - before.loss
        record.point("prediction", "predicted", sparsity, scene.figures["rounds"][-1]["predicted_increase"])
        record.point("prediction", "actual", sparsity, increase)


def prune_and_retrain(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 2: OBD and retraining in turn."""
    data, dense = digit_network(seed, setting)
    record.fact("dense test error", outcome(dense, data.test).error)
    chain, control = copy.deepcopy(dense), copy.deepcopy(dense)
    training = {
        "retrain_steps": setting["retrain_steps"],
        "learning_rate": setting["retrain_learning_rate"],
        "batch_size": 64,
        "seed": seed,
    }
    for sparsity in setting["sparsities"]:
        prune(chain, "obd", sparsity, data.train, rounds=1, **training)
        train(control, data.train, setting["retrain_steps"], setting["retrain_learning_rate"], seed=seed)
        cut, _ = pruned(dense, "obd", sparsity, data.train, rounds=1, retrain_steps=0)
        for line, model in (("retrained", chain), ("not retrained", cut), ("dense, trained as long", control)):
            record.point("error", line, sparsity, outcome(model, data.test).error)
            record.point("loss", line, sparsity, outcome(model, data.train).loss)


METHODS = ("obs", "obd", "magnitude")
_HIDDEN_UNITS = {1: 3, 2: 2, 3: 2}
_TOLERATED = 0.01


def optimal_brain_surgeon(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 3: OBS, OBD and magnitude without retraining: digits, XOR, the MONK problems."""
    _digits(seed, setting, record)
    _xor(seed, setting, record)
    for problem in _HIDDEN_UNITS:
        _monk(problem, seed, setting, record)


def _cut(
    dense: PreTrainedModel, method: str, sparsities: Sequence[float], images: ImageSet, at_once: int = 1
) -> Iterator[tuple[float, PreTrainedModel]]:
    """The network after each sparsity, without retraining, each from the one before; the curvature is taken anew after
    every `at_once` deletions.
    """
    model, weights, gone = copy.deepcopy(dense), sum(layer.numel for layer in layers(dense)), 0.0
    for sparsity in sparsities:
        options: dict[str, dict[str, Any]] = {
            "obs": {"mode": "exact", "reestimate_every": at_once, "curvature_images": None},
            "obd": {"rounds": 1, "retrain_steps": 0, "curvature_images": None},
            "magnitude": {"scope": "model"},
        }
        deletions = round(sparsity * weights) - round(gone * weights)
        turns = max(1, round(deletions / at_once)) if method == "obd" else 1
        for turn in range(1, turns + 1):
            prune(model, method, gone + (sparsity - gone) * turn / turns, images, **options[method])
        gone = sparsity
        yield sparsity, model


def _digits(seed: int, setting: dict[str, Any], record: Record) -> None:
    data = digits(seed, enlarged=False)
    network = {"network": "mlp", "hidden_sizes": [16], "image_size": 8, "num_labels": 10}
    dense = trained(Recipe("small digits", network, setting["steps"], setting["learning_rate"]), data.train, seed)
    record.fact("digits: dense training loss", outcome(dense, data.train).loss)
    for method in METHODS:
        for sparsity, model in _cut(dense, method, setting["sparsities"], data.train, setting["at_once"]):
            record.point("loss", method, sparsity, outcome(model, data.train).loss)


def _xor(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Networks that learnt XOR; a draw that did not is left out and counted."""
    cases = xor()
    network = {"network": "mlp", "hidden_sizes": [2], "num_channels": 2, "image_size": 1, "num_labels": 2}
    recipe = Recipe("xor", network, setting["xor_steps"], learning_rate=0.02, batch_size=4)
    found: list[PreTrainedModel] = []
    for number in itertools.count():
        dense = trained(recipe, cases, seed * 1000 + number)
        if outcome(dense, cases).error == 0:
            found.append(dense)
        if len(found) == setting["xor_networks"]:
            record.fact("XOR: networks that did not learn it, left out", number + 1 - len(found))
            break
    for method in METHODS:
        cut = [model for each in found for _, model in _cut(each, method, [setting["xor_sparsity"]], cases)]
        solved = [outcome(model, cases).error == 0 for model in cut]
        record.point("xor", method, "solved", sum(solved) / len(solved))


def _monk(problem: int, seed: int, setting: dict[str, Any], record: Record) -> None:
    data = monk(problem, seed)
    name = f"MONK-{problem}"
    network = {
        "network": "mlp",
        "hidden_sizes": [_HIDDEN_UNITS[problem]],
        "num_channels": 17,
        "image_size": 1,
        "num_labels": 2,
    }
    dense = trained(Recipe(name, network, setting["monk_steps"], learning_rate=0.02), data.train, seed)
    limit = outcome(dense, data.train).error + _TOLERATED
    record.fact(f"{name}: dense test error", outcome(dense, data.test).error)
    for method in METHODS:
        share, error = 0.0, outcome(dense, data.test).error
        for sparsity, model in _cut(dense, method, setting["monk_sparsities"], data.train):
            if outcome(model, data.train).error > limit:
                break
            share, error = sparsity, outcome(model, data.test).error
        record.point("monks", method, name, share)
        record.point("monk_error", method, name, error)


SCAN_IMAGES = 4000


def weights_and_connections(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 4: LeNet-5 without retraining, in rounds against one shot, and layer by layer."""
    data = fashion_mnist()
    dense = trained(LENET_5, data.train, seed)
    record.fact("dense error", outcome(dense, data.test).error)
    for sparsity in (*setting["sparsities"], *setting["high_sparsities"]):
        model, _ = pruned(dense, "magnitude", sparsity, scope="tensor")
        record.point("error", "no retraining", sparsity, outcome(model, data.test).error)
    rounds, steps = setting["rounds"], setting["retrain_steps"]
    for sparsity in setting["high_sparsities"]:
        for line, turns, each in (("iterative", rounds, steps), ("one shot, retrained", 1, rounds * steps)):
            model, _ = pruned(
                dense,
                "iterative-magnitude",
                sparsity,
                data.train,
                rounds=turns,
                retrain_steps=each,
                allocation="uniform",
                learning_rate=RETRAINING_RATE,
                batch_size=64,
                seed=seed,
            )
            record.point("error", line, sparsity, outcome(model, data.test).error)
    images = draw_images(data.train, SCAN_IMAGES, seed)
    scene = Network(dense, layers(dense), images=images)

    def alone(layer: LinearShape, rate: float) -> None:
        prune(dense, "magnitude", rate, among=[layer], scope="tensor")

    for name, points in layer_sensitivity_curves(scene, images, setting["rates"], alone).items():
        for rate, loss, _ in points:
            record.point("sensitivity", name.removeprefix("network."), rate, loss)


ORDERS = ("smallest", "random", "largest")


def filter_norms(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 5: filters by their L1 norm; each convolution alone; one retraining for a quarter of the training time."""
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
    ascending = [kernel_sums(groups, place).argsort(stable=True) for place in range(len(groups.groups))]
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


Criterion = Callable[[Network, CoupledChannels, ImageSet, int], list[Tensor]]


def taylor(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return the product's own scores."""
    return filters.taylor(network, groups, images)


def obd(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return ½·h, h = ∂²C/∂g² by Gauss–Newton: LeCun's (1989) estimate of the loss of deleting a gate of 1.

    For cross-entropy JᵀH_zJ is the expected squared gradient of a label's log-probability, with the label drawn from
    the model's own prediction: a sum over all labels.
    """
    totals = _zeros(groups)
    for pixels_BCHW, _ in network.batches(images):
        gates = filters.open_gates(network, groups, len(pixels_BCHW))
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
        network.module(name).register_forward_pre_hook(partial(see, len(group.readers), total_U, channels_UK))
        for group, total_U in zip(groups.groups, totals, strict=True)
        for name, channels_UK in group.readers
    ]
    for pixels_BCHW, _ in network.batches(images):
        network.logits(pixels_BCHW)
    for hook in hooks:
        hook.remove()
    return [total_U / len(images) for total_U in totals]


def minimum_weight(network: Network, groups: CoupledChannels, images: ImageSet, seed: int) -> list[Tensor]:
    """Return 1/|w| Σ w² over the kernels that produce the map."""
    return [
        kernel_sums(groups, place, power=2)
        / sum(network.model.get_parameter(f"{name}.weight")[0].numel() * group.size for name in group.leaders)
        for place, group in enumerate(groups.groups)
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
    return scores if name in ("random", "oracle") else filters.between_layers(scores)


class Ranked(FilterTaylor):
    """The product's method with another criterion in the place of Taylor's."""

    def __init__(self, parameters: FilterTaylorParameters, criterion: str) -> None:
        super().__init__(parameters)
        self._criterion = criterion

    def scores(self, network: Network, groups: CoupledChannels, number: int = 0) -> list[Tensor]:
        seed = self._parameters.seed + number
        images = draw_images(network.calibration, self._parameters.measured_images, seed)
        return rank(self._criterion, network, groups, images, seed)


def taylor_rankings(seed: int, setting: dict[str, Any], record: Record) -> None:
    """Claim 6: rankings against the oracle, and accuracy against FLOPs by each."""
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
