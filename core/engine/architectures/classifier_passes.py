"""Memory and operations of an image classifier's passes over images, as a trace of it has found them. Without torch.

A model is traced without weights (`core.engine.pruning.classifier_trace`); what is found is kept with its description.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel


class PassBytes(BaseModel):
    """Bytes that a pass holds at its peak, whatever the number of images.

    At every moment there are so many, `fixed`, and so many of each image. `moments` are (fixed, of an image): those
    that are the most for some number of images.
    """

    moments: list[tuple[int, int]]

    @classmethod
    def of_moments(cls, moments: Iterable[tuple[int, int]]) -> "PassBytes":
        """Return those of a pass with such moments, of which only those are kept that may be the most."""
        steepest: dict[int, int] = {}
        for fixed, of_image in moments:
            steepest[of_image] = max(fixed, steepest.get(of_image, fixed))
        kept: list[tuple[int, int]] = []
        for of_image, fixed in sorted(steepest.items()):
            while kept and kept[-1][0] <= fixed:
                kept.pop()
            # One is never the most where the next overtakes it before it has overtaken the one before.
            while len(kept) > 1 and _meeting(kept[-2], (fixed, of_image)) <= _meeting(kept[-2], kept[-1]):
                kept.pop()
            kept.append((fixed, of_image))
        return cls(moments=kept)

    def of(self, images: int) -> int:
        """Return the most bytes of a pass over so many images."""
        return max((fixed + of_image * images for fixed, of_image in self.moments), default=0)


def _meeting(slow: tuple[int, int], steep: tuple[int, int]) -> float:
    """Return the images from which on the steeper of two moments is the larger."""
    return (slow[0] - steep[0]) / (steep[1] - slow[1])


class LayerPass(BaseModel):
    """A convolution or linear layer in a forward without gradients, and what comes before it. Bytes are of one image.

    It is applied at `positions`. `inputs` is what it reads; `waiting` all that there is when images arrive at it,
    themselves among it, and `passing` the most on the way there from the layer before. As rows of a matrix its inputs
    take `unfolding` bytes while they are made, of as many images as go `at_once`; it has `groups` of them.
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

    `weights` are the bytes of parameters and buffers in float32, `trained` those of parameters, in so many `tensors`.
    Beside them, `evaluation` is a forward without gradients; `training` a forward in training mode and its backward,
    with the gradients of all parameters. `gated` is a forward and the gradients of gates of all coupled channels,
    `gated_again` such a forward and several gradients, `silenced` a forward without gradients and with channels zeroed;
    None where channels cannot be coupled. `curvature` are the bytes of curvature of all layers, of as many images as
    are taken at once, `curved`. `operations` are those of a forward of one image.
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
    """Question to a trace: a model's config, dtype and shape of each tensor by the file's key, and shape of images."""

    config: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    image_shape: tuple[int, int, int]


class TraceAnswer(BaseModel):
    """Answer of a trace: what it has found, or why it has found nothing."""

    passes: ClassifierPasses | None = None
    error: str | None = None
