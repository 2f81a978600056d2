"""Small networks that the classical papers prune, in Hugging Face form.

They are built by name from their config alone, so that a job, an artifact and its reload work as for any model. The
classes are registered with transformers' auto classes when this module is imported.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

from core.engine.architectures.architecture import REFERENCE_TYPE, NetworkName


class ReferenceConfig(PretrainedConfig):
    """Config of a reference network for images [num_channels, image_size, image_size].

    `network` is one of NETWORKS; `hidden_sizes` are the widths of `mlp`'s hidden layers, or the channels of each stage
    of `vgg`.
    """

    model_type = REFERENCE_TYPE

    def __init__(
        self,
        network: NetworkName = "lenet-300-100",
        hidden_sizes: list[int] | None = None,
        num_channels: int = 1,
        image_size: int = 28,
        **kwargs: Any,
    ) -> None:
        self.network = network
        self.hidden_sizes = hidden_sizes or [32]
        self.num_channels = num_channels
        self.image_size = image_size
        super().__init__(**kwargs)


class ScaledAverage(nn.Module):
    """Mean over 2 x 2 windows, times a trained coefficient, plus a trained bias, per map (LeCun 1989)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.scale = nn.Conv2d(channels, channels, 1, groups=channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.scale.bias)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        return self.scale(self.pool(maps))  # type: ignore[no-any-return]


def _classes(config: ReferenceConfig) -> int:
    return len(config.id2label or {})


class _Chain(nn.Module):
    """Layers `body` and `head` in sequence."""

    def __init__(self, body: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))  # type: ignore[no-any-return]


def _mlp(config: ReferenceConfig, widths: list[int], activation: type[nn.Module]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    size = config.num_channels * config.image_size**2
    for width in widths:
        layers += [nn.Linear(size, width), activation()]
        size = width
    return _Chain(nn.Sequential(*layers), nn.Linear(size, _classes(config)))


def _lenet_5(config: ReferenceConfig) -> nn.Module:
    """Build the network Han (2015) prunes: 20 and 50 filters of 5 x 5, 500 hidden units, 431 thousand parameters."""
    side = ((config.image_size - 4) // 2 - 4) // 2
    body = nn.Sequential(
        nn.Conv2d(config.num_channels, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * side**2, 500),
        nn.ReLU(),
    )
    return _Chain(body, nn.Linear(500, _classes(config)))


def _digits_1989(config: ReferenceConfig) -> nn.Module:
    """Build LeCun's network of 1989, on 28 x 28 images.

    It has 4 maps of 5 x 5, averaged, 12 maps that read two of them each, averaged, and 10 outputs. The original leaves
    out 4 of the 24 kernels of the second layer (2 578 parameters); this one has all of them (2 678).
    """
    side = ((config.image_size - 4) // 2 - 4) // 2
    body = nn.Sequential(
        nn.Conv2d(config.num_channels, 4, 5),
        nn.Tanh(),
        ScaledAverage(4),
        nn.Tanh(),
        nn.Conv2d(4, 12, 5, groups=2),
        nn.Tanh(),
        ScaledAverage(12),
        nn.Tanh(),
        nn.Flatten(),
    )
    return _Chain(body, nn.Linear(12 * side**2, _classes(config)))


def _vgg(config: ReferenceConfig) -> nn.Module:
    """Build stages of two 3 x 3 convolutions with batch-norm, halved after each; the head reads each map's mean."""
    layers: list[nn.Module] = []
    channels = config.num_channels
    for width in config.hidden_sizes:
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return _Chain(nn.Sequential(*layers), nn.Linear(channels, _classes(config)))


NETWORKS: dict[NetworkName, Callable[[ReferenceConfig], nn.Module]] = {
    "mlp": lambda config: _mlp(config, config.hidden_sizes, nn.Tanh),
    "lenet-300-100": lambda config: _mlp(config, [300, 100], nn.ReLU),
    "lenet-5": _lenet_5,
    "digits-1989": _digits_1989,
    "vgg": _vgg,
}


class ReferenceNetwork(PreTrainedModel):
    """One of NETWORKS, from `pixel_values` [batch, channels, height, width] to logits [batch, classes]."""

    config_class = ReferenceConfig
    config: ReferenceConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__(config)
        if config.network not in NETWORKS:
            raise ValueError(f"network {config.network!r} is not known: use {', '.join(NETWORKS)}")
        self.network = NETWORKS[config.network](config)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Keep each layer's own initialisation."""

    def forward(self, pixel_values: Tensor, **_: Any) -> ImageClassifierOutputWithNoAttention:
        return ImageClassifierOutputWithNoAttention(logits=self.network(pixel_values))


AutoConfig.register(REFERENCE_TYPE, ReferenceConfig)
AutoModelForImageClassification.register(ReferenceConfig, ReferenceNetwork)
