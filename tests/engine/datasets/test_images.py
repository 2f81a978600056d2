"""Image sets: read, described, chosen, labelled as the model is, and given the form it takes."""

import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.engine.datasets.image_cache import ImageFiles, ImageSelection, open_images
from core.engine.datasets.image_codec import UnreadableImage, decode_image, write_images
from core.engine.datasets.image_facts import ImagesDescription, describe_images
from core.engine.datasets.image_set import ImageSet
from core.engine.datasets.preprocessing import Preprocessing, read_preprocessing
from core.engine.evaluation.accuracy import measure_accuracy
from secateur_wire.errors import NotFiniteWeights, TooFewImages, UnusableDataset, UnusableModel
from secateur_wire.models import ImageShape
from tests.image_sets import encoded, grays, write_folder, write_parquet

GRAY = Preprocessing(channels=1)
TEN = [f"LABEL_{number}" for number in range(10)]


def opened(path: Path, tmp_path: Path, labels: list[str] = TEN, **change: Any) -> tuple[ImageSet, list[str]]:
    """The set as `open_images` gives it, and its notes."""
    notes: list[str] = []
    format = change.pop("format", "image_folder" if path.is_dir() else "image_parquet")
    preprocessing = change.pop("preprocessing", GRAY)
    images = open_images(
        ImageFiles(path.name, path, format, sha256=path.as_posix()),
        preprocessing,
        labels,
        choice=change.pop("choice", ImageSelection()),
        cache=tmp_path / "cache",
        note=notes.append,
    )
    return images, notes


def shades(images: ImageSet) -> list[int]:
    """Of images all of one gray, without the normalisation by 0.5 and 0.5."""
    pixels_NCHW = (images.batch(torch.arange(len(images))) * 0.5 + 0.5) * 255
    return [int(each) for each in pixels_NCHW[:, 0, 0, 0].round()]


def described(path: Path, **fields: str) -> ImagesDescription:
    return describe_images(path, "image_folder" if path.is_dir() else "image_parquet", **fields, sha256="0" * 64)


def refused(path: Path, tmp_path: Path, **change: Any) -> str:
    with pytest.raises(UnusableDataset) as caught:
        opened(path, tmp_path, **change)
    return caught.value.message


