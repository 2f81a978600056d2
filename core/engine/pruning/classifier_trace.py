"""Trace of an image classifier: the memory and operations of its passes over images, without weights.

The model is built on the meta device, where operators compute shapes only. The engine's own steps run there while the
bytes of all storages are counted. Operators do not depend on the number of images, so two numbers of images give the
fixed bytes of every moment, and its bytes per image.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.architectures.classifier_passes import ClassifierPasses, LayerPass, PassBytes
from core.engine.architectures.layer_shape import LinearShape
from core.engine.evaluation.flops import count_flops
from core.engine.models.classifier import ClassifierFolder, build_without_weights
from core.engine.models.hooks import removed_after
from core.engine.models.tracing.live_bytes import FusedAttention, LiveBytes, allocated
from core.engine.pruning.filters.coupled_channels import CoupledChannels
from core.engine.pruning.filters.rankings import taylor
from core.engine.pruning.iterative.curvature import images_at_once, mean_squares
from core.engine.pruning.layer_matrix import Layer, groups_of, input_rows, rows_at_once
from core.engine.pruning.network import Network
from secateur_wire.errors import UnsupportedArchitecture

_IMAGES = (128, 256)
"""Numbers of images in the traced passes: multiples of the allocator's rounding."""
_TWO = 2
_META = torch.device("meta")


class _ImagesWithoutPixels:
    def __init__(self, count: int, image_shape: Sequence[int]) -> None:
        self.labels_N = torch.zeros(count, dtype=torch.int64)
        self._shape = tuple(image_shape)

    def __len__(self) -> int:
        return len(self.labels_N)

    def batch(self, numbers: Sequence[int] | Tensor) -> Tensor:
        return torch.empty(len(numbers), *self._shape, device=_META)


def trace_classifier(folder: ClassifierFolder, image_shape: tuple[int, int, int]) -> ClassifierPasses:
    """Return the facts of a classifier's passes over images of (channels, height, width).

    Only its config and headers are read. Raises UnusableModel where its class rejects the config, and the model's own
    errors where it does not run.
    """
    with FusedAttention():
        return _Traced(build_without_weights(folder), folder.description.linears, image_shape).facts()


