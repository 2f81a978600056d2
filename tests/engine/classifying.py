"""Small image classifiers and images to prune them with."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.datasets.image_set import ImageSet
from core.engine.models.reference_networks import ReferenceConfig, ReferenceNetwork
from core.engine.options.patterns import UNSTRUCTURED, parse_pattern
from core.engine.pruning.network import Network
from core.engine.pruning.retraining import retrain
from core.engine.recovery.request import Recovery
from core.methods.engine import build_classifier_method
from core.methods.registry import get_method
from tests.engine.classifier_networks import layers_of as shapes


class Plain(nn.Module):
    """Any module that makes logits of images, with a classifier's forward."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.body(pixel_values))


def network(name: str, *, classes: int = 10, seed: int = 0, **config: Any) -> ReferenceNetwork:
    torch.manual_seed(seed)
    return ReferenceNetwork(ReferenceConfig(network=name, num_labels=classes, **config)).eval()


def random_images(count: int, shape: Sequence[int], *, classes: int = 10, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    return ImageSet(torch.randn(count, *shape, generator=generator), labels)


def scene(model: nn.Module, images: ImageSet | None = None, **asked: Any) -> Network:
    pattern = parse_pattern(asked.pop("pattern", UNSTRUCTURED.text))
    return Network(model=model, layers=shapes(model), images=images, pattern=pattern, **asked)


def prune(method: str, place: Network, **parameters: Any) -> Network:
    build_classifier_method(method, get_method(method).parameters(**parameters)).prune(place)
    return place


def zeros(model: nn.Module) -> dict[str, int]:
    """Of each prunable layer's weight."""
    return {shape.name: int((model.get_submodule(shape.name).weight == 0).sum()) for shape in shapes(model)}


@cache
def _digits() -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    return ImageSet(pixels, torch.tensor(digits.target))


def digits(first: int = 0, last: int = 1000) -> ImageSet:
    """Handwritten digits, [1, 8, 8]."""
    whole = _digits()
    return ImageSet(whole.batch(range(first, last)), whole.labels_N[first:last])


@cache
def _trained_weights() -> dict[str, Tensor]:
    model = network("mlp", hidden_sizes=[12], image_size=8)
    retrain(model, digits(), Recovery(method="finetune", steps=150, learning_rate=1e-2, batch_size=100), {})
    return model.state_dict()


def trained_digits() -> ReferenceNetwork:
    """A network of 12 hidden units, 888 weights, that reads the digits."""
    model = network("mlp", hidden_sizes=[12], image_size=8)
    model.load_state_dict(_trained_weights())
    return model