def test_a_folder_and_both_kinds_of_parquet_hold_the_same_images(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", grays(40), ["b", "a"])
    ordered = [*range(1, 40, 2), *range(0, 40, 2)]  # class a comes first
    images = [grays(40)[number] for number in ordered]
    labels = [0] * 20 + [1] * 20
    plain = write_parquet(tmp_path / "plain.parquet", images, labels)
    library = tmp_path / "library.parquet"
    assert write_images(library, zip(images, labels, strict=True), ["a", "b"]) == 40
    for path in (folder, plain, library):
        images_there, _ = opened(path, tmp_path, ["a", "b"])
        assert images_there.labels_N.tolist() == labels
        assert shades(images_there) == ordered
        batch = images_there.batch([0, 39])
        assert batch.shape == (2, 1, 8, 8) and batch.dtype is torch.float32


@pytest.mark.parametrize("form", ["folder", "parquet"])
def test_few_corrupt_images_are_named_counted_and_left_out_more_are_an_error(form: str, tmp_path: Path) -> None:
    def written(name: str, corrupt: list[int]) -> Path:
        images: list[bytes] = grays(200)
        for number in corrupt:
            images[number] = images[number][:45] if number % 2 else b""
        if form == "folder":
            return write_folder(tmp_path / name, images, ["a", "b"])
        return write_parquet(tmp_path / f"{name}.parquet", images, [number % 2 for number in range(200)])

    few = written("few", [3, 90])
    found = described(few)
    names = {"folder": ["a/0090.png", "b/0003.png"], "parquet": ["row 3", "row 90"]}[form]
    assert (found.images, found.corrupt) == (198, 2)
    assert [name.partition(" (")[0] for name in found.corrupt_names] == names
    images, notes = opened(few, tmp_path)
    assert len(images) == 198 and not {3, 90} & set(shades(images))
    assert any("2 of 200 images cannot be read" in note and names[0] in note for note in notes)
    many = written("many", [3, 90, 91])
    for ask in (lambda: described(many), lambda: opened(many, tmp_path)):
        with pytest.raises(UnusableDataset, match=r"3 of 200 images cannot be read: .*at most 1 %") as caught:
            ask()
        assert names[0] in caught.value.message


def test_labels_are_those_of_the_model_by_name_or_else_by_number(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", grays(3), ["ant", "bee", "cat"])
    images, notes = opened(folder, tmp_path, ["cat", "dog", "ant", "bee"])
    assert images.labels_N.tolist() == [2, 3, 0]
    assert ["matched by name" in note for note in notes] == [True]
    images, notes = opened(folder, tmp_path, TEN)
    assert images.labels_N.tolist() == [0, 1, 2]
    assert ["class k was taken as output k" in note for note in notes] == [True]
    assert "'bee' is no label of the model" in refused(folder, tmp_path, labels=["ant", "cat", "dog"])
    out_of_range = write_parquet(tmp_path / "a.parquet", grays(4), [0, 9, 10, 3])
    assert "row 2 has label 10; the model has 10 classes, 0 to 9" in refused(out_of_range, tmp_path)


def test_samples_are_spaced_evenly_or_drawn_by_seed_and_never_twice(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", grays(100), [0] * 100)
    spaced, _ = opened(file, tmp_path, choice=ImageSelection(samples=5))
    assert shades(spaced) == [0, 20, 40, 60, 80]
    drawn = [shades(opened(file, tmp_path, choice=ImageSelection(30, seed))[0]) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] != sorted(drawn[0])
    assert all(len(set(each)) == 30 for each in drawn)
    with pytest.raises(TooFewImages, match=r"calibration needs 101 images, but 'a\.parquet' has 100") as caught:
        opened(file, tmp_path, choice=ImageSelection(101, 0, "calibration"))
    assert caught.value.param == "calibration.samples"


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    claimed = bytearray(grays(1)[0])
    claimed[16:24] = struct.pack(">2I", 2**13, 2**13)  # width and height
    claimed[29:33] = struct.pack(">I", zlib.crc32(claimed[12:29]))
    with pytest.raises(UnreadableImage, match="8192 × 8192 pixels are more than"):
        decode_image(bytes(claimed))


def prepared(folder: Path, pixels: np.ndarray, said: dict[str, Any] | None, config: dict[str, Any]) -> Tensor:
    """[channels, height, width] after what a model folder says of its images."""
    (folder / "model").mkdir(parents=True)
    if said is not None:
        (folder / "model" / "preprocessor_config.json").write_text(json.dumps(said))
    preprocessing = read_preprocessing(folder / "model", config, ImageShape(channels=3, height=None, width=None))
    images, _ = opened(write_folder(folder / "set", [encoded(pixels)], ["a"]), folder, preprocessing=preprocessing)
    return images.batch([0])[0]


IMAGE = np.kron(np.random.default_rng(0).integers(0, 256, (9, 12, 3)), np.ones((6, 6, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViTImageProcessor", {"size": {"height": 32, "width": 24}, "resample": 2}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_pct": 0.875, "resample": 3}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3}),
        ("MobileNetV2ImageProcessor",
         {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 36}}),
    ],
    ids=["size", "share", "squashed", "crop"],
)  # fmt: skip
def test_images_are_prepared_as_transformers_does(name: str, said: dict[str, Any], tmp_path: Path) -> None:
    import transformers

    said = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "do_normalize": True, **said}
    theirs = getattr(transformers, name)(**said)(IMAGE, return_tensors="pt")["pixel_values"][0]
    ours = prepared(tmp_path, IMAGE, said, {})
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() < 0.5 / 255 / 0.2  # resizing rounds otherwise