class _Traced:
    """Model without weights, and the passes over it."""

    def __init__(self, model: nn.Module, linears: Sequence[LinearShape], image_shape: tuple[int, int, int]) -> None:
        self.model, self.linears, self.image_shape = model, linears, image_shape
        self.weights = [*model.parameters(), *model.buffers()]
        modules = dict(model.named_modules())
        self.layers: Mapping[str, Layer] = {
            shape.name: module
            for shape in linears
            if isinstance(module := modules.get(shape.name), nn.Linear | nn.Conv2d)
        }

    def facts(self) -> ClassifierPasses:
        parameters = list(self.model.parameters())
        with torch.no_grad():
            evaluation = self._moments(self._evaluate, torch.no_grad())
            layers = self._layers()
        return ClassifierPasses(
            image_shape=self.image_shape,
            weights=sum(allocated(each.nbytes) for each in self.weights),
            trained=sum(allocated(each.nbytes) for each in parameters),
            tensors=len(parameters),
            operations=count_flops(self.model, self.image_shape),
            layers=layers,
            evaluation=evaluation,
            training=self._moments(self._train),
            **self._coupled(),
            curvature=self._curvature(),
            curved=images_at_once(self._network(_IMAGES[0])),
        )

    def _evaluate(self, images: int) -> None:
        self.model(pixel_values=torch.empty(images, *self.image_shape, device=_META))

    def _train(self, images: int) -> None:
        self.model.train()
        try:
            pixels_BCHW = torch.empty(images, *self.image_shape, device=_META)
            labels_B = torch.zeros(images, dtype=torch.int64, device=_META)
            nn.functional.cross_entropy(self.model(pixel_values=pixels_BCHW).logits.float(), labels_B).backward()
        finally:
            self.model.zero_grad()
            self.model.eval()

    def _moments(
        self, run: Callable[[int], object], context: AbstractContextManager[object] | None = None
    ) -> PassBytes:
        """Return the bytes of a pass, from its bytes with few images and with more."""
        few, more = _IMAGES
        seen = []
        for images in _IMAGES:
            with context or nullcontext(), LiveBytes(self.weights) as mode:
                run(images)
            seen.append(mode.moments)
        of_images = [(second - first) // (more - few) for first, second in zip(*seen, strict=True)]
        return PassBytes.of_moments(
            (first - of_image * few, of_image) for first, of_image in zip(seen[0], of_images, strict=True)
        )

    def _layers(self) -> list[LayerPass]:
        """Return the layers in the order in which images first reach them."""
        seen: dict[str, dict[str, int]] = {}
        images, since = _IMAGES[0], 0

        def arrive(name: str) -> Any:
            def hook(layer: Layer, arguments: tuple[Tensor, ...]) -> None:
                nonlocal since
                if name not in seen:
                    passing = max([mode.current, *mode.moments[since:]])
                    since = len(mode.moments)
                    rows = self._rows(name, layer, arguments[0], images, mode)
                    seen[name] = {
                        "passing": passing // images,
                        "waiting": mode.current // images,
                        "positions": 0,
                        **rows,
                    }

            return hook

        def leave(name: str) -> Any:
            def hook(layer: Layer, arguments: tuple[Tensor, ...], outputs: Tensor) -> None:
                seen[name]["positions"] += outputs.numel() // len(layer.weight) // images

            return hook

        handles = [layer.register_forward_pre_hook(arrive(name)) for name, layer in self.layers.items()]
        handles += [layer.register_forward_hook(leave(name)) for name, layer in self.layers.items()]
        with removed_after(handles), LiveBytes(self.weights) as mode:
            self._evaluate(images)
        return [LayerPass.model_validate({"name": name, **facts}) for name, facts in seen.items()]

    def _rows(self, name: str, layer: Layer, inputs: Tensor, images: int, outer: LiveBytes) -> dict[str, int]:
        """Return the bytes of a layer's inputs as rows, per image, and the number of images unfolded at once."""
        facts = {
            "groups": groups_of(layer),
            "inputs": inputs.nbytes // images,
            "at_once": rows_at_once(layer, inputs, images),
            "unfolding": 0,
        }
        with outer.uncounted():
            try:
                # two images, because with a single one some tensors are views and take no memory
                two = inputs[: _TWO * len(inputs) // images]
                with LiveBytes([*self.weights, inputs]) as mode:
                    for X_BGLI in input_rows(name, layer, two, _TWO):
                        for X_BLI in X_BGLI.unbind(1):  # in the order of a statistic
                            X_BLI.reshape(-1, X_BLI.shape[-1])
                facts["unfolding"] = max(mode.moments, default=0) // _TWO
            except UnsupportedArchitecture:  # a layer whose inputs no method reads
                pass
        return facts

    def _peak(self, run: Callable[[], object]) -> int:
        with LiveBytes(self.weights) as mode:
            run()
        return max(mode.moments, default=0)

    def _network(self, images: int) -> Network:
        return Network(
            self.model,
            [shape for shape in self.linears if shape.name in self.layers],
            images=_ImagesWithoutPixels(images, self.image_shape),
            device=_META,
            batch_size=images,
        )

    def _curvature(self) -> int:
        """Return the bytes of the curvature of the images processed at once, for one vector of each."""
        network = self._network(_IMAGES[0])
        images = _ImagesWithoutPixels(images_at_once(network), self.image_shape)
        try:
            return self._peak(lambda: mean_squares(network, images, "empirical_fisher"))
        except UnsupportedArchitecture:  # such a layer has to be skipped
            return 0

    def _coupled(self) -> dict[str, PassBytes | None]:
        """Return the bytes of passes with gates and with zeroed channels; None where channels cannot be coupled."""
        try:
            groups = CoupledChannels.of(self.model, self.image_shape, is_checked=True).among(list(self.layers))
        except UnsupportedArchitecture:
            return {"gated": None, "gated_again": None, "silenced": None}

        def rank(images: int) -> None:
            network = self._network(images)
            taylor(network, groups, network.calibration)

        def without(images: int) -> None:
            with groups.silenced({place: [0] for place in range(len(groups.groups))}):
                self._evaluate(images)

        if not groups.groups:
            return {"gated": None, "gated_again": None, "silenced": None}
        return {
            "gated": self._moments(rank),
            "gated_again": None,
            "silenced": self._moments(without, torch.no_grad()),
        }
