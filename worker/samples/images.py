"""Command `secateur samples --images`: labelled images from packages, as Parquet files."""

import gzip
import io
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from core.engine.datasets.image_codec import write_images
from secateur_wire.errors import UnusableDataset
from worker.embedded.instance import EmbeddedInstance
from worker.embedded.register import Say, add_dataset

FASHION_MNIST_PACKAGE = "dataset-fashion-mnist"
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DIGITS_TEST_SHARE = 0.2
_DIGITS_SEED = 0
FASHION_MNIST_LIST = Path("/var/lib/dpkg/info") / f"{FASHION_MNIST_PACKAGE}.list"
FASHION_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_IDX_MAGIC = {1: 0x801, 3: 0x803}
"""Magic numbers of files with unsigned bytes, by number of dimensions."""

Images = Iterable[tuple[bytes, int]]


def add_image_samples(instance: EmbeddedInstance, say: Say, *, package_files: Path = FASHION_MNIST_LIST) -> None:
    """Register the samples that are not registered yet.

    Without Debian's package, Fashion-MNIST is left out with a message on how to get it. `package_files` lists the files
    of that package, one per line.
    """
    for name, images in digits().items():
        _add(instance, f"digits-{name}", images, [str(digit) for digit in range(10)], "scikit-learn load_digits", say)
    listed = package_files.read_text().splitlines() if package_files.is_file() else []
    files = {Path(line).name: Path(line) for line in listed}
    if not all(name in files and files[name].is_file() for pair in FASHION_MNIST_FILES.values() for name in pair):
        say(
            f"Fashion-MNIST is left out: install Debian's package with `apt-get install {FASHION_MNIST_PACKAGE}` and "
            "run this again."
        )
        return
    for name, (images_file, labels_file) in FASHION_MNIST_FILES.items():
        pairs = read_idx(files[images_file], files[labels_file])
        _add(instance, f"fashion-mnist-{name}", pairs, FASHION_MNIST_CLASSES, f"Debian {FASHION_MNIST_PACKAGE}", say)


def digits() -> dict[str, list[tuple[bytes, int]]]:
    """Return the 1797 handwritten digits of scikit-learn, 8 × 8, as PNG with their labels.

    80 % are `train` and 20 % `test`, with the same share of every digit.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels_NHW, labels_N = load_digits().images, load_digits().target
    numbers = train_test_split(
        range(len(labels_N)), test_size=DIGITS_TEST_SHARE, random_state=_DIGITS_SEED, stratify=labels_N
    )
    grays_NHW = (pixels_NHW * 255 / 16).round().astype("uint8")  # there are 17 shades
    return {
        name: [(png(grays_NHW[number].tobytes(), 8, 8), int(labels_N[number])) for number in sorted(chosen)]
        for name, chosen in zip(("train", "test"), numbers, strict=True)
    }


def read_idx(images_file: Path, labels_file: Path) -> Images:
    """Yield images, as PNG, and labels of two gzipped IDX files (MNIST's format). Raises UnusableDataset."""
    (count, height, width), pixels = idx(images_file, 3)
    (labelled,), labels = idx(labels_file, 1)
    if count != labelled:
        raise UnusableDataset(f"{images_file.name} holds {count} images, {labels_file.name} {labelled} labels")
    size = height * width
    for number in range(count):
        yield png(pixels[number * size : (number + 1) * size], height, width), labels[number]


def idx(file: Path, dimensions: int) -> tuple[Sequence[int], bytes]:
    """Return sizes and values of a gzipped IDX file of unsigned bytes; raises UnusableDataset."""
    with gzip.open(file) as stream:
        content = stream.read()
    magic, *sizes = struct.unpack_from(f">{1 + dimensions}I", content) if len(content) >= 4 + 4 * dimensions else (0,)
    data = content[4 + 4 * dimensions :]
    count = 1
    for size in sizes:
        count *= size
    if magic != _IDX_MAGIC[dimensions] or len(data) != count:
        raise UnusableDataset(f"{file.name} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    return sizes, data


def png(grays: bytes, height: int, width: int) -> bytes:
    """Encode an 8-bit grayscale image, whose bytes are row by row, as PNG."""
    buffer = io.BytesIO()
    Image.frombytes("L", (width, height), grays).save(buffer, "PNG")
    return buffer.getvalue()


def _add(
    instance: EmbeddedInstance, name: str, images: Images, class_names: Sequence[str], source: str, say: Say
) -> None:
    file = instance.settings.datasets_root / f"{name}.parquet"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        write_images(partial, images, class_names)
        partial.rename(file)
    dataset = add_dataset(instance, name, file, file_format="image_parquet", source=source)
    say(f"Dataset {name}: {dataset.images} images, {dataset.classes} classes")
