"""Preprocessing of images for a classifier, as its folder defines it. No torch is needed.

The definition is preprocessor_config.json of transformers, or timm's part of the config.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from core.engine.architectures.description import USUAL_SIDE
from core.engine.datasets.image_codec import in_channels
from core.untrusted_json import parse_json
from secateur_wire.errors import UnusableDataset, UnusableModel
from secateur_wire.models import ImageShape

PREPROCESSOR_FILE = "preprocessor_config.json"
_MOST_BYTES = 2**20
_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_RESIZED_FROM = 384
"""Shorter side in pixels from which transformers' ConvNeXt processor resizes to a square instead of cropping."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """Transformation of an image to the pixels a model takes, with sizes as (height, width).

    The image is resized so that its shorter side is `shorter_side`, or to `size`, or not at all. Then the middle is
    cropped to `crop`. Then pixels become (x/255 − mean) / deviation, by channel or for all. `origin` names the
    definition's source.
    """

    channels: int
    mean: tuple[float, ...] = (0.5,)
    deviation: tuple[float, ...] = (0.5,)
    shorter_side: int | None = None
    size: Size | None = None
    crop: Size | None = None
    resample: int = int(Image.Resampling.BILINEAR)
    origin: str = "the model's folder says nothing of it: x/255, mean 0.5, deviation 0.5"

    def apply(self, image: Image.Image) -> tuple[Image.Image, bool]:
        """Convert an image to the channels, resize and crop it; return it, and True if its size changed."""
        before = image.size
        image = in_channels(image, self.channels)
        if self.shorter_side is not None:
            scale = self.shorter_side / min(image.size)
            width, height = (self.shorter_side if each == min(image.size) else int(each * scale) for each in image.size)
            image = self._resized(image, (height, width))
        elif self.size is not None:
            image = self._resized(image, self.size)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return image, image.size != before

    def _resized(self, image: Image.Image, size: Size) -> Image.Image:
        height, width = size
        return image if image.size == (width, height) else image.resize((width, height), self.resample)


def read_preprocessing(folder: Path, config: Mapping[str, Any], image: ImageShape) -> Preprocessing:
    """Read the preprocessing of a model folder and its config.json.

    Raises UnusableModel where the definition is invalid, UnusableDataset where the model takes other than 1 or 3
    channels.
    """
    if image.channels not in (1, 3):
        raise UnusableDataset(f"the model takes {image.channels} channels; images have 1 or 3", param="model")
    size = None if image.height is None or image.width is None else (image.height, image.width)
    file = folder / PREPROCESSOR_FILE
    if file.is_file():
        return _of_transformers(_read(file), image.channels, size)
    trained = config.get("pretrained_cfg")
    if isinstance(trained, Mapping):
        return _of_timm(trained, image.channels, size)
    return Preprocessing(image.channels, size=size)


def image_shape_of(folder: Path, config: Mapping[str, Any], image: ImageShape) -> tuple[int, int, int]:
    """Return channels, height and width of images as a model takes them; raises what `read_preprocessing` raises.

    The sides are USUAL_SIDE where nothing defines them.
    """
    prepared = read_preprocessing(folder, config, image)
    side = prepared.shorter_side or USUAL_SIDE
    height, width = prepared.crop or prepared.size or (side, side)
    return image.channels, height, width


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        definition = parse_json(file.read_bytes())
        if not isinstance(definition, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise UnusableModel(f"{PREPROCESSOR_FILE} is not valid: {str(error)[:200]}", param="model") from error
    return definition


def _of_transformers(definition: dict[str, Any], channels: int, model_size: Size | None) -> Preprocessing:
    factor = _number(definition, "rescale_factor", 1 / 255) if definition.get("do_rescale", True) else 1.0
    is_normalised = definition.get("do_normalize", True)
    mean = _by_channel(definition, "image_mean", channels) if is_normalised else (0.0,)
    deviation = _by_channel(definition, "image_std", channels) if is_normalised else (1.0,)
    # x·factor = (x/255)·(255·factor): one form covers both cases
    scale = 255 * factor
    shorter_side, size, crop = _resize_and_crop(definition, model_size)
    resample = definition.get("resample")
    return Preprocessing(
        channels=channels,
        mean=tuple(each / scale for each in mean),
        deviation=tuple(each / scale for each in deviation),
        shorter_side=shorter_side,
        size=size,
        crop=crop,
        resample=resample if resample in tuple(Image.Resampling) else int(Image.Resampling.BILINEAR),
        origin=PREPROCESSOR_FILE,
    )


def _resize_and_crop(
    definition: dict[str, Any], model_size: Size | None
) -> tuple[int | None, Size | None, Size | None]:
    """Return (shorter side, size, crop)."""
    crop = _size(definition.get("crop_size")) if definition.get("do_center_crop") else None
    if not definition.get("do_resize", True):
        return None, None if crop else model_size, crop
    requested = definition.get("size")
    edge = requested.get("shortest_edge") if isinstance(requested, dict) else None
    if edge is None and "crop_pct" in definition and type(requested) is int:
        edge = requested
    if edge is None:
        return None, _size(requested) or model_size, crop
    side = _side(edge)
    if definition.get("crop_pct") is None:
        return side, None, crop or (side, side)
    if side >= _RESIZED_FROM:
        return None, (side, side), crop
    return int(side / _share(definition)), None, (side, side)


def _of_timm(definition: Mapping[str, Any], channels: int, model_size: Size | None) -> Preprocessing:
    size = definition.get("input_size")
    wanted = _size({"height": size[1], "width": size[2]}) if isinstance(size, list) and len(size) == 3 else model_size
    interpolation = _INTERPOLATIONS.get(str(definition.get("interpolation")), Image.Resampling.BILINEAR)
    return Preprocessing(
        channels=channels,
        mean=_by_channel(definition, "mean", channels),
        deviation=_by_channel(definition, "std", channels),
        shorter_side=None if wanted is None else int(min(wanted) / _share(definition)),
        crop=wanted,
        resample=int(interpolation),
        origin="pretrained_cfg of config.json",
    )


def _size(definition: Any) -> Size | None:
    """Return (height, width) from either form; None where there is none."""
    if definition is None:
        return None
    if isinstance(definition, dict) and {"height", "width"} <= definition.keys():
        return _side(definition["height"]), _side(definition["width"])
    side = _side(
        definition["shortest_edge"] if isinstance(definition, dict) and "shortest_edge" in definition else definition
    )
    return side, side


def _side(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 2**13:
        raise _invalid("size", value)
    return value


def _share(definition: Mapping[str, Any]) -> float:
    share = _number(definition, "crop_pct", 1.0)
    if not 0.1 <= share <= 1:
        raise _invalid("crop_pct", share)
    return share


def _number(definition: Mapping[str, Any], name: str, default: float) -> float:
    value = definition.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise _invalid(name, value)
    return float(value)


def _by_channel(definition: Mapping[str, Any], name: str, channels: int) -> tuple[float, ...]:
    """Return numbers for each channel, or one for all; 0.5 where there are none."""
    value = definition.get(name, 0.5)
    values = value if isinstance(value, list) else [value]
    is_right = all(type(each) in (int, float) and math.isfinite(each) for each in values)
    if not is_right or len(values) not in (1, channels) or (name.endswith("std") and 0 in values):
        raise _invalid(name, value)
    return tuple(float(each) for each in values)


def _invalid(name: str, value: Any) -> UnusableModel:
    return UnusableModel(f"the model's settings for images are not valid: {name} {str(value)[:100]!r}", param="model")
