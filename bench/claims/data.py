"""The data of the claims, as image sets, training and test cases apart."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.sources import fashion_mnist_files
from core.engine.datasets.image_set import ImageSet
from worker.samples.images import FASHION_MNIST_FILES, idx

IMAGE_SHAPE = (1, 28, 28)
"""Of Fashion-MNIST: channels, height and width."""
_FASHION_MEAN, _FASHION_DEVIATION = 0.2860, 0.3530  # of the training pixels, from 0 to 1
_DIGITS_FOR_TRAINING = 1200
_MONK_VALUES = (3, 3, 2, 3, 4, 2)
_MONK_TRAINING_CASES = {1: 124, 2: 169, 3: 122}
_MONK_3_NOISE = 0.05


@dataclass(frozen=True)
class Split:
    """Cases to train on and others to test on."""

    train: ImageSet
    test: ImageSet


def digits(seed: int, *, enlarged: bool) -> Split:
    """scikit-learn's handwritten digits (1 797 of 8 x 8 pixels), 1 200 drawn by the seed for training.

    `enlarged`: to 24 x 24, bilinear, with a border of 2: the size LeCun's network takes.
    """
    from sklearn.datasets import load_digits  # slow to import, and not every claim needs it

    loaded = load_digits()
    pixels_NCHW = torch.tensor(loaded.images, dtype=torch.float32)[:, None] / 16
    if enlarged:
        pixels_NCHW = nn.functional.interpolate(pixels_NCHW, scale_factor=3, mode="bilinear", align_corners=False)
        pixels_NCHW = nn.functional.pad(pixels_NCHW, (2, 2, 2, 2))
    pixels_NCHW = (pixels_NCHW - pixels_NCHW.mean()) / pixels_NCHW.std()
    labels_N = torch.tensor(loaded.target)
    order = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    train, test = order[:_DIGITS_FOR_TRAINING], order[_DIGITS_FOR_TRAINING:]
    return Split(ImageSet(pixels_NCHW[train], labels_N[train]), ImageSet(pixels_NCHW[test], labels_N[test]))


def fashion_mnist() -> Split:
    """All of Fashion-MNIST, 60 000 and 10 000 images of 28 x 28; raises MissingData, UnusableDataset."""
    files = fashion_mnist_files()
    return Split(
        *(
            ImageSet(
                read_idx(files[images], 3)[:, None],
                read_idx(files[labels], 1),
                mean=_FASHION_MEAN,
                deviation=_FASHION_DEVIATION,
            )
            for images, labels in (FASHION_MNIST_FILES["train"], FASHION_MNIST_FILES["test"])
        )
    )


def read_idx(file: Path, dimensions: int) -> Tensor:
    """The bytes of a gzipped IDX file, uint8 of so many dimensions; raises UnusableDataset."""
    sizes, values = idx(file, dimensions)
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).reshape(tuple(sizes))


def xor() -> ImageSet:
    """The four cases of exclusive or, inputs -1 and 1, as images [2, 1, 1]."""
    inputs_NI = torch.tensor([(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)])
    return ImageSet(inputs_NI[:, :, None, None], torch.tensor([0, 1, 1, 0]))


def monk(problem: int, seed: int) -> Split:
    """One of the three MONK problems (Thrun 1991) from its rule: all 432 cases of six attributes, one-hot in 17 inputs
    as images [17, 1, 1]. The training cases are drawn by the seed, for the original draws are not at hand; in problem 3
    one in twenty of their labels is flipped. The test cases are the others.
    """
    cases = list(itertools.product(*(range(1, count + 1) for count in _MONK_VALUES)))
    labels_N = torch.tensor([int(is_monk(problem, case)) for case in cases])
    inputs_NI = torch.tensor(
        [
            [
                float(value == each)
                for value, count in zip(case, _MONK_VALUES, strict=True)
                for each in range(1, count + 1)
            ]
            for case in cases
        ]
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(cases), generator=generator)
    train, test = order.split([_MONK_TRAINING_CASES[problem], len(cases) - _MONK_TRAINING_CASES[problem]])
    training_labels = labels_N[train]
    if problem == 3:
        flipped = torch.randperm(len(train), generator=generator)[: round(_MONK_3_NOISE * len(train))]
        training_labels[flipped] = 1 - training_labels[flipped]
    images_NCHW = inputs_NI[:, :, None, None]
    return Split(ImageSet(images_NCHW[train], training_labels), ImageSet(images_NCHW[test], labels_N[test]))


def is_monk(problem: int, case: tuple[int, ...]) -> bool:
    """Whether a case, six attributes counted from 1, belongs to the concept of a problem."""
    a1, a2, _, a4, a5, _ = case
    if problem == 1:
        return a1 == a2 or a5 == 1
    if problem == 2:
        return sum(value == 1 for value in case) == 2
    return (a5 == 3 and a4 == 1) or (a5 != 4 and a2 != 3)
