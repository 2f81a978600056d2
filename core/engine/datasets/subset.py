"""Subsets of an image set, drawn by a seed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.engine.datasets.image_set import ImageSet


class ImageSubset:
    """Image set with selected images of another set, by number, in this order."""

    def __init__(self, images: ImageSet, numbers_N: Tensor) -> None:
        self._images, self._numbers = images, numbers_N
        self.labels_N = images.labels_N[numbers_N]

    def __len__(self) -> int:
        return len(self._numbers)

    def batch(self, numbers: Sequence[int] | Tensor) -> Tensor:
        return self._images.batch(self._numbers[torch.as_tensor(numbers)])


def draw_images(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    """Draw `count` different images, in the set's order; all images for None or where there are not more."""
    if count is None or count >= len(images):
        return images
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return ImageSubset(images, drawn.sort().values)
