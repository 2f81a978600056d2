"""Image sets: images that a classifier takes, by number, and their labels."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class ImageSet(Protocol):
    """Images and labels. `labels_N` is int64, [images]."""

    @property
    def labels_N(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def batch(self, numbers: Sequence[int] | Tensor) -> Tensor:
        """Those images as the model takes them: float32, [batch, channels, height, width]."""


class TensorImages:
    """An image set held in memory. `pixels_NCHW` is float32 as the model takes it, or uint8, taken as (x/255 − mean) /
    deviation.
    """

    def __init__(self, pixels_NCHW: Tensor, labels_N: Tensor, *, mean: float = 0.0, deviation: float = 1.0) -> None:
        assert len(pixels_NCHW) == len(labels_N)
        self._pixels = pixels_NCHW
        self.labels_N = labels_N.to(torch.int64)
        self._mean, self._deviation = mean, deviation

    def __len__(self) -> int:
        return len(self.labels_N)

    def batch(self, numbers: Sequence[int] | Tensor) -> Tensor:
        chosen = self._pixels[torch.as_tensor(numbers)]
        if chosen.dtype is torch.uint8:
            return (chosen.float() / 255 - self._mean) / self._deviation
        return chosen


class ImagesPart:
    """Some images of a set, by number."""

    def __init__(self, images: ImageSet, numbers: Tensor) -> None:
        self._images, self._numbers = images, numbers
        self.labels_N = images.labels_N[numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    def batch(self, numbers: Sequence[int] | Tensor) -> Tensor:
        return self._images.batch(self._numbers[torch.as_tensor(numbers)])
