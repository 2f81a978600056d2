"""Dense networks, trained once for each recipe and seed and kept in .cache/bench/claims, and what they are worth."""

import copy
import fcntl
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from bench.cells import CACHE, own_release
from bench.claims.data import Split, digits
from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_set import ImageSet
from core.engine.evaluation.accuracy import measure_accuracy
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.models.reference_networks import ReferenceConfig, ReferenceNetwork
from core.engine.options.patterns import parse_pattern
from core.engine.pruning.network import Network, weights_of
from core.engine.pruning.retraining import retrain
from core.engine.recovery.request import Recovery
from core.methods.engine import build_classifier_method
from core.methods.registry import parse_parameters

FOLDER = CACHE / "claims"
_CODE = (
    "core/engine/models/reference_networks.py",
    "core/engine/pruning/retraining.py",
    "core/engine/recovery/training.py",
)


@dataclass(frozen=True)
class Recipe:
    """A network and its training; `data` names what it is trained on."""

    data: str
    network: dict[str, Any]
    steps: int
    learning_rate: float = 2e-3
    batch_size: int = 64


RETRAINING_RATE = 1e-3
"""Of AdamW, half of what the networks were trained with at first."""
DIGITS_1989 = {"network": "digits-1989", "image_size": 28, "num_labels": 10}
LENET_5 = Recipe("fashion-mnist", {"network": "lenet-5", "num_labels": 10}, steps=2500)
VGG = Recipe("fashion-mnist", {"network": "vgg", "hidden_sizes": [16, 32, 64], "num_labels": 10}, steps=1500)


def trained(recipe: Recipe, images: ImageSet, seed: int) -> PreTrainedModel:
    """The dense network of a recipe and a seed, in evaluation mode; trained where it is not kept."""
    code = [(Path(__file__).parents[2] / name).read_text() for name in _CODE]
    facts = [asdict(recipe), seed, own_release(), torch.get_num_threads(), code]
    place = FOLDER / "dense" / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:  # cells of other claims may want the same network
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            torch.manual_seed(seed)
            model = ReferenceNetwork(ReferenceConfig(**recipe.network))
            train(model, images, recipe.steps, recipe.learning_rate, seed=seed, batch_size=recipe.batch_size)
            partial = place.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            model.save_pretrained(partial)
            partial.rename(place)
    return load_classifier(open_classifier(place))


def digit_network(seed: int, setting: dict[str, Any]) -> tuple[Split, PreTrainedModel]:
    """The digits of a seed, enlarged, and the network of 1989 trained on them; `setting` says for how long."""
    data = digits(seed, enlarged=True)
    return data, trained(Recipe("digits", DIGITS_1989, setting["steps"], setting["learning_rate"]), data.train, seed)


def train(
    model: PreTrainedModel, images: ImageSet, steps: int, learning_rate: float, *, seed: int, batch_size: int = 64
) -> None:
    """Train in place, zeros of all prunable weights held."""
    recovery = Recovery(method="finetune", steps=steps, learning_rate=learning_rate, batch_size=batch_size, seed=seed)
    retrain(model, images, recovery, weights_of(model, layers(model)))


def layers(model: PreTrainedModel) -> list[LinearShape]:
    """The convolutions and linear layers of a model, in order, as it is now."""
    weights = [
        (name.removesuffix(".weight"), weight)
        for name, weight in model.named_parameters()
        if name.endswith(".weight") and weight.dim() in (2, 4)
    ]
    return [
        LinearShape(name=name, layer=place, out_features=len(weight), in_features=weight[0].numel())
        for place, (name, weight) in enumerate(weights)
    ]


def prune(
    model: PreTrainedModel,
    method: str,
    sparsity: float,
    images: ImageSet | None = None,
    *,
    pattern: str = "unstructured",
    among: Sequence[LinearShape] | None = None,
    **parameters: Any,
) -> Network:
    """Prune in place by one of the service's methods, all layers or those of `among`; the scene then holds the method's
    own report.
    """
    scene = Network(model, among or layers(model), sparsity=sparsity, pattern=parse_pattern(pattern), images=images)
    build_classifier_method(method, parse_parameters(method, parameters)).prune(scene)
    return scene


def pruned(dense: PreTrainedModel, *arguments: Any, **options: Any) -> tuple[PreTrainedModel, Network]:
    """A pruned copy; arguments are those of `prune`."""
    model = copy.deepcopy(dense)
    return model, prune(model, *arguments, **options)


@dataclass(frozen=True)
class Outcome:
    """Mean cross-entropy in nats, and the share of images classified wrongly."""

    loss: float
    error: float


def outcome(model: PreTrainedModel, images: ImageSet) -> Outcome:
    """What a model makes of an image set."""
    accuracy = measure_accuracy(model, images, batch_size=500)
    return Outcome(accuracy.loss, 1 - accuracy.top1)
