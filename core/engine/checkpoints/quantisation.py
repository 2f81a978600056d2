"""Supported quantised weights, as config.json declares them: FP8, MXFP4, and the packed integers of our artifacts.

A quantised weight is two tensors of the file: its codes, and the scales that multiply them. Here the two become one
entry with the name, shape and dtype of the weight; `core.engine.models.tensors` computes the values on reading.

- `"quant_method": "fp8"`: codes F8_E4M3 under the weight's own name, scales under `…_scale_inv`, one for each block of
  `weight_block_size` ([rows, columns]; blocks at the edges may be smaller) or one for all. With a null block size, any
  grid of scales that divides the weight evenly.
- `"quant_method": "mxfp4"`: codes `…_blocks` [experts, outputs, groups, 16], two values of four bits a byte, the lower
  four bits first; scales `…_scales` [experts, outputs, groups], exponents of two with 127 added. The weight is
  [experts, inputs, outputs].
- `"quant_method": "compressed-tensors"`, format `pack-quantized`, in artifacts of this service alone: codes `…_packed`
  [outputs, words], int32 words of 8 codes of four bits or 4 of eight, the lowest bits first, with half their range
  added; scales `…_scale` [outputs, groups]; and the weight's shape, `…_shape`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES, WEIGHT_DTYPES, TensorEntry
from secateur_wire.base import JsonObject
from secateur_wire.errors import CorruptSafetensors, MissingTensors, UnusableModel

QUANTISATION_KEY: Final = "quantization_config"
DTYPE_KEYS = ("dtype", "torch_dtype")
_SUPPORTED = (
    "taken are 'fp8' (F8_E4M3 with scales, as DeepSeek-V3), 'mxfp4' (as gpt-oss), and plain float16, bfloat16 or "
    "float32 weights"
)
SHORT_FLOATS: Final = ("F8_", "F6_", "F4")
"""Beginnings of the names of dtypes that only codes of quantised weights have."""
_FP8_CODES, _FP8_SCALES, _FP8_ACTIVATIONS = "F8_E4M3", "_scale_inv", "activation_scale"
_FP8_SCALE_DTYPES = ("F32", "BF16", "F16", "F8_E8M0")
_FP8_BLOCK = (128, 128)
_MXFP4_CODES, _MXFP4_SCALES = "_blocks", "_scales"
_MXFP4_GROUP_BYTES = 16
_LARGEST_BLOCK = 2**16
_PACKED: Final = "compressed-tensors"
PACKED_CODES: Final = "_packed"
"""End of the names of tensors of packed codes."""
_PACKED_SCALES, _PACKED_SHAPE = "_scale", "_shape"
WORD_BITS: Final = 32
"""Bits of a word of packed codes; 4 and 8 divide it, so that no code is in two words."""


@dataclass(frozen=True)
class Quantisation:
    """Quantisation of a folder's weights; `dtype` is the dequantised dtype, by its name in headers.

    Packed codes have `bits`, and a scale for each row in each group of `group_size` columns (None: for each row).
    """

    method: Literal["fp8", "mxfp4", "compressed-tensors"]
    dtype: str
    block: tuple[int, int] | None = None
    bits: int | None = None
    group_size: int | None = None


@dataclass(frozen=True)
class QuantisedEntry(TensorEntry):
    """Weight made of codes and scales: `dtype` and `shape` are the weight's; the position in the file is the codes'.

    `block` is the number of rows and columns that share a scale; None for MXFP4. `bits` are those of packed codes.
    """

    codes: TensorEntry
    scales: TensorEntry
    block: tuple[int, int] | None
    bits: int | None = None

    @property
    def nbytes(self) -> int:
        return self.numel * WEIGHT_BYTES[WEIGHT_DTYPES[self.dtype]]


def packed_config(bits: int, group_size: int | None, ignored: Sequence[str]) -> JsonObject:
    """Return the entry of config.json for packed weights of all linear layers but the `ignored` ones.

    Transformers and vLLM read it as the library compressed-tensors writes it.
    """
    weights: JsonObject = {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "dynamic": False,
        "strategy": "channel" if group_size is None else "group",
        "group_size": group_size,
    }
    return {
        "quant_method": _PACKED,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": [*ignored],
    }


def require_ours(config: Mapping[str, Any], *, own_artifact: bool) -> None:
    """Raise UnusableModel for packed weights that this service did not write; `own_artifact` says that it did."""
    quantisation = quantisation_of(config)
    if quantisation is not None and quantisation.method == _PACKED and not own_artifact:
        raise _not_ours()


def quantisation_of(config: Mapping[str, Any]) -> Quantisation | None:
    """Return the quantisation that a config declares; None where its weights are not quantised.

    Raises UnusableModel for an unsupported quantisation, and for keys and values that the supported ones do not have.
    """
    declared = config.get(QUANTISATION_KEY)
    if declared is None:
        return None
    method = declared.get("quant_method") if isinstance(declared, dict) else None
    if method == _PACKED:
        return _packed_quantisation(config, declared)
    if method not in ("fp8", "mxfp4"):
        shown = "no 'quant_method'" if method is None else f"'quant_method' {str(method)[:50]!r}"
        raise UnusableModel(f"config.json holds {QUANTISATION_KEY!r} with {shown}: {_SUPPORTED}", param="model")
    for key, value in declared.items():
        if key not in _KEYS[method]:
            raise _refused(key, f"which {method!r} is not known to have: remove the key if nothing depends on it")
        if not _KEYS[method][key](value):
            raise _refused(key, f"and {str(value)[:80]!r} is not read: {_SUPPORTED}")
    block = declared.get("weight_block_size", _FP8_BLOCK) if method == "fp8" else None
    return Quantisation(method, _dtype(config), None if block is None else (block[0], block[1]))


def _packed_quantisation(config: Mapping[str, Any], declared: Mapping[str, Any]) -> Quantisation:
    """Return the quantisation of packed weights; raises UnusableModel where this service does not write it so."""
    try:
        weights = declared["config_groups"]["group_0"]["weights"]
        bits, group_size, ignored = weights["num_bits"], weights["group_size"], declared["ignore"]
        is_known = (bits, group_size) in _PACKINGS and _is_names(ignored)
        if is_known and declared == packed_config(bits, group_size, ignored):
            return Quantisation(_PACKED, _dtype(config), bits=bits, group_size=group_size)
    except (KeyError, TypeError):
        pass
    raise _not_ours()


def _not_ours() -> UnusableModel:
    return UnusableModel(
        f"config.json holds {QUANTISATION_KEY!r} with 'quant_method' {_PACKED!r}: {_SUPPORTED}. Packed integers "
        "are taken from the job that wrote them alone: name it job:ID",
        param="model",
    )


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the dequantised model: without the quantisation, and with the weights' dtype."""
    plain = dict(config)
    if plain.get(QUANTISATION_KEY) is not None:
        del plain[QUANTISATION_KEY]
        plain.update({} if any(plain.get(key) for key in DTYPE_KEYS) else {"dtype": WEIGHT_DTYPES[_dtype(config)]})
    return plain


