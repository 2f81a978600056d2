"""Image sets: the images that a classifier takes, by number, and their labels."""

from collections.abc import Sequence

import torch
from torch import Tensor


class ImageSet:
    """Images and labels, in memory or memory-mapped. `labels_N` is int64, [images].

    `pixels_NCHW` is float32 as the model takes it, or uint8, converted by (x/255 − mean) / deviation; mean and
    deviation are one number for all channels, or one for each. With `places`, image k is `pixels_NCHW[places[k]]`: a
    subset, or another order.
    """

    def __init__(
        self,
        pixels_NCHW: Tensor,
        labels_N: Tensor,
        *,
        mean: float | Sequence[float] | Tensor = 0.0,
        deviation: float | Sequence[float] | Tensor = 1.0,
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
        """Return the images with these numbers as the model takes them: float32, [batch, channels, height, width]."""
        chosen = torch.as_tensor(numbers)
        chosen = self._pixels[chosen if self._places is None else self._places[chosen]]
        if chosen.dtype is torch.uint8:
            return (chosen.float() / 255 - self._mean_C11) / self._deviation_C11
        return chosen

    def subset(self, numbers_N: Tensor) -> "ImageSet":
        """Return the images with these numbers, in this order."""
        places = numbers_N if self._places is None else self._places[numbers_N]
        mean, deviation = self._mean_C11, self._deviation_C11
        return ImageSet(self._pixels, self.labels_N[numbers_N], mean=mean, deviation=deviation, places=places)


def draw_images(images: ImageSet, count: int | None, seed: int) -> ImageSet:
    """Draw `count` different images, in the set's order; all images for None or where there are not more."""
    if count is None or count >= len(images):
        return images
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:count]
    return images.subset(drawn.sort().values)
