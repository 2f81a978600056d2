"""Tiny classifiers of every family with random weights, and scenes to prune them in."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, PretrainedConfig, PreTrainedModel

from core.engine.architectures.structure import LinearShape
from core.engine.datasets.image_set import ImageSet
from core.engine.models.reference_networks import ReferenceConfig
from core.engine.pruning.network import Network

CLASSES = 5


@dataclass(frozen=True)
class SmallNetwork:
    config: str
    values: dict[str, Any]
    image_shape: tuple[int, int, int]

    def configuration(self) -> PretrainedConfig:
        if self.config == "ReferenceConfig":
            return ReferenceConfig(num_labels=CLASSES, **self.values)
        made: PretrainedConfig = getattr(transformers, self.config)(num_labels=CLASSES, **self.values)
        return made


_STAGES = {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 2]}
_PATCHES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20,
    "image_size": 16, "patch_size": 4}  # fmt: skip

NETWORKS = {
    "resnet-basic": SmallNetwork("ResNetConfig", _STAGES | {"layer_type": "basic"}, (3, 32, 32)),
    "resnet-bottleneck": SmallNetwork("ResNetConfig", _STAGES | {"layer_type": "bottleneck"}, (3, 32, 32)),
    "mobilenet-v2": SmallNetwork("MobileNetV2Config", {"depth_multiplier": 0.2, "image_size": 32}, (3, 32, 32)),
    "regnet-x": SmallNetwork("RegNetConfig", _STAGES | {"layer_type": "x", "groups_width": 8}, (3, 32, 32)),
    "regnet-y": SmallNetwork("RegNetConfig", _STAGES | {"layer_type": "y", "groups_width": 8}, (3, 32, 32)),
    "convnext": SmallNetwork(
        "ConvNextConfig", {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "image_size": 32}, (3, 32, 32)
    ),
    "vit": SmallNetwork("ViTConfig", _PATCHES, (3, 16, 16)),
    "deit": SmallNetwork("DeiTConfig", _PATCHES | {"architectures": ["DeiTForImageClassification"]}, (3, 16, 16)),
    "timm-vgg": SmallNetwork(
        "TimmWrapperConfig", {"architecture": "vgg11_bn", "model_args": {"mlp_ratio": 0.01}}, (3, 32, 32)
    ),
    "timm-resnet10t": SmallNetwork(
        "TimmWrapperConfig",
        {"architecture": "resnet10t", "model_args": {"channels": [16, 24, 32, 48], "stem_width": 16}},
        (3, 32, 32),
    ),
    "lenet-300-100": SmallNetwork("ReferenceConfig", {"network": "lenet-300-100", "image_size": 8}, (1, 8, 8)),
    "lenet-5": SmallNetwork("ReferenceConfig", {"network": "lenet-5"}, (1, 28, 28)),
    "digits-1989": SmallNetwork("ReferenceConfig", {"network": "digits-1989"}, (1, 28, 28)),
    "vgg": SmallNetwork(
        "ReferenceConfig", {"network": "vgg", "hidden_sizes": [6, 10], "image_size": 8}, (1, 8, 8)
    ),
}  # fmt: skip


def make_classifier(name: str, *, seed: int = 0) -> PreTrainedModel:
    """In evaluation mode; norms and scales are random too, so that every channel does something of its own."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForImageClassification.from_config(NETWORKS[name].configuration())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.05))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def layers_of(model: nn.Module) -> list[LinearShape]:
    weights = [
        (name, each.weight) for name, each in model.named_modules() if isinstance(each, nn.Conv2d | nn.Linear)
    ]  # fmt: skip
    return [
        LinearShape(name=name, layer=place, out_features=len(weight), in_features=weight[0].numel())
        for place, (name, weight) in enumerate(weights)
    ]


def random_images(shape: tuple[int, int, int], count: int = 24) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    pixels_NCHW = torch.randn(count, *shape, generator=generator)
    return ImageSet(pixels_NCHW, torch.randint(CLASSES, (count,), generator=generator))


def make_scene(model: nn.Module, images: ImageSet, sparsity: float = 0.0, **more: Any) -> Network:
    return Network(model, layers_of(model), sparsity, images=images, **more)


def logits(model: nn.Module, images: ImageSet) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model(pixel_values=images.batch(range(4))).logits
    return answer
