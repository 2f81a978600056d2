"""Tiny image classifiers of every family, with random weights, as folders; and networks that lost channels."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch_pruning
import transformers
from torch import nn
from transformers import AutoModelForImageClassification, PretrainedConfig, PreTrainedModel

from core.engine.architectures.declared import CLASSIFIER_ARCHITECTURES
from core.engine.models.reference_networks import NETWORKS, ReferenceConfig
from tests.families import CLASSIFIER_CONFIGS

CLASSES = 5


def image_shape(name: str) -> tuple[int, int, int]:
    """[channels, height, width] of images for a model."""
    if name in NETWORKS:
        return (1, 28, 28)
    return (3, 16, 16) if name in ("vit", "deit") else (3, 32, 32)


def make_config(name: str, classes: int = CLASSES) -> PretrainedConfig:
    if name in NETWORKS:
        return ReferenceConfig(network=name, hidden_sizes=[8, 8], num_labels=classes)
    kind, values = CLASSIFIER_CONFIGS[name]
    config = getattr(transformers, kind)(**values, num_labels=classes)
    assert isinstance(config, PretrainedConfig)
    families = (family for family in CLASSIFIER_ARCHITECTURES.values() if family.model_type == config.model_type)
    config.architectures = [next(families).architecture]
    return config


def make_classifier(folder: Path, name: str, *, dtype: torch.dtype = torch.float32, classes: int = CLASSES) -> Path:
    """Save a random model whose batch-norms have seen something."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(make_config(name, classes))
    assert isinstance(model, PreTrainedModel)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * 0.05)
    model.to(dtype).save_pretrained(folder)
    return folder


def images(name: str, count: int = 3) -> torch.Tensor:
    return torch.randn((count, *image_shape(name)), generator=torch.Generator().manual_seed(1))


def remove_channels(model: nn.Module, name: str, layer: str, channels: list[int]) -> None:
    """Remove outputs of a convolution or linear layer, and all that is coupled to them."""
    graph = torch_pruning.DependencyGraph()
    example = images(name, 1)
    graph.build_dependency(
        model,
        example_inputs=example,
        forward_fn=lambda network, batch: network(pixel_values=batch).logits,
        verbose=False,
    )
    module = model.get_submodule(layer)
    prune: Callable[..., object] = (
        torch_pruning.prune_conv_out_channels
        if isinstance(module, nn.Conv2d)
        else torch_pruning.prune_linear_out_channels
    )
    graph.get_pruning_group(module, prune, idxs=channels).prune()


def zero_half(model: nn.Module) -> None:
    """Set the smaller half of every convolution's and linear layer's weights to zero."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                threshold = module.weight.abs().median()
                module.weight.mul_(module.weight.abs() > threshold)