def test_what_timm_keeps_is_taken_and_nonsense_refused(tmp_path: Path) -> None:
    kept = {"input_size": [3, 24, 24], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_pct": 0.5}
    black = prepared(tmp_path / "timm", np.zeros((50, 60, 3), np.uint8), None, {"pretrained_cfg": kept})
    assert black.shape == (3, 24, 24) and torch.allclose(black[:, 0, 0], torch.tensor([-0.1, -0.2, -0.3]))
    bare = read_preprocessing(tmp_path, {}, ImageShape(channels=1, height=28, width=28))
    assert (bare.size, bare.mean, bare.deviation) == ((28, 28), (0.5,), (0.5,)) and "0.5" in bare.origin
    for number, said in enumerate([{"image_std": 0}, {"size": -1}, {"image_mean": [1, 2]}]):
        with pytest.raises(UnusableModel, match="settings for images are not valid"):
            prepared(tmp_path / str(number), IMAGE, said, {})


class Fixed(nn.Module):
    """Logits that are the images' own pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=pixel_values.flatten(1) * self.scale)


def test_accuracy_loss_and_standard_error() -> None:
    logits_NK = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    images = ImageSet(logits_NK[:, None, None], torch.tensor([0, 1, 2, 2]))
    measured = measure_accuracy(Fixed(), images, batch_size=3)
    assert (measured.top1, measured.samples) == (0.75, 4)
    assert measured.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert measured.loss == pytest.approx(float(nn.functional.cross_entropy(logits_NK, images.labels_N)))
    with pytest.raises(NotFiniteWeights):
        measure_accuracy(Fixed(), ImageSet(logits_NK[:, None, None] / 0, images.labels_N))


def test_grayscale_and_colour_become_what_the_model_takes(tmp_path: Path) -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    deep = np.full((2, 2), 257 * 100, np.uint16)
    folder = write_folder(tmp_path / "set", [encoded(red), encoded(deep)], ["a", "b"])
    images, notes = opened(folder, tmp_path, preprocessing=Preprocessing(3, mean=(0.0,), deviation=(1 / 255,)))
    assert images.batch([0, 1])[:, :, 0, 0].round().tolist() == [[200, 0, 0], [100, 100, 100]]
    assert ["1 grayscale images were given three equal channels" in note for note in notes] == [False, True]
    images, notes = opened(folder, tmp_path, preprocessing=Preprocessing(1, mean=(0.0,), deviation=(1 / 255,)))
    assert images.batch([0, 1])[:, 0, 0, 0].round().tolist() == [60, 100]  # 0.299 × 200
    assert "1 colour images were turned to grayscale" in notes[-1]


def test_a_set_is_described(tmp_path: Path) -> None:
    mixed = [*grays(2), encoded(np.zeros((6, 9, 3), np.uint8), "JPEG")]
    found = described(write_folder(tmp_path / "set", mixed, ["x", "y", "z"]))
    assert (found.images, found.classes, found.class_names) == (3, 3, ["x", "y", "z"])
    assert (found.sizes, found.modes) == (["8 × 8", "6 × 9"], ["L", "RGB"])
    numbers = described(write_parquet(tmp_path / "n.parquet", grays(3), [0, 4, 0], image="img", label="y"),
                        image_field="img", label_field="y")  # fmt: skip
    assert (numbers.classes, numbers.class_names) == (5, [])


@pytest.mark.parametrize(
    ("labels", "fields", "words"),
    [
        ([0, None, 1], {}, r"row 1 has no label in column 'label'"),
        ([0, -1, 1], {}, r"row 1 has label -1 in column 'label'"),
        ([0.0, 1.0, 1.0], {}, r"column 'label' is double, not labels"),
        ([0, 1, 0], {"label_field": "class"}, "no column 'class'; it has 'image', 'label'"),
        ([0, 1, 0], {"image_field": "label"}, "column 'label' is int64, not images"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    labels: list[Any], fields: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UnusableDataset, match=words):
        described(write_parquet(tmp_path / "a.parquet", grays(3), labels), **fields)


def test_a_folder_without_classes_says_what_would_be_one(tmp_path: Path) -> None:
    splits = write_folder(tmp_path / "splits", grays(4), ["train/a", "test/a"])
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    for folder, words in ((splits, "name one of them"), (tmp_path / "hollow", "hollow/a holds no image")):
        with pytest.raises(UnusableDataset, match=words):
            described(folder)
