"""Image sets: the images that a classifier takes, by number, and their labels."""

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
        """Return the images with these numbers as the model takes them: float32, [batch, channels, height, width]."""


class TensorImages:
    """Image set held in memory, or memory-mapped.

    `pixels_NCHW` is float32 as the model takes it, or uint8, converted by (x/255 − mean) / deviation; mean and
    deviation are one number for all channels, or one for each. With `places`, image k is `pixels_NCHW[places[k]]`: a
    subset, or another order.
    """

    def __init__(
        self,
        pixels_NCHW: Tensor,
        labels_N: Tensor,
        *,
        mean: float | Sequence[float] = 0.0,
        deviation: float | Sequence[float] = 1.0,
        places: Tensor | None = None,
    ) -> None:
        assert len(labels_N) == len(pixels_NCHW if places is None else places)
        self._pixels = pixels_NCHW
        self._places = places
        self.labels_N = labels_N.to(torch.int64)
        self._mean_C11 = torch.as_tensor(mean).reshape(-1, 1, 1)
        self._deviation_C11 = torch.as_tensor(deviation).reshape(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels_N)

    def batch(self, numbers: Sequence[int] | Tensor) -> Tensor:
        chosen = torch.as_tensor(numbers)
        chosen = self._pixels[chosen if self._places is None else self._places[chosen]]
        if chosen.dtype is torch.uint8:
            return (chosen.float() / 255 - self._mean_C11) / self._deviation_C11
        return chosen
