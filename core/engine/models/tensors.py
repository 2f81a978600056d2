"""Tensors streamed from and to safetensors files.

Files are read with plain reads at the offsets of their headers: a read holds just the requested tensor. Only weights
that stay for a whole pass and are read in part, such as embeddings, are mapped: memory holds the pages that were read.
"""

import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.cast import CastEntry
from core.engine.checkpoints.pieces import PiecedEntry
from core.engine.checkpoints.quantisation import WORD_BITS, QuantisedEntry
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry, encode_header
from core.engine.checkpoints.stacked import StackedEntry
from core.engine.models.accelerator import to_main_memory
from secateur_wire.errors import CorruptSafetensors, InvalidRequest, NotFiniteWeights

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in WEIGHT_DTYPES.values()}
_NAMES = {DTYPES[name]: stored for stored, name in WEIGHT_DTYPES.items()} | {
    torch.int64: "I64",
    torch.int32: "I32",
}
_STORED = {stored: DTYPES[name] for stored, name in WEIGHT_DTYPES.items()}
_QUANTISED = {"F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu, "U8": torch.uint8, "I32": torch.int32}
_AT_ONCE = 2**22
_FOUR_BITS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_EXPONENT_BIAS = 127


def to_out_in(weight: Tensor, family: Architecture) -> Tensor:
    """Transpose a stored weight to [out_features, in_features], or back, where the family stores it transposed.

    Tensors that are not matrices are returned unchanged.
    """
    return weight.T if family.transposed and weight.dim() == 2 else weight


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return a contiguous tensor's own memory."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data)


def read_tensor(entry: TensorEntry) -> Tensor:
    """Read one tensor in its stored dtype, or dequantised, to the CPU.

    Raises NotFiniteWeights for NaN or infinite values, CorruptSafetensors for a dtype that weights do not have or a
    short file, InvalidRequest for a value beyond the range of the dtype that it is cast to.
    """
    if isinstance(entry, CastEntry):
        return cast_weight(entry.name, read_tensor(entry.source), _STORED[entry.dtype])
    if entry.dtype not in _STORED:
        raise CorruptSafetensors(f"tensor {entry.name!r} is stored as {entry.dtype}, not as a weight", param="model")
    if isinstance(entry, PiecedEntry):
        row, pieces = torch.cat([read_tensor(part) for part in entry.parts], entry.pieces.dimension), entry.pieces
        return row.narrow(pieces.dimension, pieces.begin, entry.shape[pieces.dimension]).contiguous()
    if isinstance(entry, StackedEntry):
        return _read_stack(entry)
    if isinstance(entry, QuantisedEntry):
        codes, scales = read_codes(entry)
        tensor = dequantise(codes, scales, entry.block, _STORED[entry.dtype])
    else:
        tensor = _read(entry, _STORED[entry.dtype])
    # A finite sum proves that all values are finite. A sum may overflow, so only then check each value.
    if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise NotFiniteWeights(f"tensor {entry.name!r} holds {bad} values that are NaN or infinite", param="model")
    return tensor


def read_codes(entry: QuantisedEntry) -> tuple[Tensor, Tensor]:
    """Read the codes of a quantised weight, and the scales that multiply them, to the CPU; packed codes are int8."""
    codes, scales = (_read(each, (_STORED | _QUANTISED)[each.dtype]) for each in (entry.codes, entry.scales))
    return codes if entry.bits is None else unpack(codes, entry.bits), scales


def cast_weight(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in another dtype; raises InvalidRequest where float16 has no finite number for one of its values.

    `name` is the tensor's name, for the error. float16 ends at 65,504; bfloat16 has the range of float32.
    """
    cast = tensor.to(dtype)
    if dtype is torch.float16 and tensor.dtype is not dtype and not cast.isfinite().all():
        beyond = int((~cast.isfinite()).sum())
        raise InvalidRequest(
            f"output.dtype: tensor {name[:200]!r} has {beyond} values beyond the range of float16, up to "
            f"{float(tensor.abs().max()):.6g} where it ends at {torch.finfo(dtype).max:,.0f}: use bfloat16 or keep",
            param="output.dtype",
        )
    return cast


def _read_stack(entry: StackedEntry) -> Tensor:
    """Read a stack, a part at a time."""
    stack = torch.empty(entry.shape, dtype=_STORED[entry.dtype])
    for member, parts in zip(stack, entry.parts, strict=True):
        for rows, part in zip(member.chunk(len(parts)), parts, strict=True):
            rows.copy_(read_tensor(part))
    return stack


def _read(entry: TensorEntry, dtype: torch.dtype) -> Tensor:
    tensor = torch.empty(entry.shape, dtype=dtype)
    if tensor.numel() == 0:
        return tensor
    buffer = _bytes_of(tensor)
    with entry.file.open("rb", buffering=0) as stream:
        stream.seek(entry.start)
        read = 0
        while read < len(buffer):
            count = stream.readinto(buffer[read:])
            if not count:
                raise CorruptSafetensors(f"{entry.file.name} ends inside tensor {entry.name!r}", param="model")
            read += count
    return tensor


@dataclass(frozen=True)
class TensorInPlace:
    """Tensor of a file; it is mapped from `pages` of that file, which is None where the tensor is a copy."""

    tensor: Tensor
    pages: mmap.mmap | None = None

    def release(self) -> None:
        """Let memory forget the pages that were read; they are mapped again on use. Changed values are lost."""
        if self.pages is not None:
            self.pages.madvise(mmap.MADV_DONTNEED)


def mapped_tensor(entry: TensorEntry) -> TensorInPlace | None:
    """Return a tensor as its file holds it, without a copy; None where the file does not hold it as it is used.

    Changes of its values stay in memory. Its values are not checked.
    """
    if type(entry) is not TensorEntry or entry.dtype not in _STORED:
        return None
    dtype = _STORED[entry.dtype]
    if not entry.numel or entry.start % dtype.itemsize:
        return None
    before = entry.start % mmap.ALLOCATIONGRANULARITY  # a mapping begins at a page
    with entry.file.open("rb") as stream:
        pages = mmap.mmap(
            stream.fileno(), entry.end - entry.start + before, access=mmap.ACCESS_COPY, offset=entry.start - before
        )
    tensor = torch.frombuffer(pages, dtype=dtype, count=entry.numel, offset=before).view(entry.shape)
    return TensorInPlace(tensor, pages)


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file without a second copy of any tensor; rename it once complete; return its SHA-256."""
    copies = to_main_memory({name: tensor.detach() for name, tensor in tensors.items()})
    on_cpu = {name: copies.pop(name).contiguous() for name in tensors}
    header = encode_header((name, _NAMES[each.dtype], each.shape, each.nbytes) for name, each in on_cpu.items())
    digest = hashlib.sha256()
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb", buffering=0) as stream:
        for rest in (memoryview(header), *(_bytes_of(each) for each in on_cpu.values() if each.numel())):
            digest.update(rest)
            while rest:
                rest = rest[stream.write(rest) :]
    partial.replace(file)
    return digest.hexdigest()


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Load all tensors of one of our own files."""
    return load_file(file)


def dequantise(codes: Tensor, scales: Tensor, block: tuple[int, int] | None, dtype: torch.dtype) -> Tensor:
    """Return the weight of codes and scales: FP8 with a scale for each `block` of rows and columns, or MXFP4.

    Codes times scales are computed as in transformers: in float32, rounded once. They are processed a few at a time, so
    that only the codes are in memory beside the result.

    FP8, like integers of packed weights, is of shape [..., rows, columns] and scaled by [..., rows / block, columns /
    block], rounded up, or by a single number; MXFP4 is as `core.engine.checkpoints.quantisation` describes it.
    """
    return _mxfp4(codes, scales, dtype) if block is None else _fp8(codes, scales, block, dtype)


def unpack(words: Tensor, bits: int) -> Tensor:
    """Return the codes, int8 [rows, columns], in int32 words of packed codes of 4 or 8 bits."""
    shifts = torch.arange(0, WORD_BITS, bits, dtype=torch.int32, device=words.device)
    codes: Tensor = ((words.unsqueeze(-1) >> shifts) & (2**bits - 1)) - 2 ** (bits - 1)
    return codes.to(torch.int8).flatten(-2)


def _fp8(codes: Tensor, scales: Tensor, block: tuple[int, int], dtype: torch.dtype) -> Tensor:
    weight = torch.empty(codes.shape, dtype=dtype)
    *_, rows, columns = codes.shape
    grid = (-(-rows // block[0]), -(-columns // block[1]))
    step = max(1, _AT_ONCE // (columns * block[0])) * block[0]
    factors = scales.float().expand(*codes.shape[:-2], *grid).reshape(-1, *grid)
    for codes_RC, weight_RC, factors_GH in zip(
        codes.view(-1, rows, columns), weight.view(-1, rows, columns), factors, strict=True
    ):
        by_column_GC = factors_GH.repeat_interleave(block[1], dim=1)[:, :columns]
        for start in range(0, rows, step):
            part = codes_RC[start : start + step].float()
            scale = by_column_GC[start // block[0] : (start + step) // block[0]].repeat_interleave(block[0], dim=0)
            weight_RC[start : start + step] = part.mul_(scale[: len(part)])
    return weight


def _mxfp4(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    experts, outputs, groups, size = codes.shape
    values = torch.tensor([*_FOUR_BITS, *(-each for each in _FOUR_BITS)])
    weight_EIO = torch.empty(experts, 2 * size * groups, outputs, dtype=dtype)
    exponents = scales.view(torch.uint8).int() - _EXPONENT_BIAS
    step = max(1, _AT_ONCE // (2 * size * groups))
    for expert in range(experts):
        for start in range(0, outputs, step):
            part = codes[expert, start : start + step].int()
            both = torch.stack([values[part & 0x0F], values[part >> 4]], dim=-1).flatten(-2)
            scaled = torch.ldexp(both, exponents[expert, start : start + step, :, None])
            weight_EIO[expert, :, start : start + step] = scaled.flatten(-2).T
    return weight_EIO