def join_quantised(stored: Mapping[str, TensorEntry], quantisation: Quantisation) -> dict[str, TensorEntry]:
    """Return a folder's tensors by key, with one entry for the codes and scales of each quantised weight.

    Scales of activations and shapes of packed weights are left out. Raises MissingTensors for codes
    without scales or scales without codes, CorruptSafetensors where their shapes or dtypes do not fit.
    """
    codes_end, scales_end, join = _LAYOUTS[quantisation.method]
    joined: dict[str, TensorEntry] = {}
    for key, entry in stored.items():
        if quantisation.method in _LEFT_OUT and key.endswith(_LEFT_OUT[quantisation.method]):
            continue
        name = key.removesuffix(codes_end)
        scales = stored.get(name + scales_end)
        if key.endswith(scales_end):
            codes = key.removesuffix(scales_end) + codes_end
            if codes not in stored:
                raise MissingTensors(f"the files have the scales {key[:200]} and lack {codes[:200]}", param="model")
        elif scales is not None:
            joined[name] = join(name, entry, scales, quantisation)
        elif name != key or entry.dtype == _FP8_CODES:
            raise MissingTensors(f"the files lack {name[:200]}{scales_end}, the scales of {key[:200]}", param="model")
        else:
            joined[key] = entry
    return joined


def require_declared(tensors: Mapping[str, TensorEntry]) -> None:
    """Raise UnusableModel for a tensor in floats of 8 bits or fewer that the config does not declare."""
    for key, entry in tensors.items():
        if entry.dtype.startswith(SHORT_FLOATS):
            raise UnusableModel(
                f"tensor {key[:200]!r} is stored as {entry.dtype}, and config.json says so in no {QUANTISATION_KEY!r}: "
                f"{_SUPPORTED}",
                param="model",
            )


