"""Tensors that are saved in a narrower dtype than that of their files."""

from dataclasses import dataclass

from core.engine.checkpoints.safetensors_header import TensorEntry, dtype_bytes


@dataclass(frozen=True)
class CastEntry(TensorEntry):
    """Tensor that is cast on reading: `dtype` is the new one; `source` is the tensor as the files store it.

    The position in a file is the source's.
    """

    source: TensorEntry

    @property
    def nbytes(self) -> int:
        return dtype_bytes(self.dtype, self.shape)
