"""Memory and operations of an image classifier's passes over images, as traced. Without torch.

A model is traced without weights (`core.engine.pruning.classifier_trace`); its description keeps the result.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel


class PassBytes(BaseModel):
    """Peak bytes of a pass, for any number of images.

    Each of `moments` is a pair (fixed bytes, bytes per image). Only moments that are the peak for some number of images
    are kept.
    """

    moments: list[tuple[int, int]]

    @classmethod
    def of_moments(cls, moments: Iterable[tuple[int, int]]) -> "PassBytes":
        """Return the peak of a pass with these moments, without the moments that are never the peak."""
        steepest: dict[int, int] = {}
        for fixed, of_image in moments:
            steepest[of_image] = max(fixed, steepest.get(of_image, fixed))
        kept: list[tuple[int, int]] = []
        for of_image, fixed in sorted(steepest.items()):
            while kept and kept[-1][0] <= fixed:
                kept.pop()
            # A moment is never the peak if the next one overtakes it before it has overtaken the previous one.
            while len(kept) > 1 and _crossing(kept[-2], (fixed, of_image)) <= _crossing(kept[-2], kept[-1]):
                kept.pop()
            kept.append((fixed, of_image))
        return cls(moments=kept)

    def of(self, images: int) -> int:
        """Return the peak bytes of a pass over this many images."""
        return max((fixed + of_image * images for fixed, of_image in self.moments), default=0)


def _crossing(slow: tuple[int, int], steep: tuple[int, int]) -> float:
    """Return the number of images from which the steeper of two moments is the larger."""
    return (slow[0] - steep[0]) / (steep[1] - slow[1])


class LayerPass(BaseModel):
    """Convolution or linear layer in a forward without gradients, and the steps before it. Bytes are per image.

    The layer is applied at `positions`. `inputs` is the tensor it reads. `waiting` are all tensors alive when images
    arrive at the layer, `inputs` among them; `passing` is the peak between the layer before and this one. Its inputs
    are unfolded into rows of a matrix in `groups`; this takes `unfolding` bytes, for `at_once` images at a time.
    """

    name: str
    positions: int
    groups: int
    inputs: int
    waiting: int
    passing: int
    unfolding: int
    at_once: int


class ClassifierPasses(BaseModel):
    """Facts of a classifier's passes over images of `image_shape`, channels, height and width. Layers are in order.

    `weights` are the bytes of parameters and buffers in float32; `trained` those of the parameters, which are `tensors`
    many. The passes are counted without them: `evaluation` is a forward without gradients; `training` a forward in
    training mode and its backward, with the gradients of all parameters. `gated` is a forward and the gradients of
    gates on all coupled channels, `gated_again` such a forward with several gradients, `silenced` a forward without
    gradients and with some channels zeroed; these are None where channels cannot be coupled. `curvature` are the bytes
    of the curvature of all layers, for the `curved` images taken at once. `operations` are those of a forward of one
    image.
    """

    image_shape: tuple[int, int, int]
    weights: int
    trained: int
    tensors: int
    operations: int
    layers: list[LayerPass]
    evaluation: PassBytes
    training: PassBytes
    gated: PassBytes | None
    gated_again: PassBytes | None
    silenced: PassBytes | None
    curvature: int
    curved: int

    @property
    def image(self) -> int:
        """Bytes of one image in float32."""
        channels, height, width = self.image_shape
        return 4 * channels * height * width


class TraceQuestion(BaseModel):
    """Input of a trace: a model's config, the dtype and shape of each tensor by the file's key, and the image shape."""

    config: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    image_shape: tuple[int, int, int]


class TraceAnswer(BaseModel):
    """Output of a trace: the facts, or the reason why there are none."""

    passes: ClassifierPasses | None = None
    error: str | None = None