def _fp8(name: str, codes: TensorEntry, scales: TensorEntry, quantisation: Quantisation) -> QuantisedEntry:
    if codes.dtype != _FP8_CODES or scales.dtype not in _FP8_SCALE_DTYPES:
        raise _mismatch(codes, scales, f"codes are {_FP8_CODES}, scales one of {', '.join(_FP8_SCALE_DTYPES)}")
    if len(codes.shape) < 2 or not codes.numel or not scales.numel:
        raise _mismatch(codes, scales, "weights must have two or more dimensions, and scales as many")
    *lead, rows, columns = codes.shape
    block, grid = quantisation.block, scales.shape
    if scales.numel == 1:
        block = (rows, columns)
    elif block is not None and grid != (*lead, -(-rows // block[0]), -(-columns // block[1])):
        raise _mismatch(codes, scales, f"there is one scale for each block of {block[0]} by {block[1]}, or one for all")
    elif block is None:
        if len(grid) != len(codes.shape) or grid[:-2] != tuple(lead) or rows % grid[-2] or columns % grid[-1]:
            raise _mismatch(codes, scales, "scales must divide rows and columns evenly")
        block = (rows // grid[-2], columns // grid[-1])
    return _entry(name, codes.shape, quantisation, codes, scales, block)


def _mxfp4(name: str, codes: TensorEntry, scales: TensorEntry, quantisation: Quantisation) -> QuantisedEntry:
    if codes.dtype != "U8" or scales.dtype not in ("U8", "F8_E8M0"):
        raise _mismatch(codes, scales, "codes must be U8, and scales U8 or F8_E8M0")
    if len(codes.shape) != 4 or codes.shape[-1] != _MXFP4_GROUP_BYTES or scales.shape != codes.shape[:-1]:
        raise _mismatch(
            codes, scales, f"codes are [experts, outputs, groups, {_MXFP4_GROUP_BYTES}], with a scale a group"
        )
    experts, outputs, groups, _ = codes.shape
    return _entry(name, (experts, 2 * _MXFP4_GROUP_BYTES * groups, outputs), quantisation, codes, scales, None)


def _packed(name: str, codes: TensorEntry, scales: TensorEntry, quantisation: Quantisation) -> QuantisedEntry:
    assert quantisation.bits is not None
    if codes.dtype != "I32" or scales.dtype not in WEIGHT_DTYPES or len(codes.shape) != 2 or len(scales.shape) != 2:
        raise _mismatch(codes, scales, "codes are I32, scales a dtype of weights, and both have two dimensions")
    rows, columns = codes.shape[0], codes.shape[1] * WORD_BITS // quantisation.bits
    group_size = quantisation.group_size or columns
    if scales.shape[0] != rows or scales.shape[1] * group_size != columns:
        raise _mismatch(codes, scales, f"there is one scale for each row in each {group_size} columns")
    entry = _entry(name, (rows, columns), quantisation, codes, scales, (1, group_size))
    return replace(entry, dtype=scales.dtype, bits=quantisation.bits)


def _entry(
    name: str,
    shape: tuple[int, ...],
    quantisation: Quantisation,
    codes: TensorEntry,
    scales: TensorEntry,
    block: tuple[int, int] | None,
) -> QuantisedEntry:
    return QuantisedEntry(
        name, quantisation.dtype, shape, codes.file, codes.start, codes.end, codes=codes, scales=scales, block=block
    )


def _dtype(config: Mapping[str, Any]) -> str:
    """Return the dequantised dtype, by its name in headers: the config's dtype, or bfloat16."""
    declared = next((value for key in DTYPE_KEYS if (value := config.get(key))), None)
    return next((stored for stored, name in WEIGHT_DTYPES.items() if name == declared), "BF16")


def _mismatch(codes: TensorEntry, scales: TensorEntry, needed: str) -> CorruptSafetensors:
    return CorruptSafetensors(
        f"{codes.name[:200]!r} is {codes.dtype} {list(codes.shape)}, its scales {scales.dtype} {list(scales.shape)}: "
        f"{needed}",
        param="model",
    )


def _refused(key: str, reason: str) -> UnusableModel:
    return UnusableModel(f"config.json holds '{QUANTISATION_KEY}.{key[:100]}', {reason}", param="model")


def _one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: any(value is each or (isinstance(value, str) and value == each) for each in values)


def _is_block(value: object) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(each) is int and 0 < each <= _LARGEST_BLOCK for each in value)
    )


def _is_names(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))


_COMMON: dict[str, Callable[[object], bool]] = {
    "modules_to_not_convert": _is_names,
    "dequantize": _one_of(True, False, None),
}
_KEYS: dict[str, dict[str, Callable[[object], bool]]] = {
    "fp8": _COMMON
    | {
        "quant_method": _one_of("fp8"),
        "fmt": _one_of("e4m3", None),
        "weight_block_size": _is_block,
        "activation_scheme": _one_of("dynamic", "static"),
        "scale_fmt": _one_of("float", "ue8m0", None),
        "expert_dtype": _one_of("fp8", None),
        "ignored_layers": _is_names,
        "modules_to_convert": _is_names,
    },
    "mxfp4": _COMMON | {"quant_method": _one_of("mxfp4")},
}
_LAYOUTS = {
    "fp8": ("", _FP8_SCALES, _fp8),
    "mxfp4": (_MXFP4_CODES, _MXFP4_SCALES, _mxfp4),
    _PACKED: (PACKED_CODES, _PACKED_SCALES, _packed),
}
_LEFT_OUT = {"fp8": _FP8_ACTIVATIONS, _PACKED: _PACKED_SHAPE}
"""Ends of the keys of tensors that the dequantised model does not use."""
_PACKINGS = ((8, None), (4, 128), (4, 64), (4, 32))
"""Bits and group sizes of packed weights."""
